"""How many images adaptive sampling measures to choose as well as sampling every cell alike does.

Everything is measured once (or simulated); both samplers are then replayed on parts of it, and what they choose is
scored on all of it. Regret = (score - best) / (median of 200 random subsets - best), best the lowest score that a long
search of the full measurement, or anybody here, has found.

    python tests/benchmarks/adaptive_regret.py [--targets 10] [--orders 2] [--world /data/mini] [--first-seed 0]

``--world`` adds a MiniGPR world, rendered and measured in that folder first. Rounds are kept in ``--cache``, so that an
interrupted run goes on. The settings of the strategy were chosen on seeds 100 to 111, not on those reported.
"""

import argparse
import os
import platform
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from finegpr.atomic import write_atomic
from finegpr.catalog import Catalog
from finegpr.measuring.config import MeasureConfig
from finegpr.measuring.measure import cell_order, measure
from finegpr.measuring.results import Measurements
from finegpr.render.minigpr import MiniGPRConfig, render_minigpr
from finegpr.render.minimarket import MiniMarketConfig, render_minimarket
from finegpr.storage import canonical_hash, read_json, write_json
from finegpr.subset import Subset
from finegpr.weighing import Scale, Weighing
from search.adaptive.sampler import AdaptiveConfig, AdaptiveSampler, why_stop
from search.loop import search
from search.measured import Measured
from search.objectives import CellObjective, make_objective
from search.optimizers import make_optimizer
from search.simulation import TARGET, simulate
from search.space import Budget, Space

SIZES = (12, 7, 7)
PEOPLE = 20  # images of a simulated cell, one of each person
PER_CELL = (1, 2, 3, 4, 6, 8)  # images of a cell, where all cells are sampled alike
CEILING = 0.4
SMALL = 0.001  # regrets below this count as none
SCALE: Scale = "standardised"
OBJECTIVES = ("mean_distance", "mmd_linear", "mmd_rbf")
MEASURE = MeasureConfig(network="vgg19", height=64, width=32, weights="random", images_per_shard=500)


@dataclass(frozen=True, kw_only=True, eq=False)
class World:
    """A full measurement, its target, and orders in which the images of every cell may be asked for."""

    name: str
    measurements: Measurements
    space: Space
    identity: np.ndarray
    target: str
    orders: list[np.ndarray]

    def take(self, rows: np.ndarray) -> Measurements:
        """What would be known had only these rows been measured."""
        full = self.measurements
        kept = np.isin(full.row, rows)
        per_image = {name: getattr(full, name)[kept] for name in ("row", "cell", "sketch", "norms", "off_basis")}
        return replace(full, terms={name: values[kept] for name, values in full.terms.items()}, **per_image)

    def alike(self, order: np.ndarray, per_cell: int) -> np.ndarray:
        """The rows when every cell gives its first ``per_cell`` images."""
        cell = self.space.cells.of_row[order]
        return order[np.arange(len(order)) - np.searchsorted(cell, cell) < per_cell]

    def sampler(self, order: np.ndarray, objective: str, **changes: Any) -> AdaptiveSampler:
        config = AdaptiveConfig(objective=objective, **changes)
        return AdaptiveSampler(
            config, self.space, self.identity, order, target=self.target, weighing=Weighing(scale=SCALE)
        )


def simulated(seed: int, noise: float, num_orders: int, sizes: tuple[int, ...]) -> World:
    simulation = simulate(sizes, seed=seed, num_identities=PEOPLE, identities_per_cell=PEOPLE, noise=noise)
    images = round(0.08 * len(simulation.identity))
    space = Space(
        simulation.cells,
        simulation.identity,
        Budget(images=images, identities=PEOPLE - 2, least=0.08, most=0.3),
        seed=seed,
    )
    random = np.random.default_rng(1000 + seed)
    cell = simulation.cells.of_row
    orders = [np.lexsort((random.random(len(cell)), cell)) for _ in range(num_orders)]
    return World(
        name=f"noise {noise:g}, seed {seed}",
        measurements=simulation.measurements,
        space=space,
        identity=simulation.identity,
        target=TARGET,
        orders=orders,
    )


def rendered(folder: Path, num_targets: int, num_orders: int) -> Iterator[World]:
    """MiniGPR, 8,000 images of 100 people in 588 cells, against MiniMarkets of planted distributions."""
    render_minigpr(MiniGPRConfig(images_per_identity=80, viewpoints=30), folder / "source")
    source = Catalog.index(folder / "source", layout="finegpr")
    cells = source.cells(["viewpoint", "weather", "illumination"])
    targets = {}
    for number in range(num_targets):
        random = np.random.default_rng(number)
        planted = {
            attribute.name: [
                attribute.values[code]
                for code in sorted(random.permutation(np.unique(cells.codes[:, column]))[:size].tolist())
            ]
            for (column, attribute), size in zip(enumerate(cells.attributes), (6, 3, 3), strict=True)
        }
        photos = MiniMarketConfig(
            seed=number,
            distribution=planted,
            validation_identities=1,
            test_identities=1,
            num_distractors=0,
            num_junk=0,
        )
        render_minimarket(photos, folder / f"target{number}")
        targets[f"target{number}"] = Catalog.index(folder / f"target{number}", layout="market1501").part("train")
    measurements = measure(MEASURE, source, targets, folder / "measured", cells=cells)
    space = Space.of(source, Budget(images=500, identities=40, least=0.05, most=0.3), seed=0)
    orders = [cell_order(MEASURE.model_copy(update={"seed": seed}), source, cells) for seed in range(num_orders)]
    for name in targets:
        yield World(
            name=f"MiniGPR, {name}",
            measurements=measurements,
            space=space,
            identity=source.identities,
            target=name,
            orders=orders,
        )


@dataclass(frozen=True, kw_only=True, eq=False)
class Truth:
    """The full measurement: its objective, the lowest score known, and the score of a median random subset."""

    objective: CellObjective
    searched: float
    random_median: float

    def scores(self, subsets: list[Subset]) -> np.ndarray:
        return self.objective.score(subsets)


def truth_of(world: World, name: str, evaluations: int) -> Truth:
    measured = Measured(
        measurements=world.measurements,
        cells=world.space.cells,
        identity=world.identity,
        target=world.target,
        weighing=Weighing(scale=SCALE),
    )
    objective = make_objective(name, world.space, measured)
    optimizer = make_optimizer("swarm", world.space, seed=0, evaluations=evaluations)
    with tempfile.TemporaryDirectory() as folder:
        result = search(world.space, objective, optimizer, Path(folder), evaluations=evaluations, config={})
    assert result.random_median is not None
    return Truth(objective=objective, searched=result.score, random_median=result.random_median)


@dataclass(frozen=True, kw_only=True, eq=False)
class Played:
    """One target, objective and order: regrets when cells are sampled alike, and after every adaptive round."""

    alike: np.ndarray
    shares_alike: np.ndarray
    adaptive: np.ndarray
    shares: np.ndarray
    stopped: int
    why: str
    settled: int

    @classmethod
    def of(cls, record: dict[str, Any]) -> "Played":
        arrays = ("alike", "shares_alike", "adaptive", "shares")
        fields: dict[str, Any] = {name: np.array(record[name]) if name in arrays else record[name] for name in record}
        return cls(**fields)


def play(world: World, name: str, truth: Truth, order: np.ndarray) -> dict[str, Any]:
    """Both samplers on one order of the images, JSON-ready."""
    never = world.sampler(order, name, patience=10**6, tolerance=0.0, ceiling=CEILING)
    alike, sizes = [], []
    for per_cell in PER_CELL:
        rows = world.alike(order, per_cell)
        alike.append(never.decide(world.take(rows), [rows], []).subset)
        sizes.append(len(rows) / len(order))
    batches, shares = [never.first()], []
    chosen: list[Subset] = []
    stopped, why = None, ""
    while True:
        decision = never.decide(world.take(np.concatenate(batches)), batches, chosen)
        chosen.append(decision.subset)
        shares.append(sum(map(len, batches)) / len(order))
        reason = why_stop(AdaptiveConfig(objective=name), chosen, decision.expected_regret)
        if stopped is None and reason is not None:
            stopped, why = len(chosen) - 1, reason
        if decision.stopped:
            break
        batches.append(decision.rows)
    scores = truth.scores([*alike, *chosen])
    best = min(truth.searched, float(scores.min()))
    regrets = (scores - best) / (truth.random_median - best)
    return {
        "alike": regrets[: len(alike)].tolist(),
        "shares_alike": sizes,
        "adaptive": regrets[len(alike) :].tolist(),
        "shares": shares,
        "stopped": len(chosen) - 1 if stopped is None else stopped,
        "why": why or "the ceiling",
        "settled": max((at for at in range(1, len(chosen)) if chosen[at] != chosen[at - 1]), default=0),
    }


@dataclass(frozen=True, kw_only=True, eq=False)
class Series:
    """All targets of one kind and one objective; rounds are of the same sizes for all."""

    played: list[list[Played]]  # per target, per order

    @cached_property
    def alike(self) -> np.ndarray:
        """Regret per target, mean over orders, (targets, sizes)."""
        return np.stack([np.mean([each.alike for each in orders], axis=0) for orders in self.played])

    @cached_property
    def adaptive(self) -> np.ndarray:
        """The same after every round, (targets, rounds)."""
        return np.stack([np.mean([each.adaptive for each in orders], axis=0) for orders in self.played])

    @property
    def shares_alike(self) -> np.ndarray:
        return self.played[0][0].shares_alike

    @property
    def shares(self) -> np.ndarray:
        return self.played[0][0].shares

    def needed(self, place: int) -> float | None:
        """Share of images at which the median adaptive regret is first no higher than that of cells sampled alike."""
        goal = max(float(np.median(self.alike[:, place])), SMALL)
        reached = np.flatnonzero(np.median(self.adaptive, axis=0) <= goal)
        return float(self.shares[reached[0]]) if len(reached) else None

    def at(self, share: float) -> np.ndarray | None:
        """Regret per target after the last round of at most this share."""
        rounds = np.flatnonzero(self.shares <= share + 1e-9)
        return self.adaptive[:, rounds[-1]] if len(rounds) else None

    def each(self, name: str) -> list[Any]:
        return [getattr(played, name) for orders in self.played for played in orders]


def table(series: Series) -> list[str]:
    lines = [
        "| images per cell, alike | share of all | median regret | adaptive at half as many | not higher on "
        "| adaptive needs | of the images |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    for place, per_cell in enumerate(PER_CELL):
        share, regrets = float(series.shares_alike[place]), series.alike[:, place]
        half, needed = series.at(share / 2), series.needed(place)
        halves = ["-", "-"]
        if half is not None:
            better = int((half <= regrets + SMALL).sum())
            halves = [f"{np.median(half):.4f}", f"{better} of {len(regrets)}"]
        needs = ["more than half of all", "-"] if needed is None else [f"{needed:.1%}", f"{needed / share:.2f}"]
        cells = [f"{per_cell:g}", f"{share:.1%}", f"{np.median(regrets):.4f}", *halves, *needs]
        lines.append(f"| {' | '.join(cells)} |")
    stops, settled = series.each("stopped"), series.each("settled")
    at_stop = [each.adaptive[each.stopped] for orders in series.played for each in orders]
    stop_shares = series.shares[stops]
    low = [
        next((at for at in range(len(each.adaptive)) if (each.adaptive[at:] < 0.01).all()), None)
        for orders in series.played
        for each in orders
    ]
    lines += [
        "",
        f"By its own rule it ends at {np.median(stop_shares):.1%} of the images (median; {stop_shares.min():.1%} to "
        f"{stop_shares.max():.1%}), with a regret of {np.median(at_stop):.4f} (median; mean {np.mean(at_stop):.4f}, "
        f"worst {np.max(at_stop):.4f}): {reasons(series.each('why'))}. "
        f"The chosen subset changes for the last time at {np.median(series.shares[settled]):.1%} (median, of what is "
        f"measured up to {CEILING:.0%}; {series.shares[settled].min():.1%} to {series.shares[settled].max():.1%}); "
        f"{sum(at is not None for at in low)} of {len(low)} end below a regret of 0.01, for good from "
        f"{np.median([series.shares[at] for at in low if at is not None]):.1%} on (median).",
    ]
    return lines


def reasons(whys: list[str]) -> str:
    short = {
        "the subset": "the subset stood",
        "a better": "little was expected to be gained",
        "the ceilin": "the ceiling",
    }
    found = [next(text for start, text in short.items() if why.startswith(start[:10])) for why in whys]
    return ", ".join(f"{text} {found.count(text)} times" for text in dict.fromkeys(found))


def draw(kinds: dict[str, dict[str, Series]], path: Path) -> None:
    figure = Figure(figsize=(3.3 * len(OBJECTIVES), 2.6 * len(kinds)), layout="constrained")
    FigureCanvasAgg(figure)
    panels = figure.subplots(len(kinds), len(OBJECTIVES), squeeze=False, sharex=True)
    for row, (kind, by_objective) in zip(panels, kinds.items(), strict=True):
        for panel, (name, series) in zip(row, by_objective.items(), strict=True):
            for shares, regrets, colour, label in (
                (series.shares_alike, series.alike, "#1c2126", "cells alike"),
                (series.shares, series.adaptive, "#0069b4", "adaptive"),
            ):
                for target in regrets:
                    panel.plot(100 * shares, np.maximum(target, 1e-4), color=colour, linewidth=0.5, alpha=0.25)
                middle = np.maximum(np.median(regrets, axis=0), 1e-4)
                panel.plot(100 * shares, middle, "o-", color=colour, linewidth=1.8, markersize=3, label=label)
            panel.set_yscale("log")
            panel.set_title(f"{name}, {kind}", fontsize=9, loc="left")
            panel.spines[["top", "right"]].set_visible(False)
            panel.grid(color="#e1e5e9")
        row[0].set_ylabel("regret (median, targets)")
    for panel in panels[-1]:
        panel.set_xlabel("images measured (%)")
    panels[0][0].legend(frameon=False, fontsize=8)
    write_atomic(path, lambda temporary: figure.savefig(temporary, dpi=110, format="png"))


def series_of(worlds: Iterator[World], cache: Path, evaluations: int) -> dict[str, Series]:
    """Play every target, objective and order, or read what was played before."""
    played: dict[str, list[list[Played]]] = {name: [] for name in OBJECTIVES}
    for world in worlds:
        for name in OBJECTIVES:
            truth, orders = None, []
            for order in world.orders:
                inputs = [world.name, name, order.tolist(), PER_CELL, AdaptiveConfig().model_dump(mode="json")]
                path = cache / f"{canonical_hash(inputs)[:24]}.json"
                if not path.exists():
                    truth = truth or truth_of(world, name, evaluations)
                    write_json(path, play(world, name, truth, order))
                orders.append(Played.of(read_json(path)))
                print(world.name, name, np.round(orders[-1].alike, 3), np.round(orders[-1].adaptive, 3), flush=True)
            played[name].append(orders)
    return {name: Series(played=targets) for name, targets in played.items()}


def main(arguments: list[str]) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--targets", type=int, default=10)
    parser.add_argument("--orders", type=int, default=2)
    parser.add_argument("--sizes", type=int, nargs=3, default=SIZES, help="values of each attribute, simulated")
    parser.add_argument("--evaluations", type=int, default=4000, help="of the search for the best")
    parser.add_argument("--noises", type=float, nargs="+", default=[2.0, 1.0])
    parser.add_argument("--first-seed", type=int, default=0)
    parser.add_argument("--world", type=Path)
    parser.add_argument("--cache", type=Path, default=Path(tempfile.gettempdir()) / "adaptive-regret")
    parser.add_argument("--output", type=Path, default=Path("results/adaptive-regret.md"))
    given = parser.parse_args(arguments)
    started = time.monotonic()
    seeds = range(given.first_seed, given.first_seed + given.targets)
    kinds = {
        f"noise {noise:g}": series_of(
            (simulated(seed, noise, given.orders, tuple(given.sizes)) for seed in seeds), given.cache, given.evaluations
        )
        for noise in given.noises
    }
    head = HEAD.format(targets=given.targets, orders=given.orders, seeds=f"{seeds[0]} to {seeds[-1]}")
    lines = head.split("\n")
    if given.world is not None:
        worlds = rendered(given.world, given.targets, given.orders)
        kinds["MiniGPR"] = series_of(worlds, given.cache, given.evaluations)
        lines += ["", *MINIGPR.split("\n")]
    for kind, by_objective in kinds.items():
        for name, series in by_objective.items():
            lines += ["", f"## {name}, {kind}", "", *table(series)]
    command = f"--targets {given.targets} --orders {given.orders} --first-seed {given.first_seed}"
    command += f" --noises {' '.join(f'{noise:g}' for noise in given.noises)}" + (
        " --world FOLDER" if given.world else ""
    )
    lines += [
        "",
        f"`python tests/benchmarks/adaptive_regret.py {command}`, {time.strftime('%Y-%m-%d')}, one of "
        f"{os.cpu_count()} cores of {platform.machine()}, {time.monotonic() - started:.0f} s in this run (rounds "
        "played before are read from the cache).",
        "",
    ]
    given.output.parent.mkdir(parents=True, exist_ok=True)
    given.output.write_text("\n".join(lines))
    draw(kinds, given.output.with_suffix(".png"))
    print("\n".join(lines))


HEAD = """# Images that adaptive sampling needs

Everything is measured once; both samplers are replayed on parts of it, and what they choose is scored on all of it.
Regret = (score - best) / (median of 200 random subsets - best). {targets} targets of each kind, {orders} orders of the
images each (mean), seeds {seeds}; the settings of the strategy were chosen on other seeds. Simulated: 588 cells
(12 x 7 x 7), 20 images a cell, 70 % of the cells' variance additive; noise is the standard deviation of an image about
its cell's mean, 1 that of the cells.

A line of a table: cells sampled alike with so many images each, their regret, the regret of adaptive sampling at half
as many images, on how many targets that is no higher (by more than 0.001), and what share of the images adaptive
sampling needs until its median regret is for the first time no higher (at least 0.001)."""

MINIGPR = """MiniGPR: 8,000 rendered images of 100 people in 588 cells, random VGG-19 weights, 64x32, rendered targets
of other people."""

if __name__ == "__main__":
    main(sys.argv[1:])
