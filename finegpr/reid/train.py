"""Training a re-ID network: the same ``fit`` in a process, in an actor and under torch.distributed."""

import math
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from finegpr.arrays import Bools, Ints
from finegpr.catalog import Catalog
from finegpr.device import limited_threads
from finegpr.errors import AostError, InputError, StateError
from finegpr.reid.ahead import decoding_processes
from finegpr.reid.checkpoint import load_state
from finegpr.reid.config import TrainConfig
from finegpr.reid.data import ImageStore, Pixels, TrainingSet, find_bad, open_pixels
from finegpr.reid.distributed import Ranks
from finegpr.reid.evaluate import evaluate_embedder
from finegpr.reid.label_free import METRICS as LABEL_FREE_METRICS
from finegpr.reid.label_free import is_labelled, score_photos
from finegpr.reid.losses import Outputs, parse_losses
from finegpr.reid.model import Embedder, load_weights
from finegpr.reid.queries import count_queries
from finegpr.reid.resume import StateFolder
from finegpr.reid.sampler import batches_per_epoch, flips, identity_batches, share, shuffled_batches
from finegpr.weights import Weights, find_weights

METRICS = ("mAP", "rank-1", "rank-5", "rank-10", "mINP", "num_valid")


class Diverged(AostError, ValueError):  # noqa: N818 (an outcome of a trial, not a fault of the program)
    """The loss became NaN or infinite; the caller counts the training as failed."""


@dataclass(frozen=True, kw_only=True)
class Epoch:
    """One epoch: means of ``loss`` and of training ``accuracy`` over its batches, and validation ``metrics`` if any:
    METRICS, or LABEL_FREE_METRICS where the validation has no labels.

    ``epoch`` and ``step`` count from 1 and say how many are done; ``learning_rate`` is that of the last step.
    """

    epoch: int
    step: int
    loss: float
    accuracy: float
    learning_rate: float
    metrics: dict[str, float] | None

    def numbers(self) -> dict[str, float]:
        """All of it, as one table of numbers to be watched."""
        numbers = {"epoch": self.epoch, "step": self.step, "loss": self.loss, "accuracy": self.accuracy}
        return {**numbers, "learning_rate": self.learning_rate, **(self.metrics or {})}


@dataclass(frozen=True, kw_only=True)
class FitResult:
    """A finished training. ``seconds`` is this call's own time: 0 when ``output`` held the finished training already.

    ``num_images`` are the good images trained on, ``quarantined`` the (path, reason) of the others; ``device`` is the
    one that was taken, ``weights`` says where the first parameters came from.
    """

    checkpoint: Path
    history: tuple[Epoch, ...]
    num_images: int
    num_identities: int
    quarantined: tuple[tuple[str, str], ...]
    weights: str
    device: str
    seconds: float


class _Network(nn.Module):
    """Embedder and classifier together: uint8 images to pooled features and logits."""

    def __init__(self, embedder: Embedder, num_classes: int) -> None:
        super().__init__()
        self.embedder = embedder
        self.classifier = nn.Linear(embedder.dimension, num_classes, bias=False)
        nn.init.normal_(self.classifier.weight, std=0.001)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        features = self.embedder(images)
        return features, self.classifier(features)


def fit(
    config: TrainConfig,
    train: Catalog,
    *,
    validation: Catalog | None = None,
    output: Path,
    report: Callable[[Epoch], None] | None = None,
    seed: int,
    images: ImageStore | None = None,
) -> FitResult:
    """Train on every image of ``train`` and write ``output``/model.safetensors; ``report`` is called after each epoch.

    ``validation`` holds parts validation_query and validation_gallery, or else query and gallery; one with none of them
    has no labels, and is scored label-free. ``images`` must hold both catalogs' images. The same config, data and seed
    give the same history and the same bytes on one machine; a training that was interrupted goes on from its last saved
    epoch. Under an initialised torch.distributed group each process works on its share of the same batches and the
    first one writes.
    Raises Diverged, InputError (data), ConfigError (device, shares) and StateError (``output`` is of another training).
    """
    started = time.monotonic()
    ranks = Ranks.current()
    place = ranks.device(config.device)
    config.require_shares(ranks.num_ranks)
    weights = find_weights(config.model, config.weights)
    inputs = {
        "seed": seed,
        "train": train.fingerprint,
        "validation": validation.fingerprint if validation is not None else None,
        "weights": weights.sha256,
    }
    state = StateFolder(output, config=config.model_dump(mode="json"), inputs=inputs)
    facts = state.finished()
    if facts is None:
        with (
            limited_threads(config.threads),
            torch.random.fork_rng(devices=[]),
            torch.backends.cudnn.flags(enabled=True, benchmark=False, deterministic=True),
        ):
            torch.manual_seed(seed)
            run = _Run(config, train, validation, images, state, weights=weights, ranks=ranks, place=place, seed=seed)
            run.epochs(report)
            facts = run.facts()
            if ranks.is_first:
                state.finish(run.parameters(), facts)
            ranks.wait()
    return FitResult(
        checkpoint=state.checkpoint,
        history=tuple(Epoch(**epoch) for epoch in facts["history"]),
        num_images=facts["num_images"],
        num_identities=len(facts["identities"]),
        quarantined=tuple((path, reason) for path, reason in facts["quarantined"]),
        weights=facts["weights"],
        device=facts["device"],
        seconds=time.monotonic() - started,
    )


class _Run:
    """One training in this process: its data, network and optimizer, and the history so far."""

    def __init__(
        self,
        config: TrainConfig,
        train: Catalog,
        validation: Catalog | None,
        images: ImageStore | None,
        state: StateFolder,
        *,
        weights: Weights,
        ranks: Ranks,
        place: torch.device,
        seed: int,
    ) -> None:
        self.config, self.validation, self.images, self.weights = config, validation, images, weights
        self.ranks, self.place, self.seed, self.state = ranks, place, seed, state
        if validation is not None and is_labelled(validation):
            count_queries(*validation_parts(validation))  # what cannot be scored is known before the first step
        self.workers = decoding_processes(config.workers, place)
        size = (config.height, config.width)
        pixels = open_pixels(train, height=size[0], width=size[1], images=images, cache_bytes=config.cache_bytes)
        self.data = TrainingSet.open(train, pixels, self._bad(pixels, len(train)))
        self.data.require_good(pixels.bad)
        if ranks.is_first and state.load_bad() is None:
            state.save_bad(self.data.quarantined)
        if config.needs_pairs:
            self.batches = identity_batches(
                self.data.labels, batch_size=config.batch_size, per_identity=config.per_identity, seed=seed
            )
        else:
            self.batches = shuffled_batches(len(self.data.labels), batch_size=config.batch_size, seed=seed)
        self.epoch_steps = batches_per_epoch(len(self.data.labels), config.batch_size)
        self.num_steps = config.steps or self.epoch_steps * (config.epochs or 0)
        self.embedder = Embedder(model=config.model, size=size)
        if (first := load_weights(weights)) is not None:
            self.embedder.backbone.load_state_dict(first, strict=False)  # complete but for what is its own
        self.network = _Network(self.embedder, len(self.data.identities))
        self.replica = ranks.replicate(self.network, place)
        self.optimizer = torch.optim.Adam(self.network.parameters(), lr=config.learning_rate, fused=True)
        self.losses = parse_losses(config.loss)
        self.history: list[Epoch] = []

    def _bad(self, pixels: Pixels, num_images: int) -> dict[int, str]:
        """Which rows are bad: found once, before the first step, by all processes, each looking at its part of them.

        So streamed and cached images, any number of processes and a resumed training leave out the same ones.
        """
        known = self.state.load_bad()
        rows = np.arange(self.ranks.rank, num_images, self.ranks.num_ranks)
        own = find_bad(pixels, rows, workers=self.workers) if known is None else sorted(known.items())
        return dict(sorted(found for bad in self.ranks.gather(own) for found in bad))

    def epochs(self, report: Callable[[Epoch], None] | None) -> None:
        """Train from the saved state, if any, to the end; save and report after each epoch."""
        state = self.state
        self._resume()
        saved = time.monotonic()
        for epoch in range(len(self.history), math.ceil(self.num_steps / self.epoch_steps)):
            self.history.append(self._epoch(epoch))
            if report is not None:
                report(self.history[-1])
            is_last = self.history[-1].step == self.num_steps
            if self.ranks.is_first and not is_last and time.monotonic() - saved >= self.config.save_seconds:
                state.save(self._tensors(), {"history": [asdict(record) for record in self.history]})
                saved = time.monotonic()

    def _epoch(self, epoch: int) -> Epoch:
        first_step = epoch * self.epoch_steps
        num_batches = min(self.epoch_steps, self.num_steps - first_step)
        order = [
            share(batch, rank=self.ranks.rank, num_ranks=self.ranks.num_ranks)
            for batch in islice(self.batches(epoch), num_batches)
        ]
        totals = torch.zeros(2, dtype=torch.float64, device=self.place)
        self.replica.train()
        for number, pixels in enumerate(self.data.batches(order, workers=self.workers)):
            mirrored = flips(self.config.batch_size, self.config.flip, seed=self.seed, epoch=epoch, batch=number)
            mirrored = share(mirrored, rank=self.ranks.rank, num_ranks=self.ranks.num_ranks)
            labels = self.data.labels[order[number]]
            totals += self._step(first_step + number, pixels, mirrored, labels)
        loss, accuracy = (self.ranks.mean(totals) / num_batches).tolist()
        step = first_step + num_batches
        if not math.isfinite(loss):
            raise Diverged(
                f"the training loss became {loss} within the first {step} steps at learning rate "
                f"{self.config.learning_rate}; choose a smaller one"
            )
        every = self.config.validate_epochs
        is_due = step == self.num_steps or (every > 0 and (epoch + 1) % every == 0)
        return Epoch(
            epoch=epoch + 1,
            step=step,
            loss=loss,
            accuracy=accuracy,
            learning_rate=self.config.rate(step - 1, self.num_steps),
            metrics=self._validate() if is_due and self.validation is not None else None,
        )

    def _step(self, step: int, pixels: NDArray[np.uint8], mirrored: Bools, labels: Ints) -> Tensor:
        """One step of the optimizer; loss and accuracy (2,) of the batch, on the device."""
        images = torch.from_numpy(pixels).to(self.place, non_blocking=True)
        flip = torch.from_numpy(mirrored).to(self.place, non_blocking=True)
        targets = torch.from_numpy(labels).to(self.place, non_blocking=True)
        features, logits = self.replica(torch.where(flip[:, None, None, None], images.flip(3), images))
        outputs = Outputs(features=features, logits=logits)
        loss = torch.stack([loss.value(outputs, targets) for loss in self.losses]).sum()
        for group in self.optimizer.param_groups:
            group["lr"] = self.config.rate(step, self.num_steps)
        self.optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        self.optimizer.step()
        accuracy = (logits.detach().argmax(dim=1) == targets).double().mean()
        return torch.stack([loss.detach().double(), accuracy])

    def _validate(self) -> dict[str, float]:
        """Metrics on the validation catalog, computed by the first process and told to all."""
        assert self.validation is not None
        names = METRICS if is_labelled(self.validation) else LABEL_FREE_METRICS
        values = torch.zeros(len(names), dtype=torch.float64, device=self.place)
        if self.ranks.is_first:
            metrics = self._metrics(self.validation)
            values = torch.tensor([metrics[name] for name in names], dtype=torch.float64, device=self.place)
        return dict(zip(names, self.ranks.from_first(values).tolist(), strict=True))

    def _metrics(self, validation: Catalog) -> dict[str, float]:
        if not is_labelled(validation):
            return score_photos(self.embedder, validation, images=self.images).metrics()
        query, gallery = validation_parts(validation)
        return evaluate_embedder(self.embedder, query, gallery, images=self.images).metrics

    def parameters(self) -> dict[str, Tensor]:
        """What a finished checkpoint holds: the embedder's tensors and the classifier's."""
        return {**self.embedder.state_dict(), "classifier.weight": self.network.classifier.weight}

    def _tensors(self) -> dict[str, Tensor]:
        """What it takes to go on: parameters and the optimizer's moments."""
        moments = self.optimizer.state_dict()["state"]
        return {
            **{f"network.{name}": value for name, value in self.network.state_dict().items()},
            **{f"adam.{i}.{name}": value for i, entry in moments.items() for name, value in entry.items()},
        }

    def _resume(self) -> None:
        state = self.state
        found = state.load()
        num_epochs = 0 if found is None else len(found[1]["history"])
        agreed = self.ranks.mean(torch.tensor(float(num_epochs), device=self.place)).item()
        if agreed != num_epochs:
            raise StateError(
                f"process {self.ranks.rank} found {num_epochs} finished epochs in {state.checkpoint.parent}, others "
                "another number; give an output folder that every process can read"
            )
        if found is None:
            return
        arrays, facts = found
        load_state(self.network, arrays, prefix="network.")
        moments: dict[int, dict[str, Tensor]] = {}
        for number, parameter in enumerate(self.network.parameters()):
            entry = {name: torch.from_numpy(arrays[f"adam.{number}.{name}"]) for name in ("exp_avg", "exp_avg_sq")}
            moments[number] = {
                **{name: value.reshape(parameter.shape) for name, value in entry.items()},
                "step": torch.tensor(arrays[f"adam.{number}.step"][0]),
            }
        groups = self.optimizer.state_dict()["param_groups"]
        self.optimizer.load_state_dict({"state": moments, "param_groups": groups})
        self.history = [Epoch(**record) for record in facts["history"]]

    def facts(self) -> dict[str, Any]:
        """What is written into the finished checkpoint beside the tensors."""
        size = {"height": self.config.height, "width": self.config.width}
        return {
            "embedder": {"model": self.config.model, **size},
            "history": [asdict(epoch) for epoch in self.history],
            "title": self.data.catalog.title,
            "identities": self.data.identities.tolist(),
            "num_images": len(self.data.catalog) - len(self.data.quarantined),
            "quarantined": self.data.bad_files,
            "weights": self.weights.description,
            "device": self.place.type,
        }


def validation_parts(validation: Catalog) -> tuple[Catalog, Catalog]:
    """Query and gallery: the parts named for validation where there are any, else those of the test."""
    query, gallery = validation.part("validation_query"), validation.part("validation_gallery")
    if not len(query) and not len(gallery):
        query, gallery = validation.part("query"), validation.part("gallery")
    if not len(query) or not len(gallery):
        raise InputError(f"validation needs a query and a gallery part, got {len(query)} and {len(gallery)} images")
    return query, gallery
