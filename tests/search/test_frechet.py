from dataclasses import replace

import numpy as np
import pytest
from scipy import linalg

from finegpr.weighing import Weighing
from search.objectives import frechet, make_objective
from search.objectives.frechet import FrechetForm, fit_frechet, make_frechet, shrunk
from search.simulation import TARGET, Simulation, simulate
from search.space import Budget, Space


def fit(simulation: Simulation, num_dimensions: int = 6) -> FrechetForm:
    return fit_frechet(simulation.measured, num_dimensions=num_dimensions)


def distance_by_scipy(mean: np.ndarray, covariance: np.ndarray, other: np.ndarray, others: np.ndarray) -> float:
    root = linalg.sqrtm(covariance @ others)
    return float(np.square(mean - other).sum() + np.trace(covariance + others - 2 * np.real(root)))


@pytest.mark.parametrize("num_dimensions", [1, 6, 24])
def test_scores_are_the_distances_of_the_images_drawn(num_dimensions: int, simulation: Simulation) -> None:
    """From the images themselves, weighted as a manifest would, through scipy's matrix root."""
    form = fit(simulation, num_dimensions)
    samples, random = form.samples, np.random.default_rng(0)
    shares = random.dirichlet(np.full(60, 0.1), size=8)
    goal = simulation.measurements.target_phi(TARGET, Weighing()).astype(np.float64)
    phi = simulation.measurements.phi(Weighing()).astype(np.float64)
    axes = np.linalg.svd(phi - phi.mean(axis=0), full_matrices=False)[2][:num_dimensions].T
    image, target = (phi - phi.mean(axis=0)) @ axes, (goal - phi.mean(axis=0)) @ axes
    spread = image.var(axis=0)
    expected = []
    for p in shares:
        weights = p[samples.cell] * samples.weights
        mean = weights @ image
        covariance = (image * weights[:, None]).T @ image - np.outer(mean, mean)
        of_target = np.atleast_2d(np.cov(target.T, ddof=0))
        expected.append(
            distance_by_scipy(
                mean,
                0.9 * covariance + 0.1 * np.diag(spread),
                target.mean(axis=0),
                0.9 * of_target + 0.1 * np.diag(spread),
            )
        )
    np.testing.assert_allclose(form.score(shares), expected, rtol=1e-6)


def test_diagonal_gaussians_have_a_closed_form() -> None:
    """sum_d (m_d - t_d)^2 + (sigma_d - tau_d)^2, here of one cell whose moments are given."""
    mean, target = np.array([1.0, -2.0, 0.5]), np.array([0.0, 1.0, 0.5])
    sigma, tau, spread = np.array([1.0, 2.0, 0.3]), np.array([0.5, 2.5, 0.1]), np.array([1.0, 1.0, 0.2])
    form = fit(simulate((2, 2), seed=0), 3)
    rows, columns = np.triu_indices(3)
    moments = (np.diag(sigma**2) + np.outer(mean, mean))[rows, columns]
    form = replace(
        form,
        means=mean[None],
        moments=moments[None],
        spread=spread,
        target_mean=target,
        target_root=np.diag(np.sqrt(0.9 * tau**2 + 0.1 * spread)),
    )
    widths = np.sqrt(0.9 * sigma**2 + 0.1 * spread), np.sqrt(0.9 * tau**2 + 0.1 * spread)
    expected = np.square(mean - target).sum() + np.square(widths[0] - widths[1]).sum()
    np.testing.assert_allclose(form.score(np.ones((1, 1))), expected)


def test_a_target_of_the_source_itself_is_at_distance_zero(simulation: Simulation) -> None:
    measurements = simulation.measurements
    itself = replace(measurements, target_sketch={TARGET: measurements.sketch})
    form = fit_frechet(replace(simulation.measured, measurements=itself))
    np.testing.assert_allclose(form.score(np.full((1, 60), 1 / 60)), 0, atol=1e-9)
    assert (form.score(np.eye(60)) > 0.01).all()


def test_scores_do_not_depend_on_the_batch(simulation: Simulation, monkeypatch: pytest.MonkeyPatch) -> None:
    form = fit(simulation)
    shares = np.random.default_rng(1).dirichlet(np.ones(60), size=20)
    whole = form.score(shares)
    monkeypatch.setattr(frechet, "ROWS_AT_ONCE", 7)
    np.testing.assert_allclose(form.score(shares), whole)
    assert form.score(shares[:0]).shape == (0,)


def test_unmeasured_cells_get_the_predicted_mean_and_the_pooled_covariance() -> None:
    simulation = simulate((6, 4, 3), seed=1, measured=0.7)
    form = fit(simulation, 4)
    assert form.plug_in
    predicted = np.random.default_rng(0).normal(size=(72, 3))
    filled = form.fill(predicted)
    gap = form.samples.num_identities == 0
    np.testing.assert_array_equal(filled.means[gap], np.column_stack([predicted, np.zeros(72)])[gap])
    np.testing.assert_array_equal(filled.moments[~gap], form.moments[~gap])
    covariance = filled.moments[gap] - np.stack(
        [np.outer(mean, mean)[np.triu_indices(4)] for mean in filled.means[gap]]
    )
    np.testing.assert_allclose(covariance, np.tile(form.within[np.triu_indices(4)], (gap.sum(), 1)), atol=1e-12)
    # The noise within the cells of this simulation is known: 0.25 in every coordinate of the sketch.
    weights = simulation.measurements.factors(Weighing()).repeat(6)
    assert 0.5 < np.trace(form.within) / (0.25 * np.sort(weights)[-4:].sum()) < 2
    scored, report = make_frechet(simulation.measured, seed=0)
    assert report is not None
    assert report.num_unmeasured == gap.sum()
    assert np.isfinite(scored.score(np.eye(72))).all()


def test_it_finds_the_planted_cells() -> None:
    simulation = simulate((6, 4, 4), seed=5, interactions=0.1, num_target=2000)
    space = Space(simulation.cells, simulation.identity, Budget(images=24), seed=0)
    objective = make_objective("frechet", space, simulation.measured)
    planted = space.mask(simulation.planted)[None]
    random = space.decode(np.random.default_rng(0).normal(size=(500, space.num_bits)))
    assert objective.score_masks(planted)[0] < np.nanpercentile(objective.score_masks(random), 1)


def test_shrinkage_keeps_equal_covariances_equal_and_singular_ones_regular() -> None:
    spread = np.array([2.0, 1.0])
    np.testing.assert_allclose(shrunk(np.diag(spread), spread), np.diag(spread))
    np.testing.assert_allclose(shrunk(np.zeros((1, 2, 2)), spread)[0], 0.1 * np.diag(spread))
