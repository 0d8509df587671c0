"""The target's attribute shares, estimated by classifiers trained on the source, and how far from them a subset is.

The mean posterior of a classifier over the target leans towards the source's shares and is blurred by its mistakes.
Both are corrected for label shift, P(sketch | value) being taken for the same in source and target: by expectation
maximisation (Saerens et al. 2002), and beside it by the confusion matrix of people left out (BBSE, Lipton et al.
2018), so that one can see where the two do not agree.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from scipy import optimize

from finegpr.arrays import Bools, Floats, Ints
from search.objectives.attribute_classifier import Reading, read_attributes, softmax
from search.objectives.calibration import Calibration, calibrate

if TYPE_CHECKING:
    from finegpr.catalog import Cells
    from finegpr.measuring.results import Measurements
    from finegpr.weighing import Scale

EM_STEPS = 200


@dataclass(frozen=True, kw_only=True)
class AttributeEstimate:
    """The estimated shares of one attribute's ``values`` in the target; every row of shares sums to 1.

    ``shares`` by expectation maximisation, ``by_confusion`` by the confusion matrix, ``uncorrected`` the mean
    posterior, ``source`` those among the measured source images; 0 for values the source lacks. ``confusion[i][j]``:
    mean posterior of the i-th value that occurs in the source over images of the j-th, of people left out.
    """

    attribute: str
    values: tuple[str, ...]
    shares: tuple[float, ...]
    by_confusion: tuple[float, ...]
    uncorrected: tuple[float, ...]
    source: tuple[float, ...]
    confusion: tuple[tuple[float, ...], ...]
    calibration: Calibration


@dataclass(frozen=True, kw_only=True, eq=False)
class AttributeSharesForm:
    """Distance of a subset's attribute shares from ``estimate``. ``indicators`` (C, V) and ``goal`` (V,) run over the
    values of all attributes."""

    indicators: Floats
    goal: Floats
    estimate: tuple[AttributeEstimate, ...]

    def score(self, shares: Floats) -> Floats:
        """Total variation, summed over attributes, at cell shares (n, C), rows summing to 1 -> (n,)."""
        return np.asarray(np.abs(shares @ self.indicators - self.goal).sum(axis=1) / 2)


def make_attribute_shares(
    measurements: "Measurements",
    cells: "Cells",
    identity: Ints,
    *,
    target: str,
    scale: "Scale",
    seed: int,  # noqa: ARG001 (every objective's own; the classifiers have theirs)
) -> tuple[AttributeSharesForm, None]:
    """attribute_shares: plug-in, by the estimate's errors. Unmeasured cells need no surrogate.

    Raises as ``read_attributes``.
    """
    readings = read_attributes(measurements, cells, identity, target=target, scale=scale)
    estimate = tuple(estimate_shares(reading, readings.fold == 0) for reading in readings.attributes)
    indicators = [np.eye(len(attribute.values))[cells.codes[:, a]] for a, attribute in enumerate(cells.attributes)]
    form = AttributeSharesForm(
        indicators=np.concatenate(indicators, axis=1),
        goal=np.concatenate([each.shares for each in estimate]),
        estimate=estimate,
    )
    return form, None


def estimate_shares(reading: Reading, fitted: Bools) -> AttributeEstimate:
    """The estimate of one attribute; the source images ``fitted`` (n,) give the temperature of its calibration."""
    num = len(reading.seen)
    prior = np.bincount(reading.labels, minlength=num) / len(reading.labels)
    of_source = softmax(reading.of_source)
    confusion = np.stack([of_source[reading.labels == place].mean(axis=0) for place in range(num)], axis=1)
    posteriors = [softmax(logits) for logits in reading.of_target]
    mean = np.mean([each.mean(axis=0) for each in posteriors], axis=0)

    def among_all(shares: Floats) -> tuple[float, ...]:
        everything = np.zeros(len(reading.values))
        everything[reading.seen] = shares
        return tuple(everything.tolist())

    return AttributeEstimate(
        attribute=reading.name,
        values=reading.values,
        shares=among_all(np.mean([em_shares(each, prior) for each in posteriors], axis=0)),
        by_confusion=among_all(bbse_shares(mean, confusion)),
        uncorrected=among_all(mean),
        source=among_all(prior),
        confusion=tuple(tuple(row) for row in confusion.tolist()),
        calibration=calibrate(reading.of_source, reading.labels, fitted),
    )


def em_shares(posteriors: Floats, prior: Floats) -> Floats:
    """Most likely target shares (V,) given posteriors (n, V) of a classifier whose training shares were ``prior`` (V,).

    Saerens et al. (2002), eq. 2.8 and 2.9; started at the prior.
    """
    shares = prior.copy()
    for _ in range(EM_STEPS):
        weighted = posteriors * (shares / np.maximum(prior, 1e-300))
        shares = (weighted / np.maximum(weighted.sum(axis=1, keepdims=True), 1e-300)).mean(axis=0)
    return shares


def bbse_shares(mean_posterior: Floats, confusion: Floats) -> Floats:
    """Shares p >= 0 (V,), sum 1, with confusion p nearest to ``mean_posterior`` (V,); confusion[i, j] is P(i | j)."""
    weight = 1e3  # of the sum
    system = np.vstack([confusion, np.full((1, confusion.shape[1]), weight)])
    shares, _ = optimize.nnls(system, np.append(mean_posterior, weight))
    return np.asarray(shares / shares.sum())
