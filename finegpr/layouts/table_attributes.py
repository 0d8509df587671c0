"""Columns of a user's table as attributes: names, numbers, angles, what is ordered, what is binned, what is missing.

Equal numbers are one value however they are written (``1``, ``1.0``, ``-0``), and so are equal angles (``0deg``,
``360deg``). A column with a value of its own for nearly every image chooses nothing: it is refused or binned.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal, InvalidOperation
from typing import Any

import numpy as np
import pandas as pd

from finegpr.arrays import Ints
from finegpr.attributes import Attribute
from finegpr.errors import ConfigError, InputError
from finegpr.layouts.listing import LABELS, first
from finegpr.layouts.user_table import UserTable, nearest

MAX_VALUES = 1000
OWN_VALUE = "missing"
RULES = {"own-value": f"the value {OWN_VALUE!r}", "leave-out": "left out"}
_FEW = 20  # values that need not come back in other images
_FEW_FRACTIONS = 8  # the same of numbers with a fraction, and of dates
_DATE = r"^[0-9]{4}-[0-9]{2}-[0-9]{2}([T ].*)?$"
_INTEGER = r"(-?[1-9][0-9]*|0[0-9]*)\Z"


@dataclass(frozen=True, kw_only=True)
class Kinds:
    """What a person says of the columns: angles, order (by number, or as listed), bins, missing values."""

    identity_level: Sequence[str] = ()
    circular: Sequence[str] = ()
    ordinal: Mapping[str, Sequence[str] | None] = field(default_factory=dict)
    bins: Mapping[str, int] = field(default_factory=dict)
    missing: str | None = None

    @classmethod
    def of(cls, names: Sequence[str], *, ordinal: Any, bins: Any, missing: Any, **lists: Any) -> "Kinds":
        """Checked. Raises ConfigError for a wrong type, InputError for a name that is none of ``names``."""
        for option, chosen in lists.items():
            _check_list(option, chosen)
        if not isinstance(ordinal, Mapping):
            _check_list("ordinal", ordinal)
            ordinal = dict.fromkeys(ordinal)
        for name, order in ordinal.items():
            _check_list(f"ordinal.{name}", order or ())
        if not isinstance(bins, Mapping):
            raise ConfigError(f"bins should say a number for each column, such as {{exposure: 5}}, got {bins!r}")
        for name, num in bins.items():
            if not isinstance(num, int) or isinstance(num, bool) or not 2 <= num <= 100:
                raise ConfigError(f"bins.{name} should be a number from 2 to 100, got {num!r}")
        if missing is not None and missing not in RULES:
            raise ConfigError(f"missing should be {' or '.join(RULES)}, got {missing!r}")
        for option, chosen in {**lists, "ordinal": ordinal, "bins": bins}.items():
            for name in chosen:
                if name not in names:
                    raise InputError(
                        f"{option} names {name!r}, which is no attribute{nearest(name, names)}; got {list(names)}"
                    )
        for name in ordinal:
            if name in lists["circular"]:
                raise ConfigError(f"{name} is both circular and ordinal; keep one")
        return cls(ordinal=ordinal, bins=bins, missing=missing, **lists)


def _check_list(option: str, chosen: Any) -> None:
    if isinstance(chosen, str) or not isinstance(chosen, Sequence) or not all(isinstance(name, str) for name in chosen):
        raise ConfigError(f"{option} should be a list of names, got {chosen!r}")


def read_attribute(rows: UserTable, name: str, kinds: Kinds, identity: Ints) -> tuple[Attribute, Ints, list[str]]:
    """The attribute of a column, its value indices (n,) with -1 for what is left out, and what is not usual in it."""
    if name in LABELS:
        raise InputError(f"{rows.path}: a column called {name!r} cannot be an attribute; rename it or list attributes")
    texts = rows.texts(
        name,
        may_miss=kinds.missing is not None,
        advice="fill them in, leave the column out, or set the layout's option missing=own-value (a value of its own) "
        "or missing=leave-out (their images are not listed); in a config that is source.options.missing",
    )
    codes, uniques = texts.factorize()
    written = [str(value) for value in uniques]
    if not written:
        raise InputError(f"{rows.path}: attribute {name!r} has no values; list attributes without it")
    is_person = name in kinds.identity_level
    circular = name in kinds.circular
    notes: list[str] = []
    if name in kinds.bins:
        values, place = _binned(rows, name, written, codes, kinds.bins[name], circular=circular)
    else:
        num = len(np.unique(identity)) if is_person else int((codes >= 0).sum())
        _refuse_continuous(rows, name, written, num, "persons" if is_person else "images")
        order = kinds.ordinal.get(name)
        values, place = _named(rows, name, written, circular=circular, ordinal=name in kinds.ordinal, order=order)
        notes += _merged(rows, name, written, values, place)
    if (codes < 0).any() and kinds.missing == "own-value":
        if circular or name in kinds.ordinal or name in kinds.bins or OWN_VALUE in values:
            raise InputError(
                f"{rows.path}: attribute {name!r} has {int((codes < 0).sum())} missing values, which have no place "
                f"among {first(values, limit=4)}; fill them in, or say missing=leave-out"
            )
        values, place = (*values, OWN_VALUE), np.append(place, len(values))
        codes = np.where(codes < 0, len(place) - 1, codes)
    attribute = Attribute(
        name=name,
        values=values,
        level="identity" if is_person else "image",
        circular=circular,
        ordinal=not circular and (name in kinds.ordinal or name in kinds.bins),
    )
    return attribute, np.where(codes < 0, -1, place[codes]), notes


def _named(
    rows: UserTable, name: str, written: Sequence[str], *, circular: bool, ordinal: bool, order: Sequence[str] | None
) -> tuple[tuple[str, ...], Ints]:
    """The values in order, and the place among them of each text that was written."""
    if order is not None:
        if None not in [_number(text) for text in order]:
            raise ConfigError(f"ordinal.{name}: numbers are in order by themselves; name the column alone")
        if unknown := [text for text in written if text not in order]:
            raise InputError(f"{rows.path}: {name} has values that ordinal.{name} does not list: {first(unknown)}")
        values = [text for text in order if text in written]
        return tuple(values), np.array([values.index(text) for text in written])
    numbers: Sequence[Decimal | None] = (
        _angles(rows, name, written) if circular else [_number(text) for text in written]
    )
    strange = [text for text, number in zip(written, numbers, strict=True) if number is None]
    if ordinal and strange:
        raise InputError(
            f"{rows.path}: attribute {name} is ordinal, but its value {strange[0]!r} is no number; "
            f"give the order of its values, such as ordinal: {{{name}: [{first(written, limit=3)}]}}"
        )
    if strange:
        if any(text.lower().strip("+-") in ("inf", "infinity") for text in strange) and len(strange) < len(written):
            raise InputError(f"{rows.path}: attribute {name!r} should have finite numbers, got {strange[0]!r}")
        if {text.lower() for text in written} <= {"true", "false"}:
            written = [text.lower() for text in written]  # as Parquet has them
        distinct = sorted(set(written))
        if all(text.removesuffix("deg") != text and _number(text.removesuffix("deg")) is not None for text in written):
            distinct = sorted(written, key=lambda text: (_number(text.removesuffix("deg")), text))
        return tuple(distinct), np.array([distinct.index(text) for text in written])
    spelled: dict[Decimal, list[str]] = {}
    for text, number in zip(written, numbers, strict=True):
        assert number is not None
        spelled.setdefault(number, []).append(text)
    ordered = sorted(spelled)
    unit = "deg" if circular and any(text.endswith(("deg", "°")) for text in written) else ""
    values = [
        spelled[number][0] if not circular and _is_plain(spelled[number]) else f"{_written(number)}{unit}"
        for number in ordered
    ]
    place = {number: at for at, number in enumerate(ordered)}
    return tuple(values), np.array([place[number] for number in numbers if number is not None])


def _is_plain(texts: Sequence[str]) -> bool:
    return len(texts) == 1 and re.match(_INTEGER, texts[0]) is not None


def _number(text: str) -> Decimal | None:
    try:
        number = Decimal(text) if "_" not in text else Decimal("nan")
    except InvalidOperation:
        return None
    return number if number.is_finite() and abs(number.adjusted()) < 400 else None


def _angle(text: str) -> Decimal | None:
    number = _number(text.removesuffix("deg").removesuffix("°").strip())
    if number is None or number.adjusted() > 12:
        return None
    return (number % 360 + 360) % 360


def _written(number: Decimal) -> str:
    if number == 0:
        return "0"
    number = number.normalize()
    return f"{number:f}" if -7 < number.adjusted() < 16 else str(number).replace("E", "e")


def _merged(rows: UserTable, name: str, written: Sequence[str], values: Sequence[str], place: Ints) -> list[str]:
    if len(written) == len(values):
        return []
    at = int(np.flatnonzero(np.bincount(place) > 1)[0])
    texts = [text for text, of in zip(written, place, strict=True) if of == at]
    return [
        f"{rows.path}: {len(written)} spellings of {name} are {len(values)} values: {first(texts, limit=4)} "
        f"{'are' if len(texts) > 1 else 'is'} {values[at]}"
    ]


def _refuse_continuous(rows: UserTable, name: str, written: Sequence[str], num: int, what: str) -> None:
    """Values that hardly come back, in ``num`` images or persons, choose nothing but these."""
    texts = pd.Series(written)
    numbers = pd.to_numeric(texts, errors="coerce").to_numpy(dtype=np.float64)
    is_number = bool(np.isfinite(numbers).all())
    is_fraction = is_number and bool((numbers % 1 != 0).any())
    is_date = bool(texts.str.match(_DATE).all())
    few = _FEW_FRACTIONS if is_fraction or is_date else _FEW
    if len(written) <= MAX_VALUES and (len(written) <= few or num >= 2 * len(written)):
        return
    too_many = f", at most {MAX_VALUES} are allowed" if len(written) > MAX_VALUES else ""
    advice = f"bin it, such as bins: {{{name}: 5}}" if is_number or is_date else "group them first"
    raise InputError(
        f"{rows.path}: attribute {name!r} has {len(written)} values in {num} {what}{too_many}: "
        f"hardly two share one; {advice}, or list attributes without it"
    )


def _binned(
    rows: UserTable, name: str, written: Sequence[str], codes: Ints, num: int, *, circular: bool
) -> tuple[tuple[str, ...], Ints]:
    """Ranges that hold about as many images each, or sectors of equal width of a circle; and each text's place."""
    if circular:
        return _sectors(rows, name, written, num)
    texts = pd.Series(written)
    is_date = bool(texts.str.match(_DATE).all())
    if is_date:
        days = pd.to_datetime(texts, format="ISO8601", errors="coerce", utc=True)
        numbers = np.where(days.isna(), np.nan, days.dt.as_unit("s").astype("int64").to_numpy(dtype=np.float64))
    else:
        numbers = pd.to_numeric(texts, errors="coerce").to_numpy(dtype=np.float64)
    if not np.isfinite(numbers).all():
        strange = written[int(np.flatnonzero(~np.isfinite(numbers))[0])]
        raise InputError(
            f"{rows.path}: {name} is binned, but its value {strange!r} is not a finite number or a date, "
            "such as 1.25, 1250 or 2026-01-31"
        )
    edges = np.unique(np.quantile(numbers[codes[codes >= 0]], np.arange(1, num) / num, method="inverted_cdf"))
    of_text = np.searchsorted(edges, numbers, side="left")
    present, place = np.unique(of_text, return_inverse=True)
    ranges = [(numbers[of_text == at].min(), numbers[of_text == at].max()) for at in present]
    if is_date:
        shown = [tuple(str(pd.Timestamp(end, unit="s")) for end in ends) for ends in ranges]
        if all(time.endswith("00:00:00") for ends in shown for time in ends):
            shown = [tuple(time[:10] for time in ends) for ends in shown]
    else:
        for digits in range(3, 18):
            shown = [tuple(f"{end:.{digits}g}" for end in ends) for ends in ranges]
            if len({text for ends in shown for text in set(ends)}) == sum(len(set(ends)) for ends in shown):
                break
    return tuple(low if low == high else f"{low} to {high}" for low, high in shown), place


def _angles(rows: UserTable, name: str, written: Sequence[str]) -> list[Decimal]:
    angles = {text: _angle(text) for text in written}
    for text, angle in angles.items():
        if angle is None:
            raise InputError(
                f"{rows.path}: attribute {name} is circular, but its value {text!r} is not an angle such as '130deg'"
            )
    return [angle for text in written if (angle := angles[text]) is not None]


def _sectors(rows: UserTable, name: str, written: Sequence[str], num: int) -> tuple[tuple[str, ...], Ints]:
    width = 360 / num
    sector = np.rint(np.array(_angles(rows, name, written), dtype=np.float64) / width).astype(np.int64) % num
    present, place = np.unique(sector, return_inverse=True)
    return tuple(f"{at * width:g}deg" for at in present), place
