"""How far a classifier's confidence can be believed: expected calibration error, before and after a temperature."""

from dataclasses import dataclass

import numpy as np
from scipy import optimize

from finegpr.arrays import Bools, Floats, Ints
from search.objectives.attribute_classifier import softmax

NUM_BINS = 10


@dataclass(frozen=True, kw_only=True)
class Bin:
    """Predictions of one range of confidence: how many, their mean confidence, and how often they were right."""

    num: int
    confidence: float
    accuracy: float


@dataclass(frozen=True, kw_only=True)
class Calibration:
    """How far a classifier's confidence can be believed, on people it was not trained on.

    ``ece``: expected calibration error, the mean of |confidence - accuracy| over predictions in ``NUM_BINS`` equal
    ranges of confidence, in [0, 1]. ``before`` and ``after`` dividing the logits by ``temperature``, which was fitted
    on other people than those it is judged on; ``reliability`` holds the bins that are not empty.
    """

    temperature: float
    accuracy: float
    ece_before: float
    ece_after: float
    reliability_before: tuple[Bin, ...]
    reliability_after: tuple[Bin, ...]


def reliability(probabilities: Floats, labels: Ints) -> tuple[float, tuple[Bin, ...]]:
    """Expected calibration error of the likeliest value, and its bins, for probabilities (n, V) and labels (n,)."""
    confidence = probabilities.max(axis=1)
    right = probabilities.argmax(axis=1) == labels
    place = np.minimum((confidence * NUM_BINS).astype(np.int64), NUM_BINS - 1)
    bins = tuple(
        Bin(
            num=int((place == step).sum()),
            confidence=float(confidence[place == step].mean()),
            accuracy=float(right[place == step].mean()),
        )
        for step in np.unique(place)
    )
    ece = sum(each.num * abs(each.confidence - each.accuracy) for each in bins) / len(labels)
    return float(ece), bins


def fit_temperature(logits: Floats, labels: Ints) -> float:
    """The T > 0 whose softmax(logits / T) has the least cross-entropy (Guo et al. 2017)."""
    rows = np.arange(len(labels))

    def entropy(log_temperature: float) -> float:
        return -float(np.log(np.maximum(softmax(logits / np.exp(log_temperature))[rows, labels], 1e-300)).mean())

    return float(np.exp(optimize.minimize_scalar(entropy, bounds=(-3.0, 5.0), method="bounded").x))


def calibrate(logits: Floats, labels: Ints, fitted: Bools) -> Calibration:
    """The calibration of logits (n, V) of people left out: the temperature from images ``fitted`` (n,), the rest from
    the others."""
    temperature = fit_temperature(logits[fitted], labels[fitted])
    judged, true = logits[~fitted], labels[~fitted]
    before, bins_before = reliability(softmax(judged), true)
    after, bins_after = reliability(softmax(judged / temperature), true)
    return Calibration(
        temperature=temperature,
        accuracy=float((judged.argmax(axis=1) == true).mean()),
        ece_before=before,
        ece_after=after,
        reliability_before=bins_before,
        reliability_after=bins_after,
    )
