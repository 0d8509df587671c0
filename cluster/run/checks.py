"""What can be known before the first stage: called by a run before it measures, and by ``aost check``.

A run would find all of this too, after measuring, searching and the first trainings.
"""

import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from cluster.executors.loggers import require_installed
from cluster.executors.session import require_resources
from cluster.recipes import TRAINING
from cluster.run.arms import Truth, make_arm
from cluster.run.config import CHECKED, RunConfig
from finegpr.catalog import Catalog
from finegpr.device import resolve_device
from finegpr.errors import ConfigError, InputError, WriteError
from finegpr.reid.config import TrainConfig
from finegpr.weights import VGG, find_weights
from search.objectives import OBJECTIVES, SEES_PEOPLE
from search.space import Space


def check_config(
    config: RunConfig, *, serial: bool, connect: Callable[[], AbstractContextManager[Any]] | None = None
) -> None:
    """What the config asks of this machine: weights, devices, workers, loggers; of a Ray cluster that is to be joined
    too, where ``connect`` gives it.

    Raises the AostError that the run would end with.
    """
    from finegpr.measuring import networks
    from finegpr.reid import model

    networks.load_weights(find_weights(VGG, config.measure.weights, seed=config.measure.seed))
    trainings = trainings_of(config)
    for train in {train.model: train for train in trainings}.values():
        model.load_weights(find_weights(train.model, train.weights))
    config.train.require_shares(config.workers)
    if config.training is not None:
        config.training.train.require_shares(config.training.workers)
    address = config.ray.address or os.environ.get("RAY_ADDRESS")
    if serial or address is None:
        for train in trainings:
            resolve_device(train.device)
    if serial:
        return
    require_installed(config.loggers)
    if config.training is not None:
        require_installed(config.training.loggers)
    if address is not None:
        if connect is not None:
            with connect() as ray:
                for what, cpus, gpus, count in _needs(config):
                    require_resources(ray, cpus=cpus, gpus=gpus, what=what, count=count)
        return
    import torch

    cores, cards = config.ray.num_cpus or os.cpu_count() or 1, torch.cuda.device_count()
    for what, cpus, gpus, count in _needs(config):
        for name, needed, here in (("CPU", cpus * count, cores), ("GPU", gpus * count, cards)):
            if needed > here:
                raise ConfigError(
                    f"{what} needs {needed:g} {name}, this machine has {here}; ask for fewer workers or threads, or "
                    "join a cluster by ray.address"
                )


def trainings_of(config: RunConfig) -> list[TrainConfig]:
    """The kinds of training: the arms', and the short ones."""
    return [config.train] if config.training is None else [config.train, config.training.train]


def _needs(config: RunConfig) -> Iterator[tuple[str, float, float, int]]:
    """Every piece of work by its name: CPUs and GPUs of each of so many parts."""
    yield "measuring", config.measure.threads, 0, 1
    yield "a training", config.train.threads, 1 if config.gpu else 0, config.workers
    if (short := config.training) is not None:
        yield "a short training", short.train.threads, short.gpus, short.workers


def check_data(config: RunConfig, target: Catalog, space: Space, truth: Truth | None) -> None:
    """What the images and labels have to allow: photos to imitate, arms, objectives, and what trainings are scored on.

    Raises the AostError that the run would end with.
    """
    if not len(target.part("train")):
        raise InputError(f"target {target.root} has no training photos; expected some in bounding_box_train")
    _check_arms(config, space, truth)
    _check_exam(target)
    if (short := config.training) is not None:
        from search.objectives.training import scored_on

        scored_on(short.objective_config, target)
        if short.score == "mAP":
            _check_sides(target, "validation_query", "validation_gallery")


def _check_arms(config: RunConfig, space: Space, truth: Truth | None) -> None:
    for name in config.objectives:
        if space.groups is not None and name not in SEES_PEOPLE and OBJECTIVES[name].kernel is None:
            names = ", ".join(space.config.identity_attributes)
            raise ConfigError(
                f"objective {name} does not see who is in the images, but identity_attributes has {names}; "
                f"leave them out, or search by one of {', '.join(SEES_PEOPLE)}"
            )
    for name in config.arms:
        if name in config.objectives or name == TRAINING or name.startswith(CHECKED):
            continue
        arm = make_arm(name, config, space, truth, {})
        if not arm.takes_all:
            space.mask(arm.subset)
            # A selector draws from everything: what everything does not hold, it cannot choose.
            replace(arm, selector=False).require_budget(space)


def _check_exam(target: Catalog) -> None:
    """A target without query and gallery is not scored; one with only one of them is a mistake."""
    if len(target.part("query")) or len(target.part("gallery")):
        _check_sides(target, "query", "gallery")


def unscored(config: RunConfig, target: Catalog) -> str | None:
    """What to know before a run on a target without labels, and what can be done; None where the arms are scored."""
    if len(target.part("query")):
        return None
    from finegpr.reid.label_free import MIN_PHOTOS, unlabelled_photos

    note = (
        f"{target.title} has no query and gallery, so the arms are trained and not scored: nothing will say which of "
        "them trains the better model"
    )
    if config.training is not None and config.training.score == "label_free":
        return f"{note}; the arm {TRAINING} goes by a score without labels (results/label-free.md)"
    photos = len(unlabelled_photos(target))
    if photos < MIN_PHOTOS:
        return f"{note}; with {MIN_PHOTOS} photos or more, now {photos}, training.score=label_free could"
    return (
        f"{note}. A score without labels ranks short trainings on the photos alone (results/label-free.md): add the "
        f"arm {TRAINING}, and training: {{score: label_free, train: {{recipe: quick}}}}"
    )


def _check_sides(target: Catalog, query: str, gallery: str) -> None:
    """Raises InputError where no query has a match in the gallery, by the rule of scoring itself."""
    from finegpr.reid.evaluate import evaluate_ranking

    sides = {name: target.part(name) for name in (query, gallery)}
    for name, side in sides.items():
        if not len(side):
            other = gallery if name == query else query
            raise InputError(f"{target.title} has images in its part {other} and none in {name}; scoring needs both")
    # People as each camera saw them: what else there is repeats these.
    (queries, cameras), (people, places) = (
        side.frame[["identity", "camera"]].drop_duplicates().to_numpy().T for side in sides.values()
    )
    try:
        evaluate_ranking(np.zeros((len(queries), len(people)), np.float32), queries, people, cameras, places)
    except InputError as error:
        raise InputError(f"{target.title} cannot score a training: {error}") from None


def check_output(folder: Path, *, needed: int) -> None:
    """Raises WriteError where ``folder``, which may not be there yet, cannot be written or has no room for ``needed``
    bytes."""
    place = folder.absolute()
    while not place.exists():
        place = place.parent
    if not place.is_dir() or not os.access(place, os.W_OK | os.X_OK):
        raise WriteError(f"cannot write {folder}: {place} is no folder that may be written; choose another --output")
    if (free := shutil.disk_usage(place).free) < needed:
        raise WriteError(
            f"{folder} has {free / 1e9:.1f} GB free, about {needed / 1e9:.1f} GB are needed; free space or choose "
            "another --output"
        )
