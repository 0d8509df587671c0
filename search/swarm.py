"""The default optimizer: a particle swarm to find the region, a local search to finish."""

from collections.abc import Sequence

from search.polish import Polish
from search.pso import Pso
from search.space import Space
from search.trial import Proposal

SWARM_SHARE = 0.4  # of the evaluations


class Swarm:
    """Nevergrad PSO with restarts for the first part of the evaluations, then flips, exchanges and kicks.

    A bare PSO stagnates: after 2,000 evaluations of 50 values most of its proposals are duplicates.
    """

    def __init__(self, space: Space, *, seed: int, evaluations: int) -> None:
        self._pso = Pso(space, seed=seed, evaluations=evaluations)
        self._polish = Polish(space, seed=seed, population=self._pso.population)
        self._swarm_evaluations = SWARM_SHARE * evaluations
        self._seen: set[str] = set()
        self._num_told = 0
        self._polishing = False

    @property
    def population(self) -> int:
        """Particles of the swarm; the polish keeps the size of its generations."""
        return self._pso.population

    def ask(self, num: int) -> list[Proposal]:
        """From the swarm at first, then from the polish; none when the polish finds nothing new."""
        # A small space runs out of new subsets before the swarm's share is spent.
        self._polishing = len(self._seen) >= self._swarm_evaluations or self._num_told >= 2 * self._swarm_evaluations
        return self._polish.ask(num) if self._polishing else self._pso.ask(num)

    def tell(self, scored: Sequence[tuple[Proposal, float]]) -> None:
        """The polish learns from the swarm's proposals too."""
        self._num_told += len(scored)
        self._seen.update(proposal.subset.key for proposal, _ in scored)
        if self._polishing:
            self._polish.tell(scored)
        else:
            self._pso.tell(scored)
            self._polish.learn(scored)
