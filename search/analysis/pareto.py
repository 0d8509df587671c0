"""The Pareto front of a search: subsets that no other one beats in score, images and cost at once."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from finegpr.arrays import Bools, Floats, Ints
from finegpr.subset import Subset
from search.space import Space
from search.trial import Trial


@dataclass(frozen=True, kw_only=True)
class FrontPoint:
    """One subset of the front: its score in the objective's unit, its number of images, and the predicted GPU-seconds
    that they cost, None when nobody predicts them."""

    subset: Subset
    score: float
    num_images: int
    gpu_seconds: float | None


def pareto_front(
    history: Sequence[Trial],
    space: Space,
    *,
    higher_is_better: bool = False,
    gpu_seconds: Callable[[Ints], Floats] | None = None,
) -> tuple[FrontPoint, ...]:
    """The scored subsets of ``history`` that none beats: a better score, fewer images, and fewer GPU-seconds if given.

    ``gpu_seconds`` predicts the cost (n,) of subsets with so many images (n,). Trials without a score are left out; of
    subsets that are equal in everything the first one scored stays. Sorted from the fewest images to the most.
    """
    scored = [trial for trial in history if trial.status == "scored" and trial.score is not None]
    if not scored:
        return ()
    scores = np.array([trial.score for trial in scored], dtype=np.float64)
    num_images = _num_images(space, [trial.subset for trial in scored])
    seconds = None if gpu_seconds is None else np.asarray(gpu_seconds(num_images), dtype=np.float64)
    losses = -scores if higher_is_better else scores
    costs = np.stack([num_images, losses, *([] if seconds is None else [seconds])], axis=1)
    kept = np.flatnonzero(non_dominated(costs))
    return tuple(
        FrontPoint(
            subset=scored[place].subset,
            score=float(scores[place]),
            num_images=int(num_images[place]),
            gpu_seconds=None if seconds is None else float(seconds[place]),
        )
        for place in kept[np.lexsort((losses[kept], num_images[kept]))]
    )


def non_dominated(costs: Floats) -> Bools:
    """Which rows of ``costs`` (n, k), lower is better, no other row beats: is nowhere higher and somewhere lower, (n,).

    Rows with a NaN are out; of equal rows the first stays.
    """
    kept = np.zeros(len(costs), dtype=bool)
    whole = np.flatnonzero(~np.isnan(costs).any(axis=1))
    # In lexicographic order a row can only be beaten by one before it; lexsort is stable, so the first of equals leads.
    order = whole[np.lexsort(costs[whole].T[::-1])]
    front = np.empty((0, costs.shape[1]))
    for row in order:
        if not (front <= costs[row]).all(axis=1).any():
            kept[row] = True
            front = np.vstack([front, costs[row]])
    return kept


def _num_images(space: Space, subsets: Sequence[Subset]) -> Ints:
    masks = np.stack([space.mask(subset) for subset in subsets])
    return np.concatenate([space.num_images(masks[piece]) for piece in space.pieces(len(masks))])
