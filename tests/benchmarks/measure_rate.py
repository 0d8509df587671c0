"""Rate of the whole measurement from JPEG files against the bare network: serial, and through Ray Data, in one run.

    python tests/benchmarks/measure_rate.py [--seconds 60] [--output results/measure-rate.md]

Bare: VGG-19 to relu5_1 without Gram matrices, on decoded images in memory, of the same size and threads. Serial: bare
and whole take turns. Ray: two actors of one thread, against two bare processes of one thread that run at the same
time, before and after. Steady state: each rate is of --seconds, after what is started has started; start-up stands
apart. The cheap network has the same layers, each 16 / 3 times narrower, so that everything else can be seen.
"""

import argparse
import cProfile
import json
import multiprocessing
import os
import pstats
import sys
import tempfile
import time
from contextlib import closing
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np
import torch

import cluster.executors.ray_data
from cluster.executors.ray_data import ShardMeter, measure_pending
from cluster.executors.session import RayConfig, ray_session
from finegpr.catalog import Catalog
from finegpr.measuring.bench import (
    CHEAP,
    bare_pass,
    draw_images,
    measure_rate,
    open_meter,
    resident,
    stage_seconds,
    weights_of,
)
from finegpr.measuring.config import MeasureConfig
from finegpr.measuring.freshness import Pending
from finegpr.measuring.meter import Meter

NUM_FILES = 160
ROUNDS = 3
CORES = 2
SHARD_SECONDS = 4.0


@dataclass(frozen=True, kw_only=True)
class RayRate:
    bare: float
    whole: float
    seconds: float
    startup: float


def config_of(size: tuple[int, int], *, threads: int) -> MeasureConfig:
    return MeasureConfig(
        network="vgg19", height=size[0], width=size[1], weights="random", basis_images=NUM_FILES, threads=threads
    )


def images_for(meter: Meter, seconds: float) -> int:
    """How many images the bare network takes in ``seconds``: whole batches, at least two."""
    batches = resident(meter, np.arange(meter.config.batch_size))
    bare_pass(meter.network, batches)
    started = time.perf_counter()
    bare_pass(meter.network, batches)
    return meter.config.batch_size * max(2, round(seconds / (time.perf_counter() - started)))


def bare_process(network: str, size: tuple[int, int], folder: str, root: str, talk: Connection) -> None:
    """Runs the bare network for as many seconds as it is told, and answers with images and seconds."""
    source = Catalog.index(Path(root), layout="folder")
    meter = Meter(config_of(size, threads=1), Path(folder), source, weights=weights_of(network))
    batches = resident(meter, np.arange(64))
    bare_pass(meter.network, batches[:1])
    talk.send("ready")
    while seconds := talk.recv():
        started, images = time.perf_counter(), 0
        while time.perf_counter() - started < seconds:
            for batch in batches:
                bare_pass(meter.network, [batch])
                images += len(batch)
        talk.send(images / (time.perf_counter() - started))


class BareProcesses:
    """Two of them, started once and idle between their turns."""

    def __init__(self, network: str, size: tuple[int, int], folder: Path, root: Path) -> None:
        context = multiprocessing.get_context("spawn")
        self.talks = []
        for _ in range(CORES):
            ours, theirs = context.Pipe()
            arguments = (network, size, str(folder), str(root), theirs)
            context.Process(target=bare_process, args=arguments, daemon=True).start()
            self.talks.append(ours)
        for talk in self.talks:
            talk.recv()

    def rate(self, seconds: float) -> float:
        for talk in self.talks:
            talk.send(seconds)
        return sum(talk.recv() for talk in self.talks)

    def close(self) -> None:
        for talk in self.talks:
            talk.send(0)


def timed_shard_meter(network: str, times: Path) -> type[ShardMeter]:
    """The actor with another network's weights, that also writes down when it finished each shard."""

    class Timed(ShardMeter):
        def open(self, config: MeasureConfig, source: Catalog, decoding_threads: int | None) -> Meter:
            return Meter(config, self.folder, source, weights=weights_of(network), decoding_threads=decoding_threads)

        def __call__(self, batch: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
            counted = super().__call__(batch)
            with (times / f"{os.getpid()}.jsonl").open("a") as lines:
                lines.write(json.dumps([time.monotonic(), int(counted["images"].sum())]) + "\n")
            return counted

    return Timed


def steady(times: Path, started: float) -> tuple[float, float, float]:
    """Images per second between each actor's first shard and the moment the first actor has no more; seconds; start."""
    actors = [
        np.array([json.loads(line) for line in path.read_text().splitlines()]) for path in sorted(times.iterdir())
    ]
    end = min(log[-1, 0] for log in actors)
    rate, shortest = 0.0, float("inf")
    for log in actors:
        within = log[log[:, 0] <= end]
        seconds = within[-1, 0] - within[0, 0]
        rate += within[1:, 1].sum() / seconds
        shortest = min(shortest, seconds)
    return rate, shortest, min(log[0, 0] for log in actors) - started


def ray_rate(ray: Any, network: str, size: tuple[int, int], folder: Path, source: Catalog, seconds: float) -> RayRate:
    """Two actors of one thread; their start is all before the first shard is finished, less that shard's time."""
    config = config_of(size, threads=1)
    source.write(folder / "catalog.parquet")
    bare = BareProcesses(network, size, folder, Path(str(source.root)))
    before = bare.rate(seconds / 2)
    images = max(16, round(before / CORES * SHARD_SECONDS))
    number = CORES * (2 + round(seconds / SHARD_SECONDS))
    shards = {index: Pending(rows=(np.arange(images) + index * images) % NUM_FILES) for index in range(number)}
    times = folder / "times"
    times.mkdir()
    cluster.executors.ray_data.ShardMeter = timed_shard_meter(network, times)  # type: ignore[misc]
    started = time.monotonic()
    measure_pending(ray, config, folder, folder / "catalog.parquet", source.root, shards, lambda _: None)
    whole, lasted, startup = steady(times, started)
    after = bare.rate(seconds / 2)
    bare.close()
    return RayRate(bare=(before + after) / 2, whole=whole, seconds=lasted, startup=startup - images / (before / CORES))


def targets_ratio(one: Meter, eight: Meter, images: int) -> float:
    """Time with eight targets over time with one: medians of alternating rounds."""
    rows = np.arange(images) % NUM_FILES
    took = []
    for _ in range(ROUNDS):
        stamps = [time.perf_counter()]
        for meter in (one, eight):
            meter.measure(rows)
            stamps.append(time.perf_counter())
        took.append(np.diff(stamps))
    first, second = np.median(took, axis=0)
    return float(second / first)


def profile(meter: Meter, images: int) -> list[str]:
    """Where the main thread was, own time: the eight functions with most of it."""
    profiler = cProfile.Profile()
    profiler.enable()
    meter.measure(np.arange(images) % NUM_FILES)
    profiler.disable()
    stats = pstats.Stats(profiler).stats  # type: ignore[attr-defined]
    total = sum(entry[2] for entry in stats.values())
    rows = sorted(stats.items(), key=lambda item: -item[1][2])[:8]
    return [f"| {name[2].strip('<>')} | {entry[2] / total:.1%} |" for name, entry in rows]


def main(arguments: list[str]) -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--size", default="256x128", help="height x width")
    parser.add_argument("--seconds", type=float, default=60.0, help="of each rate")
    parser.add_argument("--output", type=Path, default=Path("results/measure-rate.md"))
    given = parser.parse_args(arguments)
    height, width = map(int, given.size.split("x"))
    size, seconds = (height, width), given.seconds
    begun = time.perf_counter()
    rates: list[tuple[Any, ...]] = []
    targets, staged, profiled, bare_of = [], [], [], {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        source = draw_images(folder / "images", NUM_FILES)
        for network in ("vgg19", CHEAP):
            weights = weights_of(network)
            for threads in (1, CORES):
                place = folder / f"{network}-{threads}"
                with closing(open_meter(config_of(size, threads=threads), place, source, weights)) as meter:
                    rate = measure_rate(meter, folder, images=images_for(meter, seconds / ROUNDS), rounds=ROUNDS)
                    rates.append(
                        (
                            network,
                            f"serial, {threads} thread{'s' * (threads > 1)}",
                            rate.bare,
                            rate.whole,
                            rate.seconds,
                            None,
                        )
                    )
                    if threads == 1:
                        bare_of[network] = rate.bare
                        stages = stage_seconds(meter, folder)
                        staged.append((network, stages, rate))
                        if network == "cheap":
                            profiled = profile(meter, images_for(meter, seconds / ROUNDS))
            place = folder / f"{network}-8"
            with (
                closing(Meter(config_of(size, threads=1), folder / f"{network}-1", source, weights=weights)) as one,
                closing(open_meter(config_of(size, threads=1), place, source, weights, targets=8)) as eight,
            ):
                targets.append((network, targets_ratio(one, eight, images_for(one, seconds / ROUNDS))))
            with ray_session(RayConfig(num_cpus=CORES)) as ray:
                through = ray_rate(ray, network, size, folder / f"{network}-1", source, seconds)
            what = f"Ray Data, {CORES} actors"
            rates.append((network, what, through.bare, through.whole, through.seconds, through.startup))
    lines = [
        "# Rate of the measurement",
        "",
        f"`python tests/benchmarks/measure_rate.py --size {size[0]}x{size[1]} --seconds {seconds:g}`, CPU,",
        f"{len(os.sched_getaffinity(0))} cores, torch {torch.__version__}, float32, batches of 16, one target,",
        f"5 x 32 + 128 coordinates; {NUM_FILES} JPEG files of 480x200, measured again and again; all in one run of",
        f"{(time.perf_counter() - begun) / 60:.0f} minutes on {time.strftime('%Y-%m-%d')}, load at its end",
        f"{os.getloadavg()[0]:.1f}. Bare: the network to relu5_1 on images in memory, no Gram matrices, same size and",
        "threads; for Ray, two bare processes of one thread at the same time. Whole: decoding, resizing, network, Gram",
        "matrices, projection, distances, writing the shard. Steady state; start-up apart.",
        "",
        "| network | how | bare, images/s | whole | whole / bare | steady for | start-up |",
        "| --- | --- | --- | --- | --- | --- | --- |",
        *(
            f"| {network} | {how} | {bare:.2f} | {whole:.2f} | **{whole / bare:.1%}** | {lasted:.0f} s | "
            f"{'' if startup is None else f'{startup:.0f} s'} |"
            for network, how, bare, whole, lasted, startup in rates
        ),
        "",
        f"The cheap network is {bare_of['cheap'] / bare_of['vgg19']:.1f} times faster than VGG-19 (bare, one thread).",
        "",
        "Eight targets against one, time of the whole measurement: "
        + ", ".join(f"{network} {ratio:.3f}" for network, ratio in targets)
        + f" (medians of {ROUNDS} alternating rounds).",
        "",
        "## Where the time goes",
        "",
        "Milliseconds of processor time an image, one thread, each stage alone:",
        "",
        "| network | " + " | ".join(staged[0][1]) + " | sum | whole, measured |",
        "| --- | " + " | ".join("---" for _ in staged[0][1]) + " | --- | --- |",
        *(
            f"| {network} | "
            + " | ".join(f"{1000 * value:.2f}" for value in stages.values())
            + f" | {1000 * sum(stages.values()):.2f} | {1000 * rate.whole_cpu:.2f} |"
            for network, stages, rate in staged
        ),
        "",
        "The cheap network's main thread, own time (decoding and resizing are in other threads):",
        "",
        "| function | share |",
        "| --- | --- |",
        *profiled,
        "",
        *WHAT_WAS_DONE,
    ]
    given.output.write_text("\n".join(lines) + "\n", encoding="utf-8")
    print("\n".join(lines))


WHAT_WAS_DONE = (
    "## What was done about it",
    "",
    "Milliseconds an image at 256x128, one thread, before and after, each measured once beside other work:",
    "",
    "* Decoding and resizing (1.3) run in threads, two batches ahead, across shards too; Ray's actors hold two shards,",
    "  so that one is decoded or written while the network works for the other.",
    "* A picture is resized before it becomes an array, which saves two copies at full size: 1.28, now 1.06.",
    "* Of a Gram matrix the blocks left of the diagonal are not computed: 13.3, now 11.0. What is left is most of what",
    "  VGG-19's pipeline adds, and runs at the speed of the convolutions but for the narrow first layers.",
    "* The content vector keeps the order of a channels-last map, so it is not transposed: 1.26, now 0.12.",
    "* Freed blocks stay with the process (`finegpr/pixels/allocator.py`): VGG-19 itself, bare and whole alike, 237,",
    "  now 207.",
    "* The projection (1.5) reads 170 MB of directions for every batch; larger batches would share that.",
)


if __name__ == "__main__":
    main(sys.argv[1:])
