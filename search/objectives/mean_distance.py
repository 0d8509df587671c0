"""mean_distance: the mean of D_total over a subset's images, as published. Linear in the shares."""

import numpy as np

from finegpr.arrays import Floats, Ints
from search.measured import Measured
from search.objectives.embedding import CellEmbedding, from_samples
from search.objectives.samples import Samples


def embed_distance(measured: Measured) -> CellEmbedding:
    """mean_distance: no coordinates, l_c = mean D_total of the cell. The samples are the unweighted terms."""
    keep, cell, person = measured.images
    samples = Samples(
        values=measured.measurements.terms[measured.target][keep].astype(np.float64),
        names=measured.measurements.of.names,
        cell=cell,
        identity=person,
        num_cells=len(measured.cells),
    )
    readout = np.asarray(measured.factors, dtype=np.float64)[:, None]
    nothing = np.zeros(len(measured.cells))
    return from_samples(samples, readout, constant=0.0, beyond_rank=nothing, variance=nothing, rank_error=0.0)


def no_kernel(measured: Measured, places: Ints, weights: Floats) -> Floats:  # noqa: ARG001 (every kernel's own)
    """mean_distance: it is linear in the shares."""
    return np.zeros_like(weights)
