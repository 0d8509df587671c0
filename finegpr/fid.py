"""The Frechet distance between sets of features, each taken for a Gaussian: FID, when the features are Inception's."""

import numpy as np

from finegpr.arrays import Floats, Singles
from finegpr.errors import InputError


def frechet_distance(x: Floats | Singles, y: Floats | Singles) -> float:
    """Squared Frechet distance of features (n, d) and (m, d), at least 0, in the square of their unit.

    Gaussians with unbiased covariances (Heusel et al. 2017), in float64 whatever the features are; with few features
    for their dimensions it is too large. Raises InputError for fewer than 2 rows, other shapes or values that are not
    finite.
    """
    for features in (x, y):
        if features.ndim != 2 or len(features) < 2 or features.shape[1] != x.shape[-1]:
            raise InputError(f"expected features (n, d) and (m, d), n and m at least 2, got {x.shape} and {y.shape}")
        if not np.isfinite(features).all():
            raise InputError("features hold NaN or infinite values; an embedding overflowed")
    (mean, covariance), (other_mean, other) = _gaussian(x), _gaussian(y)
    return max(float(gaussian_distance(mean, covariance, other_mean, covariance_root(other))), 0.0)


def gaussian_distance(mean: Floats, covariance: Floats, other_mean: Floats, other_root: Floats) -> Floats:
    """|m - n|^2 + tr(C + D - 2 (D^1/2 C D^1/2)^1/2), (...), of Gaussians (m, C) and one (n, D).

    Dowson and Landau (1982). Means (..., d) and covariances (..., d, d) of the first; of the second the mean (d,) and
    the root D^1/2 (d, d). All may be singular. Rounding can make a distance of 0 slightly negative.
    """
    inner = np.linalg.eigvalsh(other_root @ covariance @ other_root)
    roots = np.sqrt(np.maximum(inner, 0.0)).sum(axis=-1)
    traces = np.trace(covariance, axis1=-2, axis2=-1) + np.square(other_root).sum()
    return np.asarray(np.square(mean - other_mean).sum(axis=-1) + traces - 2 * roots)


def covariance_root(covariance: Floats) -> Floats:
    """The symmetric root (d, d) of a covariance; eigenvalues that rounding made negative are 0."""
    values, vectors = np.linalg.eigh(covariance)
    return np.asarray((vectors * np.sqrt(np.maximum(values, 0.0))) @ vectors.T)


def _gaussian(features: Floats | Singles) -> tuple[Floats, Floats]:
    mean = features.mean(axis=0, dtype=np.float64)
    centred = features - mean
    return mean, np.asarray(centred.T @ centred / (len(features) - 1))
