"""What a finished run says, read again: its report's data, and the comparison as a table."""

from pathlib import Path

from rich.box import SIMPLE_HEAD
from rich.table import Table

from cluster.progress import console, say
from finegpr.errors import InputError
from finegpr.storage import read_text
from finegpr.visible import visible
from search.analysis.compare import ArmSummary
from search.report import text
from search.report.comparison_text import cost_text, larger_and_better
from search.report.data import ReportData

REPORT, REPORT_DATA, RESULTS = "report.html", "report.json", "results.json"


def print_results(data: ReportData) -> None:
    """The comparison as one table, and what follows from it."""
    arms = data.results
    if not arms:
        say("the target has no query and gallery, so no arm was scored")
        say(f"the choice: {text.chosen_by(data)}")
        _doubts(data)
        return
    title = visible(f"{arms[0].target}: mAP and rank-1 in percent")
    table = Table(title=title, box=SIMPLE_HEAD, collapse_padding=True)
    for heading in ("arm", "images", "people", "mAP", "rank-1", "mAP - random", "95 % interval", "seeds"):
        # Names and intervals are never cut; of the rest only the headings are long.
        whole = heading in ("arm", "95 % interval")
        table.add_column(heading, justify="left" if heading == "arm" else "right", no_wrap=whole)
    rank = {summary.arm: summary for summary in arms if summary.metric == "rank-1"}
    facts = {each.arm: each for each in data.arms}
    for summary in arms:
        if summary.metric == "mAP":
            difference = summary.difference
            interval = (
                f"{100 * difference.low:+.1f} to {100 * difference.high:+.1f}"
                if difference is not None and difference.low is not None and difference.high is not None
                else ""
            )
            known = facts.get(summary.arm)
            table.add_row(
                visible(summary.arm),
                f"{known.num_images:,}" if known else "",
                f"{known.num_identities:,}" if known else "",
                _percent(summary),
                _percent(rank[summary.arm]),
                f"{100 * difference.mean:+.1f}" if difference is not None else "",
                interval,
                str(len(summary.seeds)),
            )
    console().print(table)
    larger = larger_and_better(data)
    for sentence in (data.scored, text.chosen_by(data), text.verdict(data), str(larger or ""), _cost(data)):
        if sentence:
            say(sentence)
    _doubts(data)


def _doubts(data: ReportData) -> None:
    """The health checks that do not hold."""
    for check in data.checks:
        if check.verdict == "warn":
            say(f"  doubtful: {check.name}, {check.figure}. {check.sentence}")


def _cost(data: ReportData) -> str:
    return f"The stages took {cost_text(data)}."


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
