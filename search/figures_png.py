"""The figure of a comparison as one PNG, for pages that cannot run a report: results records and README."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from numpy.typing import NDArray

from finegpr.storage import write_atomic
from search.compare import ArmSummary
from search.figures import best_so_far, thinned
from search.report_data import Choice, ReportData

ACCENT, INK, REST, LINE = "#0069b4", "#1c2126", "#b9c1c9", "#e1e5e9"


def write_png(data: ReportData, path: Path) -> None:
    """Atomically write the first metric of every arm on the main target, and the main choice's search, side by side.

    Without results only the search is drawn. Raises WriteError when the file cannot be written.
    """
    metrics = [summary.metric for summary in data.results if summary.target == data.target.title]
    summaries = [each for each in data.results if each.target == data.target.title and each.metric == metrics[0]]
    figure = Figure(figsize=(10.0 if summaries else 5.5, 3.6), layout="constrained")
    FigureCanvasAgg(figure)
    panels = figure.subplots(1, 2 if summaries else 1, squeeze=False)[0]
    if summaries:
        _draw_arms(panels[0], summaries, data)
    _draw_history(panels[-1], data.main_choice)
    for panel in panels:
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
    if choice.known_best is not None:
        panel.axhline(choice.known_best, linestyle="--", color="#5b6570", linewidth=1, label="known best")
    direction = "higher" if choice.higher_is_better else "lower"
    panel.set_xlabel("trial")
    panel.set_ylabel(f"{_literal(choice.objective)} ({direction} is better)")
    panel.set_title(f"Search by {_literal(choice.optimizer)}", loc="left", fontsize=10)
    panel.legend(frameon=False, fontsize=8)


def _gaps(scores: Sequence[float | None]) -> NDArray[np.float64]:
    """Scores with NaN, where Matplotlib leaves a gap, for None."""
    return np.array([np.nan if score is None else score for score in scores])


def _literal(text: str) -> str:
    """Text in which Matplotlib finds no mathematics."""
    return text.replace("$", r"\$")
