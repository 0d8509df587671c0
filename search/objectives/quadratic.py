"""Objectives that are a quadratic form of the shares, with unmeasured cells filled in."""

from typing import TYPE_CHECKING

import numpy as np

from search.measured import Measured
from search.objectives.base import Embed, Form, Kind
from search.objectives.embedding import CellEmbedding
from search.objectives.kernels import ImageKernel
from search.objectives.surrogate import SurrogateReport, fit_surrogate

if TYPE_CHECKING:
    from finegpr.catalog import Cells

NUM_PREDICTED = 8  # leading coordinates that a surrogate fills in


def quadratic(unit: str, embed: Embed, kernel: ImageKernel | None = None, *, weighed: bool = True) -> Kind:
    """The objective whose form is what ``embed`` gives, with unmeasured cells filled in."""

    def make(measured: Measured, *, seed: int) -> tuple[Form, SurrogateReport | None]:
        embedding = embed(measured)
        return fill_unmeasured(embedding, measured.cells, seed=seed) if embedding.plug_in else (embedding, None)

    return Kind(unit=unit, make=make, quadratic=True, weighed=weighed, kernel=kernel)


def fill_unmeasured(embedding: CellEmbedding, cells: "Cells", *, seed: int) -> tuple[CellEmbedding, SurrogateReport]:
    """Fill unmeasured cells from a surrogate of the leading coordinates and the linear part; its validation."""
    samples = embedding.samples
    leading = np.arange(min(NUM_PREDICTED, len(samples.names) - 1))
    surrogate = fit_surrogate(cells, samples.columns([*leading.tolist(), len(samples.names) - 1]), seed=seed)
    return embedding.fill(surrogate.predict_cells(cells.codes)), surrogate.report
