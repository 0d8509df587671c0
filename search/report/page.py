"""One offline HTML page that shows what was chosen, why, how sure we are and what it cost.

The page makes no request: Plotly, figures and thumbnails are inside, and its content policy forbids the rest.
"""

from pathlib import Path

from plotly.offline import get_plotlyjs

from finegpr.storage import sha256, write_bytes
from search.analysis import words
from search.analysis.compare import ArmSummary
from search.analysis.records import Effect, Spread
from search.report import explain_text
from search.report import text as report_text
from search.report.data import ReportData
from search.report.figures import arms, explain, search, shares
from search.report.figures.base import Figure
from search.report.templates import templates

TEMPLATE = "report.html.j2"
MAX_QUARANTINE_ROWS = 200


def write_report(data: ReportData, path: Path) -> None:
    """Atomically write the page. Raises WriteError when the file cannot be written."""
    write_bytes(path, render(data).encode())


def render(data: ReportData) -> str:
    """The page as text, under 20 MB for any number of trials: histories and long lists are thinned."""
    environment = templates()
    environment.filters.update(
        percent=words.percent,
        number=words.number,
        decimals=words.decimals,
        odds=words.odds,
        counted=words.counted,
        chips=report_text.chips,
        agreement=report_text.mean_agreement,
        duration=words.duration,
        fixed_values=explain_text.fixed_values,
        worst_first=explain_text.worst_first,
        checks_summary=explain_text.checks_summary,
        settled=explain_text.settled,
    )
    drawn = _figures(data)
    return environment.get_template(TEMPLATE).render(
        data=data,
        main=data.main_choice,
        headline=report_text.headline(data),
        lead=report_text.lead(data),
        tiles=report_text.tiles(data),
        warnings=report_text.warnings(data),
        metrics=report_text.metrics_of(data),
        rows=report_text.result_rows(data),
        effects=_by_quantity(data.effects),
        spreads=_by_attribute(data.spreads),
        figures=drawn,
        specs={key: figure.spec for key, figure in drawn.items()},
        max_effects=explain.MAX_EFFECTS,
        max_quarantine_rows=MAX_QUARANTINE_ROWS,
        total_seconds=sum(stage.seconds for stage in data.stages),
        nonce=sha256(data.to_json())[:32],
        plotly=get_plotlyjs(),
    )


def _figures(data: ReportData) -> dict[str, Figure]:
    """Every figure of the page by its key; a key that is absent has nothing to show."""
    main_arm = data.main_choice.arm
    found: list[Figure | None] = []
    for (target, metric), summaries in _by_target_and_metric(data.results).items():
        place = f"{target}/{metric}"
        found += [
            arms.arms(summaries, key=f"arms/{place}", main_arm=main_arm),
            arms.differences(summaries, key=f"differences/{place}", baseline=data.baseline, main_arm=main_arm),
        ]
    found += [
        shares.shares(attribute, key=f"shares/{attribute.name}", target=data.target.title)
        for attribute in data.main_choice.attributes
    ]
    found += [arms.history(choice, key=f"history/{choice.objective}") for choice in data.choices]
    directions = {choice.objective: choice.higher_is_better for choice in data.choices}
    found += [
        arms.ranking(
            each, key=f"ranking/{each.target}/{each.objective}", higher_is_better=directions.get(each.objective, False)
        )
        for each in data.rank_agreements
    ]
    found += [
        explain.effects(effects, key=f"effects/{quantity}", attributes=data.main_choice.attributes)
        for quantity, effects in _by_quantity(data.effects).items()
    ]
    found += [
        explain.distances(
            spreads, key=f"distances/{name}", attributes=data.main_choice.attributes, target=data.target.title
        )
        for name, spreads in _by_attribute(data.spreads).items()
    ]
    found += [
        explain.importance(data.importances, key="importance"),
        explain.contour(data.contour, key="contour") if data.contour and data.importances else None,
        explain.shifts(data.shifts, key="shifts"),
        search.rounds(data.rounds, key="rounds"),
        search.best(data.best_subsets, key="best", attributes=data.main_choice.attributes),
        search.distribution(data.main_choice, key="distribution"),
        search.front(data.front, data.main_choice, key="front"),
        search.slices(data.slices, key="slices", objective=data.main),
    ]
    return {figure.key: figure for figure in found if figure is not None}


def _by_target_and_metric(results: tuple[ArmSummary, ...]) -> dict[tuple[str, str], list[ArmSummary]]:
    grouped: dict[tuple[str, str], list[ArmSummary]] = {}
    for summary in results:
        grouped.setdefault((summary.target, summary.metric), []).append(summary)
    return grouped


def _by_quantity(effects: tuple[Effect, ...]) -> dict[str, list[Effect]]:
    grouped: dict[str, list[Effect]] = {}
    for effect in effects:
        grouped.setdefault(effect.quantity, []).append(effect)
    return grouped


def _by_attribute(spreads: tuple[Spread, ...]) -> dict[str, list[Spread]]:
    grouped: dict[str, list[Spread]] = {}
    for spread in spreads:
        grouped.setdefault(spread.attribute, []).append(spread)
    return grouped
