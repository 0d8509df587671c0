"""What the analysis of a search and its choice found: frozen records, which a report shows.

Shares and metrics are fractions in [0, 1]; a number that is not known is None, never NaN.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from search.analysis.compare import Agreement


@dataclass(frozen=True, kw_only=True)
class AttributeShares:
    """One attribute of a choice; every tuple is aligned with ``values``.

    ``source``, ``manifest``: shares of the images in the source and in the images drawn for training. ``target``:
    the target's shares, true ones or an estimate as ``target_kind`` says, or None; ``target_interval``: low and high of
    each estimated share, if known.
    """

    name: str
    values: tuple[str, ...]
    level: Literal["image", "identity"]
    circular: bool
    chosen: tuple[bool, ...]
    source: tuple[float, ...]
    manifest: tuple[float, ...]
    target: tuple[float, ...] | None
    target_kind: Literal["true", "estimate", "unknown"]
    target_interval: tuple[tuple[float, float], ...] | None = None

    @property
    def whole(self) -> bool:
        """Whether every value was kept."""
        return all(self.chosen)


@dataclass(frozen=True, kw_only=True)
class Choice:
    """The outcome of one search. ``history``, ``random_history``: the score of every trial in order, None without one.

    ``num_evaluations``: distinct subsets that were scored; ``num_failed``: evaluations without a finite score. ``arm``
    names the arm of the comparison that trained on this choice. ``random_score`` is the median score of random subsets;
    ``num_images`` are the source's images inside.
    """

    objective: str
    unit: str
    higher_is_better: bool
    optimizer: str
    arm: str | None
    score: float
    random_score: float | None
    num_images: int
    num_evaluations: int
    num_failed: int
    attributes: tuple[AttributeShares, ...]
    agreements: tuple[Agreement, ...]
    history: tuple[float | None, ...]
    random_history: tuple[float | None, ...]

    @property
    def beats_random(self) -> bool | None:
        """Whether the score is better than the median random subset's; None when that was not measured."""
        if self.random_score is None:
            return None
        return self.score > self.random_score if self.higher_is_better else self.score < self.random_score


@dataclass(frozen=True, kw_only=True)
class StyleShare:
    """Which part of D_total is style, in [0, 1], on one target at the scale (paper, standardised) that was used."""

    target: str
    scale: str
    share: float


@dataclass(frozen=True, kw_only=True)
class Effect:
    """What one value does to ``quantity``, with its 95 % interval over people, if known.

    ``effect`` is None where nothing would be left to score. ``allowed`` is False where the budget or the bounds forbid
    the change: then all images of what is left are scored as if they were enough.
    """

    quantity: str
    attribute: str
    value: str
    effect: float | None
    low: float | None
    high: float | None
    allowed: bool = True

    @property
    def holds_zero(self) -> bool | None:
        """Whether the interval holds 0; None without an interval."""
        return None if self.low is None or self.high is None else self.low <= 0 <= self.high


@dataclass(frozen=True, kw_only=True)
class Importance:
    """Mean absolute SHAP value of one attribute for ``quantity``, over the source's images.

    In the quantity's unit, or, where ``relative``, of its logarithm: 0.1 is a change by about a tenth.
    """

    quantity: str
    attribute: str
    importance: float
    relative: bool


@dataclass(frozen=True, kw_only=True)
class Spread:
    """Distances to the target of the ``num_images`` measured images with one value: percentiles 5, 25, 50, 75, 95."""

    attribute: str
    level: Literal["image", "identity"]
    value: str
    num_images: int
    percentiles: tuple[float, float, float, float, float]


@dataclass(frozen=True, kw_only=True)
class Contour:
    """Mean ``quantity`` (rows, columns) of the images with one value of each of two attributes; None without any."""

    quantity: str
    row_attribute: str
    column_attribute: str
    rows: tuple[str, ...]
    columns: tuple[str, ...]
    means: tuple[tuple[float | None, ...], ...]


@dataclass(frozen=True, kw_only=True)
class Check:
    """One health check: its verdict, why in one sentence, and the figure that it rests on."""

    name: str
    verdict: Literal["ok", "warn", "fail"]
    sentence: str
    figure: str


@dataclass(frozen=True, kw_only=True)
class IdentityShift:
    """How an identity attribute's shares of images moved from the source to the chosen manifest.

    ``total_variation`` is half the sum of absolute differences. When as many people are drawn at random, with 95 %
    probability each share of all attributes lies in ``low`` to ``high``, and with 95 % the total variation of every
    attribute is at most its ``by_chance``: the one rule of chance, for however many attributes there are.
    """

    attribute: str
    values: tuple[str, ...]
    source: tuple[float, ...]
    manifest: tuple[float, ...]
    low: tuple[float, ...]
    high: tuple[float, ...]
    total_variation: float
    by_chance: float

    @property
    def vanished(self) -> tuple[str, ...]:
        """Values that the source has and the manifest has not."""
        shares = zip(self.values, self.source, self.manifest, strict=True)
        return tuple(value for value, source, manifest in shares if source > 0 and manifest == 0)

    @property
    def removed(self) -> tuple[str, ...]:
        """Vanished values that drawing people at random would nearly always keep."""
        return tuple(value for value in self.vanished if self.low[self.values.index(value)] > 0)

    @property
    def beyond_chance(self) -> bool:
        """Whether the shift is larger than drawing people at random makes any of the attributes' in 95 % of draws."""
        return self.total_variation > self.by_chance


@dataclass(frozen=True, kw_only=True)
class Round:
    """One round of adaptive measuring: the share of images measured by then, and what was decided on them.

    ``expected_regret`` and ``certainty`` are as in ``search.adaptive.sampler.Decision``; ``overlap`` is the Jaccard
    index of the round's subset with the last round's, mean over attributes.
    """

    share: float
    expected_regret: float
    certainty: float
    overlap: float


@dataclass(frozen=True, kw_only=True)
class RankedSubset:
    """One of the best subsets of a search: its score, and its values by attribute."""

    score: float
    values: Mapping[str, tuple[str, ...]]


@dataclass(frozen=True, kw_only=True)
class Slice:
    """Scores of a search's trials with one value in, and out: percentiles 5, 25, 50, 75, 95; None without trials."""

    attribute: str
    value: str
    inside: tuple[float, float, float, float, float] | None
    outside: tuple[float, float, float, float, float] | None


@dataclass(frozen=True, kw_only=True)
class Compromise:
    """A subset of the Pareto front: none has both a better score and fewer images. ``words`` say what it holds."""

    score: float
    num_images: int
    words: str
