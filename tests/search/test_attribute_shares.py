import numpy as np
import pytest
from scipy import optimize

from finegpr.errors import InputError
from finegpr.weighing import Weighing
from search.analysis.compare import total_variation
from search.measured import Measured
from search.objectives.attribute_classifier import NUM_FOLDS, fit_classifier, jittered, read_attributes, softmax
from search.objectives.attribute_shares import em_shares, make_attribute_shares
from search.objectives.mmd_posterior import embed_posterior
from search.simulation import TARGET, Simulation, simulate


@pytest.fixture(scope="module")
def world() -> Simulation:
    """96 cells of 10 people each; the target shows half of every attribute's values."""
    return simulate((6, 4, 4), seed=3, interactions=0.1, identities_per_cell=10, num_target=1500, noise=1.0)


def posteriors_of(random: np.random.Generator, shares: np.ndarray, num: int) -> np.ndarray:
    """Exact posteriors under a uniform prior of three Gaussian classes in a plane, drawn by shares."""
    centres = np.array([[0.0, 0.0], [1.5, 0.0], [0.0, 1.5]])
    x = centres[random.choice(3, size=num, p=shares)] + random.normal(size=(num, 2))
    return softmax(-0.5 * np.square(x[:, None] - centres).sum(axis=2))


def test_em_is_the_maximum_of_the_likelihood() -> None:
    """sum_i log sum_k q_k f_k(x_i), over the simplex, by a general optimiser."""
    prior = np.array([0.5, 0.3, 0.2])
    uniform = posteriors_of(np.random.default_rng(0), np.array([0.1, 0.2, 0.7]), 400)
    posteriors = uniform * prior
    posteriors /= posteriors.sum(axis=1, keepdims=True)

    def loss(logits: np.ndarray) -> float:
        return -float(np.log((posteriors / prior) @ softmax(logits[None])[0]).mean())

    best = softmax(optimize.minimize(loss, np.zeros(3), tol=1e-10).x[None])[0]
    np.testing.assert_allclose(em_shares(posteriors, prior), best, atol=2e-3)


def test_the_correction_finds_shifted_shares_and_the_mean_posterior_does_not() -> None:
    prior, shares = np.full(3, 1 / 3), np.array([0.05, 0.15, 0.8])
    target = posteriors_of(np.random.default_rng(1), shares, 20_000)
    assert total_variation(target.mean(axis=0), shares) > 0.15
    assert total_variation(em_shares(target, prior), shares) < 0.02


def test_the_classifier_is_at_its_minimum() -> None:
    """The gradient vanishes there: the posteriors' residuals balance the ridge."""
    random = np.random.default_rng(2)
    labels = random.integers(3, size=300)
    x = random.normal(size=(300, 4)) + 0.7 * np.eye(3, 4)[labels]
    classifier = fit_classifier(x, labels, 3, ridge=0.05)
    residual = softmax(classifier.logits(x)) - np.eye(3)[labels]
    np.testing.assert_allclose(x.T @ residual / 300, -0.05 * classifier.weights, atol=1e-4)
    np.testing.assert_allclose(residual.mean(axis=0), 0, atol=1e-4)


def test_copies_are_changed_by_term_and_leave_the_mean() -> None:
    x = np.random.default_rng(0).normal(size=(4000, 6))
    blocks = [slice(0, 2), slice(2, 6)]
    changed = jittered(x, blocks, np.random.default_rng(1))
    np.testing.assert_allclose(changed.mean(axis=0), 0, atol=0.1)
    # noise 0.09, difference of two images 0.18 on average, contrast exp(2 x 0.09)
    np.testing.assert_allclose(changed.var(axis=0), 1.27 * np.exp(2 * 0.09), rtol=0.1)
    np.testing.assert_array_equal(jittered(x, blocks, np.random.default_rng(1)), changed)


def test_people_read_by_a_classifier_were_not_in_its_training(world: Simulation) -> None:
    readings = read_attributes(world.measured)
    folds = [set(readings.person[readings.fold == fold]) for fold in range(NUM_FOLDS)]
    assert sum(map(len, folds)) == len(set().union(*folds)) == 12
    for reading in readings.attributes:
        accuracy = (reading.of_source.argmax(axis=1) == reading.labels).mean()
        assert accuracy > 2 / len(reading.values)
        assert [logits.shape for logits in reading.of_target] == [(1500, len(reading.seen))] * NUM_FOLDS


def test_a_reading_of_shuffled_labels_is_blind(world: Simulation) -> None:
    """Cells dealt out at random: nothing to be read, so accuracy on people left out is that of guessing."""
    order = np.random.default_rng(0).permutation(len(world.cells.of_row))
    cells = type(world.cells)(
        attributes=world.cells.attributes,
        codes=world.cells.codes,
        of_row=world.cells.of_row[order],
        images=world.cells.images,
    )
    readings = read_attributes(
        Measured(
            measurements=world.measurements, cells=cells, identity=world.identity, target=TARGET, weighing=Weighing()
        )
    )
    for reading in readings.attributes:
        accuracy = (reading.of_source.argmax(axis=1) == reading.labels).mean()
        assert accuracy == pytest.approx(1 / len(reading.values), abs=0.06)


def test_estimated_shares_are_near_the_planted_ones(world: Simulation) -> None:
    form, report = make_attribute_shares(world.measured, seed=0)
    assert report is None
    readings = read_attributes(world.measured)
    for estimate, reading, attribute in zip(form.estimate, readings.attributes, world.cells.attributes, strict=True):
        uncorrected = np.mean([softmax(logits).mean(axis=0) for logits in reading.of_target], axis=0)
        true = np.array([value in world.planted.values[attribute.name] for value in attribute.values], dtype=float)
        true /= true.sum()
        assert total_variation(np.array(estimate.shares), true) < 0.15
        assert total_variation(uncorrected, true) > total_variation(np.array(estimate.shares), true)
        assert sum(estimate.shares) == pytest.approx(1)
    planted = world.cells.mask(world.planted)
    at_planted, at_all = form.score(np.stack([planted / planted.sum(), np.full(96, 1 / 96)]))
    assert at_planted < 0.4 < at_all


def test_the_score_is_the_sum_of_total_variations(world: Simulation) -> None:
    form, _ = make_attribute_shares(world.measured, seed=0)
    shares = np.random.default_rng(0).dirichlet(np.ones(96), size=5)
    for p, score in zip(shares, form.score(shares), strict=True):
        expected = 0.0
        for column, estimate in enumerate(form.estimate):
            marginal = np.bincount(world.cells.codes[:, column], weights=p, minlength=len(estimate.values))
            expected += total_variation(marginal, np.array(estimate.shares))
        assert score == pytest.approx(expected)


def test_mean_posteriors_meet_at_the_planted_cells(world: Simulation) -> None:
    embedding = embed_posterior(world.measured)
    readings = read_attributes(world.measured)
    source = np.concatenate([softmax(each.of_source) for each in readings.attributes], axis=1)
    target = np.concatenate(
        [np.mean([softmax(logits).mean(axis=0) for logits in each.of_target], axis=0) for each in readings.attributes]
    )
    shares = np.random.default_rng(0).dirichlet(np.full(96, 0.2), size=5)
    uncorrected = embedding.score(shares) + np.square(shares) @ (embedding.variance / embedding.num_identities)
    for p, score in zip(shares, uncorrected, strict=True):
        mean = (p / 10)[readings.cell] @ source
        assert score == pytest.approx(np.square(mean - target).sum(), abs=1e-6)
    planted = world.cells.mask(world.planted)
    at_planted, at_all = embedding.score(np.stack([planted / planted.sum(), np.full(96, 1 / 96)]))
    assert at_planted < 0.1 * at_all


def test_too_few_people_are_refused() -> None:
    simulation = simulate((3, 3), seed=0, num_identities=2, identities_per_cell=2)
    with pytest.raises(InputError, match="expected at least 3 measured people, got 2"):
        read_attributes(simulation.measured)
