"""What every figure of a report is made of: colours, axes, layout, and how long series are thinned.

A figure is a plain Plotly specification; its colours are CSS variables that the page fills in. Text goes through
``label``: Plotly reads a subset of HTML in every string it draws.
"""

import html
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any

import numpy as np

MAX_POINTS = 1_500
ROW_PIXELS = 24
INK, MUTED, LINE = "var(--ink)", "var(--muted)", "var(--line)"
ACCENT, REST = "var(--accent)", "var(--rest)"


@dataclass(frozen=True, kw_only=True)
class Figure:
    """One figure: its key in the page, what it shows in words, its height and its Plotly specification."""

    key: str
    title: str
    height: int
    spec: Mapping[str, Any]


def label(text: str) -> str:
    """Text that Plotly draws as it is, whatever markup it holds."""
    return html.escape(text, quote=False)


def thinned(count: int, limit: int = MAX_POINTS) -> list[int]:
    """At most ``limit`` evenly spread positions out of ``count``, first and last among them."""
    return [int(at) for at in np.unique(np.linspace(0, count - 1, min(count, limit)).round())] if count else []


def best_so_far(history: Sequence[float | None], *, higher_is_better: bool) -> list[float | None]:
    """The best score up to each evaluation; None until the first that did not fail."""

    def better(best: float | None, score: float | None) -> float | None:
        if best is None or score is None:
            return score if best is None else best
        return max(best, score) if higher_is_better else min(best, score)

    return list(accumulate(history, better))


def axis(title: str = "", **options: Any) -> dict[str, Any]:
    """A Plotly axis in the page's colours that cannot be zoomed by accident."""
    return {
        "title": {"text": title, "standoff": 8, "font": {"size": 12}} if title else {},
        "gridcolor": LINE,
        "zerolinecolor": LINE,
        "linecolor": LINE,
        "tickfont": {"size": 12},
        "automargin": True,
        "fixedrange": True,
        **options,
    }


def layout(**options: Any) -> dict[str, Any]:
    """A transparent Plotly layout in the page's colours and font."""
    return {
        "paper_bgcolor": "rgba(0,0,0,0)",
        "plot_bgcolor": "rgba(0,0,0,0)",
        "font": {"family": "system-ui, -apple-system, 'Segoe UI', Roboto, sans-serif", "size": 12, "color": MUTED},
        "margin": {"l": 8, "r": 12, "t": 8, "b": 8},
        "showlegend": False,
        "dragmode": False,
        "hoverlabel": {"bgcolor": "var(--card)", "bordercolor": LINE, "font": {"color": INK}},
        **options,
    }


def rows(names: Sequence[str]) -> dict[str, Any]:
    """A vertical axis with one row per name, the first on top; the names are labels already."""
    return axis(
        type="category",
        categoryorder="array",
        categoryarray=list(names)[::-1],
        range=[-0.6, len(names) - 0.4],
        showgrid=False,
        tickfont={"size": 13, "color": INK},
        ticks="",
    )
