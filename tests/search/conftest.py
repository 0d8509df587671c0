import pytest

from search.simulation import Simulation, simulate
from search.space import Budget, Space


@pytest.fixture(scope="session")
def simulation() -> Simulation:
    """5 x 4 x 3 cells, 12 identities with one image each in every cell, 3 of them measured."""
    return simulate((5, 4, 3), seed=0)


@pytest.fixture(scope="session")
def space(simulation: Simulation) -> Space:
    """12 bits, 3,255 subsets, of which the budget admits 15 to 50 % of the images."""
    budget = Budget(images=90, identities=9, least=0.15, most=0.5)
    return Space(simulation.cells, simulation.identity, budget, seed=0)
