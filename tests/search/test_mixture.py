from pathlib import Path

import numpy as np
import pytest

from finegpr.errors import ConfigError, InputError
from finegpr.mixture import Mixture
from finegpr.subset import Subset
from search.loop import search
from search.objectives import make_objective
from search.optimizers import make_optimizer
from search.simulation import Simulation
from search.space import Budget, MixtureSpace, Space, SpaceConfig

LEVELS = 3
BUDGET = Budget(images=90, identities=9, least=0.15, most=0.8)


@pytest.fixture(scope="module")
def mixtures(simulation: Simulation) -> MixtureSpace:
    return MixtureSpace(simulation.cells, simulation.identity, BUDGET, seed=0, config=SpaceConfig(levels=LEVELS))


def test_masks_and_mixtures_are_one_to_one(mixtures: MixtureSpace) -> None:
    masks = mixtures.decode(np.random.default_rng(0).normal(size=(300, mixtures.num_bits)))
    assert mixtures.num_bits == 12 * LEVELS
    assert mixtures.feasible(masks).mean() > 0.9
    keys = set()
    for mask in np.unique(masks, axis=0):
        mixture = mixtures.subset(mask)
        np.testing.assert_array_equal(mixtures.mask(mixture), mask)
        keys.add(mixture.key)
    assert len(keys) == len(np.unique(masks, axis=0))
    assert any('{"' in key[1:] and ":2" in key for key in keys)


def test_levels_out_of_order_and_with_a_common_divisor_are_not_feasible(mixtures: MixtureSpace) -> None:
    mask = mixtures.mask(Subset({"attribute1": ["value0", "value1"]}))
    assert mixtures.feasible(mask[None])[0]
    gap, even = mask.copy(), mask.copy()
    gap[:LEVELS] = [False, True, False]
    even[: 5 * LEVELS] = np.tile([True, True, False], 5)  # 2 of every value is 1 of every value
    assert not mixtures.feasible(np.stack([gap, even])).any()


def test_expected_shares_are_the_mean_of_many_draws(mixtures: MixtureSpace) -> None:
    viewpoint = mixtures.attributes[0]
    mixture = Mixture(
        {
            viewpoint.name: dict(zip(viewpoint.values, (3, 1, 2, 0, 1), strict=True)),
            "attribute1": {"value0": 1, "value2": 3},
        }
    )
    mask = mixtures.mask(mixture)
    assert mixtures.feasible(mask[None])[0]
    shares = mixtures.expected_shares(mask[None])[0]
    of_row = mixtures.cells.of_row
    drawn = np.stack(
        [np.bincount(of_row[mixtures.sampler.draw(mixture, seed=seed)], minlength=len(shares)) for seed in range(400)]
    )
    assert (drawn.sum(axis=1) == BUDGET.images).all()
    np.testing.assert_allclose(drawn.mean(axis=0) / BUDGET.images, shares, atol=0.004)
    assert drawn[:, shares == 0].sum() == 0
    assert np.corrcoef(drawn.mean(axis=0), mixture.of_cells(mixtures.cells))[0, 1] > 0.7


def test_without_preference_shares_are_those_of_the_subset(mixtures: MixtureSpace, simulation: Simulation) -> None:
    space = Space(simulation.cells, simulation.identity, BUDGET, seed=0)
    masks = space.decode(np.random.default_rng(1).normal(size=(20, space.num_bits)))
    masks = masks[space.feasible(masks)]
    same = np.stack([mixtures.mask(space.subset(mask)) for mask in masks])
    assert mixtures.feasible(same).all()
    np.testing.assert_allclose(mixtures.expected_shares(same), space.expected_shares(masks), atol=1e-12)


def test_a_mixture_scores_at_least_as_well_as_the_best_subset(
    mixtures: MixtureSpace, simulation: Simulation, tmp_path: Path
) -> None:
    subsets = Space(simulation.cells, simulation.identity, BUDGET, seed=0)
    scores = []
    for name, space in (("subsets", subsets), ("mixtures", mixtures)):
        objective = make_objective("mmd_linear", space, simulation.measured)
        optimizer = make_optimizer("swarm", space, seed=0, evaluations=1500)
        result = search(space, objective, optimizer, tmp_path / name, evaluations=1500, config={}, num_random=0)
        again = make_optimizer("swarm", space, seed=0, evaluations=1500)
        replayed = search(space, objective, again, tmp_path / name, evaluations=1500, config={}, num_random=0)
        assert replayed.subset == result.subset
        scores.append(result.score)
    assert isinstance(result.subset, Mixture)
    assert scores[1] < scores[0]


def test_what_the_space_cannot_hold_is_refused(mixtures: MixtureSpace, simulation: Simulation) -> None:
    with pytest.raises(InputError, match="a weight of 5 needs levels of at least that; the space has 3"):
        mixtures.mask(Mixture({"attribute1": {"value0": 5, "value1": 1}}))
    config = SpaceConfig(levels=2, identity_attributes=("gender",))
    with pytest.raises(ConfigError, match="levels are for image-level attributes"):
        MixtureSpace(simulation.cells, simulation.identity, BUDGET, seed=0, config=config, groups=simulation.cells)
