"""The figures of a search, by the names that Optuna gives them: EDF, slice, best subsets side by side, rounds."""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from search.report.data import ReportData
from search.report.figures.base import ACCENT, INK, LINE, REST, Figure, axis, label, layout, rows, thinned
from search.report.figures.explain import BOX_PIXELS, box, chosen_values


def distribution(data: ReportData) -> Iterator[Figure]:
    """Empirical distribution of the scores of all trials and of random subsets (Optuna's EDF), thinned."""
    choice = data.main_choice
    traces = [
        _steps([score for score in scores if score is not None], name, colour, dash)
        for scores, name, colour, dash in (
            (choice.history, "the search", ACCENT, "solid"),
            (choice.random_history, "random subsets", INK, "dot"),
        )
        if any(score is not None for score in scores)
    ]
    if not traces:
        return
    direction = "right" if choice.higher_is_better else "left"
    yield Figure(
        key="distribution",
        title=f"{choice.objective}: share of trials up to each score (better is {direction})",
        height=280,
        spec={
            "data": traces,
            "layout": layout(
                xaxis=axis(label(choice.objective), zeroline=False, nticks=6),
                yaxis=axis("trials (%)", range=[0, 101], zeroline=False),
            ),
        },
    )


def _steps(scores: Sequence[float], name: str, colour: str, dash: str) -> dict[str, Any]:
    ordered = np.sort(scores)
    at = thinned(len(ordered))
    return {
        "type": "scatter",
        "mode": "lines",
        "name": name,
        "x": ordered[at].tolist(),
        "y": [100 * (place + 1) / len(ordered) for place in at],
        "line": {"color": colour, "width": 2, "dash": dash, "shape": "hv"},
        "hovertemplate": f"%{{y:.0f}} % up to %{{x:.4g}}<extra>{name}</extra>",
    }


def front(data: ReportData) -> Iterator[Figure]:
    """Scores of the Pareto front against the images of its subsets (Optuna's Pareto front); none of a single subset."""
    found, choice = data.front, data.main_choice
    if len(found) < 2:
        return
    images = [each.num_images for each in found]
    traces = [
        {
            "type": "scatter",
            "mode": "lines+markers",
            "name": "front",
            "x": images,
            "y": [each.score for each in found],
            "text": [each.words for each in found],
            "line": {"color": ACCENT, "width": 2, "shape": "hv"},
            "marker": {"color": ACCENT, "size": 6},
            "hovertemplate": "%{x:,} images, %{y:.4g}<br>%{text}<extra></extra>",
        },
        {
            "type": "scatter",
            "mode": "markers",
            "name": "the choice",
            "x": [choice.num_images],
            "y": [choice.score],
            "marker": {"color": INK, "size": 11, "symbol": "diamond"},
            "hovertemplate": "the choice: %{x:,} images, %{y:.4g}<extra></extra>",
        },
    ]
    yield Figure(
        key="front",
        title=f"{choice.objective}: score of the best subset of so many images",
        height=280,
        spec={
            "data": traces,
            "layout": layout(
                xaxis=axis("images in the subset", zeroline=False, nticks=6),
                yaxis=axis(label(choice.objective), zeroline=False, nticks=6),
            ),
        },
    )


def slices(data: ReportData) -> Iterator[Figure]:
    """Scores of all trials with each value in, and with it out (Optuna's slice)."""
    found, objective = data.slices, data.main
    if not found:
        return
    names = [f"{each.attribute} {each.value}" for each in found]
    traces = []
    for part, name, colour in (("outside", "out", REST), ("inside", "in", ACCENT)):  # the last one is drawn on top
        known = [(label(place), getattr(each, part)) for place, each in zip(names, found, strict=True)]
        kept = [(place, percentiles) for place, percentiles in known if percentiles is not None]
        places, percentiles = [place for place, _ in kept], [values for _, values in kept]
        traces.append(box(name, places, percentiles, colour=colour, offsetgroup=part))
    yield Figure(
        key="slices",
        title=f"{objective} of all trials with each value in, and out",
        height=80 + (BOX_PIXELS + 8) * len(names),
        spec={
            "data": traces,
            "layout": layout(
                boxmode="group",
                boxgap=0.25,
                boxgroupgap=0.15,
                xaxis=axis(label(objective), zeroline=False, nticks=5),
                yaxis=rows([label(name) for name in names]),
            ),
        },
    )


def best(data: ReportData) -> Iterator[Figure]:
    """The best subsets side by side, a row per value (Optuna's parallel coordinates, for values in or out)."""
    found = data.best_subsets
    named = [attribute for attribute in data.main_choice.attributes if found and attribute.name in found[0].values]
    if not named:
        return
    bits = [(attribute.name, value) for attribute in named for value in attribute.values]
    names = [f"{name} {value}" for name, value in bits]
    inside = [[float(value in each.values[name]) for each in found] for name, value in bits]
    chosen = chosen_values(named)
    marked = [
        f"{name} \N{BLACK LEFT-POINTING SMALL TRIANGLE}" if bit in chosen else name
        for name, bit in zip(names, bits, strict=True)
    ]
    yield Figure(
        key="best",
        title=f"The {len(found)} best subsets, best on the left; a filled square is a value that is in",
        height=80 + (BOX_PIXELS - 4) * len(names),
        spec={
            "data": [
                {
                    "type": "heatmap",
                    "x": list(range(1, len(found) + 1)),
                    "y": [label(name) for name in marked],
                    "z": inside,
                    "zmin": 0,
                    "zmax": 1,
                    "colorscale": [[0, LINE], [1, ACCENT]],
                    "showscale": False,
                    "xgap": 1.5,
                    "ygap": 1.5,
                    "hovertemplate": "%{y}, subset %{x}<extra></extra>",
                }
            ],
            "layout": layout(
                xaxis=axis("rank of the subset", showgrid=False, zeroline=False, nticks=6),
                yaxis=rows([label(name) for name in marked]),
            ),
        },
    )


def rounds(data: ReportData) -> Iterator[Figure]:
    """How the choice settled as more images were measured."""
    found = data.rounds
    if len(found) < 2:
        return
    measured = [100 * each.share for each in found]
    traces = [
        {
            "type": "scatter",
            "mode": "lines+markers",
            "name": name,
            "x": measured,
            "y": values,
            "marker": {"size": 6, "color": colour},
            "line": {"color": colour, "width": 2, "dash": dash},
            "hovertemplate": f"%{{y:.0f}} % at %{{x:.1f}} % measured<extra>{name}</extra>",
        }
        for name, values, colour, dash in (
            ("overlap with the final choice", [100 * each.overlap for each in found], ACCENT, "solid"),
            ("certainty", [100 * each.certainty for each in found], INK, "dot"),
        )
    ]
    yield Figure(
        key="rounds",
        title="How the choice settled as more images were measured",
        height=280,
        spec={
            "data": traces,
            "layout": layout(
                xaxis=axis("images measured (%)", zeroline=False, rangemode="tozero"),
                yaxis=axis("%", range=[0, 103], zeroline=False),
            ),
        },
    )
