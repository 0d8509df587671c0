"""The measure stage through Ray Data: one network per actor, and only counts through the object store."""

import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cluster.runtime import require_resources, unwrapped_errors
from finegpr.catalog import Catalog
from finegpr.measure import MeasureConfig, Meter, measure_shard


class _ShardMeter:
    """Lives in one actor: opens the reference once, then measures the shards it is handed and writes them itself."""

    def __init__(self, config: str, folder: str, catalog: str, root: str) -> None:
        self._folder = Path(folder)
        source = Catalog.read(Path(catalog), root=Path(root))
        self._meter = Meter(MeasureConfig.model_validate_json(config), self._folder, source)

    def __call__(self, batch: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        images = []
        for index, rows in zip(batch["index"], batch["rows"], strict=True):
            measure_shard(self._meter, int(index), np.asarray(rows, dtype=np.int64), self._folder)
            images.append(len(rows))
        return {"images": np.asarray(images)}


def measure_pending(
    ray: Any,
    config: MeasureConfig,
    folder: Path,
    catalog_path: Path,
    root: Path,
    shards: Mapping[int, NDArray[np.int64]],
    tick: Callable[[int], None],
) -> None:
    """Measure the shards on every CPU the cluster offers; each is committed by the actor that measured it.

    ``folder`` and ``catalog_path`` lie on storage that every node sees. ``tick`` is told of each shard's images.
    """
    actors, cpus = _actors(ray, config)
    dataset = ray.data.from_items(
        [{"index": index, "rows": rows.tolist()} for index, rows in shards.items()],
        override_num_blocks=len(shards),
    ).map_batches(
        _ShardMeter,
        fn_constructor_kwargs={
            "config": config.model_dump_json(),
            "folder": str(folder.resolve()),
            "catalog": str(catalog_path.resolve()),
            "root": str(root.absolute()),
        },
        batch_size=1,
        compute=ray.data.ActorPoolStrategy(size=min(actors, len(shards))),
        num_cpus=cpus,
    )
    with unwrapped_errors("measuring"):
        for row in dataset.iter_rows():
            tick(int(row["images"]))


def _actors(ray: Any, config: MeasureConfig) -> tuple[int, float]:
    """Number of actors and the CPUs each reserves.

    Ray Data waits for ever when its actors leave less than one whole CPU for the tasks that feed them, so together
    the actors reserve all CPUs but one, whatever number of threads each of them really uses.
    """
    require_resources(ray, cpus=max(1, config.threads), gpus=0, what=f"measuring with {config.threads} threads")
    offered = int(ray.cluster_resources()["CPU"])
    actors = max(1, offered // config.threads)
    return actors, math.floor(1000 * (offered - 1) / actors) / 1000
