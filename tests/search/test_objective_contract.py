import pytest

from search.objectives import OBJECTIVES, make_objective
from search.simulation import Simulation
from search.space import Space
from search.testing import OBJECTIVE_CHECKS


@pytest.mark.parametrize("check", OBJECTIVE_CHECKS)
@pytest.mark.parametrize("name", OBJECTIVES)
def test_contract(name: str, check: str, space: Space, simulation: Simulation) -> None:
    objective = make_objective(name, space, simulation.measured)
    OBJECTIVE_CHECKS[check](objective, space)
