"""What a report holds: frozen records, JSON there and back, so that a report can be rebuilt from the run folder.

Shares and metrics are fractions in [0, 1]; times are seconds; a number that is not known is None, never NaN.
"""

import base64
import io
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from pydantic import TypeAdapter, ValidationError

from finegpr.errors import StateError
from search.analysis.compare import ArmSummary, RankAgreement
from search.analysis.records import (
    Check,
    Choice,
    Compromise,
    Contour,
    Effect,
    IdentityShift,
    Importance,
    RankedSubset,
    Round,
    Slice,
    Spread,
    StyleShare,
)
from search.objectives.surrogate import SplitScore

THUMBNAIL_HEIGHT = 128
BLURRED_HEIGHT = 12
BOX, BICUBIC = Image.Resampling.BOX, Image.Resampling.BICUBIC

Photos = Literal["none", "blurred", "shown"]
"""How photos of people appear in a report."""


@dataclass(frozen=True, kw_only=True)
class Dataset:
    """A source or target: ``rendered`` says that this project drew it, so that it is never taken for real data."""

    title: str
    num_images: int
    num_identities: int
    rendered: bool


@dataclass(frozen=True, kw_only=True)
class Thumbnail:
    """A small JPEG as base64 text, and the words under it."""

    caption: str
    jpeg: str

    @classmethod
    def from_array(cls, image: NDArray[np.uint8], *, caption: str, blurred: bool = False) -> "Thumbnail":
        """Of an (H, W, 3) uint8 image, shrunk to at most THUMBNAIL_HEIGHT rows.

        ``blurred``: averaged to BLURRED_HEIGHT rows before, of which a head has one or two; nothing finer is left.
        """
        picture = Image.fromarray(image)
        picture.thumbnail((2 * THUMBNAIL_HEIGHT, THUMBNAIL_HEIGHT))
        if blurred:
            coarse = picture.resize(
                (max(1, round(picture.width * BLURRED_HEIGHT / picture.height)), BLURRED_HEIGHT), BOX
            )
            picture = coarse.resize(picture.size, BICUBIC)
        stream = io.BytesIO()
        picture.save(stream, "JPEG", quality=82)
        return cls(caption=caption, jpeg=base64.b64encode(stream.getvalue()).decode("ascii"))


@dataclass(frozen=True, kw_only=True)
class SampleRow:
    """A titled row of example images: the source, the choice, the target; ``kind`` says what of."""

    title: str
    images: tuple[Thumbnail, ...]
    kind: Literal["rendered", "blurred", "shown"] = "shown"


@dataclass(frozen=True, kw_only=True)
class StageCost:
    """What one stage took: ``seconds`` of work, those of what ran at the same time added up, and, where it is known,
    ``wall_seconds`` by the clock. ``status``: done now, resumed half-way, or skipped because it was finished before.
    """

    stage: str
    seconds: float
    num_images: int | None
    status: Literal["done", "resumed", "skipped"]
    wall_seconds: float | None = None

    @property
    def by_the_clock(self) -> float:
        """Seconds by the clock, or of work where nothing else is known."""
        return self.seconds if self.wall_seconds is None else self.wall_seconds


@dataclass(frozen=True, kw_only=True)
class ArmFacts:
    """What an arm trains on, and the seconds of one training of it, None where none was done.

    ``words`` say what the arm is where its name does not.
    """

    arm: str
    num_images: int
    num_identities: int
    seconds: float | None
    words: str = ""

    @property
    def title(self) -> str:
        """The arm's name, with its words."""
        return f"{self.arm} ({self.words})" if self.words else self.arm


@dataclass(frozen=True, kw_only=True)
class Weights:
    """The weights of one network; ``trained`` is False for random ones."""

    name: str
    trained: bool


@dataclass(frozen=True, kw_only=True)
class Quarantined:
    """An image that was left out, and why."""

    path: str
    reason: str


@dataclass(frozen=True, kw_only=True)
class Provenance:
    """Everything needed to repeat the run. ``hashes``: artifact -> SHA-256; ``created``: ISO 8601."""

    command: str
    created: str
    machine: str
    versions: Mapping[str, str]
    seeds: Mapping[str, int]
    hashes: Mapping[str, str]
    weights: tuple[Weights, ...]
    quarantine: tuple[Quarantined, ...]


@dataclass(frozen=True, kw_only=True)
class ReportData:
    """Everything a report says. ``main`` names the objective of the choice that the report is about.

    ``budget`` is the number of images an arm draws; ``arms`` says what each trains on, ``trained_for`` for how long.
    ``notes`` are further warnings, one sentence each. What a run did not look into is empty or None. ``best_subsets``,
    ``front`` and ``slices`` are of the main choice's search; ``rounds_ended`` says why adaptive measuring stopped;
    ``scored`` which queries the results are of, unless all. ``chosen_by`` says why ``main`` is the choice. ``files``
    are the paths of what was made of it, and ``next_command`` trains on it.
    """

    source: Dataset
    target: Dataset
    budget: int
    baseline: str
    choices: tuple[Choice, ...]
    main: str
    results: tuple[ArmSummary, ...]
    rank_agreements: tuple[RankAgreement, ...]
    samples: tuple[SampleRow, ...]
    surrogate: tuple[SplitScore, ...]
    style_shares: tuple[StyleShare, ...]
    effects: tuple[Effect, ...]
    stages: tuple[StageCost, ...]
    provenance: Provenance
    notes: tuple[str, ...] = ()
    importances: tuple[Importance, ...] = ()
    spreads: tuple[Spread, ...] = ()
    contour: Contour | None = None
    checks: tuple[Check, ...] = ()
    shifts: tuple[IdentityShift, ...] = ()
    rounds: tuple[Round, ...] = ()
    rounds_ended: str | None = None
    scored: str | None = None
    best_subsets: tuple[RankedSubset, ...] = ()
    front: tuple[Compromise, ...] = ()
    slices: tuple[Slice, ...] = ()
    arms: tuple[ArmFacts, ...] = ()
    trained_for: str = ""
    chosen_by: str = ""
    files: Mapping[str, str] = field(default_factory=dict)
    next_command: str = ""

    def __post_init__(self) -> None:
        names = [choice.objective for choice in self.choices]
        if self.main not in names or len(set(names)) != len(names):
            raise ValueError(f"main choice {self.main!r} should be one of distinct objectives, got {names}")

    @property
    def main_choice(self) -> Choice:
        """The choice the report is about."""
        return next(choice for choice in self.choices if choice.objective == self.main)

    @property
    def other_choices(self) -> tuple[Choice, ...]:
        """The choices of the other objectives."""
        return tuple(choice for choice in self.choices if choice.objective != self.main)

    @property
    def holds_photos(self) -> bool:
        """Whether any of the example images is of other data than this project's renderings, blurred or not."""
        return any(row.kind != "rendered" and row.images for row in self.samples)

    @property
    def seconds(self) -> float:
        """Of work; what ran at the same time is added up."""
        return sum(stage.seconds for stage in self.stages)

    @property
    def wall_seconds(self) -> float:
        """By the clock, stage after stage."""
        return sum(stage.by_the_clock for stage in self.stages)

    def to_json(self) -> str:
        """JSON, fields in order, that ``from_json`` reads back. Raises ValueError for NaN and infinity."""
        return json.dumps(asdict(self), allow_nan=False)

    @classmethod
    def from_json(cls, text: str) -> "ReportData":
        """Read what ``to_json`` wrote, now or before; a field that is no more is passed over.

        Raises StateError that names the first field that does not fit.
        """
        try:
            return TypeAdapter(ReportData).validate_json(text, strict=True)
        except ValidationError as error:
            first = error.errors(include_url=False)[0]
            where = ".".join(map(str, first["loc"])) or "the whole"
            raise StateError(
                f"report data are damaged or of another version ({where}: {first['msg']}); the `aost run` or "
                "`aost demo` of this folder writes them anew"
            ) from None
