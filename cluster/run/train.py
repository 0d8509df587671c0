"""The stage ``train``: every arm with every seed, scored on the target."""

import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from cluster.progress import progress, say
from cluster.run.state import SOURCE, TARGET, Indexed, Manifest, Run, Trained
from finegpr.catalog import Catalog
from finegpr.errors import AostError
from finegpr.reid.data import ImageStore
from finegpr.reid.job import TrainingJob
from finegpr.reid.model import load_weights
from finegpr.weights import find_weights


def train(run: Run, indexed: Indexed, manifests: Sequence[Manifest]) -> tuple[Trained, ...]:
    """Train on every manifest that was not trained on before; the model to be kept first, on the run's workers."""
    trained = _plan(run, indexed, manifests)
    pending = [each for each in trained if not each.stage.done]
    if not pending:
        return trained
    # Of those that are done too: so a run that goes on keeps the store that it has.
    store = _image_store(run, indexed, [each.job for each in trained])
    jobs = [replace(each.job, images=store) for each in pending]
    for place, (each, job) in enumerate(zip(pending, jobs, strict=True)):
        if _is_kept(run, each.arm, each.job.seed):
            started = time.monotonic()
            run.executor.fit_on_workers(job)
            jobs[place] = replace(job, seconds_before=time.monotonic() - started)
    with progress("training", "trials") as tick:
        run.executor.train(jobs, run.folder.root, tick, loggers=run.config.loggers)
    for each in pending:
        each.stage.reload()
        if not each.stage.done:
            raise AostError(f"training {each.job.label} did not finish; the same command resumes")
    return trained


def _plan(run: Run, indexed: Indexed, manifests: Sequence[Manifest]) -> tuple[Trained, ...]:
    config = run.config
    weights = find_weights(config.train.model, config.train.weights)
    load_weights(weights)  # a file of another network is refused here, before a journal is begun with it
    scored_on = indexed.images_key(TARGET, indexed.target.part("query", "gallery"))
    trained = []
    for manifest in manifests:
        arm, seed = manifest.arm.name, config.sub_seed(manifest.seed)
        stage = run.folder.open(
            "train",
            arm,
            f"seed{manifest.seed}",
            inputs={
                "manifest": manifest.fingerprint,
                "images": indexed.images_key(SOURCE, Catalog.read(manifest.path, root=indexed.source.root)),
                TARGET: indexed.target.fingerprint,
                "scored on": scored_on,
                "weights": weights.sha256,
            },
            # Batch statistics are those of each worker, so their number moves a model.
            config={
                **config.train.model_dump(mode="json"),
                "seed": seed,
                "workers": config.workers if _is_kept(run, arm, seed) else 1,
            },
            journal=True,
        )
        job = TrainingJob(
            label=f"{arm}, seed {manifest.seed}",
            key=stage.key,
            folder=stage.folder.resolve(),
            config=config.train,
            seed=seed,
            manifest=manifest.path.resolve(),
            source_root=str(indexed.source.root),
            exam=indexed.path(TARGET).resolve(),
            exam_root=str(indexed.target.root),
        )
        trained.append(Trained(arm=arm, job=job, stage=stage))
    return tuple(trained)


def _is_kept(run: Run, arm: str, seed: int) -> bool:
    """Whether this is the training whose model is kept, and so made by the run's workers."""
    return (arm, seed) == (run.config.keep, run.config.sub_seed(run.config.seeds[0]))


def _image_store(run: Run, indexed: Indexed, jobs: Sequence[TrainingJob]) -> Path | None:
    """Every image of the jobs decoded once, when that fits the training's cache; else each training streams its own."""
    config = run.config.train
    catalogs = [Catalog.read(path, root=indexed.source.root) for path in sorted({job.manifest for job in jobs})]
    catalogs.append(indexed.target.part("query", "gallery"))
    images = len({path for catalog in catalogs for path in catalog.file_paths()})
    if images * 3 * config.height * config.width > config.cache_bytes:
        return None
    folder = run.folder.root / "images"
    say(f"  decoding {images} images once, at {config.height}x{config.width}, into {folder}, which you only can read")
    ImageStore.create(folder, catalogs, height=config.height, width=config.width)
    return folder.resolve()
