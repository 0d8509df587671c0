"""Bad input: one line that says what came, what was expected and what to do, and the documented exit code."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from cluster import cli
from finegpr.storage import write_arrays

MEASURE = [
    "measure.network=vgg19",
    "measure.weights=random",
    "measure.height=32",
    "measure.width=32",
    "measure.basis_images=8",
]
SMALL = [*MEASURE, "measure.images_per_cell=1", "search.evaluations=40", "train.recipe=seconds", "train.steps=2"]


@pytest.fixture
def data(folders: Path, tmp_path: Path) -> Path:
    """A copy to spoil, with a config beside it."""
    shutil.copytree(folders, tmp_path / "data")
    (tmp_path / "config.yaml").write_text(
        "name: mine\n"
        f"source: {{root: {tmp_path}/data/source, layout: finegpr}}\n"
        f"target: {{root: {tmp_path}/data/target, layout: market1501}}\n"
        "budget: {images: 12}\narms: [random, mmd_rbf]\n"
    )
    return tmp_path / "data"


@pytest.fixture
def run(data: Path, capfd: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str]]:
    """Runs ``aost run`` on the data with settings; gives the exit code and the last line on standard error."""

    def run(*settings: str, replace: tuple[str, str] | None = None) -> tuple[int, str]:
        config = data.parent / "config.yaml"
        if replace:
            assert replace[0] in config.read_text()
            config.write_text(config.read_text().replace(*replace))
        arguments = ["run", str(config), "--output", str(data.parent / "run"), "--serial", "--set", *SMALL, *settings]
        code = cli.run(arguments)
        lines = capfd.readouterr().err.splitlines()
        assert not any("Traceback" in line for line in lines)
        return code, lines[-1]

    return run


def test_good_folders_run(run: Callable[..., tuple[int, str]], data: Path) -> None:
    code, said = run()
    assert code == 0, said
    rows = json.loads((data.parent / "run/results.json").read_text())
    assert {row["arm"] for row in rows} == {"random", "mmd_rbf"}


def test_missing_folder(run: Callable[..., tuple[int, str]]) -> None:
    code, said = run(replace=("data/source", "data/nowhere"))
    assert code == 3
    assert "nowhere" in said


def test_empty_folder(run: Callable[..., tuple[int, str]], data: Path) -> None:
    shutil.rmtree(data / "source")
    (data / "source").mkdir()
    code, said = run()
    assert code == 3
    assert "holds no images" in said


def test_wrong_layout(run: Callable[..., tuple[int, str]]) -> None:
    code, said = run(replace=("data/source, layout: finegpr", "data/target, layout: finegpr"))
    assert code == 3
    assert "layout finegpr" in said
    assert "expected names such as" in said


def test_unknown_layout_and_option(run: Callable[..., tuple[int, str]]) -> None:
    code, said = run(replace=("layout: finegpr", "layout: finegrp"))
    assert code == 2
    assert "finegpr" in said
    code, said = run(replace=("layout: finegrp", "layout: finegpr, options: {identity_attribute: x.csv}"))
    assert code == 2
    assert "identity_attributes" in said


def test_bad_images_among_good_ones_are_quarantined_with_their_reason(
    run: Callable[..., tuple[int, str]], data: Path
) -> None:
    pictures = sorted((data / "source").glob("*/*.jpg"))
    pictures[0].write_bytes(b"")
    pictures[7].write_bytes(pictures[7].read_bytes()[:400])
    Image.fromarray(np.full((48, 24), 40_000, np.uint16)).save(pictures[14], format="PNG")
    Image.open(pictures[21]).convert("CMYK").save(pictures[21], format="JPEG")
    code, said = run("measure.images_per_cell=null")
    assert code == 0, said
    quarantined = json.loads((data.parent / "run/report.json").read_text())["provenance"]["quarantine"]
    assert [Path(row["path"]).name for row in quarantined] == [pictures[0].name, pictures[7].name]
    assert all(row["reason"] for row in quarantined)


def test_too_many_bad_images_fail(run: Callable[..., tuple[int, str]], data: Path) -> None:
    for picture in sorted((data / "source").glob("*/*.jpg"))[::3]:
        picture.write_bytes(b"<html>404</html>")
    code, said = run("measure.images_per_cell=null")
    assert code == 3
    assert "24 of 72" in said


@pytest.mark.parametrize(
    ("setting", "said"),
    [
        ("measure.hight=128", "did you mean 'height'?"),
        ("measure.height=tall", "measure.height"),
        ("budget.images=-1", "budget.images"),
        ("seeds=[0, 0]", "seeds"),
        ("arms=[random, mmd_rfb]", "mmd_rfb"),
        ("train.recipe=fast", "seconds"),
        ("search.optimizer=pos", "pso"),
    ],
)
def test_wrong_config(run: Callable[..., tuple[int, str]], setting: str, said: str) -> None:
    code, line = run(setting)
    assert code == 2, line
    assert said in line


def test_config_that_cannot_be_read(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert cli.run(["run", str(tmp_path / "missing.yaml")]) == 2
    assert "cannot read config" in capfd.readouterr().err


def test_target_without_images(run: Callable[..., tuple[int, str]], data: Path) -> None:
    for picture in (data / "target/bounding_box_train").iterdir():
        picture.unlink()
    code, said = run()
    assert code == 3
    assert "no training photos" in said


def test_target_of_one_image_warns(run: Callable[..., tuple[int, str]], data: Path) -> None:
    for picture in sorted((data / "target/bounding_box_train").iterdir())[1:]:
        picture.unlink()
    code, said = run()
    assert code == 0, said
    notes = json.loads((data.parent / "run/report.json").read_text())["notes"]
    assert any("1 image" in note for note in notes)


def test_budget_larger_than_the_source(run: Callable[..., tuple[int, str]]) -> None:
    code, said = run("budget.images=100000")
    assert code == 3
    assert "100000" in said
    assert "72" in said


def test_attribute_table_that_misses_identities(run: Callable[..., tuple[int, str]], data: Path) -> None:
    table = data / "source/attributes.csv"
    table.write_text("\n".join(table.read_text().splitlines()[:-2]) + "\n")
    code, said = run()
    assert code == 3
    assert "2" in said
    assert "identit" in said


def test_output_that_cannot_be_written(data: Path, capfd: pytest.CaptureFixture[str]) -> None:
    # A file in the way is refused even to root, whom permissions do not stop.
    (data.parent / "file").write_text("")
    code = cli.run(["run", str(data.parent / "config.yaml"), "--output", str(data.parent / "file/run"), "--serial"])
    assert code == 6
    assert "cannot write" in capfd.readouterr().err


def test_weights_of_another_net(run: Callable[..., tuple[int, str]], data: Path) -> None:
    other = data / "other.safetensors"
    write_arrays(other, {"conv1.weight": np.zeros((4, 3, 3, 3), np.float32)})
    code, said = run(f"measure.weights={other}")
    assert code == 3
    assert "other.safetensors" in said
    code, said = run(f"train.weights={other}")
    assert code == 3
    assert "other.safetensors" in said


def test_pickled_and_missing_weights(
    run: Callable[..., tuple[int, str]], data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pickled = data / "vgg19.pth"
    pickled.write_bytes(b"\x80\x04\x95\x00\x00")
    code, said = run(f"measure.weights={pickled}")
    assert code == 3
    assert "safetensors" in said
    monkeypatch.setenv("AOST_WEIGHTS", str(data / "nowhere"))
    code, said = run("measure.weights=imagenet")
    assert code == 3
    assert "`aost weights vgg19 --fetch` brings them" in said


@pytest.mark.parametrize(
    ("setting", "code", "said"),
    [
        ("seed=-5", 2, "seed"),
        ("subsets={random: {weather: [sunny]}}", 2, "random"),
        ("subsets={../x: {weather: [sunny]}}", 2, "../x"),
        ("truth={wether: [sunny]}", 3, "wether"),
        ("truth={weather: [suny]}", 3, "suny"),
        ("source.options={identity_attributes: 3}", 2, "identity_attributes"),
    ],
)
def test_settings_that_would_be_ignored_or_escape(
    run: Callable[..., tuple[int, str]], setting: str, code: int, said: str
) -> None:
    got, line = run(setting)
    assert got == code, line
    assert said in line


def test_an_arm_of_values_that_no_image_has_is_refused_before_measuring(
    run: Callable[..., tuple[int, str]], data: Path
) -> None:
    code, said = run("subsets={front: {viewpoint: [90deg]}}", "arms=[random, mmd_rbf, front]")
    assert code == 3
    assert "90deg" in said
    assert not (data.parent / "run/measure").exists()
