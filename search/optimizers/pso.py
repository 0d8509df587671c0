"""Nevergrad's particle swarm, started anew when it is stuck."""

from typing import Literal

from pydantic import Field

from finegpr.config import Config
from search.optimizers.nevergrad import Nevergrad
from search.optimizers.restart import Restarting
from search.optimizers.standard_pso import INERTIA, PULL
from search.space import Space

LEAST_POPULATION = 20
MOST_POPULATION = 80


class PsoOptions(Config):
    """Nevergrad's ConfPSO: inertia ``omega``, pulls ``phip`` and ``phig`` to the own and to the common best, start.

    ``population``: None for one that follows the number of evaluations. ``qo``, ``sqo`` and ``so`` start particles in
    opposite pairs; ``transform`` maps the box that the swarm moves in to the coordinates.
    """

    population: int | None = Field(default=None, ge=2, le=1000)
    transform: Literal["identity", "arctan", "gaussian"] = "identity"
    omega: float = Field(default=INERTIA, ge=0, le=2)
    phip: float = Field(default=PULL, ge=0, le=4)
    phig: float = Field(default=PULL, ge=0, le=4)
    qo: bool = False
    sqo: bool = False
    so: bool = False


def population_for(evaluations: int) -> int:
    """Particles for a search of this many evaluations: a hundredth, so that a swarm has a hundred generations.

    Nevergrad's own default, at least 40 whatever the budget, would make a search of 40 plain random sampling.
    """
    return min(evaluations, max(LEAST_POPULATION, min(MOST_POPULATION, evaluations // 100)))


def make_pso(space: Space, options: PsoOptions, *, seed: int, evaluations: int) -> Restarting:
    """Nevergrad PSO, restarted when it is stuck: bare, most of its proposals are duplicates after 2,000 evaluations."""
    import nevergrad  # takes two seconds, which --help should not

    population = min(options.population or population_for(evaluations), evaluations)
    # Called with all options of ConfPSO and no others: a model that inherits from this one may have more.
    settings = options.model_dump(include=set(PsoOptions.model_fields) - {"population"})
    make = nevergrad.families.ConfPSO(popsize=population, **settings)
    return Restarting(lambda seed: Nevergrad(space, make, population=population, seed=seed), seed=seed)
