"""Per-attribute greedy choice, as the tables of attribute values in GPR+ (Xiang et al. 2021) suggest it."""

import numpy as np

from finegpr.arrays import Bools, Floats
from search.space import Space

GENERATION = 50
NUM_THRESHOLDS = 20


class Greedy:
    """Each value is scored alone, with all values of the other attributes; then the best values of each are combined.

    A value's merit is its loss in standard deviations of its attribute's. The combinations hold the values of a merit
    above some threshold, from few to many. A subset that does not fit the budget is repaired as a coordinate would be.
    """

    def __init__(self, space: Space, *, evaluations: int) -> None:
        self.population = min(GENERATION, evaluations)
        self._space = space
        self._losses: list[float] = []
        self._queue = list(space.decode(_alone(space)))
        self._combined = False

    def ask(self, num: int) -> Bools:
        """The next values alone, then the combinations, then none."""
        if not self._queue and not self._combined:
            self._combined = True
            self._queue = list(self._space.decode(self._combinations()))
        taken, self._queue = self._queue[:num], self._queue[num:]
        return np.array(taken, dtype=bool).reshape(-1, self._space.num_bits)

    def tell(self, masks: Bools, losses: Floats) -> None:  # noqa: ARG002 (they are told in the order of the values)
        """Remember the losses of the values."""
        self._losses += losses.tolist()

    def _combinations(self) -> Floats:
        """Coordinates (thresholds, bits): merit above a threshold."""
        merit = -np.array(self._losses)
        for block in self._space.blocks:
            merit[block] -= merit[block].mean()
            merit[block] /= merit[block].std() or 1.0
        levels = np.quantile(merit, np.linspace(0, 1, NUM_THRESHOLDS + 1)[:-1])
        return np.asarray(merit - levels[::-1, None])


def _alone(space: Space) -> Floats:
    """Coordinates (bits, bits): of its attribute only this value is in, of the others all."""
    x = np.ones((space.num_bits, space.num_bits))
    for block in space.blocks:
        x[block, block] = -1.0
    np.fill_diagonal(x, 2.0)
    return x


def make_greedy(space: Space, options: object, *, seed: int, evaluations: int) -> Greedy:  # noqa: ARG001
    """The greedy choice; it draws nothing at random."""
    return Greedy(space, evaluations=evaluations)
