"""One process, without Ray."""

import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from pathlib import Path

from cluster.executors.base import MeasureJob
from cluster.executors.loggers import Logger
from cluster.executors.training_config import TrainingVerbConfig
from cluster.progress import Tick, say
from finegpr.device import resolve_device
from finegpr.measuring.config import MeasureConfig
from finegpr.measuring.measure import measure
from finegpr.measuring.results import Measurements
from finegpr.reid.job import TrainingJob, run_job
from finegpr.reid.train import Epoch
from search.objectives.training import RunAll, run_in_turn


class SerialExecutor:
    """One process, no Ray: the reference that the distributed form is compared with."""

    name = "serial"
    processes = 1
    cluster = None

    def measure(self, config: MeasureConfig, job: MeasureJob, tick: Tick) -> Measurements:
        if resolve_device("auto").type == "cpu" and len(job.batches or ()) < 2:  # once, not every round
            say(f"  no GPU here: measuring on the CPU, {config.threads} thread{'s' if config.threads > 1 else ''}")
        return measure(config, job.source, job.targets, job.folder, cells=job.cells, batches=job.batches, progress=tick)

    def train(self, jobs: Sequence[TrainingJob], output: Path, tick: Tick, *, loggers: Sequence[Logger] = ()) -> None:
        del output, loggers
        for done, job in enumerate(jobs):
            tick(done, len(jobs), job.label)
            run_job(job, report=_telling(job, partial(tick, done, len(jobs))))
        tick(len(jobs), len(jobs))

    def trainings(self, config: TrainingVerbConfig, folder: Path, tick: Tick) -> AbstractContextManager[RunAll]:
        del config, folder, tick
        return nullcontext(run_in_turn)

    def fit_on_workers(self, job: TrainingJob) -> None:
        del job

    def close(self) -> None:
        pass


def _telling(job: TrainingJob, tell: Callable[[str], None]) -> Callable[[Epoch], None]:
    started = time.monotonic()
    return lambda epoch: tell(job.told(epoch.numbers(), time.monotonic() - started))
