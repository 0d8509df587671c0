"""The options of every verb, one dataclass each; their texts are what ``--help`` shows, and the manual of the settings.

Nothing heavy is imported here, so that a help answers at once. In a class's docstring, examples and blocks that are
indented are shown as they stand; all else is filled to the terminal's width.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import tyro

from cluster.shared_options import Kept, MainJob, Settable
from cluster.shared_options import Verb as Verb


@dataclass(frozen=True, kw_only=True)
class Demo(MainJob):
    """The main job on the embedded default: render a source and a target, choose, train, compare, report.

    Example: aost demo --output runs/demo --seed 1

    Interrupt it and run it again: it goes on where it was. Its config is cluster/configs/demo.yaml; what may stand
    there, and thus after --set, is in cluster/configs/everything.yaml.
    """

    output: Path = Path("runs/demo")
    """Run folder. The same command resumes in it."""
    seed: int = 0


@dataclass(frozen=True, kw_only=True)
class Run(MainJob):
    """The main job on your own data, as a config file describes it. The same command resumes.

    Example: aost run my.yaml
    Example: aost run my.yaml --set search.evaluations=4000 train.steps=2000
    Example: aost run my.yaml --serial --output runs/mine

    A config has to say name, source, target and budget. Every key is in cluster/configs/everything.yaml with what it
    does: settings of measuring and of the search, bounds of the subsets, rounds, fairness, adaptive measuring, short
    trainings, arms, loggers, Ray. Paths are relative to where you call it; a root may also be s3://bucket/prefix.

    A changed setting recomputes what depends on it beside the old. A search or a training that was begun under other
    settings is refused with the difference, unless --fork or --fresh says what is to happen.
    """

    config: tyro.conf.Positional[Path]
    """YAML file; see cluster/configs/ for commented examples."""
    output: Path | None = None
    """Run folder; by default the config's `output`, or runs/<name of the config>."""


@dataclass(frozen=True, kw_only=True)
class Check(Settable):
    """Say whether a run would start, what it would do, and what it would take. Nothing is run or written.

    Example: aost check my.yaml
    Example: aost check my.yaml --json --set budget.images=5000

    Everything that can be known beforehand is checked as the run does, with its exit code: weights, labels, budget,
    arms, workers, the output. Seconds are timed on this machine, on a few images and steps.
    """

    config: tyro.conf.Positional[Path]
    """YAML file, as for `aost run`."""
    output: Path | None = None
    """Run folder; by default as for `aost run`."""
    set: tuple[str, ...] = ()
    """Settings to change, as for `aost run`."""
    serial: bool = False
    """For a run without Ray."""


@dataclass(frozen=True, kw_only=True)
class Render(Settable):
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
class Index(Settable):
    r"""List an image folder's images and labels in one catalog.

    Example: aost index data/FineGPR --layout finegpr --output finegpr.parquet
    Example: aost index s3://bucket/FineGPR --layout finegpr --output finegpr.parquet
    Example: aost index photos --layout table --output mine.parquet \
          --set table=labels.csv path_column=file identity_column=person

    A layout says how names become labels: finegpr, market1501 (bounding_box_train is measured, query and
    bounding_box_test score), folder (unlabelled photos), or table: any images, and a CSV or Parquet with a path column
    and one column per attribute. Nobody may be in both train and query or gallery. Its options, by --set:

      table=labels.csv path_column=file identity_column=person camera_column=cam part_column=split
      circular=[camera_angle]         of a table: an attribute whose values lie on a circle
      ordinal=[rain] bins.exposure=5  values in order; so many ranges of a column with a value per image
      missing=leave-out               or own-value; by default missing values are an error
      first_identity=0 first_camera=0 numbers count from 0 (by default 0 is read so only where that is clear)
      identity_attributes=people.csv  of finegpr: one row per identity, with gender, hair and so on
      title="Our renders"             of any: what outputs call it; a published set's name only where its counts fit
      cameras=ignore                  of any target without cameras: matches of a query's own camera count too

    Links to files inside the folder are followed, links to folders are not: a folder of which it cannot be told how
    many images it stands for is refused. In layout market1501 images lie in the part folders themselves.

    Images are files called .avif, .bmp, .gif, .jfif, .jif, .jpe, .jpeg, .jpg, .png, .tif, .tiff or .webp (in finegpr
    and market1501 .jpeg, .jpg or .png). Their bytes are read as what they are, whatever the name says; a HEIC or a JPEG
    2000 is left out when it is measured, and named as such.

    Credentials and endpoint of a store come from the usual AWS_... variables; what is written stays on disks that all
    workers see.
    """

    root: tyro.conf.Positional[str]
    """A folder, or the address of one in a store, such as s3://bucket/prefix."""
    layout: str = "finegpr"
    """finegpr, market1501, table or folder."""
    set: tuple[str, ...] = ()
    """A title, and options of the layout, such as identity_attributes=people.csv."""
    output: Path = Path("catalog.parquet")


@dataclass(frozen=True, kw_only=True)
class Measure(Kept):
    """Measure every sampled image of a catalog against one or several targets, in one pass. The same command resumes.

    Example: aost measure source.parquet --targets market.parquet duke.parquet --output measurements
    Example: aost measure --from-sketches measurements --targets new.parquet --output measurements-new
    Example: aost measure source.parquet --targets market.parquet --set adaptive.budget.images=20000

    Millions of images are measured once, in shards that finish one by one, and go on after a kill or a lost node. By
    --set, with defaults or examples:

      height=256 width=128 network=efficientnet_lite0 weights=imagenet   pixels; or vgg19; or random, or a path
      images_per_cell=null target_images=2000        of each cell, of each target; null for all
      basis_images=200 style_coordinates=null content_coordinates=null   what sketches are fitted to; length
      batch_size=16 images_per_shard=null precision=float32 threads=1 seed=0   null: a sixteenth, at most 2000

    With adaptive.budget.images=20000 only as many of these are measured, round by round, as a search under this
    budget needs for its choice to stand; adaptive.json in the output tells the rounds:

      adaptive.objective=mmd_rbf adaptive.target=market     the choice; of several targets, which decides
      adaptive.ceiling=0.5 adaptive.batch=0.02              shares of all images: at most, and in a round
      adaptive.seed_cells=0.5 adaptive.explore=0.1          cells in the first round; of a batch, where fewest are
      adaptive.patience=3 adaptive.tolerance=0.001          rounds without a change end it, or too little regret
      adaptive.space.arcs=[viewpoint] adaptive.attributes=[weather]   the search to come, as in `aost search`

    With --from-sketches its settings hold. --set takes scale, weights (where that file is now), and max_off_basis=0.25
    and max_error=0.1, above which the sketches are refused as too coarse.

    `python -m finegpr.measuring.bench` says what this machine can do, and what binds.
    """

    catalog: tyro.conf.Positional[Path | None] = None
    """The source; not with --from-sketches."""
    targets: tuple[Path, ...]
    """Catalogs of the targets; each is called by its file's name."""
    from_sketches: Path | None = None
    """A finished measurement: add targets by its sketches, without an image of the source, in this process."""
    output: Path = Path("measurements")
    set: tuple[str, ...] = ()
    """Settings, such as height=128 width=64 network=vgg19 images_per_cell=2."""
    serial: bool = False
    """Without Ray: one process, the reference."""


@dataclass(frozen=True, kw_only=True)
class Search(Kept):
    r"""Search the subset of attribute values that is nearest to a target, by an objective. The same command resumes.

    Example: aost search source.parquet --set budget.images=20000
    Example: aost search source.parquet --measurements measurements --target market \
          --set budget.images=20000 objective=mmd_rbf space.arcs=[viewpoint]
    Example: aost search source.parquet --validation market.parquet \
          --set objective=training budget.images=5000 evaluations=60 training.gpus=1 \
          training.train.recipe=seconds training.train.steps=400 training.rungs=[0.25,0.5,1]
    Example: aost search source.parquet --validation market.parquet \
          --set objective=mmd_rbf budget.images=5000 check.top=5 check.random=5 \
          training.train.recipe=seconds training.train.steps=400

    By --set, with defaults or examples; only budget.images has to be given:

      budget.images=20000            trained on, of budget.identities=null people: all of the subset's
      budget.least=0 budget.most=1   of the source's images that a subset may hold
      objective=mmd_rbf              or mean_distance (the published one), mmd_linear, frechet, mmd_posterior,
                                     attribute_shares, aligned_shares, training
      optimizer=swarm                or pso, numpy_swarm, greedy, descent, random, exhaustive, nevergrad:NAME;
                                     followed by +restart or +polish; optimizer_options.population=40
      evaluations=2000 seed=0        new subsets scored
      attributes=[weather]           searched; by default all of an image but its scene
      scale=standardised             each layer over its median distance, or paper: as printed

      space.fixed.weather=[sunny]            in, and all other weathers out
      space.least_values.illumination=2      space.most_values is the same
      space.arcs=[viewpoint]                 neighbours on the circle only; a range of an ordinal attribute
      space.identity_attributes=[gender]     choose people too: by mean_distance, mmd_linear, mmd_rbf
      space.levels=3                         a weight of 0 to 3 for every value, not in or out

    rounds.rounds=geometric searches anew after 1, 2, 4, ... photos of the target (Algorithm 1 of the paper),
    every-image after each, once after all; rounds.stable_rounds=3 rounds without a change end it.

    With --validation, true trainings decide, all in one Ray Tune run with reused actors; the journal is the same with
    any number of them at once. With objective=training subsets are scored by short trainings on the labelled validation
    part; with another objective its favourites are trained and ranked, which says how far to believe it:

      training.train.recipe=seconds training.train.steps=400   as in `aost train`
      training.rungs=[0.25,0.5,1]        the better half of a generation goes on to the next length
      training.score=label_free          scores photos alone, without labels (results/label-free.md)
      training.gpus=1 training.workers=4     a fraction shares a GPU; workers share a training through Ray Train
      training.timeout_seconds=3600      gives up one that hangs
      training.seconds_per_image=0.001 training.gpu_seconds=36000   a cost model, and a budget by it
      training.loggers=[tensorboard]     mlflow and wandb, where installed
      check.top=5 check.random=5 check.seeds=[0]   which subsets are trained after a search

    `tensorboard --logdir search/tensorboard` shows them while they run. A cluster without room for one training is
    named at once.
    """

    catalog: tyro.conf.Positional[Path]
    measurements: Path = Path("measurements")
    target: str | None = None
    """Which of the measured targets; not needed when there is one."""
    validation: Path | None = None
    """A target's catalog, on which true trainings are scored: for objective=training, or a check of the best."""
    serial: bool = False
    """Trainings in this process, without Ray."""
    output: Path = Path("search")
    set: tuple[str, ...] = ()
    """Settings, such as objective=mmd_rbf evaluations=2000 budget.images=20000 seed=1 training.train.recipe=seconds."""


@dataclass(frozen=True, kw_only=True)
class Sweep(Kept):
    r"""Search at every point of a grid, or at a sample of them: one table, one page. The same command resumes.

    Example: aost sweep source.parquet --measurements measurements --output sweep \
          --set images=[5000,20000] objectives=[mmd_rbf,attribute_shares] \
          identities=[100,400,800] seeds=[0,1,2,3,4]

    Thousands of searches as chunks of Ray Tune trials: one tidy Parquet, and a page that shows what is stable. Axes, as
    lists, of which only images has to be given; and what all searches share:

      images=[5000,20000] identities=[null] bounds=[[0,1]]   budgets, people, least and most share of the images
      objectives=[mmd_rbf] optimizers=[swarm] seeds=[0] scales=[standardised]
      alphas=[0.9] betas=[1] layer_weights=[[0.2,0.2,0.2,0.2,0.2]]   of style and content in D_total, of its layers
      evaluations=300 chunk=32       new subsets scored in each search; searches written down together
      sample=2000 sample_seed=0      so many points of the grid, not all
      attributes=[weather] space.arcs=[viewpoint]   as in `aost search`
    """

    catalog: tyro.conf.Positional[Path]
    measurements: Path = Path("measurements")
    targets: tuple[str, ...] = ()
    """Which of the measured targets; by default all."""
    output: Path = Path("sweep")
    set: tuple[str, ...] = ()
    """Lists for the axes, such as images=[5000,20000] seeds=[0,1], and what all share, such as sample=2000."""
    serial: bool = False
    """Without Ray: one process, the reference."""


@dataclass(frozen=True, kw_only=True)
class Select(Verb):
    """Draw exactly the budgeted number of images from a subset.

    Example: aost select source.parquet --subset search/subset.json --images 20000 --output manifest.parquet
    Example: aost select source.parquet --selector snp --measurements measurements --images 20000

    A subset's images are spread evenly over identities and attribute values. The selector importance draws them as
    often as the target shows their attributes; snp grows clusters of people by Frechet distance, then takes the
    farthest points.
    """

    catalog: tyro.conf.Positional[Path]
    images: int
    """Budget: how many images the manifest holds."""
    subset: Path | None = None
    """A subset.json; without it, images are drawn from everything."""
    selector: str | None = None
    """Instead of a subset, choose image by image: importance or snp."""
    measurements: Path | None = None
    """What the selector goes by; of a subset, the images that they name as broken are not drawn."""
    target: str | None = None
    """Which of the measured targets; not needed when there is one."""
    identities: int | None = None
    """How many identities the manifest holds; by default all of the subset's."""
    seed: int = 0
    output: Path = Path("manifest.parquet")


@dataclass(frozen=True, kw_only=True)
class Train(Kept):
    """Train a re-identification model on a manifest or a catalog. The same command resumes.

    Example: aost train manifest.parquet --recipe paper --workers 4 --output model
    Example: aost train manifest.parquet --recipe quick --set steps=400 threads=2

    Of a catalog with query and gallery parts only the train part is trained on, as elsewhere it alone is drawn from.
    The same training in this process or under Ray Train with any number of workers. The recipe paper is a ResNet-50 at
    256x128 for 120 epochs, quick a pretrained EfficientNet-Lite0 and seconds a small net, at 64x32. By --set:

      model=resnet50 weights=imagenet        or small, efficientnet_lite0, timm/NAME; random, or a path
      epochs=60                              or steps=2000: the one replaces the other
      height=256 width=128 batch_size=128 learning_rate=0.00035 milestones=[0.33,0.58] flip=0.5
      loss=softmax+triplet per_identity=4    a sum of losses; images of a person in a batch
      device=auto threads=1 workers=null cache_bytes=4294967296 validate_epochs=0 save_seconds=30
    """

    manifest: tyro.conf.Positional[Path]
    recipe: str = "paper"
    """A named recipe: paper, quick or seconds."""
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

    Example: aost report runs/demo --png pictures
    """

    folder: tyro.conf.Positional[Path]
    png: Path | None = None
    """Folder for the main figures as pictures too: arms.png, importance.png, distances-per-value.png."""
