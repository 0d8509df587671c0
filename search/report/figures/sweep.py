"""The figures of a sweep: gain over random by any two axes, how often each value was chosen, score against images."""

from collections.abc import Mapping, Sequence
from itertools import combinations
from typing import TYPE_CHECKING, Any

import numpy as np

from search.analysis.pareto import non_dominated
from search.objectives import OBJECTIVES
from search.report.figures.base import ACCENT, INK, MUTED, REST, ROW_PIXELS, Figure, axis, label, layout, rows, thinned

if TYPE_CHECKING:
    import pandas as pd

MAX_LABELLED_COLUMNS = 10
MAX_LETTERS_ACROSS = 26  # in a figure as wide as a phone
MAX_FRONTS = 12
WEIGHING = ("target", "objective", "scale", "alpha", "beta", "layer_weights")
"""Searches that agree in these have scores in the same unit and can be compared."""


def pairs(axes: Mapping[str, Sequence[str]]) -> list[tuple[str, str]]:
    """Every two axes that vary, those with the objective and then those with the budget first."""
    order = ("objective", "images", "identities", "bounds", "target", "optimizer")
    varied = sorted(
        (name for name, values in axes.items() if len(values) > 1),
        key=lambda name: order.index(name) if name in order else len(order),
    )
    if len(varied) == 1:
        return [(varied[0], next(name for name in axes if name != varied[0]))]
    return list(combinations(varied, 2))


def gains(
    labelled: "pd.DataFrame", first: str, second: str, axes: Mapping[str, Sequence[str]], *, key: str
) -> Figure | None:
    """Median gain in per cent by two axes, over all other axes; the longer one down. None when every search failed."""
    down, across = (first, second) if len(axes[first]) >= len(axes[second]) else (second, first)
    medians = labelled.groupby([down, across], observed=True)["gain"].median().unstack()
    medians = 100 * medians.reindex(index=list(axes[down]), columns=list(axes[across]))
    if medians.isna().all(axis=None):
        return None
    return _heat(
        medians.to_numpy(dtype=np.float64),
        [label(_named(down, value)) for value in axes[down]],
        [label(_named(across, value)) for value in axes[across]],
        key=key,
        title=f"Gain over random (%), by {_words(down)} and {_words(across)}",
        titles=(_words(down), _words(across)),
        unit="%",
        low=min(0.0, float(np.nanmin(medians.to_numpy()))),
        high=max(float(np.nanmax(medians.to_numpy())), 1.0),
    )


def _named(axis_name: str, value: str) -> str:
    """A setting; an objective with what its score is, because gains of two kinds of score cannot be compared."""
    unit = OBJECTIVES[value].unit if axis_name == "objective" and value in OBJECTIVES else ""
    return f"{value} ({unit})" if unit else value


def stability(
    shares: Mapping[str, Sequence[float]], values: Sequence[str], *, key: str, attribute: str, target: str
) -> Figure:
    """Share of the searches that chose each value of an attribute, by objective, in per cent."""
    table = 100 * np.array([shares[objective] for objective in shares], dtype=np.float64).T
    return _heat(
        table,
        [label(value) for value in values],
        [label(objective) for objective in shares],
        key=key,
        title=f"{attribute}, {target}: searches that chose the value (%)",
        titles=("", ""),
        unit="%",
        low=0.0,
        high=100.0,
    )


def fronts(frame: "pd.DataFrame") -> list[Figure]:
    """Score against the subset's images, for each target and objective: all searches, and those that none beats."""
    found = []
    whole = frame[frame["score"].notna()]
    varied = [name for name in WEIGHING[2:] if whole[name].nunique() > 1]
    for number, (of, part) in enumerate(whole.groupby(list(WEIGHING), sort=False)):
        if number == MAX_FRONTS:
            break
        named = dict(zip(WEIGHING, of, strict=True))
        settings = [f"{_words(name)} {value_label(named[name])}" for name in varied]
        title = ", ".join([str(named["objective"]), str(named["target"]), *settings])
        found.append(_front(part, key=f"front/{number}", title=title, objective=str(named["objective"])))
    return found


def _front(part: "pd.DataFrame", *, key: str, title: str, objective: str) -> Figure:
    higher_is_better = OBJECTIVES[objective].higher_is_better
    direction = "higher" if higher_is_better else "lower"
    losses = -part["score"] if higher_is_better else part["score"]
    best = part[non_dominated(np.stack([part["num_images"], losses], axis=1).astype(np.float64))].sort_values(
        "num_images"
    )
    dots = part.iloc[thinned(len(part))]
    hover = "%{x:,} images<br>score %{y:.4g}<br>%{text}<extra></extra>"
    data: list[dict[str, Any]] = [
        {
            "type": "scatter",
            "mode": "markers",
            "x": dots["num_images"].tolist(),
            "y": dots["score"].tolist(),
            "text": [f"{label(name)}, seed {seed}" for name, seed in zip(dots["optimizer"], dots["seed"], strict=True)],
            "hovertemplate": hover,
            "marker": {"size": 5, "color": REST},
        },
        {
            "type": "scatter",
            "mode": "lines+markers",
            "x": best["num_images"].tolist(),
            "y": best["score"].tolist(),
            "text": [f"{label(name)}, seed {seed}" for name, seed in zip(best["optimizer"], best["seed"], strict=True)],
            "hovertemplate": hover,
            "line": {"color": ACCENT, "width": 2, "shape": "hv"},
            "marker": {"size": 9, "color": ACCENT},
        },
    ]
    return Figure(
        key=key,
        title=title,
        height=300,
        spec={
            "data": data,
            "layout": layout(
                xaxis=axis("images in the subset", zeroline=False, nticks=5),
                yaxis=axis(
                    f"{label(objective)} ({direction} is better)",
                    zeroline=False,
                    nticks=5,
                ),
            ),
        },
    )


def _heat(
    table: np.ndarray,
    down: Sequence[str],
    across: Sequence[str],
    *,
    key: str,
    title: str,
    titles: tuple[str, str],
    unit: str,
    low: float,
    high: float,
) -> Figure:
    # Plotly writes the texts of a heat map in the order of the data, whatever that of the axis.
    known = [[None if np.isnan(value) else round(float(value), 2) for value in row] for row in table[::-1]]
    has_text = len(across) <= MAX_LABELLED_COLUMNS
    is_crowded = len(across) * max(map(len, across)) > MAX_LETTERS_ACROSS
    trace: dict[str, Any] = {
        "type": "heatmap",
        "z": known,
        "x": list(across),
        "y": list(down)[::-1],
        "zmin": low,
        "zmax": high,
        "colorscale": [[0, "var(--card)"], [1, ACCENT]],
        "showscale": False,
        "xgap": 2,
        "ygap": 2,
        "hovertemplate": f"%{{y}}<br>%{{x}}<br>%{{z:.1f}} {unit}<extra></extra>",
    }
    if has_text:
        trace |= {"texttemplate": "%{z:.0f}", "textfont": {"size": 12}}
    vertical = rows(down) | {"title": axis(titles[0])["title"] if titles[0] else {}}
    horizontal = axis(titles[1], type="category", side="top", showgrid=False, tickangle=-40 if is_crowded else 0)
    return Figure(
        key=key,
        title=title,
        height=96 + (6 * max(map(len, across)) if is_crowded else 0) + ROW_PIXELS * len(down),
        spec={
            "data": [trace],
            "layout": layout(
                xaxis=horizontal | {"tickfont": {"size": 12, "color": INK}},
                yaxis=vertical,
                font={**layout()["font"], "color": MUTED},
            ),
        },
    )


def value_label(value: object) -> str:
    """A value of an axis as text."""
    if value is None:
        return "all"
    if isinstance(value, tuple):
        return (" to " if len(value) == 2 else " ").join(f"{each:g}" for each in value)
    if isinstance(value, float):
        return f"{value:g}"
    return f"{value:,}" if isinstance(value, int) else str(value)


def _words(name: str) -> str:
    return name.replace("_", " ")
