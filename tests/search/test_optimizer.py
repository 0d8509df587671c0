from pathlib import Path

import numpy as np
import pytest

from finegpr.errors import ConfigError
from search.baselines import enumerate_masks
from search.optimizer import OPTIMIZERS, make_optimizer
from search.polish import Polish
from search.pso import Pso, population_for
from search.simulation import simulate
from search.space import Budget, Space
from search.testing import CHECKS, TableObjective, run
from search.trial import Proposal


@pytest.mark.parametrize("check", CHECKS)
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_contract(name: str, check: str, space: Space, tmp_path: Path) -> None:
    if check == "survives_duplicates":  # every subset of a space of 45
        simulation = simulate((4, 2), seed=0)
        space = Space(simulation.cells, simulation.identity, Budget(images=20), seed=0)
    CHECKS[check](OPTIMIZERS[name], space, tmp_path)


@pytest.mark.parametrize("name", ["swarm", "pso"])
def test_a_learner_beats_random(name: str, space: Space, tmp_path: Path) -> None:
    learned = [run(OPTIMIZERS[name], space, tmp_path / f"{name}{seed}", seed=seed).score for seed in range(4)]
    guessed = [run(OPTIMIZERS["random"], space, tmp_path / f"random{seed}", seed=seed).score for seed in range(4)]
    assert np.mean(learned) < np.mean(guessed)


def test_exhaustive_finds_the_optimum_of_every_subset(space: Space, tmp_path: Path) -> None:
    result = run(OPTIMIZERS["exhaustive"], space, tmp_path, evaluations=space.num_subsets)
    masks = enumerate_masks(space, np.arange(space.num_subsets))
    assert len(np.unique(masks, axis=0)) == space.num_subsets
    fitting = masks[space.feasible(masks)]
    objective = TableObjective(space, np.arange(space.num_bits) % 2 == 0)
    assert result.num_evaluations == len(fitting)
    assert result.num_infeasible == 0
    assert result.score == pytest.approx(objective.score([space.subset(mask) for mask in fitting]).min())


def test_the_swarm_finds_that_optimum_with_a_tenth_of_the_evaluations(space: Space, tmp_path: Path) -> None:
    best = run(OPTIMIZERS["exhaustive"], space, tmp_path / "all", evaluations=space.num_subsets).score
    assert run(OPTIMIZERS["swarm"], space, tmp_path / "swarm", evaluations=250).score == best


def test_exhaustive_refuses_a_large_space() -> None:
    simulation = simulate((12, 5, 5), seed=0, num_identities=3)
    space = Space(simulation.cells, simulation.identity, Budget(images=20), seed=0)
    with pytest.raises(ConfigError, match="at most 1048576 subsets, got 3935295"):
        make_optimizer("exhaustive", space, seed=0, evaluations=10)


def test_an_unknown_optimizer_is_refused(space: Space) -> None:
    with pytest.raises(ConfigError, match="no optimizer 'genetic'; known: swarm, pso, random, exhaustive"):
        make_optimizer("genetic", space, seed=0, evaluations=10)


@pytest.mark.parametrize(("evaluations", "population"), [(5, 5), (40, 20), (2000, 20), (5000, 50), (100_000, 80)])
def test_the_population_follows_the_evaluations(evaluations: int, population: int) -> None:
    assert population_for(evaluations) == population


def test_a_collapsed_swarm_restarts(space: Space) -> None:
    optimizer = Pso(space, seed=0, evaluations=2000)
    for _ in range(60):
        proposals = optimizer.ask(optimizer.population)
        masks = np.stack([space.mask(proposal.subset) for proposal in proposals])
        optimizer.tell(list(zip(proposals, masks.sum(axis=1).astype(float).tolist(), strict=True)))
    assert optimizer.num_restarts >= 1


def test_polish_ends_where_no_neighbour_is_better_and_proposes_nothing_twice(space: Space) -> None:
    """A linear loss has one optimum within the budget's bounds by exchanges, which descent must reach."""
    objective = TableObjective(space, np.arange(space.num_bits) % 3 == 0)
    polish = Polish(space, seed=0, population=20)
    start = space.subset(space.decode(np.ones((1, space.num_bits)))[0])
    polish.learn([(Proposal(id=0, subset=start), float(objective.score([start])[0]))])
    asked = []
    for _ in range(15):
        proposals = polish.ask(20)
        asked += [proposal.subset.key for proposal in proposals]
        scores = objective.score([proposal.subset for proposal in proposals])
        polish.tell(list(zip(proposals, scores.tolist(), strict=True)))
    assert len(set(asked)) == len(asked)
    masks = enumerate_masks(space, np.arange(space.num_subsets))
    best = objective.score([space.subset(mask) for mask in masks[space.feasible(masks)]]).min()
    assert polish.best_loss == pytest.approx(best)
