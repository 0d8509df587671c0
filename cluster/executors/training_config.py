"""A training objective and where it runs: settings, read without torch."""

from pydantic import Field, ValidationInfo, field_validator

from cluster.executors.loggers import Logger
from search.objectives.training_config import TrainingConfig


class TrainingVerbConfig(TrainingConfig):
    """A training objective and where it runs.

    ``workers`` share one training through Ray Train, each with ``gpus``, whole or a fraction; after ``timeout_seconds``
    a training counts as failed (None: never). ``loggers`` show trainings elsewhere while they run.
    """

    workers: int = Field(default=1, ge=1)
    gpus: float = Field(default=0, ge=0)
    timeout_seconds: float | None = Field(default=None, gt=0)
    loggers: tuple[Logger, ...] = ("tensorboard",)

    @field_validator("gpus")
    @classmethod
    def _fits_workers(cls, gpus: float, info: ValidationInfo) -> float:
        if info.data.get("workers", 1) > 1 and gpus not in (0, 1):
            raise ValueError(f"each of several workers has one whole GPU or none, got {gpus:g}")
        return gpus

    @property
    def objective_config(self) -> TrainingConfig:
        """What decides a score; where trainings run and when they are given up does not."""
        return TrainingConfig.model_validate(self.model_dump(include=set(TrainingConfig.model_fields)))
