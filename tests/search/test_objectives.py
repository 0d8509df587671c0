import numpy as np
import pytest

from finegpr.errors import ConfigError
from finegpr.weighing import Weighing
from search.measured import Measured
from search.objectives import OBJECTIVES, QUADRATIC, make_objective
from search.optimizers.baselines import enumerate_masks
from search.simulation import TARGET, Simulation, simulate
from search.space import Budget, Space, SpaceConfig

ESTIMATING = ("attribute_shares", "aligned_shares")  # they say what the target shows


@pytest.mark.parametrize("name", OBJECTIVES)
def test_a_score_is_the_form_at_the_expected_shares_of_the_manifest(
    name: str, simulation: Simulation, space: Space
) -> None:
    objective = make_objective(name, space, simulation.measured)
    masks = space.decode(np.random.default_rng(0).normal(size=(20, space.num_bits)))
    scores = objective.score([space.subset(mask) for mask in masks])
    np.testing.assert_array_equal(scores, objective.score_masks(masks))
    shares = np.stack([space.sampler.expected_shares(space.cells.mask(space.subset(mask))[None])[0] for mask in masks])
    np.testing.assert_allclose(scores, objective.form.score(shares))
    assert objective.report is None
    assert objective.score([]).shape == (0,)


def test_shares_of_many_draws_score_as_expected(simulation: Simulation, space: Space) -> None:
    """mean_distance is linear in the shares: its score is the mean over manifests."""
    objective = make_objective("mean_distance", space, simulation.measured)
    subset = space.subset(space.decode(np.random.default_rng(1).normal(size=(1, space.num_bits)))[0])
    counts = np.stack(
        [
            np.bincount(space.cells.of_row[space.sampler.draw(subset, seed=seed)], minlength=len(space.cells))
            for seed in range(200)
        ]
    )
    scores = objective.embedding.score(counts / space.budget.images)
    assert abs(scores.mean() - objective.score([subset])[0]) < 4 * scores.std() / np.sqrt(len(scores)) + 1e-9


def test_a_subset_outside_the_budget_has_no_score(simulation: Simulation, space: Space) -> None:
    objective = make_objective("mmd_linear", space, simulation.measured)
    mask = np.zeros((1, space.num_bits), dtype=bool)
    mask[0, [block.start for block in space.blocks]] = True
    assert np.isnan(objective.score_masks(mask)).all()


@pytest.mark.parametrize(
    "name", ["mmd_linear", "mmd_rbf", "mmd_posterior", "frechet", "attribute_shares", "aligned_shares"]
)
def test_matching_objectives_find_the_planted_cells(name: str) -> None:
    """With the size free, the best of all subsets is nearly the target's own; the mean distance has no such memory."""
    simulation = simulate((6, 4, 4), seed=5, interactions=0.1, num_target=2000)
    space = Space(simulation.cells, simulation.identity, Budget(images=24), seed=0)
    masks = enumerate_masks(space, np.arange(space.num_subsets))
    planted = space.mask(simulation.planted)

    def jaccard_of_best(name: str) -> float:
        objective = make_objective(name, space, simulation.measured)
        best = masks[np.nanargmin(objective.score_masks(masks))]
        return float((best & planted).sum() / (best | planted).sum())

    assert jaccard_of_best(name) > 0.8
    assert jaccard_of_best("mean_distance") < 0.8


@pytest.mark.parametrize("name", OBJECTIVES)
def test_unmeasured_cells_are_filled_and_ranked_nearly_alike(name: str) -> None:
    options = {"seed": 2, "interactions": 0.05, "identities_per_cell": 4}
    whole, part = simulate((8, 5, 4), **options), simulate((8, 5, 4), measured=0.6, **options)
    space = Space(whole.cells, whole.identity, Budget(images=100, most=0.4), seed=0)
    masks = space.decode(np.random.default_rng(0).normal(size=(300, space.num_bits)))
    scores = []
    for simulation in (whole, part):
        objective = make_objective(name, space, simulation.measured)
        scores.append(objective.score_masks(masks))
    if name in ESTIMATING:  # the attributes of unmeasured cells are known
        assert objective.report is None
    else:
        assert objective.report is not None
        assert objective.report.num_unmeasured == 64
    assert np.corrcoef(scores[0].argsort().argsort(), scores[1].argsort().argsort())[0, 1] > 0.8


def test_an_unknown_objective_is_refused(simulation: Simulation, space: Space) -> None:
    with pytest.raises(ConfigError, match=f"no objective 'fid'; known: {', '.join(OBJECTIVES)}"):
        make_objective(
            "fid",
            space,
            Measured(
                measurements=simulation.measurements,
                cells=None,
                identity=simulation.identity,
                target=TARGET,
                weighing=Weighing(scale="paper"),
            ),
        )


@pytest.mark.parametrize("name", OBJECTIVES)
def test_an_objective_says_what_it_is(name: str, simulation: Simulation, space: Space) -> None:
    kind = OBJECTIVES[name]
    assert kind.unit
    objective = make_objective(name, space, simulation.measured)
    assert (objective.unit, objective.higher_is_better) == (kind.unit, kind.higher_is_better)
    assert bool(objective.estimate) == (name in ESTIMATING)
    assert (objective.gap is not None) == (name == "aligned_shares")
    if kind.quadratic:
        assert objective.embedding is objective.form
    else:
        with pytest.raises(ConfigError, match=f"{name} is no quadratic form.*expected {', '.join(QUADRATIC)}"):
            _ = objective.embedding


@pytest.mark.parametrize("name", OBJECTIVES)
def test_the_same_measurements_give_the_same_scores(name: str, simulation: Simulation, space: Space) -> None:
    masks = space.decode(np.random.default_rng(3).normal(size=(20, space.num_bits)))
    first, second = (make_objective(name, space, simulation.measured).score_masks(masks) for _ in range(2))
    np.testing.assert_array_equal(first, second)


@pytest.mark.parametrize("name", sorted(set(OBJECTIVES) - set(QUADRATIC)))
def test_people_are_chosen_by_quadratic_objectives_only(name: str) -> None:
    simulation = simulate((4, 3), seed=0, identity_sizes=(2,), num_identities=30)
    config = SpaceConfig(identity_attributes=tuple(attribute.name for attribute in simulation.groups.attributes))
    space = Space(
        simulation.cells, simulation.identity, Budget(images=24), seed=0, config=config, groups=simulation.groups
    )
    with pytest.raises(ConfigError, match=f"objective {name} does not see who is in the images"):
        make_objective(name, space, simulation.measured)
