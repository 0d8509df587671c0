"""Resident memory of the measurement at 10,000 and at 100,000 images: the pass over the images, and reading its result.

    python tests/benchmarks/measure_memory.py [--sizes 10000 100000] [--output results/measure-memory.md]

A stub stands in for VGG-19: the same 13 layers with 8 to 64 filters, on images of 32x32, so that it ends in minutes.
The tables are about as wide as with VGG-19; every identity has the same 200 pictures.
"""

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from unittest.mock import patch

import numpy as np
import torch
from PIL import Image

from finegpr.catalog import Catalog
from finegpr.measuring.bench import narrowed
from finegpr.measuring.config import MeasureConfig
from finegpr.measuring.measure import measure

NUM_FILES = 200
STUB = narrowed(8)


def draw(root: Path, size: int) -> Catalog:
    """``size`` images of FineGPR's names: 200 pictures, one in each of as many cells, under every identity."""
    generator = np.random.default_rng(0)
    for identity in range(1, size // NUM_FILES + 1):
        folder = root / f"{identity:04d}"
        folder.mkdir(parents=True)
        for index in range(NUM_FILES):
            codes = f"c{index % 36 + 1:02d}_w{index % 7 + 1:02d}_l{index // 36 + 1:02d}_p01.jpg"
            path = folder / f"{identity:04d}_{codes}"
            if identity > 1:
                path.hardlink_to(root / "0001" / f"0001_{codes}")
                continue
            coarse = Image.fromarray(generator.integers(0, 256, (12, 5, 3)).astype(np.uint8))
            coarse.resize((20, 48), Image.Resampling.BICUBIC).save(path, quality=90)
    return Catalog.index(root, layout="finegpr")


def resident() -> tuple[float, float]:
    """MiB now, and the most there ever was."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10


def child(folder: Path, size: int) -> None:
    """Measure ``size`` images and say what was resident, at the end of the pass and after reading."""
    config = MeasureConfig(
        network="vgg19", height=32, width=32, weights="random", images_per_shard=2000, basis_images=NUM_FILES
    )
    catalog = draw(folder / "images", size)
    said: dict[str, float] = {}

    def note(done: int, total: int) -> None:
        now, most = resident()
        if done == min(size, 4000):
            said["early"] = now
        if done == total:
            said["pass"], said["pass_peak"] = now, most

    started = time.perf_counter()
    with (
        patch("finegpr.measuring.reference.load_network", lambda *_, **__: STUB),
        patch("finegpr.measuring.meter.load_network", lambda *_, **__: STUB),
    ):
        measured = measure(
            config,
            catalog,
            {"target": catalog.take(range(64))},
            folder / "measured",
            cells=catalog.cells(["viewpoint", "weather", "illumination"]),
            progress=note,
        )
    said["read"], said["read_peak"] = resident()
    said["seconds"] = time.perf_counter() - started
    said["coordinates"] = measured.sketch.shape[1]
    assert len(measured.row) == size
    print(json.dumps(said))


def main(arguments: list[str]) -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--sizes", type=int, nargs=2, default=[10_000, 100_000], help="images; multiples of 200")
    parser.add_argument("--output", type=Path, default=Path("results/measure-memory.md"))
    parser.add_argument("--child", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--images", type=int, help=argparse.SUPPRESS)
    given = parser.parse_args(arguments)
    if given.child is not None:
        child(given.child, given.images)
        return
    found = []
    with tempfile.TemporaryDirectory() as name:
        for size in given.sizes:
            command = [sys.executable, __file__, "--child", f"{name}/{size}", "--images", str(size)]
            found.append(json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout))
    small, large = found
    lines = [
        "# Memory of the measurement",
        "",
        f"`python tests/benchmarks/measure_memory.py`, CPU, {len(os.sched_getaffinity(0))} cores,",
        f"torch {torch.__version__}, {time.strftime('%Y-%m-%d')}. A stub of 8 to 64 filters a layer",
        f"in place of VGG-19, images of 32x32, shards of 2,000, {small['coordinates']:.0f} coordinates, one target;",
        "resident MiB of the process.",
        "",
        "| images | after 4,000 | end of the pass | most until then | after reading it all | most | seconds |",
        "| --- | --- | --- | --- | --- | --- | --- |",
        *(
            f"| {size:,} | {row['early']:.0f} | {row['pass']:.0f} | {row['pass_peak']:.0f} | {row['read']:.0f} | "
            f"{row['read_peak']:.0f} | {row['seconds']:.0f} |"
            for size, row in zip(given.sizes, found, strict=True)
        ),
        f"| difference | | {large['pass'] - small['pass']:.0f} | **{large['pass_peak'] - small['pass_peak']:.0f}** | "
        f"{large['read'] - small['read']:.0f} | {large['read_peak'] - small['read_peak']:.0f} | |",
        "",
        "The pass is flat. What search reads is not: rows, distances and sketches of every image, by nature.",
    ]
    given.output.write_text("\n".join(lines) + "\n", encoding="utf-8")
    print("\n".join(lines))


if __name__ == "__main__":
    main(sys.argv[1:])
