"""The verb ``search`` where true trainings decide: in the search itself, or over the best subsets of a surrogate's."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from cluster import cli
from cluster.executors.loggers import require_installed
from cluster.executors.session import RayConfig, announce, ray_session
from cluster.executors.short_trainings import TrainingVerbConfig, TuneTrainings
from cluster.progress import Tick, progress, say
from cluster.run.config import TRAINING, with_recipe_of_training
from cluster.run.search import SUBSET, SearchVerbConfig, search_measured
from cluster.settings import override, validate
from cluster.verbs.run import only_target
from finegpr.catalog import Catalog
from finegpr.errors import ConfigError
from finegpr.measuring.results import read_measurements
from finegpr.storage import locked, write_bytes, write_json
from search.analysis.subset_diff import describe, searched
from search.analysis.true_ranking import CheckConfig, TrueRanking, rank_by_training
from search.loop import Generation, SearchConfig, SearchResult
from search.loop import search as search_space
from search.objectives import make_objective
from search.objectives.training import RunAll, TrainingObjective, run_in_turn, training_objective
from search.optimizers import make_optimizer
from search.space import Space, make_space

TRUE_RANKING = "true-ranking.json"
BEST_TRAINED = "subset-trained.json"


class TrainedSearchConfig(SearchVerbConfig):
    """The settings of the verb ``search``, and those of the true trainings that it makes, if any."""

    training: TrainingVerbConfig | None = None
    check: CheckConfig | None = None


def search_verb(verb: cli.Search) -> dict[str, Any]:
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


def _by_measurements(verb: cli.Search, config: TrainedSearchConfig, source: Catalog) -> dict[str, Any]:
    plain = SearchVerbConfig.model_validate(config.model_dump(exclude={"training", "check"}))
    measurements = read_measurements(verb.measurements)
    target = only_target(measurements, verb.target)
    result = search_measured(plain, source, measurements, target=target, folder=verb.output)
    say(f"{config.objective}: {result.score:.6g} -> {verb.output / SUBSET}")
    told = {"subset": str(verb.output / SUBSET), "score": result.score}
    if verb.validation is None or config.training is None:
        return told
    space = _space(config, source)
    identity = source.frame["identity"].to_numpy(dtype=np.int64)
    surrogate = make_objective(config.objective, space, measurements, identity, target=target, scale=config.scale)
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


def _by_training(verb: cli.Search, config: TrainedSearchConfig, source: Catalog) -> dict[str, Any]:
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


def in_words(score: float, unit: str) -> str:
    """A score by training, with its name."""
    return f"mAP {score:.1%}" if unit == "mAP" else f"{unit} {score:.4g}"


class Shown:
    """What a person sees of a search by training: subsets done, the best, and how far its generation is."""

    def __init__(self, tick: Tick, evaluations: int, *, unit: str) -> None:
        self._tick = tick
        self._unit = unit
        self._evaluations = evaluations
        self._done = 0
        self._best = ""

    def generation(self, generation: Generation) -> None:
        self._done = generation.num_evaluations
        self._best = "" if generation.best is None else f"best {in_words(generation.best, self._unit)}"
        self._tick(self._done, self._evaluations, self._best)

    def batch(self, done: int, total: int, note: str = "") -> None:
        del note
        best = f"{self._best}, " if self._best else ""
        self._tick(self._done, self._evaluations, f"{best}{done} of {total} trainings of this generation")


def search_by_training(
    config: SearchConfig,
    settings: dict[str, Any],
    objective: TrainingObjective,
    folder: Path,
    show: Callable[[Generation], None],
) -> SearchResult:
    """Search by true trainings; the journal in ``folder`` and the trainings' results make the same call resume.

    ``settings`` is what the journal holds of the search, beside all that decides a training.
    """
    evaluations = objective.affordable(config.evaluations)
    if evaluations < config.evaluations:
        say(f"  gpu_seconds pays for {evaluations} of {config.evaluations} subsets")
    return search_space(
        objective.space,
        objective,
        make_optimizer(
            config.optimizer,
            objective.space,
            seed=config.seed,
            evaluations=evaluations,
            options=config.optimizer_options,
        ),
        folder,
        evaluations=evaluations,
        config={**settings, **objective.settings()},
        num_random=0,
        progress=show,
    )


@contextmanager
def _trainings(
    verb: cli.Search,
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


def failures(objective: TrainingObjective, subsets: Sequence[Any]) -> dict[str, str]:
    """Say which subsets failed and why, and return it by subset."""
    reasons = {subset.key: objective.failure(subset) or "no reason was kept" for subset in subsets}
    for key, reason in reasons.items():
        say(f"  failed, so never the best: {key}: {reason}")
    return reasons


def tell_spent(objective: TrainingObjective) -> None:
    spent = objective.spent()
    cost = "" if spent.gpu_seconds is None else f", {spent.gpu_seconds:.0f} GPU-seconds by the cost model"
    say(f"  {spent.num_trainings} trainings, {spent.num_images} images through the network{cost}")


def tell_ranking(ranking: TrueRanking, objective: TrainingObjective) -> None:
    for each in ranking.trained:
        mean_ap = "failed" if each.mean_ap is None else f"mAP {each.mean_ap:.1%}"
        say(f"  {each.arm:10} {mean_ap:10} {ranking.agreement.objective} {each.score:.5g}")
    found = ranking.agreement
    if found.spearman is None or found.kendall is None:
        say("  no rank correlation: fewer than three subsets, or all alike")
    else:
        say(f"  {found.objective} against training: Spearman {found.spearman:.2f}, Kendall {found.kendall:.2f}")
    tell_spent(objective)
