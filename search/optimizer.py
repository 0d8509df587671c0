"""What an optimizer is, and which there are. A new one is a module, a line here and nothing else."""

from collections.abc import Mapping, Sequence
from typing import Protocol

from finegpr.errors import ConfigError
from search.baselines import Exhaustive, Random
from search.pso import Pso
from search.space import Space
from search.swarm import Swarm
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


OPTIMIZERS: Mapping[str, MakeOptimizer] = {
    "swarm": Swarm,
    "pso": Pso,
    "random": Random,
    "exhaustive": Exhaustive,
}


def make_optimizer(name: str, space: Space, *, seed: int, evaluations: int) -> Optimizer:
    """The optimizer called ``name``. Raises ConfigError for an unknown name or a space it cannot search."""
    if name not in OPTIMIZERS:
        raise ConfigError(f"no optimizer {name!r}; known: {', '.join(OPTIMIZERS)}")
    return OPTIMIZERS[name](space, seed=seed, evaluations=evaluations)


__all__ = ["OPTIMIZERS", "MakeOptimizer", "Optimizer", "Proposal", "make_optimizer"]
