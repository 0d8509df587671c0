"""The main job: every stage in order, one artifact per arrow, all inside one run folder."""

import time
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from cluster.executors.base import Executor, MeasureJob
from cluster.progress import progress, say
from cluster.run.adaptive import measure_adaptively
from cluster.run.arms import Arm, Truth, catalog_path, known_truth, make_arm
from cluster.run.config import CHECKED, EVERYTHING, RANDOM, TRAINING, DataConfig, RunConfig
from cluster.run.folder import RunFolder, Stage
from finegpr.catalog import Catalog
from finegpr.errors import AostError, ConfigError, InputError
from finegpr.measuring.networks import find_weights as find_vgg_weights
from finegpr.measuring.results import Measurements
from finegpr.reid.data import ImageStore
from finegpr.reid.model import find_weights
from finegpr.storage import locked, write_bytes
from finegpr.subset import Subset
from search.analysis.compare import RankAgreement
from search.loop import SearchResult
from search.objectives import CellObjective
from search.objectives.surrogate import SurrogateReport
from search.objectives.training import TrainingObjective
from search.space import Space, make_space

CONFIG = "config.yaml"
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


def run_all(run: Run) -> Path:
    """Run every stage and return the report's path; a finished stage is skipped."""
    from cluster.run.report import write_summary

    with ExitStack() as stack:
        stack.enter_context(locked(run.folder.root))
        stack.callback(run.executor.close)
        data = render_world(run)
        index(run, *data)
        measure(run)
        surrogate(run)
        for objective in run.config.objectives:
            search(run, objective)
        train_short(run)
        select(run)
        train(run)
        # Written last, so that a run which is refused leaves the config of what lies in the folder.
        write_bytes(run.folder.root / CONFIG, yaml.safe_dump(run.config.model_dump(mode="json")).encode())
        return write_summary(run)


def render_world(run: Run) -> tuple[DataConfig, DataConfig]:
    """The folders to work on: the user's, or a world rendered first."""
    from finegpr.render.minigpr import render_minigpr
    from finegpr.render.minimarket import render_minimarket

    world = run.config.world
    if world is None:
        assert run.config.source is not None
        assert run.config.target is not None
        return run.config.source, run.config.target
    seed = run.config.seed
    source = world.source.model_copy(update={"seed": world.source.seed + seed})
    target = world.target.model_copy(update={"seed": world.target.seed + seed})
    settings = {"source": source.model_dump(mode="json"), "target": target.model_dump(mode="json")}
    with run.folder.stage("world", inputs={}, config=settings) as (stage, fields):
        folders = stage.folder / "source", stage.folder / "target"
        if not stage.done:
            workers = run.executor.processes
            with progress("rendering MiniGPR", "images") as tick:
                render_minigpr(source, folders[0], progress=tick, workers=workers)
            with progress("rendering MiniMarket", "images") as tick:
                render_minimarket(target, folders[1], progress=tick, workers=workers)
            fields["num_images"] = sum(1 for _ in stage.folder.rglob("*.jpg"))
    run.keys["world"] = stage.key
    return DataConfig(root=str(folders[0]), layout="finegpr"), DataConfig(root=str(folders[1]), layout="market1501")


def index_data(data: DataConfig) -> Catalog:
    """List one folder. Raises ConfigError for options that its layout does not take."""
    try:
        return Catalog.index(data.root, layout=data.layout, **data.options)
    except TypeError as error:
        raise ConfigError(f"options {data.options} do not fit layout {data.layout}: {error}") from None


def index(run: Run, source: DataConfig, target: DataConfig) -> None:
    """List the images and labels of source and target."""
    if "world" in run.keys:
        # A rendered world is known by its settings, wherever the run folder lies.
        found: dict[str, Catalog] = {}
        inputs = {"world": run.keys["world"]}
    else:
        # A user's folder is listed every time, so that images and labels that came or went are seen.
        found = {"source": index_data(source), TARGET: index_data(target)}
        inputs = {name: catalog.fingerprint for name, catalog in found.items()}
    with run.folder.stage("index", inputs=inputs, config={}) as (stage, fields):
        if not stage.done:
            found = found or {"source": index_data(source), TARGET: index_data(target)}
            for name, catalog in found.items():
                catalog.write(catalog_path(stage.folder, name))
            fields["num_images"] = sum(map(len, found.values()))
        run.source = Catalog.read(catalog_path(stage.folder, "source"), root=source.root)
        run.target = Catalog.read(catalog_path(stage.folder, TARGET), root=target.root)
    if not len(run.target_photos):
        raise InputError(f"target {run.target.root} has no training photos; expected some in bounding_box_train")
    run.keys["index"] = stage.key
    run.truth = known_truth(run.config, run.source, run.target)
    for catalog in (run.source, run.target):
        people = catalog.frame["identity"].nunique()
        # Without labels every image counts as a person of its own.
        identities = f", {people} identities" if people < len(catalog) else ", no identities"
        rejected = f", {len(catalog.rejected)} files left out" if len(catalog.rejected) else ""
        say(f"  {catalog.title}: {len(catalog)} images{identities}{rejected}")
    config = run.config
    run.space = make_space(
        run.source, config.budget, seed=config.seed, attributes=config.search.attributes, config=config.space
    )
    for name in config.arms:
        # Arms that no search decides are checked now, not after an hour of measuring.
        if name not in config.objectives and name != TRAINING and not name.startswith(CHECKED):
            arm = make_arm(name, config, run.space, run.truth, {})
            if not arm.takes_all:
                run.space.mask(arm.subset)
                arm.require_budget(run.space)
            if arm.takes_all:
                note(run, f"Arm {name} takes all images instead of the budget, for as many training steps.")


def measure(run: Run) -> None:
    """Distances and sketches of the sampled source images, against the target's photos."""
    config = run.config.measure.model_copy(update={"seed": run.config.measure.seed + run.config.seed})
    photos = run.target_photos
    inputs = {
        "source": run.source.fingerprint,
        TARGET: photos.fingerprint,
        "index": run.keys["index"],
        "attributes": [attribute.name for attribute in run.space.cells.attributes],
        "weights": find_vgg_weights(config.weights, seed=config.seed).sha256,
    }
    settings = config.model_dump(mode="json", exclude={"scale"})
    adaptive = run.config.adaptive
    if adaptive is not None:
        # What is measured hangs on the choice, so on all that a score depends on.
        inputs["space"] = run.space.fingerprint
        settings |= {"adaptive": adaptive.model_dump(mode="json"), "scale": config.scale}
    with run.folder.stage("measure", inputs=inputs, config=settings) as (stage, fields):
        job = MeasureJob(
            source=run.source,
            source_path=run.catalog_path("source"),
            cells=run.space.cells,
            targets={TARGET: photos},
            folder=stage.folder,
        )
        if adaptive is None:
            with progress("measuring", "images") as tick:
                run.measurements = run.executor.measure(config, job, tick)
        else:
            run.measurements, rounds = measure_adaptively(run.executor, config, job, adaptive, run.space, target=TARGET)
            note(run, rounds.summary)
        fields["num_images"] = len(run.measurements.row)
    run.keys["measure"] = run.measurements.fingerprint(TARGET)
    for warning in run.measurements.warnings:
        note(run, warning)
    share = run.measurements.style_share(TARGET, config.scale)
    say(f"  {run.measurements.weights}; style is {share:.1%} of the {config.scale} distance")


def surrogate(run: Run) -> None:
    """Validate the surrogate on the measured cells, whether or not a search needs it to fill cells in."""
    from cluster.run.search import validate_surrogate

    started = time.monotonic()
    run.surrogate = validate_surrogate(run)
    say(f"surrogate validated in {time.monotonic() - started:.0f} s on {run.surrogate.num_cells} cells")
    if not run.surrogate.num_unmeasured:
        say("  every cell was measured: no search rests on its predictions")


def search(run: Run, objective: str) -> None:
    """One search for one objective."""
    from cluster.run.search import run_search

    run.searches[objective], run.objectives[objective] = run_search(run, objective)


def train_short(run: Run) -> None:
    """What short trainings decide: the arm ``training``, and which of the other searches' favourites is the best."""
    if run.config.training is None:
        return
    from cluster.run.short_training import check_stage, search_stage

    if run.config.check is not None:
        for objective in run.config.objectives:
            check_stage(run, objective)
    if TRAINING in run.config.arms:
        search_stage(run)


def note(run: Run, text: str) -> None:
    """Something the person should know: said now, and again in the report."""
    say(f"  {text}")
    run.notes.append(text)


def select(run: Run) -> None:
    """Draw every arm's manifest, one per seed."""
    found: Mapping[str, Subset] = {name: result.subset for name, result in run.searches.items()} | run.checked
    for name in run.config.arms:
        arm = make_arm(name, run.config, run.space, run.truth, found)
        run.arms[name] = arm
        settings = {
            "budget": run.config.budget.model_dump(mode="json"),
            "takes_all": arm.takes_all,
            "seed": run.config.seed,
            "seeds": list(run.config.seeds),
        }
        if run.config.fairness is not None:
            settings["fairness"] = run.config.fairness.model_dump(mode="json")
        inputs = {
            "subset": arm.subset.key,
            "source": run.source.fingerprint,
            "attributes": [attribute.name for attribute in run.space.cells.attributes],
        }
        if arm.selector:
            inputs["measure"] = run.keys["measure"]
            settings["scale"] = run.config.measure.scale
        if run.config.space.identity_attributes:
            inputs["identity_attributes"] = list(run.config.space.identity_attributes)
        with run.folder.stage(f"select/{name}", inputs=inputs, config=settings) as (stage, fields):
            for seed in run.config.seeds:
                path = stage.folder / f"seed{seed}.parquet"
                run.manifests[name, seed] = path
                if not stage.done:
                    manifest = _manifest(run, arm, seed=seed)
                    manifest.write(path)
                    fields["num_images"] = len(manifest)
            for seed in run.config.seeds:
                run.keys[f"select/{name}/{seed}"] = Catalog.read(run.manifests[name, seed]).fingerprint


def _manifest(run: Run, arm: Arm, *, seed: int) -> Catalog:
    """One arm's images for one seed. Raises RefusedError where the config's guard does not hold."""
    from cluster.run.selecting import require_fair, selected

    config = run.config
    if arm.selector:
        rows = selected(
            arm.name,
            run.source,
            run.measurements,
            config.budget,
            target=TARGET,
            scale=config.measure.scale,
            seed=config.seed + seed,
        )
        manifest = run.source.take(rows)
    else:
        manifest = arm.draw(run.source, run.space, seed=seed)
    if config.fairness is not None and arm.name not in (RANDOM, EVERYTHING):
        require_fair(config.fairness, run.source, manifest, what=f"arm {arm.name}, seed {seed}")
    return manifest


def train(run: Run) -> None:
    """Train every arm with every seed, and score it on the target."""
    config = run.config
    weights = find_weights(config.train.model, config.train.weights).sha256
    kept = (config.keep, config.seeds[0])
    stages: list[Stage] = []
    for (arm, seed), manifest in run.manifests.items():
        settings = {**config.train.model_dump(mode="json"), "seed": config.seed + seed}
        stage = run.folder.open(
            f"train/{arm}/seed{seed}",
            inputs={
                "manifest": run.keys[f"select/{arm}/{seed}"],
                TARGET: run.target.fingerprint,
                "weights": weights,
            },
            # Batch statistics are those of each worker, so their number moves a model.
            config={**settings, "workers": config.workers if (arm, seed) == kept else 1},
            journal=True,
        )
        stages.append(stage)
        run.trials.append(
            {
                "label": f"{arm}, seed {seed}",
                "arm": arm,
                "seed": config.seed + seed,
                "folder": str(stage.folder.resolve()),
                "key": stage.key,
                "config": config.train.model_dump_json(),
                "manifest": str(manifest.resolve()),
                "target": str(run.catalog_path(TARGET).resolve()),
                "source_root": str(run.source.root),
                "target_root": str(run.target.root),
                "kept": (arm, seed) == kept,
                "images": None,
                "seconds": 0.0,
            }
        )
    pending = [trial for trial, stage in zip(run.trials, stages, strict=True) if not stage.done]
    if not pending:
        return
    store = _image_store(run, pending)
    for trial in pending:
        trial["images"] = store
    for trial in pending:
        if trial["kept"]:
            started = time.monotonic()
            run.executor.fit_on_workers(trial)
            trial["seconds"] = time.monotonic() - started
    with progress("training", "trials") as tick:
        run.executor.train(pending, run.folder.root, tick, loggers=config.loggers)
    for trial, stage in zip(run.trials, stages, strict=True):
        if trial in pending:
            stage.reload()
            if not stage.done:
                raise AostError(f"training {trial['label']} did not finish; the same command resumes")


def _image_store(run: Run, trials: list[dict[str, Any]]) -> str | None:
    """Every image of the trials decoded once, when that fits the training's cache; else each trial streams its own."""
    config = run.config.train
    manifests = sorted({trial["manifest"] for trial in trials})
    catalogs = [Catalog.read(Path(path), root=run.source.root) for path in manifests]
    catalogs.append(run.target.part("query", "gallery"))
    images = len({path for catalog in catalogs for path in catalog.file_paths()})
    if images * 3 * config.height * config.width > config.cache_bytes:
        return None
    say(f"  decoding {images} images once, at {config.height}x{config.width}")
    folder = run.folder.root / "images"
    ImageStore.create(folder, catalogs, height=config.height, width=config.width)
    return str(folder.resolve())
