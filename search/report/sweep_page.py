"""One offline HTML page of a sweep: where searches gain, what they agree on, score against images, what failed."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from plotly.offline import get_plotlyjs

from finegpr.atomic import write_bytes
from finegpr.mixture import choice_from_json
from finegpr.storage import canonical_hash
from finegpr.subset import Subset
from search.analysis.words import MINUS, NONE, counted, duration, number, percent
from search.objectives import OBJECTIVES
from search.report.figures import sweep as sweep_figures
from search.report.figures.base import Figure
from search.report.figures.sweep import value_label
from search.report.templates import templates
from search.report.text import Tile
from search.space import Budget
from search.sweep import AXES, Ground, SweepConfig

if TYPE_CHECKING:
    import pandas as pd

TEMPLATE = "sweep_report.j2"
ALWAYS, NEVER = 0.95, 0.05
NUM_GAINS, MAX_GAINS = 4, 24
MAX_ERRORS = 30


@dataclass(frozen=True, kw_only=True)
class Cost:
    """What a sweep took: ``seconds`` of the processor for so many searches of a grid, in chunks of ``chunk``."""

    seconds: float
    num_searches: int
    num_of_grid: int
    chunk: int


@dataclass(frozen=True, kw_only=True)
class Stability:
    """How far the searches by one objective for one target agree: the values that nearly all, or hardly any, chose."""

    target: str
    objective: str
    num_searches: int
    always: tuple[str, ...]
    num_never: int
    num_undecided: int


@dataclass(frozen=True, kw_only=True)
class Failure:
    """One reason why searches failed, whatever its numbers: the words and settings of the first, and how many."""

    error: str
    num: int
    example: str


def write_sweep_report(frame: "pd.DataFrame", path: Path, *, config: SweepConfig, ground: Ground, cost: Cost) -> None:
    """Atomically write the page. ``frame`` is what ``read_sweep`` gave."""
    write_bytes(path, render(frame, config=config, ground=ground, cost=cost).encode())


def render(frame: "pd.DataFrame", *, config: SweepConfig, ground: Ground, cost: Cost) -> str:
    """The page as text; scatter plots and long lists are thinned."""
    environment = templates()
    environment.filters.update(percent=percent, counted=counted, duration=duration, number=number)
    axes = {field: [value_label(value) for value in getattr(config, name)] for field, name in AXES.items()}
    varied = [name for name, values in axes.items() if len(values) > 1]
    labelled = _labelled(frame)
    shares = chosen_shares(frame, config, ground)
    pairs = sweep_figures.pairs(axes)
    gains = [
        figure
        for number, (first, second) in enumerate(pairs[:MAX_GAINS])
        if (figure := sweep_figures.gains(labelled, first, second, axes, key=f"gain/{number}")) is not None
    ]
    stable = [
        sweep_figures.stability(
            {objective: of[attribute] for objective, of in by_objective.items()},
            values,
            key=f"stable/{target}/{attribute}",
            attribute=attribute,
            target=target,
        )
        for target, by_objective in shares.items()
        for attribute, values in _values(config, ground).items()
    ]
    fronts = sweep_figures.fronts(frame)
    drawn = {figure.key: figure for figure in (*gains, *stable, *fronts)}
    return environment.get_template(TEMPLATE).render(
        headline=_headline(frame),
        lead=_lead(frame, cost),
        tiles=_tiles(frame, cost),
        axes={name.replace("_", " "): values for name, values in axes.items()},
        best=_best(frame),
        stabilities=_stabilities(frame, shares, _values(config, ground)),
        failures=_failures(labelled[frame["error"].notna()], varied),
        num_failed=int(frame["error"].notna().sum()),
        figures=drawn,
        specs={key: figure.spec for key, figure in drawn.items()},
        gains=[figure.key for figure in gains[:NUM_GAINS]],
        more_gains=[figure.key for figure in gains[NUM_GAINS:]],
        stable=_by_target(stable),
        fronts=[figure.key for figure in fronts],
        cost=cost,
        config=config,
        max_errors=MAX_ERRORS,
        max_fronts=sweep_figures.MAX_FRONTS,
        num_pairs=len(pairs),
        always=ALWAYS,
        never=NEVER,
        nonce=canonical_hash(config.model_dump(mode="json"))[:32],
        plotly=get_plotlyjs(),
    )


def chosen_shares(
    frame: "pd.DataFrame", config: SweepConfig, ground: Ground
) -> dict[str, dict[str, dict[str, list[float]]]]:
    """Target -> objective -> attribute -> share of the searches that chose each value; those without a result left out.

    A value that a mixture gives any weight is chosen.
    """
    values = _values(config, ground)
    found: dict[str, dict[str, dict[str, list[float]]]] = {}
    whole = frame[frame["subset"].notna()]
    for target, objective in product(config.targets, config.objectives):
        keys = whole.loc[(whole["target"] == target) & (whole["objective"] == objective), "subset"]
        if keys.empty:
            continue
        counts = keys.value_counts()
        subsets: list[Subset] = [choice_from_json(key) for key in counts.index]
        of = {
            attribute: [
                float(np.dot([value in subset.values[attribute] for subset in subsets], counts)) / len(keys)
                for value in names
            ]
            for attribute, names in values.items()
        }
        found.setdefault(target, {})[objective] = of
    return found


def _values(config: SweepConfig, ground: Ground) -> dict[str, tuple[str, ...]]:
    """The searched attributes and their values that occur."""
    space = ground.space(Budget(images=1), config.space, seed=0)
    return {attribute.name: values for attribute, values in zip(space.attributes, space.values, strict=True)}


def _labelled(frame: "pd.DataFrame") -> "pd.DataFrame":
    """A column of text for every axis, and the gain."""
    columns = {
        name: [value_label(value) for value in frame[name].astype(object).where(frame[name].notna(), None)]
        for name in AXES
        if name != "bounds"
    }
    bounds = [value_label(pair) for pair in zip(frame["least"].tolist(), frame["most"].tolist(), strict=True)]
    return frame[["gain", "error"]].assign(**columns, bounds=bounds)


def _gain(gain: float) -> str:
    """A gain, which may be far below 0, in per cent."""
    return f"{100 * gain:.1f} %".replace("-", MINUS)


def _headline(frame: "pd.DataFrame") -> str:
    names = (("objective", "objective"), ("target", "target"), ("optimizer", "optimizer"))
    counts = ", ".join(counted(int(frame[column].nunique()), word) for column, word in names)
    return f"{counted(len(frame), 'search') if len(frame) == 1 else f'{len(frame):,} searches'}: {counts}"


def _lead(frame: "pd.DataFrame", cost: Cost) -> str:
    gain = frame["gain"].dropna()
    sampled = "" if cost.num_searches == cost.num_of_grid else f", a sample of the grid's {cost.num_of_grid:,} points"
    if gain.empty:
        return f"Every point is one whole search{sampled}; none of them got a score that can be compared with random."
    better = percent(float((gain > 0).mean()))
    return (
        f"Every point is one whole search{sampled}. {better} of those with a score found a subset that is better than "
        f"the median random subset of the same budget; the median gain is {_gain(float(gain.median()))}."
    )


def _tiles(frame: "pd.DataFrame", cost: Cost) -> list[Tile]:
    failed = int(frame["error"].notna().sum())
    scored = frame["num_evaluations"].dropna()
    each = f"{scored.mean():,.0f} a search" if len(scored) else "no search got a score"
    return [
        Tile(question="Searches", answer=f"{len(frame):,}", detail=f"{failed:,} failed"),
        _gain_tile(frame),
        Tile(question="Subsets scored", answer=f"{int(scored.sum()):,}", detail=each),
        Tile(
            question="Processor time",
            answer=duration(cost.seconds),
            detail=f"{1000 * cost.seconds / max(len(frame), 1):,.0f} ms a search",
        ),
    ]


def _gain_tile(frame: "pd.DataFrame") -> Tile:
    """A gain is a share of the objective's own score, which may be a distance or a square of one: none is ranked."""
    gain = frame.dropna(subset=["gain"])
    if gain.empty:
        return Tile(question="Better than random", answer=NONE, detail="no search got a score")
    medians = gain.groupby("objective", sort=True)["gain"].median()
    told = [f"{name} {_gain(float(median))} of {unit_of(str(name))}" for name, median in medians.items()]
    return Tile(
        question="Better than random",
        answer=percent(float((gain["gain"] > 0).mean())),
        detail=f"of the searches; median gain: {', '.join(told)}",
        clear=bool((medians > 0).all()),
    )


def unit_of(objective: str) -> str:
    """What an objective's score is."""
    return OBJECTIVES[objective].unit if objective in OBJECTIVES else "its score"


def _best(frame: "pd.DataFrame") -> list[dict[str, str]]:
    """Median and quartiles of the gain of each optimizer, by objective, of each the best first."""
    rows = []
    for (objective, optimizer), gain in frame.dropna(subset=["gain"]).groupby(["objective", "optimizer"])["gain"]:
        low, middle, high = (float(value) for value in gain.quantile([0.25, 0.5, 0.75]))
        row = {"objective": str(objective), "unit": unit_of(str(objective)), "optimizer": str(optimizer)}
        row |= {"num": f"{len(gain):,}", "median": _gain(middle), "low": _gain(low), "high": _gain(high)}
        rows.append((str(objective), -middle, row))
    return [row for *_, row in sorted(rows, key=lambda each: each[:2])]


def _stabilities(
    frame: "pd.DataFrame",
    shares: Mapping[str, Mapping[str, Mapping[str, Sequence[float]]]],
    values: Mapping[str, Sequence[str]],
) -> list[Stability]:
    found = []
    for target, by_objective in shares.items():
        for objective, of in by_objective.items():
            each = [
                (value, share) for name, names in values.items() for value, share in zip(names, of[name], strict=True)
            ]
            inside = tuple(value for value, share in each if share >= ALWAYS)
            outside = sum(share <= NEVER for _, share in each)
            searches = frame[(frame["target"] == target) & (frame["objective"] == objective)]
            found.append(
                Stability(
                    target=target,
                    objective=objective,
                    num_searches=int(searches["subset"].notna().sum()),
                    always=inside,
                    num_never=outside,
                    num_undecided=len(each) - len(inside) - outside,
                )
            )
    return found


def _failures(failed: "pd.DataFrame", varied: Sequence[str]) -> list[Failure]:
    found = []
    kinds = failed["error"].str.replace(r"\d+", "0", regex=True)
    for _, part in failed.groupby(kinds, sort=False):
        first = part.iloc[0]
        example = ", ".join(f"{name.replace('_', ' ')} {first[name]}" for name in varied)
        found.append(Failure(error=str(first["error"]), num=len(part), example=example))
    return sorted(found, key=lambda failure: -failure.num)


def _by_target(figures: Sequence[Figure]) -> dict[str, list[str]]:
    grouped: dict[str, list[str]] = {}
    for figure in figures:
        grouped.setdefault(figure.key.split("/", 1)[1].rpartition("/")[0], []).append(figure.key)
    return grouped
