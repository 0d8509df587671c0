"""The settings of a re-ID training."""

from typing import Self

from pydantic import Field, field_validator, model_validator

from finegpr.config import Config
from finegpr.device import DeviceName
from finegpr.errors import ConfigError
from finegpr.reid.backbones import find_architecture
from finegpr.reid.losses import LOSSES, parse_losses


class TrainConfig(Config):
    """One training; ``recipes`` holds the named ones.

    Give ``epochs`` or ``steps``, not both; arms of a comparison take the same ``steps``. The learning rate falls to a
    tenth at each of ``milestones``, fractions of all steps. ``loss`` joins names of LOSSES by ``+``; where one of them
    needs pairs, a batch holds batch_size / per_identity identities. ``batch_size`` is of all processes together.
    ``model`` is one of MODELS, or timm/NAME. ``weights``: imagenet, random or the path of a safetensors file.
    """

    model: str
    weights: str
    height: int = Field(ge=16, le=1024)
    width: int = Field(ge=16, le=1024)
    loss: str
    batch_size: int = Field(ge=2)
    per_identity: int = Field(default=4, ge=2)
    epochs: int | None = Field(default=None, ge=1)
    steps: int | None = Field(default=None, ge=1)
    learning_rate: float = Field(gt=0)
    milestones: tuple[float, ...]
    flip: float = Field(default=0.5, ge=0, le=1)
    device: DeviceName = "auto"
    threads: int = Field(default=1, ge=1, description="CPU threads; results depend on them in the last digits")
    cache_bytes: int = Field(default=4 << 30, ge=0, description="decode once into memory up to this size, else stream")
    workers: int | None = Field(
        default=None, ge=0, description="processes that decode streamed images; unset: by the cores; 0: in line"
    )
    validate_epochs: int = Field(default=0, ge=0, description="validate every so many epochs; 0: only the last")
    save_seconds: float = Field(default=0, ge=0, description="least time between two states saved for resuming")

    @field_validator("model")
    @classmethod
    def _known_model(cls, model: str) -> str:
        find_architecture(model)
        return model

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        try:
            find_architecture(self.model).require_size(self.height, self.width)
        except ValueError as error:
            raise ValueError(f"model {self.model} {error}") from None
        if (self.epochs is None) == (self.steps is None):
            raise ValueError("give either epochs or steps")
        if not all(0 < milestone < 1 for milestone in self.milestones):
            raise ValueError(f"milestones are fractions of the training between 0 and 1, got {self.milestones}")
        if LOSSES["softmax"] not in parse_losses(self.loss):
            raise ValueError(f"loss should contain softmax, which trains the classifier, got {self.loss!r}")
        if self.needs_pairs and (self.batch_size % self.per_identity or self.batch_size < 2 * self.per_identity):
            raise ValueError(
                f"with loss {self.loss}, batch_size should be a multiple of per_identity and hold 2 identities, "
                f"got {self.batch_size} and {self.per_identity}"
            )
        return self

    @property
    def needs_pairs(self) -> bool:
        """Whether batches are P identities x K images."""
        return any(loss.needs_pairs for loss in parse_losses(self.loss))

    def whole(self, *, step: int, epoch: int) -> int:
        """Steps of the whole training, whose first ``epoch`` epochs had ``step``."""
        return self.steps or step // epoch * (self.epochs or epoch)

    def require_shares(self, num_processes: int) -> None:
        """Raise ConfigError when a batch cannot be shared by so many processes."""
        per_process = self.batch_size // num_processes
        if per_process < 2:
            raise ConfigError(
                f"batch_size {self.batch_size} shared by {num_processes} processes leaves {per_process} of its images "
                f"to each, and batch normalisation needs 2 or more; give a batch_size of at least {2 * num_processes}"
            )
        pairs_fit = per_process % self.per_identity == 0 and per_process >= 2 * self.per_identity
        if self.batch_size % num_processes or (self.needs_pairs and not pairs_fit):
            raise ConfigError(
                f"batch_size {self.batch_size} cannot be shared evenly by {num_processes} processes"
                + (f", each with 2 or more identities of {self.per_identity} images" if self.needs_pairs else "")
            )

    def rate(self, step: int, num_steps: int) -> float:
        """Learning rate of 0-based ``step`` out of ``num_steps``."""
        return self.learning_rate * 0.1 ** sum(step >= round(milestone * num_steps) for milestone in self.milestones)
