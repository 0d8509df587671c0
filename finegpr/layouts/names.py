"""Numbers out of file names, for millions of names at a time."""

import re

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from finegpr.arrays import Bools

# Names spelt unlike all of these are read one by one.
_MAX_SPELLINGS = 32
# The names of a chunk fit the processor's cache.
_CHUNK = 1 << 14
_ZERO, _TEN = np.uint8(ord("0")), np.uint8(10)

Bytes = npt.NDArray[np.uint8]
Integers = npt.NDArray[np.int32]


def read_numbers(paths: pa.Array, pattern: str) -> tuple[Bools, dict[str, Integers]]:
    """Which paths (n,) are names of the ``pattern``, and per named group its number (n,), -1 where it has none.

    ``pattern`` has to fit the whole path, to be ASCII, and to ask of digits only that they are some (``[0-9]``), at
    most nine in a group. Its answer is then the same for all names that are spelt alike, which is the same but for
    the digits: it is asked once for each spelling, and the numbers lie in the same places in all names spelt so.
    """
    expression = re.compile(pattern.encode("ascii"))
    matched = np.zeros(len(paths), dtype=bool)
    numbers = {group: np.full(len(paths), -1, dtype=np.int32) for group in expression.groupindex}
    if not len(paths):
        return matched, numbers
    text, starts = as_bytes(paths)
    lengths = np.diff(starts)
    num_spellings = 0
    for length in np.flatnonzero(np.bincount(lengths)).tolist():
        rows = np.flatnonzero(lengths == length)
        while length and len(rows) and num_spellings < _MAX_SPELLINGS:
            num_spellings += 1
            first = text[starts[rows[0]] :][:length]
            match = expression.fullmatch(first.tobytes())
            is_alike = np.empty(len(rows), dtype=bool)
            for begin in range(0, len(rows), _CHUNK):
                chunk = rows[begin : begin + _CHUNK]
                columns = _columns(text, starts[chunk], length)
                alike = _is_spelt_like(first, columns)
                is_alike[begin : begin + _CHUNK] = alike
                if match is not None:
                    chunk = chunk[alike]
                    matched[chunk] = True
                    for group in filter(match.group, numbers):
                        numbers[group][chunk] = _number(columns[slice(*match.span(group))])[alike]
            rows = rows[~is_alike]
        for row in rows.tolist():
            if (match := expression.fullmatch(text[starts[row] :][:length].tobytes())) is not None:
                matched[row] = True
                for group in filter(match.group, numbers):
                    numbers[group][row] = int(match[group])
    return matched, numbers


def as_bytes(paths: pa.Array) -> tuple[Bytes, Integers]:
    """The UTF-8 of n >= 1 texts end to end, and where each starts in it (n + 1,), the last entry being the end."""
    paths = paths.cast(pa.string())
    _, offsets, data = paths.buffers()
    starts = np.frombuffer(offsets, np.int32, count=len(paths) + 1, offset=4 * paths.offset)
    return np.frombuffer(data or b"", np.uint8), starts


def _columns(text: Bytes, starts: Integers, length: int) -> Bytes:
    """The names (n,) that start there, all of this length, as the columns of (length, n) bytes."""
    return np.ascontiguousarray(np.lib.stride_tricks.sliding_window_view(text, length)[starts].T)


def _is_spelt_like(first: Bytes, columns: Bytes) -> Bools:
    """Which names, the columns of (L, n) bytes, are ``first`` (L,) but for the digits."""
    alike = np.ones(columns.shape[1], dtype=bool)
    for byte, is_digit, column in zip(first, first - _ZERO < _TEN, columns, strict=True):
        alike &= column - _ZERO < _TEN if is_digit else column == byte
    return alike


def _number(digits: Bytes) -> Integers:
    """The numbers (n,) whose digits are the rows of (D, n) bytes."""
    number = np.zeros(digits.shape[1], dtype=np.int32)
    for digit in digits - _ZERO:
        number *= np.int32(10)
        number += digit
    return number
