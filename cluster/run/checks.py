"""What can be known before the first stage: called by a run before it measures, and by ``aost check``.

A run would find all of this too, after measuring, searching and the first trainings.
"""

import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from cluster.executors.loggers import require_installed
from cluster.executors.session import require_resources
from cluster.outputs import differences
from cluster.recipes import TRAINING
from cluster.run.arms import Arm, Truth, make_arm
from cluster.run.config import ALL, CHECKED, EVERYTHING, RunConfig
from cluster.run.folder import PLAN, begun_otherwise
from finegpr.catalog import Catalog
from finegpr.device import resolve_device
from finegpr.errors import ConfigError, InputError, WriteError
from finegpr.parts import refuse_overlap
from finegpr.reid.config import TrainConfig
from finegpr.reid.queries import count_queries
from finegpr.storage import path_part, read_json
from finegpr.weights import find_weights
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

    networks.load_network(config.measure.find_weights())
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


def check_begun(config: RunConfig, root: Path) -> None:
    """Whether the searches that lie in ``root`` go on. Raises the ConfigError that the run would end with."""
    for name in config.objectives:
        plan = root / "search" / path_part(name) / PLAN
        if plan.exists() and (changes := differences(read_json(plan)["config"], config.search_settings(name))):
            raise ConfigError(begun_otherwise(plan.parent, changes))


def trainings_of(config: RunConfig) -> list[TrainConfig]:
    """The kinds of training: the arms', and the short ones."""
    return [config.train] if config.training is None else [config.train, config.training.train]


def _needs(config: RunConfig) -> Iterator[tuple[str, float, float, int]]:
    """Every piece of work by its name: CPUs and GPUs of each of so many parts."""
    yield "measuring", config.measure.threads, 0, 1
    yield "a training", config.train.threads, 1 if config.gpu else 0, config.workers
    if (short := config.training) is not None:
        yield "a short training", short.train.threads, short.gpus, short.workers


def check_data(config: RunConfig, source: Catalog, target: Catalog, space: Space, truth: Truth | None) -> list[str]:
    """What the images and labels have to allow: photos to imitate, arms, objectives, and what trainings are scored on,
    which none of them may have seen.

    Returns what should be known of the scores to come, in lines. Raises the AostError that the run would end with.
    """
    if not len(target.part("train")):
        raise InputError(f"target {target.root} has no training photos; expected some in bounding_box_train")
    arms = _check_arms(config, space, truth)
    _check_people(config, source, space, arms)
    refuse_overlap(source, target)
    sides = [("query", "gallery")] if len(target.part("query", "gallery")) else []  # without both it is not scored
    if (short := config.training) is not None:
        from search.objectives.training import VALIDATION_PARTS, scored_on

        scored_on(short.objective_config, target)
        if short.score == "mAP":
            sides.append(VALIDATION_PARTS)
    return [
        f"{target.title}, {query}: {said}" for query, gallery in sides if (said := _check_sides(target, query, gallery))
    ]


def _check_arms(config: RunConfig, space: Space, truth: Truth | None) -> list[Arm]:
    """The arms that no search decides, whose manifests can be drawn."""
    arms = []
    for name in config.objectives:
        if space.groups is not None and name not in SEES_PEOPLE and OBJECTIVES[name].kernel is None:
            names = ", ".join(space.config.identity_attributes)
            raise ConfigError(
                f"objective {name} does not see who is in the images, but identity_attributes has {names}; "
                f"leave them out, or search by one of {', '.join(SEES_PEOPLE)}"
            )
    for name in config.arms:
        if is_searched(name, config):
            continue
        arm = make_arm(name, config, space, truth, {})
        space.mask(arm.subset)
        # A selector draws from everything: what everything does not hold, it cannot choose.
        replace(arm, selector=False).require_budget(space)
        arms.append(arm)
    return arms


def is_searched(arm: str, config: RunConfig) -> bool:
    """Whether a search or a check decides what an arm trains on."""
    base = arm.removeprefix(ALL)
    return base in config.objectives or base == TRAINING or base.startswith(CHECKED)


def _check_people(config: RunConfig, source: Catalog, space: Space, arms: Sequence[Arm]) -> None:
    """A training tells people apart: it needs two of them, and by a triplet loss two images of one of them.

    Images are spread evenly over people, so that there are two of one only where there are more images than people.
    Raises InputError or ConfigError where a training of an arm that is known, or of all arms, has too few.
    """
    images = np.unique(source.identities[source.identities > 0], return_counts=True)[1]
    if len(images) < 2:
        raise InputError(
            f"source {source.title} shows {len(images)} identities and a training needs at least 2; is this the column "
            "of persons?"
        )
    budget = config.budget
    with_pairs = next((train.loss for train in trainings_of(config) if train.needs_pairs), None)
    advice = f"loss {with_pairs} needs 2 images of one identity: set train.loss=softmax"
    if min(budget.images, budget.identities or 2) < 2:
        raise ConfigError(
            f"budget is {budget.images} images of {budget.identities or 'all'} identities, and a training needs at "
            "least 2 identities; raise it"
        )
    if with_pairs and budget.images <= (budget.identities or 0):
        raise ConfigError(
            f"budget is {budget.images} images of {budget.identities} identities, one of each, and {advice}, or give "
            "it more images than identities"
        )
    for arm in arms:
        if arm.takes_all:
            shown = np.unique(source.identities[arm.all_rows(source, space)], return_counts=True)[1]
            if len(shown) < 2:
                raise InputError(_too_few(arm, len(shown)))
            if with_pairs and shown.max() < 2:
                raise InputError(f"arm {arm.name} has one image of each of {len(shown)} identities, and {advice}")
            continue
        mask = space.mask(arm.subset)[None]
        people = int(space.sampler.num_identities(space.cell_masks(mask), space.group_masks(mask))[0])
        if people < 2:
            raise InputError(_too_few(arm, people))
        if with_pairs and not arm.selector and budget.identities is None and budget.images <= people:
            raise InputError(
                f"arm {arm.name} trains on {budget.images} images of as many identities, one of each, and {advice}, "
                f"give budget.images more than {people}, or set budget.identities, which also limits what can be chosen"
            )


def _too_few(arm: Arm, people: int) -> str:
    noun = "identity" if people == 1 else "identities"
    return f"arm {arm.name} shows {people} {noun} and a training needs at least 2; give its subset more values"


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
        f"arm {TRAINING}, and training: {{score: label_free, train: {{recipe: seconds}}}}"
    )


def unbudgeted(config: RunConfig) -> str | None:
    """What to know of the arms that take all images, and not the budget's number; None without such an arm."""
    arms = [arm for arm in config.arms if arm == EVERYTHING or arm.startswith(ALL)]
    if not arms:
        return None
    several = len(arms) > 1
    what = f"Arm{'s' if several else ''} {', '.join(arms)} take{'' if several else 's'} all images"
    if config.budget.identities is None:
        what += " and identities instead of the budget"
    else:
        what += f" of the {config.budget.identities} identities instead of {config.budget.images}"
    length = "training steps" if config.train.steps else "epochs, so for more steps where there are more images"
    return f"{what}, for as many {length}."


def _check_sides(target: Catalog, query: str, gallery: str) -> str | None:
    """What should be known of scores by these parts. Raises InputError where there can be none."""
    sides = {name: target.part(name) for name in (query, gallery)}
    for name, side in sides.items():
        if not len(side):
            other = gallery if name == query else query
            raise InputError(f"{target.title} has images in its part {other} and none in {name}; scoring needs both")
    try:
        return count_queries(sides[query], sides[gallery]).sentence
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
