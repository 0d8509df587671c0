"""Any optimizer of Nevergrad, by its name there."""

import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
from pydantic import Field

from finegpr.arrays import Bools, Floats
from finegpr.config import Config
from finegpr.errors import ConfigError, did_you_mean
from search.space import Space


class NevergradOptions(Config):
    """``population`` is how many of its candidates are scored at a time."""

    population: int = Field(default=20, ge=1, le=1000)


class Nevergrad:
    """An optimizer of Nevergrad over unbounded coordinates; those above 0 are in, repaired by the space.

    ``make`` takes a parametrization and the number of workers. The discrete optimizers mutate a coordinate by drawing
    it anew from a normal distribution: its bit is drawn evenly.
    """

    def __init__(self, space: Space, make: Callable[..., Any], *, population: int, seed: int, **settings: int) -> None:
        import nevergrad  # takes two seconds, which --help should not

        self.population = population
        self._space = space
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # its advice for small budgets
            coordinates = nevergrad.p.Array(shape=(space.num_bits,))
            coordinates.random_state = np.random.RandomState(seed)
            self._optimizer = make(coordinates, num_workers=population, **settings)
        if isinstance(self._optimizer, nevergrad.optimization.recaster.RecastOptimizer):
            # The process would wait for ever for the thread of one that is not asked to its end.
            raise ConfigError(f"{self._optimizer.name} of Nevergrad runs in a thread of its own; choose another")
        self._asked: list[Any] = []

    def ask(self, num: int) -> Bools:
        """At most ``population`` masks."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            try:
                self._asked = [self._optimizer.ask() for _ in range(min(num, self.population))]
            except ImportError as error:
                raise ConfigError(f"{self._optimizer.name} of Nevergrad needs a package: {error}; install it") from None
        return self._space.decode(np.stack([candidate.value for candidate in self._asked]))

    def tell(self, masks: Bools, losses: Floats) -> None:  # noqa: ARG002 (Nevergrad keeps its own coordinates)
        """Tell every candidate its loss."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            for candidate, loss in zip(self._asked, losses.tolist(), strict=True):
                self._optimizer.tell(candidate, loss)


def named(name: str) -> Any:
    """Nevergrad's optimizer of this name. Raises ConfigError for a name that it does not know."""
    import nevergrad

    known = nevergrad.optimizers.registry
    if name not in known:
        otherwise = "for example PSO, DE, CMA, DiscreteOnePlusOne"
        hint = did_you_mean(name, known, otherwise=otherwise, most=3, cutoff=0.4)
        raise ConfigError(f"Nevergrad has no optimizer {name!r}; {hint}")
    return known[name]


def make_nevergrad(name: str, space: Space, options: NevergradOptions, *, seed: int, evaluations: int) -> Nevergrad:
    """Nevergrad's optimizer of this name, as it is. Raises ConfigError for one that cannot be used here."""
    make = named(name)
    population = 1 if make.no_parallelization else min(options.population, evaluations)
    return Nevergrad(space, make, population=population, seed=seed, budget=evaluations)
