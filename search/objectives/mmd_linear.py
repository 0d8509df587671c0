"""mmd_linear: the squared distance of the means of phi."""

from typing import TYPE_CHECKING

import numpy as np

from finegpr.arrays import Floats, Ints
from finegpr.weighing import Weighing
from search.objectives.samples import Samples

if TYPE_CHECKING:
    from finegpr.catalog import Cells
    from finegpr.measuring.results import Measurements
    from finegpr.weighing import Scale
from typing import TYPE_CHECKING

from search.objectives.embedding import CellEmbedding, embed_means, measured_images

if TYPE_CHECKING:
    from finegpr.catalog import Cells
    from finegpr.measuring.results import Measurements
    from finegpr.weighing import Scale


def embed_linear(
    measurements: "Measurements", cells: "Cells", identity: Ints, *, target: str, scale: "Scale"
) -> CellEmbedding:
    """mmd_linear: squared distance of the means of phi."""
    keep, cell, person = measured_images(measurements, cells, identity, target)
    images = Samples(
        values=measurements.phi(Weighing(scale=scale))[keep].astype(np.float64),
        names=(),
        cell=cell,
        identity=person,
        num_cells=len(cells),
    )
    return embed_means(images, measurements.target_phi(target, Weighing(scale=scale)).astype(np.float64), cells)


def linear_kernel(measurements: "Measurements", places: Ints, weights: Floats, *, scale: "Scale") -> Floats:
    """mmd_linear: phi_i . phi_j."""
    phi = measurements.phi(Weighing(scale=scale))[places].astype(np.float64)
    # Weights that sum to 0 do not see the origin; near it, products lose no digits.
    phi -= phi.mean(axis=0)
    return np.asarray(phi @ (phi.T @ weights))
