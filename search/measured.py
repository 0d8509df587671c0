"""Measured images against one target: what objectives, selectors and explanations are made from."""

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from finegpr.arrays import Floats, Ints, Singles
from finegpr.errors import InputError
from finegpr.weighing import Weighing

if TYPE_CHECKING:
    from finegpr.catalog import Cells
    from finegpr.measuring.results import Measurements


@dataclass(frozen=True, kw_only=True, eq=False)
class Measured:
    """Measurements of a catalog's images, the ``cells`` and the ``identity`` (rows,) of the same catalog, which of the
    measured targets is meant, and how the terms of the distance are weighed."""

    measurements: "Measurements"
    cells: "Cells"
    identity: Ints
    target: str
    weighing: Weighing

    @cached_property
    def images(self) -> tuple[Ints, Ints, Ints]:
        """Measured images whose cell is known, (n,) each: their place in the measurements, their cell and identity.

        Raises InputError for a target that was not measured, measurements of another catalog, and for no such image.
        """
        self.require_target()
        cell = self.cells.of_row[self.measurements.row]
        keep = np.flatnonzero(cell >= 0)
        if len(keep) == 0:
            raise InputError("no measured image has all the attributes searched over; measure more images")
        return keep, cell[keep], self.identity[self.measurements.row[keep]]

    def require_target(self) -> None:
        """Raises InputError for a target that was not measured, or measurements of another catalog."""
        if self.target not in self.measurements.target_sketch:
            known = ", ".join(self.measurements.target_sketch) or "none"
            raise InputError(f"target {self.target!r} was not measured; measured targets: {known}")
        if len(self.cells.of_row) != self.measurements.num_catalog:
            raise InputError(
                f"measurements of a catalog of {self.measurements.num_catalog} images, but the catalog has "
                f"{len(self.cells.of_row)}; measure this catalog"
            )

    @property
    def factors(self) -> Floats:
        """(T,) with D_total = terms @ factors."""
        return self.measurements.factors(self.weighing)

    @property
    def total(self) -> Floats:
        """D_total (n,) of every measured image to the target."""
        return self.measurements.total(self.target, self.weighing)

    @property
    def phi(self) -> Singles:
        """Embedding (n, S) of every measured image: squared distances estimate D_total between two."""
        return self.measurements.phi(self.weighing)

    @property
    def target_phi(self) -> Singles:
        """The same embedding of the target's images, (m, S)."""
        return self.measurements.target_phi(self.target, self.weighing)

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 of what a score depends on."""
        return self.measurements.fingerprint(self.target)
