"""The verbs ``compare``, ``report``, ``diff`` and ``export``: what finished work says, again or elsewhere."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from cluster import options
from cluster.handover import hand_over
from cluster.inputs import read_subset
from cluster.outputs import replacing
from cluster.progress import answer, say
from finegpr.catalog import Catalog
from finegpr.errors import InputError
from finegpr.home import from_home
from search.analysis.words import counted

SQLITE = "sqlite:///"

if TYPE_CHECKING:
    from search.report.data import ReportData


def diff(verb: options.Diff) -> dict[str, Any]:
    from search.analysis.subset_diff import describe
    from search.analysis.subset_diff import diff as in_words

    attributes = Catalog.read(verb.catalog).attributes
    old, new = read_subset(verb.old), read_subset(verb.new)
    named = [each for each in attributes if each.name in {*old.values, *new.values}]
    said = in_words(old, new, named)
    files = {"old": str(verb.old), "new": str(verb.new)}
    if verb.json:
        say(describe(new, named))
        say(f"  {said}")
    else:
        answer(said)
    return {"diff": said, "old": describe(old, named), "new": describe(new, named), "files": files}


def export(verb: options.Export) -> dict[str, Any]:
    from search.export.address import without_password
    from search.export.optuna import export as to_optuna

    base = SQLITE if verb.storage.startswith(SQLITE) else ""
    path = verb.storage.removeprefix(base)
    storage = f"{base}{from_home(path)}" if path.startswith("~") else verb.storage
    by_status = to_optuna(verb.journal, storage, verb.study)
    num_trials = sum(by_status.values())
    spent = by_status.get("scored", 0) + by_status.get("failed", 0)
    shown = without_password(storage)
    say(f"{num_trials} trials -> study {verb.study} in {shown}")
    say(f"  {counted(spent, 'evaluation')} of new subsets, {by_status.get('failed', 0)} of them failed (FAIL)")
    if num_trials > spent:
        again, outside = by_status.get("duplicate", 0), by_status.get("infeasible", 0)
        say(f"  {num_trials - spent} that cost none (PRUNED): {again} proposed before, {outside} outside the bounds")
    told = {"study": verb.study, "storage": shown, "num_trials": num_trials, "by_status": by_status}
    # An address with a password is not repeated.
    return told | hand_over({"study": shown}, "optuna-dashboard", shown if shown == storage else "STORAGE")


def compare(verb: options.Compare) -> dict[str, Any]:
    from cluster.run.results import REPORT, print_results, read_report_data

    data = read_report_data(verb.folder)
    print_results(data)
    means = {each.arm: each.mean.mean for each in data.results if each.metric == "mAP" and each.mean is not None}
    return {"mAP": means} | hand_over({"report": verb.folder / REPORT}, "aost", "report", verb.folder)


def report(verb: options.Report) -> dict[str, Any]:
    from cluster.run.results import REPORT, read_report_data
    from search.report.page import write_report

    path, data = verb.folder / REPORT, read_report_data(verb.folder)
    write_report(data, path)
    pictures = [] if verb.png is None else _write_pictures(data, verb.png)
    told = hand_over({"report": path, **{each.name: each for each in pictures}})
    if not verb.json:  # that line is the machine's
        for each in (path, *pictures):
            answer(str(each))
    return {"report": str(path), **({} if verb.png is None else {"pictures": [str(each) for each in pictures]}), **told}


def _write_pictures(data: "ReportData", folder: Path) -> list[Path]:
    """Those figures that the run has something for, and a line about each of the others."""
    from search.report.figures.png import PNGS

    written = []
    for name, write in PNGS.items():
        path = folder / name
        try:
            with replacing(path):
                write(data, path)
        except InputError as error:
            say(f"no {name}: {error}")
            continue
        written.append(path)
    return written
