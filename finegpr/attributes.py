"""Attributes: the labelled factors of a synthetic data set, and the vocabularies of FineGPR and GPR+.

Inside the program values have names (``foggy``, ``130deg``); codes such as ``w04`` live in layouts only.
"""

import math
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any, Literal

from finegpr.errors import InputError

Level = Literal["image", "identity"]


@dataclass(frozen=True, kw_only=True)
class Attribute:
    """One labelled factor.

    ``values`` are ordered; a ``circular`` attribute names its values in degrees (``130deg``), and the
    last value is a neighbour of the first; those of an ``ordinal`` one go from low to high. ``level`` says
    whether the value belongs to one image or to every image of an identity.
    """

    name: str
    values: tuple[str, ...]
    level: Level = "image"
    circular: bool = False
    ordinal: bool = False

    def __post_init__(self) -> None:
        if not self.values or len(set(self.values)) != len(self.values):
            raise InputError(f"attribute {self.name}: values must be distinct and at least one, got {self.values}")
        if self.circular and self.ordinal:
            raise InputError(f"attribute {self.name} is either circular or ordinal, not both")
        if self.circular:
            for value in self.values:
                self.degrees(value)

    @property
    def facts(self) -> dict[str, Any]:
        """Its fields, for JSON. ``ordinal`` only where it is: files and fingerprints of before hold."""
        facts = asdict(self)
        return facts if self.ordinal else {name: fact for name, fact in facts.items() if name != "ordinal"}

    def degrees(self, value: str) -> float:
        """The angle of a circular attribute's value, in degrees."""
        try:
            degrees = float(value.removesuffix("deg"))
        except ValueError:
            degrees = math.nan
        if not math.isfinite(degrees):
            raise InputError(
                f"attribute {self.name} is circular, but its value {value!r} is not an angle such as '130deg'"
            )
        return degrees

    def index(self, value: str) -> int:
        """Position of ``value`` in ``values``; an unknown value is an InputError that lists the known ones."""
        try:
            return self.values.index(value)
        except ValueError:
            known = ", ".join(self.values[:40])
            raise InputError(f"attribute {self.name} has no value {value!r}; known values: {known}") from None


def by_name(attributes: Iterable[Attribute], name: str) -> Attribute:
    """The attribute called ``name``; an unknown name is an InputError that lists the known ones."""
    known = {attribute.name: attribute for attribute in attributes}
    if name not in known:
        raise InputError(f"no attribute {name!r}; known attributes: {', '.join(known) or 'none'}")
    return known[name]


def _degrees(step: int) -> tuple[str, ...]:
    return tuple(f"{angle}deg" for angle in range(0, 360, step))


VIEWPOINT = Attribute(name="viewpoint", values=_degrees(10), circular=True)
WEATHER = Attribute(name="weather", values=("sunny", "clouds", "overcast", "foggy", "neutral", "blizzard", "snowlight"))
ILLUMINATION = Attribute(
    name="illumination", values=("midnight", "dawn", "forenoon", "noon", "afternoon", "dusk", "night")
)
SCENE = Attribute(
    name="scene",
    values=("urban1", "urban2", "wild3", "urban4", "wild5", "urban6", "urban7", "wild8", "urban9"),
)

COLOURS = ("black", "white", "red", "purple", "gray", "yellow", "blue", "green", "brown")
_YES_NO = ("yes", "no")


def _identity(name: str, values: tuple[str, ...]) -> Attribute:
    return Attribute(name=name, values=values, level="identity")


IDENTITY_ATTRIBUTES = (
    _identity("gender", ("male", "female")),
    _identity("hair", ("long", "short")),
    _identity("age", ("teenager", "adult", "older")),
    _identity("glasses", _YES_NO),
    _identity("short_sleeves", _YES_NO),
    _identity("top_length", ("long", "short")),
    _identity("dress", _YES_NO),
    _identity("boots", _YES_NO),
    _identity("hat", _YES_NO),
    _identity("bag", _YES_NO),
    _identity("shoes", ("dark", "light")),
    _identity("upper_colour", COLOURS),
    _identity("lower_colour", COLOURS),
)

FINEGPR = (VIEWPOINT, WEATHER, ILLUMINATION, SCENE, *IDENTITY_ATTRIBUTES)
GPR_PLUS = (
    Attribute(name="viewpoint", values=_degrees(30), circular=True),
    WEATHER,
    ILLUMINATION,
)
