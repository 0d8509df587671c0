"""The figures that explain a choice: effects of values, importance of attributes, distances per value, people."""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from search.analysis.records import AttributeShares, Effect, Spread
from search.report.data import ReportData
from search.report.figures.base import ACCENT, INK, LINE, MUTED, REST, ROW_PIXELS, Figure, axis, label, layout, rows

MAX_EFFECTS = 24
BOX_PIXELS = 22
Percentiles = tuple[float, float, float, float, float]


def chosen_values(attributes: Sequence[AttributeShares]) -> set[tuple[str, str]]:
    """Attribute and value of all that is in the choice."""
    return {
        (attribute.name, value)
        for attribute in attributes
        for value, is_in in zip(attribute.values, attribute.chosen, strict=True)
        if is_in
    }


def by_quantity(effects: Sequence[Effect]) -> dict[str, list[Effect]]:
    """Effects by their quantity, in order of first appearance."""
    grouped: dict[str, list[Effect]] = {}
    for effect in effects:
        grouped.setdefault(effect.quantity, []).append(effect)
    return grouped


def by_attribute(spreads: Sequence[Spread]) -> dict[str, list[Spread]]:
    """Distances per value by their attribute, in order of first appearance."""
    grouped: dict[str, list[Spread]] = {}
    for spread in spreads:
        grouped.setdefault(spread.attribute, []).append(spread)
    return grouped


def all_effects(data: ReportData) -> Iterator[Figure]:
    """The effects on every quantity that has any."""
    for quantity, found in by_quantity(data.effects).items():
        drawn = effects(found, key=f"effects/{quantity}", attributes=data.main_choice.attributes)
        if drawn is not None:
            yield drawn


def effects(found: Sequence[Effect], *, key: str, attributes: Sequence[AttributeShares]) -> Figure | None:
    """Sorted bars of the largest effects of one quantity, with intervals; the accent marks chosen values."""
    chosen = chosen_values(attributes)
    known = [(each.effect, each) for each in found if each.effect is not None]
    if not known:
        return None
    largest = sorted(known, key=lambda pair: -abs(pair[0]))[:MAX_EFFECTS]
    ordered = sorted(largest, key=lambda pair: pair[0])
    names = [label(f"{each.attribute} {each.value}") for _, each in ordered]
    bar: dict[str, Any] = {
        "type": "bar",
        "orientation": "h",
        "x": [effect for effect, _ in ordered],
        "y": names,
        "marker": {
            "color": [ACCENT if (each.attribute, each.value) in chosen else REST for _, each in ordered],
            "pattern": {"shape": ["" if each.allowed else "/" for _, each in ordered], "size": 5, "solidity": 0.3},
        },
        "hovertemplate": "%{y}: %{x:.3g}<extra></extra>",
    }
    if any(each.low is not None for _, each in ordered):
        bar["error_x"] = {
            "type": "data",
            "symmetric": False,
            "array": [0.0 if each.high is None else each.high - effect for effect, each in ordered],
            "arrayminus": [0.0 if each.low is None else effect - each.low for effect, each in ordered],
            "color": INK,
            "thickness": 1.2,
            "width": 3,
        }
    quantity = found[0].quantity
    return Figure(
        key=key,
        title=f"Effect of each attribute value: {quantity}",
        height=70 + ROW_PIXELS * len(names),
        spec={
            "data": [bar],
            "layout": layout(
                bargap=0.35,
                xaxis=axis("difference", zerolinecolor=MUTED, nticks=6, tickangle=0),
                yaxis=rows(names),
            ),
        },
    )


def importance(data: ReportData) -> Iterator[Figure]:
    """Mean |SHAP| per attribute: bars for the whole distance, marks for its style and its content."""
    found = data.importances
    if not found:
        return
    quantities = list(dict.fromkeys(each.quantity for each in found))
    of = {(each.quantity, each.attribute): each.importance for each in found}
    first, *parts = quantities
    names = sorted(dict.fromkeys(each.attribute for each in found), key=lambda name: of[first, name])
    factor = 100 if found[0].relative else 1
    traces: list[dict[str, Any]] = [
        {
            "type": "bar",
            "orientation": "h",
            "name": label(first),
            "x": [factor * of[first, name] for name in names],
            "y": [label(name) for name in names],
            "marker": {"color": ACCENT},
            "hovertemplate": f"%{{y}}: %{{x:.3g}}<extra>{label(first)}</extra>",
        }
    ]
    for part, symbol in zip(parts, ("circle-open", "diamond"), strict=False):
        traces.append(
            {
                "type": "scatter",
                "mode": "markers",
                "name": label(part),
                "x": [factor * of[part, name] for name in names],
                "y": [label(name) for name in names],
                "marker": {"symbol": symbol, "size": 9, "color": INK, "line": {"width": 1.6}},
                "hovertemplate": f"%{{y}}: %{{x:.3g}}<extra>{label(part)}</extra>",
            }
        )
    unit = "% of the distance" if found[0].relative else "distance"
    yield Figure(
        key="importance",
        title=f"Attribute importance: mean |SHAP| of the surrogate for {first}",
        height=70 + (ROW_PIXELS + 10) * len(names),
        spec={
            "data": traces,
            "layout": layout(
                bargap=0.4,
                xaxis=axis(f"mean |SHAP| ({unit})", rangemode="tozero", nticks=6),
                yaxis=rows([label(name) for name in names[::-1]]),
            ),
        },
    )


def box(name: str, places: Sequence[str], percentiles: Sequence[Percentiles], *, colour: str, **options: Any) -> Any:
    """Horizontal boxes from the 5th to the 95th percentile, one per row; the box itself is the middle half."""
    low, lower, middle, upper, high = zip(*percentiles, strict=True) if percentiles else ((), (), (), (), ())
    return {
        "type": "box",
        "orientation": "h",
        "name": name,
        "y": list(places),
        "lowerfence": list(low),
        "q1": list(lower),
        "median": list(middle),
        "q3": list(upper),
        "upperfence": list(high),
        "line": {"width": 1.3, "color": INK},
        "fillcolor": colour,
        "hoverinfo": "x",
        **options,
    }


def all_distances(data: ReportData) -> Iterator[Figure]:
    """The distances per value of every attribute that has any."""
    for name, spreads in by_attribute(data.spreads).items():
        yield distances(
            spreads, key=f"distances/{name}", attributes=data.main_choice.attributes, target=data.target.title
        )


def distances(spreads: Sequence[Spread], *, key: str, attributes: Sequence[AttributeShares], target: str) -> Figure:
    """Distances of the images with each value of one attribute; the accent marks chosen values."""
    chosen = chosen_values(attributes)
    searched = {attribute.name for attribute in attributes}
    inside = [(spread.attribute, spread.value) in chosen or spread.attribute not in searched for spread in spreads]
    data = []
    for is_in, colour, name in ((True, ACCENT, "chosen"), (False, REST, "left out")):
        kept = [spread for spread, each in zip(spreads, inside, strict=True) if each == is_in]
        if kept:
            places = [label(spread.value) for spread in kept]
            data.append(box(name, places, [spread.percentiles for spread in kept], colour=colour))
    names = [spread.value for spread in spreads]
    attribute = spreads[0].attribute
    return Figure(
        key=key,
        title=f"{attribute}: distance to {target} per value",
        height=70 + BOX_PIXELS * len(names),
        spec={
            "data": data,
            "layout": layout(
                boxmode="overlay",
                boxgap=0.4,
                xaxis=axis("D_total", zeroline=False, nticks=5),
                yaxis=rows([label(name) for name in names]),
            ),
        },
    )


def contour(data: ReportData) -> Iterator[Figure]:
    """The mean distance, which is above 0, over two attributes, by its logarithm. What was not measured is blank."""
    found = data.contour
    if found is None or not data.importances:
        return
    known = np.array([mean for row in found.means for mean in row if mean is not None])
    ticks = np.geomspace(known.min(), known.max(), 3)
    yield Figure(
        key="contour",
        title=f"Mean {found.quantity} by {found.row_attribute} and {found.column_attribute}: more colour is nearer",
        height=110 + BOX_PIXELS * len(found.rows),
        spec={
            "data": [
                {
                    "type": "heatmap",
                    "x": [label(value) for value in found.columns],
                    "y": [label(value) for value in found.rows],
                    "z": [[None if mean is None else float(np.log(mean)) for mean in row] for row in found.means],
                    "customdata": [list(row) for row in found.means],
                    "colorscale": [[0, ACCENT], [1, LINE]],
                    "xgap": 1,
                    "ygap": 1,
                    "colorbar": {
                        "thickness": 10,
                        "outlinewidth": 0,
                        "tickfont": {"size": 11},
                        "tickvals": np.log(ticks).tolist(),
                        "ticktext": [f"{tick:.3g}" for tick in ticks],
                    },
                    "hovertemplate": "%{y}, %{x}: %{customdata:.4g}<extra></extra>",
                }
            ],
            "layout": layout(
                xaxis=axis(type="category", showgrid=False, ticks=""),
                yaxis=rows([label(value) for value in found.rows]),
            ),
        },
    )


def shifts(data: ReportData) -> Iterator[Figure]:
    """Shares of every value of the people's attributes: source, manifest, and what drawing at random gives."""
    found = data.shifts
    if not found:
        return
    names = [f"{shift.attribute} {value}" for shift in found for value in shift.values]
    places = [label(name) for name in names]
    source, manifest, low, high = (
        [100 * share for shift in found for share in getattr(shift, part)]
        for part in ("source", "manifest", "low", "high")
    )
    widest = max(*source, *manifest, *high)
    traces: list[dict[str, Any]] = [
        {
            "type": "bar",
            "orientation": "h",
            "name": "at random",
            "y": places,
            "base": low,
            "x": [upper - lower for lower, upper in zip(low, high, strict=True)],
            "marker": {"color": LINE},
            "hoverinfo": "skip",
        },
        _marks("source", places, source, {"symbol": "line-ns", "size": 13, "line": {"width": 2.5, "color": INK}}),
        _marks("chosen images", places, manifest, {"symbol": "circle", "size": 9, "color": ACCENT}),
    ]
    yield Figure(
        key="shifts",
        title="Share of images per value of the people's attributes",
        height=70 + BOX_PIXELS * len(names),
        spec={
            "data": traces,
            "layout": layout(
                bargap=0.35,
                xaxis=axis("images (%)", range=[-0.02 * widest, 1.05 * widest], zeroline=False, nticks=6),
                yaxis=rows(places),
            ),
        },
    )


def _marks(name: str, places: Sequence[str], values: Sequence[float], marker: dict[str, Any]) -> dict[str, Any]:
    return {
        "type": "scatter",
        "mode": "markers",
        "name": name,
        "x": list(values),
        "y": list(places),
        "marker": marker,
        "cliponaxis": False,
        "hovertemplate": f"%{{y}}: %{{x:.1f}} %<extra>{name}</extra>",
    }
