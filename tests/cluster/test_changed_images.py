"""Other pixels under the same file names: what was made of the old ones is made anew, or refused by name."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from PIL import Image, ImageOps

from finegpr.catalog import Catalog
from finegpr.measuring import reference, retarget

MEASURE = ["network=vgg19", "weights=random", "height=32", "width=32", "basis_images=80", "batch_size=4"]
Aost = Callable[..., tuple[int, str]]


def invert(path: Path) -> None:
    ImageOps.invert(Image.open(path)).save(path)


@pytest.fixture
def here(folders: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A user's folders ``source`` and ``target``, and the catalogs of them, in the working directory."""
    for name, layout in (("source", "finegpr"), ("target", "market1501")):
        shutil.copytree(folders / name, tmp_path / name)
        Catalog.index(tmp_path / name, layout=layout).write(tmp_path / f"{name}.parquet")
    monkeypatch.chdir(tmp_path)
    return tmp_path


MEASURED = "measure source.parquet --targets target.parquet --output m --serial --set"
SEARCH = "search source.parquet --measurements m --output s --set budget.images=8 evaluations=5 objective=mmd_rbf"
SELECT = "select source.parquet --measurements m --selector importance --images 8 --output manifest.parquet"
TRAIN = (
    "train source.parquet --output model --set model=small weights=random height=64 width=32 loss=softmax steps=1 "
    "batch_size=4"
)


def test_a_repainted_image_is_measured_anew_before_anything_is_chosen_by_it(aost: Aost, here: Path) -> None:
    assert aost(MEASURED, *MEASURE)[0] == 0
    assert aost(SEARCH)[0] == 0
    path = Catalog.read(here / "source.parquet").file_paths()[7]
    assert isinstance(path, Path)
    invert(path)
    for line in (SEARCH.replace("--output s", "--output other"), SELECT):
        code, told = aost(line)
        assert code == 3, told
        assert "1 image (" in told
        assert path.name in told
        assert "run the `aost measure` command of it again" in told
    code, told = aost(MEASURED, *MEASURE)
    assert code == 0, told
    assert aost(SELECT)[0] == 0
    code, told = aost(SEARCH)
    assert code == 2
    assert "measurements:" in told, "the journal is of the old image"


def test_images_of_another_place_under_the_same_names_are_another_input(aost: Aost, here: Path) -> None:
    assert aost(MEASURED, *MEASURE)[0] == 0
    for name, layout in (("source", "finegpr"), ("target", "market1501")):
        other = shutil.copytree(here / name, here / f"other_{name}")
        for path in other.rglob("*.jpg"):
            invert(path)
        Catalog.index(other, layout=layout).write(here / f"{name}.parquet")
        code, told = aost(MEASURED, *MEASURE)
        assert code == 2, told
        assert f"/{name} -> ..." in told
        assert f"/{other.name})" in told
        Catalog.index(here / name, layout=layout).write(here / f"{name}.parquet")
    assert aost(MEASURED, *MEASURE)[0] == 0


def test_moved_and_copied_folders_are_the_same_input_and_it_is_said(aost: Aost, here: Path) -> None:
    assert aost(MEASURED, *MEASURE)[0] == 0
    before = {path.name: path.read_bytes() for path in (here / "m").glob("shard-*")}
    shutil.copytree(here / "source", here / "copied")
    (here / "target").rename(here / "moved")
    Catalog.index(here / "copied", layout="finegpr").write(here / "source.parquet")
    Catalog.index(here / "moved", layout="market1501").write(here / "target.parquet")
    code, told = aost(MEASURED, *MEASURE)
    assert code == 0, told
    assert f"the images of the source are now in {here / 'copied'}, before in {here / 'source'}" in told
    assert f"now in {here / 'moved'}" in told
    assert {path.name: path.read_bytes() for path in (here / "m").glob("shard-*")} == before
    assert aost(SEARCH)[0] == 0


def test_measurements_of_another_catalog_of_as_many_images_are_refused(aost: Aost, here: Path) -> None:
    assert aost(MEASURED, *MEASURE)[0] == 0
    catalog = Catalog.read(here / "source.parquet")
    catalog.take(range(len(catalog) - 1, -1, -1)).write(here / "source.parquet")
    for line in (SEARCH, SELECT, "sweep source.parquet --measurements m --output w --serial"):
        code, told = aost(line)
        assert code == 3, told
        assert "the measurements are of another catalog" in told


def test_without_the_images_here_a_search_goes_by_what_was_measured(aost: Aost, here: Path) -> None:
    assert aost(MEASURED, *MEASURE)[0] == 0
    shutil.rmtree(here / "source")
    code, told = aost(SEARCH)
    assert code == 0, told
    assert "is not here, so its images are taken to be as they were measured" in told


def test_a_training_of_repainted_images_is_another_one(aost: Aost, here: Path) -> None:
    assert aost(TRAIN)[0] == 0
    model = (here / "model/model.safetensors").read_bytes()
    paths = [Path(str(path)) for path in Catalog.read(here / "source.parquet").file_paths()]
    for path in paths:
        path.touch()
    assert aost(TRAIN)[0] == 0
    for path in paths:
        invert(path)
    code, told = aost(TRAIN)
    assert code == 2
    assert "images:" in told
    assert (here / "model/model.safetensors").read_bytes() == model
    assert aost(TRAIN.replace("--set", "--fresh --set"))[0] == 0
    assert (here / "model/model.safetensors").read_bytes() != model


def test_decoded_images_are_of_the_images_as_they_are(aost: Aost, here: Path) -> None:
    config = {
        "name": "decoded",
        "source": {"root": "source", "layout": "finegpr"},
        "target": {"root": "target", "layout": "market1501"},
        "measure": {"network": "vgg19", "weights": "random", "height": 32, "width": 32, "basis_images": 80},
        "budget": {"images": 8},
        "arms": ["random", "everything", "mean_distance"],
        "search": {"evaluations": 5},
        "seeds": [0],
        "train": {"model": "small", "weights": "random", "height": 64, "width": 32, "loss": "softmax", "steps": 1}
        | {"batch_size": 72},
    }
    (here / "config.yaml").write_text(yaml.safe_dump(config))
    for path in (here / "source").rglob("*.jpg"):
        Image.open(path).save(path.with_suffix(".bmp"))
        path.with_suffix(".bmp").rename(path)  # of one size, whatever they show
    assert aost("run config.yaml --serial --output r")[0] == 0
    for path in (here / "source").rglob("*.jpg"):
        before = path.stat()
        ImageOps.invert(Image.open(path)).save(path, format="BMP")
        os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert aost("run config.yaml --serial --output r --fresh")[0] == 0
    assert aost("run config.yaml --serial --output anew")[0] == 0
    for arm in ("random", "everything"):
        models = [here / run / "train" / arm / "seed0" / "model" / "model.safetensors" for run in ("r", "anew")]
        assert models[0].read_bytes() == models[1].read_bytes()


def test_repainted_photos_are_no_longer_what_was_searched_by(aost: Aost, here: Path) -> None:
    assert aost(MEASURED, *MEASURE)[0] == 0
    for path in (here / "target/bounding_box_train").iterdir():
        invert(path)
    for line in (SEARCH, SELECT):
        code, told = aost(line)
        assert code == 3, told
        assert "of target target in" in told
    code, told = aost(MEASURED, *MEASURE)
    assert code == 0, told
    assert aost(SEARCH)[0] == 0


ADAPTIVE = ["adaptive.budget.images=16", "adaptive.ceiling=0.9", "adaptive.batch=0.3"]


@pytest.mark.parametrize("more", [[], ADAPTIVE], ids=["plain", "adaptive"])
def test_measuring_that_is_killed_leaves_repainted_photos_refused(
    aost: Aost, here: Path, monkeypatch: pytest.MonkeyPatch, more: list[str]
) -> None:
    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    photos = sorted((here / "target/bounding_box_train").iterdir())
    before = {path: path.read_bytes() for path in photos}
    assert aost(MEASURED, *MEASURE, *more)[0] == 0
    for path in photos:
        invert(path)
    with monkeypatch.context() as patch:
        patch.setattr(reference, "_fit_bases", killed)
        assert aost(MEASURED, *MEASURE, *more)[0] == 130
    for line in (SEARCH, SELECT):
        code, told = aost(line)
        assert code == 3, told
        assert f"photos of target target in {here / 'target'} changed after m was measured" in told
    after = {path: path.read_bytes() for path in photos}
    for path in photos:
        path.write_bytes(before[path])
    assert aost(SELECT)[0] == 0, "they are again those that were measured"
    (here / "manifest.parquet").unlink()
    for path in photos:
        path.write_bytes(after[path])
    assert aost(MEASURED, *MEASURE, *more)[0] == 0
    assert aost(SEARCH)[0] == 0


def test_adding_from_sketches_that_is_killed_leaves_repainted_photos_refused(
    aost: Aost, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    assert aost(MEASURED, *MEASURE)[0] == 0
    added = "measure --from-sketches m --targets target.parquet --output d --set max_off_basis=1 max_error=1000"
    assert aost(added)[0] == 0
    for path in (here / "target/bounding_box_train").iterdir():
        invert(path)
    with monkeypatch.context() as patch:
        patch.setattr(retarget, "fit_target", killed)
        assert aost(added)[0] == 130
    search = SEARCH.replace("--measurements m", "--measurements d")
    code, told = aost(search)
    assert code == 3, told
    assert "photos of target target in" in told
    code, told = aost(added)
    assert code == 0, told
    assert aost(search)[0] == 0


def test_adaptive_rounds_are_of_the_photos_as_they_are(aost: Aost, here: Path) -> None:
    assert aost(MEASURED, *MEASURE, *ADAPTIVE)[0] == 0
    for path in (here / "target/bounding_box_train").iterdir():
        invert(path)
    code, told = aost(MEASURED, *MEASURE, *ADAPTIVE)
    assert code == 0, told
    assert "photos.target: changed" in told
    assert "the rounds begin anew" in told
    assert aost(MEASURED.replace("--output m", "--output anew"), *MEASURE, *ADAPTIVE)[0] == 0
    assert (here / "m/adaptive.safetensors").read_bytes() == (here / "anew/adaptive.safetensors").read_bytes()


def test_images_that_are_gone_are_missing(aost: Aost, here: Path) -> None:
    assert aost(MEASURED, *MEASURE)[0] == 0
    next((here / "source").rglob("*.jpg")).unlink()
    code, told = aost(SEARCH)
    assert code == 3
    assert "are missing, which were there when" in told


def test_a_run_measures_what_changed_and_never_goes_by_old_photos(aost: Aost, here: Path) -> None:
    config = {
        "name": "changed",
        "source": {"root": "source", "layout": "finegpr"},
        "target": {"root": "target", "layout": "market1501"},
        "measure": {
            "network": "vgg19",
            "weights": "random",
            "height": 32,
            "width": 32,
            "basis_images": 80,
            "batch_size": 4,
        },
        "budget": {"images": 8},
        "arms": ["random", "mmd_rbf"],
        "search": {"evaluations": 5},
        "seeds": [0],
        "train": {"model": "small", "weights": "random", "height": 64, "width": 32, "loss": "softmax", "steps": 1}
        | {"batch_size": 4},
    }
    (here / "config.yaml").write_text(yaml.safe_dump(config))
    line = "run config.yaml --serial --output r"
    assert aost(line)[0] == 0
    told = aost(line)[1]
    assert "measure: done before, skipped" in told
    assert "train/random/seed0: done before, skipped" in told

    invert(next(path for path in sorted((here / "source").rglob("*.jpg"))))
    code, told = aost(line)
    assert "measure: 1 image (" in told
    assert "changed since, goes on" in told
    assert code == 2
    assert "search/mmd_rbf was begun by other measurements, as settings or images changed; --fork" in told
    assert "measuring" not in told, "before, not after"

    for path in (here / "target/bounding_box_train").iterdir():
        invert(path)
    code, told = aost(line + " --fork")
    assert code == 0, told
    assert "inputs.photos" in told, told
    assert "measure: done before" not in told

    for path in (here / "target/query").iterdir():
        invert(path)
    code, told = aost("run config.yaml --serial --output r-2")
    assert code == 2
    assert "inputs.scored on" in told
