"""Where heavy stages run: in this process, or on Ray. Both give the same numbers; what is run does not know which."""

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from cluster.executors.loggers import Logger
from cluster.executors.training_config import TrainingVerbConfig
from cluster.progress import Tick
from finegpr.arrays import Ints
from finegpr.catalog import Catalog, Cells
from finegpr.measuring.config import MeasureConfig
from finegpr.measuring.results import Measurements
from finegpr.reid.job import TrainingJob
from search.objectives.training import RunAll


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

    @property
    def cluster(self) -> Any:
        """The Ray that it works on, started or joined when first asked for; None without one."""

    def measure(self, config: MeasureConfig, job: MeasureJob, tick: Tick) -> Measurements: ...

    def train(self, jobs: Sequence[TrainingJob], output: Path, tick: Tick, *, loggers: Sequence[Logger] = ()) -> None:
        """Do all of them; ``output`` is the run's folder, where loggers write."""

    def trainings(self, config: TrainingVerbConfig, folder: Path, tick: Tick) -> AbstractContextManager[RunAll]:
        """What runs the short trainings of a search, while the context lasts; ``tick`` is told of each batch."""

    def fit_on_workers(self, job: TrainingJob) -> None:
        """Train one job's model on the configured workers; where there are none, leave it to ``train``."""

    def close(self) -> None: ...
