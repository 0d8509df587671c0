"""Images per second of the whole measurement, from JPEG files, against the bare forward pass to relu5_1.

    python tests/benchmarks/measure_rate.py [results/measure-rate.md]

Both take turns in every round, so that a busy machine slows them alike; medians over the rounds count.
"""

import os
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from PIL import Image

from finegpr.catalog import Catalog
from finegpr.images import load
from finegpr.measure import MeasureConfig, Meter, fit_reference

NUM_IMAGES = 64
ROUNDS = 5
SIZES = ((128, 64), (256, 128))


def make_catalog(root: Path) -> Catalog:
    """JPEG files of FineGPR's size (480x200) with some texture."""
    generator = np.random.default_rng(0)
    for index in range(NUM_IMAGES):
        coarse = Image.fromarray(generator.integers(0, 256, (24, 10, 3)).astype(np.uint8))
        pixels = np.asarray(coarse.resize((200, 480), Image.Resampling.BICUBIC)) + generator.normal(0, 6, (480, 200, 3))
        Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(root / f"{index:03d}.jpg", quality=90)
    return Catalog.index(root, layout="folder")


def rates(root: Path, catalog: Catalog, *, height: int, width: int, threads: int) -> tuple[float, float]:
    """Images per second of the bare forward pass and of the whole measurement."""
    config = MeasureConfig(height=height, width=width, weights="random", basis_images=NUM_IMAGES, threads=threads)
    folder = root / f"{height}x{width}"
    fit_reference(config, catalog, {"target": catalog}, folder)
    meter = Meter(config, folder, catalog)
    network = meter.network
    images, _ = load(catalog.file_paths(), height=height, width=width)
    rows = np.arange(NUM_IMAGES)
    timings = []
    for _ in range(ROUNDS):
        start = time.perf_counter()
        with torch.inference_mode():
            for batch in torch.split(torch.from_numpy(images), config.batch_size):  # type: ignore[no-untyped-call]
                network.features(network.normalise(batch))
        between = time.perf_counter()
        meter.measure(rows)
        timings.append((between - start, time.perf_counter() - between))
    bare, whole = np.median(timings, axis=0)
    return NUM_IMAGES / bare, NUM_IMAGES / whole


def main(output: Path) -> None:
    with tempfile.TemporaryDirectory() as name:
        images = Path(name) / "images"
        images.mkdir()
        catalog = make_catalog(images)
        table = pd.DataFrame(
            [
                (f"{height}x{width}", threads, *rates(Path(name), catalog, height=height, width=width, threads=threads))
                for height, width in SIZES
                for threads in (1, 2)
            ],
            columns=["size", "threads", "bare", "whole"],
        )
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else f"CPU, {os.cpu_count()} cores"
    lines = [
        "# Rate of the measurement",
        "",
        f"`python tests/benchmarks/measure_rate.py`, {device}, torch {torch.__version__}: {NUM_IMAGES} JPEG files of 480x200,",
        "one target. Bare: VGG-19 to relu5_1 on decoded images, channels last. Whole: decoding, resizing, forward pass, Gram",
        f"matrices, projection on the sketch basis and distances. Images per second, median of {ROUNDS} alternating rounds.",
        "",
        "| size | threads | bare | whole | whole / bare |",
        "| --- | --- | --- | --- | --- |",
        *(
            f"| {row.size_} | {row.threads} | {row.bare:.1f} | {row.whole:.1f} | {row.whole / row.bare:.0%} |"
            for row in table.rename(columns={"size": "size_"}).itertuples()
        ),
    ]
    output.write_text("\n".join(lines) + "\n", encoding="utf-8")
    print("\n".join(lines))


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else Path("results/measure-rate.md"))
