"""The options of every verb, one dataclass each; their texts are what ``--help`` shows.

Nothing heavy is imported here, so that a help answers at once.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import tyro


@dataclass(frozen=True, kw_only=True)
class Verb:
    """Options that every verb has."""

    json: bool = False
    """Print one JSON object with the results as the last line of standard output."""
    debug: bool = False
    """Show the traceback of an error."""

    @classmethod
    def name(cls) -> str:
        """What a person types."""
        return cls.__name__.lower()


@dataclass(frozen=True, kw_only=True)
class Demo(Verb):
    """The main job on the embedded default: render a source and a target, choose, train, compare, report.

    Example: aost demo --output runs/demo --seed 1
    """

    output: Path = Path("runs/demo")
    """Run folder. The same command resumes in it."""
    seed: int = 0
    set: tuple[str, ...] = ()
    """Settings to change, such as measure.images_per_cell=1 seeds=[0,1]."""
    serial: bool = False
    """Without Ray: one process, the reference."""
    fork: bool = False
    """Changed settings: start a new run folder beside this one, sharing what has not changed."""
    fresh: bool = False
    """Changed settings: set the journals they contradict aside and begin these stages again."""


@dataclass(frozen=True, kw_only=True)
class Run(Verb):
    """The main job on your own data, as a config file describes it. The same command resumes.

    Example: aost run my.yaml --set search.evaluations=4000 train.steps=2000
    """

    config: tyro.conf.Positional[Path]
    """YAML file; see cluster/configs/ for commented examples."""
    set: tuple[str, ...] = ()
    """Settings to change, such as measure.height=128 train.recipe=quick."""
    output: Path | None = None
    """Run folder; by default the config's `output`, or runs/<name of the config>."""
    serial: bool = False
    """Without Ray: one process, the reference."""
    fork: bool = False
    """Changed settings: start a new run folder beside this one, sharing what has not changed."""
    fresh: bool = False
    """Changed settings: set the journals they contradict aside and begin these stages again."""


@dataclass(frozen=True, kw_only=True)
class Render(Verb):
    """Draw MiniGPR (a synthetic source with labels) and MiniMarket (a photo-like target).

    Example: aost render --output worlds/one --set source.num_identities=200
    Example: aost render --sheet sheet.jpg
    """

    output: Path | None = None
    """Folder for `source/` and `target/`; the same command resumes."""
    sheet: Path | None = None
    """Write a contact sheet instead of, or beside, a world."""
    set: tuple[str, ...] = ()
    """Settings of the world, such as source.num_identities=200 target.seed=3."""
    seed: int = 0


@dataclass(frozen=True, kw_only=True)
class Index(Verb):
    """List an image folder's images and labels in one catalog.

    Example: aost index data/FineGPR --layout finegpr --output finegpr.parquet
    Example: aost index s3://bucket/FineGPR --layout finegpr --output finegpr.parquet
    Example: aost index photos --layout table --set table=labels.csv path_column=file --output mine.parquet
    """

    root: tyro.conf.Positional[str]
    """A folder, or the address of one in a store, such as s3://bucket/prefix."""
    layout: str = "finegpr"
    """finegpr, market1501, table or folder."""
    set: tuple[str, ...] = ()
    """Options of the layout, such as identity_attributes=people.csv."""
    output: Path = Path("catalog.parquet")


@dataclass(frozen=True, kw_only=True)
class Measure(Verb):
    """Measure every sampled image of a catalog against one or several targets, in one pass. The same command resumes.

    Example: aost measure source.parquet --targets market.parquet duke.parquet --output measurements
    Example: aost measure --from-sketches measurements --targets new.parquet --output measurements-new
    Example: aost measure source.parquet --targets market.parquet --set adaptive.budget.images=20000
    """

    catalog: tyro.conf.Positional[Path | None] = None
    """The source; not with --from-sketches."""
    targets: tuple[Path, ...]
    """Catalogs of the targets; each is called by its file's name."""
    from_sketches: Path | None = None
    """A finished measurement: add targets by its sketches, without an image of the source, in this process. Its
    settings hold; --set takes scale, weights (where that file is now), and max_off_basis=0.25 and max_error=0.1, above
    which the sketches are refused as too coarse."""
    output: Path = Path("measurements")
    set: tuple[str, ...] = ()
    """Settings, such as height=128 width=64 weights=vgg19.safetensors images_per_cell=2.

    With adaptive.budget.images=20000, only as many of these images, round by round, as a search under this budget
    needs for its choice to stand: adaptive.objective=mmd_rbf adaptive.target=market (where there are several)
    adaptive.ceiling=0.5 adaptive.batch=0.02 adaptive.seed_cells=0.5 adaptive.explore=0.1 (shares of all images, of
    all cells and of a batch) adaptive.patience=3 adaptive.tolerance=0.001. See adaptive.json in the output.
    """
    serial: bool = False
    """Without Ray: one process, the reference."""


@dataclass(frozen=True, kw_only=True)
class Search(Verb):
    """Search the subset of attribute values that is nearest to a target, by an objective. The same command resumes.

    Example: aost search source.parquet --measurements measurements --target market --set budget.images=20000
    """

    catalog: tyro.conf.Positional[Path]
    measurements: Path = Path("measurements")
    target: str | None = None
    """Which of the measured targets; not needed when there is one."""
    validation: Path | None = None
    """A target's catalog: objective=training searches by short trainings, scored on its labelled validation part, or by
    training.score=label_free on photos; after a search by any other objective its best subsets are trained and ranked
    by mAP (check.top=5 check.random=5 check.seeds=[0])."""
    serial: bool = False
    """Trainings in this process, without Ray."""
    output: Path = Path("search")
    set: tuple[str, ...] = ()
    """Settings, such as objective=mmd_rbf evaluations=2000 budget.images=20000 seed=1 training.train.recipe=quick."""


@dataclass(frozen=True, kw_only=True)
class Sweep(Verb):
    """Search at every point of a grid, or at a sample of them: one table, one page. The same command resumes.

    Example: aost sweep source.parquet --output sweep --set images=[5000,20000] objectives=[mmd_rbf,mmd_linear]
    """

    catalog: tyro.conf.Positional[Path]
    measurements: Path = Path("measurements")
    targets: tuple[str, ...] = ()
    """Which of the measured targets; by default all."""
    output: Path = Path("sweep")
    set: tuple[str, ...] = ()
    """Lists: objectives scales alphas betas layer_weights images identities bounds seeds optimizers; sample=2000."""
    serial: bool = False
    """Without Ray: one process, the reference."""
    fresh: bool = False
    """Changed settings: set the old sweep aside and begin again."""


@dataclass(frozen=True, kw_only=True)
class Select(Verb):
    """Draw exactly the budgeted number of images from a subset.

    Example: aost select source.parquet --subset search/subset.json --images 20000 --output manifest.parquet
    Example: aost select source.parquet --selector snp --measurements measurements --images 20000
    """

    catalog: tyro.conf.Positional[Path]
    images: int
    """Budget: how many images the manifest holds."""
    subset: Path | None = None
    """A subset.json; without it, images are drawn from everything."""
    selector: Literal["importance", "snp"] | None = None
    """Instead of a subset, choose image by image: as often as the target shows their attributes (importance), or
    clusters of people grown by Frechet distance, then farthest points (snp)."""
    measurements: Path | None = None
    """What the selector goes by."""
    target: str | None = None
    """Which of the measured targets; not needed when there is one."""
    identities: int | None = None
    """How many identities the manifest holds; by default all of the subset's."""
    seed: int = 0
    output: Path = Path("manifest.parquet")


@dataclass(frozen=True, kw_only=True)
class Train(Verb):
    """Train a re-identification model on a manifest or a catalog. The same command resumes.

    Example: aost train manifest.parquet --recipe paper --workers 4 --output model
    """

    manifest: tyro.conf.Positional[Path]
    recipe: str = "paper"
    """A named recipe: paper or quick."""
    set: tuple[str, ...] = ()
    """Settings of the recipe to change, such as epochs=60 weights=resnet50.safetensors."""
    workers: int = 1
    """Ray Train workers; 1 trains in this process."""
    gpu: bool = False
    """Give every Ray Train worker one GPU."""
    seed: int = 0
    output: Path = Path("model")


@dataclass(frozen=True, kw_only=True)
class Evaluate(Verb):
    """Score a trained model on a labelled target: mAP and CMC.

    Example: aost evaluate model/model.safetensors --target market.parquet
    Example: aost evaluate model/model.safetensors --target market.parquet --rerank --flip
    """

    checkpoint: tyro.conf.Positional[Path]
    target: Path
    """Catalog with query and gallery parts."""
    part: Literal["test", "validation"] = "test"
    rerank: bool = False
    """Re-rank by k-reciprocal neighbours (Zhong et al. 2017): k1=20, k2=6, lambda=0.3."""
    flip: bool = False
    """Add the embedding of the mirrored image."""
    ap: Literal["hits", "trapezoid"] = "hits"
    """Average precision: the mean of the precision at the hits, or by trapezoids, as the Market-1501 toolbox has it."""
    output: Path = Path("metrics.json")


@dataclass(frozen=True, kw_only=True)
class Compare(Verb):
    """Print the comparison of a run's arms: mAP, paired differences, agreement with the true distribution.

    Example: aost compare runs/demo
    """

    folder: tyro.conf.Positional[Path]


@dataclass(frozen=True, kw_only=True)
class Diff(Verb):
    """Say in words how one subset differs from another: what it adds and what it drops.

    Example: aost diff old/subset.json new/subset.json --catalog source.parquet
    """

    old: tyro.conf.Positional[Path]
    new: tyro.conf.Positional[Path]
    catalog: Path
    """The source, whose attributes the subsets are of."""


@dataclass(frozen=True, kw_only=True)
class Export(Verb):
    """Write the journal of a search as an Optuna study, for optuna-dashboard and Optuna's plots.

    Example: aost export runs/demo/search/mmd_rbf/journal.jsonl --storage study.log --study demo
    """

    journal: tyro.conf.Positional[Path]
    storage: str
    """An Optuna journal file, or a database such as sqlite:///studies.db (slower)."""
    study: str
    """Name of the new study."""


@dataclass(frozen=True, kw_only=True)
class Report(Verb):
    """Write a run's report.html again from what is in its folder.

    Example: aost report runs/demo
    """

    folder: tyro.conf.Positional[Path]
