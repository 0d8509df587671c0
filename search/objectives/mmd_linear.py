"""mmd_linear: the squared distance of the means of phi."""

import numpy as np

from finegpr.arrays import Floats, Ints
from search.measured import Measured
from search.objectives.embedding import CellEmbedding, embed_means
from search.objectives.samples import Samples


def embed_linear(measured: Measured) -> CellEmbedding:
    """mmd_linear: squared distance of the means of phi."""
    keep, cell, person = measured.images
    images = Samples(
        values=measured.phi[keep].astype(np.float64),
        names=(),
        cell=cell,
        identity=person,
        num_cells=len(measured.cells),
    )
    return embed_means(images, measured.target_phi.astype(np.float64), measured.cells)


def linear_kernel(measured: Measured, places: Ints, weights: Floats) -> Floats:
    """mmd_linear: phi_i . phi_j."""
    phi = measured.phi[places].astype(np.float64)
    # Weights that sum to 0 do not see the origin; near it, products lose no digits.
    phi -= phi.mean(axis=0)
    return np.asarray(phi @ (phi.T @ weights))
