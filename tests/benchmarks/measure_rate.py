"""Rate of the whole measurement from JPEG files against the bare network: serial, and through Ray Data, in one run.

    python tests/benchmarks/measure_rate.py [--seconds 60] [--sizes 256x128 128x64] [--output results/measure-rate.md]

Bare: the network without its terms' statistics, on decoded images in memory, of the same size and threads. Serial: bare
and whole take turns. Ray: two actors of one thread, against two bare processes of one thread that run at the same
time, before and after. Steady state: each rate is of --seconds, after what is started has started; start-up stands
apart. Weights are random: what they are takes no time. FineGPR's hours are its 2,028,600 images at Ray's rate.
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
from finegpr.measuring.networks import NETWORKS

NUM_FILES = 160
ROUNDS = 3
CORES = 2
SHARD_SECONDS = 4.0
FINEGPR = 2_028_600
GOALS = {"serial": 0.90, "Ray Data": 0.80}

Size = tuple[int, int]


@dataclass(frozen=True, kw_only=True)
class RayRate:
    bare: float
    whole: float
    seconds: float
    startup: float


@dataclass(frozen=True, kw_only=True)
class Row:
    """Images a second of a network, bare and whole, one way."""

    network: str
    size: Size
    how: str
    bare: float
    whole: float
    seconds: float
    startup: float | None = None
    goal: float | None = None

    @property
    def line(self) -> str:
        goal = "" if self.goal is None else f"{self.goal:.0%}"
        startup = "" if self.startup is None else f"{self.startup:.0f} s"
        return (
            f"| {self.network} | {name_of(self.size)} | {self.how} | {self.bare:.1f} | {self.whole:.1f} | "
            f"**{self.whole / self.bare:.1%}** | {goal} | {self.seconds:.0f} s | {startup} |"
        )


@dataclass(frozen=True, kw_only=True)
class Alone:
    """What a network does at a size with one thread of this process."""

    network: str
    size: Size
    stages: dict[str, float]
    whole_cpu: float
    eight_targets: float
    profile: list[str]


def name_of(size: Size) -> str:
    return f"{size[0]}x{size[1]}"


def config_of(network: str, size: Size, *, threads: int) -> MeasureConfig:
    height, width = size
    return MeasureConfig(
        network=network, height=height, width=width, weights="random", basis_images=NUM_FILES, threads=threads
    )


def images_for(meter: Meter, seconds: float) -> int:
    """How many images the bare network takes in ``seconds``: whole batches, at least two."""
    batches = resident(meter, np.arange(meter.config.batch_size))
    bare_pass(meter.network, batches)
    started = time.perf_counter()
    bare_pass(meter.network, batches)
    return meter.config.batch_size * max(2, round(seconds / (time.perf_counter() - started)))


def bare_process(network: str, size: Size, folder: str, root: str, talk: Connection) -> None:
    """Runs the bare network for as many seconds as it is told, and answers with images and seconds."""
    source = Catalog.index(Path(root), layout="folder")
    meter = Meter(config_of(network, size, threads=1), Path(folder), source)
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

    def __init__(self, network: str, size: Size, folder: Path, root: Path) -> None:
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


def timed_shard_meter(times: Path) -> type[ShardMeter]:
    """The actor, that also writes down when it finished each shard."""

    class Timed(ShardMeter):
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


def ray_rate(ray: Any, network: str, size: Size, folder: Path, source: Catalog, seconds: float) -> RayRate:
    """Two actors of one thread; their start is all before the first shard is finished, less that shard's time."""
    config = config_of(network, size, threads=1)
    source.write(folder / "catalog.parquet")
    bare = BareProcesses(network, size, folder, Path(str(source.root)))
    before = bare.rate(seconds / 2)
    images = max(16, round(before / CORES * SHARD_SECONDS))
    number = CORES * (2 + round(seconds / SHARD_SECONDS))
    shards = {index: Pending(rows=(np.arange(images) + index * images) % NUM_FILES) for index in range(number)}
    times = folder / "times"
    times.mkdir()
    cluster.executors.ray_data.ShardMeter = timed_shard_meter(times)  # type: ignore[misc]
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


def serial(network: str, size: Size, folder: Path, source: Catalog, seconds: float) -> tuple[list[Row], Alone]:
    """Bare and whole in this process, on one thread and on all; and with one, where the time goes."""
    rows, weights = [], weights_of(network)
    place = folder / f"{network}-{name_of(size)}"
    for threads in (CORES, 1):
        meter = open_meter(config_of(network, size, threads=threads), Path(f"{place}-{threads}"), source, weights)
        with closing(meter):
            images = images_for(meter, seconds / ROUNDS)
            rate = measure_rate(meter, folder, images=images, rounds=ROUNDS)
            one = threads == 1
            how = f"serial, {threads} thread{'s' * (not one)}"
            rows.append(
                Row(
                    network=network,
                    size=size,
                    how=how,
                    bare=rate.bare,
                    whole=rate.whole,
                    seconds=rate.seconds,
                    goal=GOALS["serial"] if one else None,
                )
            )
            if one:
                config = config_of(network, size, threads=1)
                with closing(open_meter(config, Path(f"{place}-eight"), source, weights, targets=8)) as eight:
                    ratio = targets_ratio(meter, eight, images)
                alone = Alone(
                    network=network,
                    size=size,
                    stages=stage_seconds(meter, folder),
                    whole_cpu=rate.whole_cpu,
                    eight_targets=ratio,
                    profile=profile(meter, images),
                )
    return rows, alone


def main(arguments: list[str]) -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--networks", nargs="+", choices=list(NETWORKS), default=list(NETWORKS))
    parser.add_argument("--sizes", nargs="+", default=["256x128", "128x64"], help="height x width")
    parser.add_argument("--seconds", type=float, default=60.0, help="of each rate")
    parser.add_argument("--output", type=Path, default=Path("results/measure-rate.md"))
    given = parser.parse_args(arguments)
    begun = time.perf_counter()
    rows: list[Row] = []
    alone: list[Alone] = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        source = draw_images(folder / "images", NUM_FILES)
        for network in given.networks:
            for text in given.sizes:
                height, width = map(int, text.split("x"))
                size = height, width
                in_process, of_one = serial(network, size, folder, source, given.seconds)
                alone.append(of_one)
                with ray_session(RayConfig(num_cpus=CORES)) as ray:
                    place = folder / f"{network}-{name_of(size)}-1"
                    through = ray_rate(ray, network, size, place, source, given.seconds)
                how, goal = f"Ray Data, {CORES} actors", GOALS["Ray Data"]
                rows += [*in_process, Row(network=network, size=size, how=how, goal=goal, **vars(through))]
                print("\n".join(row.line for row in rows[-3:]), flush=True)
    record = report(given, rows, alone, minutes=(time.perf_counter() - begun) / 60)
    given.output.write_text("\n".join(record) + "\n", encoding="utf-8")
    print("\n".join(record))


def report(given: argparse.Namespace, rows: list[Row], alone: list[Alone], *, minutes: float) -> list[str]:
    """The record, in Markdown."""
    command = f"--networks {' '.join(given.networks)} --sizes {' '.join(given.sizes)} --seconds {given.seconds:g}"
    stages = list(alone[0].stages)
    return [
        "# Rate of the measurement",
        "",
        f"`python tests/benchmarks/measure_rate.py {command}`,",
        f"CPU, {len(os.sched_getaffinity(0))} cores, torch {torch.__version__}, float32, batches of 16, one target;",
        f"{NUM_FILES} JPEG files of 480x200, measured again and again; all in one run of {minutes:.0f} minutes on",
        f"{time.strftime('%Y-%m-%d')}, load at its end {os.getloadavg()[0]:.1f}. Bare: the network on images in",
        "memory, without the statistics of its terms, same size and threads; for Ray, two bare processes of one",
        "thread at the same time. Whole: reading, decoding, resizing, network, statistics, projection, distances,",
        "writing the shard.",
        "Steady state; start-up apart.",
        "",
        "| network | size | how | bare, images/s | whole | whole / bare | goal | steady for | start-up |",
        "| --- | --- | --- | --- | --- | --- | --- | --- | --- |",
        *(row.line for row in rows),
        "",
        f"FineGPR, {FINEGPR:,} images, on {CORES} cores through Ray:",
        "",
        "| network | size | images/s | hours |",
        "| --- | --- | --- | --- |",
        *(
            f"| {row.network} | {name_of(row.size)} | {row.whole:.0f} | {FINEGPR / row.whole / 3600:.1f} |"
            for row in rows
            if row.startup is not None
        ),
        "",
        f"Eight targets against one, time of the whole measurement (medians of {ROUNDS} alternating rounds): "
        + ", ".join(f"{each.network} {name_of(each.size)} {each.eight_targets:.3f}" for each in alone)
        + ".",
        "",
        "## Where the time goes",
        "",
        "Milliseconds of processor time an image, one thread, each stage alone. Decoding here also copies the picture",
        "at full size, and a table of 16 images is written, which the whole does not: its tables are of hundreds.",
        "",
        f"| network | size | {' | '.join(stages)} | sum | whole, measured |",
        "| --- | --- | " + " | ".join("---" for _ in stages) + " | --- | --- |",
        *(
            f"| {each.network} | {name_of(each.size)} | "
            + " | ".join(f"{1000 * value:.2f}" for value in each.stages.values())
            + f" | {1000 * sum(each.stages.values()):.2f} | {1000 * each.whole_cpu:.2f} |"
            for each in alone
        ),
        "",
        "The main thread, own time (decoding and resizing are in other threads):",
        "",
        "| network | size | function | share |",
        "| --- | --- | --- | --- |",
        *(f"| {each.network} | {name_of(each.size)} {line}" for each in alone for line in each.profile),
        "",
        *WHAT_WAS_DONE,
    ]


WHAT_WAS_DONE = (
    "## What was done about it",
    "",
    "Milliseconds an image at 256x128, one thread, before and after, each measured once beside other work:",
    "",
    "* Decoding and resizing (1.3) run in threads, two batches ahead, across shards too; Ray's actors hold two shards,",
    "  so that one is decoded or written while the network works for the other.",
    "* A picture is resized before it becomes an array, which saves two copies at full size: 1.28, now 1.06.",
    "* It is resized into the place where the network reads it; no copy of an RGB picture, no change of layout:",
    "  1.30, now 1.13; at 128x64 0.95, now 0.87. What would be quicker still changes the pixels:",
    "  [decoding](decoding.md).",
    "* Means and deviations of channels are two sums over positions, not `var_mean`: of a map of 128x64x32",
    "  1.51, now 0.22; of 64x32x32 0.38, now 0.02.",
    "* Of a Gram matrix the blocks left of the diagonal are not computed: 13.3, now 11.0. What is left is most of what",
    "  VGG-19's pipeline adds, and runs at the speed of the convolutions but for the narrow first layers.",
    "* The content vector keeps the order of a channels-last map, so it is not transposed: 1.26, now 0.12.",
    "* Freed blocks stay with the process (`finegpr/pixels/allocator.py`): VGG-19 itself, bare and whole alike, 237,",
    "  now 207.",
    "* VGG-19's projection (1.5) reads 170 MB of directions for every batch; larger batches would share that.",
)


if __name__ == "__main__":
    main(sys.argv[1:])
