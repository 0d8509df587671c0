"""One offline HTML page that shows what was chosen, why, how sure we are and what it cost.

The page makes no request: Plotly, figures and thumbnails are inside, and its content policy forbids the rest.
"""

from pathlib import Path

from plotly.offline import get_plotlyjs

from finegpr.atomic import write_bytes
from finegpr.storage import sha256
from search.analysis import words
from search.report import comparison_text, explain_text
from search.report import text as report_text
from search.report.data import BLURRED_HEIGHT, ReportData
from search.report.figures import FIGURES, SECTIONS, explain
from search.report.templates import templates

TEMPLATE = "report.html.j2"
MAX_QUARANTINE_ROWS = 200


def write_report(data: ReportData, path: Path) -> None:
    """Atomically write the page; one with photos is readable by its owner only. Raises WriteError."""
    write_bytes(path, render(data).encode(), private=data.holds_photos)


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
    drawn = [(entry, tuple(entry.draw(data))) for entry in FIGURES]
    figures = {figure.key: figure for _, found in drawn for figure in found}
    return environment.get_template(TEMPLATE).render(
        data=data,
        main=data.main_choice,
        headline=report_text.headline(data),
        lead=report_text.lead(data),
        tiles=report_text.tiles(data),
        warnings=report_text.warnings(data),
        metrics=report_text.metrics_of(data),
        rows=report_text.result_rows(data),
        effects=explain.by_quantity(data.effects),
        spreads=explain.by_attribute(data.spreads),
        figures=figures,
        specs={key: figure.spec for key, figure in figures.items()},
        further={
            section: [(entry, found) for entry, found in drawn if entry.section == section and entry.caption and found]
            for section in SECTIONS
        },
        max_effects=explain.MAX_EFFECTS,
        max_quarantine_rows=MAX_QUARANTINE_ROWS,
        blurred_height=BLURRED_HEIGHT,
        arms_text=comparison_text.arms_text(data),
        chosen_by=report_text.chosen_by(data),
        nonce=sha256(data.to_json())[:32],
        plotly=get_plotlyjs(),
    )
