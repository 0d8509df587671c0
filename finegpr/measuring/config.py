"""The settings of a measurement."""

from typing import Literal

from pydantic import Field

from finegpr.config import Config
from finegpr.weighing import Scale

Precision = Literal["float32", "bf16"]


class MeasureConfig(Config):
    """Settings of the measurement.

    Sizes in pixels. ``weights`` is ``imagenet``, ``random`` or a path (see ``finegpr.weights``). ``images_per_cell``
    and ``target_images`` cap what is measured by a seeded sample, None = all. ``basis_images`` source images give at
    most ``style_coordinates`` per style layer and ``content_coordinates``. ``scale`` says how search weighs the terms;
    it does not change what is measured. ``precision`` is that of the network's numbers; Gram matrices and distances are
    float32 either way. ``threads`` are fixed because they change the last digits. A shard is what workers share and a
    kill can cost: ``images_per_shard``, None = a sixteenth of what is measured at once, at most 2000, in whole batches.
    """

    height: int = Field(default=256, ge=32, le=1024)
    width: int = Field(default=128, ge=32, le=1024)
    weights: str = "imagenet"
    images_per_cell: int | None = Field(default=None, ge=1)
    target_images: int | None = Field(default=2000, ge=1)
    basis_images: int = Field(default=200, ge=2, le=2000)
    style_coordinates: int = Field(default=32, ge=1)
    content_coordinates: int = Field(default=128, ge=1)
    scale: Scale = "standardised"
    batch_size: int = Field(default=16, ge=1)
    images_per_shard: int | None = Field(default=None, ge=1)
    precision: Precision = "float32"
    threads: int = Field(default=1, ge=1)
    seed: int = Field(default=0, ge=0, lt=2**63)
