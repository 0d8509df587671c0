"""Drawing in proportion to weights from cells that may run dry: the expectation, and integer draws that have it."""

import numpy as np

from finegpr.arrays import Floats, Ints


def proportional(capacity: Floats, weights: Floats, total: Floats) -> Floats:
    """min(capacity, t weights) with the t at which a row sums to ``total``, (n, C), (n, C), (n,) -> (n, C).

    So all cells are drawn from in proportion to their weights, but those that are empty by then. Where even everything
    of positive weight is less than ``total``, that is what comes. Weights are at least 0.
    """
    held = np.where(weights > 0, capacity, 0.0)
    runs_dry = np.divide(held, weights, out=np.full(held.shape, np.inf), where=held > 0)
    order = np.argsort(runs_dry, axis=1)
    depth = np.take_along_axis(runs_dry, order, axis=1)
    amount = np.take_along_axis(held, order, axis=1)
    width = np.take_along_axis(np.where(held > 0, weights, 0.0), order, axis=1)
    # Drawn in all when t is so large that this cell is just empty: the emptied ones, and the others in proportion.
    emptied = np.cumsum(amount, axis=1)
    open_width = width[:, ::-1].cumsum(axis=1)[:, ::-1]
    level = np.divide(
        total[:, None] - (emptied - amount), open_width, out=np.full(depth.shape, np.inf), where=open_width > 0
    )
    found = level <= depth
    first = found.argmax(axis=1)
    rows = np.arange(len(held))
    t = np.where(found.any(axis=1) & np.isfinite(level[rows, first]), level[rows, first], np.inf)
    scaled = np.multiply(t[:, None], weights, out=np.full(held.shape, np.inf), where=weights > 0)
    return np.asarray(np.minimum(held, scaled))


def systematic(expected: Floats, random: np.random.Generator) -> Ints:
    """Counts (C,) with these expectations (C,), each the expectation rounded up or down, their sum likewise.

    Systematic sampling (Madow 1949) over the cells in random order.
    """
    order = random.permutation(len(expected))
    # Rounded, so that a sum that should be a whole number is one.
    stops = np.round(np.cumsum(expected[order]), 9)
    reached = np.floor(np.concatenate([[0.0], stops]) + random.random())
    counts = np.empty(len(expected), dtype=np.int64)
    counts[order] = np.diff(reached)
    return counts
