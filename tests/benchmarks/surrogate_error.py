"""How well the surrogate predicts cells that nobody measured: trees against a ridge and the noise ceiling, on MiniGPR.

    python tests/benchmarks/surrogate_error.py --world FOLDER [--targets 3]

FOLDER is that of ``recovery.py``; its measurement is read, nothing is rendered.
"""

import argparse
import os
import platform
import sys
import time
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from recovery_world import ATTRIBUTES, SOURCE, World, make_world

from finegpr.weighing import Weighing
from search.measured import Measured
from search.objectives.mean_distance import embed_distance
from search.objectives.mmd_rbf import embed_rbf
from search.objectives.samples import Samples
from search.objectives.surrogate import SplitScore, fit_surrogate

NUM_COORDINATES = 6
SPLITS = ("cells", "value pairs", "identities")


def samples_of(world: World, target: str) -> Mapping[str, Samples]:
    """The quantities that a surrogate fills in: the six distance terms, and the leading coordinates of mmd_rbf."""
    cells = world.source.cells(ATTRIBUTES)
    identity = world.source.identities
    measured = Measured(
        measurements=world.measurements, cells=cells, identity=identity, target=target, weighing=Weighing()
    )
    kernel = embed_rbf(measured).samples
    places = [*range(NUM_COORDINATES), len(kernel.names) - 1]
    return {
        "distance term": embed_distance(measured).samples,
        "`mmd_rbf`": kernel.columns(places),
    }


def table(scores: list[tuple[str, SplitScore]], split: str) -> list[str]:
    lines = [
        f"| left out: {split} | R2 | ridge | ceiling | rank correlation | ridge |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    rows: dict[str, list[SplitScore]] = {}
    for kind, score in scores:
        if score.split == split:
            rows.setdefault(f"{kind} {score.quantity}", []).append(score)
    for name, each in rows.items():
        ceilings = [score.ceiling for score in each if score.ceiling is not None]
        cells = [
            f"{np.mean([score.r2 for score in each]):.3f}",
            f"{np.mean([score.ridge_r2 for score in each]):.3f}",
            f"{np.mean(ceilings):.3f}" if ceilings else "-",
            f"{np.mean([score.spearman for score in each]):.3f}",
            f"{np.mean([score.ridge_spearman for score in each]):.3f}",
        ]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return lines


def main(arguments: list[str]) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--world", type=Path, required=True)
    parser.add_argument("--targets", type=int, default=3)
    parser.add_argument("--measured", type=int, default=22, help="targets of the measurement in FOLDER")
    parser.add_argument("--people", type=int, default=SOURCE.num_identities, help="of the source in FOLDER")
    parser.add_argument("--output", type=Path, default=Path("results/surrogate-error.md"))
    given = parser.parse_args(arguments)
    started = time.monotonic()
    world = make_world(given.world, range(given.measured), num_people=given.people)
    cells = world.source.cells(ATTRIBUTES)
    scores: list[tuple[str, SplitScore]] = []
    trusted = []
    for number in range(given.targets):
        for kind, samples in samples_of(world, f"gap{number}").items():
            report = fit_surrogate(cells, samples, seed=number).report
            trusted.append(f"{kind}s, target {number}: {'trees' if report.trusted else 'ridge'}")
            scores += [(kind, score) for score in report.scores]
    lines = [
        *HEAD.format(images=len(world.source), people=given.people, cells=len(cells), targets=given.targets).split("\n")
    ]
    for split in SPLITS:
        lines += ["", *table(scores, split)]
    lines += [
        "",
        f"What predicts unmeasured cells by this validation: {'; '.join(trusted)}.",
        "",
        f"`python tests/benchmarks/surrogate_error.py --world FOLDER --targets {given.targets}`, "
        f"{time.strftime('%Y-%m-%d')}, one of {os.cpu_count()} cores of {platform.machine()}, "
        f"{time.monotonic() - started:.0f} s.",
        "",
    ]
    given.output.parent.mkdir(parents=True, exist_ok=True)
    given.output.write_text("\n".join(lines))
    print("\n".join(lines))


HEAD = """# Error of the surrogate on cells that were left out

{images:,} MiniGPR images of {people} people in {cells} cells, random VGG-19 weights, 64x32; {targets} MiniMarket
targets (means over them). Predicted are cell means: the six distance terms, by their logarithm, and the leading
coordinates and the linear part of `mmd_rbf`. Trees on top of the ridge, against the ridge alone; the ceiling is the
highest R2 that the noise of the held-out means allows. Cells and pairs of values are left out whole; identities leaves
out half of the people instead, so that every cell was seen. Rank correlation is Spearman's."""

if __name__ == "__main__":
    main(sys.argv[1:])
