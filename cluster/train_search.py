"""The verb ``search`` where true trainings decide: in the search itself, or over the best subsets of a surrogate's."""

import os
import shutil
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import Field

from cluster import cli
from cluster.config import train_config
from cluster.progress import Tick, progress, say
from cluster.runtime import RayConfig, announce, ray_session, require_resources
from cluster.searching import SUBSET, SearchVerbConfig, search_measured
from cluster.strict_yaml import override, validate
from cluster.tune import MAX_FAILURES, try_trials
from cluster.verbs import only_target
from finegpr.catalog import Catalog
from finegpr.errors import ConfigError
from finegpr.measure import read_measurements
from finegpr.reid.train import fit
from finegpr.storage import locked, write_bytes, write_json
from search.loop import Generation, SearchResult
from search.loop import search as search_space
from search.mixture import make_space
from search.objectives import make_objective
from search.optimizer import make_optimizer
from search.space import Space
from search.subset_diff import describe, searched
from search.training import (
    Fit,
    RunAll,
    Training,
    TrainingConfig,
    TrainingObjective,
    TrainingResult,
    run_in_turn,
    run_training,
    training_objective,
)
from search.true_ranking import CheckConfig, TrueRanking, rank_by_training

TRAINING = "training"
TRUE_RANKING = "true-ranking.json"
BEST_TRAINED = "subset-trained.json"
LATE = "late"


class TrainingVerbConfig(TrainingConfig):
    """A training objective and where it runs: ``gpus`` of each training, whole or a fraction, and after how many
    seconds one counts as failed (None: never)."""

    gpus: float = Field(default=0, ge=0)
    timeout_seconds: float | None = Field(default=None, gt=0)


class TrainedSearchConfig(SearchVerbConfig):
    """The settings of the verb ``search``, and those of the true trainings that it makes, if any."""

    training: TrainingVerbConfig | None = None
    check: CheckConfig | None = None


class TuneTrainings:
    """Runs trainings as trials of Ray Tune, as many at a time as the cluster has room for.

    ``storage`` is for Tune's own files; the caller is its only writer. Raises ConfigError at once when the cluster has
    fewer CPUs or GPUs than one training asks for.
    """

    def __init__(
        self, ray: Any, *, cpus: float, gpus: float, storage: Path, timeout_seconds: float | None, fit: Fit = fit
    ) -> None:
        require_resources(ray, cpus=cpus, gpus=gpus, what="a training trial")
        for left_behind in storage.glob(".tune-*"):
            shutil.rmtree(left_behind, ignore_errors=True)
        self._ray, self._cpus, self._gpus, self._storage = ray, cpus, gpus, storage
        self._timeout_seconds, self._fit = timeout_seconds, fit

    def __call__(self, trainings: Sequence[Training]) -> None:
        fit, timeout_seconds = self._fit, self._timeout_seconds

        def run(trial: dict[str, Any]) -> dict[str, float]:
            run_watched(trial["training"], fit=fit, timeout_seconds=timeout_seconds)
            return {}

        lost = try_trials(
            self._ray,
            [{"label": training.label, "training": training} for training in trainings],
            run,
            cpus=self._cpus,
            gpus=self._gpus,
            storage=self._storage / f".tune-{time.time_ns()}",
            tick=_no_tick,
        )
        for training in trainings:
            if lost and training.result() is None:
                failure = f"lost with its process {MAX_FAILURES + 1} times: {lost[0]}"
                training.commit(TrainingResult(mean_ap=None, failure=failure))


def _no_tick(done: int, total: int, note: str = "") -> None:
    """A generation is short beside the search, whose own progress is shown."""


def run_watched(training: Training, *, fit: Fit, timeout_seconds: float | None) -> TrainingResult:
    """``run_training`` in a process of its own, which is ended when the time is up: nothing else stops a training that
    hangs. Run again, as Tune does, such a training is committed as failed."""
    late = training.work / LATE
    if late.exists() and training.result() is None:
        training.commit(TrainingResult(mean_ap=None, failure=f"took more than {late.read_text()} s"))
    if timeout_seconds is None or training.result() is not None:
        return run_training(training, fit=fit)

    def give_up() -> None:
        write_bytes(late, f"{timeout_seconds:g}".encode())
        os._exit(1)

    watchdog = threading.Timer(timeout_seconds, give_up)
    watchdog.daemon = True
    watchdog.start()
    try:
        return run_training(training, fit=fit)
    finally:
        watchdog.cancel()


def search_verb(verb: cli.Search) -> dict[str, Any]:
    """Search by measurements or by training, and train the best subsets where a labelled target is given."""
    config = search_config(override({}, verb.set))
    by_training = config.objective == TRAINING
    if verb.validation is None and (by_training or config.training is not None or config.check is not None):
        raise ConfigError("trainings are scored on the validation part of a labelled target; name it by --validation")
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
    if isinstance(training := mapping.get(TRAINING), dict):
        train = training.get("train", {})
        if isinstance(train, dict):
            training = {**training, "train": train_config(train, "--set training.train").model_dump(mode="json")}
        mapping = {**mapping, TRAINING: training}
    return validate(TrainedSearchConfig, mapping, "--set")


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
    with _trainings(verb, config, config.training, space, source, verb.validation) as training:
        ranking = rank_by_training(config.check or CheckConfig(), result.history, surrogate, training)
    write_json(verb.output / TRUE_RANKING, ranking.to_record())
    best = ranking.trained[0]
    write_bytes(verb.output / BEST_TRAINED, (best.subset.to_json() + "\n").encode())
    _tell_ranking(ranking, training)
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
    with _trainings(verb, config, config.training, space, source, verb.validation) as objective:
        result = search_by_training(config, objective, verb.output)
    write_bytes(verb.output / SUBSET, (result.subset.to_json() + "\n").encode())
    _tell_spent(objective)
    failed = _failures(objective, [trial.subset for trial in result.history if trial.status == "failed"])
    say(f"training: mAP {result.score:.1%} of {objective.validation.title} -> {verb.output / SUBSET}")
    say(f"  {describe(result.subset, searched(space))}")
    return {"subset": str(verb.output / SUBSET), "score": result.score, "failed": failed}


def search_by_training(config: TrainedSearchConfig, objective: TrainingObjective, folder: Path) -> SearchResult:
    """Search by true trainings; the journal in ``folder`` and the trainings' results make the same call resume."""
    evaluations = objective.affordable(config.evaluations)
    if evaluations < config.evaluations:
        say(f"  gpu_seconds pays for {evaluations} of {config.evaluations} subsets")
    with progress("searching by training", "subsets") as tick:
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
            # Where trainings run and when they are given up does not belong to what is searched.
            config={**config.model_dump(mode="json", exclude={"training", "check"}), **objective.settings()},
            num_random=0,
            progress=lambda generation: _show(tick, generation, evaluations),
        )


def _show(tick: Tick, generation: Generation, total: int) -> None:
    best = "" if generation.best is None else f"best mAP {generation.best:.1%}"
    tick(generation.num_evaluations, total, best)


@contextmanager
def _trainings(
    verb: cli.Search,
    config: TrainedSearchConfig,
    training: TrainingVerbConfig,
    space: Space,
    source: Catalog,
    validation: Path,
) -> Iterator[TrainingObjective]:
    """The training objective, whose trainings run here or, while this lasts, on Ray."""

    def make(run: RunAll) -> TrainingObjective:
        plain = TrainingConfig.model_validate(training.model_dump(exclude={"gpus", "timeout_seconds"}))
        target = Catalog.read(validation)
        return training_objective(plain, space, source, target, seed=config.seed, folder=verb.output, run=run)

    if verb.serial:
        say("serial: trainings in this process, without Ray")
        yield make(run_in_turn)
        return
    with ray_session(RayConfig()) as ray:
        announce(ray)
        yield make(
            TuneTrainings(
                ray,
                cpus=float(training.train.threads),
                gpus=training.gpus,
                storage=verb.output,
                timeout_seconds=training.timeout_seconds,
            )
        )


def _failures(objective: TrainingObjective, subsets: Sequence[Any]) -> dict[str, str]:
    """Say which subsets failed and why, and return it by subset."""
    reasons = {subset.key: objective.failure(subset) or "no reason was kept" for subset in subsets}
    for key, reason in reasons.items():
        say(f"  failed, so never the best: {key}: {reason}")
    return reasons


def _tell_spent(objective: TrainingObjective) -> None:
    spent = objective.spent()
    cost = "" if spent.gpu_seconds is None else f", {spent.gpu_seconds:.0f} GPU-seconds by the cost model"
    say(f"  {spent.num_trainings} trainings, {spent.num_images} images through the network{cost}")


def _tell_ranking(ranking: TrueRanking, objective: TrainingObjective) -> None:
    for each in ranking.trained:
        mean_ap = "failed" if each.mean_ap is None else f"mAP {each.mean_ap:.1%}"
        say(f"  {each.arm:10} {mean_ap:10} {ranking.agreement.objective} {each.score:.5g}")
    found = ranking.agreement
    if found.spearman is None or found.kendall is None:
        say("  no rank correlation: fewer than three subsets, or all alike")
    else:
        say(f"  {found.objective} against training: Spearman {found.spearman:.2f}, Kendall {found.kendall:.2f}")
    _tell_spent(objective)


__all__ = ["TrainedSearchConfig", "TrainingVerbConfig", "TuneTrainings", "search_by_training", "search_verb"]
