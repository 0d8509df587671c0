"""The verb ``search`` where true trainings decide: in the search itself, or over the best subsets of a surrogate's."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from cluster import options
from cluster.executors.loggers import require_installed
from cluster.executors.session import RayConfig, announce, ray_session
from cluster.executors.short_trainings import TuneTrainings
from cluster.executors.training_config import TrainingVerbConfig
from cluster.outputs import replacing
from cluster.progress import Tick, progress, say
from cluster.search_by_training import (
    Shown,
    failures,
    in_words,
    search_by_training,
    tell_ranking,
    tell_spent,
)
from cluster.search_measured import BEST_TRAINED, SUBSET, TRUE_RANKING, SearchVerbConfig
from finegpr.atomic import write_bytes
from finegpr.catalog import Catalog
from finegpr.reid.queries import count_queries
from finegpr.storage import write_json
from search.analysis.subset_diff import describe, searched
from search.analysis.true_ranking import CheckConfig, rank_by_training
from search.loop import SearchResult
from search.objectives import CellObjective
from search.objectives.training import VALIDATION_PARTS, RunAll, TrainingObjective, run_in_turn, training_objective
from search.space import Space


def by_training(
    verb: options.Search, config: SearchVerbConfig, training: TrainingVerbConfig, source: Catalog, space: Space
) -> dict[str, Any]:
    """Search by short trainings on the target that is given for validation."""
    assert verb.validation is not None
    with progress("searching by training", "subsets") as tick:
        shown = Shown(tick, config.evaluations, unit=training.score)
        with trainings(verb, config, training, space, source, verb.validation, shown.batch) as objective:
            settings = config.model_dump(mode="json")
            result = search_by_training(config, settings, objective, verb.output, shown.generation)
    write_bytes(verb.output / SUBSET, (result.subset.to_json() + "\n").encode())
    tell_spent(objective)
    failed = failures(objective, [trial.subset for trial in result.history if trial.status == "failed"])
    reached = in_words(result.score, objective.unit)
    say(f"training: {reached} of {objective.validation.title} -> {verb.output / SUBSET}")
    words = describe(result.subset, searched(space))
    say(f"  {words}")
    return {"subset": str(verb.output / SUBSET), "score": result.score, "choice": words, "failed": failed}


def check(
    verb: options.Search,
    config: SearchVerbConfig,
    training: TrainingVerbConfig,
    check: CheckConfig,
    source: Catalog,
    result: SearchResult,
    surrogate: CellObjective,
) -> dict[str, Any]:
    """Train the best subsets of a search, and random ones, and say whether both rankings agree."""
    assert verb.validation is not None
    with (
        progress("checking by training", "trainings") as tick,
        trainings(verb, config, training, surrogate.space, source, verb.validation, tick) as objective,
    ):
        ranking = rank_by_training(check, result.history, surrogate, objective)
    with replacing(verb.output / TRUE_RANKING):
        write_json(verb.output / TRUE_RANKING, ranking.to_record())
    best = ranking.trained[0]
    with replacing(verb.output / BEST_TRAINED):
        write_bytes(verb.output / BEST_TRAINED, (best.subset.to_json() + "\n").encode())
    tell_ranking(ranking, objective)
    say(f"best by training: {best.arm} -> {verb.output / BEST_TRAINED}")
    return {
        "true_ranking": str(verb.output / TRUE_RANKING),
        "spearman": ranking.agreement.spearman,
        "kendall": ranking.agreement.kendall,
        "best": best.arm,
        "mAP": best.mean_ap,
    }


@contextmanager
def trainings(
    verb: options.Search,
    config: SearchVerbConfig,
    training: TrainingVerbConfig,
    space: Space,
    source: Catalog,
    validation: Path,
    tick: Tick | None = None,
) -> Iterator[TrainingObjective]:
    """The training objective, whose trainings run here or, while this lasts, on Ray; ``tick`` is told of a batch."""

    def make(run: RunAll) -> TrainingObjective:
        return training_objective(
            training.objective_config,
            space,
            source,
            Catalog.read(validation),
            seed=config.seed,
            folder=verb.output,
            run=run,
        )

    if verb.serial:
        say("serial: trainings in this process, without Ray")
        yield _told(make(run_in_turn))
        return
    require_installed(training.loggers)
    with ray_session(RayConfig()) as ray:
        announce(ray)
        with TuneTrainings(ray, training, folder=verb.output, tick=tick) as run:
            yield _told(make(run))


def _told(objective: TrainingObjective) -> TrainingObjective:
    """Say which queries its scores will be of, unless all."""
    if objective.unit == "mAP":
        queries = count_queries(*(objective.validation.part(name) for name in VALIDATION_PARTS))
        if queries.sentence is not None:
            say(f"  {objective.validation.title}: {queries.sentence}")
    return objective
