"""One training trial, wherever it runs: train on a manifest, score on the target, commit. Safe to run twice."""

import time
from pathlib import Path
from typing import Any

from cluster.stages import finish
from finegpr.catalog import Catalog
from finegpr.reid.data import ImageStore
from finegpr.reid.evaluate import evaluate_checkpoint
from finegpr.reid.train import FitResult, TrainConfig, fit
from finegpr.storage import read_marker, write_json

METRICS = "metrics.json"


def run_trial(trial: dict[str, Any]) -> dict[str, float]:
    """Train and score; ``trial`` is JSON-ready: label, folder, key, config, manifest, target, seed, images."""
    folder = Path(trial["folder"])
    if (marker := read_marker(folder)) is not None:
        return {"mAP": float(marker["mAP"])}
    started = time.monotonic()
    images = ImageStore.open(Path(trial["images"])) if trial["images"] else None
    result = fit(
        TrainConfig.model_validate_json(trial["config"]),
        Catalog.read(Path(trial["manifest"])),
        output=folder,
        seed=trial["seed"],
        images=images,
    )
    return score_trial(trial, result, started=started)


def score_trial(trial: dict[str, Any], result: FitResult, *, started: float) -> dict[str, float]:
    """Score a trained model on the target's test part, when it is labelled, and write the finish marker."""
    folder = Path(trial["folder"])
    images = ImageStore.open(Path(trial["images"])) if trial["images"] else None
    target = Catalog.read(Path(trial["target"]))
    query, gallery = target.part("query"), target.part("gallery")
    metrics: dict[str, float] = {}
    if len(query) and len(gallery):
        metrics = evaluate_checkpoint(result.checkpoint, query, gallery, images=images)[1]
        write_json(folder / METRICS, metrics)
    seconds = time.monotonic() - started
    finish(folder, trial["key"], seconds=seconds, images=result.images_seen, mAP=metrics.get("mAP", 0.0))
    return {"mAP": metrics.get("mAP", 0.0)}
