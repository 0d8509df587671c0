"""The Frechet distance between the images of a subset and the target, each taken for a Gaussian in a few dimensions.

It is ``finegpr.fid.gaussian_distance`` in the principal dimensions of the source's phi. A mixture of cells with shares
p has the mean m = sum_c p_c mu_c and the covariance A = sum_c p_c (S_c + mu_c mu_c') - m m', so that two matrix
products and one small eigenproblem score a subset.
"""

from dataclasses import dataclass, replace

import numpy as np

from finegpr.arrays import Floats
from finegpr.fid import covariance_root, gaussian_distance
from search.measured import Measured
from search.objectives.samples import Samples
from search.objectives.surrogate import SurrogateReport, fit_surrogate

NUM_DIMENSIONS = 24  # more make a subset's eigenproblem dearer, with the cube
SHRINKAGE = 0.1
NUM_PREDICTED = 8  # leading dimensions that a surrogate fills in
ROWS_AT_ONCE = 1024


@dataclass(frozen=True, kw_only=True, eq=False)
class FrechetForm:
    """Cells' means (C, d) and second moments (C, d (d + 1) / 2; upper triangles), the target's mean (d,) and root.

    Covariances are moved by ``SHRINKAGE`` towards that of all source images, diag(``spread``) (d,); ``target_root``
    (d, d) is the root of the target's. ``samples`` holds the coordinates (n, d) per image, ``within`` (d, d) the
    covariance of images about their cell's mean, pooled. ``kept``: share of the source's variance in d dimensions.
    """

    means: Floats
    moments: Floats
    spread: Floats
    target_mean: Floats
    target_root: Floats
    within: Floats
    samples: Samples
    kept: float

    @property
    def plug_in(self) -> bool:
        """Whether any score rests on a surrogate's prediction."""
        return bool((self.samples.num_identities == 0).any())

    def score(self, shares: Floats) -> Floats:
        """Squared Frechet distance of mixtures with shares (n, C), rows summing to 1 -> (n,)."""
        pieces = [shares[start : start + ROWS_AT_ONCE] for start in range(0, len(shares), ROWS_AT_ONCE)]
        return np.concatenate([np.empty(0), *(self._score(piece) for piece in pieces)])

    def _score(self, shares: Floats) -> Floats:
        mean = shares @ self.means
        covariance = _unpacked(shares @ self.moments, len(self.spread)) - mean[:, :, None] * mean[:, None, :]
        covariance = shrunk(covariance, self.spread)
        return gaussian_distance(mean, covariance, self.target_mean, self.target_root)

    def fill(self, predicted: Floats) -> "FrechetForm":
        """Fill unmeasured cells from the leading coordinates (C, q) of their means, the others 0, and ``within``."""
        means = np.zeros_like(self.means)
        means[:, : predicted.shape[1]] = predicted
        moments = _packed(means[:, :, None] * means[:, None, :] + self.within)
        gap = (self.samples.num_identities == 0)[:, None]
        return replace(self, means=np.where(gap, means, self.means), moments=np.where(gap, moments, self.moments))


def make_frechet(measured: Measured, *, seed: int) -> tuple[FrechetForm, SurrogateReport | None]:
    """frechet: plug-in, because the covariance of a mixture of noisy means is too large. Raises as ``embed_linear``."""
    cells, form = measured.cells, fit_frechet(measured)
    if not form.plug_in:
        return form, None
    surrogate = fit_surrogate(cells, form.samples.columns(list(range(min(NUM_PREDICTED, len(form.spread))))), seed=seed)
    return form.fill(surrogate.predict_cells(cells.codes)), surrogate.report


def fit_frechet(measured: Measured, *, num_dimensions: int = NUM_DIMENSIONS) -> FrechetForm:
    """The form in the leading principal dimensions; unmeasured cells are left at 0, see ``fill``."""
    keep, cell, person = measured.images
    phi = measured.phi[keep].astype(np.float64)
    origin = phi.mean(axis=0)
    phi -= origin
    spread, axes = np.linalg.eigh(phi.T @ phi / len(phi))
    total = float(spread.sum())
    spread, axes = np.maximum(spread[::-1][:num_dimensions], 0.0), axes[:, ::-1][:, :num_dimensions]
    samples = Samples(
        values=phi @ axes,
        names=tuple(f"dimension {place + 1}" for place in range(len(spread))),
        cell=cell,
        identity=person,
        num_cells=len(measured.cells),
    )
    goal = (measured.target_phi - origin) @ axes
    target_mean = goal.mean(axis=0)
    goal -= target_mean
    means = np.nan_to_num(samples.means)
    return FrechetForm(
        means=means,
        moments=_second_moments(samples),
        spread=spread,
        target_mean=target_mean,
        target_root=covariance_root(shrunk(goal.T @ goal / len(goal), spread)),
        within=_pooled_covariance(samples, means),
        samples=samples,
        kept=float(spread.sum()) / total if total > 0 else 1.0,
    )


def shrunk(covariance: Floats, spread: Floats) -> Floats:
    """Covariances (..., d, d) moved by ``SHRINKAGE`` towards diag(spread)."""
    return np.asarray((1 - SHRINKAGE) * covariance + SHRINKAGE * np.diag(spread))


def _second_moments(samples: Samples) -> Floats:
    """Upper triangles of the cells' mean x x', (C, d (d + 1) / 2), weighted as the cells' means; 0 where unmeasured."""
    num = samples.values.shape[1]
    moments = np.zeros((samples.num_cells, num * (num + 1) // 2))
    for start in range(0, len(samples.values), ROWS_AT_ONCE):
        rows = slice(start, start + ROWS_AT_ONCE)
        x = samples.values[rows]
        products = _packed(x[:, :, None] * x[:, None, :]) * samples.weights[rows, None]
        np.add.at(moments, samples.cell[rows], products)
    return moments


def _pooled_covariance(samples: Samples, means: Floats) -> Floats:
    """Covariance (d, d) of images about their cell's mean, unbiased; 0 where every cell has a single image."""
    deviations = samples.values - means[samples.cell]
    freedom = float(samples.weights.sum() - np.square(samples.weights).sum())
    if freedom < 1e-9:
        return np.zeros((deviations.shape[1], deviations.shape[1]))
    return np.asarray((deviations * samples.weights[:, None]).T @ deviations / freedom)


def _packed(matrices: Floats) -> Floats:
    """Symmetric (n, d, d) -> upper triangles (n, d (d + 1) / 2)."""
    rows, columns = np.triu_indices(matrices.shape[1])
    return np.asarray(matrices[:, rows, columns])


def _unpacked(triangles: Floats, num: int) -> Floats:
    rows, columns = np.triu_indices(num)
    matrices = np.empty((len(triangles), num, num))
    matrices[:, rows, columns] = triangles
    matrices[:, columns, rows] = triangles
    return matrices
