"""One training as a piece of work: train on a manifest, score on a target, commit. Any process may do it, and twice."""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from math import isfinite, nan
from pathlib import Path

from finegpr.catalog import Catalog
from finegpr.errors import AostError, InputError, StateError, UnreadableError, write_anew
from finegpr.faults import of_machine
from finegpr.reid.config import TrainConfig
from finegpr.reid.data import ImageStore
from finegpr.reid.evaluate import evaluate_checkpoint
from finegpr.reid.train import Diverged, Epoch, FitResult, fit
from finegpr.storage import ENDED, MARKER, read_marker, write_marker

METRICS = "metrics.json"

Fit = Callable[..., FitResult]


@dataclass(frozen=True, kw_only=True)
class JobResult:
    """What came of a training: ``metrics`` by name, none where the target has no labels; or why it failed.

    ``fitted`` and ``seconds`` are known where it was done, and not when its result is read again.
    """

    metrics: dict[str, float] = field(default_factory=dict)
    failure: str | None = None
    fitted: FitResult | None = None
    seconds: float = 0.0


@dataclass(frozen=True, kw_only=True)
class TrainingJob:
    """One training to be run, in any process that sees these files. ``key`` names all that decides its result.

    ``manifest`` and ``exam`` are catalogs, their images below ``source_root`` and ``exam_root``; ``images`` is a store
    of both, or None. With ``score`` the exam is the training's validation, and that metric of its last epoch is the
    result; without, the exam's query and gallery are ranked once the training is over, if it has any.
    ``seconds_before`` were spent on the same training elsewhere.
    """

    label: str
    key: str
    folder: Path
    config: TrainConfig
    seed: int
    manifest: Path
    source_root: str
    exam: Path
    exam_root: str
    score: str | None = None
    images: Path | None = None
    seconds_before: float = 0.0

    @property
    def model(self) -> Path:
        """Where the training writes."""
        return self.folder / "model"

    def told(self, numbers: Mapping[str, float], seconds: float) -> str:
        """One line on how far it is, from an epoch's ``numbers``, after so many seconds."""
        step, epoch = int(numbers["step"]), int(numbers["epoch"])
        num_steps = self.config.whole(step=step, epoch=epoch)
        left = seconds * (num_steps - step) / step
        return f"{self.label}: loss {numbers['loss']:.3f}, step {step}/{num_steps}, about {left:.0f} s left of it"

    def result(self) -> JobResult | None:
        """What was committed, None while nothing was. Raises StateError when damaged or of another training."""
        marker = read_marker(self.folder)
        if marker is None:
            return None
        if marker.get("hash") != self.key:
            raise StateError(f"{self.folder} holds another training; {write_anew(self.folder / MARKER)}")
        return JobResult(metrics=dict(marker["metrics"]), failure=marker.get("diverged"))

    def commit(self, result: JobResult) -> None:
        """Write the finish marker, after everything else: that of a stage, with what it cost."""
        outcome: dict[str, object] = {"metrics": result.metrics}
        if result.fitted is not None:
            fitted = result.fitted
            outcome |= {"num_images": fitted.num_images, "weights": fitted.weights, "device": fitted.device}
        if result.failure is not None:
            outcome |= {"diverged": result.failure}
        seconds = round(self.seconds_before + result.seconds, 3)
        write_marker(self.folder, {"hash": self.key, "seconds": seconds, ENDED: round(time.time(), 3), **outcome})


def run_job(job: TrainingJob, *, fit: Fit = fit, report: Callable[[Epoch], None] | None = None) -> JobResult:
    """Train, score and commit; a training that was committed is only read.

    A training that diverges is a failed one. One that is scored is one of many: it has also failed when it gets no
    finite score, or raises what has to do with its own images. Raises all else, and what would befall every other one
    too: an AostError of the config, our state, the disk or the machine.
    """
    if (done := job.result()) is not None:
        return done
    started = time.monotonic()
    train = Catalog.read(job.manifest, root=job.source_root)
    exam = Catalog.read(job.exam, root=job.exam_root)
    images = None if job.images is None else ImageStore.open(job.images)
    try:
        fitted = fit(
            job.config,
            train,
            validation=None if job.score is None else exam,
            output=job.model,
            seed=job.seed,
            images=images,
            report=report,
        )
    except Exception as error:
        if (fault := of_machine(error)) is not None:
            raise fault from error
        if (failure := _failure(job, error)) is None:
            raise
        result = JobResult(failure=failure)
    else:
        result = _tested(job, fitted, exam, images) if job.score is None else _validated(job.score, fitted)
    result = replace(result, seconds=time.monotonic() - started)
    job.commit(result)
    return result


def _failure(job: TrainingJob, error: Exception) -> str | None:
    """What a training that raised ``error`` has failed by; None where the error is not its own."""
    if job.score is None:
        return str(error) if isinstance(error, Diverged) else None
    is_own = isinstance(error, Diverged | InputError) and not isinstance(error, UnreadableError)
    if isinstance(error, AostError) and not is_own:
        return None
    return f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"


def _validated(score: str, fitted: FitResult) -> JobResult:
    value = float((fitted.history[-1].metrics or {}).get(score, nan))
    if not isfinite(value):
        return JobResult(failure=f"its {score} is {value}", fitted=fitted)
    return JobResult(metrics={score: value}, fitted=fitted)


def _tested(job: TrainingJob, fitted: FitResult, exam: Catalog, images: ImageStore | None) -> JobResult:
    query, gallery = exam.part("query"), exam.part("gallery")
    if not (len(query) and len(gallery)):
        return JobResult(fitted=fitted)
    config = job.config
    evaluation = evaluate_checkpoint(
        fitted.checkpoint, query, gallery, images=images, device=config.device, threads=config.threads
    )
    evaluation.write(job.folder / METRICS)
    return JobResult(metrics=evaluation.metrics, fitted=fitted)
