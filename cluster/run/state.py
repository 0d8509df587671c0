"""What a run is asked to do, and what each of its stages makes; the stages hand these on and change none of them."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from cluster.executors.base import Executor
from cluster.inputs import images_key
from cluster.progress import say
from cluster.recipes import TRAINING
from cluster.run.arms import Arm, Truth
from cluster.run.config import RunConfig
from cluster.run.data import DataConfig, TargetConfig
from cluster.run.folder import RunFolder, Stage
from finegpr.arrays import Ints
from finegpr.catalog import Catalog
from finegpr.reid.job import TrainingJob
from finegpr.subset import Subset
from search.analysis.compare import RankAgreement
from search.loop import SearchResult
from search.measured import Measured
from search.objectives import CellObjective
from search.objectives.surrogate import SurrogateReport
from search.objectives.training import TrainingObjective
from search.space import Space

SOURCE, TARGET = "source", "target"


@dataclass(frozen=True, kw_only=True)
class Run:
    """One run. ``given`` is the config as the person wrote it, ``config`` the same with all sub-seeds resolved.

    ``notes`` grows: what the person should know, in the order in which it was found.
    """

    given: RunConfig
    config: RunConfig
    folder: RunFolder
    executor: Executor
    command: str
    notes: list[str] = field(default_factory=list)

    def note(self, text: str) -> None:
        """Something the person should know: said now, and again in the report."""
        say(f"  {text}")
        self.notes.append(text)


@dataclass(frozen=True, kw_only=True)
class Folders:
    """The image folders of source and target; ``world`` is the hash of the stage that rendered them, or None."""

    source: DataConfig
    target: TargetConfig
    world: str | None


@dataclass(frozen=True, kw_only=True, eq=False)
class Indexed:
    """Catalogs, as they lie in ``folder``, the space that is searched, and what is known of the target; the stage's
    ``key``."""

    source: Catalog
    target: Catalog
    space: Space
    truth: Truth | None
    folder: Path
    key: str

    def path(self, which: str) -> Path:
        """Where the catalog of the source or the target lies."""
        return catalog_path(self.folder, which)

    def images_key(self, which: str, catalog: Catalog) -> str:
        """Hash of what images of the source or the target hold."""
        return images_key(catalog, self.folder / f".contents-{which}.parquet")

    @property
    def photos(self) -> Catalog:
        """The target's unlabelled photos: what is imitated. Its query and gallery are only ever scored."""
        return self.target.part("train")

    @property
    def identity(self) -> Ints:
        """Of every row of the source."""
        return self.source.identities


def catalog_path(folder: Path, which: str) -> Path:
    """Where the catalog of the source or the target lies in the index stage's folder."""
    return folder / f"{which}.parquet"


@dataclass(frozen=True, kw_only=True, eq=False)
class Found:
    """What one search found, and what it searched by."""

    result: SearchResult
    objective: CellObjective


@dataclass(frozen=True, kw_only=True, eq=False)
class ShortTrainings:
    """What short trainings decided: the search by them, if there was one, the best of each check by its arm's name, and
    whether the objectives rank as they do."""

    search: tuple[SearchResult, TrainingObjective] | None = None
    checked: Mapping[str, Subset] = field(default_factory=dict)
    rankings: tuple[RankAgreement, ...] = ()

    @property
    def chosen(self) -> dict[str, Subset]:
        """The subsets of the arms that short trainings decided."""
        by_training = {} if self.search is None else {TRAINING: self.search[0].subset}
        return {**by_training, **self.checked}


@dataclass(frozen=True, kw_only=True, eq=False)
class Manifest:
    """The images of one arm for one of the run's seeds: the catalog at ``path``, and its fingerprint; how many images
    these are, and whose: identities (P,), ascending."""

    arm: Arm
    seed: int
    path: Path
    fingerprint: str
    num_images: int
    people: Ints


@dataclass(frozen=True, kw_only=True, eq=False)
class Trained:
    """One arm's training with one of the run's seeds, and its stage."""

    arm: str
    job: TrainingJob
    stage: Stage


@dataclass(frozen=True, kw_only=True, eq=False)
class Made:
    """All that the stages of a run made: what its report is written from."""

    indexed: Indexed
    measured: Measured
    surrogate: SurrogateReport
    found: Mapping[str, Found]
    short: ShortTrainings
    manifests: tuple[Manifest, ...]
    trained: tuple[Trained, ...]

    @property
    def searches(self) -> dict[str, SearchResult]:
        """Every search by the name of its objective, that by training last."""
        searches = {name: found.result for name, found in self.found.items()}
        return searches if self.short.search is None else {**searches, TRAINING: self.short.search[0]}

    def manifest(self, arm: str, seed: int) -> Catalog:
        """The images of an arm for one of the run's seeds."""
        path = next(each.path for each in self.manifests if (each.arm.name, each.seed) == (arm, seed))
        return Catalog.read(path)
