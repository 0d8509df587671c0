"""Whether scores from few measured identities are right on average, and what filling cells in costs.

Simulated worlds are measured in full and in part; over many subsets, the part's score minus the full one's says what
measuring fewer people does. The full measurement is corrected for its own sampling, so that both estimate the same.

    python tests/benchmarks/unbiasedness.py [--worlds 40]
"""

import argparse
import os
import platform
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from finegpr.catalog import Cells
from finegpr.measurements import Measurements
from search import embedding
from search.baselines import random_masks
from search.compare import Estimate, t_interval
from search.embedding import CellEmbedding, embed_linear, embed_rbf
from search.objectives import fill_unmeasured
from search.simulation import TARGET, Simulation, simulate
from search.space import Budget, Space

SIZES = (6, 4, 3)
PEOPLE = 40  # each has an image in every cell
NOISE = 1.0
IDENTITIES = ("1", "1, and 2 in a tenth of the cells", "2", "5", "20")
MEASURED = 0.6  # of the cells, where the others are filled in
FILLED_IDENTITIES = 5
NUM_SUBSETS = 200
DRAWS = 6  # of the people measured, in each world


def embed_whole_rbf(measurements: Measurements, cells: Cells, identity: np.ndarray, **options: Any) -> CellEmbedding:
    """mmd_rbf with a coordinate for every cell, where the search keeps at most ``MAX_RANK``."""
    kept, embedding.MAX_RANK = embedding.MAX_RANK, len(cells)
    try:
        return embed_rbf(measurements, cells, identity, **options)
    finally:
        embedding.MAX_RANK = kept


EMBED = {"mmd_linear": embed_linear, "mmd_rbf": embed_rbf, "mmd_rbf, all coordinates": embed_whole_rbf}
OPTIONS = {"target": TARGET, "scale": "standardised"}


def counts_of(identities: str, num_cells: int) -> np.ndarray:
    """How many people are measured in each cell."""
    counts = np.full(num_cells, int(identities.split(",")[0]))
    if "," in identities:
        counts[::10] = 2
    return counts


def part_of(measurements: Measurements, counts: np.ndarray, random: np.random.Generator) -> Measurements:
    """A random ``counts`` (C,) of the images of every cell; each is another person's."""
    order = np.lexsort((random.random(len(measurements.row)), measurements.cell))
    cell = measurements.cell[order]
    kept = np.sort(order[np.arange(len(order)) - np.searchsorted(cell, cell) < counts[cell]])
    per_image = {name: getattr(measurements, name)[kept] for name in ("row", "cell", "sketch", "norms", "off_basis")}
    terms = {name: values[kept] for name, values in measurements.terms.items()}
    return replace(measurements, terms=terms, **per_image)


def shares_of(simulation: Simulation, seed: int) -> np.ndarray:
    """Expected cell shares of random subsets, (n, C)."""
    space = Space(simulation.cells, simulation.identity, Budget(images=200, least=0.05, most=0.5), seed=seed)
    masks = random_masks(space, NUM_SUBSETS, seed=seed)
    return space.expected_shares(masks[space.feasible(masks)])


def uncorrected(form: CellEmbedding, shares: np.ndarray) -> np.ndarray:
    return replace(form, variance=np.zeros_like(form.variance)).score(shares)


def errors(seed: int) -> dict[tuple[str, str], tuple[float, float]]:
    """Per objective and number of identities: mean error over subsets and draws with and without the correction, in
    standard deviations of the full scores over subsets."""
    simulation = simulate(SIZES, seed=seed, num_identities=PEOPLE, identities_per_cell=PEOPLE, noise=NOISE)
    arguments = (simulation.cells, simulation.identity)
    shares = shares_of(simulation, seed)
    found = {}
    for name, embed in EMBED.items():
        full = embed(simulation.measurements, *arguments, **OPTIONS).score(shares)
        random = np.random.default_rng((seed, 1))
        for identities in IDENTITIES:
            counts = counts_of(identities, len(simulation.cells))
            pairs = []
            for _ in range(DRAWS):
                form = embed(part_of(simulation.measurements, counts, random), *arguments, **OPTIONS)
                pairs.append([(form.score(shares) - full).mean(), (uncorrected(form, shares) - full).mean()])
            corrected, plain = np.mean(pairs, axis=0) / full.std()
            found[name, identities] = (float(corrected), float(plain))
    return found


def plug_in_errors(seed: int) -> dict[str, tuple[float, float]]:
    """Per objective: mean error over subsets of held-out cells alone, and over random subsets, of scores with a share
    ``1 - MEASURED`` of the cells filled in; in standard deviations of the full scores."""
    simulation = simulate(SIZES, seed=seed, num_identities=PEOPLE, identities_per_cell=PEOPLE, noise=NOISE)
    arguments = (simulation.cells, simulation.identity)
    random = np.random.default_rng((seed, 2))
    num_cells = len(simulation.cells)
    held_out = random.permutation(num_cells)[round(MEASURED * num_cells) :]
    counts = np.full(num_cells, FILLED_IDENTITIES)
    counts[held_out] = 0
    alone = np.zeros((NUM_SUBSETS, num_cells))
    for row in alone:
        row[random.permutation(held_out)[: len(held_out) // 3]] = 1.0
    alone /= alone.sum(axis=1, keepdims=True)
    found = {}
    for name, embed in list(EMBED.items())[:2]:
        whole = embed(simulation.measurements, *arguments, **OPTIONS)
        part = embed(part_of(simulation.measurements, counts, random), *arguments, **OPTIONS)
        filled, _ = fill_unmeasured(part, simulation.cells, seed=seed)
        bias = []
        for shares in (alone, shares_of(simulation, seed)):
            full = whole.score(shares)
            bias.append(float((filled.score(shares) - full).mean() / full.std()))
        found[name] = (bias[0], bias[1])
    return found


def shown(estimate: Estimate) -> str:
    return f"{estimate.mean:+.4f} ({estimate.low:+.4f} to {estimate.high:+.4f})"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--worlds", type=int, default=40)
    parser.add_argument("--filled-worlds", type=int, default=10)
    parser.add_argument("--output", type=Path, default=Path("results/unbiasedness.md"))
    arguments = parser.parse_args()
    started = time.monotonic()
    of_world = [errors(seed) for seed in range(arguments.worlds)]
    lines = [
        *HEAD.format(worlds=arguments.worlds, people=PEOPLE, subsets=NUM_SUBSETS, draws=DRAWS).split("\n"),
        "",
        "| objective | identities per cell | error, corrected (95 %) | holds 0 | error, uncorrected (95 %) |",
        "| --- | --- | --- | --- | --- |",
    ]
    for name in EMBED:
        for identities in IDENTITIES:
            corrected, plain = (t_interval([each[name, identities][which] for each in of_world]) for which in (0, 1))
            verdict = "no" if corrected.excludes_zero else "yes"
            lines.append(f"| {name} | {identities} | {shown(corrected)} | {verdict} | {shown(plain)} |")
    filled = [plug_in_errors(seed) for seed in range(arguments.filled_worlds)]
    lines += [
        "",
        *FILLED.format(worlds=arguments.filled_worlds, measured=f"{MEASURED:.0%}", identities=FILLED_IDENTITIES).split(
            "\n"
        ),
        "",
        "| objective | error of subsets of filled cells (95 %) | of random subsets (95 %) |",
        "| --- | --- | --- |",
    ]
    for name in filled[0]:
        alone, mixed = (t_interval([each[name][which] for each in filled]) for which in (0, 1))
        lines.append(f"| {name} | {shown(alone)} | {shown(mixed)} |")
    lines += [
        "",
        f"`python tests/benchmarks/unbiasedness.py --worlds {arguments.worlds} --filled-worlds "
        f"{arguments.filled_worlds}`, {time.strftime('%Y-%m-%d')}, one of {os.cpu_count()} cores of "
        f"{platform.machine()}, {time.monotonic() - started:.0f} s.",
        "",
    ]
    arguments.output.parent.mkdir(parents=True, exist_ok=True)
    arguments.output.write_text("\n".join(lines))
    print("\n".join(lines))


HEAD = """# Bias of scores from few measured identities

{worlds} simulated worlds of 72 cells, {people} people with an image in every cell, noise as large as the differences
between cells. Error: the score from so many identities per cell, {draws} random draws of them, minus that of all
{people}; mean over {subsets} random subsets of 5 to 50 % of the images, in standard deviations of the full scores, then
over worlds, with its interval. The full score is corrected for its own sampling too.

With one identity in every cell nothing is known of the variance between people, and nothing can be corrected; a tenth
of the cells with two is enough to know it. `mmd_rbf` keeps at most 64 coordinates and the diagonal of the kernel, so
that the noise of a cell's mean is in the score and is taken off in full; the rows with all coordinates show what
the rest of the kernel does."""

FILLED = """## Cells that a surrogate filled in

{worlds} of these worlds, {measured} of the cells measured with {identities} identities and the others predicted: a
plug-in score. Subsets are a third of the predicted cells alike, or random ones as above."""

if __name__ == "__main__":
    main()
