"""Local search from the best subset known: flips, exchanges, and kicks when no neighbour is better."""

from collections.abc import Sequence

import numpy as np

from search.space import Bools, Floats, Space
from search.trial import Proposal

KICKS = (0.6, 1.0, 2.0)  # standard deviation of the noise against a margin of 1: at 0.6 one value in twenty changes
NUM_KICKS = 20
RIDGE = 1.0


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
    """Neighbours of a subset: one value in or out, or one in for one out, of any attributes, all within the budget.

    They are proposed best first, by a linear model of the losses known so far. A generation with a better subset
    moves there; when all neighbours are known and none is better, the best subset known is kicked.
    """

    def __init__(self, space: Space, *, seed: int, population: int) -> None:
        self.population = population
        self._space = space
        self._random = np.random.default_rng(seed)
        self._losses: dict[bytes, float] = {}
        self._current: Bools | None = None
        self._queue: list[Bools] = []
        self._next_id = 0

    def ask(self, num: int) -> list[Proposal]:
        """Only subsets whose loss is not known; none when none is within reach of a kick."""
        assert self._losses, "the polish starts from losses that it was told"
        if self._current is None:
            self._move(self._best())
        if not self._queue:
            self._kick()
        taken, self._queue = self._queue[:num], self._queue[num:]
        first = self._next_id
        self._next_id += len(taken)
        return [Proposal(id=first + place, subset=self._space.subset(mask)) for place, mask in enumerate(taken)]

    def learn(self, scored: Sequence[tuple[Proposal, float]]) -> None:
        """Losses of anybody's proposals; their ids will not be used again."""
        for proposal, loss in scored:
            self._next_id = max(self._next_id, proposal.id + 1)
            self._losses.setdefault(self._space.mask(proposal.subset).tobytes(), loss)

    def tell(self, scored: Sequence[tuple[Proposal, float]]) -> None:
        """Losses of the last ask: go to the best of them if it is better than where we are."""
        self.learn(scored)
        proposal, loss = min(scored, key=lambda pair: pair[1])
        if loss < self._loss:
            self._move(self._space.mask(proposal.subset))

    @property
    def best_loss(self) -> float:
        """The lowest loss known."""
        return min(self._losses.values())

    def _best(self) -> Bools:
        return np.frombuffer(min(self._losses, key=lambda key: self._losses[key]), dtype=bool)

    def _move(self, mask: Bools) -> None:
        """Stand at ``mask``, walk on while a better neighbour is known already, and queue the unknown ones."""
        while True:
            self._current = mask
            self._loss = self._losses.get(mask.tobytes(), np.inf)
            neighbours = self._neighbours(mask)
            known = [self._losses.get(neighbour.tobytes()) for neighbour in neighbours]
            better = [(loss, place) for place, loss in enumerate(known) if loss is not None and loss < self._loss]
            if not better or not np.isfinite(self._loss):
                break
            mask = neighbours[min(better)[1]]
        self._queue = [neighbour for neighbour, loss in zip(neighbours, known, strict=True) if loss is None]
        if not np.isfinite(self._loss):
            self._queue.insert(0, mask)

    def _kick(self) -> None:
        """Stand somewhere new near the best, further away when all is known there; else the queue stays empty."""
        margin = np.where(self._best(), 1.0, -1.0)
        for kick in KICKS:
            kicked = self._space.decode(margin + self._random.normal(0, kick, (NUM_KICKS, len(margin))))
            for mask in kicked[self._space.feasible(kicked)]:
                if mask.tobytes() not in self._losses:
                    self._move(mask)
                    return

    def _neighbours(self, mask: Bools) -> Bools:
        """All feasible neighbours (n, bits), the most promising first."""
        near = neighbours(self._space, mask)
        return np.asarray(near[np.argsort(near @ self._slopes(), kind="stable")])

    def _slopes(self) -> Floats:
        """Linear effect of each value on the loss, by ridge regression on the better half of what is known."""
        losses = np.array(list(self._losses.values()))
        masks = np.frombuffer(b"".join(self._losses), dtype=bool).reshape(len(losses), -1).astype(np.float64)
        better = losses <= np.median(losses)
        x = masks[better] - masks[better].mean(axis=0)
        y = losses[better] - losses[better].mean()
        return np.asarray(np.linalg.solve(x.T @ x + RIDGE * np.eye(x.shape[1]), x.T @ y))
