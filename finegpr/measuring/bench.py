"""How fast this machine measures images, what it spends the time on, and how near it comes to its limits.

    python -m finegpr.measuring.bench --network vgg19 --height 256 --width 128 --images 512 --precision bf16

It draws JPEG files of FineGPR's size, so it needs no data. Bare: the network without its terms' statistics, on images
that already lie in the memory of its device. Whole: a shard from its files to its table. Both take turns.
"""

import argparse
import os
import resource
import sys
import tempfile
import time
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass
from math import sqrt
from pathlib import Path
from typing import TypedDict, get_args

import numpy as np
import pandas as pd
import torch
from PIL import Image
from torch import Tensor, nn

from finegpr import storage
from finegpr.arrays import Floats, Ints
from finegpr.catalog import Catalog
from finegpr.device import Precision
from finegpr.errors import AostError
from finegpr.measuring.config import MeasureConfig
from finegpr.measuring.measure import measure_shard
from finegpr.measuring.meter import Meter
from finegpr.measuring.networks import NETWORKS, load_network
from finegpr.measuring.networks.base import DTYPES, Extractor, LoadedWeights
from finegpr.measuring.reference import fit_reference
from finegpr.object_stores import AnyPath
from finegpr.pixels.decode import decode, load, resize
from finegpr.pixels.prefetch import Decoder
from finegpr.visible import visible
from finegpr.weights import find_weights

CHEAP = "cheap"

CHEAPER = 16 / 3  # by which every layer is narrower: 28 times less arithmetic, about 20 times less time
NUM_FILES = 160  # enough for 128 content coordinates; more images than that are the same files again
NUM_TARGET = 16


class Size(TypedDict):
    """Of images, in pixels."""

    height: int
    width: int


@dataclass(frozen=True, kw_only=True)
class Rate:
    """Images per second and seconds of processor time per image, bare and whole; medians over alternating rounds."""

    bare: float
    whole: float
    bare_cpu: float
    whole_cpu: float
    seconds: float


def weights_of(network: str, *, seed: int = 0) -> LoadedWeights:
    """Random weights of a network, or of VGG-19's layers with ``CHEAPER`` times fewer filters each."""
    return (
        narrowed(CHEAPER, seed=seed) if network == CHEAP else load_network(find_weights(network, "random", seed=seed))
    )


def narrowed(factor: float, *, seed: int = 0) -> LoadedWeights:
    """A VGG-19 with ``factor`` times fewer filters in every layer, of random He weights."""
    generator = torch.Generator().manual_seed(seed)
    state, inputs = {}, 3
    for key, value in load_network(find_weights("vgg19", "random", seed=seed)).state.items():
        if key.endswith("weight"):
            filters = max(1, round(len(value) / factor))
            shape = (filters, inputs, *value.shape[2:])
            state[key] = torch.randn(shape, generator=generator) * sqrt(2 / (inputs * 9))
            inputs = filters
        else:
            state[key] = torch.zeros(inputs)
    description, sha256 = f"VGG-19 / {factor:g}, seed {seed}", f"narrow {factor} {seed}"
    return LoadedWeights(network="vgg19", description=description, sha256=sha256, path=None, seed=seed, state=state)


def draw_images(folder: Path, number: int = NUM_FILES, *, height: int = 480, width: int = 200) -> Catalog:
    """JPEG files of FineGPR's size with some texture (about 29 KB each)."""
    folder.mkdir(parents=True, exist_ok=True)
    generator = np.random.default_rng(0)
    for index in range(number):
        coarse = Image.fromarray(generator.integers(0, 256, (24, 10, 3)).astype(np.uint8))
        smooth = np.asarray(coarse.resize((width, height), Image.Resampling.BICUBIC))
        pixels = smooth + generator.normal(0, 6, (height, width, 3))
        Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(folder / f"{index:05d}.jpg", quality=90)
    return Catalog.index(folder, layout="folder")


def open_meter(
    config: MeasureConfig, folder: Path, source: Catalog, weights: LoadedWeights, *, targets: int = 1
) -> Meter:
    """A meter of ``source`` against ``targets`` targets, which are samples of it."""
    chosen = np.array_split(np.arange(min(len(source), NUM_TARGET * targets)), targets)
    fit_reference(
        config, source, {f"t{k}": source.take(rows) for k, rows in enumerate(chosen)}, folder, weights=weights
    )
    return Meter(config, folder, source, weights=weights)


def bare_pass(network: Extractor, batches: Sequence[Tensor]) -> None:
    """The forward pass that everything is compared with."""
    for batch in batches:
        for _ in network.feature_maps(batch):
            pass
    _synchronise(network.device)


def resident(meter: Meter, rows: Ints) -> list[Tensor]:
    """Batches of the images of ``rows``, on the device."""
    pixels, _ = load(
        [meter.catalog.root / meter.catalog.frame["path"].iloc[row] for row in rows], **_size(meter.config)
    )
    images = torch.from_numpy(pixels).to(meter.network.device, memory_format=torch.channels_last)
    return list(torch.split(images, meter.config.batch_size))


def measure_rate(meter: Meter, folder: Path, *, images: int, rounds: int) -> Rate:
    """Bare and whole rate over ``rounds`` turns of ``images`` images each; a batch of both comes before, untimed."""
    rows = np.arange(images) % len(meter.catalog)
    batches = resident(meter, rows[: len(meter.catalog)])
    turn = [batches[index % len(batches)] for index in range(-(-images // meter.config.batch_size))]
    num_bare = sum(map(len, turn))
    bare_pass(meter.network, turn[:1])
    meter.measure(rows[: meter.config.batch_size])
    timings = []
    for _ in range(rounds):
        bare = _timed(lambda: bare_pass(meter.network, turn), meter.network.device)
        whole = _timed(lambda: measure_shard(meter, 0, rows, folder), meter.network.device)
        timings.append((*bare, *whole))
    bare_clock, bare_cpu, clock, cpu = np.median(timings, axis=0).tolist()
    return Rate(
        bare=num_bare / bare_clock,
        whole=images / clock,
        bare_cpu=bare_cpu / num_bare,
        whole_cpu=cpu / images,
        seconds=clock * rounds,
    )


def stage_seconds(meter: Meter, folder: Path, *, repeats: int = 5) -> dict[str, float]:
    """Processor seconds per image of each stage alone, on a GPU seconds; the least of ``repeats`` batches."""
    config, network, device = meter.config, meter.network, meter.network.device
    rows = np.arange(min(config.batch_size, len(meter.catalog)))
    paths = [meter.catalog.root / meter.catalog.frame["path"].iloc[row] for row in rows]
    pixels = [decode(path) for path in paths]
    host = torch.from_numpy(load(paths, **_size(config))[0]).contiguous(memory_format=torch.channels_last)
    images = host.to(device)
    table = meter.measure(rows)
    with torch.inference_mode():
        maps = [(name, x.clone(memory_format=torch.preserve_format)) for name, x in network.feature_maps(images)]
        vectors = network(images)

        def statistics() -> None:
            for name, x in maps:
                network.reduce(name, x)

        stages: dict[str, Callable[[], object]] = {
            "decode": lambda: [decode(path) for path in paths],
            "resize": lambda: [resize(each, **_size(config)) for each in pixels],
            "copy": lambda: host.to(device),
            "network": lambda: bare_pass(network, [images]),
            "statistics": statistics,
            "projection": lambda: meter.sketches(vectors),
            "distances": lambda: meter.terms(vectors),
            "write": lambda: storage.write_table(folder / "stage.parquet", table),
        }
        seconds = {}
        for name, stage in stages.items():
            stage()
            took = [_timed(stage, device)[0 if device.type == "cuda" else 1] for _ in range(repeats)]
            seconds[name] = min(took) / len(rows)
    return seconds


def decoding_rate(meter: Meter, images: int) -> float:
    """Images per second that the meter's decoding threads prepare while no network runs."""
    files = meter.catalog.file_paths()
    paths = [files[index % len(files)] for index in range(images)]
    device = meter.network.device
    with Decoder(
        **_size(meter.config), batch_size=meter.config.batch_size, device=device, threads=meter.decoding_threads
    ) as decoder:
        seconds = _timed(lambda: deque(decoder.read(paths), maxlen=0), device)[0]
    return images / seconds


def arithmetic_limit(device: torch.device, precision: Precision) -> float:
    """Operations per second of a large matrix product in ``precision``, the best of five."""
    size = 8192 if device.type == "cuda" else 2048
    x = torch.randn(size, size, device=device).to(DTYPES[precision])
    y = torch.mm(x, x)
    return 2 * size**3 / min(_timed(lambda: torch.mm(x, x, out=y), device)[0] for _ in range(5))


def operations(network: Extractor, *, height: int, width: int) -> int:
    """Multiplications and additions of the bare pass of one image."""
    total = 0

    def count(layer: nn.Module, _: object, maps: Tensor) -> None:
        nonlocal total
        assert isinstance(layer, nn.Conv2d)
        total += 2 * layer.weight.numel() * maps.shape[2] * maps.shape[3]

    hooks = [layer.register_forward_hook(count) for layer in network.modules() if isinstance(layer, nn.Conv2d)]
    bare_pass(network, [torch.zeros(1, 3, height, width, dtype=torch.uint8)])
    for hook in hooks:
        hook.remove()
    return total


@dataclass(frozen=True, kw_only=True)
class Error:
    """Distances and ranks of bfloat16 against float32, over images: without the constant of the target."""

    median: Floats
    worst: Floats
    spearman: Floats


def bf16_error(config: MeasureConfig, folder: Path, source: Catalog, weights: LoadedWeights) -> Error:
    """Per term (T,): median and 95th percentile of |d - d32| / d32, and Spearman's correlation of the ranks."""
    distances = []
    for precision in get_args(Precision):
        meter = open_meter(config.model_copy(update={"precision": precision}), folder / precision, source, weights)
        with closing(meter):
            terms = meter.measure(np.arange(len(source)))["terms/t0"].combine_chunks()
        values = terms.flatten().to_numpy().reshape(-1, len(config.terms)).astype(np.float64)
        distances.append(values - meter.reference.targets["t0"].constant)
    exact, rounded = distances
    relative = np.abs(rounded - exact) / np.maximum(exact, np.finfo(float).tiny)
    ranks = [pd.DataFrame(each).rank().to_numpy() for each in distances]
    spearman = [float(np.corrcoef(ranks[0][:, term], ranks[1][:, term])[0, 1]) for term in range(len(config.terms))]
    return Error(
        median=np.median(relative, axis=0), worst=np.percentile(relative, 95, axis=0), spearman=np.array(spearman)
    )


def nvjpeg_rate(paths: Sequence[AnyPath], device: torch.device) -> str:
    """What torchvision's decoder on the GPU reaches; its pixels are others than Pillow's, so nothing is measured so."""
    from torchvision.io import decode_jpeg, read_file

    try:
        files = [read_file(str(path)) for path in paths]
        decoded = decode_jpeg(files, device=device)
        seconds = _timed(lambda: decode_jpeg(files, device=device), device)[0]
    except RuntimeError as error:
        return f"not in this build of torchvision ({str(error).splitlines()[0]})"
    pairs = zip(decoded, paths, strict=True)
    apart = max(
        int((x.permute(1, 2, 0).cpu().short() - torch.from_numpy(decode(path))).abs().max()) for x, path in pairs
    )
    return f"{len(paths) / seconds:.0f} images/s decoded alone, at most {apart} of 255 from Pillow's pixels; not used"


def describe(device: torch.device, config: MeasureConfig, meter_threads: int) -> str:
    """Where it ran. That a CPU stands in for a GPU is always said."""
    cores = len(os.sched_getaffinity(0))
    host = f"{cores} cores, load {os.getloadavg()[0]:.1f}, {meter_threads} decoding threads"
    if device.type == "cuda":
        return f"{torch.cuda.get_device_name(device)}; {host}; torch {torch.__version__}"
    return f"no GPU here: the network ran on the CPU, {config.threads} threads; {host}; torch {torch.__version__}"


def run(arguments: argparse.Namespace) -> list[str]:
    """All figures, as the lines of a report."""
    config = MeasureConfig(
        height=arguments.height,
        width=arguments.width,
        batch_size=arguments.batch_size,
        threads=arguments.threads,
        precision=arguments.precision,
        network="vgg19" if arguments.network == CHEAP else arguments.network,
        weights="random",
        basis_images=arguments.files,
    )
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        source = draw_images(folder / "images", arguments.files)
        weights = weights_of(arguments.network)
        started = time.perf_counter()
        meter = open_meter(config, folder / "meter", source, weights)
        fitted = time.perf_counter() - started
        with closing(meter):
            device = meter.network.device
            rate = measure_rate(meter, folder, images=arguments.images, rounds=arguments.rounds)
            decoding = decoding_rate(meter, arguments.images)
            stages = stage_seconds(meter, folder)
            limit = arithmetic_limit(device, config.precision)
            needed = operations(meter.network, height=config.height, width=config.width)
            lines = [
                describe(device, config, meter.decoding_threads),
                f"{arguments.network}, {config.precision}, {config.height}x{config.width}, batches of "
                f"{config.batch_size}, {arguments.rounds} rounds of {arguments.images} images",
                f"whole, from JPEG files: {rate.whole:.1f} images/s over {rate.seconds:.0f} s",
                f"bare network, resident images: {rate.bare:.1f} images/s",
                f"whole / bare: {rate.whole / rate.bare:.1%}, by processor time {rate.bare_cpu / rate.whole_cpu:.1%}",
                f"decoding alone: {decoding:.1f} images/s; "
                f"{'decoding' if decoding < rate.bare else 'the network'} is the narrower",
                f"arithmetic: {needed / 1e9:.2f} GFLOP an image, matrix products reach {limit / 1e9:.0f} GFLOP/s; "
                f"whole uses {rate.whole * needed / limit:.1%} of that, bare {rate.bare * needed / limit:.1%}",
                f"start-up, apart: basis from {arguments.files} images and network {fitted:.1f} s",
                f"memory: {_peak_bytes() / 2**20:.0f} MiB" + _device_memory(device),
                "stage, alone: ms an image" + (" of processor time" if device.type == "cpu" else ""),
                *(f"  {name:<10} {1000 * seconds:8.3f}" for name, seconds in stages.items()),
            ]
            if device.type == "cuda":
                lines.append(f"nvJPEG: {nvjpeg_rate(source.file_paths(), device)}")
        if config.precision == "bf16":
            error = bf16_error(config, folder, source, weights)
            lines += [
                f"bf16 against float32, terms {', '.join(config.terms.names)}:",
                *(
                    f"  {what:<28}" + " ".join(f"{value:9.2e}" for value in values)
                    for what, values in (("median relative error", error.median), ("95th percentile", error.worst))
                ),
                f"  {'Spearman of the ranks':<28}" + " ".join(f"{value:9.6f}" for value in error.spearman),
            ]
    return lines


def main(arguments: Sequence[str]) -> None:
    """``python -m finegpr.measuring.bench``; see ``--help``."""
    parser = argparse.ArgumentParser(prog="python -m finegpr.measuring.bench", description=__doc__.splitlines()[0])
    parser.add_argument("--height", type=int, default=256)
    parser.add_argument("--width", type=int, default=128)
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--images", type=int, default=128, help="measured in each round")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument(
        "--files", type=int, default=NUM_FILES, help="distinct images drawn; the basis is fitted on them"
    )
    parser.add_argument("--threads", type=int, default=1, help="of the network, on a CPU")
    parser.add_argument("--network", choices=(*NETWORKS, CHEAP), default="vgg19")
    parser.add_argument("--precision", choices=get_args(Precision), default="float32")
    print("\n".join(run(parser.parse_args(arguments))))


def _size(config: MeasureConfig) -> Size:
    return {"height": config.height, "width": config.width}


def _timed(call: Callable[[], object], device: torch.device) -> tuple[float, float]:
    """Seconds by the clock, and of this process on its processors."""
    _synchronise(device)
    clock, processor = time.perf_counter(), time.process_time()
    call()
    _synchronise(device)
    return time.perf_counter() - clock, time.process_time() - processor


def _synchronise(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _peak_bytes() -> int:
    return 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def _device_memory(device: torch.device) -> str:
    return f", on the GPU {torch.cuda.max_memory_allocated(device) / 2**20:.0f} MiB" if device.type == "cuda" else ""


if __name__ == "__main__":
    try:
        main(sys.argv[1:])
    except AostError as error:
        print(visible(str(error)), file=sys.stderr)
        sys.exit(error.exit_code)
