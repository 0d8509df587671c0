"""Mean embeddings of cells: what makes a score one matrix product, whatever the number of images.

``mean_distance``, ``mmd_linear``, ``mmd_rbf`` and ``mmd_posterior`` are quadratic forms of the cell shares p, sum 1,

    score(p) = |sum_c p_c u_c|^2 + sum_c p_c l_c + constant + sum_c p_c^2 (r_c - v_c / k_c)

For a mean kernel K between cells and t between cells and target, |sum_c p_c mu_c - mu_T|^2 = p'Kp - 2 p't + const. K is
centred, K = H K H + a 1' + 1 a' - s, so that few coordinates u carry it, H K H ~ U U' + H R H with R diagonal, and
l = 2 a - 2 t is exact. R keeps the diagonal exact: it holds the noise of the cells' means, which v_c / k_c takes off.

That is unbiased only where U U' is free of that noise. The leading eigenvectors of H K H hold it, and subsets see more
of these than of the others: a diagonal would count it twice. So U U' is a principal factor (Harman 1976): of
A = H K H - H D H, D_c the noise as the directions beyond the leading V show it, the cell's mean of their eigenvalues,
(H K H - V L V')_cc / (1 - 1/M - (V V')_cc). And it is the best of its rank in the eyes of subsets, U = g A C W l^(-1/2)
with C'A C = W l W' and C C' = S, where S_cd = AGREEMENT^(number of attributes in which c and d differ) is how the
shares of random subsets go together; g makes tr(S U U') that of H K H, both without their diagonals, so that hardly an
error is left on average. Where the coordinates carry all of H K H, D = 0 and S does not matter.
"""

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
from scipy import linalg

from finegpr.arrays import Bools, Codes, Floats, Ints
from search.objectives.samples import Samples

if TYPE_CHECKING:
    from finegpr.catalog import Cells

MAX_RANK = 64
SMALLEST_EIGENVALUE = 2e-6  # of the largest; below it directions are rounding noise
AGREEMENT = 0.3  # half of many values would have 1/2, half of three 0.3, single cells 0
LEAST_SCALE = 0.01  # of coordinates where cells do not differ, so that they stay defined


@dataclass(frozen=True, kw_only=True, eq=False)
class CellEmbedding:
    """Coordinates u (C, R), linear part l (C,) and ``constant`` of the quadratic form in this module's docstring.

    ``beyond_rank`` (C,) is r_c, ``variance`` (C,) v_c, of the whole kernel, ``num_identities`` (C,) k_c; 0 where a
    surrogate filled the cell in (or should, see ``fill``). ``rank_error``: Frobenius norm of what coordinates and
    diagonal miss of the centred kernel, over its norm. ``samples`` holds the same quantities per image, leading
    coordinates first, times ``readout`` (q, R + 1).
    """

    coordinates: Floats
    linear: Floats
    constant: float
    beyond_rank: Floats
    variance: Floats
    num_identities: Ints
    rank_error: float
    samples: Samples
    readout: Floats

    @property
    def unmeasured(self) -> Bools:
        """Cells (C,) without a measured image: their part of a score is plug-in, not unbiased."""
        return np.asarray(self.num_identities == 0)

    @property
    def plug_in(self) -> bool:
        """Whether any score rests on a surrogate's prediction."""
        return bool(self.unmeasured.any())

    def score(self, shares: Floats) -> Floats:
        """The quadratic form at shares (n, C), rows summing to 1 -> (n,). Lower is nearer; may be below 0."""
        correction = np.divide(
            self.variance, self.num_identities, out=np.zeros_like(self.variance), where=self.num_identities > 0
        )
        mean = shares @ self.coordinates
        return np.asarray(
            np.square(mean).sum(axis=1)
            + shares @ self.linear
            + self.constant
            + np.square(shares) @ (self.beyond_rank - correction)
        )

    def fill(self, predicted: Floats) -> "CellEmbedding":
        """Fill the unmeasured cells from values (C, q') of the leading q' sample columns and of the last one.

        q' may be smaller than q: the coordinates in between are left at 0, the mean over cells.
        """
        num_leading = predicted.shape[1] - 1
        values = np.zeros((len(self.linear), self.samples.values.shape[1]))
        values[:, :num_leading] = predicted[:, :-1]
        values[:, -1] = predicted[:, -1]
        filled = values @ self.readout
        gap = self.unmeasured
        return replace(
            self,
            coordinates=np.where(gap[:, None], filled[:, :-1], self.coordinates),
            linear=np.where(gap, filled[:, -1], self.linear),
        )


def embed_means(images: Samples, target: Floats, cells: "Cells") -> CellEmbedding:
    """The squared distance of the means of vectors (n, S) of source images and (m, S) of the target's."""
    means = images.means[images.num_identities > 0]
    # Distances of means do not see the origin; near them, products lose no digits.
    origin = means.mean(axis=0)
    to_target = target.mean(axis=0) - origin
    vectors = images.values - origin
    return from_kernel(
        images,
        cells,
        vectors @ (means - origin).T,
        to_target=vectors @ to_target,
        of_target=float(to_target @ to_target),
        of_unit=np.square(images.unit_means - origin).sum(axis=1),
    )


def _variance(images: Samples, of_unit: Floats, of_cell: Floats) -> Floats:
    """Variance (C,) between the identities of a cell, unbiased, from the squared lengths of their means and of the
    cell's; pooled over cells where k_c < 2."""
    freedom = np.maximum(images.num_identities - 1, 0)
    squares = np.bincount(images.unit_cell, weights=of_unit, minlength=images.num_cells)
    squares = np.maximum(squares - images.num_identities * of_cell, 0.0)
    pooled = squares[freedom > 0].sum() / max(int(freedom.sum()), 1)
    return np.where(freedom > 0, squares / np.maximum(freedom, 1), pooled)


def from_kernel(
    images: Samples, cells: "Cells", image_cell: Floats, *, to_target: Floats, of_target: float, of_unit: Floats
) -> CellEmbedding:
    """Factor a kernel given between images and measured cells (n, M), images and target (n,), target and itself, and an
    identity's mean in a cell and itself (units,)."""
    measured = np.flatnonzero(images.num_identities)
    place = np.searchsorted(measured, images.cell)
    kernel = np.zeros((len(measured), len(measured)))
    np.add.at(kernel, place, image_cell * images.weights[:, None])
    of_cell = np.zeros(images.num_cells)
    of_cell[measured] = kernel.diagonal()
    row_means = kernel.mean(axis=0)
    mean = float(row_means.mean())
    centred = kernel - row_means[:, None] - row_means[None, :] + mean
    centred = (centred + centred.T) / 2
    num = len(measured)
    weights, noise = _factor(centred, cells.codes[measured], least=1e-12 * abs(mean))
    own_noise = noise[:, None] * weights
    own_noise -= own_noise.mean(axis=0)
    of_cells = centred @ weights - own_noise
    missing = centred - of_cells @ of_cells.T
    own = _uncentred_diagonal(missing.diagonal())
    missing -= _centred_diagonal(own)
    norm, missed = float(np.square(centred).sum()), float(np.square(missing).sum())
    image_means = image_cell.mean(axis=1)
    coordinates = image_cell @ weights - row_means @ weights - own_noise[place]
    linear = 2 * image_means - 2 * to_target
    samples = Samples(
        values=np.concatenate([coordinates, linear[:, None]], axis=1),
        names=(*(f"coordinate {place + 1}" for place in range(weights.shape[1])), "linear"),
        cell=images.cell,
        identity=images.identity,
        num_cells=images.num_cells,
    )
    beyond_rank = np.zeros(images.num_cells)
    beyond_rank[measured] = own
    embedding = from_samples(
        samples,
        np.eye(weights.shape[1] + 1),
        constant=of_target - mean + own.sum() / num**2,
        beyond_rank=beyond_rank,
        variance=_variance(images, of_unit, of_cell),
        rank_error=float(np.sqrt(missed / norm)) if weights.shape[1] else 0.0,
    )
    return replace(embedding, linear=embedding.linear - 2 * beyond_rank / num)


def _factor(centred: Floats, codes: Codes, *, least: float) -> tuple[Floats, Floats]:
    """Weights (M, R), of sum 0 over cells, and D (M,) of a centred kernel (M, M) between cells of ``codes`` (M, A):
    (H K H - H D H) times the weights are the coordinates."""
    num = len(centred)
    values, vectors = _leading(centred, least)
    if len(values) < MAX_RANK or num <= MAX_RANK + 1:
        weights = vectors / np.sqrt(values)
        return weights - weights.mean(axis=0), np.zeros(num)
    beyond = centred.diagonal() - np.square(vectors) @ values
    share = 1 - 1 / num - np.square(vectors).sum(axis=1)
    # A mean of the eigenvalues beyond, so between 0 and the last one kept but for rounding of a share of almost 0.
    noise = np.clip(beyond / np.maximum(share, 1e-6), 0, values[-1])
    without_noise = centred - _centred_diagonal(noise)
    agreement = np.ones((num, num))
    for of_attribute in codes.T:
        agreement[of_attribute[:, None] != of_attribute] *= AGREEMENT
    root = linalg.cholesky(agreement, lower=True)
    values, vectors = _leading(root.T @ without_noise @ root, SMALLEST_EIGENVALUE * values[0])
    weights = root @ vectors / np.sqrt(values)
    weights -= weights.mean(axis=0)
    coordinates = without_noise @ weights
    seen = _seen(coordinates @ coordinates.T, agreement)
    scale = _seen(centred, agreement) / seen if seen > 0 else 1.0
    return weights * np.sqrt(max(scale, LEAST_SCALE)), noise


def _leading(matrix: Floats, least: float) -> tuple[Floats, Floats]:
    """The at most ``MAX_RANK`` greatest eigenvalues (R,), descending, and vectors (M, R); rounding noise left out."""
    num = len(matrix)
    values, vectors = linalg.eigh(matrix, subset_by_index=(max(0, num - MAX_RANK), num - 1))
    kept = np.flatnonzero(values > max(SMALLEST_EIGENVALUE * values[-1], least))[::-1]
    return values[kept], vectors[:, kept]


def _seen(centred: Floats, agreement: Floats) -> float:
    """What random subsets see of a centred matrix (M, M) without its diagonal, up to a factor."""
    return float((agreement * (centred - _centred_diagonal(_uncentred_diagonal(centred.diagonal())))).sum())


def _centred_diagonal(diagonal: Floats) -> Floats:
    """H R H (M, M) of the diagonal R (M,)."""
    num = len(diagonal)
    return np.asarray(np.diag(diagonal) - (diagonal[:, None] + diagonal) / num + diagonal.sum() / num**2)


def _uncentred_diagonal(diagonal: Floats) -> Floats:
    """R (M,) of the H R H that has this diagonal; itself where M < 3, which says too little."""
    num = len(diagonal)
    if num < 3:
        return diagonal
    total = diagonal.sum() / (1 - 1 / num)
    return np.asarray((diagonal - total / num**2) / (1 - 2 / num))


def from_samples(
    samples: Samples, readout: Floats, *, constant: float, beyond_rank: Floats, variance: Floats, rank_error: float
) -> CellEmbedding:
    values = np.nan_to_num(samples.means) @ readout
    return CellEmbedding(
        coordinates=values[:, :-1],
        linear=values[:, -1],
        constant=constant,
        beyond_rank=beyond_rank,
        variance=variance,
        num_identities=samples.num_identities,
        rank_error=rank_error,
        samples=samples,
        readout=readout,
    )
