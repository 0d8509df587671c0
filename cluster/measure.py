"""The measure stage through Ray Data: one network per actor, and only counts through the object store."""

import math
from pathlib import Path
from typing import Any

import numpy as np
from finegpr.measure import MeasureConfig, Meter, Shard, measure_shard

from cluster.progress import Tick
from cluster.runtime import require_resources
from finegpr.catalog import Catalog


class _ShardMeter:
    """Lives in one actor: opens the reference once, then measures the shards it is handed and writes them itself."""

    def __init__(self, config: str, folder: str, catalog: str) -> None:
        self._folder = Path(folder)
        self._meter = Meter(MeasureConfig.model_validate_json(config), self._folder, Catalog.read(Path(catalog)))

    def __call__(self, batch: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        images = [
            measure_shard(self._meter, Shard(index=int(index), rows=np.asarray(rows, dtype=np.int64)), self._folder)
            for index, rows in zip(batch["index"], batch["rows"], strict=True)
        ]
        return {"index": batch["index"], "images": np.asarray(images, dtype=np.int64)}


def measure_pending(
    ray: Any, config: MeasureConfig, folder: Path, catalog_path: Path, pending: list[Shard], tick: Tick
) -> None:
    """Measure ``pending`` shards on every CPU the cluster offers. Each shard is committed by the actor that made it."""
    if not pending:
        return
    actors, cpus = _actors(ray, config)
    dataset = ray.data.from_items(
        [{"index": shard.index, "rows": shard.rows.tolist()} for shard in pending],
        override_num_blocks=len(pending),
    ).map_batches(
        _ShardMeter,
        fn_constructor_kwargs={
            "config": config.model_dump_json(),
            "folder": str(folder.resolve()),
            "catalog": str(catalog_path.resolve()),
        },
        batch_size=1,
        compute=ray.data.ActorPoolStrategy(size=min(actors, len(pending))),
        num_cpus=cpus,
    )
    done, total = 0, sum(len(shard.rows) for shard in pending)
    for row in dataset.iter_rows():
        done += int(row["images"])
        tick(done, total)


def _actors(ray: Any, config: MeasureConfig) -> tuple[int, float]:
    """Number of actors and the CPUs each reserves.

    Ray Data waits for ever when its actors leave less than one whole CPU for the tasks that feed them, so together
    the actors reserve all CPUs but one, whatever number of threads each of them really uses.
    """
    require_resources(ray, cpus=max(1, config.threads), gpus=0, what=f"measuring with {config.threads} threads")
    offered = int(ray.cluster_resources()["CPU"])
    actors = max(1, offered // config.threads)
    return actors, math.floor(1000 * (offered - 1) / actors) / 1000
