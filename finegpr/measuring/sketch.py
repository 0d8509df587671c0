"""Principal coordinates of image vectors: a few numbers from which distances to any new target follow.

The basis comes from a sample of source images by the dual trick (eigenvectors of the n x n inner products), because
the vectors are far longer than the sample.
"""

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from finegpr.storage import canonical_hash, sha256

SMALLEST_EIGENVALUE = 2e-6  # of the largest; below it the directions are rounding noise, and then NaN


@dataclass(frozen=True, kw_only=True)
class Basis:
    """Principal directions of a sample of vectors.

    ``mean`` (d,); ``directions`` (d, k) orthonormal, largest variance first, or one zero where nothing varies;
    ``spread`` the mean squared norm of the centred sample; ``median`` the median squared distance between its pairs.
    """

    mean: Tensor
    directions: Tensor
    spread: float
    median: float

    def project(self, vectors: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Vectors (n, d) -> coordinates (n, k), squared norms |u - mean|^2 (n,), share of those off the basis (n,).

        The squared distance between two images' coordinates estimates that of their vectors, from below. A large share
        off the basis means the image is unlike the sample the basis came from, and its distances are less certain.
        """
        centred = vectors - self.mean
        coordinates = centred @ self.directions
        norms = torch.linalg.vector_norm(centred, dim=1).square()
        off_basis = 1 - coordinates.square().sum(dim=1) / torch.where(norms > 0, norms, 1)
        return coordinates, norms, torch.where(norms > 0, off_basis.clamp(0, 1), 0)

    @property
    def hash(self) -> str:
        """SHA-256 of the fitted numbers."""
        arrays = [sha256(array.cpu().numpy().tobytes()) for array in (self.mean, self.directions)]
        return canonical_hash([*arrays, self.spread, self.median])

    def to(self, place: torch.device | torch.dtype) -> "Basis":
        """The same basis on another device, or of another precision."""
        return replace(self, mean=self.mean.to(place), directions=self.directions.to(place))


def fit_basis(vectors: Tensor, num_coordinates: int) -> Basis:
    """Principal basis of a sample (n, d): at most ``num_coordinates`` directions, fewer where it spans fewer.

    ``vectors`` is centred in place, because a second copy may not fit. ``median`` is 0 for a single vector.
    """
    mean = vectors.mean(dim=0)
    mean += (vectors - mean).mean(dim=0)  # the float32 mean of large values, corrected once
    centred = vectors.sub_(mean)
    inner = _inner_products(centred)
    values, combinations = torch.linalg.eigh(inner)
    floor = max(SMALLEST_EIGENVALUE * float(values[-1]), 0.0)
    kept = torch.nonzero(values > floor).flatten().flip(0)[:num_coordinates]
    if len(kept):
        directions = centred.T @ (combinations[:, kept] / values[kept].sqrt()).to(vectors.dtype)
    else:
        directions = torch.zeros_like(mean)[:, None]
    norms = inner.diagonal()
    squared = (norms[:, None] + norms[None, :] - 2 * inner).clamp(min=0)
    row, column = torch.triu_indices(len(vectors), len(vectors), 1)
    pairs = squared[row, column]
    return Basis(
        mean=mean,
        directions=directions,
        spread=float(norms.mean()),
        median=float(pairs.median()) if len(pairs) else 0.0,
    )


def _inner_products(centred: Tensor) -> Tensor:
    """X X^T in float64, without ever holding X in float64."""
    inner = torch.zeros(len(centred), len(centred), dtype=torch.float64, device=centred.device)
    for start in range(0, centred.shape[1], 16384):
        exact = centred[:, start : start + 16384].double()
        inner += exact @ exact.T
    return inner
