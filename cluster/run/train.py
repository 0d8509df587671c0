"""The stage ``train``: every arm with every seed, scored on the target."""

import time
from pathlib import Path
from typing import Any

from cluster.progress import progress, say
from cluster.run.folder import Stage
from cluster.run.state import TARGET, Run
from finegpr.catalog import Catalog
from finegpr.errors import AostError
from finegpr.reid.data import ImageStore
from finegpr.reid.model import load_weights
from finegpr.weights import find_weights


def train(run: Run) -> None:
    """Train every arm with every seed, and score it on the target."""
    config = run.config
    weights = find_weights(config.train.model, config.train.weights)
    load_weights(weights)  # a file of another network is refused here, before a journal is begun with it
    kept = (config.keep, config.seeds[0])
    stages: list[Stage] = []
    for (arm, seed), manifest in run.manifests.items():
        settings = {**config.train.model_dump(mode="json"), "seed": config.seed + seed}
        stage = run.folder.open(
            f"train/{arm}/seed{seed}",
            inputs={
                "manifest": run.keys[f"select/{arm}/{seed}"],
                TARGET: run.target.fingerprint,
                "weights": weights.sha256,
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
