"""Restart when stuck, after any optimizer."""

from collections.abc import Callable

import numpy as np

from finegpr.arrays import Bools, Floats
from search.optimizers.base import MaskOptimizer

MIN_NEW = 0.2  # of a generation's masks; an optimizer below that for PATIENCE generations has collapsed
PATIENCE = 2


class Restarting:
    """A new optimizer whenever fewer than a fifth of the last one's masks were new, twice in a row.

    ``make`` takes a seed. What was found before is not given to the new one, so that restarts are independent.
    """

    def __init__(self, make: Callable[[int], MaskOptimizer], *, seed: int) -> None:
        self.num_restarts = 0
        self._make = make
        self._seeds = np.random.SeedSequence(seed)
        self._seen: set[bytes] = set()
        self._num_stale = 0
        self._current = self._new()

    @property
    def population(self) -> int:
        """That of the current optimizer."""
        return self._current.population

    def ask(self, num: int) -> Bools:
        """From the current optimizer; from a new one when that has nothing left."""
        masks = self._current.ask(num)
        if len(masks) == 0:
            self._restart()
            masks = self._current.ask(num)
        return masks

    def tell(self, masks: Bools, losses: Floats) -> None:
        """Tell the current optimizer, and replace it when it has collapsed."""
        known = len(self._seen)
        self._seen.update(mask.tobytes() for mask in masks)
        self._current.tell(masks, losses)
        collapsed = len(self._seen) - known < MIN_NEW * len(masks)
        self._num_stale = self._num_stale + 1 if collapsed else 0
        if self._num_stale >= PATIENCE:
            self._restart()

    def _restart(self) -> None:
        self._current = self._new()
        self._num_stale = 0
        self.num_restarts += 1

    def _new(self) -> MaskOptimizer:
        return self._make(int(self._seeds.spawn(1)[0].generate_state(1)[0]))
