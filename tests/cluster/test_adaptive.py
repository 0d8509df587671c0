"""Measuring in rounds on a tiny rendered world: kills change nothing, everything measured is as measured at once."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cluster import cli
from cluster.executors.base import MeasureJob
from cluster.executors.serial import SerialExecutor
from cluster.progress import Tick
from cluster.run.adaptive import RECORD, ROWS, Rounds, measure_adaptively
from finegpr.catalog import Catalog
from finegpr.errors import StateError
from finegpr.measuring import measure as module
from finegpr.measuring.config import MeasureConfig
from finegpr.measuring.measure import measure, measure_shard
from finegpr.measuring.results import Measurements, read_measurements
from search.adaptive.sampler import AdaptiveConfig
from search.space import Budget, Space

CONFIG = MeasureConfig(
    network="vgg19",
    height=32,
    width=32,
    weights="random",
    images_per_shard=10,
    batch_size=5,
    basis_images=20,
    style_coordinates=8,
    content_coordinates=16,
)
ADAPTIVE = AdaptiveConfig(objective="mmd_linear", batch=0.1, patience=99, tolerance=0.0, ceiling=0.6)
ATTRIBUTES = ("viewpoint", "weather")


@pytest.fixture(scope="module")
def source(people: Catalog) -> Catalog:
    """About 6 images in each of 4 x 7 cells."""
    return people


@pytest.fixture(scope="module")
def space(source: Catalog) -> Space:
    return Space.of(source, Budget(images=20, least=0.15, most=0.5), seed=0, attributes=ATTRIBUTES)


def job(source: Catalog, space: Space, folder: Path) -> MeasureJob:
    target = source.take(np.flatnonzero(source.frame["weather"].isin(["foggy", "snowlight"]).to_numpy())[:30])
    return MeasureJob(
        source=source,
        source_path=source.root / "source.parquet",
        cells=space.cells,
        targets={"market": target},
        folder=folder,
    )


def run(
    source: Catalog, space: Space, folder: Path, *, executor: Any = None, adaptive: AdaptiveConfig = ADAPTIVE
) -> tuple[Measurements, Rounds]:
    where = job(source, space, folder)
    return measure_adaptively(executor or SerialExecutor(), CONFIG, where, adaptive, space, target="market")


@pytest.fixture(scope="module")
def undisturbed(source: Catalog, space: Space, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("undisturbed")
    run(source, space, folder)
    return folder


@pytest.fixture
def measured_again(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The shards that are measured from here on."""
    shards: list[int] = []

    def counted(meter: Any, index: int, rows: np.ndarray, folder: Path, **changed: Any) -> None:
        shards.append(index)
        measure_shard(meter, index, rows, folder, **changed)

    monkeypatch.setattr(module, "measure_shard", counted)
    return shards


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir()) if path.is_file()}


def assert_same(got: Measurements, expected: Measurements, *, rtol: float = 0.0) -> None:
    """Equal rows, and equal numbers up to ``rtol`` of a column's largest."""
    np.testing.assert_array_equal(got.row, expected.row)
    np.testing.assert_array_equal(got.cell, expected.cell)
    for name in ("sketch", "norms", "off_basis", "median"):
        largest = float(np.abs(getattr(expected, name)).max())
        np.testing.assert_allclose(getattr(got, name), getattr(expected, name), rtol=0, atol=rtol * largest)
    for target, terms in expected.terms.items():
        np.testing.assert_allclose(got.terms[target], terms, rtol=rtol)


class Killed(SerialExecutor):
    """Dies after so many shards, before the next."""

    def __init__(self, shards: int) -> None:
        self.shards = shards

    def measure(self, config: MeasureConfig, job: MeasureJob, tick: Tick) -> Measurements:
        measure_one = module.measure_shard

        def counted(*shard: Any, **how: Any) -> None:
            if not self.shards:
                raise KeyboardInterrupt
            self.shards -= 1
            measure_one(*shard, **how)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(module, "measure_shard", counted)
            return super().measure(config, job, tick)


def test_rounds_are_recorded_as_they_were_measured(undisturbed: Path, source: Catalog) -> None:
    record = json.loads((undisturbed / RECORD).read_text())
    measured = read_measurements(undisturbed)
    assert record["num_images"] == len(source) == 168
    assert sum(each["images"] for each in record["rounds"]) == len(measured.row) == 100
    assert record["stopped"] == "100 of 168 images are measured, the ceiling"
    first, *batches, last = (each["images"] for each in record["rounds"])
    assert first > 1
    assert batches == [17] * len(batches), "a tenth of 168"
    assert 0 < last <= 17
    assert record["rounds"][-1]["share"] == pytest.approx(100 / 168)
    assert set(record["rounds"][0]["subset"]) == set(ATTRIBUTES)
    assert (np.diff(measured.row) > 0).all(), "catalog order, whatever the rounds"


def test_killed_after_any_shard_it_goes_on_with_the_same_rows(
    undisturbed: Path, source: Catalog, space: Space, tmp_path: Path, measured_again: list[int]
) -> None:
    num_kills = 0
    while True:
        try:
            run(source, space, tmp_path, executor=Killed(shards=2))
            break
        except KeyboardInterrupt:
            num_kills += 1
    assert num_kills >= 5
    assert contents(tmp_path) == contents(undisturbed)
    assert sorted(measured_again) == sorted(set(measured_again)), "no finished shard is measured again"


def test_without_its_record_the_same_decisions_are_made_from_finished_shards(
    undisturbed: Path, source: Catalog, space: Space, tmp_path: Path, measured_again: list[int]
) -> None:
    """A kill between the two files of a round leaves the rows without their marker."""
    for name, data in contents(undisturbed).items():
        (tmp_path / name).write_bytes(data)
    (tmp_path / RECORD).unlink()
    run(source, space, tmp_path)
    assert contents(tmp_path) == contents(undisturbed)
    assert measured_again == []


def test_a_settled_measurement_is_only_read(
    undisturbed: Path, source: Catalog, space: Space, measured_again: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    before = contents(undisturbed)
    monkeypatch.setattr("cluster.run.adaptive.AdaptiveSampler.decide", None)
    measured, rounds = run(source, space, undisturbed)
    assert_same(measured, read_measurements(undisturbed))
    assert rounds.stopped is not None
    assert rounds.stopped.endswith("the ceiling")
    assert measured_again == []
    assert contents(undisturbed) == before


def test_up_to_the_full_ceiling_all_is_measured_as_at_once(source: Catalog, space: Space, tmp_path: Path) -> None:
    full = ADAPTIVE.model_copy(update={"ceiling": 1.0, "batch": 0.3})
    grown, rounds = run(source, space, tmp_path / "grown", adaptive=full)
    assert rounds.share == 1
    where = job(source, space, tmp_path / "at-once")
    at_once = measure(CONFIG, source, where.targets, where.folder, cells=space.cells)
    # Other images share a batch with each; the last digits of a convolution depend on the batch's size.
    assert_same(grown, at_once, rtol=1e-3)


def test_other_settings_begin_anew_and_say_so(
    undisturbed: Path,
    source: Catalog,
    space: Space,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    measured_again: list[int],
) -> None:
    for name, data in contents(undisturbed).items():
        (tmp_path / name).write_bytes(data)
    measured, _ = run(source, space, tmp_path, adaptive=ADAPTIVE.model_copy(update={"ceiling": 0.25}))
    assert "adaptive.ceiling: 0.6 -> 0.25" in capsys.readouterr().err
    assert len(measured.row) == 42
    assert measured_again == [4], "the seed's shards are the same, but the last round was cut"


@pytest.mark.parametrize("name", [RECORD, ROWS])
def test_damage_is_named(name: str, undisturbed: Path, source: Catalog, space: Space, tmp_path: Path) -> None:
    for each, data in contents(undisturbed).items():
        (tmp_path / each).write_bytes(data)
    data = bytearray((tmp_path / name).read_bytes())
    data[len(data) // 2] ^= 1
    (tmp_path / name).write_bytes(data)
    with pytest.raises(StateError, match=name):
        run(source, space, tmp_path)


@pytest.fixture
def aost(capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, dict[str, Any]]]:
    def call(*arguments: str) -> tuple[int, dict[str, Any]]:
        code = cli.run([*arguments, "--json"])
        return code, json.loads(capsys.readouterr().out.splitlines()[-1])

    return call


def test_the_verb_measures_adaptively(
    source: Catalog, tmp_path: Path, aost: Callable[..., tuple[int, dict[str, Any]]]
) -> None:
    target = tmp_path / "market.parquet"
    source.take(range(0, 168, 7)).write(target)
    settings = [f"{name}={value}" for name, value in CONFIG.model_dump(exclude_none=True).items()]
    call = ["measure", str(source.root / "source.parquet"), "--targets", str(target), "--serial"]
    call += ["--output", str(tmp_path / "measured"), "--set", *settings]
    adaptive = ["adaptive.budget.images=20", "adaptive.attributes=[viewpoint, weather]", "adaptive.ceiling=0.3"]
    adaptive += ["adaptive.patience=99", "adaptive.tolerance=0"]  # only the ceiling ends it
    code, result = aost(*call, *adaptive)
    assert code == 0
    assert result["num_images"] == 50
    assert result["adaptive"]["share"] == pytest.approx(50 / 168)
    assert set(result["adaptive"]["subset"]) == set(ATTRIBUTES)
    assert (tmp_path / "measured" / RECORD).exists()

    code, result = aost(*call, *adaptive, "images_per_cell=2")
    assert code == 2, "a finished measurement is not overwritten"
    code, result = aost(call[0], "--fresh", *call[1:], *adaptive, "images_per_cell=2")
    assert code == 0
    assert result["num_images"] == 16, "the share is one of what would be measured otherwise"
    code, result = aost(call[0], "--fresh", *call[1:], *adaptive, "adaptive.target=duke")
    assert code == 2
    assert "one of market" in result["error"]
