"""The stages ``world`` and ``index``: the image folders, the catalogs of them, and the space over these."""

from dataclasses import replace
from pathlib import Path

from cluster.progress import progress, say
from cluster.run.arms import known_truth, searched_space
from cluster.run.checks import check_data, unbudgeted, unscored
from cluster.run.data import DataConfig, TargetConfig, index_data, index_target
from cluster.run.state import SOURCE, TARGET, Folders, Indexed, Run, catalog_path
from finegpr.catalog import Catalog
from finegpr.errors import StateError, write_anew
from finegpr.object_stores import locate
from finegpr.parts import train_part


def render_world(run: Run) -> Folders:
    """The folders to work on: the person's, or a world rendered first."""
    from finegpr.render.minigpr import render_minigpr
    from finegpr.render.minimarket import render_minimarket

    world = run.config.world
    if world is None:
        assert run.config.source is not None
        assert run.config.target is not None
        return Folders(source=run.config.source, target=run.config.target, world=None)
    settings = {SOURCE: world.source.model_dump(mode="json"), TARGET: world.target.model_dump(mode="json")}
    with run.folder.stage("world", inputs={}, config=settings) as (stage, fields):
        folders = stage.folder / "source", stage.folder / "target"
        if not stage.done:
            workers = run.executor.processes
            with progress("rendering MiniGPR", "images") as tick:
                render_minigpr(world.source, folders[0], progress=tick, workers=workers)
            with progress("rendering MiniMarket", "images") as tick:
                render_minimarket(world.target, folders[1], progress=tick, workers=workers)
            fields["num_images"] = sum(1 for _ in stage.folder.rglob("*.jpg"))
    return Folders(
        source=DataConfig(root=str(folders[0]), layout="finegpr"),
        target=TargetConfig(root=str(folders[1]), layout="market1501"),
        world=stage.key,
    )


def index(run: Run, folders: Folders) -> Indexed:
    """List the images and labels of source and target. Raises InputError for a target without photos, and for an arm
    that its subset or the truth do not allow: those that no search decides are checked now, not after the measuring."""
    if folders.world is not None:
        # A rendered world is known by its settings, wherever the run folder lies.
        found: dict[str, Catalog] = {}
        inputs = {"world": folders.world}
    else:
        # A person's folder is listed every time, so that images and labels that came or went are seen.
        found = _listed(folders)
        inputs = {name: catalog.fingerprint for name, catalog in found.items()}
    with run.folder.stage("index", inputs=inputs, config={}) as (stage, fields):
        if not stage.done:
            found = found or _listed(folders)
            for name, catalog in found.items():
                catalog.write(catalog_path(stage.folder, name))
            fields["num_images"] = sum(map(len, found.values()))
        for name in (SOURCE, TARGET):
            if not (path := catalog_path(stage.folder, name)).exists():
                raise StateError(f"{path} is missing; {write_anew(path)}")
        source = _read(catalog_path(stage.folder, SOURCE), folders.source)
        target = _read(catalog_path(stage.folder, TARGET), folders.target)
    if found:  # what they are called is no part of what was done
        source, target = (replace(each, title=found[name].title) for name, each in ((SOURCE, source), (TARGET, target)))
    config = run.config
    truth = known_truth(config, source, target)
    for catalog in (source, target):
        people = catalog.frame["identity"].nunique()
        # Without labels every image counts as a person of its own.
        identities = f", {people} identities" if people < len(catalog) else ", no identities"
        rejected = f", {len(catalog.rejected)} files left out" if len(catalog.rejected) else ""
        say(f"  {catalog.title}: {len(catalog)} images{identities}{rejected}")
    source, note = train_part(source)
    if note is not None:
        run.note(note)
    space = searched_space(config, source)
    indexed = Indexed(source=source, target=target, space=space, truth=truth, folder=stage.folder, key=stage.key)
    for line in check_data(config, source, target, space, truth):
        say(f"  {line}")
    if (note := unscored(config, target)) is not None:
        run.note(f"{note}.")
    if (note := unbudgeted(config)) is not None:
        run.note(note)
    return indexed


def _read(path: Path, data: DataConfig) -> Catalog:
    catalog = Catalog.read(path)
    now = locate(data.root)
    if str(now) != str(catalog.root):
        say(f"  {catalog.title}: images are now taken from {now}, before from {catalog.root}")
    return replace(catalog, root=now)


def _listed(folders: Folders) -> dict[str, Catalog]:
    return {SOURCE: index_data(folders.source, what=SOURCE), TARGET: index_target(folders.target, what=TARGET)}
