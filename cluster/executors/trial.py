"""One training trial, wherever it runs: train on a manifest, score on the target, commit. Safe to run twice."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from cluster.run.folder import finish
from finegpr.catalog import Catalog
from finegpr.reid.config import TrainConfig
from finegpr.reid.data import ImageStore
from finegpr.reid.evaluate import evaluate_checkpoint
from finegpr.reid.train import Diverged, Epoch, fit
from finegpr.storage import read_marker

METRICS = "metrics.json"
MODEL = "model"


def epoch_numbers(epoch: Epoch) -> dict[str, float]:
    """What a trial reports of one epoch."""
    numbers = {"epoch": epoch.epoch, "loss": epoch.loss, "accuracy": epoch.accuracy}
    return {**numbers, "learning_rate": epoch.learning_rate, **(epoch.metrics or {})}


def run_trial(trial: dict[str, Any], report: Callable[[dict[str, float]], None] | None = None) -> dict[str, float]:
    """Train, score on the target's test part when it is labelled, and write the finish marker.

    ``trial`` is JSON-ready: label, folder, key, config, manifest and source_root, target and target_root, seed, images
    (an image store, or None) and seconds, what was spent on it before. Returns the metrics; none for a target without
    labels, or for a training that diverged, which the marker says.
    """
    folder = Path(trial["folder"])
    if (marker := read_marker(folder)) is not None:
        return dict(marker["metrics"])
    started = time.monotonic()
    config = TrainConfig.model_validate_json(trial["config"])
    images = ImageStore.open(Path(trial["images"])) if trial["images"] else None
    train = Catalog.read(Path(trial["manifest"]), root=trial["source_root"])
    try:
        result = fit(
            config,
            train,
            output=folder / MODEL,
            seed=trial["seed"],
            images=images,
            report=None if report is None else lambda epoch: report(epoch_numbers(epoch)),
        )
    except Diverged as error:
        seconds = trial["seconds"] + time.monotonic() - started
        finish(folder, trial["key"], seconds=seconds, metrics={}, diverged=str(error))
        return {}
    target = Catalog.read(Path(trial["target"]), root=trial["target_root"])
    query, gallery = target.part("query"), target.part("gallery")
    metrics: dict[str, float] = {}
    if len(query) and len(gallery):
        evaluation = evaluate_checkpoint(
            result.checkpoint, query, gallery, images=images, device=config.device, threads=config.threads
        )
        evaluation.write(folder / METRICS)
        metrics = evaluation.metrics
    finish(
        folder,
        trial["key"],
        seconds=trial["seconds"] + time.monotonic() - started,
        num_images=result.num_images,
        weights=result.weights,
        device=result.device,
        metrics=metrics,
    )
    return metrics
