"""The target as a mixture of the source's cells, seen through a camera of its own: which shares, and which camera.

Each cell of the source is taken for a normal distribution of sketches: a sum of one effect for each attribute's value,
and the same covariance round it. The target's shares (one set for each attribute, a cell's being their product) and its
camera (a shift, and a factor for each direction) are found in turns, as generalised label shift has it (Tachet des
Combes et al. 2020): shares by expectation maximisation (Saerens et al. 2002) of photos brought to the source, and the
camera from the moments of the photos against those of the source in these shares.
"""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from finegpr.arrays import Floats, Ints

MAX_CELLS = 600  # that are told apart jointly; attributes of more values are then read by themselves
UNALIGNED = 15  # rounds of EM, until shares stand still
ALIGNED = 5  # rounds with the camera; many more drift, where cells are hard to tell apart
SMOOTHING = 0.05  # of the shares, within a round
SHIFT = 1.0  # expected of a camera, in deviations within a cell
STRETCH = 0.5  # how far deviations are brought to the mixture's, as a power of their ratio
FLOOR = 1e-6  # of variances within a cell, of sketches in units of their spread
RIDGE = 1.0  # images that every value's effect is drawn to 0 by


@dataclass(frozen=True, kw_only=True, eq=False)
class CellMixture:
    """Cells of some attributes in the directions that tell them apart, where their covariance is the unit matrix.

    ``project`` (S, d) takes sketches there. ``means`` (C, d); ``values[a]`` (C, V_a): 1 for a cell's value of attribute
    ``a``.
    """

    project: Floats
    means: Floats
    values: tuple[Floats, ...]

    def shares(self, photos: Floats, weight: Floats) -> tuple[list[Floats], list[Floats]]:
        """Shares (V_a,) of every attribute's values among photos (m, S) that count ``weight`` (m,) times: without a
        camera of the target's own, and with one."""
        z = photos @ self.project
        num = weight.sum()
        mean = weight @ z / num
        around = z - mean
        variance = np.maximum(weight @ np.square(around) / num, 1e-300)
        lengths = np.square(self.means).sum(axis=1) / 2
        trust = num / (num + 1 / SHIFT**2)
        shares = [np.full(values.shape[1], 1 / values.shape[1]) for values in self.values]
        brought, unaligned = z, shares
        for step in range(UNALIGNED + ALIGNED):
            prior = sum(
                np.log((1 - SMOOTHING) * share + SMOOTHING / len(share)) @ values.T
                for share, values in zip(shares, self.values, strict=True)
            )
            logs = brought @ self.means.T + (prior - lengths)
            posterior = np.exp(logs - logs.max(axis=1, keepdims=True))
            posterior *= (weight / posterior.sum(axis=1))[:, None]
            of_cell = posterior.sum(axis=0) / num
            shares = [of_cell @ values for values in self.values]
            if step == UNALIGNED - 1:
                unaligned = shares
            if step >= UNALIGNED - 1:
                centre = of_cell @ self.means
                expected = 1 + of_cell @ np.square(self.means - centre)
                stretch = (expected / variance) ** (STRETCH / 2)
                brought = around * stretch + mean - (mean - centre) * trust
        return unaligned, shares


@dataclass(frozen=True, kw_only=True, eq=False)
class AdditiveCells:
    """What the source's sketches are made of: ``intercept`` (S,), ``effects[a]`` (V_a, S) of an attribute's values, and
    the ``covariance`` (S, S) round their sum."""

    intercept: Floats
    effects: tuple[Floats, ...]
    covariance: Floats

    @classmethod
    def fit(cls, sketches: Floats, labels: Sequence[Ints]) -> "AdditiveCells":
        """Ridge regression of sketches (n, S) on the values ``labels[a]`` (n,) of every attribute."""
        num = len(sketches)
        indicators = [np.eye(int(each.max()) + 1)[each] for each in labels]
        design = np.concatenate([np.ones((num, 1)), *indicators], axis=1)
        ridge = np.diag(np.append(1e-6, np.full(design.shape[1] - 1, RIDGE)))
        found = np.linalg.solve(design.T @ design + ridge, design.T @ sketches)
        rest = sketches - design @ found
        stops = np.cumsum([1, *(each.shape[1] for each in indicators)])
        return cls(
            intercept=found[0],
            effects=tuple(found[start:stop] for start, stop in itertools.pairwise(stops)),
            covariance=shrunk(rest.T @ rest / num, num),
        )

    def mixture(self) -> CellMixture:
        """Every combination of the attributes' values, whether the source has images of it or not."""
        codes = np.array(list(itertools.product(*(range(len(effect)) for effect in self.effects))))
        summed = np.sum([effect[codes[:, a]] for a, effect in enumerate(self.effects)], axis=0)
        values, vectors = np.linalg.eigh(self.covariance)
        whiten = vectors / np.sqrt(np.maximum(values, FLOOR))
        _, lengths, directions = np.linalg.svd((summed - summed.mean(axis=0)) @ whiten, full_matrices=False)
        project = whiten @ directions[lengths > 1e-6 * lengths[0]].T
        return CellMixture(
            project=project,
            means=(summed + self.intercept) @ project,
            values=tuple(np.eye(len(effect))[codes[:, a]] for a, effect in enumerate(self.effects)),
        )

    def moments(self, shares: Sequence[Floats]) -> tuple[Floats, Floats]:
        """Mean and deviation (S,) of a mixture with these shares (V_a,) of every attribute's values."""
        mean, variance = self.intercept.copy(), np.diag(self.covariance).copy()
        for share, effect in zip(shares, self.effects, strict=True):
            centre = share @ effect
            mean += centre
            variance += share @ np.square(effect - centre)
        return mean, np.sqrt(variance)


def grouped(sizes: Sequence[int]) -> list[list[int]]:
    """Places of attributes in groups of at most MAX_CELLS combinations of values, or of a single attribute."""
    groups: list[list[int]] = []
    for place in sorted(range(len(sizes)), key=lambda place: sizes[place]):
        for group in groups:
            if int(np.prod([sizes[each] for each in [*group, place]])) <= MAX_CELLS:
                group.append(place)
                break
        else:
            groups.append([place])
    return groups


def shrunk(covariance: Floats, num: int) -> Floats:
    """A sample's covariance (S, S) of ``num`` vectors, drawn to the sphere: oracle approximating shrinkage, Chen et al.
    (2010), eq. 23."""
    size = len(covariance)
    trace, squares = float(np.trace(covariance)), float(np.square(covariance).sum())
    excess = squares - trace**2 / size
    share = ((1 - 2 / size) * squares + trace**2) / ((num + 1 - 2 / size) * excess) if excess > 0 else 1.0
    share = min(share, 1.0)
    return np.asarray((1 - share) * covariance + share * trace / size * np.eye(size))
