"""What a kernel between measured images is, and the inner products of people in cells that follow from one."""

from collections.abc import Callable
from typing import Protocol

import numpy as np

from finegpr.arrays import Floats, Ints
from search.measured import Measured
from search.objectives.samples import Samples

UnitGram = Callable[[Floats], Floats]
"""Weights (U, m) of people in cells, the units of ``Samples`` -> inner products (m, m) of the weighted sums."""


class ImageKernel(Protocol):
    """The kernel K (n, n) of an objective between images."""

    def __call__(self, measured: Measured, places: Ints, weights: Floats) -> Floats:
        """K @ weights (n, m) for the measured images at ``places`` (n,) of the measurements."""


def unit_gram(kernel: ImageKernel, measured: Measured) -> UnitGram:
    """The inner products of sums over units, by one pass over the kernel between all measured images of known cell."""
    places, cell, person = measured.images
    images = Samples(
        values=np.empty((len(cell), 0)), names=(), cell=cell, identity=person, num_cells=len(measured.cells)
    )
    num = np.bincount(images.unit_of_image)

    def gram(weights: Floats) -> Floats:
        of_image = (weights / num[:, None])[images.unit_of_image]
        return np.asarray(of_image.T @ kernel(measured, places, of_image))

    return gram
