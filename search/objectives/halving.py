"""Successive halving of one generation: short trainings for all, longer ones for the better half, and so on."""

from collections.abc import Callable, Sequence
from math import ceil, isfinite

import numpy as np

from finegpr.arrays import Floats
from finegpr.reid.config import TrainConfig


def halve(num: int, lengths: Sequence[TrainConfig], train: Callable[[list[int], TrainConfig], Floats]) -> Floats:
    """Successive halving (Jamieson and Talwalkar 2016) of one generation: the last scores (num,) that each place got.

    ``train`` scores places at one length, higher is better, NaN for a failure. The better half of those with a score,
    rounded up, goes on; of equal ones the first. A single one is trained at once for the last length.
    """
    scores = np.full(num, np.nan)
    left = list(range(num))
    for config in lengths:
        if not left or (len(left) == 1 and config is not lengths[-1]):
            continue
        scores[left] = train(left, config)
        ranked = sorted((place for place in left if isfinite(scores[place])), key=lambda place: -scores[place])
        left = sorted(ranked[: ceil(len(ranked) / 2)])
    return scores


def halving_cost(num: int, costs: Sequence[float]) -> float:
    """What ``halve`` spends on a generation of ``num``, at most, where a training of each length costs ``costs``."""
    total, left = 0.0, num
    for place, cost in enumerate(costs):
        if left > 1 or place == len(costs) - 1:
            total += left * cost
            left = ceil(left / 2)
    return total
