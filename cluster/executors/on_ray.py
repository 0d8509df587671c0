"""The same work on Ray: Data measures, Tune runs trainings, Train the model that is kept."""

import os
import time
from collections.abc import Sequence
from contextlib import AbstractContextManager, ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cluster.executors.base import MeasureJob
from cluster.executors.loggers import Logger, make_loggers
from cluster.executors.session import RayConfig, announce, ray_session
from cluster.executors.short_trainings import TuneTrainings
from cluster.executors.training_config import TrainingVerbConfig
from cluster.progress import Tick, progress, say
from finegpr.catalog import Catalog
from finegpr.errors import AostError
from finegpr.measuring.config import MeasureConfig
from finegpr.measuring.freshness import pending_shards
from finegpr.measuring.measure import prepare
from finegpr.measuring.results import Measurements, read_measurements
from finegpr.reid.job import TrainingJob, run_job
from search.objectives.training import RunAll

if TYPE_CHECKING:
    from cluster.executors.ray_tune import Report


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
    def cluster(self) -> Any:
        """Ray, started or joined once and for all stages: one left and joined again ends badly when a signal comes."""
        if self._session is None:
            self._session = self._stack.enter_context(ray_session(self._config))
            announce(self._session)
        return self._session

    def measure(self, config: MeasureConfig, job: MeasureJob, tick: Tick) -> Measurements:
        from cluster.executors.ray_data import measure_pending

        shards = prepare(config, job.source, job.targets, job.folder, cells=job.cells, batches=job.batches)
        total = sum(map(len, shards))
        pending = pending_shards(
            job.folder,
            job.source,
            tick=lambda shard, _: tick(0, total, f"looking at images, shard {shard + 1} of {len(shards)}"),
        )
        done = total - sum(map(len, pending.values()))

        def count(images: int) -> None:
            nonlocal done
            done += images
            tick(done, total)

        count(0)
        if pending:
            measure_pending(self.cluster, config, job.folder, job.source_path, job.source.root, pending, count)
        return read_measurements(job.folder)

    def train(self, jobs: Sequence[TrainingJob], output: Path, tick: Tick, *, loggers: Sequence[Logger] = ()) -> None:
        from cluster.executors.ray_tune import TuneRun

        if not jobs:
            return
        run = TuneRun(
            self.cluster,
            lambda: _train,
            what="a training trial",
            cpus=float(jobs[0].config.threads),
            gpus=1.0 if self._use_gpu else 0.0,
            storage=output / "train" / f".tune-{time.time_ns()}",
            loggers=make_loggers(loggers, output),
        )
        with run:
            trials = [{"label": job.label, "key": job.key, "seed": job.seed, "job": job} for job in jobs]
            lost = [reason for reason in run(trials, tick, told=_told) if reason is not None]
        if lost:
            raise AostError(f"{len(lost)} of {len(jobs)} training trials failed; the first: {lost[0]}")

    def trainings(self, config: TrainingVerbConfig, folder: Path, tick: Tick) -> AbstractContextManager[RunAll]:
        return TuneTrainings(self.cluster, config, folder=folder, tick=tick)

    def fit_on_workers(self, job: TrainingJob) -> None:
        from cluster.executors.ray_train import fit_on_workers

        say(f"  {job.label}: Ray Train, {self._num_workers} worker{'s' if self._num_workers > 1 else ''}")
        with progress("training", "steps") as tick:
            fit_on_workers(
                job.config,
                Catalog.read(job.manifest, root=job.source_root),
                output=job.model,
                report=lambda epoch: tick(
                    epoch.step, job.config.whole(step=epoch.step, epoch=epoch.epoch), f"loss {epoch.loss:.3f}"
                ),
                seed=job.seed,
                ray=self.cluster,
                num_workers=self._num_workers,
                use_gpu=self._use_gpu,
            )

    def close(self) -> None:
        self._stack.close()
        self._session = None


def _train(trial: dict[str, Any], report: "Report") -> dict[str, float]:
    """One job, in an actor of Tune."""
    return run_job(trial["job"], report=lambda epoch: report(epoch.numbers())).metrics


def _told(trial: dict[str, Any], result: dict[str, Any]) -> str:
    job: TrainingJob = trial["job"]
    return job.told(result, result["time_total_s"])
