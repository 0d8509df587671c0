"""Time mean_distance and pairwise_distance over the number of images and fit the exponents of n = m.

    python tests/benchmarks/mean_distance_scaling.py [--rounds 7] [--output results/distance-scaling.md]

Expected: about 1 for means, about 2 for pairs. Every size is measured in every round, so that a busy machine slows all
sizes alike; the fastest round counts.
"""

import argparse
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from finegpr.perceptual import Distances, mean_distance, pairwise_distance
from finegpr.pixels.allocator import keep_freed_blocks

SIZES = (50, 100, 200, 400)
SHAPES = ((32, 32, 16), (64, 16, 8), (128, 8, 4))


def layers(size: int, seed: int) -> list[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.rand(size, *shape, generator=generator) for shape in SHAPES]


def seconds(function: Callable[..., Distances], source: list[Tensor], target: list[Tensor]) -> float:
    start = time.perf_counter()
    function(source, target, content_layer=1)
    return time.perf_counter() - start


def exponent(timings: list[float]) -> float:
    return float(np.polyfit(np.log(SIZES), np.log(timings), 1)[0])


def main(arguments: list[str]) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--output", type=Path, default=Path("results/distance-scaling.md"))
    given = parser.parse_args(arguments)
    torch.set_num_threads(1)
    keep_freed_blocks()  # as measuring does; fresh pages would cost more the larger a block is
    sides = {size: (layers(size, 0), layers(size, 1)) for size in SIZES}
    functions = (mean_distance, pairwise_distance)
    best = {function: [float("inf")] * len(SIZES) for function in functions}
    for _ in range(given.rounds):
        for function in functions:
            for place, size in enumerate(SIZES):
                best[function][place] = min(best[function][place], seconds(function, *sides[size]))
    ratio = best[pairwise_distance][-1] / best[mean_distance][-1]
    lines = [
        "# Cost of the perceptual distance over the number of images",
        "",
        "`python tests/benchmarks/mean_distance_scaling.py`, float32 on one CPU core, n = m, layers of (N, H, W)",
        f"{', '.join(map(str, SHAPES))}; milliseconds, fastest of {given.rounds} rounds; torch {torch.__version__}.",
        "Exponent: slope of log time over log n.",
        "",
        "| n = m | " + " | ".join(str(size) for size in SIZES) + " | exponent |",
        "| --- |" + " --- |" * (len(SIZES) + 1),
        *(
            f"| `{function.__name__}` | "
            + " | ".join(f"{1e3 * value:.1f}" for value in best[function])
            + f" | {exponent(best[function]):.2f} |"
            for function in functions
        ),
        "",
        f"At n = m = {SIZES[-1]} the mean form is {ratio:.0f} times faster.",
    ]
    given.output.write_text("\n".join(lines) + "\n", encoding="utf-8")
    print("\n".join(lines))


if __name__ == "__main__":
    main(sys.argv[1:])
