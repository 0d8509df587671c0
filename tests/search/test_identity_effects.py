from dataclasses import replace

import numpy as np
import pytest

from finegpr.errors import ConfigError
from finegpr.weighing import Weighing
from search.adaptive.sampler import AdaptiveConfig, AdaptiveSampler
from search.objectives import SEES_PEOPLE, CellObjective, make_objective
from search.objectives.identity_effects import add_group_effects
from search.objectives.kernels import unit_gram
from search.objectives.mean_distance import embed_distance
from search.objectives.mmd_linear import embed_linear, linear_kernel
from search.objectives.mmd_rbf import embed_rbf, rbf_kernel
from search.objectives.samples import Samples
from search.optimizers.baselines import enumerate_masks
from search.simulation import TARGET, Simulation, simulate
from search.space import Budget, Space, SpaceConfig

OPTIONS = {"target": TARGET, "scale": "standardised"}


def no_more(weights: np.ndarray) -> np.ndarray:
    """A Gram matrix that adds nothing to what the cells' coordinates see of the effects."""
    return np.zeros((weights.shape[1], weights.shape[1]))


def with_people(num_identities: int, *, identities_per_cell: int = 6, seed: int = 0, **options: object) -> Simulation:
    """24 cells, and people of two attributes with two and three values."""
    return simulate(
        (4, 3, 2),
        seed=seed,
        num_identities=num_identities,
        identities_per_cell=identities_per_cell,
        identity_sizes=(2, 3),
        **options,
    )


def make_space(simulation: Simulation, budget: Budget) -> Space:
    config = SpaceConfig(identity_attributes=tuple(attribute.name for attribute in simulation.groups.attributes))
    return Space(simulation.cells, simulation.identity, budget, seed=0, config=config, groups=simulation.groups)


def relative_error(num_identities: int, identities_per_cell: int) -> float:
    """Of the inner products between the fitted effects of groups, for mmd_linear, against the truth."""
    simulation = with_people(num_identities, identities_per_cell=identities_per_cell)
    measurements, cells, identity = simulation.measurements, simulation.cells, simulation.identity
    embedding = embed_linear(measurements, cells, identity, **OPTIONS)
    gram = unit_gram(linear_kernel, measurements, cells, identity, **OPTIONS)
    extended, _ = add_group_effects(embedding, simulation.groups, identity, gram, seed=0)
    fitted = extended.coordinates[24:] @ extended.coordinates[24:].T
    phi = simulation.group_effects * (measurements.phi(Weighing())[0] / measurements.sketch[0])
    truth = phi @ phi.T
    within = embedding.coordinates.shape[1]
    assert np.trace(extended.coordinates[24:, :within] @ extended.coordinates[24:, :within].T) < 0.9 * np.trace(fitted)
    return float(np.linalg.norm(fitted - truth) / np.linalg.norm(truth))


def test_fitted_effects_approach_the_truth() -> None:
    """Their full length too, of which only a part lies in the span of 24 cells."""
    few, many = relative_error(12, 4), relative_error(240, 120)
    assert many < 0.06
    assert many < few / 3


@pytest.mark.parametrize("name", ["mmd_linear", "mmd_rbf"])
def test_the_kernels_are_those_of_the_embeddings(name: str) -> None:
    """Weights that average the images of each cell give the kernel between cells, which the coordinates factor."""
    simulation = with_people(12)
    measurements, cells, identity = simulation.measurements, simulation.cells, simulation.identity
    embed, kernel = {"mmd_linear": (embed_linear, linear_kernel), "mmd_rbf": (embed_rbf, rbf_kernel)}[name]
    embedding = embed(measurements, cells, identity, **OPTIONS)
    samples = embedding.samples
    weights = np.zeros((len(samples.unit_cell), 24))
    weights[np.arange(len(weights)), samples.unit_cell] = 1 / samples.num_identities[samples.unit_cell]
    gram = unit_gram(kernel, measurements, cells, identity, **OPTIONS)(weights - weights.mean(axis=1, keepdims=True))
    np.testing.assert_allclose(gram, embedding.coordinates @ embedding.coordinates.T, atol=2e-5 * np.abs(gram).max())


def test_effects_are_the_differences_of_people_within_cells() -> None:
    """Least squares with a mean for every cell, which ridge approaches when its penalty is small."""
    simulation = with_people(60, identities_per_cell=40)
    embedding = embed_linear(simulation.measurements, simulation.cells, simulation.identity, **OPTIONS)
    extended, report = add_group_effects(embedding, simulation.groups, simulation.identity, no_more, seed=0)
    row = simulation.measurements.row
    group = simulation.groups.of_row[row]
    design = np.concatenate(
        [
            np.eye(24)[simulation.cells.of_row[row]],
            *(np.eye(size)[simulation.groups.codes[group, place]][:, 1:] for place, size in enumerate((2, 3))),
        ],
        axis=1,
    )
    values = embedding.samples.values @ embedding.readout
    effects = np.linalg.lstsq(design, values, rcond=None)[0][24:]
    of_group = np.zeros((6, effects.shape[1]))
    of_group += np.concatenate([np.zeros((1, effects.shape[1])), effects[:1]])[simulation.groups.codes[:, 0]]
    of_group += np.concatenate([np.zeros((1, effects.shape[1])), effects[1:]])[simulation.groups.codes[:, 1]]
    people = np.bincount(simulation.groups.of_row) / len(simulation.identity)
    of_group -= people @ of_group
    fitted = np.concatenate([extended.coordinates[24:, : effects.shape[1] - 1], extended.linear[24:, None]], axis=1)
    assert np.linalg.norm(fitted - of_group) < 0.12 * np.linalg.norm(of_group)
    assert np.corrcoef(fitted.ravel(), of_group.ravel())[0, 1] > 0.995
    np.testing.assert_allclose(people @ fitted, 0, atol=1e-12)
    assert report.num_people == extended.num_identities[24:].sum() == 60
    np.testing.assert_array_equal(extended.variance[24:], 0)


@pytest.mark.parametrize("name", SEES_PEOPLE)
def test_scores_of_people_and_cells_are_the_distances_of_their_means(name: str) -> None:
    """Scores by additive effects rank subsets of people as the means of those people's own images do."""
    simulation = with_people(120, identities_per_cell=120)
    space = make_space(simulation, Budget(images=24))
    objective = make_objective(name, space, simulation.measurements, simulation.identity, **OPTIONS)
    masks = space.decode(np.random.default_rng(0).normal(size=(60, space.num_bits)))
    # Cells of image-level and identity-level attributes together need no model of people.
    measured = simulation.measurements
    both = simulation.cells.of_row * 6 + simulation.groups.of_row
    codes = np.concatenate([np.repeat(simulation.cells.codes, 6, axis=0), np.tile(simulation.groups.codes, (24, 1))], 1)
    cells = replace(
        simulation.cells,
        attributes=simulation.cells.attributes + simulation.groups.attributes,
        codes=codes,
        of_row=both,
        images=np.bincount(both),
    )
    joint = Space(cells, simulation.identity, Budget(images=24), seed=0)
    exact = make_objective(name, joint, measured, simulation.identity, **OPTIONS)
    expected = exact.score([space.subset(mask) for mask in masks])
    scores = objective.score_masks(masks)
    # People add to phi, so that mmd_linear is exact; to a distance or the kernel of mmd_rbf they do not quite add.
    least = {"mmd_linear": 0.995}.get(name, 0.85)
    assert np.corrcoef(scores, expected)[0, 1] > least
    if name == "mmd_linear":
        np.testing.assert_allclose(scores, expected, atol=0.05 * np.ptp(expected))
    assert len(objective.embedding.coordinates) == 30
    without = make_objective(
        name,
        Space(simulation.cells, simulation.identity, Budget(images=24), seed=0),
        measured,
        simulation.identity,
        **OPTIONS,
    )
    everyone = np.ones((1, space.num_bits), dtype=bool)
    assert without.identity_report is None
    assert objective.score_masks(everyone)[0] == pytest.approx(without.score_masks(everyone[:, :9])[0])


@pytest.mark.parametrize("seed", range(3))
def test_a_search_over_people_and_images_finds_the_planted_ones(seed: int) -> None:
    simulation = simulate(
        (3, 3), seed=seed, num_identities=60, identities_per_cell=20, identity_sizes=(2,), interactions=0.1
    )
    space = make_space(simulation, Budget(images=20))
    objective = make_objective("mmd_rbf", space, simulation.measurements, simulation.identity, **OPTIONS)
    masks = enumerate_masks(space, np.arange(space.num_subsets))
    best = space.subset(masks[np.nanargmin(objective.score_masks(masks))])
    assert best.values["person0"] == simulation.planted.values["person0"]


def test_held_out_people_are_explained_up_to_the_ceiling_and_shuffled_ones_not_at_all() -> None:
    simulation = with_people(60, identities_per_cell=30)
    embedding = embed_rbf(simulation.measurements, simulation.cells, simulation.identity, **OPTIONS)
    _, report = add_group_effects(embedding, simulation.groups, simulation.identity, no_more, seed=0)
    assert [score.quantity for score in report.scores] == ["coordinates", "linear"]
    for score in report.scores:
        assert score.ceiling is not None
        assert score.explained == pytest.approx(score.ceiling, abs=0.12)
        assert score.explained > 0.6
    assert not report.warnings
    assert report.attributes == ("person0", "person1")
    # Every person gets another's attributes.
    shuffled = np.random.default_rng(0).permutation(60)
    first = simulation.groups.of_row[np.unique(simulation.identity, return_index=True)[1]]
    groups = replace(simulation.groups, of_row=first[shuffled][simulation.identity - 1])
    _, report = add_group_effects(embedding, groups, simulation.identity, no_more, seed=0)
    assert all(score.explained < 0.1 for score in report.scores)


def test_the_noise_ceiling_is_the_persons_own_share() -> None:
    """Known variances: 1 between people and 4 between the images of a person, of which each has 8."""
    random = np.random.default_rng(0)
    num_people, num_cells = 400, 8
    person, cell = np.repeat(np.arange(num_people), num_cells), np.tile(np.arange(num_cells), num_people)
    values = random.normal(size=num_people)[person] + 2 * random.normal(size=len(person))
    simulation = simulate((num_cells,), seed=0, num_identities=num_people, identities_per_cell=1, identity_sizes=(2,))
    embedding = embed_distance(simulation.measurements, simulation.cells, simulation.identity, **OPTIONS)
    samples = Samples(values=values[:, None], names=("linear",), cell=cell, identity=person + 1, num_cells=num_cells)
    noisy = replace(embedding, samples=samples, readout=np.eye(1))
    _, report = add_group_effects(noisy, simulation.groups, simulation.identity, no_more, seed=0)
    (score,) = report.scores
    assert score.ceiling == pytest.approx(1 / (1 + 4 / num_cells), abs=0.05)
    assert abs(score.explained) < 0.05


def test_effects_that_nobody_can_know_are_zero_and_said_so() -> None:
    simulation = simulate((4, 3), seed=0, num_identities=12, identities_per_cell=1, identity_sizes=(2,))
    objective = make_objective(
        "mmd_linear", make_space(simulation, Budget(images=9)), simulation.measurements, simulation.identity, **OPTIONS
    )
    assert isinstance(objective, CellObjective)
    assert not objective.embedding.coordinates[12:].any()
    assert objective.identity_report is not None
    assert objective.identity_report.scores == ()
    assert "no two measured people share a cell" in objective.identity_report.warnings[0]


def test_an_objective_that_is_blind_to_people_does_not_choose_them() -> None:
    simulation = with_people(12)
    space = make_space(simulation, Budget(images=20))
    with pytest.raises(ConfigError, match="does not see who is in the images, but identity_attributes has person0"):
        make_objective("frechet", space, simulation.measurements, simulation.identity, **OPTIONS)


def test_people_of_unknown_group_do_not_count() -> None:
    simulation = with_people(30, identities_per_cell=20)
    embedding = embed_linear(simulation.measurements, simulation.cells, simulation.identity, **OPTIONS)
    unknown = simulation.identity <= 6
    groups = replace(simulation.groups, of_row=np.where(unknown, -1, simulation.groups.of_row))
    extended, report = add_group_effects(embedding, groups, simulation.identity, no_more, seed=0)
    assert report.num_people == 24
    # Whatever the unknown ones look like.
    samples = embedding.samples
    strange = replace(samples, values=np.where((samples.identity <= 6)[:, None], 1e3, samples.values))
    again, _ = add_group_effects(replace(embedding, samples=strange), groups, simulation.identity, no_more, seed=0)
    np.testing.assert_array_equal(extended.coordinates, again.coordinates)


def test_adaptive_sampling_chooses_people_too() -> None:
    simulation = with_people(30, identities_per_cell=30)
    space = make_space(simulation, Budget(images=20, most=0.5))
    order = np.argsort(simulation.cells.of_row, kind="stable")
    sampler = AdaptiveSampler(AdaptiveConfig(), space, simulation.identity, order, **OPTIONS)
    rows = sampler.first()
    keep = np.isin(simulation.measurements.row, rows)
    measured = simulation.measurements
    part = replace(
        measured,
        row=measured.row[keep],
        cell=measured.cell[keep],
        sketch=measured.sketch[keep],
        terms={TARGET: measured.terms[TARGET][keep]},
    )
    decision = sampler.decide(part, [rows], [])
    assert set(decision.subset.values) == {"viewpoint", "attribute1", "attribute2", "person0", "person1"}
    assert len(decision.rows)
