"""A particle swarm whose particles move all at once, as arrays."""

from typing import Literal

import numpy as np
from pydantic import Field

from finegpr.arrays import Bools, Floats, Ints
from finegpr.config import Config
from search.optimizers.restart import Restarting
from search.optimizers.standard_pso import INERTIA, PULL
from search.space import Space

MOST_SPEED = 6.0  # of a binary particle: its values keep a chance of a quarter of a percent to turn


class NumpySwarmOptions(Config):
    """Inertia ``omega``, pull ``phip`` to a particle's own best and ``phig`` to the best of its neighbourhood.

    ``encoding``: binary (Kennedy and Eberhart 1997: a speed is the log-odds of a value being in) or continuous
    (coordinates, in above 0). ``topology``: the best of all particles (global) or of one and its two neighbours (ring).
    The constants are the standard ones to four digits: its journals were written with these and must not change.
    """

    population: int = Field(default=20, ge=2, le=1000)
    encoding: Literal["binary", "continuous"] = "continuous"
    topology: Literal["global", "ring"] = "ring"
    omega: float = Field(default=round(INERTIA, 4), ge=0, le=2)
    phip: float = Field(default=round(PULL, 4), ge=0, le=4)
    phig: float = Field(default=round(PULL, 4), ge=0, le=4)


class NumpySwarm:
    """One swarm (n particles) over masks; a binary particle's position is its repaired mask."""

    def __init__(self, space: Space, options: NumpySwarmOptions, *, population: int, seed: int) -> None:
        self.population = population
        self._space = space
        self._options = options
        self._random = np.random.default_rng(seed)
        shape = (population, space.num_bits)
        self._position = self._random.normal(size=shape)
        self._speed = self._random.normal(size=shape)
        self._own = np.zeros(shape)
        self._own_loss = np.full(population, np.inf)

    def ask(self, num: int) -> Bools:
        """Masks of the first ``num`` particles."""
        num = min(num, self.population)
        if self._options.encoding == "continuous":
            return self._space.decode(self._position[:num])
        odds = 1 / (1 + np.exp(-self._speed[:num]))
        return self._space.decode(odds - self._random.random(odds.shape))

    def tell(self, masks: Bools, losses: Floats) -> None:
        """Remember what is best, and move."""
        num = len(masks)
        if self._options.encoding == "binary":
            self._position[:num] = masks
        better = np.flatnonzero(losses < self._own_loss[:num])
        self._own[better], self._own_loss[better] = self._position[better], losses[better]
        options = self._options
        own, leading = self._random.random((2, *self._speed.shape))
        self._speed *= options.omega
        self._speed += options.phip * own * (self._own - self._position)
        self._speed += options.phig * leading * (self._own[self._leader()] - self._position)
        if options.encoding == "binary":
            np.clip(self._speed, -MOST_SPEED, MOST_SPEED, out=self._speed)
        else:
            self._position += self._speed

    def _leader(self) -> Ints:
        """The particle (n,) whose best each one is drawn to."""
        if self._options.topology == "global":
            return np.full(self.population, self._own_loss.argmin())
        around = (np.arange(self.population)[:, None] + np.array([-1, 0, 1])) % self.population
        return np.asarray(around[np.arange(self.population), self._own_loss[around].argmin(axis=1)])


def make_numpy_swarm(space: Space, options: NumpySwarmOptions, *, seed: int, evaluations: int) -> Restarting:
    """The numpy swarm, restarted when it is stuck."""
    population = min(options.population, evaluations)
    return Restarting(lambda seed: NumpySwarm(space, options, population=population, seed=seed), seed=seed)
