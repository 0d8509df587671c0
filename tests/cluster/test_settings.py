"""YAML that people write: surprises and bombs are refused in one line that says where."""

from pathlib import Path

import pytest

from cluster.settings import MAX_BYTES, load_mapping, override, parse, validate
from finegpr.config import Config
from finegpr.errors import ConfigError


class Inner(Config):
    height: int = 1
    rate: float = 0.5


class Outer(Config):
    name: str
    measure: Inner = Inner()
    seeds: tuple[int, ...] = ()


def test_scalars_are_yaml_1_2() -> None:
    assert parse("{a: 1e-3, b: no, c: 2020-01-01, d: true, e: null, f: 010, g: -.5}", "text") == {
        "a": 0.001,
        "b": "no",
        "c": "2020-01-01",
        "d": True,
        "e": None,
        "f": 10,
        "g": -0.5,
    }


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a: 1\na: 2", "line 2: key 'a' is there twice"),
        ("a: [1", "line"),
        ("1: 2", "key 1 should be text"),
        ("a: !!python/object/apply:os.system [exit]", "python/object"),
        ("a: " + "[" * 60 + "]" * 60, "deeper than"),
        ("a: &x [1]\nb: [" + "*x, " * 101 + "]", "aliases"),
        ("\x00", "not YAML"),
    ],
)
def test_refused_documents(text: str, said: str) -> None:
    with pytest.raises(ConfigError, match=said.replace("(", r"\(")) as caught:
        parse(text, "text")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("mapping", "said"),
    [
        ({"measure": {"hight": 2}}, "unknown key 'measure.hight'; did you mean 'height'?"),
        ({"sedes": [1]}, "did you mean 'seeds'?"),
        ({"measure": {"height": "2"}}, "measure.height"),
        ({"measure": {"height": 2.5}}, "got 2.5"),
        ({"seeds": ["x"]}, "seeds.0"),
        ({"measure": 3}, "measure"),
        ({"measure": {"rate": float("nan")}}, "config.yaml"),
        ({"measur": {"height": 2}}, "unknown key 'measur'; did you mean 'measure'?"),
        ({"sedes": [1], "measure": {"hight": 2, "rate": "x"}}, "did you mean 'height'?; unknown key 'sedes'"),
        ({"height": 2}, "unknown key 'height'; did you mean 'measure.height'? Here known: measure, name, seeds"),
        ({"nonsense": 2}, "unknown key 'nonsense'; known: measure, name, seeds"),
    ],
)
def test_wrong_fields_are_named(mapping: dict[str, object], said: str) -> None:
    with pytest.raises(ConfigError) as caught:
        validate(Outer, {"name": "x", **mapping}, "config.yaml")
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_misspelt_key_is_named_and_not_the_one_that_is_missing_by_it() -> None:
    with pytest.raises(ConfigError, match="unknown key 'nmae'; did you mean 'name'"):
        validate(Outer, {"nmae": "x"}, "config.yaml")
    with pytest.raises(ConfigError, match="name: Field required"):
        validate(Outer, {"seeds": ["x"]}, "config.yaml")


def test_override_reads_yaml_values_and_leaves_the_original() -> None:
    original = {"measure": {"height": 1}}
    changed = override(original, ["measure.height=8", "seeds=[1, 2]", "measure.rate=1e-3", "name=x"])
    assert validate(Outer, changed, "--set") == Outer(measure=Inner(height=8, rate=0.001), seeds=(1, 2), name="x")
    assert original == {"measure": {"height": 1}}


@pytest.mark.parametrize("setting", ["height", "=3", "measure.height.deeper=1"])
def test_override_refuses(setting: str) -> None:
    with pytest.raises(ConfigError, match="--set"):
        override({"measure": {"height": 1}}, [setting])


def test_files(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot read config"):
        load_mapping(tmp_path / "missing.yaml")
    large = tmp_path / "large.yaml"
    large.write_bytes(b"#" * (MAX_BYTES + 1))
    with pytest.raises(ConfigError, match="bytes"):
        load_mapping(large)
    large.write_text("- 1")
    with pytest.raises(ConfigError, match="got list"):
        load_mapping(large)
    large.write_bytes(b"\xff\xfe\xff")
    with pytest.raises(ConfigError, match="UTF-8"):
        load_mapping(large)
