"""The main job: every stage in order, one artifact per arrow, all inside one run folder."""

import time
from contextlib import ExitStack
from pathlib import Path

import yaml

from cluster.progress import say
from cluster.run.config import TRAINING
from cluster.run.measure import measure
from cluster.run.select import select
from cluster.run.state import Run
from cluster.run.train import train
from cluster.run.world import index, render_world
from finegpr.storage import locked, write_bytes

CONFIG = "config.yaml"


def run_all(run: Run) -> Path:
    """Run every stage and return the report's path; a finished stage is skipped."""
    from cluster.run.report import write_summary

    with ExitStack() as stack:
        stack.enter_context(locked(run.folder.root))
        stack.callback(run.executor.close)
        data = render_world(run)
        index(run, *data)
        measure(run)
        surrogate(run)
        for objective in run.config.objectives:
            search(run, objective)
        train_short(run)
        select(run)
        train(run)
        # Written last, so that a run which is refused leaves the config of what lies in the folder.
        write_bytes(run.folder.root / CONFIG, yaml.safe_dump(run.config.model_dump(mode="json")).encode())
        return write_summary(run)


def surrogate(run: Run) -> None:
    """Validate the surrogate on the measured cells, whether or not a search needs it to fill cells in."""
    from cluster.run.search import validate_surrogate

    started = time.monotonic()
    run.surrogate = validate_surrogate(run)
    say(f"surrogate validated in {time.monotonic() - started:.0f} s on {run.surrogate.num_cells} cells")
    if not run.surrogate.num_unmeasured:
        say("  every cell was measured: no search rests on its predictions")


def search(run: Run, objective: str) -> None:
    """One search for one objective."""
    from cluster.run.search import run_search

    run.searches[objective], run.objectives[objective] = run_search(run, objective)


def train_short(run: Run) -> None:
    """What short trainings decide: the arm ``training``, and which of the other searches' favourites is the best."""
    if run.config.training is None:
        return
    from cluster.run.short_training import check_stage, search_stage

    if run.config.check is not None:
        for objective in run.config.objectives:
            check_stage(run, objective)
    if TRAINING in run.config.arms:
        search_stage(run)
