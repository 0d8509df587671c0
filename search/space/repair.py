"""Repair: from coordinates to masks of the right shape, grown or shrunk by their coordinates until the budget fits."""

from collections.abc import Callable, Sequence

import numpy as np

from finegpr.arrays import Bools, Floats, Ints
from search.space.shape import Shape, ranks

Holds = Callable[[Bools], Bools]


def choose(x: Floats, shapes: Sequence[Shape]) -> Bools:
    """Coordinates (n, bits) -> masks (n, bits): the values above 0, and of each attribute what its shape asks for."""
    masks = x > 0
    for shape in shapes:
        if shape.is_free:
            masks[np.arange(len(x)), shape.block.start + x[:, shape.block].argmax(axis=1)] = True
        else:
            masks[:, shape.block] = shape.choose(x[:, shape.block])
    return masks


def grow(masks: Bools, x: Floats, shapes: Sequence[Shape], enough: Holds) -> None:
    """Bring values in, highest first as the shapes allow, until ``enough``. Changes ``masks``.

    ``enough`` is monotone: a mask with more values holds if one with fewer does.
    """
    rows = np.flatnonzero(~enough(masks))
    start, x = masks[rows], x[rows]
    keys = np.where(start, -np.inf, -x)
    values: Ints | None = None
    for shape in _bound(shapes):
        values = _places(keys) if values is None else values
        keys[:, shape.block], places = shape.entering(start[:, shape.block], x[:, shape.block])
        values[:, shape.block] = shape.block.start + places
    rank = _ranks_of_values(keys, values)
    num = _bisect(start.sum(axis=1), (keys < np.inf).sum(axis=1), lambda at, num: enough(rank[at] < num))
    masks[rows] = rank < num[:, None]


def shrink(masks: Bools, x: Floats, shapes: Sequence[Shape], enough: Holds, few_enough: Holds) -> None:
    """Values leave, lowest first as the shapes allow, but not the highest of an attribute, until ``few_enough``.

    A value whose leaving makes a mask too small stays. Changes ``masks``, which are taken to be ``enough``.
    """
    rows = np.flatnonzero(~few_enough(masks))
    start, x = masks[rows], x[rows]
    keys = np.where(start, x, np.inf)
    values: Ints | None = None
    for shape in shapes:
        if shape.is_free:
            keys[np.arange(len(rows)), shape.block.start + x[:, shape.block].argmax(axis=1)] = np.inf
    for shape in _bound(shapes):
        values = _places(keys) if values is None else values
        keys[:, shape.block], places = shape.leaving(start[:, shape.block], x[:, shape.block])
        values[:, shape.block] = shape.block.start + places
    rank = _ranks_of_values(keys, values)
    most = (keys < np.inf).sum(axis=1)
    num = _bisect(np.zeros_like(most), most, lambda at, num: few_enough(start[at] & (rank[at] >= num)))
    masks[rows] = start & (rank >= num[:, None])
    # One value too many may leave a mask too small; then smaller values must go instead.
    small = np.flatnonzero(~enough(masks[rows]))

    def holds(masks: Bools) -> Bools:
        return enough(masks) & have_shape(masks, shapes)

    masks[rows[small]] = _shrink_one_by_one(start[small], rank[small], most[small], holds, few_enough)


def have_shape(masks: Bools, shapes: Sequence[Shape]) -> Bools:
    """Whether masks (n, bits) have the shape of every attribute that is bound to one, (n,)."""
    held = np.ones(len(masks), dtype=bool)
    for shape in _bound(shapes):
        held &= shape.holds(masks[:, shape.block])
    return held


def _shrink_one_by_one(masks: Bools, rank: Ints, num: Ints, holds: Holds, few_enough: Holds) -> Bools:
    rows = np.arange(len(masks))
    for turn in range(int(num.max(initial=0))):
        without = masks[rows] & (rank[rows] != turn)
        held = holds(without)
        masks[rows[held]] = without[held]
        rows = rows[~(held & few_enough(without)) & (turn + 1 < num[rows])]
    return masks


def _bound(shapes: Sequence[Shape]) -> list[Shape]:
    return [shape for shape in shapes if not shape.is_free]


def _places(keys: Floats) -> Ints:
    return np.tile(np.arange(keys.shape[1]), (len(keys), 1))


def _ranks_of_values(keys: Floats, values: Ints | None) -> Ints:
    """Rank (n, bits) of each value, keys being those of ``values`` (n, bits); None: of each value in order."""
    rank = ranks(keys)
    if values is None:
        return rank
    of_value = np.empty_like(rank)
    np.put_along_axis(of_value, values, rank, axis=1)
    return of_value


def _bisect(low: Ints, high: Ints, holds: Callable[[Ints, Ints], Bools]) -> Ints:
    """Least number in (low, high], per row, at which a monotone test holds; ``high`` is taken to hold.

    ``holds(rows, numbers (rows, 1))`` answers for some rows.
    """
    low, high = low.copy(), high.copy()
    while (rows := np.flatnonzero(high - low > 1)).size:
        middle = (low[rows] + high[rows]) // 2
        held = holds(rows, middle[:, None])
        high[rows[held]] = middle[held]
        low[rows[~held]] = middle[~held]
    return high
