"""The manifest: which images are trained on. One seeded sampler serves every arm of a comparison.

A budget of B images is poured over the identities like water over a floor of uneven depth, and within each identity
over the cells. So no person and no attribute value weighs more than it must.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from finegpr.errors import InputError
from finegpr.subset import Subset

if TYPE_CHECKING:
    from finegpr.catalog import Cells

Bools = npt.NDArray[np.bool_]
Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]


@dataclass(frozen=True, kw_only=True)
class _Slab:
    """One layer of water: all cells of each group of identities that hold at least ``top`` images.

    ``depth`` is ``top`` minus the top of the slab below; ``reaches`` (G, C) is 1 where the cell is that full.
    """

    depth: float
    reaches: Floats


class Sampler:
    """Draws exactly ``budget`` images of a subset.

    1. Identities: those that can fill their even share ceil(B / K), then those that come nearest to it; ties by a
       priority that depends on ``seed`` only, not on the subset. The first K are taken; all of them when
       ``identities`` is None.
    2. Integer water-filling of B over these, ties at random; then of each identity's share over its cells; then the
       images of a cell at random.

    Rows with an unknown attribute, junk (identity -1) and distractors (0) are never drawn.
    """

    def __init__(self, cells: "Cells", identity: Ints, *, budget: int, identities: int | None, seed: int) -> None:
        if len(identity) != len(cells.of_row):
            raise ValueError(f"identity has {len(identity)} rows, the cells {len(cells.of_row)}")
        if budget < 1 or (identities is not None and not 1 <= identities <= budget):
            raise InputError(f"a budget needs 1 <= identities <= images, got {identities} identities, {budget} images")
        self.cells = cells
        self.budget = budget
        self.identities = identities
        self.seed = seed
        self._rows = np.flatnonzero((cells.of_row >= 0) & (identity > 0))
        labels, self._identity = np.unique(identity[self._rows], return_inverse=True)
        self._cell = cells.of_row[self._rows]
        counts = np.zeros((len(labels), len(cells)), dtype=np.int64)
        np.add.at(counts, (self._identity, self._cell), 1)
        self._images = counts.sum(axis=0).astype(np.float64)
        self._priority = np.random.default_rng(seed).permutation(len(labels))
        # Identities with equal cell counts are interchangeable: one group each keeps FineGPR at a single row.
        groups, self._group, self._group_size = np.unique(counts, axis=0, return_inverse=True, return_counts=True)
        self._group = self._group.reshape(-1)
        self._groups = groups.astype(np.float64)
        tops = np.unique(groups[groups > 0])
        self._slabs = [
            _Slab(depth=float(top - below), reaches=(groups >= top).astype(np.float64))
            for top, below in zip(tops, np.concatenate([[0], tops[:-1]]), strict=True)
        ]

    def images(self, masks: Bools) -> Ints:
        """Number of drawable images in cell masks (n, C) -> (n,)."""
        # NumPy multiplies matrices of bool 25 times slower than of float.
        return np.asarray(self._images @ masks.T.astype(np.float64), dtype=np.int64)

    def num_identities(self, masks: Bools) -> Ints:
        """Number of identities with an image in cell masks (n, C) -> (n,)."""
        return np.asarray((self._available(masks) > 0) @ self._group_size.astype(np.float64), dtype=np.int64)

    def feasible(self, masks: Bools) -> Bools:
        """Whether a manifest can be drawn from cell masks (n, C) -> (n,): K identities that hold B images together.

        Adding cells to a feasible mask keeps it feasible.
        """
        enough = self.images(masks) >= self.budget
        if self.identities is not None and enough.any():
            # The K chosen hold B images when the K largest do: either K fill their share, or they are the K largest.
            available = self._available(masks[enough])
            order = np.argsort(-available, axis=1)
            size = self._group_size[order]
            taken = np.clip(self.identities - (np.cumsum(size, axis=1) - size), 0, size)
            largest = np.take_along_axis(available, order, axis=1)
            num = (taken * (largest > 0)).sum(axis=1)
            enough[enough] = (num == self.identities) & ((taken * largest).sum(axis=1) >= self.budget)
        return enough

    def expected_shares(self, masks: Bools) -> Floats:
        """Expected share of each cell in a manifest drawn from cell masks (n, C); each row sums to 1.

        The expectation over draws is exact, because integer water-filling with ties at random is linear in the level.
        Where a mask is not feasible, everything its identities hold is taken.
        """
        masks = np.asarray(masks, dtype=bool)
        inside = masks.astype(np.float64)
        available = self._available(masks)
        num_chosen = self._chosen(available)
        level = _water_level(available, num_chosen, float(self.budget))
        share = np.minimum(available, level[:, None])
        expected = np.zeros_like(inside)
        poured = np.zeros_like(share)
        for slab in self._slabs:
            area = inside @ slab.reaches.T
            height = np.clip((share - poured) / np.maximum(area, 1.0), 0.0, slab.depth)
            poured += height * area
            expected += (num_chosen * height) @ slab.reaches
        expected *= inside
        return np.asarray(expected / np.maximum(expected.sum(axis=1, keepdims=True), 1e-300))

    def draw(self, subset: Subset | Bools, *, seed: int) -> Ints:
        """Row numbers (budget,), ascending, of one manifest from a subset or a cell mask (C,).

        Raises InputError when the subset does not hold the budget.
        """
        mask = self.require(subset)
        random = np.random.default_rng((self.seed, seed))
        rows = np.flatnonzero(mask[self._cell] & self._is_chosen(self._available(mask[None]))[0][self._identity])
        rows = rows[random.permutation(len(rows))]
        identity, cell = self._identity[rows], self._cell[rows]
        # Water-filling is taking turns: every cell gives its first image before any cell gives its second ...
        turn_in_cell = _turns(identity * len(self.cells) + cell, (np.arange(len(rows)),))
        # ... and every identity gives its first image before any identity gives its second.
        # Ties are drawn afresh: by row order, cells with more images would come first more often.
        turn = _turns(identity, (random.permutation(len(rows)), turn_in_cell))
        tie = random.permutation(len(self._priority))[identity]
        taken = np.lexsort((tie, turn))[: self.budget]
        return np.sort(self._rows[rows[taken]])

    def _available(self, masks: Bools) -> Floats:
        """Images that one identity of each group has in cell masks (n, C) -> (n, G)."""
        return np.asarray(np.asarray(masks, dtype=np.float64) @ self._groups.T)

    def _chosen(self, available: Floats) -> Floats:
        """How many identities of each group are trained on, (n, G)."""
        if self.identities is None:
            return np.where(available > 0, self._group_size, 0).astype(np.float64)
        member = np.zeros((len(self._group), len(self._group_size)))
        member[np.arange(len(self._group)), self._group] = 1.0
        return np.asarray(self._is_chosen(available).astype(np.float64) @ member)

    def _is_chosen(self, available: Floats) -> Bools:
        """Which identities are trained on, (n, I): at most K, fewer where fewer have an image."""
        of_identity = available[:, self._group]
        if self.identities is None:
            return np.asarray(of_identity > 0)
        even_share = -(-self.budget // self.identities)
        num = len(self._priority)
        rank = -np.minimum(of_identity, even_share) * num + self._priority
        chosen = np.zeros(of_identity.shape, dtype=bool)
        first = np.argsort(rank, axis=1, kind="stable")[:, : self.identities]
        np.put_along_axis(chosen, first, True, axis=1)
        return chosen & (of_identity > 0)

    def require(self, subset: Subset | Bools) -> Bools:
        """The cell mask (C,) of a subset or a mask. Raises InputError when no manifest can be drawn from it."""
        mask = self.cells.mask(subset) if isinstance(subset, Subset) else np.asarray(subset, dtype=bool)
        if self.feasible(mask[None])[0]:
            return mask
        got = f"{self.images(mask[None])[0]} images of {self.num_identities(mask[None])[0]} identities"
        wanted = "" if self.identities is None else f" of {self.identities} identities together"
        raise InputError(
            f"the subset holds {got}, expected at least {self.budget} images{wanted}; "
            "choose more values or lower the budget"
        )


def _water_level(available: Floats, num: Floats, budget: float) -> Floats:
    """The level t with sum_g num_g min(available_g, t) = budget, (n, G) -> (n,); the deepest where it overflows."""
    order = np.argsort(available, axis=1)
    depth = np.take_along_axis(available, order, axis=1)
    width = np.take_along_axis(num, order, axis=1)
    filled = np.cumsum(depth * width, axis=1) - depth * width
    open_width = width[:, ::-1].cumsum(axis=1)[:, ::-1]
    level = (budget - filled) / np.maximum(open_width, 1e-300)
    found = (level <= depth) & (open_width > 0)
    first = found.argmax(axis=1)
    return np.where(found.any(axis=1), level[np.arange(len(level)), first], depth[:, -1])


def _turns(group: Ints, keys: tuple[Ints, ...]) -> Ints:
    """Position of each row within its group when the group's rows are sorted by ``keys``, the last one first."""
    sorting = np.lexsort((*keys, group))
    ordered = group[sorting]
    starts = np.flatnonzero(np.concatenate([[True], ordered[1:] != ordered[:-1]])) if len(group) else np.zeros(0, int)
    position = np.arange(len(group)) - np.repeat(starts, np.diff(np.concatenate([starts, [len(group)]])))
    turns = np.empty(len(group), dtype=np.int64)
    turns[sorting] = position
    return turns
