"""People: the 13 identity attributes become shapes, colours and patterns, with seeded traits that no attribute names.

A person is a pure function of (seed, stream, identity), so worlds of any size share their first people and two
streams share nobody.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np

from finegpr.attributes import COLOURS, IDENTITY_ATTRIBUTES, by_name
from finegpr.errors import InputError

Colour = tuple[float, float, float]
Stream = Literal["minigpr", "minimarket"]
STREAMS: tuple[Stream, ...] = ("minigpr", "minimarket")

# sRGB of the nine clothing colour names, 0-255; the jitter below keeps each name readable
_CLOTH: dict[str, Colour] = {
    "black": (30, 30, 33),
    "white": (222, 221, 216),
    "red": (172, 38, 42),
    "purple": (108, 56, 136),
    "gray": (126, 127, 129),
    "yellow": (214, 176, 58),
    "blue": (48, 80, 156),
    "green": (56, 114, 66),
    "brown": (92, 62, 36),
}
_HAIR: tuple[Colour, ...] = ((22, 19, 18), (48, 33, 24), (84, 55, 34), (172, 132, 76), (116, 56, 30))
_GREY_HAIR: Colour = (196, 194, 190)
_SKIN_LIGHT, _SKIN_DARK = (226, 180, 152), (98, 64, 46)
_PATTERNS = ("plain", "stripes", "columns", "check", "block", "zip")
_LOGOS = ("none", "chest", "front", "back")


def linear(colour: Colour | np.ndarray) -> np.ndarray:
    """sRGB in 0-255 to linear light in 0-1, float32."""
    scaled = np.asarray(colour, np.float64) / 255
    return np.where(scaled <= 0.04045, scaled / 12.92, ((scaled + 0.055) / 1.055) ** 2.4).astype(np.float32)


@dataclass(frozen=True, kw_only=True)
class Pattern:
    """A garment's print: ``kind``, its second colour (linear RGB), stripes per metre and phase in 0-1."""

    kind: str
    colour: np.ndarray
    frequency: float
    phase: float


@dataclass(frozen=True, kw_only=True)
class Person:
    """One identity. Lengths in metres, colours linear RGB float32; fractions are relative to an average adult."""

    identity: int
    attributes: Mapping[str, str]
    height: float
    build: float
    shoulders: float
    hips: float
    head: float
    stoop: float
    stride: float
    arm_swing: float
    skin: np.ndarray
    hair: np.ndarray
    upper: np.ndarray
    lower: np.ndarray
    shoes: np.ndarray
    soles: np.ndarray
    bag: np.ndarray
    hat: np.ndarray
    tights: np.ndarray
    upper_pattern: Pattern
    lower_pattern: Pattern
    logo: str
    logo_colour: np.ndarray
    logo_size: float
    sleeves: np.ndarray
    ponytail: bool
    hair_length: float
    brim: bool
    backpack: bool
    bag_side: int
    bag_size: float
    sunglasses: bool
    trouser_width: float
    hem: float

    def has(self, name: str) -> bool:
        """Whether a yes/no attribute is yes."""
        return self.attributes[name] == "yes"


def _draw_attributes(random: np.random.Generator) -> dict[str, str]:
    """Values of the 13 attributes; everyday dependencies only (hair and dress follow gender)."""

    def yes(share: float) -> str:
        return "yes" if random.random() < share else "no"

    female = random.random() < 0.5
    long_hair = random.random() < (0.75 if female else 0.12)
    age = ("teenager", "adult", "older")[int(random.choice(3, p=(0.3, 0.42, 0.28)))]
    return {
        "gender": "female" if female else "male",
        "hair": "long" if long_hair else "short",
        "age": age,
        "glasses": yes(0.4),
        "short_sleeves": yes(0.5),
        "top_length": "long" if random.random() < 0.4 else "short",
        "dress": yes(0.55) if female else "no",
        "boots": yes(0.35),
        "hat": yes(0.35),
        "bag": yes(0.5),
        "shoes": "dark" if random.random() < 0.55 else "light",
        "upper_colour": COLOURS[int(random.integers(len(COLOURS)))],
        "lower_colour": COLOURS[int(random.integers(len(COLOURS)))],
    }


def _cloth(name: str, random: np.random.Generator) -> np.ndarray:
    """A seeded shade of a colour name, linear RGB."""
    base = np.array(_CLOTH[name])
    return linear(np.clip(base * random.uniform(0.86, 1.14) + random.normal(0, 5, 3), 6, 240))


def _pattern(base: np.ndarray, kinds: tuple[str, ...], random: np.random.Generator) -> Pattern:
    kind = kinds[int(random.integers(len(kinds)))]
    darker = random.random() < 0.5
    strength = random.uniform(0.35, 0.7)
    colour = base * (1 - strength) if darker else base + (1 - base) * strength * 0.5
    return Pattern(
        kind=kind,
        colour=colour.astype(np.float32),
        frequency=float(random.uniform(7, 14)),
        phase=float(random.random()),
    )


def _check(attributes: Mapping[str, str]) -> None:
    names = {attribute.name for attribute in IDENTITY_ATTRIBUTES}
    if set(attributes) != names:
        raise InputError(
            f"a person needs the attributes {', '.join(sorted(names))}, got {', '.join(sorted(attributes))}"
        )
    for name, value in attributes.items():
        by_name(IDENTITY_ATTRIBUTES, name).index(value)


def make_person(seed: int, stream: Stream, identity: int, attributes: Mapping[str, str] | None = None) -> Person:
    """The person numbered ``identity`` of one stream of people.

    ``attributes`` replaces the drawn values (all 13 by name) and keeps the seeded traits. Raises InputError for an
    unknown attribute or value.
    """
    random = np.random.default_rng((seed, STREAMS.index(stream), identity))
    drawn = _draw_attributes(random)
    if attributes is not None:
        _check(attributes)
    worn = dict(attributes) if attributes is not None else drawn
    female, older, teenager = worn["gender"] == "female", worn["age"] == "older", worn["age"] == "teenager"
    build = float(np.clip(random.normal(1.0, 0.09), 0.82, 1.25)) * (0.9 if teenager else 1.06 if older else 1.0)
    height = float(random.normal(1.66 if female else 1.77, 0.05)) * (0.9 if teenager else 0.97 if older else 1.0)
    upper = _cloth(worn["upper_colour"], random)
    lower = _cloth(worn["lower_colour"], random)
    tone = float(random.beta(1.2, 1.8))
    skin = linear(np.array(_SKIN_LIGHT) * (1 - tone) + np.array(_SKIN_DARK) * tone + random.normal(0, 4, 3))
    hair_base = np.array(_GREY_HAIR) * random.uniform(0.75, 1.0) if older else np.array(_HAIR[random.integers(5)])
    shoe = np.array((46, 40, 38)) if worn["shoes"] == "dark" else np.array((208, 202, 194))
    accent = linear(np.array(_CLOTH[COLOURS[int(random.integers(9))]]))
    shade = np.float32(random.uniform(0.55, 0.85)) if random.random() < 0.3 else np.float32(1)
    tights = skin if random.random() < 0.65 else linear(random.uniform(24, 70) * np.array((1.0, 0.95, 1.0)))
    return Person(
        identity=identity,
        attributes=worn,
        height=height,
        build=build,
        shoulders=float(random.normal(0.92 if female else 1.06, 0.025)) * (0.95 if teenager else 1.0),
        hips=float(random.normal(1.1 if female else 0.95, 0.03)),
        head=1.1 if teenager else 1.0,
        stoop=float(random.uniform(11, 17) if older else random.uniform(0, 4)),
        stride=float(random.uniform(11, 17) if older else random.uniform(14, 23)),
        arm_swing=float(random.uniform(8, 16) if older else random.uniform(14, 32)),
        skin=skin,
        hair=linear(np.clip(hair_base * random.uniform(0.8, 1.2), 8, 235)),
        upper=upper,
        lower=lower,
        shoes=linear(np.clip(shoe * random.uniform(0.85, 1.12) + random.normal(0, 9, 3), 12, 235)),
        soles=linear(random.choice((40.0, 120.0, 225.0)) * np.ones(3)),
        bag=linear(np.array(_CLOTH[COLOURS[int(random.integers(9))]]) * random.uniform(0.65, 0.95)),
        hat=linear(np.array(_CLOTH[COLOURS[int(random.integers(9))]]) * random.uniform(0.75, 1.0)),
        tights=tights,
        upper_pattern=_pattern(upper, _PATTERNS, random),
        lower_pattern=_pattern(lower, ("plain", "plain", "side", "check"), random),
        logo=_LOGOS[int(random.integers(len(_LOGOS)))],
        logo_colour=accent,
        logo_size=float(random.uniform(0.04, 0.075)),
        sleeves=(upper * shade).astype(np.float32),
        ponytail=bool(random.random() < 0.35),
        hair_length=float(random.uniform(0.8, 1.35)),
        brim=bool(random.random() < 0.45),
        backpack=bool(random.random() < 0.6),
        bag_side=1 if random.random() < 0.5 else -1,
        bag_size=float(random.uniform(0.85, 1.2)),
        sunglasses=bool(random.random() < 0.6),
        trouser_width=float(random.uniform(0.95, 1.25)),
        hem=float(random.uniform(0.0, 0.07)),
    )
