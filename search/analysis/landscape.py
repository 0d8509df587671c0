"""What all trials of a search say together: its best subsets side by side, and its scores with a value in and out."""

from collections.abc import Sequence

import numpy as np

from finegpr.arrays import Bools, Floats
from search.analysis.records import RankedSubset, Slice
from search.space import Space
from search.trial import Trial

NUM_BEST = 20
PERCENTILES = (5, 25, 50, 75, 95)


def best_subsets(history: Sequence[Trial], *, higher_is_better: bool, num: int = NUM_BEST) -> tuple[RankedSubset, ...]:
    """The ``num`` distinct subsets with the best scores, best first, ties in the order of trials."""
    scored = [(trial.score, trial) for trial in history if trial.status == "scored" and trial.score is not None]
    scored.sort(key=lambda pair: -pair[0] if higher_is_better else pair[0])
    return tuple(
        RankedSubset(score=score, values={name: tuple(sorted(chosen)) for name, chosen in trial.subset.values.items()})
        for score, trial in scored[:num]
    )


def slices(history: Sequence[Trial], space: Space) -> tuple[Slice, ...]:
    """Scores with each value of the space in, and out, over all distinct trials.

    A search does not sample evenly: what differs between the two may be due to values that came along.
    """
    scored = [(trial.score, trial) for trial in history if trial.status == "scored" and trial.score is not None]
    if not scored:
        return ()
    scores = np.array([score for score, _ in scored])
    places = [
        (attribute.name, value)
        for attribute, values in zip(space.attributes, space.values, strict=True)
        for value in values
    ]
    found = []
    for name, value in places:
        inside = np.array([value in trial.subset.values[name] for _, trial in scored])
        found.append(
            Slice(
                attribute=name,
                value=value,
                inside=_percentiles(scores, inside),
                outside=_percentiles(scores, ~inside),
            )
        )
    return tuple(found)


def _percentiles(scores: Floats, where: Bools) -> tuple[float, float, float, float, float] | None:
    if not where.any():
        return None
    low, lower, middle, upper, high = np.percentile(scores[where], PERCENTILES).tolist()
    return low, lower, middle, upper, high
