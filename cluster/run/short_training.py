"""The stages in which short trainings decide: a search by training, and the check of other searches' best."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from cluster.progress import Tick, progress, say
from cluster.recipes import TRAINING
from cluster.run.config import CHECKED, RunTrainingConfig
from cluster.run.state import SOURCE, TARGET, Found, Indexed, Run, ShortTrainings
from cluster.search_by_training import (
    Shown,
    failures,
    in_words,
    search_by_training,
    tell_ranking,
    tell_spent,
)
from cluster.search_measured import SUBSET, TRUE_RANKING
from finegpr.atomic import write_bytes
from finegpr.mixture import choice_from_record
from finegpr.reid.model import load_weights
from finegpr.storage import read_json, write_json
from finegpr.subset import Subset
from finegpr.weights import find_weights
from search.analysis.compare import RankAgreement
from search.analysis.subset_diff import describe, searched
from search.analysis.true_ranking import rank_by_training
from search.loop import SearchResult
from search.measured import Measured
from search.objectives.training import RunAll, TrainingObjective, run_in_turn, training_objective
from search.space import SpaceConfig

SHORT = "short-trainings"


def train_short(run: Run, indexed: Indexed, measured: Measured, found: Mapping[str, Found]) -> ShortTrainings:
    """The arm ``training``, and which of the other searches' favourites is the best, as far as they are asked for."""
    config = run.config.training
    if config is None:
        return ShortTrainings()
    checked: dict[str, Subset] = {}
    rankings: list[RankAgreement] = []
    if run.config.check is not None:
        for name, each in found.items():
            checked[CHECKED + name], agreement = _check(run, indexed, measured, config, name, each)
            rankings.append(agreement)
    by_training = _search(run, indexed, config) if TRAINING in run.config.choosers else None
    return ShortTrainings(search=by_training, checked=checked, rankings=tuple(rankings))


def _search(run: Run, indexed: Indexed, config: RunTrainingConfig) -> tuple[SearchResult, TrainingObjective]:
    """Subsets are scored by short trainings on the target's validation part, or without labels on its photos."""
    search = run.config.search.model_copy(update={"objective": TRAINING, "evaluations": config.evaluations})
    settings = {**search.model_dump(mode="json"), **_settings(run, config)}
    inputs = _inputs(indexed, config)
    with run.folder.stage("search", TRAINING, inputs=inputs, config=settings, journal=True) as (stage, fields):
        with progress("searching by training", "subsets") as tick:
            shown = Shown(tick, config.evaluations, unit=config.score)
            with _objective(run, indexed, config, shown.batch, idle=stage.done) as objective:
                result = search_by_training(search, settings, objective, stage.folder, shown.generation)
        write_bytes(stage.folder / SUBSET, (result.subset.to_json() + "\n").encode())
        fields |= {"num_evaluations": result.num_evaluations, "score": result.score}
        failed = failures(objective, [trial.subset for trial in result.history if trial.status == "failed"])
    run.notes.extend(
        f"A short training failed, so its subset is never the best: {key}: {why}" for key, why in failed.items()
    )
    tell_spent(objective)
    say(f"  training: {in_words(result.score, objective.unit)} of {objective.validation.title}")
    say(f"  {describe(result.subset, searched(indexed.space))}")
    return result, objective


def _check(
    run: Run, indexed: Indexed, measured: Measured, training: RunTrainingConfig, name: str, found: Found
) -> tuple[Subset, RankAgreement]:
    """Train the favourites of the search by ``name``, and random subsets: the best, and whether both rank alike."""
    config = run.config.check
    assert config is not None
    settings = {**config.model_dump(mode="json"), **_settings(run, training)}
    inputs = {**_inputs(indexed, training), "search": found.result.subset.key, "measure": measured.fingerprint}
    with run.folder.stage("check", name, inputs=inputs, config=settings) as (stage, fields):
        path = stage.folder / TRUE_RANKING
        if not stage.done:
            with (
                progress(f"checking {name} by training", "trainings") as tick,
                _objective(run, indexed, training, tick, idle=False) as objective,
            ):
                ranking = rank_by_training(config, found.result.history, found.objective, objective)
            tell_ranking(ranking, objective)
            write_json(path, ranking.to_record())
            fields["num_trainings"] = len(ranking.trained) * len(config.seeds)
        record = read_json(path)
    for each in record["trained"]:
        if each["mAP"] is None:
            run.note(f"a short training of {name}'s {each['arm']} failed, so it is never the best")
    best = record["trained"][0]
    say(f"  {name}: best by training is {best['arm']}, mAP {best['mAP']:.1%}")
    agreement: dict[str, Any] = record["agreement"]
    columns = {name: tuple(agreement[name]) for name in ("arms", "scores", "truths")}
    return choice_from_record(best["subset"]), RankAgreement(**{**agreement, **columns})


@contextmanager
def _objective(
    run: Run, indexed: Indexed, config: RunTrainingConfig, tick: Tick, *, idle: bool
) -> Iterator[TrainingObjective]:
    """The training objective of all searches and checks of a run; ``idle`` where nothing is left to be trained."""
    folder = run.folder.root / SHORT

    def make(run_all: RunAll) -> TrainingObjective:
        return training_objective(
            config.objective_config,
            indexed.space,
            indexed.source,
            indexed.target,
            seed=run.config.seed,
            folder=folder,
            run=run_all,
        )

    if idle:
        yield make(run_in_turn)
        return
    with run.executor.trainings(config, folder, tick) as run_all:
        yield make(run_all)


def _settings(run: Run, config: RunTrainingConfig) -> dict[str, Any]:
    """What decides a short training, where it runs left out."""
    settings = {"training": config.objective_config.model_dump(mode="json")}
    settings["budget"] = run.config.budget.model_dump(mode="json")
    if run.config.space != SpaceConfig():
        settings["space"] = run.config.space.model_dump(mode="json")
    return settings


def _inputs(indexed: Indexed, config: RunTrainingConfig) -> dict[str, Any]:
    weights = find_weights(config.train.model, config.train.weights)
    load_weights(weights)  # a file of another network is refused here, before a journal is begun with it
    return {
        SOURCE: indexed.source.fingerprint,
        TARGET: indexed.target.fingerprint,
        "images": indexed.images_key(SOURCE, indexed.source),
        "scored on": indexed.images_key(TARGET, indexed.target),
        "weights": weights.sha256,
    }
