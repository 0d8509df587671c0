"""kill -9 at random moments of a measurement: the same rows as undisturbed, and no finished shard measured again."""

import multiprocessing.process
import runpy
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from finegpr.catalog import Catalog
from finegpr.measuring.config import MeasureConfig
from finegpr.measuring.measure import measure
from finegpr.render.minigpr import MiniGPRConfig, render_minigpr
from finegpr.storage import read_table

pytestmark = pytest.mark.processes

CONTEXT = runpy.run_path(str(Path(__file__).parents[1] / "forked.py"))["CONTEXT"]

CONFIG = MeasureConfig(
    network="vgg19",
    height=32,
    width=32,
    weights="random",
    images_per_shard=5,
    batch_size=5,
    basis_images=20,
    style_coordinates=8,
    content_coordinates=16,
)


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Catalog:
    root = tmp_path_factory.mktemp("world")
    render_minigpr(MiniGPRConfig(num_identities=5, images_per_identity=15, viewpoints=60, height=32, width=16), root)
    return Catalog.index(root, layout="finegpr")


def shards(folder: Path) -> dict[str, int]:
    """When each finished shard was written."""
    return {marker.name: marker.with_suffix(".parquet").stat().st_mtime_ns for marker in folder.glob("shard-*.json")}


def rows(folder: Path) -> pd.DataFrame:
    tables = [read_table(path).to_pandas() for path in folder.glob("shard-*.parquet")]
    return pd.concat(tables).sort_values("row", ignore_index=True)


@pytest.mark.parametrize("num_kills", [3, pytest.param(25, marks=pytest.mark.slow)])
def test_random_kills_change_nothing(num_kills: int, source: Catalog, tmp_path: Path) -> None:
    cells = source.cells(["viewpoint", "weather", "illumination"])
    targets = {"market": source.take(range(0, 30, 3))}

    def start(folder: Path) -> multiprocessing.process.BaseProcess:
        process: multiprocessing.process.BaseProcess = CONTEXT.Process(
            target=measure, args=(CONFIG, source, targets, folder), kwargs={"cells": cells}
        )
        process.start()
        return process

    warm = CONTEXT.Process(target=time.sleep, args=(0,))  # the first one waits for imports, no other does
    warm.start()
    warm.join()
    started = time.monotonic()
    undisturbed = start(tmp_path / "undisturbed")
    undisturbed.join()
    assert undisturbed.exitcode == 0
    duration = time.monotonic() - started
    expected = rows(tmp_path / "undisturbed")
    assert len(expected) == len(source)

    random = np.random.default_rng(0)
    kills = jobs = num_measuring = 0
    while kills < num_kills:
        folder = tmp_path / f"job{jobs}"
        jobs += 1
        done: dict[str, int] = {}
        exitcode: int | None = None
        while exitcode != 0:
            process = start(folder)
            if kills % 2:  # at any moment
                process.join(random.uniform(0, duration))
            else:  # while shards are being written, however long the way there takes on a busy machine
                while process.is_alive() and len(shards(folder)) <= len(done):
                    time.sleep(0.001)
                process.join(random.uniform(0, 0.05))
            process.kill()
            process.join()
            exitcode = process.exitcode
            now = shards(folder)
            assert {name: now.get(name) for name in done} == done, "a finished shard was measured again"
            kills += exitcode != 0
            num_measuring += exitcode != 0 and len(now) > len(done)
            done = now
        pd.testing.assert_frame_equal(rows(folder), expected)
    assert num_measuring >= max(1, num_kills // 5), f"only {num_measuring} of {kills} kills hit the measuring"
