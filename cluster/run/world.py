"""The stages ``world`` and ``index``: the folders, and the catalogs of them."""

from cluster.progress import progress, say
from cluster.run.arms import catalog_path, known_truth, make_arm
from cluster.run.config import CHECKED, TRAINING, DataConfig
from cluster.run.state import TARGET, Run, note
from finegpr.catalog import Catalog
from finegpr.errors import ConfigError, InputError
from search.space import make_space


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
