"""Where the trainings of a search run: as trials of one Ray Tune run, each in an actor, or on several workers."""

import os
import shutil
import threading
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from cluster.executors.loggers import make_loggers
from cluster.executors.session import count_places, require_resources
from cluster.executors.training_config import TrainingVerbConfig
from cluster.progress import Tick
from finegpr.atomic import write_bytes
from finegpr.reid.job import Fit, JobResult, run_job
from finegpr.reid.train import fit
from search.objectives.training import ShortTraining

if TYPE_CHECKING:
    from cluster.executors.ray_tune import Report, Work

LATE = "late"
TUNE = ".tune-"
DRIVER_CPUS = 0.01  # of a trial that only drives Ray Train; Ray refuses 0


class TuneTrainings:
    """Runs trainings as trials of one Tune run, as many at a time as the cluster has room for; a context manager.

    ``folder`` is for Tune's own files and the loggers'; the caller is its only writer. ``tick`` is told how many of a
    batch are done. Raises ConfigError at once when the cluster lacks the CPUs or GPUs of one training.
    """

    def __init__(
        self, ray: Any, config: TrainingVerbConfig, *, folder: Path, fit: Fit = fit, tick: Tick | None = None
    ) -> None:
        from cluster.executors.ray_tune import TuneRun

        for left_behind in folder.glob(f"{TUNE}*"):
            shutil.rmtree(left_behind, ignore_errors=True)
        threads, workers, gpus = float(config.train.threads), config.workers, config.gpus
        timeout_seconds = config.timeout_seconds
        at_once = None
        if workers > 1:
            config.train.require_shares(workers)
            what = f"a training on {workers} workers"
            require_resources(ray, cpus=threads, gpus=gpus, count=workers, beside=DRIVER_CPUS, what=what)
            at_once = max(1, count_places(ray, cpus=threads, gpus=gpus) // workers)

        def make_work() -> "Work":
            trained_by = on_workers(workers, use_gpu=gpus > 0) if workers > 1 else fit

            def work(trial: dict[str, Any], report: "Report") -> dict[str, Any]:
                training: ShortTraining = trial["training"]
                return run_watched(training, fit=trained_by, report=report, timeout_seconds=timeout_seconds).metrics

            return work

        self._tick = tick or _no_tick
        self._run = TuneRun(
            ray,
            make_work,
            what="a training trial",
            cpus=threads if workers == 1 else DRIVER_CPUS,
            gpus=gpus if workers == 1 else 0,
            storage=folder / f"{TUNE}{time.time_ns()}",
            at_once=at_once,
            loggers=make_loggers(config.loggers, folder),
        )

    def __enter__(self) -> Self:
        self._run.__enter__()
        return self

    def __exit__(self, *ended: Any) -> None:
        self._run.__exit__(*ended)

    def __call__(self, trainings: Sequence[ShortTraining]) -> None:
        lost = self._run(
            [{"label": training.label, "key": training.key, "training": training} for training in trainings],
            lambda done, total, _="": self._tick(done, total),  # a subset is too long a name for a line of progress
        )
        for training, reason in zip(trainings, lost, strict=True):
            if reason is not None and training.result() is None:
                failure = f"lost with its process {self._run.attempts} times: {reason}"
                training.commit(JobResult(failure=failure))


def _no_tick(done: int, total: int, note: str = "") -> None:
    """Where nobody watches."""


def on_workers(num_workers: int, *, use_gpu: bool) -> Fit:
    """``fit`` on several workers of Ray Train, for use in a worker process of Ray."""
    import ray

    from cluster.executors.ray_train import fit_on_workers

    return partial(fit_on_workers, ray=ray, num_workers=num_workers, use_gpu=use_gpu)


def run_watched(training: ShortTraining, *, fit: Fit, report: "Report", timeout_seconds: float | None) -> JobResult:
    """``run_job`` in a process of its own, which is ended when the time is up: nothing else stops a training that
    hangs. Run again, as Tune does, such a training is committed as failed."""
    late = training.work / LATE
    if late.exists() and training.result() is None:
        training.commit(JobResult(failure=f"took more than {late.read_text()} s"))

    def do() -> JobResult:
        return run_job(training, fit=fit, report=lambda epoch: report(epoch.numbers()))

    if timeout_seconds is None or training.result() is not None:
        return do()

    def give_up() -> None:
        write_bytes(late, f"{timeout_seconds:g}".encode())
        os._exit(1)

    watchdog = threading.Timer(timeout_seconds, give_up)
    watchdog.daemon = True
    watchdog.start()
    try:
        return do()
    finally:
        watchdog.cancel()
