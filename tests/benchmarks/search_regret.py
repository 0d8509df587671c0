"""How near to the true optimum a search of 2,000 subsets comes, on spaces small enough to score every subset.

The search scores subsets through its low-rank embedding; here every subset, and the one a search found, is scored
through the full Gram matrix between cells, written out anew in double precision.

python tests/benchmarks/search_regret.py [--spaces 20] [--evaluations 300 2000] [--output results/search-regret.md]
"""

import argparse
import platform
import sys
import tempfile
import time
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
from scipy import spatial

from finegpr.weighing import ALPHA, BETA, LAYER_WEIGHT
from search.loop import regret, search
from search.objectives import make_objective
from search.optimizers import make_optimizer
from search.optimizers.baselines import enumerate_masks
from search.simulation import TARGET, Simulation, simulate
from search.space import Budget, Space

SIZES = (
    (7, 6, 5),
    (6, 6, 5),
    (8, 5, 4),
    (6, 6, 4),
    (5, 5, 4, 4),
    (5, 4, 4, 4),
    (9, 5, 4),
    (10, 4, 4),
    (6, 4, 4, 3),
    (7, 7, 4),
)
OBJECTIVES = ("mean_distance", "mmd_linear", "mmd_rbf")
OPTIMIZERS = ("swarm", "numpy_swarm+polish", "pso", "random")
BUDGET: dict[str, Any] = {"identities": 10, "least": 0.08, "most": 0.3}
IMAGES_SHARE = 0.08


@dataclass(frozen=True, kw_only=True)
class CellGram:
    """A score p'Kp - 2 p't + c - sum_c p_c^2 v_c / k_c of cell shares p, from the full matrix K (C, C).

    K and t are means of the kernel between the images of two cells, and of a cell and the target; v_c is the variance
    between the k_c people of a cell in the kernel's feature space. The mean distance has no K and no v, and t = -d/2.
    """

    gram: np.ndarray
    to_target: np.ndarray
    constant: float
    noise: np.ndarray

    def score(self, shares: np.ndarray) -> np.ndarray:
        """(n, C) -> (n,)."""
        quadratic = np.einsum("nc,nc->n", shares @ self.gram, shares)
        score: np.ndarray = quadratic - 2 * shares @ self.to_target + self.constant - shares**2 @ self.noise
        return score


def cell_grams(simulation: Simulation) -> dict[str, CellGram]:
    """Every objective's Gram matrix. A simulated cell shows each of its people once, so images are people."""
    measured = simulation.measurements
    cell, num_cells = measured.cell, len(simulation.cells)
    people = np.bincount(cell, minlength=num_cells).astype(float)
    average = np.zeros((num_cells, len(cell)))
    average[cell, np.arange(len(cell))] = 1 / people[cell]
    distance = np.zeros(num_cells)
    terms = measured.terms[TARGET].astype(float)
    np.add.at(distance, cell, terms @ standardised(simulation) / people[cell])
    none = np.zeros((num_cells, num_cells))
    grams = {"mean_distance": CellGram(gram=none, to_target=-distance / 2, constant=0.0, noise=none[0])}
    x, y = measured.sketch.astype(float), measured.target_sketch[TARGET].astype(float)
    for name, kernel in (("mmd_linear", linear_kernel), ("mmd_rbf", rbf_kernel)):
        among = kernel(x, x, simulation)
        own = average @ np.diag(among)
        gram = average @ among @ average.T
        grams[name] = CellGram(
            gram=gram,
            to_target=average @ kernel(x, y, simulation).mean(axis=1),
            constant=float(kernel(y, y, simulation).mean()),
            noise=(own - np.diag(gram)) * people / (people - 1) / people,
        )
    return grams


def linear_kernel(x: np.ndarray, y: np.ndarray, simulation: Simulation) -> np.ndarray:
    """phi(x)'phi(y), phi a sketch whose blocks are weighted as the distance weights its terms."""
    kernel = np.zeros((len(x), len(y)))
    for block, weight in zip(simulation.measurements.blocks, standardised(simulation), strict=True):
        kernel += weight * x[:, block] @ y[:, block].T
    return kernel


def rbf_kernel(x: np.ndarray, y: np.ndarray, simulation: Simulation) -> np.ndarray:
    """The sum of exp(-d / (s median)) over terms and over s = 0.5, 1, 2."""
    kernel = np.zeros((len(x), len(y)))
    for block, median in zip(simulation.measurements.blocks, simulation.measurements.median, strict=True):
        distance = spatial.distance.cdist(x[:, block], y[:, block], "sqeuclidean")
        for scale in (0.5, 1, 2):
            kernel += np.exp(-distance / (scale * median))
    return kernel


def standardised(simulation: Simulation) -> np.ndarray:
    """alpha w_l of the style terms and beta, over each term's median (6,)."""
    return np.array([ALPHA * LAYER_WEIGHT] * 5 + [BETA]) / simulation.measurements.median


def score_all(space: Space, grams: list[CellGram]) -> np.ndarray:
    """Scores (objectives, feasible subsets) of every feasible subset."""
    parts = []
    for start in range(0, space.num_subsets, 4096):
        masks = enumerate_masks(space, np.arange(start, min(start + 4096, space.num_subsets)))
        shares = space.expected_shares(masks[space.feasible(masks)])
        parts.append(np.stack([gram.score(shares) for gram in grams]))
    return np.concatenate(parts, axis=1)


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """One random space: feasible subsets, the regret of every (objective, evaluations, optimizer), and how far the
    search's own score of what it found lies from the Gram matrix's, at most, in units of regret."""

    num_feasible: int
    regrets: dict[tuple[str, int, str], float]
    error: float


def run_space(seed: int, budgets: list[int]) -> Outcome:
    """Search one random space in every way, and score every feasible subset."""
    sizes = SIZES[seed % len(SIZES)]
    num_identities = 12
    simulation = simulate(sizes, seed=seed, num_identities=num_identities, identities_per_cell=3)
    images = round(IMAGES_SHARE * num_identities * int(np.prod(sizes)))
    space = Space(simulation.cells, simulation.identity, Budget(images=images, **BUDGET), seed=seed)
    objectives = [make_objective(name, space, simulation.measured) for name in OBJECTIVES]
    grams = cell_grams(simulation)
    scores = score_all(space, list(grams.values()))
    best = dict(zip(grams, scores.min(axis=1), strict=True))
    regrets, error = {}, 0.0
    for objective in objectives:
        for evaluations, name in product(budgets, OPTIMIZERS):
            optimizer = make_optimizer(name, space, seed=seed, evaluations=evaluations)
            with tempfile.TemporaryDirectory() as folder:
                result = search(space, objective, optimizer, Path(folder), evaluations=evaluations, config={})
            assert result.random_median is not None
            unit = result.random_median - best[objective.name]
            found = grams[objective.name].score(space.expected_shares(space.mask(result.subset)[None]))[0]
            regrets[objective.name, evaluations, name] = regret(
                found, best=best[objective.name], random_median=result.random_median
            )
            error = max(error, abs(found - result.score) / unit)
    return Outcome(num_feasible=scores.shape[1], regrets=regrets, error=error)


def main(arguments: list[str]) -> None:
    """Run all spaces and write the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--spaces", type=int, default=20)
    parser.add_argument("--evaluations", type=int, nargs="+", default=[300, 2000])
    parser.add_argument("--output", type=Path, default=Path("results/search-regret.md"))
    given = parser.parse_args(arguments)
    started = time.monotonic()
    outcomes = []
    for seed in range(given.spaces):
        outcome = run_space(seed, given.evaluations)
        outcomes.append(outcome)
        figures = {"/".join(map(str, key)): round(float(value), 4) for key, value in outcome.regrets.items()}
        print(seed, outcome.num_feasible, figures, flush=True)
    sizes = [outcome.num_feasible for outcome in outcomes]
    lines = [
        "# Regret of the optimizers where the optimum is known",
        "",
        f"{given.spaces} simulated spaces of {min(sizes):,} to {max(sizes):,} feasible subsets: 16 to 18 values",
        "over 3 or 4 attributes, main effects and 30 % interactions, a planted product target; budget: 8 % of all",
        "images, 10 of 12 identities, subsets of 8 to 30 %. Every feasible subset is scored through the full cell Gram",
        "matrix, in double precision and apart from the low-rank embedding that the search uses, to know the best.",
        "Regret = (score - best) / (median of 200 random subsets - best): 0 is the optimum, 1 a typical random subset.",
        "",
        "| objective | evaluations | optimizer | median regret | worst regret | optimum found |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    regrets = [outcome.regrets for outcome in outcomes]
    for objective in OBJECTIVES:
        for evaluations, name in product(given.evaluations, OPTIMIZERS):
            values = np.array([row[objective, evaluations, name] for row in regrets])
            found = int((values < 1e-9).sum())
            shown = (
                f"{np.median(values).round(4) + 0:.4f} | {values.max().round(4) + 0:.4f} | {found} of {len(regrets)}"
            )
            lines.append(f"| {objective} | {evaluations:,} | {name} | {shown} |")
    error = max(outcome.error for outcome in outcomes)
    lines += ["", f"Embedding against Gram matrix, at the subsets found: at most {error:.1e} in units of regret."]
    budgets = " ".join(map(str, given.evaluations))
    lines += [
        "",
        f"`python tests/benchmarks/search_regret.py --spaces {given.spaces} --evaluations {budgets}`, "
        f"{time.strftime('%Y-%m-%d')}, one core of {platform.machine()}, {time.monotonic() - started:.0f} s.",
        "",
    ]
    given.output.parent.mkdir(parents=True, exist_ok=True)
    given.output.write_text("\n".join(lines))
    print("\n".join(lines))


if __name__ == "__main__":
    main(sys.argv[1:])
