"""Targets added by the sketches of a finished measurement, against the same targets measured directly."""

import json
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from finegpr.attributes import Attribute
from finegpr.catalog import Catalog
from finegpr.errors import AostError, ConfigError, InputError, StateError
from finegpr.measuring import retarget as module
from finegpr.measuring.config import MeasureConfig
from finegpr.measuring.files import DERIVED_MARKER
from finegpr.measuring.measure import measure
from finegpr.measuring.networks import load_network
from finegpr.measuring.results import Measurements, basis_hash, read_measurements
from finegpr.measuring.retarget import RetargetConfig, retarget
from finegpr.storage import write_arrays
from finegpr.weights import find_weights

WEATHER = Attribute(name="weather", values=("sunny", "foggy", "snowlight"))
NUM_SOURCE = 24
CONFIG = MeasureConfig(
    network="vgg19",
    height=32,
    width=32,
    weights="random",
    images_per_shard=10,
    basis_images=NUM_SOURCE,
    style_coordinates=40,
    content_coordinates=40,
)


def draw(path: Path, seed: int, brightness: float) -> None:
    coarse = np.random.default_rng(seed).integers(0, 256, (6, 3, 3))
    image = Image.fromarray((coarse * brightness).astype(np.uint8)).resize((20, 48), Image.Resampling.BICUBIC)
    image.save(path, quality=95)


def as_catalog(root: Path, names: list[str]) -> Catalog:
    count = len(names)
    frame = pd.DataFrame(
        {
            "path": pd.Series(names, dtype=str),
            "identity": np.arange(count) // 6 + 1,
            "camera": np.zeros(count, dtype=np.int64),
            "part": pd.Categorical(
                ["train"] * count, categories=["train", "query", "gallery", "validation_query", "validation_gallery"]
            ),
            "weather": pd.Categorical.from_codes(np.arange(count) % 3, categories=list(WEATHER.values)),
        }
    )
    rejected = pd.DataFrame({"path": pd.Series(dtype=str), "reason": pd.Series(dtype=str)})
    return Catalog(frame=frame, root=root, title=root.name, layout="table", attributes=(WEATHER,), rejected=rejected)


def source_of(world: Path) -> Catalog:
    return as_catalog(world / "source", [f"{index:02d}.jpg" for index in range(NUM_SOURCE)])


def target_of(world: Path, name: str) -> Catalog:
    return as_catalog(world / name, sorted(path.name for path in (world / name).iterdir()))


def measured_into(folder: Path, world: Path, *targets: str, config: MeasureConfig = CONFIG) -> Measurements:
    source = source_of(world)
    catalogs = {name: target_of(world, name) for name in targets}
    return measure(config, source, catalogs, folder, cells=source.cells(["weather"]))


def added(world: Path, folder: Path, *targets: str, config: RetargetConfig | None = None) -> Measurements:
    catalogs = {name: target_of(world, name) for name in targets}
    return retarget(config or RetargetConfig(), world / "base", catalogs, folder)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A world of one source and three targets, measured against one of them in ``base`` and against all in ``direct``.

    The third target is one image of the source and another that hardly differs.
    """
    world = tmp_path_factory.mktemp("finished") / "world"
    for name in ("source", "market", "duke", "near"):
        (world / name).mkdir(parents=True)
    for index in range(NUM_SOURCE):
        draw(world / "source" / f"{index:02d}.jpg", index, 0.4 + 0.1 * (index % 6))
    for index in range(12):
        draw(world / "market" / f"{index:02d}.jpg", 100 + index, 0.8)
        draw(world / "duke" / f"{index:02d}.jpg", 200 + index, 0.3 + 0.05 * index)
    shutil.copy(world / "source" / "07.jpg", world / "near" / "07.jpg")
    pixels = np.asarray(Image.open(world / "source" / "07.jpg")).copy()
    pixels[20:22, 8:10] ^= 1
    Image.fromarray(pixels).save(world / "near" / "08.png")
    measured_into(world / "base", world, "market")
    measured_into(world / "direct", world, "market", "duke", "near")
    return world


@pytest.fixture
def world(finished: Path, tmp_path: Path) -> Path:
    """A copy of the world, without the images of the source."""
    copy = shutil.copytree(finished, tmp_path / "world")
    shutil.rmtree(copy / "source")
    return copy


def errors(estimated: Measurements, direct: Measurements, target: str) -> np.ndarray:
    """Error (n, 6) of the distances without the constant, in their standard deviations over images."""
    exact = direct.terms[target] - direct.target_constant[target]
    wrong = estimated.terms[target] - estimated.target_constant[target] - exact
    return np.abs(wrong) / exact.std(axis=0)


def test_with_a_complete_basis_only_rounding_is_lost(world: Path) -> None:
    estimated = added(world, world / "new", "duke")
    direct = read_measurements(world / "direct")
    assert list(estimated.terms) == ["duke"]
    assert errors(estimated, direct, "duke").max() < 1e-3
    np.testing.assert_allclose(estimated.terms["duke"], direct.terms["duke"], rtol=2e-4)
    np.testing.assert_array_equal(estimated.target_constant["duke"], direct.target_constant["duke"])
    np.testing.assert_array_equal(estimated.target_sketch["duke"], direct.target_sketch["duke"])
    np.testing.assert_array_equal(estimated.sketch, direct.sketch)
    np.testing.assert_array_equal(estimated.row, direct.row)
    np.testing.assert_array_equal(estimated.median, direct.median)
    assert estimated.num_target == {"duke": 12}
    assert estimated.num_catalog == NUM_SOURCE
    assert estimated.warnings == []


def test_near_images_keep_their_small_distances(world: Path) -> None:
    """Rounding a sketch to half precision moves the expanded square by 2e-4 of the norm, its nearest distance by less
    than a hundredth of that."""
    estimated = added(world, world / "new", "near")
    direct = read_measurements(world / "direct")
    distance, exact = (each.terms["near"] - each.target_constant["near"] for each in (estimated, direct))
    assert (distance.argmin(axis=0) == 7).all()
    assert (exact[7] / estimated.norms[7]).max() < 2e-5
    assert np.abs((distance - exact) / estimated.norms)[7].max() < 2e-6


def test_a_truncated_basis_errs_little_and_its_error_is_known(finished: Path, tmp_path: Path) -> None:
    config = CONFIG.model_copy(update={"style_coordinates": 6, "content_coordinates": 12})
    measured_into(tmp_path / "base", finished, "market", config=config)
    loose = RetargetConfig(max_off_basis=1.0, max_error=9.0)
    targets = {"duke": target_of(finished, "duke")}
    estimated = retarget(loose, tmp_path / "base", targets, tmp_path / "new")
    direct = read_measurements(finished / "direct")
    wrong = errors(estimated, direct, "duke")
    assert 1e-4 < np.median(wrong) < 0.05
    for term in range(6):
        rank = pd.Series(estimated.terms["duke"][:, term]).corr(
            pd.Series(direct.terms["duke"][:, term]), method="spearman"
        )
        assert rank > 0.95
    reported = json.loads((tmp_path / "new" / DERIVED_MARKER).read_text())["errors"]["market"]
    market = measured_into(tmp_path / "base", finished, "market", config=config)
    again = retarget(loose, tmp_path / "base", {"market": target_of(finished, "market")}, tmp_path / "market")
    expected = np.percentile(errors(again, market, "market"), 95, axis=0)
    np.testing.assert_allclose(reported["percentile_95"], expected, rtol=0.02)


def test_a_base_whose_sketches_are_too_coarse_is_refused(finished: Path, tmp_path: Path) -> None:
    config = CONFIG.model_copy(update={"basis_images": 3})
    measured = measured_into(tmp_path / "base", finished, "market", config=config)
    assert measured.off_basis_share.max() > 0.25
    assert any("measure anew with a larger basis, as by --set basis_images=6" in line for line in measured.warnings)
    targets = {"duke": target_of(finished, "duke")}
    with pytest.raises(ConfigError, match=r"off the basis.*at most 25%.*basis_images=6 \w+_coordinates=80"):
        retarget(RetargetConfig(), tmp_path / "base", targets, tmp_path / "new")
    with pytest.raises(ConfigError, match=r"miss the \w+ distances to its target market by .* at most 10\.0%"):
        retarget(RetargetConfig(max_off_basis=1.0), tmp_path / "base", targets, tmp_path / "new")
    loose = RetargetConfig(max_off_basis=1.0, max_error=100.0)
    accepted = retarget(loose, tmp_path / "base", targets, tmp_path / "new")
    assert "off the basis" in accepted.warnings[0]


def test_the_summary_of_the_shares_off_the_basis(finished: Path, tmp_path: Path) -> None:
    config = CONFIG.model_copy(update={"basis_images": 6})
    measured = measured_into(tmp_path / "base", finished, "market", config=config)
    summary = measured.off_basis_summary()
    outside = measured.norms.astype(float) * measured.off_basis
    by_cell = [
        outside[measured.cell == cell].sum(axis=0) / measured.norms[measured.cell == cell].sum(axis=0, dtype=float)
        for cell in range(3)
    ]
    np.testing.assert_allclose(summary["share"], outside.sum(axis=0) / measured.norms.sum(axis=0, dtype=float))
    np.testing.assert_allclose(summary["worst_cell"], np.max(by_cell, axis=0))
    np.testing.assert_allclose(summary["median"], np.median(measured.off_basis, axis=0))
    assert (np.array(summary["worst_cell"]) >= summary["share"]).all()


def test_the_hash_of_the_basis_knows_nothing_of_targets(world: Path) -> None:
    added(world, world / "new", "duke")
    assert basis_hash(world / "base") == basis_hash(world / "direct") == basis_hash(world / "new")
    reference = json.loads((world / "base" / "reference.json").read_text())
    assert reference["basis"] == basis_hash(world / "base")


def test_another_basis_has_another_hash(finished: Path, tmp_path: Path) -> None:
    measured_into(tmp_path / "base", finished, "market", config=CONFIG.model_copy(update={"basis_images": 20}))
    assert basis_hash(tmp_path / "base") != basis_hash(finished / "base")


@pytest.mark.parametrize(
    "name", ["shard-00001.parquet", "shard-00002.json", "summary.safetensors", "reference.json", "plan.safetensors"]
)
@pytest.mark.parametrize("when", ["before", "after"])
def test_a_damaged_base_is_refused_by_name(world: Path, name: str, when: str) -> None:
    if when == "after":
        added(world, world / "new", "duke")
    path = world / "base" / name
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    with pytest.raises(StateError, match=name):
        read_measurements(world / "new") if when == "after" else added(world, world / "new", "duke")


@pytest.mark.parametrize("pattern", ["target-*.json", "target-*.safetensors", "derived.json"])
def test_damaged_targets_are_refused_by_name(world: Path, pattern: str) -> None:
    added(world, world / "new", "duke")
    (path,) = (world / "new").glob(pattern)
    data = bytearray(path.read_bytes())
    data[len(data) // 3] ^= 1
    path.write_bytes(data)
    with pytest.raises(StateError, match=path.name):
        read_measurements(world / "new")


def test_a_base_that_was_measured_anew_is_refused_until_the_targets_follow(
    world: Path, finished: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = added(world, world / "new", "duke")
    shutil.copytree(finished / "source", world / "source")
    config = CONFIG.model_copy(update={"images_per_shard": 12})
    measured_into(world / "base", world, "market", config=config)
    with pytest.raises(StateError, match=r"base/.*has changed since .*from-sketches` command that wrote it again"):
        read_measurements(world / "new")
    monkeypatch.setattr(module, "build_network", None)  # the same basis: the target's images are not read again
    np.testing.assert_array_equal(added(world, world / "new", "duke").terms["duke"], before.terms["duke"])


def test_other_weights_are_refused(world: Path, tmp_path: Path) -> None:
    path = tmp_path / "other.safetensors"
    state = {
        f"features.{key}": value.numpy()
        for key, value in load_network(find_weights("vgg19", "random", seed=5)).state.items()
    }
    write_arrays(path, state)
    with pytest.raises(InputError, match=r"measured with VGG-19, random He weights, seed 0, got .*other\.safetensors"):
        added(world, world / "new", "duke", config=RetargetConfig(weights=str(path)))


def test_weights_that_moved_are_found_where_they_are_said_to_be(finished: Path, tmp_path: Path) -> None:
    path = tmp_path / "vgg.safetensors"
    state = {
        f"features.{key}": value.numpy()
        for key, value in load_network(find_weights("vgg19", "random", seed=5)).state.items()
    }
    write_arrays(path, state)
    config = CONFIG.model_copy(update={"weights": str(path)})
    measured_into(tmp_path / "base", finished, "market", config=config)
    targets = {"duke": target_of(finished, "duke")}
    moved = path.rename(tmp_path / "moved.safetensors")
    with pytest.raises(InputError, match=r"vgg\.safetensors"):
        retarget(RetargetConfig(), tmp_path / "base", targets, tmp_path / "new")
    retarget(RetargetConfig(weights=str(moved)), tmp_path / "base", targets, tmp_path / "new")


def test_the_same_command_reads_no_image_twice(world: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[str] = []

    def counted(*arguments: object) -> object:
        read.append(str(arguments[4]))
        if "near" in read:
            raise KeyboardInterrupt  # after duke was committed
        return fit_target(*arguments)

    fit_target = module.fit_target
    monkeypatch.setattr(module, "fit_target", counted)
    with pytest.raises(KeyboardInterrupt):
        added(world, world / "new", "duke", "near")
    assert not (world / "new" / DERIVED_MARKER).exists()
    monkeypatch.setattr(module, "fit_target", lambda *arguments: (read.append(arguments[4]), fit_target(*arguments))[1])
    both = added(world, world / "new", "duke", "near")
    assert read == ["duke", "near", "near"]
    before = {path.name: path.read_bytes() for path in (world / "new").iterdir() if path.is_file()}
    again = added(world, world / "new", "duke", "near")
    assert read == ["duke", "near", "near"]
    assert {path.name: path.read_bytes() for path in (world / "new").iterdir() if path.is_file()} == before
    for name in ("duke", "near"):
        np.testing.assert_array_equal(again.terms[name], both.terms[name])
    assert list(added(world, world / "new", "near").terms) == ["near"]


def test_base_and_targets_may_move_together(world: Path, tmp_path: Path) -> None:
    before = added(world, world / "new", "duke")
    moved = world.rename(tmp_path / "elsewhere")
    np.testing.assert_array_equal(read_measurements(moved / "new").terms["duke"], before.terms["duke"])
    (moved / "base").rename(tmp_path / "base")
    with pytest.raises(StateError, match="elsewhere/base, which is not there"):
        read_measurements(moved / "new")


def test_a_bad_target_image_is_quarantined(world: Path) -> None:
    (world / "duke" / "03.jpg").write_bytes(b"<html>")
    estimated = added(world, world / "new", "duke")
    assert estimated.quarantine.to_dict("records") == [{"path": "03.jpg", "reason": "unidentified", "of": "duke"}]
    assert estimated.num_target == {"duke": 11}
    assert np.isfinite(estimated.terms["duke"]).all()
    for index in range(4):
        (world / "near" / f"{index}.png").write_bytes(b"")
    with pytest.raises(InputError, match="4 of 6 images of target near"):
        added(world, world / "new", "duke", "near")


def test_targets_of_no_and_of_one_image(world: Path) -> None:
    with pytest.raises(InputError, match="at least one target"):
        added(world, world / "new")
    near = target_of(world, "near")
    with pytest.raises(InputError, match="empty has 0 images"):
        retarget(RetargetConfig(), world / "base", {"empty": near.take([])}, world / "new")
    one = retarget(RetargetConfig(), world / "base", {"one": near.take([0])}, world / "new")
    assert "one has 1 image" in one.warnings[0]
    assert one.target_constant["one"].tolist() == [0.0] * 6


def test_folders_of_another_kind_are_refused(world: Path, tmp_path: Path) -> None:
    targets = {"duke": target_of(world, "duke")}

    def refused(base: Path, folder: Path, said: str) -> None:
        with pytest.raises(AostError, match=said):
            retarget(RetargetConfig(), base, targets, folder)

    refused(tmp_path / "nowhere", world / "new", "no measurements .*nowhere")
    refused(world / "duke", world / "new", "holds no measurement")
    refused(world / "base", world / "base", "holds a measurement of its own; choose another --output")
    retarget(RetargetConfig(), world / "base", targets, world / "new")
    refused(world / "new", world / "newer", "holds targets only")
    (world / "base" / "shard-00001.json").unlink()
    refused(world / "base", world / "new", r"base is unfinished: shard-00001\.json missing")
    shutil.copy(world / "direct" / "reference.json", world / "new")
    with pytest.raises(StateError, match="holds a measurement and, by derived.json, the targets of another"):
        read_measurements(world / "new")
