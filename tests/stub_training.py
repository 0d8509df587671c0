"""A stand-in for re-ID training: no image is read, no network trained. For what a search makes of trainings."""

import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa

from finegpr.attributes import Attribute
from finegpr.catalog import Catalog
from finegpr.layouts.listing import PART_TYPE, build_frame, rejections
from finegpr.reid.config import TrainConfig
from finegpr.reid.recipes import recipe
from finegpr.reid.train import Epoch, FitResult
from search.space import Budget, Space

COLOUR = Attribute(name="colour", values=("red", "green", "blue", "grey", "white"))
LIGHT = Attribute(name="light", values=("dawn", "noon", "dusk", "night"))
WORTH = {COLOUR: np.array([0.5, 0.2, 0.1, 0.3, 0.0]), LIGHT: np.array([0.25, 0.05, 0.45, 0.15])}


def source() -> Catalog:
    """8 people with one image in each of 5 x 4 cells; the files do not exist."""
    identity, colour, light = np.indices((8, 5, 4)).reshape(3, -1)
    paths = pa.array([f"{i}/{c}{h}.jpg" for i, c, h in zip(identity, colour, light, strict=True)])
    return _catalog(
        build_frame(paths, identity=identity + 1, camera=1, attributes={COLOUR: colour, LIGHT: light}), "stub"
    )


def target() -> Catalog:
    """One image in each validation part."""
    parts = pd.Categorical(["validation_query", "validation_gallery"], dtype=PART_TYPE)
    listing = build_frame(pa.array(["q.jpg", "g.jpg"]), identity=np.array([1, 1]), camera=np.array([1, 2]), part=parts)
    return _catalog(listing, "stub target")


def _catalog(listing: Any, title: str) -> Catalog:
    attributes = tuple(attribute for attribute in (COLOUR, LIGHT) if attribute.name in listing)
    root = Path("/nowhere")
    return Catalog(frame=listing, root=root, title=title, layout="table", attributes=attributes, rejected=rejections())


def space() -> Space:
    """9 bits; the budget is 16 of 160 images."""
    return Space.of(source(), Budget(images=16, identities=8, most=0.6), seed=0)


def train_config(**changes: Any) -> TrainConfig:
    """8 epochs; nothing is decoded."""
    return recipe("seconds").model_copy(
        update={"epochs": 8, "steps": None, "batch_size": 8, "cache_bytes": 0, **changes}
    )


def truth(train: Catalog) -> float:
    """What whole training is worth: the mean worth of the images, by colour and light."""
    return float(sum(worth[train.frame[attribute.name].cat.codes].mean() for attribute, worth in WORTH.items()))


def stub_fit(
    config: TrainConfig, train: Catalog, *, output: Path, report: Callable[[Epoch], None] | None = None, **_: Any
) -> FitResult:
    """mAP rises with the epochs towards ``truth``. With STUB_LOG, a line per call there; sleeps for STUB_SECONDS."""
    if log := os.environ.get("STUB_LOG"):
        with Path(log).open("a") as stream:
            stream.write(f"{os.getpid()} {config.epochs} {truth(train):.6f}\n")
    time.sleep(float(os.environ.get("STUB_SECONDS", "0")))
    epochs = config.epochs or 1
    mean_ap = truth(train) * (1 - 0.5**epochs)
    last = Epoch(epoch=epochs, step=epochs, loss=1.0, accuracy=0.0, learning_rate=1.0, metrics={"mAP": mean_ap})
    if report is not None:
        report(last)
    return FitResult(
        checkpoint=output / "none",
        history=(last,),
        num_images=len(train),
        num_identities=8,
        quarantined=(),
        weights="none",
        device="cpu",
        seconds=0.0,
    )
