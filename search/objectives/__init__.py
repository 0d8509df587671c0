"""Objectives: a subset's score, from its expected manifest shares. A new one is a file with a form, and a line here."""

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

from finegpr.arrays import Bools, Floats
from finegpr.errors import ConfigError
from finegpr.subset import Subset
from search.measured import Measured
from search.objectives.aligned_shares import make_aligned_shares
from search.objectives.attribute_shares import (
    AttributeEstimate,
    AttributeSharesForm,
    CameraGap,
    make_attribute_shares,
)
from search.objectives.base import Form, Kind, Objective
from search.objectives.embedding import CellEmbedding
from search.objectives.frechet import make_frechet
from search.objectives.identity_effects import IdentityReport, add_group_effects
from search.objectives.kernels import unit_gram
from search.objectives.mean_distance import embed_distance, no_kernel
from search.objectives.mmd_linear import embed_linear, linear_kernel
from search.objectives.mmd_posterior import embed_posterior
from search.objectives.mmd_rbf import embed_rbf, rbf_kernel
from search.objectives.quadratic import quadratic
from search.objectives.surrogate import SurrogateReport
from search.space import Space

OBJECTIVES: Mapping[str, Kind] = {
    "mean_distance": quadratic("D_total", embed_distance, no_kernel),
    "mmd_linear": quadratic("D_total", embed_linear, linear_kernel),
    "mmd_rbf": quadratic("squared MMD", embed_rbf, rbf_kernel, weighed=False),
    "mmd_posterior": quadratic("squared distance of posteriors", embed_posterior),
    "frechet": Kind(unit="D_total", make=make_frechet),
    "attribute_shares": Kind(unit="total variation", make=make_attribute_shares),
    "aligned_shares": Kind(unit="total variation", make=make_aligned_shares),
}
QUADRATIC = tuple(name for name, kind in OBJECTIVES.items() if kind.quadratic)
SEES_PEOPLE = tuple(name for name, kind in OBJECTIVES.items() if kind.kernel is not None)


@dataclass(frozen=True, kw_only=True, eq=False)
class CellObjective:
    """An objective over the expected shares of the manifests of a space. Lower is better.

    ``report`` is the validation of the surrogate that filled unmeasured cells; None when every cell was measured.
    ``identity_report`` is that of the effects of identity-level attributes; None when none is searched.
    """

    name: str
    unit: str
    space: Space
    form: Form
    report: SurrogateReport | None
    identity_report: IdentityReport | None = None
    higher_is_better: bool = False

    @property
    def embedding(self) -> CellEmbedding:
        """The quadratic form. Raises ConfigError for an objective of another form."""
        if not isinstance(self.form, CellEmbedding):
            raise ConfigError(
                f"{self.name} is no quadratic form of the shares, which this needs; expected {', '.join(QUADRATIC)}"
            )
        return self.form

    @property
    def estimate(self) -> tuple[AttributeEstimate, ...]:
        """What the objective says of the target's attributes, one each; empty where it says nothing."""
        return self.form.estimate if isinstance(self.form, AttributeSharesForm) else ()

    @property
    def gap(self) -> CameraGap | None:
        """How the target's photos differ from the source's, if the objective has looked."""
        return self.form.gap if isinstance(self.form, AttributeSharesForm) else None

    def score(self, subsets: list[Subset]) -> Floats:
        """Scores (n,) of subsets of the space."""
        if not subsets:
            return np.empty(0)
        return self.score_masks(np.stack([self.space.mask(subset) for subset in subsets]))

    def score_masks(self, masks: Bools) -> Floats:
        """Scores (n,) of masks (n, bits); NaN where the budget does not fit."""
        scores = [np.empty(0)]
        for piece in self.space.pieces(len(masks)):
            shares, fits = self.space.expect(masks[piece])
            scores.append(np.where(fits, self.form.score(shares), np.nan))
        return np.concatenate(scores)


def make_objective(name: str, space: Space, measured: Measured) -> CellObjective:
    """The objective called ``name`` over the cells of ``space``, from what was measured of the same catalog; cells that
    nobody measured are filled in by a surrogate.

    Raises ConfigError for an unknown name, InputError for measurements of another catalog, or not of the target.
    """
    if name not in OBJECTIVES:
        raise ConfigError(f"no objective {name!r}; known: {', '.join(OBJECTIVES)}")
    kind, measured = OBJECTIVES[name], replace(measured, cells=space.cells)
    if space.groups is not None and kind.kernel is None:
        names = ", ".join(space.config.identity_attributes)
        raise ConfigError(
            f"objective {name} does not see who is in the images, but identity_attributes has {names}; "
            f"leave them out, or search by one of {', '.join(SEES_PEOPLE)}"
        )
    form, report = kind.make(measured, seed=space.seed)
    identity_report = None
    if space.groups is not None:
        assert isinstance(form, CellEmbedding)
        assert kind.kernel is not None
        gram = unit_gram(kind.kernel, measured)
        form, identity_report = add_group_effects(form, space.groups, measured.identity, gram, seed=space.seed)
    return CellObjective(
        name=name,
        unit=kind.unit,
        space=space,
        form=form,
        report=report,
        identity_report=identity_report,
        higher_is_better=kind.higher_is_better,
    )


__all__ = ["OBJECTIVES", "QUADRATIC", "SEES_PEOPLE", "CellObjective", "Kind", "Objective", "make_objective"]
