"""Ways to decode FineGPR's JPEG files for the network: processor time, pixels, and what becomes of the distances.

    python tests/benchmarks/decoding.py [--networks efficientnet_lite0:imagenet vgg19:random] [--output ...]

Only the first way measures (`finegpr/pixels/decode.py`). The others are: DCT scaling, as Pillow's `draft` offers it
(the JPEG decoder itself gives the least of 1/1, 1/2, 1/4 and 1/8 that is not smaller than what is asked for); averaging
whole blocks of pixels first (`reducing_gap`); and torch's antialiased resize, which calculates in 16 bits where Pillow
has 22, of Pillow's pixels and of those of torchvision's decoder, which are the same.
"""

import argparse
import io
import os
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import PIL
import torch
from numpy.typing import NDArray
from PIL import Image
from scipy import stats
from torch import nn
from torchvision.io import ImageReadMode, decode_jpeg

from finegpr.catalog import Catalog
from finegpr.measuring.config import MeasureConfig
from finegpr.measuring.networks import load_network
from finegpr.measuring.networks.base import Extractor
from finegpr.measuring.reference import build_network
from finegpr.pixels.decode import load_into
from finegpr.render.minigpr import MiniGPRConfig, render_minigpr
from finegpr.render.minimarket import MiniMarketConfig, render_minimarket

Pixels = NDArray[np.uint8]
BILINEAR = Image.Resampling.BILINEAR
HEIGHT, WIDTH = 480, 200
REPEATS = 7
BATCH = 16


def as_measured(path: Path, height: int, width: int) -> Pixels:
    image: Pixels = np.empty((height, width, 3), dtype=np.uint8)
    assert not load_into(image[None], [path])
    return image


def drafted(path: Path, height: int, width: int) -> Pixels:
    with Image.open(io.BytesIO(path.read_bytes())) as image:
        image.draft("RGB", (width, height))
        return np.asarray(image.resize((width, height), BILINEAR))


def reduced(path: Path, height: int, width: int) -> Pixels:
    with Image.open(io.BytesIO(path.read_bytes())) as image:
        return np.asarray(image.resize((width, height), BILINEAR, reducing_gap=1.0))


def resized_by_torch(path: Path, height: int, width: int) -> Pixels:
    with Image.open(io.BytesIO(path.read_bytes())) as image:
        return _resized(torch.from_numpy(np.array(image)).permute(2, 0, 1), height, width)


def all_by_torch(path: Path, height: int, width: int) -> Pixels:
    data = torch.frombuffer(bytearray(path.read_bytes()), dtype=torch.uint8)
    return _resized(decode_jpeg(data, mode=ImageReadMode.RGB), height, width)


def _resized(pixels: torch.Tensor, height: int, width: int) -> Pixels:
    resized = nn.functional.interpolate(pixels[None], size=(height, width), mode="bilinear", antialias=True)
    found: Pixels = resized[0].permute(1, 2, 0).numpy()
    return found


Way = Callable[[Path, int, int], Pixels]
WAYS: dict[str, Way] = {
    "as measured": as_measured,
    "DCT scaling (draft)": drafted,
    "blocks first (reducing_gap=1)": reduced,
    "Pillow, torch's resize": resized_by_torch,
    "torchvision, torch's resize": all_by_torch,
}


@dataclass(frozen=True, kw_only=True)
class Found:
    """``seconds`` of processor time an image; share of changed values and the largest change, of 255; and by network,
    of the term where it is worst, Spearman of the distances and the 95th percentile of their errors in deviations."""

    seconds: float
    changed: float
    largest: int
    distances: dict[str, tuple[float, float]]


def processor_seconds(paths: list[Path], height: int, width: int) -> dict[str, float]:
    """An image, one thread: medians over alternating rounds."""
    took: dict[str, list[float]] = {name: [] for name in WAYS}
    for _ in range(REPEATS):
        for name, way in WAYS.items():
            started = time.thread_time()
            for path in paths:
                way(path, height, width)
            took[name].append((time.thread_time() - started) / len(paths))
    return {name: float(np.median(each)) for name, each in took.items()}


def distances(network: Extractor, source: list[Pixels], target: list[Pixels]) -> NDArray[np.float64]:
    """Of every source image to the mean of the target's vectors, (n, T)."""

    def vectors(images: list[Pixels]) -> list[torch.Tensor]:
        batches = [np.stack(images[start : start + BATCH]) for start in range(0, len(images), BATCH)]
        parts = [network(torch.from_numpy(batch).permute(0, 3, 1, 2)) for batch in batches]
        return [torch.cat(each) for each in zip(*parts, strict=True)]

    pairs = zip(vectors(source), vectors(target), strict=True)
    return np.stack([(x - y.mean(dim=0)).double().square().sum(dim=1).numpy() for x, y in pairs], axis=1)


def compare(
    networks: dict[str, Extractor], source: list[Path], target: list[Path], height: int, width: int
) -> dict[str, Found]:
    """Every way against the first one."""
    seconds = processor_seconds(source[:60], height, width)
    pixels = {
        name: [[way(p, height, width) for p in paths] for paths in (source, target)] for name, way in WAYS.items()
    }
    exact = next(iter(pixels))
    measured = {
        name: {title: distances(network, *each) for title, network in networks.items()} for name, each in pixels.items()
    }
    found = {}
    for name, (images, _) in pixels.items():
        apart = np.abs(np.stack(images).astype(np.int16) - np.stack(pixels[exact][0]))
        worst = {}
        for title, guess in measured[name].items():
            truth = measured[exact][title]
            ranks = min(stats.spearmanr(guess[:, term], truth[:, term])[0] for term in range(truth.shape[1]))
            wrong = np.percentile(np.abs(guess - truth) / truth.std(axis=0), 95, axis=0).max()
            worst[title] = float(ranks), float(wrong)
        found[name] = Found(
            seconds=seconds[name], changed=float((apart > 0).mean()), largest=int(apart.max()), distances=worst
        )
    return found


def render(root: Path, num_images: int) -> tuple[list[Path], list[Path]]:
    """Files of a source and of a target's photos, of FineGPR's size."""
    people = max(1, num_images // 6)
    world = MiniGPRConfig(num_identities=people, images_per_identity=6, viewpoints=30, height=HEIGHT, width=WIDTH)
    render_minigpr(world, root / "source")
    photos = MiniMarketConfig(
        num_train=max(2, num_images // 5),
        train_identities=max(2, num_images // 10),
        validation_identities=1,
        test_identities=1,
        num_distractors=0,
        num_junk=0,
        height=HEIGHT,
        width=WIDTH,
    )
    render_minimarket(photos, root / "target")
    source = Catalog.index(root / "source", layout="finegpr")
    target = Catalog.index(root / "target", layout="market1501").part("train")
    return [Path(str(path)) for path in source.file_paths()], [Path(str(path)) for path in target.file_paths()]


def main(arguments: list[str]) -> None:
    """Render, decode every way, and write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--networks", nargs="+", default=["efficientnet_lite0:imagenet", "vgg19:random"])
    parser.add_argument("--sizes", nargs="+", default=["256x128", "128x64"], help="height x width")
    parser.add_argument("--images", type=int, default=300)
    parser.add_argument("--output", type=Path, default=Path("results/decoding.md"))
    given = parser.parse_args(arguments)
    results = {}
    with tempfile.TemporaryDirectory() as name:
        source, target = render(Path(name), given.images)
        in_bytes = float(np.mean([path.stat().st_size for path in source]))
        for size in given.sizes:
            height, width = map(int, size.split("x"))
            networks = {}
            for named in given.networks:
                network, weights = named.split(":", 1)
                config = MeasureConfig(network=network, weights=weights, height=height, width=width)
                networks[network] = build_network(config, load_network(config.find_weights()))
            results[size] = compare(networks, source, target, height, width)
            print(size, results[size], flush=True)
    heads = [part for title in networks for part in (f"{title}: lowest Spearman", "95 % of errors, SD")]
    lines = [
        "# Ways to decode",
        "",
        f"`python tests/benchmarks/decoding.py --networks {' '.join(given.networks)} --sizes {' '.join(given.sizes)}",
        f"--images {given.images}`, {time.strftime('%Y-%m-%d')}, torch {torch.__version__}, Pillow",
        f"{PIL.__version__}, {len(os.sched_getaffinity(0))} cores, load at its end {os.getloadavg()[0]:.1f}.",
        f"{len(source)} images of MiniGPR and {len(target)} photos of MiniMarket, JPEG of {HEIGHT}x{WIDTH},",
        f"{in_bytes / 1000:.0f} KB on average. Time: of one processor, from the file to the resized pixels, median of",
        f"{REPEATS} alternating rounds. Pixels: values that are others than as measured, and by how much of 255 at",
        "most. Distances: to the target's mean, in the term where it is worst; errors in standard deviations over",
        "images, 95th percentile (sketches may err by 0.1).",
        "",
        f"| size | way | ms an image | values changed | at most | {' | '.join(heads)} |",
        f"| --- | --- | --- | --- | --- |{' --- |' * len(heads)}",
        *(
            f"| {size} | {name} | {1000 * found.seconds:.2f} | {found.changed:.1%} | {found.largest} | "
            + " | ".join(f"{ranks:.5f} | {wrong:.4f}" for ranks, wrong in found.distances.values())
            + " |"
            for size, ways in results.items()
            for name, found in ways.items()
        ),
    ]
    given.output.write_text("\n".join(lines) + "\n", encoding="utf-8")
    print("\n".join(lines))


if __name__ == "__main__":
    main(sys.argv[1:])
