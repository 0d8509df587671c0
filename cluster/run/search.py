"""The stages ``surrogate`` and ``search``: what the measurements say of cells nobody measured, and what is chosen."""

import time

from cluster.progress import say
from cluster.run.state import Found, Indexed, Run
from cluster.search_measured import MeasuredSearch, tell
from finegpr.storage import read_json
from search.measured import Measured
from search.objectives.mean_distance import embed_distance
from search.objectives.surrogate import SurrogateReport, fit_surrogate
from search.rounds import ROUNDS


def validate_surrogate(run: Run, measured: Measured) -> SurrogateReport:
    """How well a surrogate predicts the distance terms of cells, value pairs and identities that it has not seen,
    whether or not a search needs it to fill cells in."""
    started = time.monotonic()
    report = fit_surrogate(measured.cells, embed_distance(measured).samples, seed=run.config.seed).report
    say(f"surrogate validated in {time.monotonic() - started:.0f} s on {report.num_cells} cells")
    if not report.num_unmeasured:
        say("  every cell was measured: no search rests on its predictions")
    return report


def search(run: Run, indexed: Indexed, measured: Measured, name: str) -> Found:
    """The search by one objective."""
    config = run.config.search.model_copy(update={"objective": name})
    settings = run.config.search_settings(name)
    stage = run.folder.open("search", name, inputs={"measure": measured.fingerprint}, config=settings, journal=True)
    work = MeasuredSearch(config=config, space=indexed.space, measured=measured, folder=stage.folder, settings=settings)
    started = time.monotonic()
    # A finished search replays its journal: the same asks and tells, without a score computed again.
    result, objective = work.run(run.config.rounds)
    if not stage.done:
        stage.finish(seconds=time.monotonic() - started, num_evaluations=result.num_evaluations, score=result.score)
    if run.config.rounds is not None:
        run.notes.append(f"{name}: {read_json(stage.folder / ROUNDS)['summary']}.")
    tell(result, objective)
    return Found(result=result, objective=objective)
