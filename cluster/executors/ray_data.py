"""The measure stage through Ray Data: one network per actor, and only counts through the object store."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from cluster.executors.session import require_resources, unwrapped_errors
from cluster.progress import say
from finegpr.catalog import Catalog
from finegpr.errors import ConfigError
from finegpr.measuring.config import MeasureConfig
from finegpr.measuring.freshness import Pending, is_finished
from finegpr.measuring.measure import measure_shard, shard_inputs
from finegpr.measuring.meter import Meter
from finegpr.object_stores import AnyPath


class ShardMeter:
    """Lives in one actor: opens the reference once, then measures the shards it is handed and writes them itself.

    Two calls run at a time: while the network works for one, the images of the other are decoded or its table written.
    """

    def __init__(self, config: str, folder: Path, catalog: Path, root: AnyPath, decoding_threads: int | None) -> None:
        self.folder = folder
        self.meter = self.open(
            MeasureConfig.model_validate_json(config), Catalog.read(catalog, root=root), decoding_threads
        )

    def open(self, config: MeasureConfig, source: Catalog, decoding_threads: int | None) -> Meter:
        """The meter of this actor."""
        return Meter(config, self.folder, source, decoding_threads=decoding_threads)

    def __call__(self, batch: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        images = []
        for index, rows, positions in zip(batch["index"], batch["rows"], batch["positions"], strict=True):
            rows = np.asarray(rows, dtype=np.int64)
            changed = np.asarray(positions, dtype=np.int64)
            inputs = shard_inputs(self.meter.config, self.meter.reference, rows)
            # A node may be lost after the shard was finished and before Ray knew.
            if len(changed) or not is_finished(self.folder, int(index), inputs):
                measure_shard(self.meter, int(index), rows, self.folder, positions=changed if len(changed) else None)
            images.append(len(changed) or len(rows))
        return {"images": np.asarray(images)}


def measure_pending(
    ray: Any,
    config: MeasureConfig,
    folder: Path,
    catalog_path: Path,
    root: AnyPath,
    shards: Mapping[int, Pending],
    tick: Callable[[int], None],
) -> None:
    """Measure the shards on every GPU of the cluster, or else on its CPUs; the actor that measured one commits it.

    ``folder`` and ``catalog_path`` lie on storage that every node sees. ``tick`` is told of each shard's images.
    """
    actors = plan_actors(ray, config)
    if not actors.gpus:
        say(f"  no GPU in the cluster: measuring on CPUs, {actors.number} x {config.threads} threads")
    dataset = ray.data.from_items(
        [
            {"index": index, "rows": todo.rows.tolist(), "positions": [] if todo.positions is None else todo.positions}
            for index, todo in shards.items()
        ],
        override_num_blocks=len(shards),  # one shard each: what is lost with a node is the shards in flight
    ).map_batches(
        ShardMeter,
        fn_constructor_kwargs={
            "config": config.model_dump_json(),
            "folder": folder.resolve(),
            "catalog": catalog_path.resolve(),
            "root": root.absolute(),
            "decoding_threads": actors.decoding_threads,
        },
        batch_size=1,
        compute=ray.data.ActorPoolStrategy(
            size=min(actors.number, len(shards)), max_concurrent_calls_per_actor=2, enable_true_multi_threading=True
        ),
        num_cpus=actors.cpus,
        num_gpus=actors.gpus,
    )
    with unwrapped_errors("measuring"):
        for row in dataset.iter_rows():
            tick(int(row["images"]))


@dataclass(frozen=True, kw_only=True)
class Actors:
    """How many actors measure, and what each reserves: CPUs, and GPUs 0 or 1.

    ``decoding_threads`` None: as many as suit a network on the CPU.
    """

    number: int
    cpus: float
    gpus: int
    decoding_threads: int | None


def plan_actors(ray: Any, config: MeasureConfig) -> Actors:
    """One actor for each GPU, or without any, for each ``config.threads`` CPUs.

    Ray Data waits for ever when its actors leave less than one whole CPU for the tasks that feed them, so those of a
    node together reserve all its CPUs but one, whatever number of threads each of them really uses.
    Raises ConfigError when no node has the CPUs of one actor.
    """
    what = f"measuring with {config.threads} threads"
    require_resources(ray, cpus=config.threads, gpus=0, what=what)
    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    cpus = [node.get("CPU", 0.0) for node in nodes]
    places = [
        (have, int(node.get("GPU", 0.0))) for have, node in zip(cpus, nodes, strict=True) if node.get("GPU", 0.0) >= 1
    ]
    gpus = 1 if places else 0
    if not places:
        places = [(have, int(have // config.threads)) for have in cpus if have >= config.threads]
    if not places:
        raise ConfigError(
            f"{what} needs a node of {config.threads} CPU, the largest has {max(cpus):g}; set fewer threads"
        )
    share = max(0.0, min((have - 1) / number for have, number in places))
    return Actors(
        number=sum(number for _, number in places),
        cpus=math.floor(1000 * share) / 1000,
        gpus=gpus,
        decoding_threads=max(1, int(share)) if gpus else None,
    )
