from pathlib import Path

import numpy as np
import pytest
from scipy import linalg

from finegpr.errors import InputError
from finegpr.fid import covariance_root, frechet_distance, gaussian_distance

DATA = np.load(Path(__file__).parents[1] / "golden" / "gan_fid_kid.npz")
SINGULAR = {"rank_deficient", "n2", "ill_conditioned"}  # roots of eigenvalues near 0 keep half the digits


@pytest.mark.parametrize("case", DATA["names"].tolist())
def test_sets_have_the_golden_distance_in_both_directions(case: str) -> None:
    x, y = DATA[f"{case}_X"], DATA[f"{case}_Y"]
    for first, second in ((x, y), (y, x)):
        distance = frechet_distance(first, second)
        assert distance >= 0
        np.testing.assert_allclose(distance, DATA[f"{case}_fid"], rtol=1e-8, atol=2e-6 if case in SINGULAR else 1e-9)


@pytest.mark.parametrize("case", ["stat_diag", "stat_comm", "stat_2x2"])
def test_gaussians_have_the_closed_form(case: str) -> None:
    mean, covariance = DATA[f"{case}_mu1"], DATA[f"{case}_S1"]
    other, root = DATA[f"{case}_mu2"], covariance_root(DATA[f"{case}_S2"])
    np.testing.assert_allclose(root @ root, DATA[f"{case}_S2"], atol=1e-12)
    np.testing.assert_allclose(gaussian_distance(mean, covariance, other, root), DATA[f"{case}_fid"], rtol=1e-8)


def test_many_gaussians_at_once_and_a_root_by_scipy() -> None:
    random = np.random.default_rng(0)
    sets = random.normal(size=(3, 50, 6)) * random.uniform(0.5, 2, (3, 1, 6))
    y = random.normal(size=(40, 6)) @ random.normal(size=(6, 6)) + 1
    means, covariances = sets.mean(axis=1), np.stack([np.cov(x.T, ddof=0) for x in sets])
    other = np.cov(y.T, ddof=0)
    got = gaussian_distance(means, covariances, y.mean(axis=0), np.real(linalg.sqrtm(other)))
    expected = [
        np.square(m - y.mean(axis=0)).sum() + np.trace(c + other - 2 * np.real(linalg.sqrtm(c @ other)))
        for m, c in zip(means, covariances, strict=True)
    ]
    np.testing.assert_allclose(got, expected, rtol=1e-9)


def test_a_singular_gaussian_has_the_distance_of_means_and_standard_deviations() -> None:
    a, b = np.array([1.0, 0.0, 4.0]), np.array([9.0, 4.0, 1.0])
    got = gaussian_distance(np.zeros(3), np.diag(a), np.array([0.0, 2.0, 0.0]), np.diag(np.sqrt(b)))
    assert got == pytest.approx(4 + np.square(np.sqrt(a) - np.sqrt(b)).sum())


@pytest.mark.parametrize(
    ("x", "y", "message"),
    [
        (np.ones((1, 3)), np.ones((5, 3)), "at least 2"),
        (np.ones((5, 3)), np.ones((5, 4)), r"\(5, 3\) and \(5, 4\)"),
        (np.ones(5), np.ones((5, 3)), "expected features"),
        (np.ones((5, 3)), np.full((5, 3), np.nan), "NaN"),
    ],
)
def test_what_is_no_set_of_features_is_refused(x: np.ndarray, y: np.ndarray, message: str) -> None:
    with pytest.raises(InputError, match=message):
        frechet_distance(x, y)
