"""A model of losses from value shares, which says which subset to score next."""

import numpy as np

from finegpr.arrays import Bools, Floats
from search.space import Space

MAX_POINTS = 400  # the best of what is known
LENGTH = 2.0  # of the kernel, in root mean square distances of the points from their mean
RIDGES = 10.0 ** np.arange(-4, 1)
CLIP = 4.0  # quartiles above the lowest one: a failed subset's penalty is no slope to follow
ROWS_AT_ONCE = 4096  # keeps one kernel block small
DIGITS = 4  # in standard deviations of the losses; the last bits of a factorisation do not decide what is proposed


class ShareModel:
    """Kernel ridge regression of the loss on the shares of each attribute's values (Krige 1951; Jones et al. 1998).

    A value's share is 1 / (values of its attribute that are in), or 0. The mean image of a subset is the shares' linear
    combination of main effects, up to interactions, so that a distance of means is nearly quadratic in them, whereas in
    bits a value weighs more the fewer others are in. Gaussian kernel; the ridge by leaving one out.
    """

    def __init__(self, space: Space) -> None:
        self._space = space
        self._points = np.empty((0, space.num_bits))
        self._middle = np.zeros(space.num_bits)
        self._spread = 1.0
        self._weights = np.empty(0)

    def fit(self, masks: Bools, losses: Floats) -> None:
        """Learn from masks (n, bits), n >= 1, and finite losses (n,)."""
        best = np.argsort(losses, kind="stable")[:MAX_POINTS]
        shares, losses = self._shares(masks[best]), losses[best]
        lowest, quartile = losses[0], losses[len(losses) // 4]
        losses = np.minimum(losses, quartile + CLIP * (quartile - lowest))
        self._middle = shares.mean(axis=0)
        points = shares - self._middle
        self._spread = LENGTH * float(np.sqrt(np.square(points).sum(axis=1).mean())) or 1.0
        self._points = points / self._spread
        values, vectors = np.linalg.eigh(_gaussian(self._points, self._points))
        wanted = vectors.T @ ((losses - losses.mean()) / (losses.std() or 1.0))
        errors, weights = [], []
        for ridge in RIDGES:
            inverse = 1 / (np.maximum(values, 0) + ridge)
            weights.append(vectors @ (inverse * wanted))
            errors.append(np.square(weights[-1] / (np.square(vectors) @ inverse)).mean())
        self._weights = weights[int(np.argmin(errors))]

    def predict(self, masks: Bools) -> Floats:
        """Expected losses (n,) of masks (n, bits), up to an increasing linear map: for comparison only."""
        expected = np.empty(len(masks))
        for start in range(0, len(masks), ROWS_AT_ONCE):
            rows = slice(start, start + ROWS_AT_ONCE)
            points = (self._shares(masks[rows]) - self._middle) / self._spread
            expected[rows] = _gaussian(points, self._points) @ self._weights
        return np.round(expected, DIGITS)

    def _shares(self, masks: Bools) -> Floats:
        shares = masks.astype(np.float64)
        for block in self._space.blocks:
            shares[:, block] /= np.maximum(shares[:, block].sum(axis=1, keepdims=True), 1)
        return shares


def _gaussian(x: Floats, y: Floats) -> Floats:
    """exp(-|x - y|^2 / 2), (n, d) and (m, d) -> (n, m)."""
    squares = np.square(x).sum(axis=1)[:, None] + np.square(y).sum(axis=1) - 2 * x @ y.T
    return np.asarray(np.exp(-np.maximum(squares, 0) / 2))
