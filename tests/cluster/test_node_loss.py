"""A node is lost while Ray Data measures: its shards in flight are measured elsewhere, and the rows stay the same."""

import sys
import time
from pathlib import Path
from threading import Thread
from typing import Any

import numpy as np
import pandas as pd
import pytest

from cluster.executors import ray_data as module
from cluster.executors.ray_data import ShardMeter, measure_pending
from finegpr.catalog import Catalog
from finegpr.measuring.config import MeasureConfig
from finegpr.measuring.freshness import pending_shards
from finegpr.measuring.measure import measure, prepare
from finegpr.render.minigpr import MiniGPRConfig, render_minigpr
from finegpr.storage import read_table

CONFIG = MeasureConfig(
    network="vgg19",
    height=64,
    width=32,
    weights="random",
    images_per_shard=12,
    batch_size=4,
    basis_images=20,
    style_coordinates=8,
    content_coordinates=16,
)


class Watched(ShardMeter):
    """Leaves a note of every shard that is begun, and on which node."""

    def __call__(self, batch: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        import ray

        node = ray.get_runtime_context().get_node_id()
        (self.folder / f"begun-{int(batch['index'][0])}-{node}-{time.time_ns()}").touch()
        return super().__call__(batch)


def begun(folder: Path) -> list[tuple[int, str]]:
    """Shard and node of every beginning, in order."""
    notes = [path.name.split("-")[1:] for path in folder.glob("begun-*")]
    return [(int(index), node) for index, node, _ in sorted(notes, key=lambda note: int(note[2]))]


def written(folder: Path, index: int) -> int:
    """When the finish marker of a shard was written."""
    (marker,) = (path for path in folder.glob("shard-*.json") if int(path.stem.split("-")[1]) == index)
    return marker.stat().st_mtime_ns


def rows(folder: Path) -> pd.DataFrame:
    tables = [read_table(path).to_pandas() for path in folder.glob("shard-*.parquet")]
    return pd.concat(tables).sort_values("row", ignore_index=True)


@pytest.mark.slow
def test_shards_of_a_lost_node_are_measured_elsewhere(
    nodes: tuple[Any, Any, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ray, cluster, second = nodes
    ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])
    world = tmp_path / "world"
    render_minigpr(MiniGPRConfig(num_identities=12, images_per_identity=40, viewpoints=60, height=64, width=32), world)
    source = Catalog.index(world, layout="finegpr")
    source.write(tmp_path / "source.parquet")
    cells = source.cells(["viewpoint", "weather", "illumination"])
    targets = {"market": source.take(range(0, 30, 3))}
    measure(CONFIG, source, targets, tmp_path / "undisturbed", cells=cells)

    folder = tmp_path / "disturbed"
    shards = dict(enumerate(prepare(CONFIG, source, targets, folder, cells=cells)))
    monkeypatch.setattr(module, "ShardMeter", Watched)
    told: list[int] = []
    arguments = (ray, CONFIG, folder, tmp_path / "source.parquet", source.root, shards, told.append)
    job = Thread(target=measure_pending, args=arguments)
    job.start()

    def finished() -> set[int]:
        return {int(path.stem.split("-")[1]) for path in folder.glob("shard-*.json")}

    def in_flight() -> set[int]:
        return {index for index, node in begun(folder) if node == second.node_id} - finished()

    while not (finished() and in_flight()):
        assert job.is_alive(), "nothing was measured on the second node"
        time.sleep(0.01)
    cluster.remove_node(second, allow_graceful=False)
    lost = in_flight()
    done = {index: written(folder, index) for index in finished()}
    assert lost, "no work was on the node when it was removed"
    job.join()
    assert not pending_shards(folder, source)
    attempts = begun(folder)
    for index in lost:
        homes = [node for begun_index, node in attempts if begun_index == index]
        assert homes[0] == second.node_id
        assert homes[-1] != second.node_id, f"shard {index} was not begun again elsewhere"
    assert {index: written(folder, index) for index in done} == done, "a finished shard was measured again"
    pd.testing.assert_frame_equal(rows(folder), rows(tmp_path / "undisturbed"))
