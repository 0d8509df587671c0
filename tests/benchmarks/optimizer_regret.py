"""How near to the best known subset every optimizer comes on planted problems of FineGPR's size.

36 viewpoints x 7 weathers x 7 illuminations, 54 to 216 of the 1,764 cells allowed, mmd_rbf at rank 64. The optimizers
run as in search.loop.search (generations, duplicates told their first score, twelve digits) but on masks in memory,
without a journal, whose fsync would dominate. The score is the embedding's quadratic form contracted over the grid: it
is checked against CellObjective.score_masks on every problem, and the loop against search.loop.search on the first.

Every result is kept in --cache, so the same command goes on where it was stopped; delete it when the code of an
optimizer has changed. Short runs come first, and whatever is there is reported: --report only reports.

python tests/benchmarks/optimizer_regret.py [--problems 50] [--long 10] [--cache DIR] [--report]
"""

import argparse
import os
import platform
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from finegpr.atomic import write_atomic
from finegpr.storage import canonical_hash, read_json, write_json
from search.loop import PATIENCE, regret, search
from search.objectives import CellObjective, make_objective
from search.optimizers import make_masks, make_optimizer
from search.optimizers.baselines import random_masks
from search.simulation import Simulation, simulate
from search.space import Budget, Space

SIZES = (36, 7, 7)
NUM_CELLS = 1764
LEAST, MOST = 54, 216  # cells
PEOPLE = 4
OBJECTIVE = "mmd_rbf"
NUM_RANDOM = 200
HIT = 1e-9

# Name in the tables -> optimizer, options and the largest number of evaluations it is run at.
RUNS: dict[str, tuple[str, dict[str, Any], int]] = {
    "swarm (default)": ("swarm", {}, 10_000),
    "numpy_swarm+polish": ("numpy_swarm+polish", {}, 10_000),
    "numpy_swarm+polish, binary": ("numpy_swarm+polish", {"encoding": "binary"}, 2_000),
    "random+polish": ("random+polish", {}, 2_000),
    "nevergrad:DE+restart+polish": ("nevergrad:DE+restart+polish", {}, 2_000),
    "numpy_swarm": ("numpy_swarm", {}, 10_000),
    "numpy_swarm, global": ("numpy_swarm", {"topology": "global"}, 2_000),
    "numpy_swarm, binary": ("numpy_swarm", {"encoding": "binary"}, 2_000),
    "pso": ("pso", {}, 10_000),
    "nevergrad:PSO (bare)": ("nevergrad:PSO", {"population": 40}, 2_000),
    "nevergrad:DE": ("nevergrad:DE", {}, 2_000),
    "nevergrad:CMA": ("nevergrad:CMA", {}, 2_000),
    "nevergrad:DiscreteOnePlusOne": ("nevergrad:DiscreteOnePlusOne", {"population": 1}, 2_000),
    "descent+restart": ("descent+restart", {}, 10_000),
    "descent (2 passes)": ("descent", {}, 500),
    "greedy": ("greedy", {}, 500),
    "random": ("random", {}, 10_000),
}
# These take long: above 500 evaluations they are run on as many problems as have 10,000.
SLOW = (
    "nevergrad:DE+restart+polish",
    "nevergrad:PSO (bare)",
    "nevergrad:DE",
    "nevergrad:CMA",
    "nevergrad:DiscreteOnePlusOne",
)
EVALUATIONS = (500, 2_000, 10_000)
COLOURS = ("#0069b4", "#e3730e", "#2f9e44", "#9c36b5", "#5b6570", "#c92a2a")


@dataclass(frozen=True, kw_only=True, eq=False)
class Problem:
    """A space, and its objective on the grid: each cell's coordinates, linear part and correction in ``sums``."""

    space: Space
    sums: np.ndarray  # (36, 49 (r + 2))
    constant: float
    random_median: float

    def score(self, masks: np.ndarray) -> np.ndarray:
        """(n, bits) -> (n,). Every person has one image in every cell: the shares are 1 / cells."""
        inside = masks.astype(np.float64)
        views, weathers, lights = (inside[:, block] for block in self.space.blocks)
        rank = self.sums.shape[1] // 49 - 2
        rest = (weathers[:, :, None] * lights[:, None, :]).reshape(len(masks), 1, 49)
        mean = (rest @ (views @ self.sums).reshape(len(masks), 49, rank + 2))[:, 0]
        num = views.sum(axis=1) * weathers.sum(axis=1) * lights.sum(axis=1)
        mean /= num[:, None]
        score: np.ndarray = np.square(mean[:, :rank]).sum(axis=1) + mean[:, rank] + self.constant
        return score - mean[:, rank + 1] / num


def space_of(seed: int, simulation: Simulation) -> Space:
    """The space over one simulated source, with its budget."""
    budget = Budget(images=LEAST * PEOPLE, identities=PEOPLE, least=LEAST / NUM_CELLS, most=MOST / NUM_CELLS)
    return Space(simulation.cells, simulation.identity, budget, seed=seed)


def objective_of(seed: int) -> CellObjective:
    """The objective of one simulated source and target."""
    simulation = simulate(SIZES, seed=seed, num_identities=PEOPLE, identities_per_cell=3)
    return make_objective(OBJECTIVE, space_of(seed, simulation), simulation.measured)


@cache
def problem_of(seed: int, folder: Path) -> Problem:
    """The same for fast scores; made once, when these are compared with the objective's own."""
    path = folder / f"problem-{seed}.npz"
    space = space_of(seed, simulate(SIZES, seed=seed, num_identities=PEOPLE, identities_per_cell=3))
    if path.exists():
        with np.load(path, allow_pickle=False) as saved:
            return Problem(
                space=space,
                sums=saved["sums"],
                constant=float(saved["constant"]),
                random_median=float(saved["random_median"]),
            )
    objective = objective_of(seed)
    embedding = objective.embedding
    own = embedding.variance / embedding.num_identities - embedding.beyond_rank
    table = np.column_stack([embedding.coordinates, embedding.linear, own]).reshape(36, -1)
    masks = random_masks(space, NUM_RANDOM, seed=seed)
    problem = Problem(space=space, sums=table, constant=embedding.constant, random_median=0.0)
    scores = problem.score(masks)
    np.testing.assert_allclose(scores, objective.score_masks(masks), rtol=1e-9, atol=1e-12)
    problem = replace(problem, random_median=float(np.median(scores[space.feasible(masks)])))
    facts = {"sums": table, "constant": problem.constant, "random_median": problem.random_median}
    write_atomic(path, lambda temporary: save(temporary, facts))
    return problem


def save(path: Path, arrays: dict[str, Any]) -> None:
    """An npz file of exactly this name."""
    with path.open("wb") as stream:
        np.savez(stream, **arrays)


def run(problem: Problem, name: str, options: dict[str, Any], *, seed: int, evaluations: int) -> dict[str, float]:
    """One search: the best score, proposals, evaluations, and seconds of one core in asks and tells and in all."""
    optimizer = make_masks(name, problem.space, seed=seed, evaluations=evaluations, options=options)
    known: dict[bytes, float] = {}
    asked = stale = 0
    told = 0.0
    began = time.process_time()
    while len(known) < evaluations and stale < PATIENCE:
        start = time.process_time()
        masks = optimizer.ask(min(optimizer.population, evaluations - len(known)))
        told += time.process_time() - start
        if len(masks) == 0:
            break
        asked += len(masks)
        keys = [mask.tobytes() for mask in masks]
        first = {key: place for place, key in reversed(list(enumerate(keys))) if key not in known}
        new = np.array(sorted(first.values()), dtype=np.int64)
        stale = 0 if len(new) else stale + 1
        if len(new):
            assert problem.space.feasible(masks[new]).all()
            for place, score in zip(new, problem.score(masks[new]), strict=True):
                known[keys[place]] = float(f"{score:.12g}")
        start = time.process_time()
        optimizer.tell(masks, np.array([known[key] for key in keys]))
        told += time.process_time() - start
    seconds = time.process_time() - began
    return {
        "score": min(known.values()),
        "asked": asked,
        "evaluations": len(known),
        "seconds": seconds,
        "optimizer_seconds": told,
    }


def cached(folder: Path, seed: int, label: str, evaluations: int, *, may_run: bool) -> dict[str, float] | None:
    """The result of one run, from the cache if it is there."""
    name, options, most = RUNS[label]
    if evaluations > most:
        return None
    path = folder / f"{canonical_hash([seed, name, options, evaluations])[:24]}.json"
    if path.exists():
        found: dict[str, float] = read_json(path)
        return found
    if not may_run:
        return None
    result = run(problem_of(seed, folder), name, options, seed=seed, evaluations=evaluations)
    write_json(path, result)
    return result


def random_median(folder: Path, seed: int, *, may_run: bool) -> float | None:
    """Median score of random subsets, from the cache if it is there."""
    path = folder / f"random-{seed}.json"
    if not path.exists():
        if not may_run:
            return None
        write_json(path, problem_of(seed, folder).random_median)
    median: float = read_json(path)
    return median


def todo(problems: int, long: int, first_seed: int) -> Iterator[tuple[int, int, list[str]]]:
    """Seeds, numbers of evaluations and labels, short runs first, a problem's runs together."""
    for evaluations in EVALUATIONS:
        for place in range(long if evaluations == EVALUATIONS[-1] else problems):
            spared = evaluations > EVALUATIONS[0] and place >= long
            yield first_seed + place, evaluations, [label for label in RUNS if not (spared and label in SLOW)]


def check_loop(seed: int, cached_in: Path) -> None:
    """The same search through search.loop.search ends at the same score."""
    objective = objective_of(seed)
    optimizer = make_optimizer("swarm", objective.space, seed=seed, evaluations=500)
    with tempfile.TemporaryDirectory() as folder:
        whole = search(objective.space, objective, optimizer, Path(folder), evaluations=500, config={}, num_random=0)
    here = run(problem_of(seed, cached_in), "swarm", {}, seed=seed, evaluations=500)
    if abs(whole.score - here["score"]) > 1e-9 * abs(whole.score):
        raise AssertionError(f"search.loop.search found {whole.score}, this loop {here['score']}")


def collect(folder: Path, problems: int, first_seed: int) -> dict[tuple[str, int], dict[int, dict[str, float]]]:
    """What is in the cache: (label, evaluations) -> seed -> result, with its regret against the best of all runs."""
    seeds = range(first_seed, first_seed + problems)
    found = {
        (label, evaluations): {
            seed: result
            for seed in seeds
            if (result := cached(folder, seed, label, evaluations, may_run=False)) is not None
        }
        for evaluations in EVALUATIONS
        for label in RUNS
    }
    for seed in seeds:
        results = [of_seed[seed] for of_seed in found.values() if seed in of_seed]
        median = random_median(folder, seed, may_run=False)
        if not results or median is None:
            continue
        best = min(result["score"] for result in results)
        for result in results:
            result["regret"] = regret(result["score"], best=best, random_median=median)
    return {key: of_seed for key, of_seed in found.items() if of_seed}


def table(found: dict[tuple[str, int], dict[int, dict[str, float]]], evaluations: int) -> list[str]:
    """One row for each optimizer at this number of evaluations, best median first."""
    rows = []
    for label in RUNS:
        results = list(found.get((label, evaluations), {}).values())
        if not results:
            continue
        regrets = np.array([result["regret"] for result in results])
        asked = sum(result["asked"] for result in results)
        used = sum(result["evaluations"] for result in results)
        own = sum(result["optimizer_seconds"] for result in results)
        cells = [
            label,
            f"{np.median(regrets):.4f}",
            f"{regrets.mean():.4f}",
            f"{regrets.max():.4f}",
            f"{(regrets < HIT).sum()} of {len(regrets)}",
            f"{used / len(results):,.0f}",
            f"{1 - used / asked:.0%}",
            f"{own / asked * 1e6:,.0f}",
        ]
        rows.append((float(np.median(regrets)), float(regrets.mean()), f"| {' | '.join(cells)} |"))
    head = [
        "| optimizer | median regret | mean | worst | best found | evaluations | duplicates | ask + tell, us |",
        "| --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    return [*head, *(row for _, _, row in sorted(rows))]


def draw(found: dict[tuple[str, int], dict[int, dict[str, float]]], path: Path) -> None:
    """Median regret against evaluations, on the problems that were run at all numbers; worst as a thin line."""
    figure = Figure(figsize=(7.2, 4.2), layout="constrained")
    FigureCanvasAgg(figure)
    panel = figure.subplots()
    labels = [label for label in RUNS if len([key for key in found if key[0] == label]) == len(EVALUATIONS)]
    for place, label in enumerate(labels):
        colour = COLOURS[place % len(COLOURS)]
        style = "-" if place < len(COLOURS) else "--"
        regrets = [np.array([each["regret"] for each in found[label, num].values()]) for num in EVALUATIONS]
        middle = [max(float(np.median(values)), 1e-5) for values in regrets]
        panel.plot(EVALUATIONS, middle, "o" + style, color=colour, label=label, linewidth=1.8, markersize=4)
        worst = [max(float(values.max()), 1e-5) for values in regrets]
        panel.plot(EVALUATIONS, worst, style, color=colour, linewidth=0.5, alpha=0.5)
    panel.set_xscale("log")
    panel.set_yscale("log")
    panel.set_xticks(EVALUATIONS, [f"{num:,}" for num in EVALUATIONS])
    panel.set_xlabel("new subsets scored")
    panel.set_ylabel("regret: median (thick), worst (thin)")
    panel.spines[["top", "right"]].set_visible(False)
    panel.grid(color="#e1e5e9")
    figure.legend(loc="outside right upper", frameon=False, fontsize=8)
    write_atomic(path, lambda temporary: figure.savefig(temporary, dpi=130, format="png"))


def main(arguments: list[str]) -> None:
    """Run what is not in the cache, and report what is."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--problems", type=int, default=50)
    parser.add_argument("--long", type=int, default=10, help="problems with 10,000 evaluations")
    parser.add_argument("--most", type=int, default=EVALUATIONS[-1], help="evaluations; leaves longer runs out")
    parser.add_argument("--first-seed", type=int, default=0)
    parser.add_argument("--cache", type=Path, default=Path(tempfile.gettempdir()) / "optimizer-regret")
    parser.add_argument("--report", action="store_true")
    parser.add_argument("--output", type=Path, default=Path("results/optimizer-regret.md"))
    given = parser.parse_args(arguments)
    folder: Path = given.cache
    folder.mkdir(parents=True, exist_ok=True)
    if not given.report:
        check_loop(given.first_seed, folder)
        for seed, evaluations, labels in todo(given.problems, given.long, given.first_seed):
            if evaluations > given.most:
                continue
            random_median(folder, seed, may_run=True)
            for label in labels:
                cached(folder, seed, label, evaluations, may_run=True)
            problem_of.cache_clear()
            print(time.strftime("%H:%M:%S"), seed, evaluations, flush=True)
    found = collect(folder, given.problems, given.first_seed)
    lines = HEAD.split("\n")
    for evaluations in EVALUATIONS:
        num = len({seed for (_, at), of_seed in found.items() if at == evaluations for seed in of_seed})
        lines += ["", f"## {evaluations:,} evaluations, {num} problems", "", *table(found, evaluations)]
    lines += ["", *READING.split("\n")]
    seconds = sum(result["seconds"] for of_seed in found.values() for result in of_seed.values())
    lines += [
        "",
        f"`python tests/benchmarks/optimizer_regret.py --problems {given.problems} --long {given.long} "
        f"--first-seed {given.first_seed}`, {time.strftime('%Y-%m-%d')}, one of {os.cpu_count()} cores of "
        f"{platform.machine()}, shared with other work; {seconds:.0f} s of it in all runs together.",
        "",
    ]
    given.output.parent.mkdir(parents=True, exist_ok=True)
    given.output.write_text("\n".join(lines))
    draw(found, given.output.with_suffix(".png"))
    print("\n".join(lines))


HEAD = """# Regret of the optimizers at FineGPR's size

Simulated sources of 36 viewpoints x 7 weathers x 7 illuminations (1,764 cells, 50 bits), 70 % of the cells' variance in
main effects, a planted product target, mmd_rbf at rank 64; subsets of 54 to 216 cells allowed. Regret = (score - best)
/ (median of 200 random subsets - best): 0 is the best that any run in this record found on that problem (the true
optimum is not known), 1 a typical random subset. Settings were chosen on seeds 100 to 111, the record is of others.
``evaluations``: new subsets scored, fewer than allowed where an optimizer had nothing more to propose. Ask + tell: per
proposal. What takes long is run up to 2,000 evaluations only, 10,000 on fewer problems."""

READING = """## Reading (50 problems of seeds 0 to 49)

* The polish decides, not what comes before it: every optimizer followed by it is ahead of every one without from 2,000
  evaluations on, random sampling included. The polish orders neighbours and picks kicks by a model of value shares.
  On seeds 100 to 107 and at 2,000 evaluations the polish before it, by a linear model of bits and with random kicks,
  left a median regret of 0.014, this one 0.002.
* The default is the best by its median at 2,000 and level with numpy_swarm+polish at 10,000, but not the best at 500.
  DiscreteOnePlusOne is ahead there (0.016 against 0.020); it scores one subset at a time, so nothing in parallel, and
  ends where 25 proposals in a row are known. At 500 the default also has the worst single problem of all that are
  polished; with DE or the numpy swarms before the polish the mean and the worst are lower. The development seeds showed
  no difference in the mean (0.016 each), so the choice was not changed.
* (negative) Greedy by attribute, as tables of single values suggest, ends halfway between the best and a random subset.
  Attribute descent from one start is little better.
* (negative) Bare PSO stagnates: three quarters of its proposals are duplicates, and it ends after some 400 subsets."""

if __name__ == "__main__":
    main(sys.argv[1:])
