"""What the stages of a run hand on."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cluster.executors.base import Executor
from cluster.progress import say
from cluster.run.arms import Arm, Truth, catalog_path
from cluster.run.config import RunConfig
from cluster.run.folder import RunFolder
from finegpr.catalog import Catalog
from finegpr.measuring.results import Measurements
from finegpr.subset import Subset
from search.analysis.compare import RankAgreement
from search.loop import SearchResult
from search.objectives import CellObjective
from search.objectives.surrogate import SurrogateReport
from search.objectives.training import TrainingObjective
from search.space import Space

TARGET = "target"


@dataclass(kw_only=True)
class Run:
    """What the stages of one run hand on to each other, and to the report."""

    config: RunConfig
    folder: RunFolder
    executor: Executor
    command: str
    source: Catalog = field(init=False)
    target: Catalog = field(init=False)
    space: Space = field(init=False)
    measurements: Measurements = field(init=False)
    truth: Truth | None = None
    searches: dict[str, SearchResult] = field(default_factory=dict)
    objectives: dict[str, CellObjective] = field(default_factory=dict)
    surrogate: SurrogateReport | None = None
    by_training: TrainingObjective = field(init=False)
    checked: dict[str, Subset] = field(default_factory=dict)
    rankings: list[RankAgreement] = field(default_factory=list)
    arms: dict[str, Arm] = field(default_factory=dict)
    manifests: dict[tuple[str, int], Path] = field(default_factory=dict)
    trials: list[dict[str, Any]] = field(default_factory=list)
    keys: dict[str, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    def catalog_path(self, which: str) -> Path:
        """Where the index stage left the catalog of the source or the target."""
        return catalog_path(self.folder.root / "index" / self.keys["index"][:12], which)

    @property
    def target_photos(self) -> Catalog:
        """The target's unlabelled photos: what is imitated. Its query and gallery are only ever scored."""
        return self.target.part("train")


def note(run: Run, text: str) -> None:
    """Something the person should know: said now, and again in the report."""
    say(f"  {text}")
    run.notes.append(text)
