"""What the measuring actors reserve, and that two calls in one actor do not disturb each other."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cluster.executors.ray_data import ShardMeter, plan_actors
from finegpr.catalog import Catalog
from finegpr.errors import ConfigError
from finegpr.measuring.bench import draw_images, narrowed
from finegpr.measuring.config import MeasureConfig
from finegpr.measuring.measure import measure_shard
from finegpr.measuring.meter import Meter
from finegpr.measuring.reference import fit_reference


class FakeRay:
    """A cluster of nodes with so many CPUs and GPUs."""

    def __init__(self, *nodes: tuple[float, float]) -> None:
        self._nodes = [{"CPU": cpus, **({"GPU": gpus} if gpus else {})} for cpus, gpus in nodes]

    def nodes(self) -> list[dict[str, Any]]:
        lost = {"Alive": False, "Resources": {"CPU": 1000.0, "GPU": 8.0}}
        return [lost, *({"Alive": True, "Resources": node} for node in self._nodes)]

    def cluster_resources(self) -> dict[str, float]:
        return {name: sum(node.get(name, 0.0) for node in self._nodes) for name in ("CPU", "GPU")}


@pytest.mark.parametrize(
    ("nodes", "threads", "number", "cpus", "gpus", "decoding"),
    [
        ([(2, 0)], 1, 2, 0.5, 0, None),
        ([(2, 0)], 2, 1, 1.0, 0, None),
        ([(4, 0)], 1, 4, 0.75, 0, None),
        ([(1, 0)], 1, 1, 0.0, 0, None),
        ([(2, 0), (2, 0)], 1, 4, 0.5, 0, None),
        ([(8, 0), (3, 0)], 2, 5, 1.75, 0, None),
        ([(16, 1)], 1, 1, 15.0, 1, 15),
        ([(16, 4)], 1, 4, 3.75, 1, 3),
        ([(64, 0), (4, 1)], 1, 1, 3.0, 1, 3),
        ([(1, 1)], 1, 1, 0.0, 1, 1),
    ],
)
def test_actors_leave_a_whole_cpu_on_every_node(
    nodes: list[tuple[float, float]], threads: int, number: int, cpus: float, gpus: int, decoding: int | None
) -> None:
    actors = plan_actors(FakeRay(*nodes), MeasureConfig(network="vgg19", threads=threads))
    assert (actors.number, actors.cpus, actors.gpus, actors.decoding_threads) == (number, cpus, gpus, decoding)


@pytest.mark.parametrize("nodes", [[(2, 0)], [(3, 0), (3, 0)]])
def test_more_threads_than_a_node_has_are_refused(nodes: list[tuple[float, float]]) -> None:
    with pytest.raises(ConfigError, match=r"measuring with 4 threads needs .*4 CPU.* fewer"):
        plan_actors(FakeRay(*nodes), MeasureConfig(network="vgg19", threads=4))


class NarrowShardMeter(ShardMeter):
    def open(self, config: MeasureConfig, source: Catalog, decoding_threads: int | None) -> Meter:
        return Meter(config, self.folder, source, weights=narrowed(16), decoding_threads=decoding_threads)


def test_an_actor_that_is_called_twice_at_once_writes_what_the_serial_form_writes(tmp_path: Path) -> None:
    source = draw_images(tmp_path / "images", 24, height=48, width=20)
    source.write(tmp_path / "catalog.parquet")
    config = MeasureConfig(
        network="vgg19", height=32, width=32, batch_size=4, basis_images=24, style_coordinates=8, weights="random"
    )
    for name in ("serial", "actor"):
        fit_reference(config, source, {"target": source}, tmp_path / name, weights=narrowed(16))
    shards = {index: np.arange(index * 6, index * 6 + 6) for index in range(4)}
    meter = Meter(config, tmp_path / "serial", source, weights=narrowed(16))
    for index, rows in shards.items():
        measure_shard(meter, index, rows, tmp_path / "serial")

    catalog, root = tmp_path / "catalog.parquet", tmp_path / "images"
    actor = NarrowShardMeter(config.model_dump_json(), tmp_path / "actor", catalog, root, 2)
    with ThreadPoolExecutor(2) as pool:
        batches = [
            {"index": np.array([index]), "rows": rows[None], "positions": [[]]} for index, rows in shards.items()
        ]
        assert [counted["images"].tolist() for counted in pool.map(actor, batches)] == [[6]] * 4
    for path in (tmp_path / "serial").glob("shard-*"):
        assert (tmp_path / "actor" / path.name).read_bytes() == path.read_bytes(), path.name
