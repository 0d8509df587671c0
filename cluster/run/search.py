"""Running a search on measurements, and what the report says of it: the choice, its history, the surrogate's worth."""

import time
from typing import TYPE_CHECKING

import numpy as np

from cluster.progress import say
from cluster.search_measured import _Job
from finegpr.storage import read_json
from search.analysis.subset_diff import describe, searched
from search.loop import SearchResult
from search.objectives import CellObjective
from search.objectives.mean_distance import embed_distance
from search.objectives.surrogate import SurrogateReport, fit_surrogate
from search.rounds import ROUNDS
from search.space import SpaceConfig

if TYPE_CHECKING:
    from cluster.run.state import Run


def run_search(run: "Run", name: str) -> tuple[SearchResult, CellObjective]:
    """The search stage of one objective in a run."""
    from cluster.run.state import TARGET

    config = run.config.search.model_copy(update={"objective": name, "seed": run.config.search.seed + run.config.seed})
    settings = {**config.model_dump(mode="json"), "budget": run.config.budget.model_dump(mode="json")}
    settings["scale"] = run.config.measure.scale
    if run.config.space != SpaceConfig():
        settings["space"] = run.config.space.model_dump(mode="json")
    if run.config.rounds is not None:
        settings["rounds"] = run.config.rounds.model_dump(mode="json")
    stage = run.folder.open(f"search/{name}", inputs={"measure": run.keys["measure"]}, config=settings, journal=True)
    job = _Job(
        config=config,
        space=run.space,
        identity=run.source.frame["identity"].to_numpy(dtype=np.int64),
        measurements=run.measurements,
        target=TARGET,
        scale=run.config.measure.scale,
        folder=stage.folder,
        settings=settings,
    )
    started = time.monotonic()
    # A finished search replays its journal: the same asks and tells, without a score computed again.
    result, objective = job.run(run.config.rounds)
    if not stage.done:
        stage.finish(seconds=time.monotonic() - started, num_evaluations=result.num_evaluations, score=result.score)
    if run.config.rounds is not None:
        run.notes.append(f"{name}: {read_json(stage.folder / ROUNDS)['summary']}.")
    if result.notice:
        say(f"  {result.notice}")
    say(
        f"  {name}: {result.score:.5g} {objective.unit} (median random {result.random_median:.5g}), "
        f"{result.num_evaluations} subsets in {result.num_generations} generations of {result.population}"
    )
    say(f"  {describe(result.subset, searched(run.space))}")
    return result, objective


def validate_surrogate(run: "Run") -> SurrogateReport:
    """How well a surrogate predicts the distance terms of cells, value pairs and identities that it has not seen."""
    from cluster.run.state import TARGET

    identity = run.source.frame["identity"].to_numpy(dtype=np.int64)
    scale = run.config.measure.scale
    embedding = embed_distance(run.measurements, run.space.cells, identity, target=TARGET, scale=scale)
    return fit_surrogate(run.space.cells, embedding.samples, seed=run.config.seed).report
