"""A verb that writes where a finished result lies: it goes on, is refused by name, or keeps the old one beside."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from finegpr.catalog import Catalog

MEASURE = [
    "network=vgg19",
    "weights=random",
    "height=32",
    "width=32",
    "basis_images=8",
    "images_per_cell=1",
    "target_images=8",
]
Aost = Callable[..., tuple[int, str]]


@pytest.fixture
def source(people: Catalog) -> Path:
    return Path(str(people.root)) / "source.parquet"


def test_a_measurement_with_other_settings_or_targets_is_refused(aost: Aost, source: Path, tmp_path: Path) -> None:
    out, other = tmp_path / "out", tmp_path / "other.parquet"
    Catalog.read(source).take(range(20)).write(other)
    line = f"measure {source} --targets {source} --output {out} --serial --set"
    assert aost(line, *MEASURE)[0] == 0
    before = {path.name: path.read_bytes() for path in out.glob("*.json") if not path.name.startswith(".")}
    for changed, said in (
        ((line, *MEASURE, "seed=1"), "settings.seed: 0 -> 1"),
        ((line.replace(f"--targets {source}", f"--targets {other}"), *MEASURE), "targets.other"),
        ((line.replace(f"--targets {source}", f"--targets {source} {other}"), *MEASURE), "targets.other"),
        ((line.replace(f"measure {source}", f"measure {other}"), *MEASURE), "source:"),
        ((line, *MEASURE, "adaptive.budget.images=20"), "adaptive"),
    ):
        code, told = aost(*changed)
        assert code == 2, told
        assert said in told
        assert "--fresh" in told
    assert {name: (out / name).read_bytes() for name in before} == before
    assert aost(line, *MEASURE)[0] == 0  # the same goes on

    code, told = aost(line.replace("--serial", "--serial --fresh"), *MEASURE, "seed=1")
    assert code == 0, told
    assert f"kept as {out}/before-1" in told
    assert {name: (out / "before-1" / name).read_bytes() for name in before} == before


def test_targets_from_sketches_are_added_and_never_lost(aost: Aost, source: Path, tmp_path: Path) -> None:
    one, two = tmp_path / "one.parquet", tmp_path / "two.parquet"
    for path, rows in ((one, range(20)), (two, range(20, 60))):
        Catalog.read(source).take(rows).write(path)
    complete = ["style_coordinates=8", "content_coordinates=8"]
    base = f"measure {source} --targets {source} --output {tmp_path}/base --serial --set"
    assert aost(base, *MEASURE, *complete)[0] == 0
    loose = ["max_off_basis=1", "max_error=100"]
    line = f"measure --from-sketches {tmp_path}/base --output {tmp_path}/new --targets"
    assert aost(line, str(one), "--set", *loose)[0] == 0
    code, told = aost(line, str(two), "--set", *loose)
    assert code == 2
    assert "targets.one" in told
    assert aost(line, str(one), str(two), "--set", *loose)[0] == 0
    shutil.move(tmp_path / "base", tmp_path / "moved")
    assert aost(line.replace("/base", "/moved"), str(one), str(two), "--set", *loose)[0] == 0


def test_a_file_that_is_replaced_is_kept_unless_it_is_the_same(aost: Aost, source: Path, tmp_path: Path) -> None:
    manifest = tmp_path / "manifest.parquet"
    line = f"select {source} --output {manifest} --images"
    assert aost(line, "12")[0] == 0
    first = manifest.read_bytes()
    assert aost(line, "12")[0] == 0
    assert [path.name for path in tmp_path.iterdir()] == [manifest.name]
    code, told = aost(line, "24")
    assert code == 0
    kept = tmp_path / "manifest.before-1.parquet"
    assert f"it is kept as {kept}" in told
    assert kept.read_bytes() == first
    assert len(Catalog.read(manifest)) == 24
    assert aost(line, "2400000")[0] == 3  # nothing is written, nothing is kept
    assert sorted(path.name for path in tmp_path.iterdir()) == ["manifest.before-1.parquet", "manifest.parquet"]

    catalog = tmp_path / "index" / "photos.parquet"
    for number, root in enumerate((source.parent, source.parent / "nothing", source.parent)):
        code, told = aost(f"index {root} --layout finegpr --output {catalog}")
        assert (code, "kept" in told) == ((3, False) if number == 1 else (0, False)), told
    assert aost(f"index {source.parent} --layout folder --output {catalog}")[0] == 0
    assert (catalog.parent / "photos.before-1.parquet").exists()


def test_a_search_and_a_training_begin_again_beside_the_old(aost: Aost, source: Path, tmp_path: Path) -> None:
    measured, out, model = tmp_path / "measured", tmp_path / "search", tmp_path / "model"
    assert aost(f"measure {source} --targets {source} --output {measured} --serial --set", *MEASURE)[0] == 0
    search = f"search {source} --measurements {measured} --output {out} --set evaluations=20 budget.images=20"
    train = f"train {source} --recipe seconds --output {model} --set steps=1"
    for line, changed, said, finished in (
        (search, search + " seed=1", "seed: 0 -> 1", out / "journal.jsonl"),
        (train, train.replace("steps=1", "steps=2"), "settings.steps: 1 -> 2", model / "model.safetensors"),
    ):
        assert aost(line)[0] == 0
        before = finished.read_bytes()
        code, told = aost(changed)
        assert code == 2, told
        assert said in told
        assert finished.read_bytes() == before
        code, told = aost(changed.replace(" --output", " --fresh --output"))
        assert code == 0, told
        assert (finished.parent / "before-1" / finished.name).read_bytes() == before


def test_a_training_goes_on_with_settings_that_do_not_change_the_result(
    aost: Aost, source: Path, tmp_path: Path
) -> None:
    model = tmp_path / "model"
    line = f"train {source} --output {model} --set model=small weights=random height=64 width=32 loss=softmax steps=1"
    assert aost(line)[0] == 0
    before = {path.name: path.read_bytes() for path in model.glob("*.safetensors")}
    assert aost(line, "workers=1", "cache_bytes=1", "save_seconds=1")[0] == 0
    assert before == {path.name: path.read_bytes() for path in model.glob("*.safetensors")} != {}
    code, told = aost(line, "learning_rate=0.5")
    assert code == 2
    assert "settings.learning_rate" in told


def test_a_measurement_is_no_place_for_one_from_sketches(aost: Aost, source: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    complete = ["style_coordinates=8", "content_coordinates=8"]
    assert aost(f"measure {source} --targets {source} --output {out} --serial --set", *MEASURE, *complete)[0] == 0
    code, told = aost(f"measure --from-sketches {out} --output {out} --targets {source}")
    assert code == 2
    assert "holds a measurement of its own; choose another --output" in told
