"""How the choice differs from the source and the target: the shares of every value of one attribute, as a figure."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from search.analysis.records import AttributeShares
from search.report.data import ReportData
from search.report.figures.base import ACCENT, INK, LINE, REST, Figure, axis, label, layout


def all_shares(data: ReportData) -> Iterator[Figure]:
    """The shares of every attribute of the main choice."""
    for attribute in data.main_choice.attributes:
        yield shares(attribute, key=f"shares/{attribute.name}", target=data.target.title)


def shares(attribute: AttributeShares, *, key: str, target: str) -> Figure:
    """Share of every value in the source, in the manifest and in the target, with its interval where it is an estimate;
    polar for a circular attribute."""
    names = [label(value) for value in attribute.values]
    percents = {
        "source": [100 * share for share in attribute.source],
        "manifest": [100 * share for share in attribute.manifest],
    }
    if attribute.target is not None:
        percents["target"] = [100 * share for share in attribute.target]
    interval = [(100 * low, 100 * high) for low, high in attribute.target_interval or ()]
    spec = _polar(attribute, percents, interval) if attribute.circular else _bars(names, percents, interval)
    known = {"true": "true shares", "estimate": "estimated shares", "unknown": "shares unknown"}[attribute.target_kind]
    return Figure(
        key=key,
        title=f"{attribute.name}: shares in source, choice and {target} ({known})",
        height=340 if attribute.circular else 200,
        spec=spec,
    )


def _bars(
    names: list[str], percents: Mapping[str, list[float]], interval: Sequence[tuple[float, float]]
) -> dict[str, Any]:
    hover = "%{x}: %{y:.1f} %"
    data: list[dict[str, Any]] = [
        _bar(names, percents["source"], "source", REST, hover),
        _bar(names, percents["manifest"], "chosen", ACCENT, hover),
    ]
    if "target" in percents:
        data.append(
            {
                "type": "scatter",
                "mode": "markers",
                "name": "target",
                "x": names,
                "y": percents["target"],
                "cliponaxis": False,
                "hovertemplate": f"{hover}<extra>target</extra>",
                "marker": {
                    "symbol": "diamond",
                    "size": 9,
                    "color": INK,
                    "line": {"width": 1.5, "color": "var(--card)"},
                },
            }
        )
        if interval:
            data[-1]["error_y"] = {
                "type": "data",
                "array": [high - share for (_, high), share in zip(interval, percents["target"], strict=True)],
                "arrayminus": [share - low for (low, _), share in zip(interval, percents["target"], strict=True)],
                "color": INK,
                "thickness": 1.5,
                "width": 3,
            }
    return {
        "data": data,
        "layout": layout(
            bargap=0.3,
            bargroupgap=0.08,
            xaxis=axis(type="category", showgrid=False),
            yaxis=axis("images (%)", rangemode="tozero", nticks=5),
        ),
    }


def _bar(names: list[str], values: list[float], name: str, colour: str, hover: str) -> dict[str, Any]:
    return {
        "type": "bar",
        "name": name,
        "x": names,
        "y": values,
        "marker": {"color": colour},
        "hovertemplate": f"{hover}<extra>{name}</extra>",
    }


def _polar(
    attribute: AttributeShares, percents: Mapping[str, list[float]], interval: Sequence[tuple[float, float]]
) -> dict[str, Any]:
    angles = [float(value.removesuffix("deg")) for value in attribute.values]
    closed = [*angles, angles[0]]
    width = 360 / len(angles)
    hover = "%{theta}°: %{r:.1f} %"
    data: list[dict[str, Any]] = [
        {
            "type": "barpolar",
            "name": "chosen",
            "theta": angles,
            "r": percents["manifest"],
            "width": [0.86 * width] * len(angles),
            "marker": {"color": ACCENT},
            "hovertemplate": f"{hover}<extra>chosen</extra>",
        },
        {
            "type": "scatterpolar",
            "mode": "lines",
            "name": "source",
            "theta": closed,
            "r": [*percents["source"], percents["source"][0]],
            "line": {"color": REST, "width": 3},
            "hovertemplate": f"{hover}<extra>source</extra>",
        },
    ]
    if interval:
        data.append(
            {
                "type": "scatterpolar",
                "mode": "lines",
                "name": "interval",
                "theta": [place for angle in angles for place in (angle, angle, None)],
                "r": [end for low, high in interval for end in (low, high, None)],
                "hoverinfo": "skip",
                "line": {"color": INK, "width": 1.5},
            }
        )
    if "target" in percents:
        data.append(
            {
                "type": "scatterpolar",
                "mode": "markers",
                "name": "target",
                "theta": angles,
                "r": [share or None for share in percents["target"]],
                "marker": {
                    "symbol": "diamond",
                    "size": 8,
                    "color": INK,
                    "line": {"width": 1.5, "color": "var(--card)"},
                },
                "hovertemplate": f"{hover}<extra>target</extra>",
            }
        )
    scale = 90 - _emptiest(angles, percents)
    polar = {
        "bgcolor": "rgba(0,0,0,0)",
        "angularaxis": {
            "direction": "clockwise",
            "rotation": 90,
            "gridcolor": LINE,
            "linecolor": LINE,
            "ticksuffix": "°",
            "dtick": 45,
        },
        "radialaxis": {
            "gridcolor": LINE,
            "linecolor": LINE,
            "ticksuffix": " %",
            "nticks": 4,
            "angle": scale,
            "tickangle": scale,
            "tickfont": {"size": 11},
            "rangemode": "tozero",
        },
    }
    return {"data": data, "layout": layout(polar=polar, margin={"l": 40, "r": 40, "t": 28, "b": 28})}


def _emptiest(angles: Sequence[float], percents: Mapping[str, list[float]]) -> float:
    """The angle with the least in and round it, where the scale of the radius hides nothing."""
    height = np.max([shares for name, shares in percents.items() if name != "source"], axis=0)
    reach = max(1, len(angles) // 12)
    nearby = np.sum([np.roll(height, shift) for shift in range(-reach, reach + 1)], axis=0)
    return angles[int(nearby.argmin())]
