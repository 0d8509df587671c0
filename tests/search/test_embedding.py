from dataclasses import replace

import numpy as np
import pytest

from finegpr.errors import InputError
from finegpr.weighing import Weighing
from search.objectives.embedding import CellEmbedding
from search.objectives.mean_distance import embed_distance
from search.objectives.mmd_linear import embed_linear
from search.objectives.mmd_rbf import embed_rbf
from search.objectives.samples import Samples
from search.simulation import TARGET, Simulation, simulate

OPTIONS = {"target": TARGET, "scale": "standardised"}


def random_shares(num_cells: int, num: int = 20, seed: int = 0) -> np.ndarray:
    random = np.random.default_rng(seed)
    weights = random.random((num, num_cells)) * (random.random((num, num_cells)) < 0.4)
    return weights / weights.sum(axis=1, keepdims=True)


def naive_rbf(simulation: Simulation, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    measurements = simulation.measurements
    total = np.zeros((len(x), len(y)))
    for block, median in zip(measurements.blocks, measurements.median, strict=True):
        squared = np.square(x[:, None, block].astype(float) - y[None, :, block]).sum(axis=2)
        total += sum(np.exp(-squared / (s * median)) for s in (0.5, 1, 2))
    return total


def naive_score(simulation: Simulation, kernels: tuple[np.ndarray, np.ndarray, np.ndarray], p: np.ndarray) -> float:
    """The unbiased score written out over images: pairs of one identity in one cell are counted apart."""
    within, to_target, of_target = kernels
    cell = simulation.cells.of_row[simulation.measurements.row]
    weight = np.zeros(len(cell))
    correction = 0.0
    for place in np.unique(cell):
        images = np.flatnonzero(cell == place)
        weight[images] = p[place] / len(images)
        inner = within[np.ix_(images, images)]
        k = len(images)
        variance = k / (k - 1) * (np.diag(inner).mean() - inner.mean())
        correction += p[place] ** 2 * variance / k
    return weight @ within @ weight - 2 * weight @ to_target.mean(axis=1) + of_target.mean() - correction


def test_mmd_rbf_is_the_kernel_written_out(simulation: Simulation) -> None:
    sketch, target = simulation.measurements.sketch, simulation.measurements.target_sketch[TARGET]
    kernels = tuple(naive_rbf(simulation, x, y) for x, y in ((sketch, sketch), (sketch, target), (target, target)))
    embedding = embed_rbf(simulation.measurements, simulation.cells, simulation.identity, **OPTIONS)
    shares = random_shares(len(simulation.cells))
    assert embedding.rank_error < 1e-6
    expected = [naive_score(simulation, kernels, p) for p in shares]
    np.testing.assert_allclose(embedding.score(shares), expected, rtol=2e-4)


def test_the_variance_is_that_between_people_not_between_images(simulation: Simulation) -> None:
    """With two images of a person in a cell, a unit of the variance is their mean in the kernel's space."""
    measurements = simulation.measurements
    identity = (simulation.identity + 1) // 2
    embedding = embed_rbf(measurements, simulation.cells, identity, **OPTIONS)
    kernel = naive_rbf(simulation, measurements.sketch, measurements.sketch)
    cell, person = simulation.cells.of_row[measurements.row], identity[measurements.row]
    squares, freedom = np.zeros(len(simulation.cells)), np.zeros(len(simulation.cells))
    num_pairs = 0
    for place in range(len(simulation.cells)):
        people = [np.flatnonzero((cell == place) & (person == who)) for who in np.unique(person[cell == place])]
        num_pairs += sum(len(images) > 1 for images in people)
        means = np.array([[kernel[np.ix_(a, b)].mean() for a in people] for b in people])
        squares[place] = len(people) * (np.diag(means).mean() - means.mean())
        freedom[place] = len(people) - 1
    assert num_pairs > 5
    pooled = squares[freedom > 0].sum() / freedom.sum()
    expected = np.where(freedom > 0, squares / np.maximum(freedom, 1), pooled)
    np.testing.assert_allclose(embedding.variance, expected, rtol=1e-3)


def test_mmd_linear_is_the_distance_of_means_written_out(simulation: Simulation) -> None:
    phi = simulation.measurements.phi(Weighing()).astype(float)
    goal = simulation.measurements.target_phi(TARGET, Weighing()).astype(float).mean(axis=0)
    cell = simulation.cells.of_row[simulation.measurements.row]
    means = np.stack([phi[cell == place].mean(axis=0) for place in range(len(simulation.cells))])
    variance = np.stack([phi[cell == place].var(axis=0, ddof=1).sum() for place in range(len(simulation.cells))])
    shares = random_shares(len(simulation.cells))
    embedding = embed_linear(simulation.measurements, simulation.cells, simulation.identity, **OPTIONS)
    expected = np.square(shares @ means - goal).sum(axis=1) - np.square(shares) @ (variance / 3)
    np.testing.assert_allclose(embedding.score(shares), expected, rtol=1e-5)


def test_the_score_is_unbiased() -> None:
    """Over many measurements of the same cells, the score's mean is the true squared distance."""
    shares = random_shares(12, num=1)
    scores, uncorrected, truths = [], [], []
    for seed in range(150):
        simulation = simulate((4, 3), seed=3, identities_per_cell=2, coordinates_per_term=2, noise=1.0)
        measurements = simulation.measurements
        noise = np.random.default_rng(seed).normal(size=measurements.sketch.shape)
        sketch = simulation.cell_means[simulation.cells.of_row[measurements.row]] + noise
        measurements = replace(measurements, sketch=sketch.astype(np.float32))
        embedding = embed_linear(measurements, simulation.cells, simulation.identity, **OPTIONS)
        scores.append(embedding.score(shares)[0])
        uncorrected.append(replace(embedding, variance=np.zeros(12)).score(shares)[0])
        true_phi = replace(measurements, sketch=simulation.cell_means.astype(np.float32)).phi(Weighing())
        goal = measurements.target_phi(TARGET, Weighing()).mean(axis=0)
        truths.append(np.square(shares[0] @ true_phi - goal).sum())
    error = np.std(scores) / np.sqrt(len(scores))
    assert abs(np.mean(scores) - truths[0]) < 3 * error
    assert np.mean(uncorrected) - truths[0] > 5 * error


def test_the_mean_distance_is_the_mean_of_totals(simulation: Simulation) -> None:
    embedding = embed_distance(simulation.measurements, simulation.cells, simulation.identity, **OPTIONS)
    totals = simulation.measurements.total(TARGET, Weighing())
    cell = simulation.cells.of_row[simulation.measurements.row]
    shares = random_shares(len(simulation.cells))
    weight = shares[:, cell] / 3
    np.testing.assert_allclose(embedding.score(shares), weight @ totals, rtol=1e-6)


def test_mean_distance_is_mmd_linear_plus_both_variances(simulation: Simulation) -> None:
    """An identity of the formulas: it holds between two embeddings that are computed in different ways."""
    measurements = simulation.measurements
    args = (measurements, simulation.cells, simulation.identity)
    linear, distance = embed_linear(*args, **OPTIONS), embed_distance(*args, **OPTIONS)
    phi = measurements.phi(Weighing()).astype(float)
    goal = measurements.target_phi(TARGET, Weighing()).astype(float)
    cell = simulation.cells.of_row[measurements.row]
    for p in random_shares(len(simulation.cells), num=3):
        weight = p[cell] / 3
        spread = weight @ np.square(phi - weight @ phi).sum(axis=1)
        target_spread = np.square(goal - goal.mean(axis=0)).sum(axis=1).mean()
        biased = replace(linear, variance=np.zeros(len(p))).score(p[None])[0]
        assert distance.score(p[None])[0] == pytest.approx(biased + spread + target_spread, rel=1e-4)


def make_samples() -> Samples:
    """Cell 0: person 1 twice and person 2; cell 1: person 1; cell 2: nobody."""
    return Samples(
        values=np.array([[1.0], [3.0], [6.0], [5.0]]),
        names=("value",),
        cell=np.array([0, 0, 0, 1]),
        identity=np.array([1, 1, 2, 1]),
        num_cells=3,
    )


def test_people_are_the_independent_unit() -> None:
    samples = make_samples()
    assert samples.num_identities.tolist() == [2, 1, 0]
    np.testing.assert_allclose(samples.means[:, 0], [4, 5, np.nan])
    # Person means 2 and 6: variance 8; cells with one person take the pooled variance.
    np.testing.assert_allclose(samples.variance[:, 0], [8, 8, 8])
    np.testing.assert_allclose(samples.weights, [0.25, 0.25, 0.5, 1])


def test_without_a_second_identity_nothing_is_known_of_the_variance() -> None:
    samples = make_samples().take(np.array([True, True, False, True]))
    assert not samples.has_variance
    assert (samples.variance == 0).all()


def test_low_rank_keeps_the_order_of_scores_and_tells_its_error() -> None:
    simulation = simulate((8, 5, 4), seed=2, coordinates_per_term=30)
    embedding = embed_rbf(simulation.measurements, simulation.cells, simulation.identity, **OPTIONS)
    assert embedding.coordinates.shape == (160, 64)
    assert 0.01 < embedding.rank_error < 0.5
    sketch, target = simulation.measurements.sketch, simulation.measurements.target_sketch[TARGET]
    kernels = tuple(naive_rbf(simulation, x, y) for x, y in ((sketch, sketch), (sketch, target), (target, target)))
    shares = random_shares(160, num=30)
    exact = np.array([naive_score(simulation, kernels, p) for p in shares])
    near = embedding.score(shares)
    assert np.corrcoef(exact.argsort().argsort(), near.argsort().argsort())[0, 1] > 0.98


def kernel_score(simulation: Simulation, embedding: CellEmbedding, p: np.ndarray) -> np.ndarray:
    """mmd_rbf at shares (n, C) by the full kernel between cells of as many people each, less the noise of their means.

    It takes the variance between people from ``embedding``: of it, the rank of the coordinates leaves nothing out.
    """
    sketch, target = simulation.measurements.sketch, simulation.measurements.target_sketch[TARGET]
    num_cells = p.shape[1]
    people = len(sketch) // num_cells
    order = np.argsort(simulation.measurements.cell, kind="stable")
    within = naive_rbf(simulation, sketch[order], sketch[order])
    kernel = within.reshape(num_cells, people, num_cells, people).mean(axis=(1, 3))
    to_target = naive_rbf(simulation, sketch[order], target).reshape(num_cells, -1).mean(axis=1)
    quadratic = ((p @ kernel) * p).sum(axis=1) - np.square(p) @ (embedding.variance / people)
    return quadratic - 2 * p @ to_target + naive_rbf(simulation, target, target).mean()


def random_products(simulation: Simulation, num: int = 200) -> np.ndarray:
    """Equal shares (num, C) of the cells of random subsets: every value is in or out, whatever the others."""
    codes, random = simulation.cells.codes, np.random.default_rng(0)
    inside = np.ones((4 * num, len(codes)), dtype=bool)
    for of_attribute in codes.T:
        inside &= (random.random((4 * num, of_attribute.max() + 1)) < 0.5)[:, of_attribute]
    inside = inside[inside.any(axis=1)][:num]
    return np.asarray(inside / inside.sum(axis=1, keepdims=True))


@pytest.mark.parametrize(("noise", "spread"), [(1.0, 0.02), (3.0, 0.15)])
def test_few_coordinates_make_no_error_on_average_over_subsets(noise: float, spread: float) -> None:
    """Two people a cell: the kernel is full of noise, which 64 of 160 coordinates and a diagonal must not count twice.

    Leading eigenvectors of the kernel itself and its diagonal are 0.08 and 0.26 too high, and spread by 0.05 and 0.22.
    """
    simulation = simulate((8, 5, 4), seed=0, identities_per_cell=2, coordinates_per_term=30, noise=noise)
    embedding = embed_rbf(simulation.measurements, simulation.cells, simulation.identity, **OPTIONS)
    assert embedding.coordinates.shape == (160, 64)
    shares = random_products(simulation)
    exact = kernel_score(simulation, embedding, shares)
    error = (embedding.score(shares) - exact) / exact.std()
    assert abs(error.mean()) < 0.02
    assert error.std() < spread


def test_few_coordinates_score_single_cells_exactly() -> None:
    simulation = simulate((8, 5, 4), seed=0, identities_per_cell=2, coordinates_per_term=30, noise=1.0)
    embedding = embed_rbf(simulation.measurements, simulation.cells, simulation.identity, **OPTIONS)
    assert embedding.rank_error > 0.01
    alone = np.eye(160)
    np.testing.assert_allclose(embedding.score(alone), kernel_score(simulation, embedding, alone), rtol=1e-4)


@pytest.mark.parametrize("spread", [0.0, 1.0, 1e3])
def test_few_coordinates_of_noise_alone_are_right_on_average(spread: float) -> None:
    """Equal images, noise, and images that have nothing in common, whose kernel has no leading directions at all."""
    simulation = simulate((8, 5, 4), seed=0, identities_per_cell=2)
    measurements = simulation.measurements
    sketch = spread * np.random.default_rng(0).normal(size=measurements.sketch.shape)
    simulation = replace(simulation, measurements=replace(measurements, sketch=sketch.astype(np.float32)))
    embedding = embed_rbf(simulation.measurements, simulation.cells, simulation.identity, **OPTIONS)
    shares = random_products(simulation, 20)
    exact = kernel_score(simulation, embedding, shares)
    np.testing.assert_allclose(embedding.score(shares).mean(), exact.mean(), atol=0.01)


@pytest.mark.parametrize("embed", [embed_distance, embed_linear, embed_rbf])
def test_unmeasured_cells_are_filled_and_flagged(embed: type) -> None:
    simulation = simulate((5, 4, 3), seed=0, measured=0.7)
    embedding = embed(simulation.measurements, simulation.cells, simulation.identity, **OPTIONS)
    assert embedding.plug_in
    assert embedding.unmeasured.sum() == 18
    means = embedding.samples.means
    truth = np.arange(60.0)[:, None] * np.ones(means.shape[1])
    filled = embedding.fill(truth)
    expected = truth @ embedding.readout
    np.testing.assert_allclose(filled.linear[filled.unmeasured], expected[filled.unmeasured, -1])
    np.testing.assert_allclose(filled.coordinates[filled.unmeasured], expected[filled.unmeasured, :-1])
    np.testing.assert_array_equal(filled.linear[~filled.unmeasured], embedding.linear[~filled.unmeasured])
    assert np.isfinite(filled.score(random_shares(60))).all()


@pytest.mark.parametrize("embed", [embed_distance, embed_linear, embed_rbf])
def test_equal_images_give_no_nan(simulation: Simulation, embed: type) -> None:
    measurements = simulation.measurements
    flat = replace(
        measurements,
        sketch=np.zeros_like(measurements.sketch),
        median=np.zeros(6),
        terms={TARGET: np.zeros_like(measurements.terms[TARGET])},
    )
    scores = embed(flat, simulation.cells, simulation.identity, **OPTIONS).score(random_shares(60))
    np.testing.assert_allclose(scores, scores[0], atol=1e-9)


def test_measurements_of_something_else_are_refused(simulation: Simulation) -> None:
    args = (simulation.cells, simulation.identity)
    with pytest.raises(InputError, match="target 'duke' was not measured; measured targets: target"):
        embed_linear(simulation.measurements, *args, target="duke", scale="paper")
    with pytest.raises(InputError, match="catalog of 99 images, but the catalog has 720"):
        embed_linear(replace(simulation.measurements, num_catalog=99), *args, **OPTIONS)
    with pytest.raises(InputError, match="expected scale standardised, got paper"):
        embed_rbf(simulation.measurements, *args, target=TARGET, scale="paper")
