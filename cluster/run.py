"""The main job: every stage in order, one artifact per arrow, all inside one run folder."""

import time
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from cluster.arms import Arm, Truth, catalog_path, known_truth, make_arm
from cluster.config import DataConfig, RunConfig
from cluster.executor import Executor, MeasureJob
from cluster.progress import progress, say
from cluster.stages import RunFolder, Stage
from finegpr.catalog import Catalog
from finegpr.errors import InputError
from finegpr.measurements import Measurements
from finegpr.reid.data import ImageStore
from finegpr.storage import file_sha256, locked, write_bytes
from finegpr.subset import Subset
from search.loop import SearchResult
from search.objectives import CellObjective
from search.space import Space
from search.surrogate import SurrogateReport

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
    arms: dict[str, Arm] = field(default_factory=dict)
    manifests: dict[tuple[str, int], Path] = field(default_factory=dict)
    trials: list[dict[str, Any]] = field(default_factory=list)
    keys: dict[str, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    @property
    def target_photos(self) -> Catalog:
        """The target's unlabelled photos: what is imitated. Its query and gallery are only ever scored."""
        return self.target.part("train")


def run_all(run: Run) -> Path:
    """Run every stage and return the report's path; a finished stage is skipped."""
    from cluster.summary import write_summary

    with ExitStack() as stack:
        stack.enter_context(locked(run.folder.root))
        stack.callback(run.executor.close)
        write_bytes(run.folder.root / CONFIG, yaml.safe_dump(run.config.model_dump(mode="json")).encode())
        data = render_world(run)
        index(run, *data)
        measure(run)
        surrogate(run)
        for objective in run.config.objectives:
            search(run, objective)
        select(run)
        train(run)
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


def index(run: Run, source: DataConfig, target: DataConfig) -> None:
    """List the images and labels of source and target."""
    # A rendered world is known by its settings, wherever the run folder lies.
    inputs = {"world": run.keys["world"]} if "world" in run.keys else {}
    settings = {} if inputs else {"source": source.model_dump(mode="json"), "target": target.model_dump(mode="json")}
    with run.folder.stage("index", inputs=inputs, config=settings) as (stage, fields):
        if not stage.done:
            for name, data in (("source", source), (TARGET, target)):
                catalog = Catalog.index(Path(data.root), layout=data.layout, **data.options)
                catalog.write(catalog_path(stage.folder, name))
                fields[f"num_{name}"] = len(catalog)
            fields["num_images"] = fields["num_source"] + fields["num_target"]
        run.source = _read(stage, "source", source)
        run.target = _read(stage, TARGET, target)
    if not len(run.target_photos):
        raise InputError(f"target {run.target.root} has no training photos; expected some in bounding_box_train")
    run.keys["index"] = stage.key
    run.truth = known_truth(run.config, run.target)
    for catalog in (run.source, run.target):
        people = catalog.frame["identity"].nunique()
        rejected = f", {len(catalog.rejected)} files left out" if len(catalog.rejected) else ""
        say(f"  {catalog.title}: {len(catalog)} images, {people} identities{rejected}")
    config = run.config
    run.space = Space.of(run.source, config.budget, seed=config.seed, attributes=config.search.attributes)
    for name in config.arms:
        # Arms that no search decides are checked now, not after an hour of measuring.
        if name not in config.objectives:
            arm = make_arm(name, config, run.space, run.truth, {})
            arm.require_budget(run.space)
            if arm.takes_all:
                note(run, f"Arm {name} takes all images instead of the budget, for as many training steps.")


def _read(stage: Stage, name: str, data: DataConfig) -> Catalog:
    return Catalog.read(catalog_path(stage.folder, name), root=Path(data.root))


def measure(run: Run) -> None:
    """Distances and sketches of the sampled source images, against the target's photos."""
    config = run.config.measure.model_copy(update={"seed": run.config.measure.seed + run.config.seed})
    photos = run.target_photos
    inputs = {
        "source": run.source.fingerprint,
        TARGET: photos.fingerprint,
        "index": run.keys["index"],
        "attributes": [attribute.name for attribute in run.space.cells.attributes],
    }
    settings = config.model_dump(mode="json", exclude={"scale"})
    with run.folder.stage("measure", inputs=inputs, config=settings) as (stage, fields):
        job = MeasureJob(
            source=run.source,
            source_path=next(run.folder.root.glob(f"index/{run.keys['index'][:12]}/source.parquet")),
            cells=run.space.cells,
            targets={TARGET: photos},
            folder=stage.folder,
        )
        with progress("measuring", "images") as tick:
            run.measurements = run.executor.measure(config, job, tick)
        fields["num_images"] = len(run.measurements.row)
    run.keys["measure"] = stage.key
    for warning in run.measurements.warnings:
        note(run, warning)
    share = run.measurements.style_share(TARGET, config.scale)
    say(f"  {run.measurements.weights}; style is {share:.1%} of the {config.scale} distance")


def surrogate(run: Run) -> None:
    """Validate the surrogate on the measured cells, whether or not a search needs it to fill cells in."""
    from cluster.searching import validate_surrogate

    started = time.monotonic()
    run.surrogate = validate_surrogate(run)
    say(f"surrogate validated in {time.monotonic() - started:.0f} s on {run.surrogate.num_cells} cells")
    if not run.surrogate.num_unmeasured:
        say("  every cell was measured: no search rests on its predictions")


def search(run: Run, objective: str) -> None:
    """One search for one objective."""
    from cluster.searching import run_search

    run.searches[objective], run.objectives[objective] = run_search(run, objective)


def note(run: Run, text: str) -> None:
    """Something the person should know: said now, and again in the report."""
    say(f"  {text}")
    run.notes.append(text)


def select(run: Run) -> None:
    """Draw every arm's manifest, one per seed."""
    found: Mapping[str, Subset] = {name: result.subset for name, result in run.searches.items()}
    for name in run.config.arms:
        arm = make_arm(name, run.config, run.space, run.truth, found)
        run.arms[name] = arm
        settings = {
            "budget": run.config.budget.model_dump(mode="json"),
            "takes_all": arm.takes_all,
            "seed": run.config.seed,
            "seeds": list(run.config.seeds),
        }
        inputs = {"subset": arm.subset.key, "source": run.source.fingerprint}
        with run.folder.stage(f"select/{name}", inputs=inputs, config=settings) as (stage, fields):
            for seed in run.config.seeds:
                path = stage.folder / f"seed{seed}.parquet"
                run.manifests[name, seed] = path
                if not stage.done:
                    manifest = arm.draw(run.source, run.space, seed=seed)
                    manifest.write(path)
                    fields["num_images"] = len(manifest)
            run.keys[f"select/{name}"] = stage.key


def train(run: Run) -> None:
    """Train every arm with every seed, and score it on the target."""
    config, root = run.config, run.folder.root
    stages: list[Stage] = []
    for (arm, seed), manifest in run.manifests.items():
        stage = run.folder.open(
            f"train/{arm}/seed{seed}",
            inputs={"manifest": run.keys[f"select/{arm}"], TARGET: run.target.fingerprint},
            config={**config.train.model_dump(mode="json"), "seed": config.seed + seed},
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
                "target": str((root / "index" / run.keys["index"][:12] / "target.parquet").resolve()),
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
    kept = [trial for trial in pending if trial["arm"] == config.keep][:1]
    for trial in kept:
        started = time.monotonic()
        run.executor.fit_on_workers(trial)
        trial["seconds"] = time.monotonic() - started
    with progress("training", "trials") as tick:
        run.executor.train(pending, root / "train" / f"tune-{time.time_ns()}", tick)
    for trial, stage in zip(run.trials, stages, strict=True):
        if trial in pending:
            stage.reload()


def _image_store(run: Run, trials: list[dict[str, Any]]) -> str | None:
    """Every image of the trials decoded once, when that fits the training's cache; else each trial streams its own."""
    config = run.config.train
    catalogs = [Catalog.read(Path(path)) for path in sorted({trial["manifest"] for trial in trials})]
    catalogs.append(run.target.part("query", "gallery"))
    images = len({path for catalog in catalogs for path in catalog.file_paths()})
    if images * 3 * config.height * config.width > config.cache_bytes:
        return None
    say(f"  decoding {images} images once, at {config.height}x{config.width}")
    folder = run.folder.root / "images"
    ImageStore.create(folder, catalogs, height=config.height, width=config.width)
    return str(folder.resolve())


def reference_hash(run: Run) -> str:
    """SHA-256 of the measurement's basis and target statistics."""
    return file_sha256(run.folder.root / "measure" / run.keys["measure"][:12] / "reference.safetensors")
