"""From masks to proposals: the optimizer of subsets that a search talks to, made from one that works on arrays."""

from collections.abc import Sequence
from typing import Protocol

import numpy as np

from finegpr.arrays import Bools
from finegpr.subset import Subset
from search.optimizers.base import MaskOptimizer
from search.space import Space
from search.trial import Proposal


class Optimizer(Protocol):
    """Proposes subsets and learns from their losses, in synchronous generations.

    Everything it does follows from its constructor's arguments and from what it was told: the same tells give the
    same asks. That is how a resumed search goes on where it was killed.
    """

    @property
    def population(self) -> int:
        """Number of proposals in a full generation."""

    def ask(self, num: int) -> list[Proposal]:
        """At most ``num`` proposals, at least one unless the optimizer has nothing left to propose."""

    def tell(self, scored: Sequence[tuple[Proposal, float]]) -> None:
        """The losses of all proposals of the last ``ask``, in its order: finite, lower is better."""


class MakeOptimizer(Protocol):
    """Constructor of an optimizer that may have at most ``evaluations`` new subsets scored."""

    def __call__(self, space: Space, *, seed: int, evaluations: int) -> Optimizer: ...


class Proposer:
    """The optimizer of subsets that a MaskOptimizer makes. A subset that is proposed again is the same object."""

    def __init__(self, space: Space, masks: MaskOptimizer) -> None:
        self._space = space
        self._masks = masks
        self._subsets: dict[bytes, Subset] = {}
        self._asked: tuple[list[Proposal], Bools] = ([], np.empty((0, space.num_bits), dtype=bool))
        self._next_id = 0

    @property
    def population(self) -> int:
        """Number of proposals in a full generation."""
        return self._masks.population

    def ask(self, num: int) -> list[Proposal]:
        """The next masks as proposals."""
        masks = self._masks.ask(num)
        first = self._next_id
        self._next_id += len(masks)
        proposals = [Proposal(id=first + place, subset=self._subset(mask)) for place, mask in enumerate(masks)]
        self._asked = proposals, masks
        return proposals

    def tell(self, scored: Sequence[tuple[Proposal, float]]) -> None:
        """Raises ValueError for anything but the proposals of the last ``ask``, in its order."""
        proposals, masks = self._asked
        if [proposal.id for proposal, _ in scored] != [proposal.id for proposal in proposals]:
            raise ValueError(
                f"tell takes the {len(proposals)} proposals of the last ask in its order, got {len(scored)} others"
            )
        self._asked = [], masks[:0]
        if proposals:
            self._masks.tell(masks, np.array([loss for _, loss in scored]))

    def _subset(self, mask: Bools) -> Subset:
        key = mask.tobytes()
        if key not in self._subsets:
            self._subsets[key] = self._space.subset(mask)
        return self._subsets[key]
