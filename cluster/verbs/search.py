"""The verb ``search`` where true trainings decide: in the search itself, or over the best subsets of a surrogate's."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from cluster import options
from cluster.executors.loggers import require_installed
from cluster.executors.session import RayConfig, announce, ray_session
from cluster.executors.short_trainings import TrainingVerbConfig, TuneTrainings
from cluster.given import only_target
from cluster.progress import Tick, progress, say
from cluster.run.config import TRAINING, with_recipe_of_training
from cluster.search_by_training import (
    BEST_TRAINED,
    TRUE_RANKING,
    Shown,
    failures,
    in_words,
    search_by_training,
    tell_ranking,
    tell_spent,
)
from cluster.search_measured import SUBSET, MeasuredSearch, SearchVerbConfig
from cluster.settings import override, validate
from finegpr.catalog import Catalog
from finegpr.errors import ConfigError
from finegpr.measuring.results import read_measurements
from finegpr.storage import locked, write_bytes, write_json
from finegpr.weighing import Weighing
from search.analysis.subset_diff import describe, searched
from search.analysis.true_ranking import CheckConfig, rank_by_training
from search.measured import Measured
from search.objectives import make_objective
from search.objectives.training import RunAll, TrainingObjective, run_in_turn, training_objective
from search.space import Space, make_space


class TrainedSearchConfig(SearchVerbConfig):
    """The settings of the verb ``search``, and those of the true trainings that it makes, if any."""

    training: TrainingVerbConfig | None = None
    check: CheckConfig | None = None


def search(verb: options.Search) -> dict[str, Any]:
    """Search by measurements or by training, and train the best subsets where a labelled target is given."""
    config = search_config(override({}, verb.set))
    by_training = config.objective == TRAINING
    if config.training is not None and config.training.score != "mAP" and not by_training:
        raise ConfigError("the best subsets are ranked by true mAP; leave training.score out, or search by training")
    if verb.validation is None and (by_training or config.training is not None or config.check is not None):
        raise ConfigError("trainings are scored on a target, best on a labelled validation part; give --validation")
    if verb.validation is not None and config.training is None:
        raise ConfigError("--validation is for true trainings; say which by --set training.train.recipe=quick")
    if by_training and (unused := sorted({"rounds", "scale", "check"} & config.model_fields_set)):
        raise ConfigError(f"{unused[0]} has no meaning for objective=training, which goes by no measurement")
    if config.training is not None and config.training.timeout_seconds is not None and verb.serial:
        raise ConfigError("training.timeout_seconds ends a worker process, and --serial has none; leave one out")
    given = config.training.model_fields_set if config.training is not None else set()
    if not by_training and (unused := sorted({"rungs", "gpu_seconds"} & given)):
        raise ConfigError(f"training.{unused[0]} is for objective=training; the best subsets are trained whole")
    source = Catalog.read(verb.catalog)
    with locked(verb.output):
        return _by_training(verb, config, source) if by_training else _by_measurements(verb, config, source)


def search_config(mapping: dict[str, Any]) -> TrainedSearchConfig:
    """The settings, with the training's recipe filled in. Raises ConfigError."""
    return validate(TrainedSearchConfig, with_recipe_of_training(mapping, "--set"), "--set")


def _space(config: SearchVerbConfig, source: Catalog) -> Space:
    return make_space(source, config.budget, seed=config.seed, attributes=config.attributes, config=config.space)


def _by_measurements(verb: options.Search, config: TrainedSearchConfig, source: Catalog) -> dict[str, Any]:
    plain = SearchVerbConfig.model_validate(config.model_dump(exclude={"training", "check"}))
    measurements = read_measurements(verb.measurements)
    space = _space(config, source)
    measured = Measured(
        measurements=measurements,
        cells=space.cells,
        identity=source.identities,
        target=only_target(measurements, verb.target),
        weighing=Weighing(scale=config.scale),
    )
    settings = {
        **plain.model_dump(mode="json"),
        "target": measured.target,
        "measurements": measured.fingerprint,
    }
    work = MeasuredSearch(config=plain, space=space, measured=measured, folder=verb.output, settings=settings)
    result, surrogate = work.run(config.rounds)
    say(f"{config.objective}: {result.score:.6g} -> {verb.output / SUBSET}")
    told = {"subset": str(verb.output / SUBSET), "score": result.score}
    if verb.validation is None or config.training is None:
        return told
    if config.rounds is not None:  # whose last round may have seen fewer photos
        surrogate = make_objective(config.objective, space, measured)
    with (
        progress("checking by training", "trainings") as tick,
        _trainings(verb, config, config.training, space, source, verb.validation, tick) as training,
    ):
        ranking = rank_by_training(config.check or CheckConfig(), result.history, surrogate, training)
    write_json(verb.output / TRUE_RANKING, ranking.to_record())
    best = ranking.trained[0]
    write_bytes(verb.output / BEST_TRAINED, (best.subset.to_json() + "\n").encode())
    tell_ranking(ranking, training)
    say(f"best by training: {best.arm} -> {verb.output / BEST_TRAINED}")
    return {
        **told,
        "true_ranking": str(verb.output / TRUE_RANKING),
        "spearman": ranking.agreement.spearman,
        "kendall": ranking.agreement.kendall,
        "best": best.arm,
        "mAP": best.mean_ap,
    }


def _by_training(verb: options.Search, config: TrainedSearchConfig, source: Catalog) -> dict[str, Any]:
    assert config.training is not None
    assert verb.validation is not None
    space = _space(config, source)
    with progress("searching by training", "subsets") as tick:
        shown = Shown(tick, config.evaluations, unit=config.training.score)
        with _trainings(verb, config, config.training, space, source, verb.validation, shown.batch) as objective:
            settings = config.model_dump(mode="json", exclude={"training", "check"})
            result = search_by_training(config, settings, objective, verb.output, shown.generation)
    write_bytes(verb.output / SUBSET, (result.subset.to_json() + "\n").encode())
    tell_spent(objective)
    failed = failures(objective, [trial.subset for trial in result.history if trial.status == "failed"])
    reached = in_words(result.score, objective.unit)
    say(f"training: {reached} of {objective.validation.title} -> {verb.output / SUBSET}")
    say(f"  {describe(result.subset, searched(space))}")
    return {"subset": str(verb.output / SUBSET), "score": result.score, "failed": failed}


@contextmanager
def _trainings(
    verb: options.Search,
    config: TrainedSearchConfig,
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
        yield make(run_in_turn)
        return
    require_installed(training.loggers)
    with ray_session(RayConfig()) as ray:
        announce(ray)
        with TuneTrainings(ray, training, folder=verb.output, tick=tick) as run:
            yield make(run)
