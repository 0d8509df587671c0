"""The manifest: which images are trained on. One seeded sampler serves every arm of a comparison.

A budget of B images is poured over the identities like water over a floor of uneven depth, and within each identity
over the cells. So no person and no attribute value weighs more than it must.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from finegpr.arrays import Bools, Floats, Ints
from finegpr.errors import InputError
from finegpr.mixture import Mixture
from finegpr.proportions import proportional, systematic
from finegpr.subset import Subset

if TYPE_CHECKING:
    from finegpr.catalog import Cells

FEW_KINDS = 200


@dataclass(frozen=True, kw_only=True)
class _Slab:
    """One layer of water: all cells of each kind of identity that hold at least ``top`` images.

    ``depth`` is ``top`` minus the top of the slab below; ``reaches`` (K, C) is 1 where the cell is that full.
    """

    depth: float
    reaches: Floats


@dataclass(frozen=True, kw_only=True)
class _Chosen:
    """Kinds (n, K) of identity that are trained on whole, and those of which the first ``left`` (n,) people are."""

    whole: Bools
    tied: Bools
    left: Ints


class Sampler:
    """Draws exactly ``budget`` images of a subset.

    1. Identities: those that can fill their even share ceil(B / K), then those that come nearest to it; ties by a
       priority that depends on ``seed`` only, not on the subset. The first K are taken; all of them when
       ``identities`` is None.
    2. Integer water-filling of B over these, ties at random; then of each identity's share over its cells; then the
       images of a cell at random.

    ``groups`` of people are the "cells" of identity-level attributes; with them, a mask of groups (n, G) goes with
    every mask of cells (n, C), and None means all. Rows with an unknown attribute, of either level, junk (identity -1)
    and distractors (0) are never drawn.
    """

    def __init__(
        self,
        cells: "Cells",
        identity: Ints,
        *,
        budget: int,
        identities: int | None,
        seed: int,
        groups: "Cells | None" = None,
    ) -> None:
        if len(identity) != len(cells.of_row):
            raise ValueError(f"identity has {len(identity)} rows, the cells {len(cells.of_row)}")
        if budget < 1 or (identities is not None and not 1 <= identities <= budget):
            raise InputError(f"a budget needs 1 <= identities <= images, got {identities} identities, {budget} images")
        self.cells = cells
        self.groups = groups
        self.budget = budget
        self.identities = identities
        self.seed = seed
        drawable = (cells.of_row >= 0) & (identity > 0)
        if groups is not None:
            drawable &= groups.of_row >= 0
        self._rows = np.flatnonzero(drawable)
        self._labels, self._identity = np.unique(identity[self._rows], return_inverse=True)
        labels = self._labels
        self._cell = cells.of_row[self._rows]
        counts = np.zeros((len(labels), len(cells)), dtype=np.int64)
        np.add.at(counts, (self._identity, self._cell), 1)
        self._images = counts.sum(axis=0).astype(np.float64)
        self._priority = np.random.default_rng(seed).permutation(len(labels))
        facts = counts
        if groups is not None:
            of_identity = _group_of_identity(groups, self._rows, self._identity, labels)
            self.people_of_group = np.bincount(of_identity, minlength=len(groups)).astype(np.int64)
            self._images_of_group = np.zeros((len(groups), len(cells)))
            np.add.at(self._images_of_group, of_identity, counts)
            facts = np.column_stack([of_identity, counts])
        # Identities of equal cell counts and group are interchangeable: one kind each keeps FineGPR at a single row.
        kinds, self._kind, self._kind_size = np.unique(facts, axis=0, return_inverse=True, return_counts=True)
        self._kind = self._kind.reshape(-1)
        if groups is not None:
            self._group_of_kind, kinds = kinds[:, 0], kinds[:, 1:]
        # Counts are exact in single precision up to 2^24, and their sums twice as fast.
        exact = np.float32 if kinds.sum(axis=1).max(initial=0) < 2**24 else np.float64
        self._kinds = kinds.astype(exact)
        self._by_kind = np.argsort(self._kind, kind="stable")
        tops = np.unique(kinds[kinds > 0])
        self._slabs = [
            _Slab(depth=float(top - below), reaches=(kinds >= top).astype(np.float64))
            for top, below in zip(tops, np.concatenate([[0], tops[:-1]]), strict=True)
        ]

    def images(self, cell_masks: Bools, group_masks: Bools | None = None) -> Ints:
        """Number of drawable images in masks (n, C) and (n, G) -> (n,)."""
        # NumPy multiplies matrices of bool 25 times slower than of float.
        inside = cell_masks.T.astype(np.float64)
        if group_masks is None:
            return np.asarray(self._images @ inside, dtype=np.int64)
        return np.asarray(((self._images_of_group @ inside) * group_masks.T).sum(axis=0), dtype=np.int64)

    def num_identities(self, cell_masks: Bools, group_masks: Bools | None = None) -> Ints:
        """Number of identities with an image in masks (n, C) and (n, G) -> (n,)."""
        available = self._available(cell_masks, group_masks)
        return np.asarray((available > 0) @ self._kind_size.astype(np.float64), dtype=np.int64)

    def feasible(self, cell_masks: Bools, group_masks: Bools | None = None) -> Bools:
        """Whether a manifest can be drawn from masks (n, C) and (n, G) -> (n,): K identities that hold B images
        together.

        Adding cells or groups to a feasible mask keeps it feasible.
        """
        enough = self.images(cell_masks, group_masks) >= self.budget
        if self.identities is not None and enough.any():
            groups = None if group_masks is None else group_masks[enough]
            enough[enough] = self._hold_budget(self._available(cell_masks[enough], groups))
        return enough

    def expected_shares(self, cell_masks: Bools, group_masks: Bools | None = None) -> Floats:
        """Expected share of each cell in a manifest drawn from masks (n, C) and (n, G) -> (n, C); rows sum to 1.

        With groups (n, C + G): after the cells' shares those of the groups, which sum to 1 too. The expectation over
        draws is exact, because integer water-filling with ties at random is linear in the level. Where a mask is not
        feasible, everything its identities hold is taken.
        """
        return self.expect(cell_masks, group_masks)[0]

    def expect(self, cell_masks: Bools, group_masks: Bools | None = None) -> tuple[Floats, Bools]:
        """``expected_shares`` and ``feasible`` at once, for less than both."""
        available = self._available(cell_masks, group_masks)
        num_chosen = self._num_chosen(available)
        level = _water_level(available, num_chosen, float(self.budget))
        share = np.minimum(available, level[:, None])
        poured = np.zeros_like(share)
        # Arrays lie as the masks of a space do, cell by cell.
        inside = cell_masks.T.astype(np.float64)
        shares = np.zeros((len(self.cells) + (0 if self.groups is None else len(self.groups)), len(share)))
        of_cell = shares[: len(self.cells)]
        for slab in self._slabs:
            alone = len(self._slabs) == 1
            area = available / slab.depth if alone else self._within((slab.reaches @ inside).T, group_masks)
            height = np.clip((share - poured) / np.maximum(area, 1.0), 0.0, slab.depth)
            poured += height * area
            weight = num_chosen * height
            # The same product, in the order that is faster for few and for many kinds.
            of_cell += (weight @ slab.reaches).T if len(self._kinds) > FEW_KINDS else slab.reaches.T @ weight.T
        of_cell *= inside
        of_cell /= np.maximum(of_cell.sum(axis=0), 1e-300)
        if self.groups is not None:
            # Kinds are sorted by group.
            present, starts = np.unique(self._group_of_kind, return_index=True)
            of_group = np.add.reduceat(num_chosen * share, starts, axis=1)
            shares[len(self.cells) + present] = (of_group / np.maximum(of_group.sum(axis=1, keepdims=True), 1e-300)).T
        return shares.T, self._hold_budget(available)

    def expect_weighted(self, cell_weights: Floats) -> tuple[Floats, Bools]:
        """Expected shares (n, C) of manifests drawn in proportion to weights (n, C), and ``feasible`` (n,); exact.

        The images of one identity are shared among its cells as ``proportional`` says. Without groups only.
        """
        weights = np.asarray(cell_weights, dtype=np.float64)
        available = self._available(weights > 0, None)
        num_chosen = self._num_chosen(available)
        share = np.minimum(available, _water_level(available, num_chosen, float(self.budget))[:, None])
        least = np.floor(share + 1e-9)
        more = share - least
        expected = np.zeros_like(weights)
        for kind, capacity in enumerate(self._kinds):
            rows = np.flatnonzero(num_chosen[:, kind] > 0)
            held = np.broadcast_to(capacity, (len(rows), len(capacity)))
            # Ties are drawn: some of these people get one image more than the others.
            few, many = (
                proportional(held, weights[rows], least[rows, kind] + extra) * part[:, None]
                for extra, part in ((0, 1 - more[rows, kind]), (1, more[rows, kind]))
            )
            expected[rows] += num_chosen[rows, kind, None] * (few + many)
        expected /= np.maximum(expected.sum(axis=1, keepdims=True), 1e-300)
        return expected, self._hold_budget(available)

    def draw(self, subset: Subset | Bools, *, seed: int) -> Ints:
        """Row numbers (budget,), ascending, of one manifest from a subset, a mixture or a cell mask (C,).

        Raises InputError when the subset does not hold the budget.
        """
        cell_mask, group_mask = self._masks_of(subset)
        self._require(cell_mask, group_mask)
        random = np.random.default_rng((self.seed, seed))
        if isinstance(subset, Mixture) and subset.has_weights:
            return self._draw_weighted(subset.of_cells(self.cells), cell_mask, group_mask, random)
        chosen = self._taken(cell_mask, group_mask)
        rows = np.flatnonzero(cell_mask[self._cell] & chosen[self._identity])
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

    def _draw_weighted(
        self, weights: Floats, cell_mask: Bools, group_mask: Bools | None, random: np.random.Generator
    ) -> Ints:
        """As ``draw``, each person's images shared among the cells in proportion to ``weights`` (C,)."""
        available = self._available(cell_mask[None], None if group_mask is None else group_mask[None])
        people = np.flatnonzero(self._is_chosen(available))
        quota = _integer_levels(available[0, self._kind[people]].astype(np.int64), self.budget, random)
        rows = np.flatnonzero(cell_mask[self._cell])
        rows = rows[random.permutation(len(rows))]
        rows = rows[np.lexsort((self._cell[rows], self._identity[rows]))]
        turn = _turns(self._identity[rows] * len(self.cells) + self._cell[rows], (np.arange(len(rows)),))
        wanted = np.zeros((len(self._kind), len(self.cells)), dtype=np.int64)
        for person, num in zip(people, quota, strict=True):
            capacity = self._kinds[self._kind[person]][None]
            wanted[person] = systematic(proportional(capacity, weights[None], np.array([float(num)]))[0], random)
        taken = turn < wanted[self._identity[rows], self._cell[rows]]
        return np.sort(self._rows[rows[taken]])

    def people(self, subset: Subset | Bools) -> Ints:
        """Identities (P,), ascending, that ``draw`` takes from a subset: all with an image in it, where no number is
        given. Of a subset too small to draw from, those who come nearest to their share."""
        return np.asarray(self._labels[self._taken(*self._masks_of(subset))])

    def all_of(self, subset: Subset | Bools) -> Ints:
        """Row numbers, ascending, of every image that the ``people`` of a subset have in it."""
        cell_mask, group_mask = self._masks_of(subset)
        return self._rows[cell_mask[self._cell] & self._taken(cell_mask, group_mask)[self._identity]]

    def require(self, subset: Subset | Bools) -> Bools:
        """The cell mask (C,) of a subset or a mask. Raises InputError when no manifest can be drawn from it."""
        cell_mask, group_mask = self._masks_of(subset)
        self._require(cell_mask, group_mask)
        return cell_mask

    def _taken(self, cell_mask: Bools, group_mask: Bools | None) -> Bools:
        """Which identities are trained on, (I,), from a mask (C,) and (G,)."""
        return self._is_chosen(self._available(cell_mask[None], None if group_mask is None else group_mask[None]))

    def _available(self, cell_masks: Bools, group_masks: Bools | None) -> Floats:
        """Images that one identity of each kind has in masks (n, C) and (n, G) -> (n, K)."""
        of_kind = (np.asarray(cell_masks, dtype=self._kinds.dtype) @ self._kinds.T).astype(np.float64)
        return self._within(of_kind, group_masks)

    def _within(self, of_kind: Floats, group_masks: Bools | None) -> Floats:
        """The same (n, K), 0 for kinds whose group is out."""
        return of_kind if group_masks is None else of_kind * group_masks[:, self._group_of_kind]

    def _hold_budget(self, available: Floats) -> Bools:
        """Whether K identities hold B images together, given what one of each kind has, (n, K) -> (n,)."""
        size = self._kind_size
        if self.identities is None:
            return np.asarray(available @ size.astype(np.float64) >= self.budget)
        # The K chosen hold B images when the K largest do: either K fill their share, or they are the K largest.
        num, images = self._largest(available)
        return np.asarray((num == self.identities) & (images >= self.budget))

    def _largest(self, available: Floats) -> tuple[Floats, Floats]:
        """How many of the K identities that have most have an image, and their images together, (n,)."""
        assert self.identities is not None
        order = np.argsort(-available, axis=1)
        size = self._kind_size[order]
        taken = np.clip(self.identities - (np.cumsum(size, axis=1) - size), 0, size)
        largest = np.take_along_axis(available, order, axis=1)
        return (taken * (largest > 0)).sum(axis=1), (taken * largest).sum(axis=1)

    def _choose(self, available: Floats, num: int) -> _Chosen:
        """Which kinds are trained on when ``num`` identities are, given what one of each has, (n, K)."""
        enough = np.minimum(available, -(-self.budget // num))
        order = np.argsort(-enough, axis=1, kind="stable")
        size = self._kind_size[order]
        last = ((np.cumsum(size, axis=1) - size) < num).sum(axis=1) - 1
        threshold = np.take_along_axis(enough, np.take_along_axis(order, last[:, None], axis=1), axis=1)
        whole = enough > threshold
        return _Chosen(whole=whole, tied=(enough == threshold) & (enough > 0), left=num - whole @ self._kind_size)

    def _num_chosen(self, available: Floats) -> Floats:
        """How many identities of each kind are trained on, (n, K): ``identities`` in all, or all that have an image."""
        if self.identities is None:
            return np.where(available > 0, self._kind_size, 0).astype(np.float64)
        chosen = self._choose(available, self.identities)
        num = np.where(chosen.tied, np.minimum(chosen.left[:, None], self._kind_size), 0)
        # Between kinds that come equally near to their share, the people's priority decides.
        mixed = np.flatnonzero(chosen.tied.sum(axis=1) > 1)
        if len(mixed):
            of_identity = self._first(chosen.tied[mixed], chosen.left[mixed])
            starts = np.cumsum(self._kind_size) - self._kind_size
            num[mixed] = np.add.reduceat(of_identity[:, self._by_kind], starts, axis=1, dtype=np.int64)
        return np.where(chosen.whole, self._kind_size, num).astype(np.float64)

    def _is_chosen(self, available: Floats) -> Bools:
        """Which identities are trained on, (I,), given what one of each kind has, (1, K)."""
        if self.identities is None:
            return np.asarray(available[0, self._kind] > 0)
        chosen = self._choose(available, self.identities)
        return np.asarray(chosen.whole[0, self._kind] | self._first(chosen.tied, chosen.left)[0])

    def _first(self, kinds: Bools, num: Ints) -> Bools:
        """The ``num`` (n,) identities of these kinds (n, K) that come first by priority, (n, I)."""
        by_priority = np.argsort(self._priority)
        member = kinds[:, self._kind[by_priority]]
        first = np.empty_like(member)
        first[:, by_priority] = member & (np.cumsum(member, axis=1, dtype=np.int64) <= num[:, None])
        return first

    def _masks_of(self, subset: Subset | Bools) -> tuple[Bools, Bools | None]:
        if not isinstance(subset, Subset):
            return np.asarray(subset, dtype=bool), None
        if self.groups is None:
            return self.cells.mask(subset), None
        names = [attribute.name for attribute in self.groups.attributes]
        of_people = {name: chosen for name, chosen in subset.values.items() if name in names}
        of_images = {name: chosen for name, chosen in subset.values.items() if name not in names}
        return self.cells.mask(Subset(of_images)), self.groups.mask(Subset(of_people))

    def _require(self, cell_mask: Bools, group_mask: Bools | None) -> None:
        masks = cell_mask[None], None if group_mask is None else group_mask[None]
        if self.feasible(*masks)[0]:
            return
        images, people = int(self.images(*masks)[0]), int(self.num_identities(*masks)[0])
        got = f"{images} images of {people} identities"
        wanted = "" if self.identities is None else f" of {self.identities} identities together"
        if self.identities is not None and images >= self.budget and people >= self.identities:
            most = int(self._largest(self._available(*masks))[1][0])
            got += f", but no {self.identities} of them hold more than {most}"
        everything = cell_mask.all() and (group_mask is None or group_mask.all())
        raise InputError(
            f"{'all together' if everything else 'the subset'} holds {got}, expected at least {self.budget} "
            f"images{wanted}; {'' if everything else 'choose more values or '}lower the budget"
        )


def _group_of_identity(groups: "Cells", rows: Ints, identity: Ints, labels: Ints) -> Ints:
    """The group of each identity, (I,). Raises InputError for a person in several groups."""
    of_row = groups.of_row[rows]
    of_identity = np.empty(len(labels), dtype=np.int64)
    of_identity[identity] = of_row
    if len(strange := np.flatnonzero(of_identity[identity] != of_row)):
        names = ", ".join(attribute.name for attribute in groups.attributes)
        raise InputError(
            f"identity {labels[identity[strange[0]]]} has images of several groups of {names}; "
            "expected one value of an identity-level attribute per person; mend the labels"
        )
    return of_identity


def _water_level(available: Floats, num: Floats, budget: float) -> Floats:
    """The level t with sum_k num_k min(available_k, t) = budget, (n, K) -> (n,); the deepest where it overflows."""
    order = np.argsort(available, axis=1)
    depth = np.take_along_axis(available, order, axis=1)
    width = np.take_along_axis(num, order, axis=1)
    filled = np.cumsum(depth * width, axis=1) - depth * width
    open_width = width[:, ::-1].cumsum(axis=1)[:, ::-1]
    level = (budget - filled) / np.maximum(open_width, 1e-300)
    found = (level <= depth) & (open_width > 0)
    first = found.argmax(axis=1)
    return np.where(found.any(axis=1), level[np.arange(len(level)), first], depth[:, -1])


def _integer_levels(available: Ints, budget: int, random: np.random.Generator) -> Ints:
    """Images (I,) that each of these people gives when ``budget`` is poured over them, ties at random."""
    given = np.minimum(available, 0)
    left = budget
    level = 0
    while left:
        level += 1
        open_to_more = np.flatnonzero(available >= level)
        open_to_more = open_to_more[random.permutation(len(open_to_more))][:left]
        given[open_to_more] += 1
        left -= len(open_to_more)
    return given


def _turns(group: Ints, keys: tuple[Ints, ...]) -> Ints:
    """Position of each row within its group when the group's rows are sorted by ``keys``, the last one first."""
    sorting = np.lexsort((*keys, group))
    ordered = group[sorting]
    starts = np.flatnonzero(np.concatenate([[True], ordered[1:] != ordered[:-1]])) if len(group) else np.zeros(0, int)
    position = np.arange(len(group)) - np.repeat(starts, np.diff(np.concatenate([starts, [len(group)]])))
    turns = np.empty(len(group), dtype=np.int64)
    turns[sorting] = position
    return turns
