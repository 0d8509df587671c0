"""What a run will take: images, trainings, seconds and bytes, each with how it was estimated.

Counts follow from config and catalogs. Seconds come from a moment's work on this machine: the measuring network on a
few images, a step of training on blank ones. They leave out searching, starting Ray, and what the disk adds.
"""

import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from cluster.recipes import TRAINING
from cluster.run.arms import Truth, make_arm
from cluster.run.checks import is_searched, trainings_of
from cluster.run.config import ALL, RunConfig
from finegpr.catalog import Catalog
from finegpr.measuring.config import MeasureConfig
from finegpr.reid.config import TrainConfig
from finegpr.reid.sampler import batches_per_epoch
from search.space import Space

TRIED = 4
"""Images in a batch that is timed; a training's steps are scaled from it to the whole batch."""


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """``amount`` of ``unit``, of ``what``, and how it was found."""

    what: str
    amount: float
    unit: str
    how: str


@dataclass(frozen=True, kw_only=True)
class Training:
    """One kind of training: how many of them at most, and the steps of all together."""

    what: str
    config: TrainConfig
    number: int
    steps: int


def measured_images(config: RunConfig, space: Space) -> tuple[int, str]:
    """How many source images are measured, and why so many."""
    images, most = space.cells.images, config.measure.images_per_cell
    number = int(images.sum() if most is None else np.minimum(images, most).sum())
    how = "all of known attributes" if most is None else f"at most {most} of each of {len(images)} cells"
    if config.adaptive is not None:
        return max(1, int(config.adaptive.ceiling * number)), f"at most: adaptive.ceiling of {number}"
    return number, how


@dataclass(frozen=True, kw_only=True)
class ArmSize:
    """How many images an arm trains on; ``at_most`` where a search is to decide it."""

    num_images: int
    at_most: bool = False

    def __str__(self) -> str:
        return f"{'at most ' if self.at_most else ''}{self.num_images} images"


def arm_sizes(config: RunConfig, source: Catalog, space: Space, truth: Truth | None) -> dict[str, ArmSize]:
    """How many images every arm trains on, by its name."""
    sizes = {}
    for name in config.arms:
        if name.startswith(ALL) and is_searched(name, config):
            sizes[name] = ArmSize(num_images=_most_chosen(config, source, space), at_most=True)
        elif not is_searched(name, config) and (arm := make_arm(name, config, space, truth, {})).takes_all:
            sizes[name] = ArmSize(num_images=len(arm.all_rows(source, space)))
        else:
            sizes[name] = ArmSize(num_images=config.budget.images)
    return sizes


def _most_chosen(config: RunConfig, source: Catalog, space: Space) -> int:
    """No choice of a search has more images than this: all of the people who have most, within the bounds."""
    allowed = np.append(space.cell_masks(np.ones((1, space.num_bits), dtype=bool))[0], False)
    people = source.identities[allowed[space.cells.of_row] & (source.identities > 0)]
    images = np.sort(np.unique(people, return_counts=True)[1])[::-1]
    return min(int(images[: config.budget.identities].sum()), int(config.budget.most * space.cells.images.sum()))


def trainings(config: RunConfig, sizes: Iterable[ArmSize]) -> list[Training]:
    """The trainings of arms of these sizes, and the short ones at most."""
    number, steps = len(config.arms) * len(config.seeds), 0
    for size in sizes:
        steps += len(config.seeds) * _steps(config.train, size.num_images)
    found = [Training(what="trainings of arms", config=config.train, number=number, steps=steps)]
    if (short := config.training) is not None:
        number = short.evaluations if TRAINING in config.choosers else 0
        if (check := config.check) is not None:
            number += len(config.objectives) * (check.top + check.random) * len(check.seeds)
        steps = number * _steps(short.train, config.budget.images)
        found.append(Training(what="short trainings, at most", config=short.train, number=number, steps=steps))
    return found


def _steps(config: TrainConfig, images: int) -> int:
    return config.steps or (config.epochs or 0) * batches_per_epoch(images, config.batch_size)


def estimates(
    config: RunConfig,
    source: Catalog,
    target: Catalog,
    space: Space,
    sizes: Mapping[str, ArmSize],
    *,
    processes: int,
) -> list[Estimate]:
    """Images, seconds and bytes of the stages that take long, with arms of these ``sizes``; ``processes`` work at
    once."""
    number, how = measured_images(config, space)
    photos = min(len(target.part("train")), config.measure.target_images or len(target))
    per_image = seconds_per_image(config.measure, source)
    at_once = max(1, processes // config.measure.threads)
    found = [
        Estimate(what="images measured", amount=number, unit="images", how=how),
        Estimate(
            what="measuring",
            amount=per_image * (photos + min(config.measure.basis_images, len(source)) + number / at_once),
            unit="s",
            how=f"{per_image:.3g} s an image, timed on {TRIED}; {photos} photos, a basis, shards in {at_once} at once",
        ),
    ]
    steps_of = {train.model_dump_json(): seconds_per_step(train) for train in trainings_of(config)}
    for each in trainings(config, sizes.values()):
        seconds, at_once = steps_of[each.config.model_dump_json()], max(1, processes // each.config.threads)
        found.append(
            Estimate(
                what=each.what,
                amount=seconds * each.steps / min(at_once, max(1, each.number)),
                unit="s",
                how=f"{each.number}, {each.steps} steps of {seconds:.3g} s, scaled from a batch of {TRIED} blank "
                f"images; {min(at_once, max(1, each.number))} at once; without scoring",
            )
        )
    found.append(Estimate(what="disk", amount=disk_bytes(config, source, target, space), unit="bytes", how=_DISK))
    return found


_DISK = "sketches and terms of every measured image, decoded images that fit cache_bytes, and three states a training"


def disk_bytes(config: RunConfig, source: Catalog, target: Catalog, space: Space) -> int:
    """What a run writes at most, about: measurements, decoded images, states of trainings."""
    measured = measured_images(config, space)[0]
    sketch = sum(config.measure.num_coordinates)
    total = measured * (2 * sketch + 3 * 4 * len(config.measure.terms) + 16)
    for each in trainings(config, ()):  # their number alone counts here
        images = 3 * each.config.height * each.config.width * (len(source) + len(target))
        total += images if images <= each.config.cache_bytes else 0
        # A state holds the parameters and two moments; the model is kept beside it.
        total += each.number * 4 * 4 * _num_parameters(each.config)
    return total


def _num_parameters(config: TrainConfig) -> int:
    import torch

    from finegpr.reid.model import Embedder

    with torch.device("meta"):
        embedder = Embedder(model=config.model, size=(config.height, config.width))
    return sum(each.numel() for each in embedder.parameters())


def seconds_per_image(config: MeasureConfig, source: Catalog) -> float:
    """Of the measuring network, decoding included, on a few images of the source; NaN where none can be read."""
    from finegpr.device import limited_threads
    from finegpr.measuring.networks import load_network
    from finegpr.measuring.reference import build_network, read_batches

    few = config.model_copy(update={"batch_size": TRIED})
    paths = source.take(np.arange(min(TRIED, len(source)))).file_paths()
    with limited_threads(config.threads):
        network = build_network(few, load_network(config.find_weights()))
        return _timed(lambda: list(read_batches(network, paths, few))) / len(paths)


def seconds_per_step(config: TrainConfig) -> float:
    """Of one step of training, forward and backward, on a whole batch."""
    import torch

    from finegpr.device import limited_threads, resolve_device
    from finegpr.reid.model import Embedder

    place = resolve_device(config.device)
    size = config.batch_size if place.type == "cuda" else min(TRIED, config.batch_size)
    with limited_threads(config.threads), torch.random.fork_rng(devices=[]):
        embedder = Embedder(model=config.model, size=(config.height, config.width)).to(place)
        batch = torch.zeros((size, 3, config.height, config.width), dtype=torch.uint8, device=place)

        def step() -> None:
            embedder(batch).square().sum().backward()
            if place.type == "cuda":
                torch.cuda.synchronize()

        return _timed(step) * config.batch_size / size


def _timed(work: Callable[[], Any]) -> float:
    """Seconds of the quickest of three times after the first, which also allocates and compiles."""
    work()
    seconds = []
    for _ in range(3):
        started = time.perf_counter()
        work()
        seconds.append(time.perf_counter() - started)
    return min(seconds)
