"""Images per second of the whole measurement, from JPEG files, against the bare forward pass to relu5_1.

    python tests/benchmarks/measure_rate.py [results/measure-rate.md]

Both take turns in every round, so that a busy machine slows them alike; medians over the rounds count. The ratio of CPU
times says what the measurement adds even when other processes take turns on the cores.
"""

import os
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from finegpr.catalog import Catalog
from finegpr.images import load
from finegpr.measure import MeasureConfig, Meter, fit_reference

NUM_IMAGES = 144  # enough for all 128 content coordinates
NUM_TIMED = 32
ROUNDS = 3
CASES = ((128, 64, 1), (256, 128, 1))  # height, width, threads


def make_catalog(root: Path) -> Catalog:
    """JPEG files of FineGPR's size (480x200) with some texture."""
    generator = np.random.default_rng(0)
    for index in range(NUM_IMAGES):
        coarse = Image.fromarray(generator.integers(0, 256, (24, 10, 3)).astype(np.uint8))
        pixels = np.asarray(coarse.resize((200, 480), Image.Resampling.BICUBIC)) + generator.normal(0, 6, (480, 200, 3))
        Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(root / f"{index:03d}.jpg", quality=90)
    return Catalog.index(root, layout="folder")


def rates(root: Path, catalog: Catalog, *, height: int, width: int, threads: int) -> tuple[float, float, float]:
    """Images per second of the bare forward pass and of the whole measurement, and bare / whole CPU time."""
    config = MeasureConfig(height=height, width=width, weights="random", basis_images=NUM_IMAGES, threads=threads)
    folder = root / f"{height}x{width}-{threads}"
    fit_reference(config, catalog, {"target": catalog.take(range(8))}, folder)
    meter = Meter(config, folder, catalog)
    network = meter.network
    images, _ = load(catalog.file_paths()[:NUM_TIMED], height=height, width=width)
    rows = np.arange(NUM_TIMED)
    timings = []
    for _ in range(ROUNDS):
        start = np.array([time.perf_counter(), time.process_time()])
        with torch.inference_mode():
            for batch in torch.split(torch.from_numpy(images), config.batch_size):
                network.features(network.normalise(batch))
        between = np.array([time.perf_counter(), time.process_time()])
        meter.measure(rows)
        end = np.array([time.perf_counter(), time.process_time()])
        timings.append([between - start, end - between])
    (bare, bare_cpu), (whole, whole_cpu) = np.median(timings, axis=0)
    return NUM_TIMED / bare, NUM_TIMED / whole, bare_cpu / whole_cpu


def main(output: Path) -> None:
    with tempfile.TemporaryDirectory() as name:
        images = Path(name) / "images"
        images.mkdir()
        catalog = make_catalog(images)
        table = [
            (f"{height}x{width}", threads, *rates(Path(name), catalog, height=height, width=width, threads=threads))
            for height, width, threads in CASES
        ]
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else f"CPU, {os.cpu_count()} cores"
    lines = [
        "# Rate of the measurement",
        "",
        f"`python tests/benchmarks/measure_rate.py`, {device}, torch {torch.__version__}:",
        f"{NUM_TIMED} JPEG files of 480x200, one target, 5 x 32 + 128 coordinates. Bare: VGG-19 to relu5_1 on decoded",
        "images, channels last. Whole: decoding, resizing, forward pass, Gram matrices, projection and distances.",
        f"Images per second, median of {ROUNDS} alternating rounds; load of the machine {os.getloadavg()[0]:.1f},",
        "so trust the ratio of CPU times.",
        "",
        "| size | threads | bare | whole | whole / bare | bare / whole CPU time |",
        "| --- | --- | --- | --- | --- | --- |",
        *(
            f"| {size} | {threads} | {bare:.1f} | {whole:.1f} | {whole / bare:.0%} | {cpu:.0%} |"
            for size, threads, bare, whole, cpu in table
        ),
    ]
    output.write_text("\n".join(lines) + "\n", encoding="utf-8")
    print("\n".join(lines))


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else Path("results/measure-rate.md"))
