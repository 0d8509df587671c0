"""How near to the true optimum a search of 2,000 subsets comes, on spaces small enough to score every subset.

python tests/benchmarks/search_regret.py [--spaces 20] [--evaluations 300 2000] [--output results/search-regret.md]
"""

import argparse
import platform
import tempfile
import time
from itertools import product
from pathlib import Path

import numpy as np

from search.baselines import enumerate_masks
from search.loop import regret, search
from search.objectives import OBJECTIVES, CellObjective, make_objective
from search.optimizer import make_optimizer
from search.simulation import TARGET, simulate
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
OPTIMIZERS = ("swarm", "pso", "random")
BUDGET = {"identities": 10, "least": 0.08, "most": 0.3}
IMAGES_SHARE = 0.08


def score_all(space: Space, objectives: list[CellObjective]) -> np.ndarray:
    """Scores (objectives, feasible subsets) of every feasible subset."""
    parts = []
    for start in range(0, space.num_subsets, 4096):
        masks = enumerate_masks(space, np.arange(start, min(start + 4096, space.num_subsets)))
        shares = space.expected_shares(masks[space.feasible(masks)])
        parts.append(np.stack([objective.embedding.score(shares) for objective in objectives]))
    return np.concatenate(parts, axis=1)


def run_space(seed: int, budgets: list[int]) -> tuple[int, dict[tuple[str, int, str], float]]:
    """Number of feasible subsets, and the regret of every (objective, evaluations, optimizer) on one random space."""
    sizes = SIZES[seed % len(SIZES)]
    num_identities = 12
    simulation = simulate(sizes, seed=seed, num_identities=num_identities, identities_per_cell=3)
    images = round(IMAGES_SHARE * num_identities * int(np.prod(sizes)))
    space = Space(simulation.cells, simulation.identity, Budget(images=images, **BUDGET), seed=seed)
    objectives = [
        make_objective(name, space, simulation.measurements, simulation.identity, target=TARGET, scale="standardised")
        for name in OBJECTIVES
    ]
    scores = score_all(space, objectives)
    regrets = {}
    for objective, every in zip(objectives, scores, strict=True):
        for evaluations, name in product(budgets, OPTIMIZERS):
            optimizer = make_optimizer(name, space, seed=seed, evaluations=evaluations)
            with tempfile.TemporaryDirectory() as folder:
                result = search(space, objective, optimizer, Path(folder), evaluations=evaluations, config={})
            assert result.random_median is not None
            assert result.score >= every.min() - 1e-9, "a search cannot beat the exhaustive optimum"
            best = min(float(every.min()), result.score)  # they differ in the twelfth digit
            regrets[objective.name, evaluations, name] = regret(
                result.score, best=best, random_median=result.random_median
            )
    return scores.shape[1], regrets


def main() -> None:
    """Run all spaces and write the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--spaces", type=int, default=20)
    parser.add_argument("--evaluations", type=int, nargs="+", default=[300, 2000])
    parser.add_argument("--output", type=Path, default=Path("results/search-regret.md"))
    arguments = parser.parse_args()
    started = time.monotonic()
    sizes, rows = [], []
    for seed in range(arguments.spaces):
        num, regrets = run_space(seed, arguments.evaluations)
        sizes.append(num)
        rows.append(regrets)
        print(seed, num, {"/".join(map(str, key)): round(value, 4) for key, value in regrets.items()}, flush=True)
    lines = [
        "# Regret of the optimizers where the optimum is known",
        "",
        f"{arguments.spaces} simulated spaces of {min(sizes):,} to {max(sizes):,} feasible subsets: 16 to 18 values",
        "over 3 or 4 attributes, main effects and 30 % interactions, a planted product target; budget: 8 % of all",
        "images, 10 of 12 identities, subsets of 8 to 30 %. Every feasible subset is scored once, to know the best.",
        "Regret = (score - best) / (median of 200 random subsets - best): 0 is the optimum, 1 a typical random subset.",
        "",
        "| objective | evaluations | optimizer | median regret | worst regret | optimum found |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for objective in OBJECTIVES:
        for evaluations, name in product(arguments.evaluations, OPTIMIZERS):
            values = np.array([row[objective, evaluations, name] for row in rows])
            found = int((values < 1e-9).sum())
            figures = f"{np.median(values):.4f} | {values.max():.4f} | {found} of {len(rows)}"
            lines.append(f"| {objective} | {evaluations:,} | {name} | {figures} |")
    budgets = " ".join(map(str, arguments.evaluations))
    lines += [
        "",
        f"`python tests/benchmarks/search_regret.py --spaces {arguments.spaces} --evaluations {budgets}`, "
        f"{time.strftime('%Y-%m-%d')}, one core of {platform.machine()}, {time.monotonic() - started:.0f} s.",
        "",
    ]
    arguments.output.parent.mkdir(parents=True, exist_ok=True)
    arguments.output.write_text("\n".join(lines))
    print("\n".join(lines))


if __name__ == "__main__":
    main()
