"""The manual of settings: shipped configs are valid, everything.yaml names every key, and what a help says is true."""

import re
import shlex
from collections.abc import Iterator
from importlib import resources
from typing import Any

import pytest
from pydantic import BaseModel

from cluster import cli, options
from cluster.recipes import train_config
from cluster.run.config import MeasureVerbConfig, RunConfig, run_config
from cluster.settings import override, parse, validate
from cluster.verbs import VERBS
from cluster.verbs.search import search_config
from finegpr.layouts.walk import IMAGE_SUFFIXES
from finegpr.measuring.retarget import RetargetConfig
from search.sweep import SweepConfig

CONFIGS = {each.name: each for each in (resources.files("cluster") / "configs").iterdir() if each.name.endswith("yaml")}


def loaded(name: str, *, set_all: bool = False) -> dict[str, Any]:
    """A shipped config; with ``set_all``, every key in it that stands behind a #."""
    text = CONFIGS[name].read_text(encoding="utf-8")
    if set_all:
        text = re.sub(r"(?m)^#(?=[a-z_]+:|  +[a-z_]+:)", "", text)
    mapping: dict[str, Any] = parse(text, name)
    return mapping


def fields(model: type[BaseModel], prefix: str = "") -> Iterator[str]:
    """Dotted names of all settings below a model, those of nested models in place of the nested model."""
    for name, field in model.model_fields.items():
        kinds = [field.annotation, *getattr(field.annotation, "__args__", ())]
        below = [kind for kind in kinds if isinstance(kind, type) and issubclass(kind, BaseModel)]
        if below and prefix + name != "training.train":  # its keys are those of train
            yield from fields(below[0], f"{prefix}{name}.")
        else:
            yield prefix + name


@pytest.mark.parametrize("name", CONFIGS)
def test_a_shipped_config_is_valid(name: str) -> None:
    assert run_config(loaded(name), name).name


def test_everything_yaml_holds_everything() -> None:
    mapping = loaded("everything.yaml", set_all=True)
    named = {name for name in fields(RunConfig) if _holds(mapping, name.split("."))}
    assert set(fields(RunConfig)) - named == set()


def test_what_stands_behind_a_hash_is_valid() -> None:
    mapping = loaded("everything.yaml", set_all=True)
    world = mapping.pop("world")
    run_config(mapping, "everything.yaml")
    run_config({**{key: mapping[key] for key in ("name", "budget")}, "world": world}, "everything.yaml: world")


def test_a_default_behind_a_hash_is_the_default() -> None:
    """Where a line gives one plain value, it is the field's default; the rest are examples."""
    mapping = loaded("everything.yaml", set_all=True)
    default = run_config({key: mapping[key] for key in ("name", "budget", "source", "target")}, "default")
    for section in ("measure", "search", "space", "budget", "ray"):
        for key, value in mapping[section].items():
            if value is None or isinstance(value, bool | int | float | str):
                assert getattr(getattr(default, section), key) == value, f"{section}.{key}"


def _holds(mapping: Any, names: list[str]) -> bool:
    for name in names:
        if not isinstance(mapping, dict) or name not in mapping:
            return False
        mapping = mapping[name]
    return True


def examples(verb: type[options.Verb]) -> list[str]:
    """The examples of a verb's help, each as one line."""
    text = (verb.__doc__ or "").replace("\\\n", " ")
    return re.findall(r"(?m)^ *Example: aost (.*)$", text)


@pytest.mark.parametrize("verb", VERBS)
def test_the_examples_of_a_help_are_commands(verb: type[options.Verb]) -> None:
    assert examples(verb)
    for example in examples(verb):
        parsed = cli._parse(shlex.split(example))
        assert isinstance(parsed, verb)
        _require_settings(parsed)


def _require_settings(verb: options.Verb) -> None:
    """Raises ConfigError for a setting that the verb would refuse."""
    match verb:
        case options.Search():
            search_config(override({}, verb.set))
        case options.Sweep():
            validate(SweepConfig, override({"targets": ["market"], "layer_weights": [[1]]}, verb.set), "--set")
        case options.Measure(from_sketches=None):
            validate(MeasureVerbConfig, override({}, verb.set), "--set")
        case options.Measure():
            validate(RetargetConfig, override({}, verb.set), "--set")
        case options.Train():
            train_config({"recipe": verb.recipe, **override({}, verb.set)}, "--set")
        case options.Run() | options.Demo():
            run_config(override(loaded("demo.yaml"), verb.set), "demo.yaml")


def test_the_suffixes_that_are_read_are_in_the_help() -> None:
    words = re.findall(r" (\.[a-z]+)\b", options.Index.__doc__ or "")
    assert IMAGE_SUFFIXES.issubset(words)


TRAINED = ("training.train.recipe=seconds", "training.seconds_per_image=0.001")


@pytest.mark.parametrize(
    ("verb", "least"),
    [
        (options.Measure(targets=()), ("adaptive.budget.images=9",)),
        (options.Search(catalog="x"), ("budget.images=9", *TRAINED)),  # type: ignore[arg-type]
        (options.Sweep(catalog="x"), ("images=[9]",)),  # type: ignore[arg-type]
        (options.Train(manifest="x", recipe="paper"), ()),  # type: ignore[arg-type]
    ],
)
def test_the_settings_that_a_help_lists_exist(verb: options.Verb, least: tuple[str, ...]) -> None:
    """Every key=value of the indented lists is taken by the verb."""
    blocks = [block for block in (verb.__doc__ or "").split("\n\n") if re.match(r" {5,}[a-z]", block)]
    listed = re.findall(r"(?<![\w.])[a-z][a-z_.]*=\S*[\w\]]", "\n".join(blocks))
    assert len(listed) > 5
    for setting in listed:
        _require_settings(type(verb)(**{**vars(verb), "set": (*least, setting)}))
