"""Importance resampling on attribute histograms: images drawn as often as the target shows their attributes."""

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from finegpr.arrays import Floats, Ints
from finegpr.errors import ConfigError, InputError
from search.selectors.pool import Pool, choose_people, require
from search.space import Budget

if TYPE_CHECKING:
    from finegpr.attributes import Attribute

SUM_TOLERANCE = 1e-3


def importance(pool: Pool, budget: Budget, *, seed: int) -> Ints:
    """Row numbers (B,), ascending: importance resampling as DSIR does for text (Xie et al. 2023).

    An image weighs the product over attributes of the target's share of its value over the pool's, as if attributes
    were independent (there: hashed n-grams), and B images are drawn without replacement by the B largest of log weight
    + Gumbel noise. Ours: the shares are not counted but given, without smoothing, so an image with a value of share 0
    is never drawn; and the budget of people: K of them by total weight in the same way, each with one image or more and
    with the weights of its images divided by their total, lest it count twice. Raises ConfigError without
    ``target_shares``, InputError for shares of other values, of another sum, or that leave too few images.
    """
    log_weights = _log_weights(pool)
    rows = pool.drawable[np.isfinite(log_weights)]
    log_weights = log_weights[np.isfinite(log_weights)]
    labels, person = np.unique(pool.measured.identity[rows], return_inverse=True)
    available = np.bincount(person, minlength=len(labels))
    require(available, budget, what="the images with values that the target has", advice="choose fewer attributes")
    random = np.random.default_rng(seed)
    keys = log_weights + random.gumbel(size=len(rows))
    if budget.identities is not None:
        total = np.full(len(labels), -np.inf)
        np.logaddexp.at(total, person, log_weights)
        people = choose_people(
            available, total + random.gumbel(size=len(labels)), num=budget.identities, images=budget.images
        )
        keys = np.where(np.isin(person, people), keys - total[person], -np.inf)
        best = np.lexsort((-keys, person))
        first = best[np.unique(person[best], return_index=True)[1]]
        keys[first[people]] = np.inf
    return np.sort(rows[np.argsort(-keys, kind="stable")[: budget.images]])


def _log_weights(pool: Pool) -> Floats:
    """Of every drawable row, (n,); -inf where the target's share is 0."""
    if pool.target_shares is None:
        raise ConfigError("importance needs the target's shares of attribute values; estimate them first, or use snp")
    cells = pool.measured.cells
    codes = cells.codes[cells.of_row[pool.drawable]]
    names = [attribute.name for attribute in cells.attributes]
    total = np.zeros(len(codes))
    for name, shares in pool.target_shares.items():
        if name not in names:
            raise InputError(f"shares of {name!r}, which is not searched over; searched: {', '.join(names)}")
        column = names.index(name)
        target = _shares(cells.attributes[column], shares)
        source = np.bincount(codes[:, column], minlength=len(target)) / max(len(codes), 1)
        with np.errstate(divide="ignore", invalid="ignore"):
            ratios = np.log(target / source)
        total += ratios[codes[:, column]]
    return total


def _shares(attribute: "Attribute", shares: Mapping[str, float]) -> Floats:
    """Shares (V,) in the order of the attribute's values; a value that is not named has none."""
    target = np.zeros(len(attribute.values))
    for value, share in shares.items():
        target[attribute.index(value)] = share
    if not (np.isfinite(target) & (target >= 0)).all() or abs(target.sum() - 1) > SUM_TOLERANCE:
        raise InputError(
            f"the target's shares of {attribute.name} should be 0 or more and sum to 1, got {dict(shares)}; "
            "estimate them again"
        )
    return target
