"""Measured quantities of images, and their means and variances by cell and person."""

from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from finegpr.arrays import Bools, Floats, Ints


@dataclass(frozen=True, kw_only=True, eq=False)
class Samples:
    """Values (n, q) of measured images, with their cell (n,) out of ``num_cells``, identity (n,) and q names.

    A cell's mean is the mean over its identities of each identity's mean: people are the independent unit.
    """

    values: Floats
    names: tuple[str, ...]
    cell: Ints
    identity: Ints
    num_cells: int

    @cached_property
    def num_identities(self) -> Ints:
        """Measured identities k_c of each cell, (C,)."""
        return np.bincount(self.unit_cell, minlength=self.num_cells).astype(np.int64)

    @cached_property
    def weights(self) -> Floats:
        """Weight of each image in its cell's mean, (n,); they sum to 1 within a cell."""
        images = np.bincount(self.unit_of_image)
        return np.asarray(1.0 / (images[self.unit_of_image] * self.num_identities[self.cell]))

    @cached_property
    def means(self) -> Floats:
        """Cell means (C, q); NaN where nothing was measured."""
        sums = np.zeros((self.num_cells, self.values.shape[1]))
        np.add.at(sums, self.cell, self.values * self.weights[:, None])
        sums[self.num_identities == 0] = np.nan
        return sums

    @property
    def deviations(self) -> tuple[Floats, Ints]:
        """Each measured identity's mean in a cell minus that cell's mean, (units, q), and the cell, (units,)."""
        return self.unit_means - np.nan_to_num(self.means)[self.unit_cell], self.unit_cell

    @cached_property
    def variance(self) -> Floats:
        """Variance between the identities of a cell, (C, q), unbiased; pooled over cells where k_c < 2.

        Zero where no cell has two identities: then nothing is known of it, see ``has_variance``.
        """
        squares = np.zeros((self.num_cells, self.values.shape[1]))
        deviations, cell = self.deviations
        np.add.at(squares, cell, np.square(deviations))
        freedom = np.maximum(self.num_identities - 1, 0)
        pooled = squares[freedom > 0].sum(axis=0) / max(int(freedom.sum()), 1)
        own = squares / np.maximum(freedom, 1)[:, None]
        return np.asarray(np.where((freedom > 0)[:, None], own, pooled))

    @property
    def has_variance(self) -> bool:
        """Whether any cell has two measured identities."""
        return bool((self.num_identities >= 2).any())

    def take(self, images: Bools) -> "Samples":
        """The images of a mask (n,)."""
        return replace(self, values=self.values[images], cell=self.cell[images], identity=self.identity[images])

    def columns(self, places: list[int]) -> "Samples":
        """Some of the quantities."""
        return replace(self, values=self.values[:, places], names=tuple(self.names[place] for place in places))

    @cached_property
    def _units(self) -> tuple[Ints, Ints]:
        pairs = np.stack([self.cell, self.identity], axis=1)
        units, of_image = np.unique(pairs, axis=0, return_inverse=True)
        return units[:, 0], of_image.reshape(-1)

    @property
    def unit_cell(self) -> Ints:
        """Cell of each unit, (units,): a unit is one identity in one cell."""
        return self._units[0]

    @property
    def unit_of_image(self) -> Ints:
        """Unit of each image, (n,)."""
        return self._units[1]

    @cached_property
    def unit_means(self) -> Floats:
        """Mean of each unit's images, (units, q)."""
        sums = np.zeros((len(self.unit_cell), self.values.shape[1]))
        np.add.at(sums, self.unit_of_image, self.values)
        return np.asarray(sums / np.bincount(self.unit_of_image)[:, None])
