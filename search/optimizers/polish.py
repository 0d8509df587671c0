"""Local search from the best subset known, after any optimizer: flips, exchanges, and kicks when it is stuck."""

import numpy as np
from pydantic import Field

from finegpr.arrays import Bools, Floats
from finegpr.config import Config
from search.optimizers.base import MaskOptimizer
from search.optimizers.share_model import ShareModel
from search.space import Space

KICKS = (0.6, 0.8, 1.0, 1.5)  # standard deviations of the noise against a margin of 1: at 0.6 one value in twenty turns
NUM_KICKS = 60  # of each, of which the model takes one
PATIENCE = 2  # generations of neighbours without a better one before a kick
LEAST_POPULATION = 20
REFIT = 1.1  # times as many losses as the model was fitted to ...
MOST_UNFITTED = 100  # ... but at most so many more


class PolishOptions(Config):
    """``first`` is the share of the evaluations that the first optimizer has, at most ``most_first`` of them."""

    first: float = Field(default=0.3, gt=0, lt=1)
    most_first: int = Field(default=200, gt=0)


def neighbours(space: Space, mask: Bools) -> Bools:
    """Masks (n, bits) within the budget that differ from a mask by one value in or out, or one in for one out."""
    inside, outside = np.flatnonzero(mask), np.flatnonzero(~mask)
    flips = np.stack([np.arange(len(mask)), np.full(len(mask), -1)], axis=1)
    exchanges = np.stack([np.repeat(inside, len(outside)), np.tile(outside, len(inside))], axis=1)
    changes = np.concatenate([flips, exchanges])
    near = np.repeat(mask[None], len(changes), axis=0)
    rows = np.arange(len(changes))
    near[rows, changes[:, 0]] ^= True
    second = changes[:, 1] >= 0
    near[rows[second], changes[second, 1]] ^= True
    whole = np.all([near[:, block].any(axis=1) for block in space.blocks], axis=0)
    near = near[whole]
    return np.concatenate([near[piece][space.feasible(near[piece])] for piece in space.pieces(len(near))])


class Polish:
    """Neighbours of a mask: one value in or out, or one in for one out, of any attributes, all within the budget.

    They are proposed best first, by a model of the losses known so far. A generation with a better mask moves there.
    After ``PATIENCE`` generations without one the best mask known is kicked: of many random changes, the one that the
    model expects most of (iterated local search, Lourenco et al. 2003).
    """

    def __init__(self, space: Space, *, seed: int) -> None:
        self._space = space
        self._random = np.random.default_rng(seed)
        self._model = ShareModel(space)
        self._num_fitted = 0
        self._losses: dict[bytes, float] = {}
        self._loss = np.inf  # of the mask whose neighbours are in the queue
        self._queue: list[Bools] = []
        self._num_stale = 0
        self._started = False

    def ask(self, num: int) -> Bools:
        """Only masks whose loss is not known; none when none is within reach of a kick."""
        assert self._losses, "the polish starts from losses that it was told"
        self._fit()
        if not self._started:
            self._started = True
            self._move(self._best())
        if not self._queue or self._num_stale >= PATIENCE:
            self._kick()
        taken, self._queue = self._queue[:num], self._queue[num:]
        return np.array(taken, dtype=bool).reshape(-1, self._space.num_bits)

    def learn(self, masks: Bools, losses: Floats) -> None:
        """Losses (n,) of anybody's masks (n, bits)."""
        for mask, loss in zip(masks, losses.tolist(), strict=True):
            self._losses.setdefault(mask.tobytes(), loss)

    def tell(self, masks: Bools, losses: Floats) -> None:
        """Losses of the last ask: go to the best of them if it is better than where we are."""
        self.learn(masks, losses)
        best = int(losses.argmin())
        if losses[best] < self._loss:
            self._move(masks[best])
        else:
            self._num_stale += 1

    @property
    def best_loss(self) -> float:
        """The lowest loss known."""
        return min(self._losses.values())

    def _best(self) -> Bools:
        return np.frombuffer(min(self._losses, key=lambda key: self._losses[key]), dtype=bool)

    def _fit(self) -> None:
        num = len(self._losses)
        if num >= min(REFIT * self._num_fitted, self._num_fitted + MOST_UNFITTED):
            masks = np.frombuffer(b"".join(self._losses), dtype=bool).reshape(num, -1)
            self._model.fit(masks, np.array(list(self._losses.values())))
            self._num_fitted = num

    def _move(self, mask: Bools) -> None:
        """Stand at ``mask``, walk on while a better neighbour is known already, and queue the unknown ones."""
        self._num_stale = 0
        while True:
            self._loss = self._losses.get(mask.tobytes(), np.inf)
            near = neighbours(self._space, mask)
            near = near[np.argsort(self._model.predict(near), kind="stable")]
            known = [self._losses.get(neighbour.tobytes()) for neighbour in near]
            better = [(loss, place) for place, loss in enumerate(known) if loss is not None and loss < self._loss]
            if not better or not np.isfinite(self._loss):
                break
            mask = near[min(better)[1]]
        self._queue = [neighbour for neighbour, loss in zip(near, known, strict=True) if loss is None]
        if not np.isfinite(self._loss):
            self._queue.insert(0, mask)

    def _kick(self) -> None:
        """Stand somewhere new near the best; where no kick leads anywhere new, go on with the best's neighbours."""
        margin = np.where(self._best(), 1.0, -1.0)
        noise = np.repeat(KICKS, NUM_KICKS)[:, None] * self._random.normal(size=(len(KICKS) * NUM_KICKS, len(margin)))
        kicked = self._space.decode(margin + noise)
        kicked = kicked[self._space.feasible(kicked)]
        kicked = kicked[[mask.tobytes() not in self._losses for mask in kicked]]
        if len(kicked):
            self._move(kicked[int(self._model.predict(kicked).argmin())])
        elif not self._queue:
            self._move(self._best())


class Polished:
    """An optimizer for the first part of the evaluations, then the polish, which learns from its masks too."""

    def __init__(
        self, first: MaskOptimizer, space: Space, options: PolishOptions, *, seed: int, evaluations: int
    ) -> None:
        self._first = first
        self.population = min(max(first.population, LEAST_POPULATION), evaluations)
        self._polish = Polish(space, seed=seed)
        self._num_first = min(options.first * evaluations, options.most_first)
        self._seen: set[bytes] = set()
        self._num_told = 0
        self._polishing = False

    def ask(self, num: int) -> Bools:
        """From the first optimizer, then from the polish; none when the polish finds nothing new."""
        # A small space runs out of new masks before the first part is spent.
        self._polishing |= len(self._seen) >= self._num_first or self._num_told >= 2 * self._num_first
        if not self._polishing:
            masks = self._first.ask(num)
            if len(masks) or not self._seen:
                return masks
            self._polishing = True
        return self._polish.ask(num)

    def tell(self, masks: Bools, losses: Floats) -> None:
        """The polish learns from all."""
        self._num_told += len(masks)
        if self._polishing:
            self._polish.tell(masks, losses)
        else:
            self._seen.update(mask.tobytes() for mask in masks)
            self._first.tell(masks, losses)
            self._polish.learn(masks, losses)
