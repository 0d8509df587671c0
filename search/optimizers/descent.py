"""Attribute descent: one attribute after the other, each as good as it gets while the others stand still."""

import numpy as np
from pydantic import Field

from finegpr.arrays import Bools, Floats
from finegpr.config import Config
from search.space import Space

GENERATION = 5


class DescentOptions(Config):
    """``passes`` over all attributes."""

    passes: int = Field(default=2, ge=1, le=1000)


class Descent:
    """Coordinate descent over the values (Yao et al. 2020, there with one value per attribute), from a random mask.

    Attribute by attribute, a few values at a time, in an order that is drawn anew in every pass: each is turned over
    alone, and the best of them stays so if it is better. It ends after some passes.
    """

    def __init__(self, space: Space, *, passes: int, seed: int, evaluations: int) -> None:
        self.population = min(GENERATION, evaluations)
        self._space = space
        random = np.random.default_rng(seed)
        self._current = space.decode(random.uniform(-1, 1, (1, space.num_bits)))[0]
        self._loss = np.inf
        self._started = False
        self._bits = [
            int(bit)
            for _ in range(passes)
            for block in space.blocks
            for bit in random.permutation(np.arange(block.start, block.stop))
        ]

    def ask(self, num: int) -> Bools:
        """The next neighbours within the budget; none at the end."""
        if not self._started:
            self._started = True
            return np.asarray(self._current[None])
        turned: list[Bools] = []
        while self._bits and len(turned) < min(num, self.population):
            mask = self._current.copy()
            mask[self._bits.pop(0)] ^= True
            whole = all(mask[block].any() for block in self._space.blocks)
            if whole and self._space.feasible(mask[None])[0]:
                turned.append(mask)
        return np.array(turned, dtype=bool).reshape(-1, self._space.num_bits)

    def tell(self, masks: Bools, losses: Floats) -> None:
        """Go to the best of them if it is better."""
        best = int(losses.argmin())
        if losses[best] < self._loss:
            self._current, self._loss = masks[best], float(losses[best])


def make_descent(space: Space, options: DescentOptions, *, seed: int, evaluations: int) -> Descent:
    """The descent; it may end before the evaluations are spent."""
    return Descent(space, passes=options.passes, seed=seed, evaluations=evaluations)
