"""The shape of a choice within one attribute: how many values are in, and whether they form one arc or range."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from finegpr.arrays import Bools, Floats, Ints


@dataclass(frozen=True, kw_only=True, eq=False)
class Shape:
    """At least ``least`` and at most ``most`` of the V values of an attribute, whose bits are ``block``.

    ``circle`` (V,) lists the values, as places in the block, in their order round the circle when those that are in
    have to be neighbours; None when any will do. With ``is_line`` they are in order, and the last is no neighbour of
    the first: a circle is then one with a gap between the two, a place that is never in. Masks and coordinates here are
    those of the block alone, (n, V).
    """

    block: slice
    least: int
    most: int
    circle: Ints | None = None
    is_line: bool = False

    @property
    def is_free(self) -> bool:
        """Whether any choice of one value or more will do."""
        return self.least <= 1 and self.most >= self.block.stop - self.block.start and self.circle is None

    def holds(self, masks: Bools) -> Bools:
        """Whether masks (n, V) have this shape, (n,)."""
        num = masks.sum(axis=1)
        held = (num >= self.least) & (num <= self.most)
        if self.circle is not None:
            held &= _arc_starts(self._round(masks, False)).sum(axis=1) <= 1
        return np.asarray(held)

    def choose(self, x: Floats) -> Bools:
        """The mask of this shape that coordinates (n, V) say: values above 0, more or fewer of the highest where the
        bounds ask for that; the arc with the greatest sum, the shorter and then the first of equal ones."""
        if self.circle is not None:
            chosen = np.empty(x.shape, dtype=bool)
            chosen[:, self.circle] = self._best_arc(x[:, self.circle])
            return chosen
        rank = ranks(-x)
        return np.asarray((x > 0) & (rank < self.most) | (rank < self.least))

    def entering(self, masks: Bools, x: Floats) -> tuple[Floats, Ints]:
        """In which order values come in: keys (n, V) ascending, and the value (n, V) that each key is of.

        The higher ones first, of an arc's two neighbours the higher one. -inf: is in; inf: may not come in.
        """
        if self.circle is None:
            keys = np.where(masks, -np.inf, -x)
            return np.where(ranks(keys) < self.most, keys, np.inf), _each(x)
        inside, x = self._round(masks, False), self._round(x, -np.inf)
        num = inside.sum(axis=1)
        place = _turned(_arc_starts(inside).argmax(axis=1) + num, x.shape[1])
        outside = np.arange(x.shape[1]) < x.shape[1] - num[:, None]
        height = np.where(outside, np.take_along_axis(x, place, axis=1), np.inf)
        # A value comes in once all between it and the arc are in, from the side where the lowest of them is higher.
        ahead = np.minimum.accumulate(height, axis=1)
        behind = np.minimum.accumulate(height[:, ::-1], axis=1)[:, ::-1]
        keys = np.where(outside, -np.maximum(ahead, behind), -np.inf)
        chain = _chain(keys, ahead >= behind, x.shape[1] - num)
        keys = np.take_along_axis(keys, chain, axis=1)
        keys[:, self.most :] = np.inf
        return self._along(keys, np.take_along_axis(place, chain, axis=1))

    def leaving(self, masks: Bools, x: Floats) -> tuple[Floats, Ints]:
        """In which order values go out: keys (n, V) ascending, and the value (n, V) that each key is of.

        The lower ones first, of an arc's two ends the lower one. inf: is out, or one of the last that have to stay.
        """
        num = masks.sum(axis=1)[:, None]
        if self.circle is None:
            stays = ranks(np.where(masks, -x, np.inf)) < self.least
            return np.where(masks & ~stays, x, np.inf), _each(x)
        inside, x = self._round(masks, False), self._round(x, -np.inf)
        # A whole circle opens at its lowest value.
        start = np.where(num[:, 0] < x.shape[1], _arc_starts(inside).argmax(axis=1), x.argmin(axis=1))
        place = _turned(start, x.shape[1])
        inside = np.arange(x.shape[1]) < num
        height = np.where(inside, np.take_along_axis(x, place, axis=1), -np.inf)
        ahead = np.maximum.accumulate(height, axis=1)
        behind = np.maximum.accumulate(height[:, ::-1], axis=1)[:, ::-1]
        keys = np.where(inside, np.minimum(ahead, behind), np.inf)
        chain = _chain(keys, ahead <= behind, num[:, 0])
        keys = np.take_along_axis(keys, chain, axis=1)
        keys[np.arange(x.shape[1]) >= num - self.least] = np.inf
        return self._along(keys, np.take_along_axis(place, chain, axis=1))

    def _round(self, of_value: Any, gap: Any) -> Any:
        """What the values (n, V) have, in the circle's order, with ``gap`` at the gap of a line."""
        assert self.circle is not None
        of_place = of_value[:, self.circle]
        return np.pad(of_place, ((0, 0), (0, 1)), constant_values=gap) if self.is_line else of_place

    def _along(self, keys: Floats, place: Ints) -> tuple[Floats, Ints]:
        """Keys and the values at these places, without the gap, whose key is inf."""
        assert self.circle is not None
        if self.is_line:
            others = np.argsort(place == len(self.circle), axis=1, kind="stable")[:, :-1]
            keys, place = np.take_along_axis(keys, others, axis=1), np.take_along_axis(place, others, axis=1)
        return keys, self.circle[place]

    def _best_arc(self, x: Floats) -> Bools:
        """The arc with the greatest sum of coordinates (n, V) in the circle's order."""
        rows, size = np.arange(len(x)), x.shape[1]
        sums = np.zeros((len(x), 2 * size + 1))
        np.cumsum(np.concatenate([x, x], axis=1), axis=1, out=sums[:, 1:])
        best, start, num = np.full(len(x), -np.inf), np.zeros(len(x), dtype=np.int64), np.zeros(len(x), dtype=np.int64)
        for length in range(self.least, min(self.most, size) + 1):
            starts = size - length + 1 if self.is_line else size
            of_start = sums[:, length : length + starts] - sums[:, :starts]
            first = of_start.argmax(axis=1)
            better = of_start[rows, first] > best
            best[better], start[better], num[better] = of_start[rows, first][better], first[better], length
        return np.asarray((np.arange(size) - start[:, None]) % size < num[:, None])


def ranks(keys: Floats) -> Ints:
    """Place of each entry (n, m) in its row's ascending order, ties by column."""
    order = np.argsort(keys, axis=1, kind="stable")
    places = np.empty_like(order)
    np.put_along_axis(places, order, np.arange(keys.shape[1])[None, :], axis=1)
    return places


def _arc_starts(masks: Bools) -> Bools:
    """Where an arc begins, (n, V): nowhere when all or none are in."""
    return masks & ~np.roll(masks, 1, axis=1)


def _turned(start: Ints, size: int) -> Ints:
    """The places (n, size) on a circle, from ``start`` (n,) on."""
    return (start[:, None] + np.arange(size)) % size


def _chain(keys: Floats, ahead: Bools, num: Ints) -> Ints:
    """Places (n, V) by ascending key; of equal ones that which is nearer to its end of the ``num`` (n,) first."""
    place = np.arange(keys.shape[1])
    near = np.argsort(np.where(ahead, place, num[:, None] - 1 - place), axis=1, kind="stable")
    return np.take_along_axis(near, np.argsort(np.take_along_axis(keys, near, axis=1), axis=1, kind="stable"), axis=1)


def _each(x: Floats) -> Ints:
    return np.broadcast_to(np.arange(x.shape[1]), x.shape)
