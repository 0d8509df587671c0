"""The whole measurement on a toy catalog: numbers against pairs of features, shards, resume, damage, quarantine."""

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
import torch
from PIL import Image
from pydantic import ValidationError

from finegpr.attributes import Attribute
from finegpr.catalog import Catalog
from finegpr.contents import Contents
from finegpr.errors import InputError, StateError
from finegpr.measuring import measure as module
from finegpr.measuring.config import MeasureConfig
from finegpr.measuring.freshness import pending_shards
from finegpr.measuring.measure import measure, measure_shard, plan_shards, prepare
from finegpr.measuring.meter import Meter
from finegpr.measuring.networks import load_network
from finegpr.measuring.networks.vgg19 import VGG19
from finegpr.measuring.reference import fit_reference
from finegpr.measuring.results import Measurements, read_measurements
from finegpr.perceptual import pairwise_distance
from finegpr.pixels.decode import load
from finegpr.storage import write_arrays
from finegpr.weighing import Weighing
from finegpr.weights import find_weights

WEATHER = Attribute(name="weather", values=("sunny", "foggy", "snowlight"))
LIGHT = Attribute(name="light", values=("day", "night"))
CONFIG = MeasureConfig(
    network="vgg19",
    height=32,
    width=32,
    weights="random",
    images_per_shard=10,
    batch_size=4,
    basis_images=24,
    style_coordinates=40,
    content_coordinates=40,
)


def draw(path: Path, seed: int, brightness: float = 1.0) -> None:
    coarse = np.random.default_rng(seed).integers(0, 256, (6, 3, 3))
    image = Image.fromarray((coarse * brightness).astype(np.uint8)).resize((20, 48), Image.Resampling.BICUBIC)
    image.save(path, quality=95)


def as_catalog(root: Path, rows: list[tuple[str, int, int, int]]) -> Catalog:
    paths, identities, weathers, lights = zip(*rows, strict=True) if rows else ((), (), (), ())
    frame = pd.DataFrame(
        {
            "path": pd.Series(paths, dtype=str),
            "identity": np.array(identities, dtype=np.int64),
            "camera": np.zeros(len(rows), dtype=np.int64),
            "part": pd.Categorical(
                ["train"] * len(rows),
                categories=["train", "query", "gallery", "validation_query", "validation_gallery"],
            ),
            "weather": pd.Categorical.from_codes(list(weathers), categories=list(WEATHER.values)),
            "light": pd.Categorical.from_codes(list(lights), categories=list(LIGHT.values)),
        }
    )
    rejected = pd.DataFrame({"path": pd.Series(dtype=str), "reason": pd.Series(dtype=str)})
    return Catalog(
        frame=frame, root=root, title=root.name, layout="table", attributes=(WEATHER, LIGHT), rejected=rejected
    )


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("world")
    for folder in ("source", "market", "duke"):
        (root / folder).mkdir()
    for index in range(24):
        draw(root / "source" / f"{index:02d}.jpg", index, 0.4 + 0.1 * (index % 6))
    for index in range(6):
        draw(root / "market" / f"{index}.jpg", 100 + index, 0.8)
        draw(root / "duke" / f"{index}.jpg", 200 + index, 0.3)
    return root


def source_of(root: Path) -> Catalog:
    return as_catalog(root / "source", [(f"{i:02d}.jpg", i // 6 + 1, i % 3, i // 3 % 2) for i in range(24)])


def targets_of(root: Path) -> dict[str, Catalog]:
    return {
        name: as_catalog(root / name, [(f"{index}.jpg", index, -1, -1) for index in range(6)])
        for name in ("market", "duke")
    }


def run(root: Path, folder: Path, config: MeasureConfig = CONFIG) -> Measurements:
    source = source_of(root)
    return measure(config, source, targets_of(root), folder, cells=source.cells(["weather", "light"]))


@pytest.fixture(scope="module")
def finished(world: Path) -> Path:
    run(world, world / "measured")
    return world / "measured"


@pytest.fixture
def copy(finished: Path, tmp_path: Path) -> Path:
    """The world with its finished measurement, to be damaged."""
    return shutil.copytree(finished.parent, tmp_path / "world")


def feature_maps(catalog: Catalog) -> list[torch.Tensor]:
    """relu1_1 ... relu5_1 and relu4_2, straight from the layers, in float64."""
    images, _ = load(catalog.file_paths(), height=32, width=32)
    network = VGG19(load_network(find_weights("vgg19", "random", seed=0)))
    x, maps = network.normalise(torch.from_numpy(images)).double(), {}
    for index, layer in enumerate(network.features.double()):
        x = layer(x)
        maps[index] = x.clone()
    return [maps[index] for index in (1, 6, 11, 20, 29, 22)]


def test_terms_are_the_means_of_pairwise_distances(world: Path, finished: Path) -> None:
    measured = read_measurements(finished)
    source = feature_maps(source_of(world))
    for name, catalog in targets_of(world).items():
        target = feature_maps(catalog)
        for term in range(6):
            weights = [float(term == layer) for layer in range(6)]
            pairs = pairwise_distance(source, target, content_layer=5, layer_weight=weights)
            expected = (pairs.content if term == 5 else pairs.style).mean(dim=1)
            np.testing.assert_allclose(measured.terms[name][:, term], expected, rtol=1e-4)
            centre = [layer.mean(dim=0, keepdim=True) for layer in target]
            if term == 5:
                constant = pairwise_distance(target, centre, content_layer=5, layer_weight=0).content.mean()
                assert measured.target_constant[name][5] == pytest.approx(float(constant), rel=1e-4)
        every = pairwise_distance(source, target, content_layer=5, layer_weight=[0.2] * 5 + [0]).total.mean(dim=1)
        np.testing.assert_allclose(measured.total(name, Weighing(scale="paper")), every, rtol=1e-4)


def test_sketches_and_medians_carry_the_pair_distances(world: Path, finished: Path) -> None:
    measured = read_measurements(finished)
    maps = feature_maps(source_of(world))
    upper = np.triu_indices(24, 1)
    for term, block in enumerate(measured.blocks):
        weights = [float(term == layer) for layer in range(6)]
        pairs = pairwise_distance(maps, maps, content_layer=5, layer_weight=weights)
        expected = (pairs.content if term == 5 else pairs.style).numpy()[upper]
        sketch = torch.from_numpy(measured.sketch[:, block])
        np.testing.assert_allclose(torch.cdist(sketch, sketch).square().numpy()[upper], expected, rtol=0.02)
        # All 24 images are in the basis sample here; torch's median is the lower of the two middle pairs.
        assert measured.median[term] == pytest.approx(float(torch.from_numpy(expected).median()), rel=1e-3)
    assert measured.off_basis.max() < 1e-3, "24 images span at most 23 directions"


def test_embeddings_agree_with_the_totals(finished: Path) -> None:
    measured = read_measurements(finished)
    np.testing.assert_allclose(Weighing().weights(measured.of), [0.18] * 5 + [1.0])
    for weighing in (Weighing(scale="paper"), Weighing()):
        phi, target = measured.phi(weighing), measured.target_phi("market", weighing)
        assert target.shape == (6, phi.shape[1])
        pairs = ((phi[:, None] - target[None]) ** 2).sum(axis=2).mean(axis=1)
        # The target lies partly off the basis, which adds the same to every image (experiments: rank kept, size not).
        assert np.corrcoef(pairs, measured.total("market", weighing))[0, 1] > 0.97
        assert 0 < measured.style_share("market", weighing) < 1
    standardised = measured.terms["market"] / measured.median @ Weighing().weights(measured.of)
    np.testing.assert_allclose(measured.total("market", Weighing()), standardised, rtol=1e-6)


def test_the_record_is_complete(world: Path, finished: Path) -> None:
    measured = read_measurements(finished)
    cells = source_of(world).cells(["weather", "light"])
    np.testing.assert_array_equal(measured.row, np.arange(24))
    np.testing.assert_array_equal(measured.cell, cells.of_row)
    assert measured.num_target == {"market": 6, "duke": 6}
    assert measured.weights == "VGG-19, random He weights, seed 0"
    assert measured.num_catalog == 24
    assert measured.warnings == []
    assert len(measured.quarantine) == 0
    assert measured.sketch.dtype == measured.terms["duke"].dtype == np.float32


def shard_bytes(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir()) if path.is_file()}


def test_the_order_of_shards_does_not_matter(world: Path, finished: Path, tmp_path: Path) -> None:
    source = source_of(world)
    shards = prepare(CONFIG, source, targets_of(world), tmp_path, cells=source.cells(["weather", "light"]))
    assert list(pending_shards(tmp_path, source)) == [0, 1, 2]
    for index in (2, 0, 1):
        measure_shard(Meter(CONFIG, tmp_path, source), index, shards[index], tmp_path)
    assert shard_bytes(tmp_path) == shard_bytes(finished)


def test_finished_shards_are_not_measured_again(copy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = copy / "measured"
    before = shard_bytes(folder)
    (folder / "shard-00001.json").unlink()
    (folder / "shard-00002.parquet").unlink()
    measured_again = []

    def counted(meter: Meter, index: int, rows: np.ndarray, folder: Path, **how: Any) -> None:
        measured_again.append(index)
        measure_shard(meter, index, rows, folder, **how)

    monkeypatch.setattr(module, "measure_shard", counted)
    told: list[tuple[int, int]] = []
    source = source_of(copy)
    cells = source.cells(["weather", "light"])
    measure(CONFIG, source, targets_of(copy), folder, cells=cells, progress=lambda *counts: told.append(counts))
    assert measured_again == [1, 2]
    assert told == [(10, 24), (14, 24), (18, 24), (20, 24), (24, 24)], "by images, not by shards"
    assert shard_bytes(folder) == before

    run(copy, folder, CONFIG.model_copy(update={"seed": 1}))
    assert measured_again == [1, 2, 0, 1, 2], "another seed is another reference"


@pytest.mark.parametrize(
    "name", ["shard-00001.parquet", "reference.safetensors", "summary.safetensors", "plan.safetensors"]
)
@pytest.mark.parametrize("damage", ["flip", "truncate"])
def test_damage_is_named(copy: Path, name: str, damage: str) -> None:
    path = copy / "measured" / name
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data if damage == "flip" else data[: len(data) // 2])
    with pytest.raises(StateError, match=name) as caught:
        read_measurements(copy / "measured")
        Meter(CONFIG, copy / "measured", source_of(copy))
    assert caught.value.exit_code == 4


def test_sixty_random_flips_are_named(copy: Path) -> None:
    """One byte of any shard, marker, sketch, reference or weights file."""
    network = VGG19(load_network(find_weights("vgg19", "random", seed=0))).features.state_dict()
    weights = copy / "measured" / "vgg19.safetensors"
    write_arrays(weights, {f"features.{name}": value.numpy() for name, value in network.items()})
    config = CONFIG.model_copy(update={"weights": str(weights)})
    folder = copy / "measured"
    run(copy, folder, config)
    source = source_of(copy)
    random = np.random.default_rng(0)
    paths = sorted(path for path in folder.iterdir() if path.suffix in (".json", ".parquet", ".safetensors"))
    for number in range(60):
        path = paths[number % len(paths)]
        data = path.read_bytes()
        place = int(random.integers(len(data)))
        path.write_bytes(data[:place] + bytes([data[place] ^ int(random.integers(1, 256))]) + data[place + 1 :])
        with pytest.raises((StateError, InputError)) as caught:
            read_measurements(folder)
            Meter(config, folder, source)
        named = "weights" if path == weights else path.name
        assert named in str(caught.value), f"byte {place} of {path.name}: {caught.value}"
        path.write_bytes(data)
    read_measurements(folder)


@pytest.mark.parametrize(
    "name", ["shard-00001.json", "shard-00000.parquet", "shards.json", "plan.safetensors", "reference.json"]
)
def test_a_missing_piece_is_named(copy: Path, name: str) -> None:
    (copy / "measured" / name).unlink()
    with pytest.raises(StateError, match=name):
        read_measurements(copy / "measured")


def test_a_damaged_shard_can_be_deleted_and_measured_again(copy: Path) -> None:
    folder = copy / "measured"
    before = shard_bytes(folder)
    path = folder / "shard-00001.parquet"
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(StateError, match="give the command that wrote it again"):
        run(copy, folder)
    path.unlink()
    run(copy, folder)
    assert shard_bytes(folder) == before


def test_a_shard_of_another_plan_is_refused(copy: Path) -> None:
    folder = copy / "measured"
    shutil.copy(folder / "shard-00000.parquet", folder / "shard-00001.parquet")
    shutil.copy(folder / "shard-00000.json", folder / "shard-00001.json")
    with pytest.raises(StateError, match=r"shard-00001\.parquet was measured from other inputs"):
        read_measurements(folder)


def test_a_meter_refuses_a_reference_of_other_settings(world: Path, finished: Path) -> None:
    other = CONFIG.model_copy(update={"height": 64, "seed": 5})
    with pytest.raises(StateError, match=r"other settings \(height, weights, seed\)"):
        Meter(other, finished, source_of(world))


def test_bad_images_are_quarantined_and_repaired_ones_measured(copy: Path, tmp_path: Path) -> None:
    (copy / "source" / "05.jpg").write_bytes(b"<html>")
    (copy / "market" / "3.jpg").unlink()
    targets = {
        "market": as_catalog(copy / "market", [(f"{i % 6}.jpg", 1, -1, -1) for i in (*range(6), *range(3), 4, 5)])
    }
    source = source_of(copy)
    cells = source.cells(["weather", "light"])
    folder = tmp_path / "fresh"
    measured = measure(CONFIG, source, targets, folder, cells=cells)
    assert measured.quarantine.to_dict("records") == [
        {"path": "05.jpg", "reason": "unidentified", "of": "source"},
        {"path": "3.jpg", "reason": "missing", "of": "market"},
    ]
    assert measured.row.tolist() == [row for row in range(24) if row != 5]
    assert measured.num_target == {"market": 10}
    assert np.isfinite(measured.sketch).all()
    assert (measured.terms["market"] > 0).all()
    assert not pending_shards(folder, source)

    draw(copy / "source" / "05.jpg", 5, 0.9)
    assert list(pending_shards(folder, source)) == [0]
    assert len(measure(CONFIG, source, targets, folder, cells=cells).row) == 24


@pytest.fixture
def measured_again(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The catalog rows of all images that are measured from now on."""
    rows_measured: list[int] = []

    class Counted(Meter):
        def look(self, rows: np.ndarray, *told: Any) -> tuple[pa.Table, Contents]:
            rows_measured.extend(rows.tolist())
            return super().look(rows, *told)

    monkeypatch.setattr(module, "Meter", Counted)
    return rows_measured


def test_a_repainted_image_is_measured_anew_and_only_its_batch(
    copy: Path, tmp_path: Path, measured_again: list[int]
) -> None:
    folder = copy / "measured"
    before = shard_bytes(folder)
    draw(copy / "source" / "13.jpg", 999, 0.2)
    got = run(copy, folder)
    assert measured_again == [10, 11, 12, 13], "the first batch of the second shard"
    after = shard_bytes(folder)
    assert {name for name in before if before[name] != after[name]} == {"shard-00001.parquet", "shard-00001.json"}
    fresh = run(copy, tmp_path / "fresh")
    for target in ("market", "duke"):
        # To the last bit. The coordinates are not: the basis stays that of the images as they were.
        np.testing.assert_array_equal(got.terms[target], fresh.terms[target])
    measured_again.clear()
    run(copy, folder)
    assert measured_again == []


def test_touched_copied_and_moved_images_are_not_measured_again(
    copy: Path, tmp_path: Path, measured_again: list[int]
) -> None:
    folder = copy / "measured"
    before = shard_bytes(folder)
    run(copy, folder)
    for path in (copy / "source").iterdir():
        path.touch()
    run(copy, folder)
    shutil.rmtree(folder / "contents")  # a measurement that was copied without what it remembers
    for place in (shutil.copytree(copy, tmp_path / "copied"), copy.rename(tmp_path / "moved")):
        run(place, place / "measured")
        run(place, place / "measured")
        assert shard_bytes(place / "measured") == before
    assert measured_again == []


def test_other_images_under_the_same_names_are_measured_as_if_for_the_first_time(
    copy: Path, tmp_path: Path, measured_again: list[int]
) -> None:
    folder = copy / "measured"
    for path in (copy / "source").iterdir():
        draw(path, 500 + int(path.stem), 0.9)
    run(copy, folder)
    run(copy, tmp_path / "fresh")
    assert shard_bytes(folder) == shard_bytes(tmp_path / "fresh")
    assert len(measured_again) == 48


def test_a_repainted_photo_of_a_target_has_everything_measured_anew(
    copy: Path, tmp_path: Path, measured_again: list[int]
) -> None:
    draw(copy / "duke" / "3.jpg", 777, 0.9)
    got = run(copy, copy / "measured")
    assert len(measured_again) == 24
    np.testing.assert_array_equal(got.terms["duke"], run(copy, tmp_path / "fresh").terms["duke"])


def test_a_crash_between_a_change_and_its_measuring_forgets_nothing(
    copy: Path, measured_again: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    draw(copy / "source" / "03.jpg", 31, 0.5)
    draw(copy / "source" / "21.jpg", 32, 0.5)

    def lost(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(module, "measure_shard", lost)
        with pytest.raises(KeyboardInterrupt):
            run(copy, copy / "measured")
    run(copy, copy / "measured")
    assert measured_again == [0, 1, 2, 3, 20, 21, 22, 23]


@pytest.mark.parametrize("side", ["source", "market"])
def test_too_many_bad_images_end_the_run(copy: Path, tmp_path: Path, side: str) -> None:
    for index in range(3):
        (copy / side / (f"{index:02d}.jpg" if side == "source" else f"{index}.jpg")).write_bytes(b"")
    with pytest.raises(InputError, match=r"3 of (24|6) images of (the source|target market) .*\.jpg: unidentified"):
        run(copy, tmp_path / "fresh")


def test_targets_of_no_and_of_one_image(world: Path, tmp_path: Path) -> None:
    source = source_of(world)
    cells = source.cells(["weather", "light"])
    with pytest.raises(InputError, match="market has 0 images"):
        measure(CONFIG, source, {"market": as_catalog(world / "market", [])}, tmp_path, cells=cells)
    with pytest.raises(InputError, match="at least one target"):
        measure(CONFIG, source, {}, tmp_path, cells=cells)
    one = measure(CONFIG, source, {"market": targets_of(world)["market"].take([0])}, tmp_path, cells=cells)
    assert "market has 1 image" in one.warnings[0]
    assert one.target_constant["market"].tolist() == [0.0] * 6


def test_target_images_caps_by_a_sample_that_ignores_the_order_of_files(world: Path, tmp_path: Path) -> None:
    source = source_of(world)
    target = targets_of(world)["market"]
    config = CONFIG.model_copy(update={"target_images": 4})
    reference = fit_reference(config, source, {"market": target}, tmp_path / "a").targets["market"]
    turned = fit_reference(config, source, {"market": target.take([5, 4, 3, 2, 1, 0])}, tmp_path / "b").targets[
        "market"
    ]
    assert len(reference.sketch) == 4
    np.testing.assert_allclose(reference.constant, turned.constant, rtol=1e-5)
    other = fit_reference(config.model_copy(update={"seed": 7}), source, {"market": target}, tmp_path / "c")
    assert other.targets["market"].constant[0] != pytest.approx(reference.constant[0], rel=1e-3)


def test_constant_images_give_zeros_and_no_nan(tmp_path: Path) -> None:
    (tmp_path / "flat").mkdir()
    for index in range(5):
        Image.new("RGB", (20, 48), (90, 90, 90)).save(tmp_path / "flat" / f"{index}.png")
    catalog = as_catalog(tmp_path / "flat", [(f"{index}.png", index, 0, 0) for index in range(5)])
    measured = measure(CONFIG, catalog, {"same": catalog}, tmp_path / "m", cells=catalog.cells(["weather"]))
    assert np.isfinite(measured.total("same", Weighing())).all()
    np.testing.assert_allclose(measured.total("same", Weighing(scale="paper")), 0, atol=1e-6)
    assert np.isfinite(measured.phi(Weighing())).all()


def test_cells_are_sampled_over_identities_whatever_the_order_of_files(world: Path) -> None:
    rows = [
        (f"{cell}/{identity}/{image}.jpg", identity, cell % 3, cell // 3)
        for cell in range(6)
        for identity in (1, 2, 3)
        for image in range(1 + 3 * (identity == 1))
    ]
    rows.append(("unknown.jpg", 9, -1, 0))
    catalog = as_catalog(world, rows)
    shuffled = catalog.take(np.random.default_rng(0).permutation(len(rows)))
    names = ["weather", "light"]

    def chosen(catalog: Catalog, images_per_cell: int | None, seed: int = 0) -> pd.DataFrame:
        config = CONFIG.model_copy(update={"images_per_cell": images_per_cell, "seed": seed})
        shards = plan_shards(config, catalog, catalog.cells(names))
        assert [len(shard) for shard in shards[:-1]] == [10] * (len(shards) - 1)
        assert (np.diff(np.concatenate(shards)) > 0).all(), "catalog order"
        return catalog.frame.iloc[np.concatenate(shards)]

    assert len(chosen(catalog, None)) == 36, "the row of unknown weather has no cell"
    three = chosen(catalog, 3)
    assert (three.groupby(names, observed=True)["identity"].nunique() == 3).all()
    assert (chosen(catalog, 5).groupby(names, observed=True).size() == 5).all()
    assert len(chosen(catalog, 100)) == 36
    for size in (1, 2, 5):
        assert set(chosen(catalog, size)["path"]) == set(chosen(shuffled, size)["path"])
        assert set(chosen(catalog, 1)["path"]) <= set(chosen(catalog, size)["path"]), "samples are nested"
    assert set(chosen(catalog, 1)["path"]) != set(chosen(catalog, 1, seed=1)["path"])


@pytest.mark.parametrize(
    ("num_images", "sizes"),
    [(5, {5}), (100, {16, 4}), (2000, {128, 80}), (3200, {208, 80}), (124_200, {2000, 200})],
)
def test_shards_fit_the_work(num_images: int, sizes: set[int]) -> None:
    shards = list(module._in_shards(MeasureConfig(), np.arange(num_images)))
    assert {len(shard) for shard in shards} == sizes
    np.testing.assert_array_equal(np.concatenate(shards), np.arange(num_images))


def test_a_catalog_without_cells_is_refused(world: Path) -> None:
    catalog = as_catalog(world, [("a.jpg", 1, -1, 0)])
    with pytest.raises(InputError, match="weather"):
        plan_shards(CONFIG, catalog, catalog.cells(["weather"]))


@pytest.mark.parametrize(
    "wrong", [{"height": 16}, {"threads": 0}, {"scale": "metric"}, {"basis_images": 1}, {"size": 3}]
)
def test_wrong_settings_are_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        MeasureConfig.model_validate(wrong)
