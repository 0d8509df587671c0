"""Objectives: a subset's score, from its expected manifest shares. A new one is an ``embed`` function and a line."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import numpy as np

from finegpr.errors import ConfigError
from finegpr.subset import Subset
from search.embedding import CellEmbedding, embed_distance, embed_linear, embed_rbf
from search.space import Bools, Floats, Ints, Space
from search.surrogate import SurrogateReport, fit_surrogate

if TYPE_CHECKING:
    from finegpr.catalog import Cells
    from finegpr.measurements import Measurements, Scale

NUM_PREDICTED = 8  # leading coordinates that a surrogate fills in


class Objective(Protocol):
    """Scores subsets. ``unit`` names the score's unit, ``higher_is_better`` its direction."""

    @property
    def name(self) -> str: ...

    @property
    def unit(self) -> str: ...

    @property
    def higher_is_better(self) -> bool: ...

    def score(self, subsets: list[Subset]) -> Floats:
        """Scores (n,); NaN where a subset could not be scored."""


class Embed(Protocol):
    """Turns measurements into the embedding of an objective."""

    def __call__(
        self, measurements: "Measurements", cells: "Cells", identity: Ints, *, target: str, scale: "Scale"
    ) -> CellEmbedding: ...


@dataclass(frozen=True, kw_only=True)
class Kind:
    """One objective over measurements: the unit of its score, and how its embedding is made."""

    unit: str
    embed: Embed


OBJECTIVES: Mapping[str, Kind] = {
    "mean_distance": Kind(unit="D_total", embed=embed_distance),
    "mmd_linear": Kind(unit="D_total", embed=embed_linear),
    "mmd_rbf": Kind(unit="squared MMD", embed=embed_rbf),
}


@dataclass(frozen=True, kw_only=True, eq=False)
class CellObjective:
    """An objective over the expected shares of the manifests of a space. Lower is better.

    ``report`` is the validation of the surrogate that filled unmeasured cells; None when every cell was measured.
    """

    name: str
    unit: str
    space: Space
    embedding: CellEmbedding
    report: SurrogateReport | None
    higher_is_better: bool = False

    def score(self, subsets: list[Subset]) -> Floats:
        """Scores (n,) of subsets of the space."""
        if not subsets:
            return np.empty(0)
        return self.score_masks(np.stack([self.space.mask(subset) for subset in subsets]))

    def score_masks(self, masks: Bools) -> Floats:
        """Scores (n,) of masks (n, bits); NaN where the budget does not fit."""
        scores = [np.empty(0)]
        for piece in self.space.pieces(len(masks)):
            cells = self.space.cell_masks(masks[piece])
            shares = self.space.sampler.expected_shares(cells)
            scores.append(np.where(self.space.sampler.feasible(cells), self.embedding.score(shares), np.nan))
        return np.concatenate(scores)


def make_objective(
    name: str, space: Space, measurements: "Measurements", identity: Ints, *, target: str, scale: "Scale"
) -> CellObjective:
    """The objective called ``name``; cells that nobody measured are filled in by a surrogate.

    ``identity`` (rows,) is the catalog's. Raises ConfigError for an unknown name, InputError for measurements that do
    not belong to the space's catalog or target.
    """
    if name not in OBJECTIVES:
        raise ConfigError(f"no objective {name!r}; known: {', '.join(OBJECTIVES)}")
    kind = OBJECTIVES[name]
    embedding = kind.embed(measurements, space.cells, identity, target=target, scale=scale)
    report = None
    if embedding.plug_in:
        embedding, report = fill_unmeasured(embedding, space.cells, seed=space.seed)
    return CellObjective(name=name, unit=kind.unit, space=space, embedding=embedding, report=report)


def fill_unmeasured(embedding: CellEmbedding, cells: "Cells", *, seed: int) -> tuple[CellEmbedding, SurrogateReport]:
    """Fill unmeasured cells from a surrogate of the leading coordinates and the linear part; its validation."""
    samples = embedding.samples
    leading = np.arange(min(NUM_PREDICTED, len(samples.names) - 1))
    surrogate = fit_surrogate(cells, samples.columns([*leading.tolist(), len(samples.names) - 1]), seed=seed)
    return embedding.fill(surrogate.predict_cells(cells.codes)), surrogate.report
