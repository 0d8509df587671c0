"""The target's attribute shares, estimated by classifiers trained on the source, and how far from them a subset is.

The mean posterior of a classifier over the target leans towards the source's shares and is blurred by its mistakes.
Both are corrected for label shift, P(sketch | value) being taken for the same in source and target, by expectation
maximisation (Saerens et al. 2002).
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from finegpr.arrays import Floats
from search.measured import Measured
from search.objectives.attribute_classifier import Reading, read_attributes, softmax

if TYPE_CHECKING:
    from finegpr.catalog import Cells

EM_STEPS = 200


@dataclass(frozen=True, kw_only=True)
class AttributeEstimate:
    """The estimated shares of one attribute's ``values`` in the target: their sum is 1, 0 where the source has none.

    ``low`` and ``high``: 95 % interval of each share over which photos there are, None where it was not estimated.
    """

    attribute: str
    values: tuple[str, ...]
    shares: tuple[float, ...]
    low: tuple[float, ...] | None = None
    high: tuple[float, ...] | None = None


@dataclass(frozen=True, kw_only=True)
class CameraGap:
    """How the target's photos differ from the mixture of the source that is nearest to them.

    ``shift``: the length of that between the means, in units of the source's spread, the root of its total variance.
    ``spread``: median ratio of their deviations to the mixture's. ``moved``: by how much (total variation) the shares
    of ``attribute``, the most moved of all, differ from those of an estimate that takes no gap into account.
    """

    shift: float
    spread: float
    moved: float
    attribute: str


@dataclass(frozen=True, kw_only=True, eq=False)
class AttributeSharesForm:
    """Distance of a subset's attribute shares from ``estimate``. ``indicators`` (C, V) and ``goal`` (V,) run over the
    values of all attributes. ``gap``: what was taken out of the target's photos for the estimate, if anything."""

    indicators: Floats
    goal: Floats
    estimate: tuple[AttributeEstimate, ...]
    gap: CameraGap | None = None

    @classmethod
    def of(
        cls, cells: "Cells", estimate: tuple[AttributeEstimate, ...], gap: CameraGap | None = None
    ) -> "AttributeSharesForm":
        """The form over ``cells``, whose attributes are estimated one by one."""
        indicators = [np.eye(len(attribute.values))[cells.codes[:, a]] for a, attribute in enumerate(cells.attributes)]
        return cls(
            indicators=np.concatenate(indicators, axis=1),
            goal=np.concatenate([each.shares for each in estimate]),
            estimate=estimate,
            gap=gap,
        )

    def score(self, shares: Floats) -> Floats:
        """Total variation, summed over attributes, at cell shares (n, C), rows summing to 1 -> (n,)."""
        return np.asarray(np.abs(shares @ self.indicators - self.goal).sum(axis=1) / 2)


def make_attribute_shares(
    measured: Measured,
    *,
    seed: int,  # noqa: ARG001 (every objective's own; the classifiers have theirs)
) -> tuple[AttributeSharesForm, None]:
    """attribute_shares: plug-in, by the estimate's errors. Unmeasured cells need no surrogate.

    Raises as ``read_attributes``.
    """
    estimate = tuple(estimate_shares(reading) for reading in read_attributes(measured).attributes)
    return AttributeSharesForm.of(measured.cells, estimate), None


def estimate_shares(reading: Reading) -> AttributeEstimate:
    """The estimate of one attribute, mean over the classifiers."""
    prior = np.bincount(reading.labels, minlength=len(reading.seen)) / len(reading.labels)
    shares = np.zeros(len(reading.values))
    shares[reading.seen] = np.mean([em_shares(softmax(logits), prior) for logits in reading.of_target], axis=0)
    return AttributeEstimate(attribute=reading.name, values=reading.values, shares=tuple(shares.tolist()))


def em_shares(posteriors: Floats, prior: Floats) -> Floats:
    """Most likely target shares (V,) given posteriors (n, V) of a classifier whose training shares were ``prior`` (V,).

    Saerens et al. (2002), eq. 2.8 and 2.9; started at the prior.
    """
    shares = prior.copy()
    for _ in range(EM_STEPS):
        weighted = posteriors * (shares / np.maximum(prior, 1e-300))
        shares = (weighted / np.maximum(weighted.sum(axis=1, keepdims=True), 1e-300)).mean(axis=0)
    return shares
