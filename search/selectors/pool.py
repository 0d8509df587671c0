"""The pool that a selector draws a manifest from, and how a budget of people is spent on it."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from finegpr.arrays import Floats, Ints
from finegpr.errors import InputError
from search.measured import Measured
from search.space import Budget


@dataclass(frozen=True, kw_only=True, eq=False)
class Pool:
    """The rows of a catalog, and what is known of them and of the target.

    The cells of ``measured`` are of the attributes that count, of images or of people. ``target_shares``: attribute ->
    value -> its share among the target's images, None where nobody estimated it.
    """

    measured: Measured
    target_shares: Mapping[str, Mapping[str, float]] | None

    @cached_property
    def drawable(self) -> Ints:
        """Row numbers (n,), ascending: no unknown attribute, no junk (identity -1), no distractor (0)."""
        return np.flatnonzero((self.measured.cells.of_row >= 0) & (self.measured.identity > 0))

    @cached_property
    def sketched(self) -> Ints:
        """Places (n,) in the measurements of the drawable rows that have a sketch.

        Raises InputError for a target without measurements, or measurements of another catalog.
        """
        self.measured.require_target()
        return np.flatnonzero(np.isin(self.measured.measurements.row, self.drawable))


def holds(available: Ints, budget: Budget) -> bool:
    """Whether people with so many images each, (I,), can make up a manifest: K of them that hold B images together."""
    num = budget.identities
    largest = np.sort(available[available > 0])[::-1][:num]
    return (num is None or len(largest) == num) and int(largest.sum()) >= budget.images


def require(available: Ints, budget: Budget, *, what: str, advice: str) -> None:
    """Raises InputError, saying what ``what`` holds, unless ``holds``."""
    if not holds(available, budget):
        people = "" if budget.identities is None else f" of {budget.identities} identities together"
        raise InputError(
            f"{what} hold {available.sum()} images of {np.count_nonzero(available)} identities, expected at least "
            f"{budget.images} images{people}; {advice} or lower the budget"
        )


def choose_people(available: Ints, keys: Floats, *, num: int, images: int) -> Ints:
    """Places (num,) of the people trained on: those that can fill their even share ceil(B / K), then those that come
    nearest to it, as ``manifest.Sampler`` does; of equal ones the highest keys (I,).

    When ``holds``, those chosen hold the budget.
    """
    enough = np.minimum(available, -(-images // num))
    return np.lexsort((-keys, -enough))[:num]
