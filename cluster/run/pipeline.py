"""The main job: every stage in order, one artifact per arrow, all inside one run folder."""

from contextlib import ExitStack, nullcontext

import yaml

from cluster.run.checks import check_begun, check_config, check_output
from cluster.run.estimates import disk_bytes
from cluster.run.measure import leave_out_bad, measure
from cluster.run.report import write_summary
from cluster.run.results import REPORT
from cluster.run.search import search, validate_surrogate
from cluster.run.select import select
from cluster.run.short_training import train_short
from cluster.run.state import Made, Run
from cluster.run.train import train
from cluster.run.world import index, render_world
from finegpr.atomic import write_bytes
from finegpr.storage import locked
from search.report.data import ReportData

CONFIG = "config.yaml"


def run_all(run: Run) -> tuple[Made, ReportData]:
    """Run every stage; what they made, and what the report says. A finished stage is skipped."""
    with ExitStack() as stack:
        stack.enter_context(locked(run.folder.root))
        stack.callback(run.executor.close)
        root = run.folder.root
        # What is finished needs neither a cluster nor room.
        connect = None if (root / REPORT).exists() else lambda: nullcontext(run.executor.cluster)
        check_config(run.config, serial=run.executor.name == "serial", connect=connect)
        if not run.folder.fresh:
            check_begun(run.config, root)
        indexed = index(run, render_world(run))
        if not (root / "measure").exists():
            check_output(root, needed=disk_bytes(run.config, indexed.source, indexed.target, indexed.space))
        measured = measure(run, indexed)
        indexed, measured = leave_out_bad(run, indexed, measured)
        surrogate = validate_surrogate(run, measured)
        found = {name: search(run, indexed, measured, name) for name in run.config.objectives}
        short = train_short(run, indexed, measured, found)
        chosen = {name: each.result.subset for name, each in found.items()} | short.chosen
        manifests = select(run, indexed, measured, chosen)
        trained = train(run, indexed, manifests)
        # Written last, so that a run which is refused leaves the config of what lies in the folder.
        write_bytes(run.folder.root / CONFIG, yaml.safe_dump(run.given.model_dump(mode="json")).encode())
        made = Made(
            indexed=indexed,
            measured=measured,
            surrogate=surrogate,
            found=found,
            short=short,
            manifests=manifests,
            trained=trained,
        )
        return made, write_summary(run, made)
