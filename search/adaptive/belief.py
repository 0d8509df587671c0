"""What is still unknown of an embedding: how far each cell's estimate may lie from its mean over all images."""

from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from finegpr.arrays import Bools, Floats, Ints
from search.objectives.embedding import CellEmbedding
from search.objectives.surrogate import SurrogateReport

POOLED_IDENTITIES = 4.0  # how many identities of a cell's own the pooled variance counts for
LEAST_DOUBT = 0.05  # of the variance between cells, where a surrogate predicts as well as its noise ceiling


@dataclass(frozen=True, kw_only=True, eq=False)
class Belief:
    """Errors of C cells in r coordinates and the linear part, taken to be normal and independent between cells.

    ``root`` (r + 1, r + 1): root root' is the covariance between the identities of a cell, pooled over cells, and
    ``scale`` (C,) the multiple of it in each. ``doubt`` (r + 1,): variance of a surrogate's error where nothing was
    measured. ``num_measured`` of ``num_images`` (C,) of a cell are known. What one person's presence in several cells
    has in common is left out.
    """

    root: Floats
    scale: Floats
    doubt: Floats
    num_measured: Ints
    num_images: Ints

    @cached_property
    def unmeasured(self) -> Bools:
        """Cells (C,) that a surrogate filled in."""
        return np.asarray(self.num_measured == 0)

    @cached_property
    def remaining(self) -> Floats:
        """1/k - 1/K (C,): the part of the variance between images that a mean of k of K still has; 0 for k = 0."""
        known = np.maximum(self.num_measured, 1)
        return np.where(self.unmeasured, 0.0, np.maximum(1 / known - 1 / np.maximum(self.num_images, known), 0.0))

    def draw(self, random: np.random.Generator) -> Floats:
        """One draw of all errors, (C, r + 1)."""
        unit = random.standard_normal((len(self.scale), len(self.doubt)))
        measured = (np.sqrt(self.scale * self.remaining)[:, None] * unit) @ self.root.T
        return np.where(self.unmeasured[:, None], unit * np.sqrt(self.doubt), measured)

    def variances(self, gradient: Floats) -> tuple[Floats, Floats]:
        """Variance of gradient (C, r + 1) times one image of each cell, and times a surrogate's error, (C,) each."""
        return np.square(gradient @ self.root).sum(axis=1) * self.scale, np.square(gradient) @ self.doubt


def believe(embedding: CellEmbedding, report: SurrogateReport | None, num_images: Ints) -> Belief:
    """What the measured images say of the errors of ``embedding``; ``report`` is of the surrogate that filled it.

    Where no cell has two measured identities, nothing is known of the variance, and measured cells count as exact.
    """
    samples = replace(embedding.samples, values=embedding.samples.values @ embedding.readout, names=())
    deviations, cell = samples.deviations
    freedom = np.maximum(samples.num_identities - 1, 0)
    covariance = deviations.T @ deviations / max(int(freedom.sum()), 1)
    pooled = float(np.trace(covariance))
    squares = np.bincount(cell, weights=np.square(deviations).sum(axis=1), minlength=samples.num_cells)
    scale = np.ones(samples.num_cells)
    if pooled > 0:
        scale = (POOLED_IDENTITIES + squares / pooled) / (POOLED_IDENTITIES + freedom)
    values, vectors = np.linalg.eigh(covariance)
    return Belief(
        root=vectors * np.sqrt(np.maximum(values, 0.0)),
        scale=scale,
        doubt=_doubt(embedding, report),
        num_measured=np.bincount(samples.cell, minlength=samples.num_cells).astype(np.int64),
        num_images=num_images,
    )


def _doubt(embedding: CellEmbedding, report: SurrogateReport | None) -> Floats:
    """Variance of the surrogate's error (r + 1,), by its validation on held-out cells; it leaves the rest at 0."""
    samples = embedding.samples
    between = np.nanvar(samples.means, axis=0)
    missed = np.ones(len(between))
    for score in report.scores if report else ():
        if score.split == "cells":
            explained = score.r2 if report and report.trusted else score.ridge_r2
            # Held-out cell means are noisy themselves; the ceiling says how much of them nobody could predict.
            best = 1.0 if score.ceiling is None else score.ceiling
            missed[samples.names.index(score.quantity)] = np.clip(best - explained, LEAST_DOUBT, 1.0)
    return np.asarray((missed * between) @ np.square(embedding.readout))
