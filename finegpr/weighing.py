"""The six terms of the perceptual distance of AOST, and how they weigh in D_total, equation (1)."""

from dataclasses import dataclass
from typing import Literal

import numpy as np

from finegpr.arrays import Floats

ALPHA = 0.9
BETA = 1.0
LAYER_WEIGHT = 0.2

STYLE_LAYERS = ("relu1_1", "relu2_1", "relu3_1", "relu4_1", "relu5_1")
CONTENT_LAYER = "relu4_2"
NUM_STYLE_TERMS = len(STYLE_LAYERS)
NUM_TERMS = NUM_STYLE_TERMS + 1
TERMS = (*STYLE_LAYERS, "content")

Scale = Literal["paper", "standardised"]


@dataclass(frozen=True, kw_only=True)
class Weighing:
    """D_total = alpha sum_l w_l D_l + beta D_content; ``standardised`` divides each term by its median, ``paper`` not.

    ``layer_weights`` are the five w_l.
    """

    scale: Scale = "standardised"
    alpha: float = ALPHA
    beta: float = BETA
    layer_weights: tuple[float, ...] = (LAYER_WEIGHT,) * NUM_STYLE_TERMS

    @property
    def weights(self) -> Floats:
        """(6,): alpha w_l for the style terms, beta for content; the factors of terms that no median divides."""
        return np.array([*(self.alpha * weight for weight in self.layer_weights), self.beta])

    def factors(self, median: Floats) -> Floats:
        """(6,) factors with D_total = terms @ factors, of terms with medians (6,); a median of 0 divides nothing."""
        if self.scale == "paper":
            return self.weights
        return np.asarray(self.weights / np.where(median > 0, median, 1.0))
