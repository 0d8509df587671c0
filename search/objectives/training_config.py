"""How a subset is scored by training: settings, read without torch."""

from itertools import pairwise
from typing import Literal, Self

from pydantic import Field, field_validator, model_validator

from finegpr.config import Config
from finegpr.reid.config import TrainConfig

Score = Literal["mAP", "label_free"]


class TrainingConfig(Config):
    """How a subset is scored by training. ``train`` is the whole training of one subset.

    ``score``: mAP on the target's labelled validation part, or label_free on its training images, whose labels are not
    looked at: ``finegpr.reid.label_free`` says which, and results/label-free.md how well that ranks. ``rungs`` are
    fractions of ``train``, rising to 1: of each generation all subsets are trained for the first, and the better half
    of those for the next, anew and with that length's own learning rates. ``seconds_per_image`` is the cost model:
    GPU-seconds per image and pass, a constant, so that a cost does not depend on the machine; None leaves it in images.
    ``gpu_seconds`` is a budget by that model, which bounds how many subsets are trained.
    """

    train: TrainConfig
    score: Score = "mAP"
    rungs: tuple[float, ...] = (1.0,)
    seconds_per_image: float | None = Field(default=None, gt=0)
    gpu_seconds: float | None = Field(default=None, gt=0)

    @model_validator(mode="after")
    def _has_a_cost(self) -> Self:
        if self.gpu_seconds is not None and self.seconds_per_image is None:
            raise ValueError("a budget of gpu_seconds needs a cost model: give seconds_per_image too")
        return self

    @field_validator("rungs")
    @classmethod
    def _rise_to_one(cls, rungs: tuple[float, ...]) -> tuple[float, ...]:
        if not rungs or rungs[-1] != 1 or rungs[0] <= 0 or any(a >= b for a, b in pairwise(rungs)):
            raise ValueError(f"rungs are fractions of a training that rise to 1, such as [0.25, 0.5, 1], got {rungs}")
        return rungs

    @property
    def lengths(self) -> tuple[TrainConfig, ...]:
        """The training of each rung; those that round to the same length are one."""
        train = self.train
        whole, name = (train.steps, "steps") if train.steps is not None else (train.epochs, "epochs")
        assert whole is not None
        lengths = dict.fromkeys(max(1, round(rung * whole)) for rung in self.rungs)
        return tuple(train.model_copy(update={name: length}) for length in lengths)
