"""The verbs ``render`` and ``index``: image folders, and the catalogs of them."""

import os
from typing import Any

from cluster import options
from cluster.handover import hand_over
from cluster.outputs import replacing
from cluster.progress import progress, say
from cluster.run.data import TargetConfig, index_target
from cluster.settings import override, validate
from finegpr.atomic import write_bytes
from finegpr.errors import ConfigError
from finegpr.storage import locked


def render(verb: options.Render) -> dict[str, Any]:
    from cluster.run.config import WorldConfig
    from finegpr.render.minigpr import render_minigpr
    from finegpr.render.minimarket import render_minimarket
    from finegpr.render.sheet import contact_sheet

    if verb.output is None and verb.sheet is None:
        raise ConfigError("nothing to do; give --output FOLDER for a world, or --sheet FILE for a contact sheet")
    result: dict[str, Any] = {}
    if verb.sheet is not None:
        with replacing(verb.sheet):
            write_bytes(verb.sheet, contact_sheet(seed=verb.seed))
        result["sheet"] = str(verb.sheet)
        say(f"contact sheet: {verb.sheet}")
    if verb.output is not None:
        settings = override({}, [f"source.seed={verb.seed}", f"target.seed={verb.seed}", *verb.set])
        world = validate(WorldConfig, settings, "--set")
        workers = os.cpu_count() or 1
        with locked(verb.output):
            with progress("rendering MiniGPR", "images") as tick:
                render_minigpr(world.source, verb.output / "source", progress=tick, workers=workers)
            with progress("rendering MiniMarket", "images") as tick:
                render_minimarket(world.target, verb.output / "target", progress=tick, workers=workers)
        made = {"source": verb.output / "source", "target": verb.output / "target"}
        result |= {name: str(path) for name, path in made.items()}
        say(f"world: {made['source']} (layout finegpr), {made['target']} (layout market1501)")
        index = ("aost", "index", made["source"], "--layout", "finegpr", "--output", "source.parquet")
        return result | hand_over({**made, **({"sheet": verb.sheet} if verb.sheet else {})}, *index)
    return result | hand_over({"sheet": result["sheet"]})


def index(verb: options.Index) -> dict[str, Any]:
    given = override({}, verb.set)
    of_all: dict[str, Any] = {name: given.pop(name) for name in ("title", "cameras") if name in given}
    settings = {"root": verb.root, "layout": verb.layout, "options": given, **of_all}
    catalog = index_target(validate(TargetConfig, settings, "--set"))
    with replacing(verb.output):
        catalog.write(verb.output)
    for row in catalog.rejected.head(10).itertuples():
        say(f"  left out: {row.path}: {row.reason}")
    say(f"{catalog.title}: {len(catalog)} images, {len(catalog.rejected)} files left out -> {verb.output}")
    told = {"catalog": str(verb.output), "num_images": len(catalog), "num_rejected": len(catalog.rejected)}
    # What has attributes can be chosen from; photos are what is chosen for.
    roles = (verb.output, "TARGET.parquet") if catalog.image_attributes else ("SOURCE.parquet", verb.output)
    measure = ("aost", "measure", roles[0], "--targets", roles[1], "--output", "measurements")
    return told | hand_over({"catalog": verb.output}, *measure)
