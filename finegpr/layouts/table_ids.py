"""Identities and cameras of a user's table: numbers or names, and what 0 and -1 mean.

The rule. A column holds whole numbers (``7``, ``07`` and ``7.0`` are one) or names, numbered 1..k in sorted order.
Where the table has gallery rows, -1 there is junk and 0 a distractor, beside names too; elsewhere neither is a person.
Without gallery rows persons may count from 0, and so may cameras: then each is listed one higher. What is not clear
is refused, and ``first_identity`` and ``first_camera`` (0 or 1) say it.
"""

import numpy as np
import pandas as pd

from finegpr.arrays import Bools, Ints
from finegpr.errors import ConfigError, InputError
from finegpr.layouts.user_table import INTEGER, UserTable, whole_numbers

_NUMBER = r"^[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?$|^[+-]?inf(inity)?$"


def identities(rows: UserTable, column: str, *, in_gallery: Bools, lowest: int | None) -> tuple[Ints, list[str]]:
    """Persons from 1, and in galleries -1 junk and 0 distractors, (n,); and what was done that is not usual.

    ``in_gallery`` (n,) rows are of a gallery part; ``lowest`` is the number that the first person has, None unsaid.
    """
    _check_first("first_identity", lowest)
    numbers, is_number = _numbers_or_names(rows, column, allowed=(-1, 0))
    has_gallery = bool(in_gallery.any())
    rows.refuse_rows(is_number & (numbers < -1), f"{column} should be at least -1", column=column)
    rows.refuse_rows(
        is_number & (numbers == -1) & ~in_gallery,
        f"{column} -1 is junk, which only a gallery has (part_column says what is one); leave these rows out",
        column=column,
    )
    zero = is_number & (numbers == 0)
    names = not is_number.all()
    if names and lowest is not None:
        raise ConfigError(f"first_identity is of numbers, but {column} holds names; leave it out")
    counts_from_0 = lowest == 0 or (lowest is None and not has_gallery and bool(zero.any()))
    if counts_from_0 and not names:
        return _one_higher(rows, column, numbers, "identities")
    where = "which only a gallery has" if has_gallery else "and the table has no gallery"
    otherwise = "give every person a name" if names else "or number persons from 1, or say first_identity=0"
    rows.refuse_rows(
        zero & ~in_gallery,
        f"{column} 0 is a distractor, {where}; leave these rows out, {otherwise}",
        column=column,
    )
    return numbers, []


def cameras(rows: UserTable, column: str, *, lowest: int | None) -> tuple[Ints, list[str]]:
    """Cameras from 1, 0 where it is unknown, (n,); and what was done that is not usual."""
    _check_first("first_camera", lowest)
    numbers, is_number = _numbers_or_names(rows, column, allowed=())
    rows.refuse_rows(is_number & (numbers < 0), f"{column} should be at least 0", column=column)
    if not is_number.all():
        if lowest is not None:
            raise ConfigError(f"first_camera is of numbers, but {column} holds names; leave it out")
        return numbers, []
    present = np.unique(numbers)
    if lowest == 1 or present[0] > 0 or (len(present) == 1 and lowest is None):
        return numbers, []
    if lowest is None and present[-1] != len(present) - 1:
        raise InputError(
            f"{rows.path}: {column} has 0 beside {', '.join(map(str, present[1:6]))}: is it unknown, or the first "
            "camera? say first_camera=1 where 0 is unknown, first_camera=0 where it is a camera"
        )
    return _one_higher(rows, column, numbers, "cameras")


def _one_higher(rows: UserTable, column: str, numbers: Ints, what: str) -> tuple[Ints, list[str]]:
    return (
        np.where(numbers >= 0, numbers + 1, numbers),
        [f"{rows.path}: {what} in column {column!r} count from 0; each is listed one higher, 0 as 1"],
    )


def _numbers_or_names(rows: UserTable, column: str, *, allowed: tuple[int, ...]) -> tuple[Ints, Bools]:
    """The numbers (n,), or names as 1..k in sorted order, and which were numbers: all, none, or those ``allowed``."""
    texts = rows.texts(column)
    whole = texts.str.match(INTEGER).to_numpy(dtype=bool)
    if whole.all():
        return whole_numbers(texts), whole
    if texts.str.fullmatch(r"[0-9]+").all():  # more digits than an integer holds: names
        whole = np.zeros(len(texts), dtype=bool)
        return texts.factorize(sort=True)[0].astype(np.int64) + 1, whole
    number = whole | texts.str.match(_NUMBER).to_numpy(dtype=bool)
    kept = np.zeros(len(texts), dtype=bool)
    kept[whole] = np.isin(whole_numbers(texts[whole]), allowed)
    if (number & ~kept).any():
        # Which of the two the column is meant to hold: the more frequent.
        if number.sum() * 2 >= len(texts):
            rows.refuse_rows(
                ~whole, f"{column} should be a whole number of at most 18 digits, as in most rows", column=column
            )
        rows.refuse_rows(
            number & ~kept, f"{column} should be a name as in most rows; write numbers as names too", column=column
        )
    numbers = np.empty(len(texts), dtype=np.int64)
    numbers[kept] = whole_numbers(texts[kept])
    names: pd.Series[str] = texts[~kept]
    numbers[~kept] = names.factorize(sort=True)[0] + 1
    return numbers, kept


def _check_first(option: str, lowest: int | None) -> None:
    if lowest is not None and (isinstance(lowest, bool) or lowest not in (0, 1)):
        raise ConfigError(f"{option} should be 0 or 1, got {lowest!r}")
