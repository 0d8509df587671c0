"""Nevergrad's particle swarm over unbounded coordinates, started anew when it is stuck."""

import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np

from search.space import Space
from search.trial import Proposal

LEAST_POPULATION = 20
MOST_POPULATION = 80
MIN_NEW = 0.2  # of a generation's subsets; a swarm below that for PATIENCE generations has collapsed
PATIENCE = 2


def population_for(evaluations: int) -> int:
    """Particles for a search of this many evaluations: a hundredth, so that a swarm has a hundred generations.

    Nevergrad's own default, at least 40 whatever the budget, would make a search of 40 plain random sampling.
    """
    return min(evaluations, max(LEAST_POPULATION, min(MOST_POPULATION, evaluations // 100)))


class Pso:
    """Nevergrad PSO; coordinates above 0 are in, repaired by the space.

    The swarm is restarted with new particles when fewer than a fifth of its subsets are new, twice in a row. What
    it found before is not given to the new one, so that restarts are independent.
    """

    def __init__(self, space: Space, *, seed: int, evaluations: int) -> None:
        self.population = population_for(evaluations)
        self.num_restarts = -1
        self._space = space
        self._seeds = np.random.SeedSequence(seed)
        self._asked: dict[int, Any] = {}
        self._next_id = 0
        self._seen: set[str] = set()
        self._num_stale = 0
        self._restart()

    def ask(self, num: int) -> list[Proposal]:
        """At most one proposal per particle."""
        candidates = [self._swarm.ask() for _ in range(min(num, self.population))]
        masks = self._space.decode(np.stack([candidate.value for candidate in candidates]))
        proposals = []
        for candidate, mask in zip(candidates, masks, strict=True):
            self._asked[self._next_id] = candidate
            proposals.append(Proposal(id=self._next_id, subset=self._space.subset(mask)))
            self._next_id += 1
        return proposals

    def tell(self, scored: Sequence[tuple[Proposal, float]]) -> None:
        """Move the swarm, and restart it when it has collapsed."""
        known = len(self._seen)
        for proposal, loss in scored:
            self._swarm.tell(self._asked.pop(proposal.id), loss)
            self._seen.add(proposal.subset.key)
        collapsed = len(self._seen) - known < MIN_NEW * len(scored)
        self._num_stale = self._num_stale + 1 if collapsed else 0
        if self._num_stale >= PATIENCE:
            self._restart()

    def _restart(self) -> None:
        import nevergrad  # takes two seconds, which --help should not

        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # its advice for small budgets
            coordinates = nevergrad.p.Array(shape=(self._space.num_bits,))
            seed = int(self._seeds.spawn(1)[0].generate_state(1)[0])
            coordinates.random_state = np.random.RandomState(seed)
            self._swarm = nevergrad.families.ConfPSO(popsize=self.population)(coordinates, num_workers=self.population)
        self._num_stale = 0
        self.num_restarts += 1
