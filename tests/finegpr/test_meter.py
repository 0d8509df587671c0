"""The meter: rows expected, rows measured by several threads and rows read in plain order give the same table."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from finegpr.catalog import Catalog
from finegpr.errors import StateError
from finegpr.measuring.bench import draw_images, narrowed
from finegpr.measuring.config import MeasureConfig
from finegpr.measuring.meter import Meter
from finegpr.measuring.reference import fit_reference
from finegpr.pixels import prefetch
from finegpr.pixels.decode import load, load_into

CONFIG = MeasureConfig(
    network="vgg19",
    height=32,
    width=32,
    batch_size=4,
    basis_images=24,
    style_coordinates=8,
    content_coordinates=8,
    weights="random",
)
WEIGHTS = narrowed(16)


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Catalog:
    root = tmp_path_factory.mktemp("images")
    return draw_images(root, 24, height=48, width=20)


def open_meter(config: MeasureConfig, folder: Path, source: Catalog, *, threads: int = 2) -> Meter:
    fit_reference(config, source, {"a": source.take(range(8)), "b": source.take(range(8, 24))}, folder, weights=WEIGHTS)
    return Meter(config, folder, source, weights=WEIGHTS, decoding_threads=threads)


@pytest.fixture
def meter(source: Catalog, tmp_path: Path) -> Iterator[Meter]:
    opened = open_meter(CONFIG, tmp_path, source)
    yield opened
    opened.close()


def test_the_table_is_what_the_vectors_say(source: Catalog, meter: Meter, monkeypatch: pytest.MonkeyPatch) -> None:
    """In float64, one image after the other; a bad one among them leaves the rest where they belong."""
    paths, read = source.file_paths(), meter._decoder.read_file
    monkeypatch.setattr(meter._decoder, "read_file", lambda path: b"" if path == paths[5] else read(path))
    table = meter.measure(np.arange(24))
    assert np.flatnonzero(~table["ok"].to_numpy()).tolist() == [5]
    terms = table["terms/b"].combine_chunks().flatten().to_numpy().reshape(24, 6)
    assert (terms[5] == 0).all()
    target = meter.reference.targets["b"]
    for row in (0, 4, 6, 23):
        pixels, _ = load(paths[row : row + 1], height=32, width=32)
        for term, vector in enumerate(meter.network(torch.from_numpy(pixels))):
            away = (vector[0].double() - target.mean[term].double()).square().sum() + target.constant[term]
            assert terms[row, term] == pytest.approx(float(away), rel=1e-4)


def test_what_was_expected_is_not_decoded_again(meter: Meter, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = np.array([3, 1, 2, 8, 21])
    plain = meter.measure(rows)
    decoded: list[Path] = []

    def counted(images: Any, paths: list[Path], **more: Any) -> object:
        decoded.extend(paths)
        return load_into(images, paths, **more)

    monkeypatch.setattr(prefetch, "load_into", counted)
    meter.expect(rows)
    other = meter.measure(np.array([9, 10]))
    assert other["row"].to_pylist() == [9, 10]
    assert meter.measure(rows).equals(plain)
    assert len(decoded) == 7


def test_threads_that_measure_at_once_get_the_same_numbers(meter: Meter) -> None:
    shards = [np.arange(start, start + 6) for start in range(0, 24, 6)]
    alone = [meter.measure(rows) for rows in shards]
    with ThreadPoolExecutor(3) as pool:
        assert all(map(lambda x, y: x.equals(y), pool.map(meter.measure, shards * 3), alone * 3))


def test_the_number_of_decoding_threads_changes_nothing(source: Catalog, tmp_path: Path) -> None:
    tables = [open_meter(CONFIG, tmp_path, source, threads=threads).measure(np.arange(24)) for threads in (1, 5)]
    assert tables[0].equals(tables[1])


def test_bf16_is_near_and_is_another_reference(meter: Meter, source: Catalog, tmp_path: Path) -> None:
    config = CONFIG.model_copy(update={"precision": "bf16"})
    rounded = open_meter(config, tmp_path / "bf16", source)
    assert all(
        vector.dtype == torch.float32 for vector in rounded.network(torch.zeros(1, 3, 32, 32, dtype=torch.uint8))
    )
    columns = [
        each.measure(np.arange(6, 24))["terms/a"].combine_chunks().flatten().to_numpy() for each in (meter, rounded)
    ]
    np.testing.assert_allclose(columns[1], columns[0], rtol=0.05)
    assert not np.allclose(columns[1], columns[0], rtol=1e-5), "the network did run in bfloat16"
    assert rounded.reference.hash != meter.reference.hash
    with pytest.raises(StateError, match=r"other settings \(precision\)"):
        Meter(CONFIG, tmp_path / "bf16", source, weights=WEIGHTS)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize(("precision", "tolerance"), [("float32", 1e-3), ("bf16", 0.1)])
def test_a_gpu_measures_what_the_cpu_measures(
    precision: str, tolerance: float, source: Catalog, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = CONFIG.model_copy(update={"precision": precision})
    on_gpu = open_meter(config, tmp_path, source).measure(np.arange(24))
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    on_cpu = open_meter(config, tmp_path, source).measure(np.arange(24))
    for name in ("terms/a", "terms/b", "norms"):
        got, expected = (table[name].combine_chunks().flatten().to_numpy() for table in (on_gpu, on_cpu))
        np.testing.assert_allclose(got, expected, rtol=tolerance)
