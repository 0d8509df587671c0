"""Figures as PNG, for pages that cannot run a report: a comparison and its search, importances, distances per value.

The only module that imports Matplotlib.
"""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from finegpr.arrays import Floats
from finegpr.atomic import write_atomic
from finegpr.errors import InputError
from search.analysis.compare import ArmSummary
from search.analysis.records import Choice, Spread
from search.report.data import ReportData
from search.report.figures.base import best_so_far, thinned
from search.report.figures.explain import chosen_values

ACCENT, INK, REST, LINE = "#0069b4", "#1c2126", "#b9c1c9", "#e1e5e9"
HEADING = 3  # rows of a panel without a value: its title and its axis
MARKS = (("o", "none"), ("D", INK))


def write_arms_png(data: ReportData, path: Path) -> None:
    """Atomically write the first metric of every arm on the main target, and the main choice's search, side by side.

    Without results only the search is drawn. Raises WriteError when the file cannot be written, InputError for a report
    with neither.
    """
    metrics = [summary.metric for summary in data.results if summary.target == data.target.title]
    summaries = [each for each in data.results if each.target == data.target.title and each.metric == metrics[0]]
    if not summaries and not data.main_choice.history:
        raise InputError("this run has neither trained arms nor a search to draw; run it again")
    figure = Figure(figsize=(10.0 if summaries else 5.5, 3.6), layout="constrained")
    panels = figure.subplots(1, 2 if summaries else 1, squeeze=False)[0]
    if summaries:
        _draw_arms(panels[0], summaries, data)
    _draw_history(panels[-1], data.main_choice)
    _write(figure, path)


def write_importance_png(data: ReportData, path: Path) -> None:
    """Atomically write the importance of each attribute for the distance: the whole as bars, its parts as marks.

    Raises WriteError when the file cannot be written, InputError for a report without importances.
    """
    if not data.importances:
        raise InputError("this run has no importances to draw; run it again with a surrogate")
    of = {(each.quantity, each.attribute): each.importance for each in data.importances}
    whole, *parts = dict.fromkeys(each.quantity for each in data.importances)
    names = sorted(dict.fromkeys(each.attribute for each in data.importances), key=lambda name: of[whole, name])
    relative = data.importances[0].relative
    factor = 100 if relative else 1
    figure = Figure(figsize=(6.5, 1.6 + 0.45 * len(names)), layout="constrained")
    panel = figure.subplots()
    panel.barh(range(len(names)), [factor * of[whole, name] for name in names], 0.55, color=ACCENT, label=whole)
    for part, (marker, fill) in zip(parts, MARKS, strict=False):
        values = [factor * of[part, name] for name in names]
        panel.plot(values, range(len(names)), marker, color=INK, markerfacecolor=fill, label=_literal(part), zorder=3)
    panel.set_yticks(range(len(names)), [_literal(name) for name in names])
    panel.set_xlabel(f"mean |SHAP| of the surrogate ({'% of the distance' if relative else 'distance'})")
    panel.set_title(f"{_literal(data.source.title)} to {_literal(data.target.title)}", loc="left", fontsize=10)
    figure.legend(loc="outside lower center", ncols=3, frameon=False, fontsize=8)
    panel.grid(axis="x", color=LINE)
    panel.set_axisbelow(True)
    _write(figure, path)


def write_distances_png(data: ReportData, path: Path) -> None:
    """Atomically write the distances to the target per value, a panel for each searched attribute.

    Raises WriteError when the file cannot be written, InputError for a report without distances.
    """
    searched = [attribute.name for attribute in data.main_choice.attributes]
    shown = {name: [each for each in data.spreads if each.attribute == name] for name in searched}
    shown = {name: spreads for name, spreads in shown.items() if spreads}
    if not shown:
        raise InputError("this run has no distances per value to draw; run it again")
    chosen = chosen_values(data.main_choice.attributes)
    columns: tuple[list[str], ...] = ([], []) if len(shown) > 1 else ([],)
    heights = {name: len(spreads) + HEADING for name, spreads in shown.items()}
    for name in shown:
        min(columns, key=lambda column: sum(heights[each] for each in column)).append(name)
    tallest = max(sum(heights[name] for name in column) for column in columns)
    figure = Figure(figsize=(4.5 * len(columns), 0.6 + 0.23 * tallest), layout="constrained")
    low, high = (extreme(each.percentiles[end] for each in data.spreads) for extreme, end in ((min, 0), (max, -1)))
    for part, column in zip(figure.subfigures(1, len(columns), squeeze=False)[0], columns, strict=True):
        ratios = [heights[name] for name in column]
        panels = part.subplots(len(column), 1, squeeze=False, height_ratios=ratios)[:, 0]
        for panel, name in zip(panels, column, strict=True):
            _draw_boxes(panel, shown[name], [(name, spread.value) in chosen for spread in shown[name]])
            panel.set_title(_literal(name), loc="left", fontsize=10)
            panel.set_xlim(low - 0.03 * (high - low), high + 0.03 * (high - low))
    figure.supxlabel(
        f"D_total to {_literal(data.target.title)}: median, middle half, 5 to 95 %; chosen values in colour", fontsize=9
    )
    _write(figure, path)


PNGS: Mapping[str, Callable[[ReportData, Path], None]] = {
    "arms.png": write_arms_png,
    "importance.png": write_importance_png,
    "distances-per-value.png": write_distances_png,
}


def _draw_boxes(panel: Axes, spreads: Sequence[Spread], inside: Sequence[bool]) -> None:
    places = range(len(spreads))[::-1]
    low, lower, middle, upper, high = np.array([spread.percentiles for spread in spreads]).T
    colours = [ACCENT if is_in else REST for is_in in inside]
    panel.hlines(places, low, high, color=INK, linewidth=1)
    panel.barh(places, upper - lower, 0.6, left=lower, color=colours, edgecolor=INK, linewidth=0.8, zorder=2)
    panel.plot(middle, places, "|", color=INK, markersize=9, markeredgewidth=1.6, zorder=3)
    panel.set_ylim(-0.6, len(spreads) - 0.4)
    panel.set_yticks(places, [_literal(spread.value) for spread in spreads])
    panel.grid(axis="x", color=LINE)
    panel.set_axisbelow(True)


def _write(figure: Figure, path: Path) -> None:
    FigureCanvasAgg(figure)
    for panel in figure.axes:
        panel.spines[["top", "right"]].set_visible(False)
        panel.spines[["left", "bottom"]].set_color(LINE)
        panel.tick_params(color=LINE)
    write_atomic(path, lambda temporary: figure.savefig(temporary, dpi=160, format="png"))


def _draw_arms(panel: Axes, summaries: list[ArmSummary], data: ReportData) -> None:
    for row, summary in enumerate(reversed(summaries)):
        colour = ACCENT if summary.arm == data.main_choice.arm else INK
        panel.plot(
            [100 * value for value in summary.values],
            [row] * len(summary.values),
            "o",
            markerfacecolor="none",
            markeredgecolor="#5b6570",
            markersize=5,
        )
        if summary.mean is None:
            continue
        panel.plot(100 * summary.mean.mean, row, "o", color=colour, markersize=7)
        if summary.mean.low is not None and summary.mean.high is not None:
            panel.hlines(row, 100 * summary.mean.low, 100 * summary.mean.high, color=colour, linewidth=1.8)
    panel.set_yticks(range(len(summaries)), [_literal(summary.arm) for summary in reversed(summaries)])
    panel.set_xlabel(f"{summaries[0].metric} on {_literal(data.target.title)} (%)")
    panel.set_ylim(-0.6, len(summaries) - 0.4)
    panel.set_title("Mean, interval, single seeds", loc="left", fontsize=10)
    panel.grid(axis="x", color=LINE)
    panel.set_axisbelow(True)


def _draw_history(panel: Axes, choice: Choice) -> None:
    at = thinned(len(choice.history))
    trials = [position + 1 for position in at]
    panel.plot(trials, _gaps(choice.history)[at], ".", color=REST, markersize=3, label="each trial")
    for scores, colour, style, name in (
        (choice.history, ACCENT, "-", "best so far"),
        (choice.random_history, INK, ":", "random search"),
    ):
        if scores:
            best = best_so_far(scores, higher_is_better=choice.higher_is_better)
            panel.step(range(1, len(best) + 1), _gaps(best), style, where="post", color=colour, label=name)
    direction = "higher" if choice.higher_is_better else "lower"
    panel.set_xlabel("trial")
    panel.set_ylabel(f"{_literal(choice.objective)} ({direction} is better)")
    panel.set_title(f"Search by {_literal(choice.optimizer)}", loc="left", fontsize=10)
    panel.legend(frameon=False, fontsize=8)


def _gaps(scores: Sequence[float | None]) -> Floats:
    """Scores with NaN, where Matplotlib leaves a gap, for None."""
    return np.array([np.nan if score is None else score for score in scores])


def _literal(text: str) -> str:
    """Text in which Matplotlib finds no mathematics."""
    return text.replace("$", r"\$")
