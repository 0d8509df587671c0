"""Where heavy stages run: in this process, or on Ray. Both give the same numbers; ``run.py`` does not know which."""

import os
import time
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from cluster.executors.loggers import Logger, make_loggers
from cluster.executors.session import RayConfig, announce, ray_session
from cluster.executors.short_trainings import TrainingVerbConfig, TuneTrainings
from cluster.executors.trial import MODEL, run_trial
from cluster.progress import Tick, say
from finegpr.arrays import Ints
from finegpr.catalog import Catalog, Cells
from finegpr.device import resolve_device
from finegpr.errors import AostError
from finegpr.measuring.measure import measure, pending_shards, prepare
from finegpr.measuring.reference import MeasureConfig
from finegpr.measuring.results import Measurements, read_measurements
from finegpr.reid.config import TrainConfig
from search.objectives.training import RunAll, run_in_turn


@dataclass(frozen=True, kw_only=True)
class MeasureJob:
    """What to measure against what, into which folder; ``source_path`` is where the source's catalog lies.

    ``batches`` are the rows to measure, as they were asked for; None for all, or ``images_per_cell`` of every cell.
    """

    source: Catalog
    source_path: Path
    cells: Cells
    targets: Mapping[str, Catalog]
    folder: Path
    batches: Sequence[Ints] | None = None


class Executor(Protocol):
    """Runs what is worth spreading over machines. Results reach the disk, not the caller's memory."""

    name: str
    processes: int

    def measure(self, config: MeasureConfig, job: MeasureJob, tick: Tick) -> Measurements: ...

    def train(
        self, trials: Sequence[dict[str, Any]], output: Path, tick: Tick, *, loggers: Sequence[Logger] = ()
    ) -> None:
        """Run the trials; ``output`` is the run's folder, where loggers write."""

    def trainings(self, config: TrainingVerbConfig, folder: Path, tick: Tick) -> AbstractContextManager[RunAll]:
        """What runs the short trainings of a search, while the context lasts; ``tick`` is told of each batch."""

    def fit_on_workers(self, trial: dict[str, Any]) -> None:
        """Train one trial's model on the configured workers; where there are none, leave it to ``train``."""

    def close(self) -> None: ...


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


class RayExecutor:
    """Ray Data measures, Ray Tune runs the trials, Ray Train the model that is kept. Ray starts when first needed."""

    name = "ray"

    def __init__(self, config: RayConfig, *, num_workers: int, use_gpu: bool) -> None:
        self._config = config
        self.processes = config.num_cpus or os.cpu_count() or 1
        self._num_workers = num_workers
        self._use_gpu = use_gpu
        self._stack = ExitStack()
        self._session: Any = None

    @property
    def _ray(self) -> Any:
        if self._session is None:
            self._session = self._stack.enter_context(ray_session(self._config))
            announce(self._session)
        return self._session

    def measure(self, config: MeasureConfig, job: MeasureJob, tick: Tick) -> Measurements:
        from cluster.executors.ray_data import measure_pending

        shards = prepare(config, job.source, job.targets, job.folder, cells=job.cells, batches=job.batches)
        pending = {index: shards[index] for index in pending_shards(job.folder, job.source)}
        total = sum(map(len, shards))
        done = total - sum(map(len, pending.values()))

        def count(images: int) -> None:
            nonlocal done
            done += images
            tick(done, total)

        count(0)
        if pending:
            measure_pending(self._ray, config, job.folder, job.source_path, job.source.root, pending, count)
        return read_measurements(job.folder)

    def train(
        self, trials: Sequence[dict[str, Any]], output: Path, tick: Tick, *, loggers: Sequence[Logger] = ()
    ) -> None:
        from cluster.executors.ray_tune import TuneRun

        if not trials:
            return
        run = TuneRun(
            self._ray,
            lambda: run_trial,
            what="a training trial",
            cpus=float(TrainConfig.model_validate_json(trials[0]["config"]).threads),
            gpus=1.0 if self._use_gpu else 0.0,
            storage=output / "train" / f".tune-{time.time_ns()}",
            loggers=make_loggers(loggers, output),
        )
        with run:
            lost = [reason for reason in run(trials, tick) if reason is not None]
        if lost:
            raise AostError(f"{len(lost)} of {len(trials)} training trials failed; the first: {lost[0]}")

    def trainings(self, config: TrainingVerbConfig, folder: Path, tick: Tick) -> AbstractContextManager[RunAll]:
        return TuneTrainings(self._ray, config, folder=folder, tick=tick)

    def fit_on_workers(self, trial: dict[str, Any]) -> None:
        from cluster.executors.ray_train import fit_on_workers

        say(f"  {trial['label']}: Ray Train, {self._num_workers} worker{'s' if self._num_workers > 1 else ''}")
        fit_on_workers(
            TrainConfig.model_validate_json(trial["config"]),
            Catalog.read(Path(trial["manifest"]), root=trial["source_root"]),
            output=Path(trial["folder"]) / MODEL,
            seed=trial["seed"],
            ray=self._ray,
            num_workers=self._num_workers,
            use_gpu=self._use_gpu,
        )

    def close(self) -> None:
        self._stack.close()
        self._session = None
