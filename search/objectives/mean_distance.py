"""mean_distance: the mean of D_total over a subset's images, as published. Linear in the shares."""

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

from search.objectives.embedding import CellEmbedding, _from_samples, measured_images

if TYPE_CHECKING:
    from finegpr.catalog import Cells
    from finegpr.measuring.results import Measurements
    from finegpr.weighing import Scale


def embed_distance(
    measurements: "Measurements", cells: "Cells", identity: Ints, *, target: str, scale: "Scale"
) -> CellEmbedding:
    """mean_distance: no coordinates, l_c = mean D_total of the cell. The samples are the six unweighted terms."""
    keep, cell, person = measured_images(measurements, cells, identity, target)
    weights = measurements.factors(Weighing(scale=scale))
    samples = Samples(
        values=measurements.terms[target][keep].astype(np.float64),
        names=("relu1_1", "relu2_1", "relu3_1", "relu4_1", "relu5_1", "content"),
        cell=cell,
        identity=person,
        num_cells=len(cells),
    )
    readout = np.asarray(weights, dtype=np.float64)[:, None]
    nothing = np.zeros(len(cells))
    return _from_samples(samples, readout, constant=0.0, beyond_rank=nothing, variance=nothing, rank_error=0.0)


def no_kernel(measurements: "Measurements", places: Ints, weights: Floats, *, scale: "Scale") -> Floats:  # noqa: ARG001 (every kernel's own)
    """mean_distance: it is linear in the shares."""
    return np.zeros_like(weights)
