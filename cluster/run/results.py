"""What a finished run says, read again: its report's data, and the comparison as a table."""

from pathlib import Path

from rich.table import Table

from cluster.progress import console, say
from finegpr.errors import InputError
from finegpr.storage import read_text
from finegpr.visible import visible
from search.analysis.compare import ArmSummary
from search.report.data import ReportData

REPORT, REPORT_DATA, RESULTS = "report.html", "report.json", "results.json"


def print_results(arms: tuple[ArmSummary, ...], *, scored: str | None) -> None:
    """The comparison as one table, and under it which queries are ``scored``, unless all."""
    if not arms:
        say("the target has no query and gallery, so no arm was scored")
        return
    table = Table(title=visible(f"{arms[0].target}: mAP and rank-1 in percent"))
    for heading in ("arm", "mAP", "rank-1", "mAP - random", "95 % interval", "seeds"):
        table.add_column(heading, justify="left" if heading == "arm" else "right")
    rank = {summary.arm: summary for summary in arms if summary.metric == "rank-1"}
    for summary in arms:
        if summary.metric == "mAP":
            difference = summary.difference
            interval = (
                f"{100 * difference.low:+.1f} to {100 * difference.high:+.1f}"
                if difference is not None and difference.low is not None and difference.high is not None
                else ""
            )
            table.add_row(
                visible(summary.arm),
                _percent(summary),
                _percent(rank[summary.arm]),
                f"{100 * difference.mean:+.1f}" if difference is not None else "",
                interval,
                str(len(summary.seeds)),
            )
    console().print(table)
    if scored is not None:
        console().print(scored, soft_wrap=True, markup=False)


def _percent(summary: ArmSummary) -> str:
    return f"{100 * summary.mean.mean:.1f}" if summary.mean is not None else "failed"


def read_report_data(root: Path) -> ReportData:
    """The report data of a finished run. Raises InputError for a folder without, StateError for damaged ones."""
    path = root / REPORT_DATA
    try:
        text = read_text(path)
    except FileNotFoundError:
        raise InputError(
            f"no {path}; expected the folder of a finished run, which `aost run` or `aost demo` writes"
        ) from None
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror}; expected the folder of a finished run") from None
    except UnicodeDecodeError:
        raise InputError(f"{path} is not text, so not that of a run; expected the folder of a finished run") from None
    if not any(word in text for word in ('"choices"', '"provenance"')):
        raise InputError(f"{path} was not written by a run; expected the folder of a finished run")
    return ReportData.from_json(text)
