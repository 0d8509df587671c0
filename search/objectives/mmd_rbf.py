"""mmd_rbf: squared maximum mean discrepancy (Gretton et al. 2012), kernels of three widths in each term."""

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np

from finegpr.arrays import Floats, Ints, Singles
from finegpr.errors import InputError
from search.measured import Measured
from search.objectives.embedding import CellEmbedding, from_kernel
from search.objectives.samples import Samples

if TYPE_CHECKING:
    from finegpr.measuring.results import Measurements

ROWS_AT_ONCE = 64  # keeps one kernel block in the cache


def embed_rbf(measured: Measured) -> CellEmbedding:
    """mmd_rbf: sum over the terms and s in (0.5, 1, 2) of exp(-d / (s median)).

    The kernel measures each term by its own median, which ``standardised`` does too: under ``paper`` it has no meaning.
    """
    measurements, cells = measured.measurements, measured.cells
    scale = measured.weighing.scale
    if scale != "standardised":
        raise InputError(f"mmd_rbf divides each term by its median; expected scale standardised, got {scale}")
    keep, cell, person = measured.images
    order = np.argsort(cell, kind="stable")
    keep, cell, person = keep[order], cell[order], person[order]
    images = Samples(values=np.empty((len(cell), 0)), names=(), cell=cell, identity=person, num_cells=len(cells))
    source = in_kernel_units(measurements, measurements.sketch[keep])
    goal = in_kernel_units(measurements, measurements.target_sketch[measured.target])
    starts = np.flatnonzero(np.concatenate([[True], cell[1:] != cell[:-1]]))
    weights = images.weights.astype(np.float32)
    image_cell = np.empty((len(cell), len(starts)), dtype=np.float32)
    for rows, block in kernel_blocks(source, source):
        block *= weights
        np.add.reduceat(block, starts, axis=1, out=image_cell[rows])
    to_target = np.concatenate([block.mean(axis=1, dtype=np.float64) for _, block in kernel_blocks(source, goal)])
    within_target = [block.sum(dtype=np.float64) for _, block in kernel_blocks(goal, goal)]
    of_target = float(sum(within_target)) / len(goal[0]) ** 2
    return from_kernel(
        images,
        cells,
        image_cell.astype(np.float64),
        to_target=to_target,
        of_target=of_target,
        of_unit=_kernel_of_units(images, source),
    )


def in_kernel_units(measurements: "Measurements", sketch: Singles) -> list[Singles]:
    """Sketch blocks scaled so that exp(-d) is the widest of a term's three kernels; a constant term stays at 0."""
    return [
        (sketch[:, block] / np.sqrt(2.0 * median)).astype(np.float32) if median > 0 else np.zeros_like(sketch[:, block])
        for block, median in zip(measurements.blocks, measurements.median, strict=True)
    ]


def kernel_blocks(x: list[Singles], y: list[Singles]) -> Iterator[tuple[slice, Singles]]:
    """The kernel between images x (a, .) and y (b, .), some rows at a time."""
    norms = [np.square(part).sum(axis=1) for part in y]
    num = len(x[0])
    for start in range(0, num, ROWS_AT_ONCE):
        rows = slice(start, min(start + ROWS_AT_ONCE, num))
        total = np.zeros((rows.stop - rows.start, len(y[0])), dtype=np.float32)
        for left, right, norm in zip(x, y, norms, strict=True):
            distance = left[rows] @ right.T
            distance *= -2
            distance += np.square(left[rows]).sum(axis=1)[:, None]
            distance += norm
            np.maximum(distance, 0, out=distance)
            np.negative(distance, out=distance)
            kernel = np.exp(distance, out=distance)
            # s = 2, then 1 and 0.5 by squaring: one exponential instead of three.
            total += kernel
            total += np.square(kernel, out=kernel)
            total += np.square(kernel, out=kernel)
        yield rows, total


def _kernel_of_units(images: Samples, x: list[Singles]) -> Floats:
    """Mean kernel among the images of one identity in one cell, (units,): the squared length of their mean."""
    unit = images.unit_of_image
    order = np.argsort(unit, kind="stable")
    sizes = np.bincount(unit)
    total = sizes * 3.0 * len(x)  # an image with itself: 1 at three scales in each term
    for step in range(1, int(sizes.max())):
        pairs = unit[order[:-step]] == unit[order[step:]]
        first, second = order[:-step][pairs], order[step:][pairs]
        for part in x:
            kernel = np.exp(-np.square(part[first] - part[second]).sum(axis=1, dtype=np.float64))
            np.add.at(total, unit[first], 2 * (kernel + kernel**2 + kernel**4))
    return np.asarray(total / sizes**2)


def rbf_kernel(measured: Measured, places: Ints, weights: Floats) -> Floats:
    """mmd_rbf: see ``embed_rbf``."""
    images = in_kernel_units(measured.measurements, measured.measurements.sketch[places])
    product = np.empty_like(weights)
    for rows, block in kernel_blocks(images, images):
        product[rows] = block @ weights
    return product
