"""Distribution mode: a share of each value instead of in or out, as a few levels that every optimizer can search."""

from collections.abc import Sequence
from math import prod
from typing import TYPE_CHECKING

import numpy as np

from finegpr.arrays import Bools, Floats, Ints
from finegpr.errors import ConfigError, InputError
from finegpr.mixture import Mixture
from finegpr.subset import Subset
from search.space.space import Budget, Space, SpaceConfig

if TYPE_CHECKING:
    from finegpr.catalog import Catalog, Cells


class MixtureSpace(Space):
    """All mixtures whose weights are at most ``config.levels``; one of weight 3 is drawn three times as often as of 1.

    A mask is (values x levels,) bool, a value's levels side by side; a value of weight w has its first w bits. Other
    masks, and weights of an attribute with a common divisor, are not feasible: so a mixture has one mask, and a flip of
    a bit is a step of one level. Bounds and arcs of the space hold for the values of a weight above 0. Raises
    ConfigError for identity-level attributes: people are in or out.
    """

    _levels = 1  # while the space of subsets below is set up

    def __init__(
        self,
        cells: "Cells",
        identity: Ints,
        budget: Budget,
        *,
        seed: int,
        config: SpaceConfig,
        groups: "Cells | None" = None,
    ) -> None:
        if groups is not None:
            raise ConfigError("levels are for image-level attributes; leave out identity_attributes, or levels")
        super().__init__(cells, identity, budget, seed=seed, config=config)
        self._levels = config.levels
        self.num_bits *= self._levels
        self.blocks = tuple(slice(block.start * self._levels, block.stop * self._levels) for block in self.blocks)

    @property
    def num_subsets(self) -> int:
        """Number of masks before the budget, bounds and arcs: the product of (levels + 1)^values - 1."""
        return prod((self._levels + 1) ** len(values) - 1 for values in self.values)

    def subset(self, mask: Bools) -> Subset:
        """The mixture of a mask (bits,)."""
        weights = self._weights(mask[None])[0].tolist()
        bit = iter(weights)
        chosen = {
            attribute.name: {value: next(bit) for value in values}
            for attribute, values in zip(self.attributes, self.values, strict=True)
        }
        return Mixture({**chosen, **{name: dict.fromkeys(values, 1) for name, values in self.fixed.items()}})

    def mask(self, subset: Subset) -> Bools:
        """The mask (bits,) of a mixture or subset. Raises InputError for a weight above ``levels``, too."""
        inside = super().mask(subset)
        weights = inside.astype(np.int64)
        if isinstance(subset, Mixture):
            place = 0
            for attribute, values in zip(self.attributes, self.values, strict=True):
                for value in values:
                    weights[place] = subset.weights.get(attribute.name, {}).get(value, weights[place])
                    place += 1
        if weights.max() > self._levels:
            raise InputError(f"a weight of {weights.max()} needs levels of at least that; the space has {self._levels}")
        return np.asarray((np.arange(self._levels) < weights[:, None]).reshape(-1))

    def cell_masks(self, masks: Bools) -> Bools:
        """Which cells have a weight above 0, (n, bits) -> (n, C)."""
        return super().cell_masks(self._inside(masks))

    def expect(self, masks: Bools) -> tuple[Floats, Bools]:
        """Expected shares of the cells (n, C) in a manifest drawn in proportion to their weights, and ``feasible``."""
        weights = self._weights(masks)
        of_cell = np.where(self.cell_masks(masks), 1.0, 0.0)
        for bits in self._cell_level.bits:
            of_cell *= weights[:, bits]
        return self.sampler.expect_weighted(of_cell)

    def feasible(self, masks: Bools) -> Bools:
        """Whether masks (n, bits) are those of a mixture that holds the budget and lies within all bounds, (n,)."""
        steps = masks.reshape(len(masks), masks.shape[1] // self._levels, self._levels)
        held = (steps[:, :, :-1] >= steps[:, :, 1:]).all(axis=(1, 2)) & self._is_reduced(self._weights(masks))
        held[held] = super().feasible(self._inside(masks[held]))
        return np.asarray(held)

    def decode(self, x: Floats) -> Bools:
        """Coordinates (n, bits) -> masks: of each value, as many levels as coordinates above 0; repaired as a subset by
        the highest of them."""
        x = -np.sort(-x.reshape(len(x), x.shape[1] // self._levels, self._levels), axis=2)
        inside = super().decode(x[:, :, 0])
        weights = np.where(inside, np.maximum((x > 0).sum(axis=2), 1), 0)
        for block in self._value_blocks:
            weights[:, block] //= np.gcd.reduce(weights[:, block], axis=1)[:, None]
        return np.asarray((np.arange(self._levels) < weights[:, :, None]).reshape(len(x), -1))

    @property
    def _value_blocks(self) -> list[slice]:
        return [slice(block.start // self._levels, block.stop // self._levels) for block in self.blocks]

    def _inside(self, masks: Bools) -> Bools:
        """The values of a weight above 0, (n, bits) -> (n, V); masks of values alone, as the space of subsets below has
        them, are what they are."""
        num_values = sum(map(len, self.values))
        return (
            masks
            if masks.shape[1] == num_values
            else masks.reshape(len(masks), masks.shape[1] // self._levels, self._levels)[:, :, 0]
        )

    def _weights(self, masks: Bools) -> Ints:
        return np.asarray(masks.reshape(len(masks), masks.shape[1] // self._levels, self._levels).sum(axis=2))

    def _is_reduced(self, weights: Ints) -> Bools:
        reduced = np.ones(len(weights), dtype=bool)
        for block in self._value_blocks:
            reduced &= np.gcd.reduce(weights[:, block], axis=1) == 1
        return reduced


def make_space(
    catalog: "Catalog",
    budget: Budget,
    *,
    seed: int,
    attributes: Sequence[str] | None = None,
    config: SpaceConfig,
) -> Space:
    """The space of subsets of a catalog, or of mixtures where the config gives a value several levels."""
    kind = Space if config.levels == 1 else MixtureSpace
    return kind.of(catalog, budget, seed=seed, attributes=attributes, config=config)
