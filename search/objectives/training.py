"""The objective ``training``: a subset is worth what a short re-ID training on its manifest reaches on the target: mAP
on the validation part, or a label-free score.

Each training has a folder of its own, named by all that decides its result, and commits that result there. So the same
search, killed and run again, trains nothing twice, and it does not matter where a training ran.
"""

import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import floor
from pathlib import Path
from typing import Any, get_args

import numpy as np

from finegpr.arrays import Floats
from finegpr.catalog import Catalog
from finegpr.errors import ConfigError, StateError, write_anew
from finegpr.parts import refuse_overlap
from finegpr.reid.config import TrainConfig
from finegpr.reid.data import ImageStore
from finegpr.reid.job import JobResult, TrainingJob, run_job
from finegpr.reid.label_free import MIN_PHOTOS, unlabelled_photos
from finegpr.reid.model import load_weights
from finegpr.reid.queries import count_queries
from finegpr.reid.sampler import batches_per_epoch
from finegpr.storage import MARKER, canonical_hash, read_marker, write_marker
from finegpr.subset import Subset
from finegpr.weights import find_weights
from search.objectives.halving import halve, halving_cost
from search.objectives.training_config import Score, TrainingConfig
from search.space import Space

FORMAT = 1  # raised by hand when the same training would give another result
TRAININGS = "trainings"
VALIDATION = "validation.parquet"
IMAGES = "images"
WORK = "work"
VALIDATION_PARTS = ("validation_query", "validation_gallery")


@dataclass(frozen=True, kw_only=True)
class ShortTraining(TrainingJob):
    """The training of one ``subset``, whose result is all that is kept of it.

    ``num_trained`` are the images that it passes through the network, each pass counted.
    """

    subset: Subset
    num_trained: int

    @property
    def work(self) -> Path:
        """What exists only until the result is committed: the manifest, and the model with its states."""
        return self.folder / WORK

    @property
    def model(self) -> Path:
        return self.work / "model"

    def result(self) -> JobResult | None:
        """What was committed, None while nothing was. Raises StateError when damaged or of another training."""
        marker = read_marker(self.folder)
        if marker is None:
            return None
        if marker.get("key") != self.key:
            raise StateError(f"{self.folder} holds another training; {write_anew(self.folder / MARKER)}")
        metrics = {name: marker[name] for name in get_args(Score) if marker[name] is not None}
        return JobResult(metrics=metrics, failure=marker["failure"])

    def commit(self, result: JobResult) -> None:
        """Write the result, then drop the model: a search makes thousands."""
        scores = {name: result.metrics.get(name) for name in get_args(Score)}
        fields = {**scores, "failure": result.failure, "num_trained": self.num_trained}
        write_marker(self.folder, {"key": self.key, "subset": self.subset.to_record(), **fields})
        shutil.rmtree(self.work, ignore_errors=True)


RunAll = Callable[[Sequence[ShortTraining]], None]


def run_in_turn(trainings: Sequence[ShortTraining]) -> None:
    """One after another in this process: the reference."""
    for training in trainings:
        run_job(training)


@dataclass(frozen=True, kw_only=True, eq=False)
class TrainingObjective:
    """What ``config.score`` says, of the target, after a training on the subset's manifest; ``unit`` names it. Make it
    by ``training_objective``. ``validation`` is what trainings are scored on: the validation part, or photos.

    The score of a subset that fell out at a rung is that of its last training, shorter than the others'. ``run``
    commits a result for every training it is given, wherever it runs them.
    """

    config: TrainingConfig
    space: Space
    source: Catalog
    validation: Catalog
    seed: int
    folder: Path
    weights: str
    images: Path | None
    run: RunAll = run_in_turn
    name: str = "training"
    higher_is_better: bool = True

    @property
    def unit(self) -> str:
        return self.config.score

    def score(self, subsets: list[Subset]) -> Floats:
        """Scores (n,) of one generation, NaN where the training failed. Trains what was not trained before."""

        def train(places: list[int], config: TrainConfig) -> Floats:
            trainings = [self.training(subsets[place], config) for place in places]
            pending = [training for training in trainings if training.result() is None]
            for training in pending:
                rows = self.space.sampler.draw(training.subset, seed=self.seed)
                self.source.take(rows).write(training.manifest)
            if pending:
                self.run(pending)
            return np.array([_result(training).metrics.get(self.config.score, np.nan) for training in trainings])

        return halve(len(subsets), self.config.lengths, train)

    def training(self, subset: Subset, config: TrainConfig) -> ShortTraining:
        """The training of a subset at one length."""
        key = canonical_hash(
            {
                "format": FORMAT,
                "subset": subset.key,
                "train": config.model_dump(mode="json"),
                "score": self.config.score,
                "seed": self.seed,
                "space": self.space.fingerprint,
                "source": self.source.fingerprint,
                "validation": self.validation.fingerprint,
                "weights": self.weights,
            }
        )
        folder = self.folder / TRAININGS / key[:24]
        return ShortTraining(
            label=subset.key,
            key=key,
            folder=folder,
            config=config,
            seed=self.seed,
            manifest=folder / WORK / "manifest.parquet",
            source_root=str(self.source.root),
            exam=self.folder / VALIDATION,
            exam_root=str(self.validation.root),
            score=self.config.score,
            images=self.images,
            subset=subset,
            num_trained=self._num_trained(config),
        )

    def _num_trained(self, config: TrainConfig) -> int:
        """Images that pass through the network, the last, incomplete batch of an epoch left out."""
        batches = config.steps or (config.epochs or 0) * batches_per_epoch(self.space.budget.images, config.batch_size)
        return batches * config.batch_size

    def affordable(self, evaluations: int) -> int:
        """How many of ``evaluations`` subsets ``gpu_seconds`` pays for, however they fall into generations.

        Raises ConfigError when it does not pay for one.
        """
        config = self.config
        if config.gpu_seconds is None or config.seconds_per_image is None:
            return evaluations
        costs = [self._num_trained(length) * config.seconds_per_image for length in config.lengths]
        dearest = max(halving_cost(num, costs) / num for num in range(1, evaluations + 1))
        # A budget of exactly so many trainings must pay for them, whatever its last bit.
        affordable = min(evaluations, floor(config.gpu_seconds / dearest + 1e-9))
        if affordable < 1:
            raise ConfigError(
                f"gpu_seconds is {config.gpu_seconds:g}, and one subset costs up to {dearest:g}; "
                "raise it, or train for fewer steps"
            )
        return affordable

    def failure(self, subset: Subset) -> str | None:
        """Why a subset has no score, None where none of its trainings failed."""
        results = [self.training(subset, config).result() for config in self.config.lengths]
        return next((result.failure for result in results if result is not None and result.failure), None)

    def settings(self) -> dict[str, Any]:
        """All that decides a score beside the space, JSON-ready: what a journal holds of it."""
        return {
            "training": self.config.model_dump(mode="json"),
            "training_seed": self.seed,
            "source": self.source.fingerprint,
            "validation": self.validation.fingerprint,
            "weights": self.weights,
        }

    def spent(self) -> "Spent":
        """What all trainings in the folder cost by the cost model, those of earlier runs too."""
        markers = [read_marker(path) for path in sorted((self.folder / TRAININGS).glob("*"))]
        num_trained = [marker["num_trained"] for marker in markers if marker is not None]
        per_image = self.config.seconds_per_image
        return Spent(
            num_trainings=len(num_trained),
            num_images=sum(num_trained),
            gpu_seconds=None if per_image is None else per_image * sum(num_trained),
        )


@dataclass(frozen=True, kw_only=True)
class Spent:
    """``num_images`` went through the network, each pass counted; ``gpu_seconds`` by the cost model, if any."""

    num_trainings: int
    num_images: int
    gpu_seconds: float | None


def training_objective(
    config: TrainingConfig,
    space: Space,
    source: Catalog,
    target: Catalog,
    *,
    seed: int,
    folder: Path,
    run: RunAll = run_in_turn,
) -> TrainingObjective:
    """The objective over the manifests of ``space``, which is one of ``source``; trainings live in ``folder``.

    All images are decoded once, when that fits the training's cache. Raises ConfigError for a target without a labelled
    validation part, or for a label-free score with too few training images: its test part is never looked at; and
    InputError where images of the source are among its query or gallery images, or no validation query has a match.
    """
    validation = scored_on(config, target)
    refuse_overlap(source, target)
    if config.score != "label_free":
        count_queries(*(validation.part(name) for name in VALIDATION_PARTS))
    # Absolute, because a worker process may live in another folder.
    folder = folder.resolve()
    validation.write(folder / VALIDATION)
    train = config.train
    drawn = source.take(np.flatnonzero(source.identities > 0))
    num_images = len(drawn) + len(validation)
    images = None
    if num_images * 3 * train.height * train.width <= train.cache_bytes:
        images = folder / IMAGES
        ImageStore.create(images, [drawn, validation], height=train.height, width=train.width)
    weights = find_weights(train.model, train.weights)
    load_weights(weights)  # a file of another network is refused here, not by every training
    return TrainingObjective(
        config=config,
        space=space,
        source=source,
        validation=validation,
        seed=seed,
        folder=folder,
        weights=weights.sha256,
        images=images,
        run=run,
    )


def scored_on(config: TrainingConfig, target: Catalog) -> Catalog:
    """The images of the target that trainings are scored on. Raises ConfigError where there are none, or too few."""
    return _photos(target) if config.score == "label_free" else _validation_part(target)


def _validation_part(target: Catalog) -> Catalog:
    validation = target.part(*VALIDATION_PARTS)
    for name in VALIDATION_PARTS:
        if not len(validation.part(name)):
            raise ConfigError(
                f"{target.title} has no images in its part {name}, by which trainings are scored; give a target with "
                "a labelled validation part, or set training.score=label_free, which needs no labels"
            )
    return validation


def _photos(target: Catalog) -> Catalog:
    photos = unlabelled_photos(target)
    if len(photos) < MIN_PHOTOS:
        raise ConfigError(
            f"training.score=label_free needs {MIN_PHOTOS} images in the part train of {target.title}, got "
            f"{len(photos)}; give more photos, or search by another objective"
        )
    return photos


def _result(training: ShortTraining) -> JobResult:
    result = training.result()
    if result is None:
        raise StateError(f"training {training.label} left no result in {training.folder}; run the same command again")
    return result
