"""Fairness: whether a choice shifts who is trained on. A choice of images can remove groups of people unnoticed."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from pydantic import Field

from finegpr.arrays import Bools, Floats, Ints
from finegpr.attributes import Attribute
from finegpr.config import Config
from finegpr.errors import RefusedError
from search.analysis.compare import total_variation
from search.analysis.records import IdentityShift

if TYPE_CHECKING:
    from finegpr.catalog import Catalog

NUM_DRAWS = 1_000
BY_CHANCE = 0.05  # the probability that any of all attributes is found shifted when people are drawn at random
ROWS_AT_ONCE = 100


class FairnessConfig(Config):
    """A guard: in a manifest, every value of the people's attributes keeps at least ``least_share`` of its share of the
    source's images. At 0.05, a value that 20 % of the source's images show must be shown by 1 % of the manifest's."""

    least_share: float = Field(gt=0, le=1)


@dataclass(frozen=True, kw_only=True)
class Violation:
    """A value whose share of the manifest's images is below what the guard asks for."""

    attribute: str
    value: str
    source: float
    manifest: float
    least: float

    def __str__(self) -> str:
        return (
            f"{self.attribute} {self.value} has {self.manifest:.2%} of the images, at least {self.least:.2%} expected "
            f"({self.source:.2%} of the source)"
        )


def too_few(source: Floats, manifest: Floats, *, least_share: float) -> Bools:
    """Which values fall below ``least_share`` times their share of the source, (V,) and (..., V) -> (..., V).

    Both hold shares of images, summing to 1. A value that the source does not have cannot fall below.
    """
    return np.asarray(manifest < least_share * source - 1e-12)


def violations(shifts: Sequence[IdentityShift], *, least_share: float) -> tuple[Violation, ...]:
    """All values that the guard finds too rare in a manifest, the rarest of its source share first."""
    found = []
    for shift in shifts:
        below = too_few(np.array(shift.source), np.array(shift.manifest), least_share=least_share)
        for place in np.flatnonzero(below):
            source = shift.source[place]
            violation = Violation(
                attribute=shift.attribute,
                value=shift.values[place],
                source=source,
                manifest=shift.manifest[place],
                least=least_share * source,
            )
            found.append(violation)
    return tuple(sorted(found, key=lambda each: each.manifest / each.source))


def identity_shifts(
    source: "Catalog", manifest: "Catalog", *, seed: int, draws: int = NUM_DRAWS
) -> tuple[IdentityShift, ...]:
    """The shift of every identity attribute with two values or more, beside that of drawing people at random.

    At random, as many of the source's people as the manifest has are drawn without replacement, and each gets one of
    the manifest's numbers of images per person. Images without the attribute count for nothing; junk and distractors
    are left out. What chance gives is meant for all attributes together (Bonferroni): when people are drawn at random,
    with a probability of 95 % no attribute lies beyond it, and no value's share.
    """
    people, of_source = _people(source)
    _, of_manifest = _people(manifest)
    num_images = np.bincount(np.unique(of_manifest, return_inverse=True)[1])
    random = np.random.default_rng(seed)
    drawn = np.concatenate(
        [
            random.permuted(np.tile(np.arange(len(people)), (min(ROWS_AT_ONCE, draws - start), 1)), axis=1)[
                :, : len(num_images)
            ]
            for start in range(0, draws, ROWS_AT_ONCE)
        ]
    )
    weights = random.permuted(np.tile(num_images, (draws, 1)), axis=1)
    shifts = []
    shares_of = {each.name: _shares(_codes(source, each), each) for each in source.identity_attributes}
    # Of a shares' sum that is 1, the last value follows from the others.
    free = {name: np.count_nonzero(shares) - 1 for name, shares in shares_of.items() if np.count_nonzero(shares) > 1}
    tail = 100 * BY_CHANCE / max(len(free), 1)
    side = 100 * BY_CHANCE / 2 / max(sum(free.values()), 1)
    for attribute in source.identity_attributes:
        codes = _codes(source, attribute)
        shares = shares_of[attribute.name]
        present = np.flatnonzero(shares)
        if len(present) < 2:
            continue
        of_person = np.full(len(people), -1, dtype=np.int64)
        of_person[np.searchsorted(people, of_source[::-1])] = codes[::-1]
        by_chance = np.stack([((of_person[drawn] == code) * weights).sum(axis=1) for code in present], axis=1)
        by_chance = by_chance / np.maximum(by_chance.sum(axis=1, keepdims=True), 1)
        chosen = _shares(_codes(manifest, attribute), attribute)
        low, high = np.percentile(by_chance, (side, 100 - side), axis=0)
        distances = np.abs(by_chance - shares[present]).sum(axis=1) / 2
        shifts.append(
            IdentityShift(
                attribute=attribute.name,
                values=tuple(attribute.values[place] for place in present),
                source=tuple(shares[present].tolist()),
                manifest=tuple(chosen[present].tolist()),
                low=tuple(low.tolist()),
                high=tuple(high.tolist()),
                total_variation=total_variation(shares, chosen),
                by_chance=float(np.percentile(distances, 100 - tail)),
            )
        )
    return tuple(shifts)


def _people(catalog: "Catalog") -> tuple[Ints, Ints]:
    """The persons, ascending, and the person of every image that may be drawn."""
    identity = catalog.identities
    of_image = identity[identity > 0]
    return np.unique(of_image), of_image


def _codes(catalog: "Catalog", attribute: Attribute) -> Ints:
    """Value of every image that may be drawn, -1 where unknown."""
    codes = catalog.frame[attribute.name].cat.codes.to_numpy(dtype=np.int64)
    return np.asarray(codes[catalog.frame["identity"].to_numpy() > 0])


def _shares(codes: Ints, attribute: Attribute) -> Floats:
    """Share of every value among the images with a known one; zeros when there are none."""
    counts = np.bincount(codes[codes >= 0], minlength=len(attribute.values))
    return np.asarray(counts / max(int(counts.sum()), 1), dtype=np.float64)


def require_fair(config: FairnessConfig, source: "Catalog", manifest: "Catalog", *, what: str) -> None:
    """Raises RefusedError for a manifest in which a value of the people's attributes has become too rare."""
    found = violations(identity_shifts(source, manifest, seed=0), least_share=config.least_share)
    if found:
        more = f", and {len(found) - 1} more" if len(found) > 1 else ""
        raise RefusedError(f"{what}: {found[0]}{more}; choose more identities, or lower fairness.least_share")
