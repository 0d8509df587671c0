"""aligned_shares: the target's attribute shares, estimated with its photos brought to the source's look.

Classifiers take a camera that is bluer, darker or softer than the source for another light or weather, and the more so
the further it is off. Here the gap is estimated with the shares, in turns (``cell_mixture``), so that photos are
compared with the source as this camera would have seen it. Where there is no gap, little moves. A gap that looks just
like another value of an attribute cannot be told from it.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from finegpr.arrays import Floats, Ints
from finegpr.attributes import Attribute
from search.measured import Measured
from search.objectives.attribute_classifier import MAX_IMAGES, SEED, standardised
from search.objectives.attribute_shares import AttributeEstimate, AttributeSharesForm, CameraGap
from search.objectives.cell_mixture import AdditiveCells, grouped

RESAMPLES, MOST_RESAMPLED = 60, 300  # of the photos, with at most so many in each
INTERVAL = (2.5, 97.5)  # percentiles


def make_aligned_shares(
    measured: Measured,
    *,
    seed: int,  # noqa: ARG001 (every objective's own; the same measurements give the same estimate)
) -> tuple[AttributeSharesForm, None]:
    """aligned_shares: plug-in, as attribute_shares. Unmeasured cells need no surrogate.

    Raises InputError for measurements that do not belong to the cells or the target.
    """
    cells = measured.cells
    keep, cell, _ = measured.images
    if len(keep) > MAX_IMAGES:
        drawn = np.sort(np.random.default_rng(SEED).permutation(len(keep))[:MAX_IMAGES])
        keep, cell = keep[drawn], cell[drawn]
    sketches, photos = standardised(measured, keep)
    seen, labels = [], []
    for column in range(len(cells.attributes)):
        codes, places = np.unique(cells.codes[cell, column], return_inverse=True)
        seen.append(codes)
        labels.append(places.reshape(-1))
    found = _estimate(sketches, labels, photos)
    estimate = tuple(
        AttributeEstimate(
            attribute=attribute.name,
            values=attribute.values,
            shares=_spread_out(each.aligned, codes, attribute),
            low=_spread_out(np.minimum(each.low, each.aligned), codes, attribute),
            high=_spread_out(np.maximum(each.high, each.aligned), codes, attribute),
        )
        for attribute, codes, each in zip(cells.attributes, seen, found, strict=True)
    )
    moved = [float(np.abs(each.aligned - each.unaligned).sum() / 2) for each in found]
    mean, deviation = AdditiveCells.fit(sketches, labels).moments([each.aligned for each in found])
    varies = deviation > 0
    gap = CameraGap(
        shift=float(np.linalg.norm(photos.mean(axis=0) - mean) / np.sqrt(max(sketches.var(axis=0).sum(), 1e-300))),
        spread=float(np.median(photos.std(axis=0)[varies] / deviation[varies])) if varies.any() else 1.0,
        moved=max(moved),
        attribute=cells.attributes[int(np.argmax(moved))].name,
    )
    return AttributeSharesForm.of(cells, estimate, gap), None


@dataclass(frozen=True, kw_only=True, eq=False)
class _Shares:
    """Of the values (V,) of one attribute: without and with a camera of the target's own, and the latter's interval."""

    unaligned: Floats
    aligned: Floats
    low: Floats
    high: Floats


def _estimate(sketches: Floats, labels: Sequence[Ints], photos: Floats) -> list[_Shares]:
    """Of every attribute, the target's ``photos`` (m, S) being a mixture of the source's ``sketches`` (n, S)."""
    num = len(photos)
    random = np.random.default_rng(SEED)
    size = min(num, MOST_RESAMPLED)
    drawn = [np.unique(random.integers(num, size=size), return_counts=True) for _ in range(RESAMPLES)]
    found: dict[int, _Shares] = {}
    for places in grouped([int(each.max()) + 1 for each in labels]):
        mixture = AdditiveCells.fit(sketches, [labels[place] for place in places]).mixture()
        unaligned, aligned = mixture.shares(photos, np.ones(num))
        resampled = [mixture.shares(photos[rows], times.astype(float))[1] for rows, times in drawn]
        for at, place in enumerate(places):
            ends = np.percentile([each[at] for each in resampled], INTERVAL, axis=0)
            # fewer photos than there are vary more, by the root
            low, high = aligned[at] + np.sqrt(size / num) * (ends - aligned[at])
            found[place] = _Shares(unaligned=unaligned[at], aligned=aligned[at], low=low, high=high)
    return [found[place] for place in range(len(labels))]


def _spread_out(shares: Floats, codes: Ints, attribute: Attribute) -> tuple[float, ...]:
    """Shares of all the attribute's values from those of the values that the source has."""
    whole = np.zeros(len(attribute.values))
    whole[codes] = shares
    return tuple(whole.tolist())
