"""The stages of a run in which short trainings decide: a search by training, and the check of other searches' best."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from cluster.progress import Tick, progress, say
from cluster.run.config import CHECKED, TRAINING
from cluster.search_by_training import (
    TRUE_RANKING,
    Shown,
    failures,
    in_words,
    search_by_training,
    tell_ranking,
    tell_spent,
)
from cluster.search_measured import SUBSET
from finegpr.mixture import choice_from_record
from finegpr.reid.model import load_weights
from finegpr.storage import read_json, write_bytes, write_json
from finegpr.weights import find_weights
from search.analysis.compare import RankAgreement
from search.analysis.subset_diff import describe, searched
from search.analysis.true_ranking import rank_by_training
from search.objectives.training import RunAll, TrainingObjective, run_in_turn, training_objective
from search.space import SpaceConfig

if TYPE_CHECKING:
    from cluster.run.state import Run

SHORT = "short-trainings"


def search_stage(run: "Run") -> None:
    """The arm ``training``: subsets are scored by short trainings on the target's validation part."""
    config = run.config.training
    assert config is not None
    search = run.config.search.model_copy(
        update={
            "objective": TRAINING,
            "evaluations": config.evaluations,
            "seed": run.config.search.seed + run.config.seed,
        }
    )
    settings = {**search.model_dump(mode="json"), **_settings(run)}
    with run.folder.stage(f"search/{TRAINING}", inputs=_inputs(run), config=settings, journal=True) as (stage, fields):
        with progress("searching by training", "subsets") as tick:
            shown = Shown(tick, config.evaluations, unit=config.score)
            with _objective(run, shown.batch, idle=stage.done) as objective:
                result = search_by_training(search, settings, objective, stage.folder, shown.generation)
        write_bytes(stage.folder / SUBSET, (result.subset.to_json() + "\n").encode())
        fields |= {"num_evaluations": result.num_evaluations, "score": result.score}
        failed = failures(objective, [trial.subset for trial in result.history if trial.status == "failed"])
    run.notes += [
        f"A short training failed, so its subset is never the best: {key}: {why}" for key, why in failed.items()
    ]
    tell_spent(objective)
    say(f"  training: {in_words(result.score, objective.unit)} of {objective.validation.title}")
    say(f"  {describe(result.subset, searched(run.space))}")
    run.searches[TRAINING], run.by_training = result, objective


def check_stage(run: "Run", name: str) -> None:
    """Train the favourites of the search by ``name``, and random subsets, and keep the best as an arm's."""
    from cluster.run.state import note

    config = run.config.check
    assert config is not None
    settings = {**config.model_dump(mode="json"), **_settings(run)}
    inputs = {**_inputs(run), "search": run.searches[name].subset.key, "measure": run.keys["measure"]}
    with run.folder.stage(f"check/{name}", inputs=inputs, config=settings) as (stage, fields):
        path = stage.folder / TRUE_RANKING
        if not stage.done:
            with (
                progress(f"checking {name} by training", "trainings") as tick,
                _objective(run, tick, idle=False) as objective,
            ):
                ranking = rank_by_training(config, run.searches[name].history, run.objectives[name], objective)
            tell_ranking(ranking, objective)
            write_json(path, ranking.to_record())
            fields["num_trainings"] = len(ranking.trained) * len(config.seeds)
        record = read_json(path)
    for each in record["trained"]:
        if each["mAP"] is None:
            note(run, f"a short training of {name}'s {each['arm']} failed, so it is never the best")
    best = record["trained"][0]
    say(f"  {name}: best by training is {best['arm']}, mAP {best['mAP']:.1%}")
    run.checked[CHECKED + name] = choice_from_record(best["subset"])
    agreement: dict[str, Any] = record["agreement"]
    columns = {name: tuple(agreement[name]) for name in ("arms", "scores", "truths")}
    run.rankings.append(RankAgreement(**{**agreement, **columns}))


@contextmanager
def _objective(run: "Run", tick: Tick, *, idle: bool) -> Iterator[TrainingObjective]:
    """The training objective of all searches and checks of a run; ``idle`` where nothing is left to be trained."""
    config = run.config.training
    assert config is not None
    folder = run.folder.root / SHORT

    def make(run_all: RunAll) -> TrainingObjective:
        return training_objective(
            config.objective_config,
            run.space,
            run.source,
            run.target,
            seed=run.config.seed,
            folder=folder,
            run=run_all,
        )

    if idle:
        yield make(run_in_turn)
        return
    with run.executor.trainings(config, folder, tick) as run_all:
        yield make(run_all)


def _settings(run: "Run") -> dict[str, Any]:
    """What decides a short training, where it runs left out."""
    config = run.config
    assert config.training is not None
    settings = {"training": config.training.objective_config.model_dump(mode="json")}
    settings["budget"] = config.budget.model_dump(mode="json")
    if config.space != SpaceConfig():
        settings["space"] = config.space.model_dump(mode="json")
    return settings


def _inputs(run: "Run") -> dict[str, Any]:
    config = run.config.training
    assert config is not None
    weights = find_weights(config.train.model, config.train.weights)
    load_weights(weights)  # a file of another network is refused here, before a journal is begun with it
    return {
        "source": run.source.fingerprint,
        "target": run.target.fingerprint,
        "weights": weights.sha256,
    }
