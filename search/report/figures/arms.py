"""The figures of the arms and of the objectives: trained metrics, differences, histories, rank agreement."""

from collections.abc import Iterator, Sequence
from typing import Any

from search.analysis.compare import ArmSummary, Estimate, RankAgreement
from search.analysis.records import Choice
from search.report.data import ReportData
from search.report.figures.base import (
    ACCENT,
    INK,
    MUTED,
    REST,
    ROW_PIXELS,
    Figure,
    axis,
    best_so_far,
    label,
    layout,
    rows,
    thinned,
)


def results(data: ReportData) -> Iterator[Figure]:
    """Per target and metric: every arm, and its paired difference from the baseline where there is one."""
    grouped: dict[tuple[str, str], list[ArmSummary]] = {}
    for summary in data.results:
        grouped.setdefault((summary.target, summary.metric), []).append(summary)
    main_arm = data.main_choice.arm
    for (target, metric), summaries in grouped.items():
        place = f"{target}/{metric}"
        yield arms(summaries, key=f"arms/{place}", main_arm=main_arm)
        paired = differences(summaries, key=f"differences/{place}", baseline=data.baseline, main_arm=main_arm)
        if paired is not None:
            yield paired


def arms(summaries: Sequence[ArmSummary], *, key: str, main_arm: str | None) -> Figure:
    """Mean, interval and every seed of each arm, for the summaries of one target and one metric, in per cent."""
    metric = summaries[0].metric
    names = [label(summary.arm) for summary in summaries]
    values = [100 * value for summary in summaries for value in summary.values]
    data = [
        {
            "type": "scatter",
            "mode": "markers",
            "x": [100 * value for value in summary.values],
            "y": [label(summary.arm)] * len(summary.values),
            "text": [f"seed {seed}" for seed in summary.seeds],
            "hovertemplate": f"%{{x:.1f}} % {metric}<br>%{{text}}<extra></extra>",
            "marker": {"symbol": "circle-open", "size": 8, "color": MUTED, "line": {"width": 1.2}},
        }
        for summary in summaries
    ]
    for summary in summaries:
        if summary.mean is None:
            continue
        colour = ACCENT if summary.arm == main_arm else INK
        data.append(_interval(label(summary.arm), summary.mean, colour, "%{x:.1f} % mean<extra></extra>"))
    return Figure(
        key=key,
        title=f"{metric} per arm: mean, interval, single seeds",
        height=70 + (ROW_PIXELS + 10) * len(names),
        spec={
            "data": data,
            "layout": layout(
                xaxis=axis(f"{metric} (%)", range=_visible(values, floor=0.0, ceiling=100.0), zeroline=False),
                yaxis=rows(names),
            ),
        },
    )


def differences(summaries: Sequence[ArmSummary], *, key: str, baseline: str, main_arm: str | None) -> Figure | None:
    """Paired differences from the baseline with their intervals, in percentage points; None when there are none."""
    paired = [(summary.arm, summary.difference) for summary in summaries if summary.difference is not None]
    if not paired:
        return None
    names = [label(summary.arm) for summary in summaries]
    data = [
        _interval(label(arm), difference, ACCENT if arm == main_arm else INK, "%{x:+.1f} points<extra></extra>")
        for arm, difference in paired
    ]
    means = [100 * difference.mean for _, difference in paired]
    metric = summaries[0].metric
    return Figure(
        key=key,
        title=f"{metric}: paired difference from {baseline}",
        height=70 + (ROW_PIXELS + 10) * len(names),
        spec={
            "data": data,
            "layout": layout(
                xaxis=axis(
                    f"{metric} difference (points)",
                    range=_visible([0.0, *means]),
                    zerolinecolor=MUTED,
                    zerolinewidth=1.5,
                ),
                yaxis=rows(names),
            ),
        },
    )


def _interval(name: str, estimate: Estimate, colour: str, hover: str) -> dict[str, Any]:
    trace: dict[str, Any] = {
        "type": "scatter",
        "mode": "markers",
        "x": [100 * estimate.mean],
        "y": [name],
        "hovertemplate": hover,
        "marker": {"size": 10, "color": colour},
    }
    if estimate.high is not None:
        half = 100 * (estimate.high - estimate.mean)
        trace["error_x"] = {"type": "data", "array": [half], "color": colour, "thickness": 2, "width": 5}
    return trace


def _visible(values: Sequence[float], *, floor: float = -100.0, ceiling: float = 100.0) -> list[float]:
    """An axis range round the values; the huge intervals of two seeds may run past it."""
    if not values:
        return [floor, ceiling]
    low, high = min(values), max(values)
    room = max(high - low, 2.0) * 0.8
    return [max(floor, low - room), min(ceiling, high + room)]


def histories(data: ReportData) -> Iterator[Figure]:
    """The history of every objective's search."""
    for choice in data.choices:
        drawn = history(choice, key=f"history/{choice.objective}")
        if drawn is not None:
            yield drawn


def history(choice: Choice, *, key: str) -> Figure | None:
    """Best score so far over the evaluations, with each evaluation and random search, thinned."""
    if not choice.history:
        return None
    longest = max(len(choice.history), len(choice.random_history))
    best = best_so_far(choice.history, higher_is_better=choice.higher_is_better)
    data: list[dict[str, Any]] = [_dots(choice.history), _steps(best, "best so far", ACCENT, "solid")]
    if choice.random_history:
        random = best_so_far(choice.random_history, higher_is_better=choice.higher_is_better)
        data.append(_steps(random, "random search", INK, "dot"))
    direction = "higher" if choice.higher_is_better else "lower"
    unit = f", {label(choice.unit)}" if choice.unit else ""
    return Figure(
        key=key,
        title=f"{choice.objective}: best score after each trial",
        height=320,
        spec={
            "data": data,
            "layout": layout(
                xaxis=axis("trial", range=[1 - 0.01 * longest, 1.01 * longest], showgrid=False, zeroline=False),
                yaxis=axis(f"{label(choice.objective)}{unit} ({direction} is better)", zeroline=False),
            ),
        },
    )


def _dots(scores: Sequence[float | None]) -> dict[str, Any]:
    at = thinned(len(scores))
    return {
        "type": "scatter",
        "mode": "markers",
        "name": "each evaluation",
        "x": [position + 1 for position in at],
        "y": [scores[position] for position in at],
        "marker": {"size": 4, "color": REST},
        "hoverinfo": "skip",
    }


def _steps(best: Sequence[float | None], name: str, colour: str, dash: str) -> dict[str, Any]:
    changes = [at for at in range(1, len(best)) if best[at] != best[at - 1]]
    at = [0, *(changes[position] for position in thinned(len(changes))), len(best) - 1]
    return _line([position + 1 for position in at], [best[position] for position in at], name, colour, dash)


def _line(x: Sequence[int], y: Sequence[float | None], name: str, colour: str, dash: str) -> dict[str, Any]:
    return {
        "type": "scatter",
        "mode": "lines",
        "name": name,
        "x": list(x),
        "y": list(y),
        "line": {"color": colour, "width": 2, "dash": dash, "shape": "hv"},
        "hovertemplate": f"%{{y:.4g}} after %{{x:,}}<extra>{name}</extra>",
    }


def rankings(data: ReportData) -> Iterator[Figure]:
    """Every objective against training."""
    directions = {choice.objective: choice.higher_is_better for choice in data.choices}
    for each in data.rank_agreements:
        key, higher_is_better = f"ranking/{each.target}/{each.objective}", directions.get(each.objective, False)
        yield ranking(each, key=key, higher_is_better=higher_is_better)


def ranking(agreement: RankAgreement, *, key: str, higher_is_better: bool) -> Figure:
    """Objective score against true mAP, one point per arm; better is always to the right and up."""
    better = "right is better" if higher_is_better else "reversed: right is better"
    middle = (min(agreement.scores) + max(agreement.scores)) / 2
    sides = ["left" if (score > middle) == higher_is_better else "right" for score in agreement.scores]
    return Figure(
        key=key,
        title=f"{agreement.objective} against trained mAP ({agreement.target})",
        height=300,
        spec={
            "data": [
                {
                    "type": "scatter",
                    "mode": "markers+text",
                    "x": list(agreement.scores),
                    "y": [100 * truth for truth in agreement.truths],
                    "text": [f" {label(arm)} " for arm in agreement.arms],
                    "textposition": [f"middle {side}" for side in sides],
                    "textfont": {"size": 11, "color": MUTED},
                    "cliponaxis": False,
                    "marker": {"size": 9, "color": ACCENT},
                    "hovertemplate": "%{text}<br>score %{x:.4g}<br>mAP %{y:.1f} %<extra></extra>",
                }
            ],
            "layout": layout(
                margin={"l": 8, "r": 24, "t": 20, "b": 8},
                xaxis=axis(
                    f"{label(agreement.objective)} ({better})",
                    autorange=True if higher_is_better else "reversed",
                    zeroline=False,
                    nticks=5,
                ),
                yaxis=axis("mAP (%)", zeroline=False, nticks=5),
            ),
        },
    )
