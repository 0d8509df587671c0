"""Objectives: a subset's score, from its expected manifest shares. A new one is a file with a form, and a line here."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, Protocol

import numpy as np

from finegpr.errors import ConfigError
from finegpr.subset import Subset
from search.attribute_shares import AttributeEstimate, AttributeSharesForm, make_attribute_shares
from search.embedding import CellEmbedding, embed_distance, embed_linear, embed_rbf
from search.frechet import make_frechet
from search.identity_effects import IdentityReport, add_group_effects
from search.kernels import ImageKernel, linear_kernel, no_kernel, rbf_kernel, unit_gram
from search.posterior import embed_posterior
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


class Form(Protocol):
    """What an objective makes of the measurements: a function of cell shares."""

    def score(self, shares: Floats) -> Floats:
        """Scores (n,) at shares (n, C), rows summing to 1."""


class Make(Protocol):
    """Makes the form of an objective, and the validation of the surrogate that filled unmeasured cells, if one did."""

    def __call__(
        self,
        measurements: "Measurements",
        cells: "Cells",
        identity: Ints,
        *,
        target: str,
        scale: "Scale",
        seed: int,
    ) -> tuple[Form, SurrogateReport | None]: ...


class Embed(Protocol):
    """Turns measurements into the embedding of a quadratic objective."""

    def __call__(
        self, measurements: "Measurements", cells: "Cells", identity: Ints, *, target: str, scale: "Scale"
    ) -> CellEmbedding: ...


@dataclass(frozen=True, kw_only=True)
class Kind:
    """One objective over measurements.

    ``unit`` is that of its score, ``cost`` what a subset's score takes, in words. ``correction``: ``unbiased`` where
    every cell was measured, or ``plug-in``, an estimate put in for the truth. ``quadratic``: the form is a
    ``CellEmbedding``, which adaptive sampling, intervals and identity-level attributes need. ``kernel``, if it has one,
    gives the effects of people's attributes their length; without one, none of these can be searched.
    """

    unit: str
    cost: str
    correction: Literal["unbiased", "plug-in"]
    make: Make
    quadratic: bool = False
    higher_is_better: bool = False
    kernel: ImageKernel | None = None


def quadratic(unit: str, embed: Embed, kernel: ImageKernel | None = None) -> Kind:
    """The objective whose form is what ``embed`` gives, with unmeasured cells filled in."""

    def make(
        measurements: "Measurements", cells: "Cells", identity: Ints, *, target: str, scale: "Scale", seed: int
    ) -> tuple[Form, SurrogateReport | None]:
        embedding = embed(measurements, cells, identity, target=target, scale=scale)
        return fill_unmeasured(embedding, cells, seed=seed) if embedding.plug_in else (embedding, None)

    return Kind(unit=unit, cost="one matrix product", correction="unbiased", make=make, quadratic=True, kernel=kernel)


OBJECTIVES: Mapping[str, Kind] = {
    "mean_distance": quadratic("D_total", embed_distance, no_kernel),
    "mmd_linear": quadratic("D_total", embed_linear, linear_kernel),
    "mmd_rbf": quadratic("squared MMD", embed_rbf, rbf_kernel),
    "mmd_posterior": quadratic("squared distance of posteriors", embed_posterior),
    "frechet": Kind(
        unit="D_total",
        cost="two matrix products and an eigenproblem of 24 dimensions",
        correction="plug-in",
        make=make_frechet,
    ),
    "attribute_shares": Kind(
        unit="total variation", cost="one matrix product", correction="plug-in", make=make_attribute_shares
    ),
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
    if space.groups is not None and kind.kernel is None:
        names = ", ".join(space.config.identity_attributes)
        raise ConfigError(
            f"objective {name} does not see who is in the images, but identity_attributes has {names}; "
            f"leave them out, or search by one of {', '.join(SEES_PEOPLE)}"
        )
    form, report = kind.make(measurements, space.cells, identity, target=target, scale=scale, seed=space.seed)
    identity_report = None
    if space.groups is not None:
        assert isinstance(form, CellEmbedding)
        assert kind.kernel is not None
        gram = unit_gram(kind.kernel, measurements, space.cells, identity, target=target, scale=scale)
        form, identity_report = add_group_effects(form, space.groups, identity, gram, seed=space.seed)
    return CellObjective(
        name=name,
        unit=kind.unit,
        space=space,
        form=form,
        report=report,
        identity_report=identity_report,
        higher_is_better=kind.higher_is_better,
    )


def fill_unmeasured(embedding: CellEmbedding, cells: "Cells", *, seed: int) -> tuple[CellEmbedding, SurrogateReport]:
    """Fill unmeasured cells from a surrogate of the leading coordinates and the linear part; its validation."""
    samples = embedding.samples
    leading = np.arange(min(NUM_PREDICTED, len(samples.names) - 1))
    surrogate = fit_surrogate(cells, samples.columns([*leading.tolist(), len(samples.names) - 1]), seed=seed)
    return embedding.fill(surrogate.predict_cells(cells.codes)), surrogate.report
