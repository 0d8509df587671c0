import numpy as np
import pytest
from scipy.optimize import brentq

from finegpr.proportions import proportional, systematic


def test_every_cell_gives_in_proportion_until_it_is_empty() -> None:
    random = np.random.default_rng(0)
    capacity = random.integers(0, 6, (200, 9)).astype(float)
    weights = random.integers(0, 4, (200, 9)).astype(float)
    held = np.where(weights > 0, capacity, 0).sum(axis=1)
    total = np.floor(held * random.random(200))
    drawn = proportional(capacity, weights, total)
    np.testing.assert_allclose(drawn.sum(axis=1), total, atol=1e-9)
    for row in np.flatnonzero(total > 0):
        level = brentq(lambda t: np.minimum(capacity[row], t * weights[row]).sum() - total[row], 0, 1e3, xtol=1e-14)  # noqa: B023
        np.testing.assert_allclose(drawn[row], np.minimum(capacity[row], level * weights[row]), atol=1e-8)


def test_more_than_there_is_takes_all_that_weighs() -> None:
    drawn = proportional(np.array([[2.0, 3.0, 4.0]]), np.array([[1.0, 0.0, 2.0]]), np.array([100.0]))
    np.testing.assert_array_equal(drawn, [[2, 0, 4]])


def test_equal_weights_are_a_water_level() -> None:
    drawn = proportional(np.array([[1.0, 5.0, 9.0]]), np.full((1, 3), 7.0), np.array([9.0]))
    np.testing.assert_allclose(drawn, [[1, 4, 4]])


@pytest.mark.parametrize("expected", [[0.5, 0.25, 0.25], [1.9, 0.1, 2.0, 3.3, 0.7], [0.0, 1.0]])
def test_counts_have_their_expectation_and_sum(expected: list[float]) -> None:
    random = np.random.default_rng(1)
    counts = np.stack([systematic(np.array(expected), random) for _ in range(4000)])
    assert set(counts.sum(axis=1).tolist()) == {round(sum(expected))}
    assert (np.abs(counts - expected) < 1).all()
    np.testing.assert_allclose(counts.mean(axis=0), expected, atol=0.04)
