"""The terms of the perceptual distance of AOST, and how they weigh in D_total, equation (1)."""

from dataclasses import dataclass
from typing import Literal

import numpy as np

from finegpr.arrays import Floats
from finegpr.errors import ConfigError

ALPHA = 0.9
BETA = 1.0
LAYER_WEIGHT = 0.2

Scale = Literal["paper", "standardised"]


@dataclass(frozen=True, kw_only=True)
class Terms:
    """The terms of a network's distance by name, in the order of every array that runs over them: style, content."""

    style: tuple[str, ...]
    content: tuple[str, ...]

    @property
    def names(self) -> tuple[str, ...]:
        """All names, those of style first."""
        return self.style + self.content

    def __len__(self) -> int:
        return len(self.style) + len(self.content)

    @property
    def even_weights(self) -> tuple[float, ...]:
        """One w_l for all layers of style, of sum 1: the 0.2 of the paper's five."""
        return (1 / len(self.style),) * len(self.style)


@dataclass(frozen=True, kw_only=True)
class Weighing:
    """D_total = alpha sum_l w_l D_l + beta D_content; ``standardised`` divides each term by its median, ``paper`` not.

    ``layer_weights`` are the w_l, one for each term of style; None: ``Terms.even_weights``. Several terms of content
    share beta evenly.
    """

    scale: Scale = "standardised"
    alpha: float = ALPHA
    beta: float = BETA
    layer_weights: tuple[float, ...] | None = None

    def weights(self, terms: Terms) -> Floats:
        """(T,): alpha w_l for the terms of style, beta for content; the factors of terms that no median divides.

        Raises ConfigError for another number of weights than there are terms of style.
        """
        layers = terms.even_weights if self.layer_weights is None else self.layer_weights
        if len(layers) != len(terms.style):
            raise ConfigError(
                f"{len(layers)} layer_weights for {len(terms.style)} layers of style; give one for each of "
                f"{', '.join(terms.style)}"
            )
        of_content = [self.beta / len(terms.content)] * len(terms.content)
        return np.array([*(self.alpha * weight for weight in layers), *of_content])

    def factors(self, median: Floats, terms: Terms) -> Floats:
        """(T,) factors with D_total = terms @ factors, of terms with medians (T,); a median of 0 divides nothing."""
        weights = self.weights(terms)
        if self.scale == "paper":
            return weights
        return np.asarray(weights / np.where(median > 0, median, 1.0))
