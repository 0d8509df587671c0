"""One process, without Ray."""

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

from cluster.executors.base import MeasureJob
from cluster.executors.loggers import Logger
from cluster.executors.short_trainings import TrainingVerbConfig
from cluster.executors.trial import run_trial
from cluster.progress import Tick, say
from finegpr.device import resolve_device
from finegpr.measuring.config import MeasureConfig
from finegpr.measuring.measure import measure
from finegpr.measuring.results import Measurements
from search.objectives.training import RunAll, run_in_turn


class SerialExecutor:
    """One process, no Ray: the reference that the distributed form is compared with."""

    name = "serial"
    processes = 1

    def measure(self, config: MeasureConfig, job: MeasureJob, tick: Tick) -> Measurements:
        if resolve_device("auto").type == "cpu" and len(job.batches or ()) < 2:  # once, not every round
            say(f"  no GPU here: measuring on the CPU, {config.threads} thread{'s' if config.threads > 1 else ''}")
        return measure(config, job.source, job.targets, job.folder, cells=job.cells, batches=job.batches, progress=tick)

    def train(
        self, trials: Sequence[dict[str, Any]], output: Path, tick: Tick, *, loggers: Sequence[Logger] = ()
    ) -> None:
        del output, loggers
        for done, trial in enumerate(trials):
            tick(done, len(trials), trial["label"])
            run_trial(trial)
        tick(len(trials), len(trials))

    def trainings(self, config: TrainingVerbConfig, folder: Path, tick: Tick) -> AbstractContextManager[RunAll]:
        del config, folder, tick
        return nullcontext(run_in_turn)

    def fit_on_workers(self, trial: dict[str, Any]) -> None:
        del trial

    def close(self) -> None:
        pass
