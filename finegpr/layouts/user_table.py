"""A table made by the user (CSV or Parquet), read as text columns, so that ``0001`` stays ``0001``."""

import csv
import io
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.parquet as pq

from finegpr.arrays import Bools, Ints
from finegpr.errors import InputError, did_you_mean
from finegpr.layouts.listing import first
from finegpr.object_stores import AnyPath, RemotePath, is_url, locate

_INTEGER = r"^[+-]?[0-9]{1,18}$"


@dataclass(frozen=True, kw_only=True, eq=False)
class UserTable:
    """Text columns of n rows; an empty cell is missing. Row numbers in messages count from 1, without the header."""

    path: AnyPath
    data: pa.Table

    def __len__(self) -> int:
        return int(self.data.num_rows)

    @property
    def columns(self) -> list[str]:
        """Column names, in the order of the file."""
        return list(self.data.column_names)

    def texts(self, column: str, *, strip: bool = True) -> "pd.Series[str]":
        """One column (n,) of text. Raises InputError when it is absent, or has missing values (with row numbers)."""
        if column not in self.columns:
            raise InputError(
                f"{self.path} has no column {column!r}{nearest(column, self.columns)}; "
                f"its columns are {', '.join(self.columns)}"
            )
        values = self.data[column].combine_chunks()
        if strip:
            values = pc.utf8_trim_whitespace(values)
        missing = np.asarray(pc.fill_null(pc.equal(values, ""), True))
        if missing.any():
            raise InputError(
                f"{self.path}: column {column!r} has {int(missing.sum())} missing values, rows "
                f"{first(_row_numbers(missing))}; fill them in or leave the column out"
            )
        series: pd.Series[str] = values.to_pandas()
        return series

    def integers(self, column: str) -> Ints:
        """One column (n,) of integers. Raises InputError with the rows that are none."""
        texts = self.texts(column)
        self.refuse_rows(
            ~texts.str.match(_INTEGER).to_numpy(dtype=bool), f"{column} should be an integer", column=column
        )
        return texts.to_numpy(dtype=object).astype(np.int64)

    def labels(self, column: str, *, least: int) -> Ints:
        """Integers (n,) from ``least`` as they are, or any other text as 1..k in sorted order."""
        texts = self.texts(column)
        if texts.str.match(_INTEGER).all():
            numbers = texts.to_numpy(dtype=object).astype(np.int64)
            self.refuse_rows(numbers < least, f"{column} should be at least {least}", column=column)
            return numbers
        return np.asarray(texts.factorize(sort=True)[0], dtype=np.int64) + 1

    def refuse_rows(self, rows: Bools, expected: str, *, column: str) -> None:
        """Raise InputError naming count, row numbers and the first value where ``rows`` (n,) is true."""
        if rows.any():
            value = self.data[column][int(np.flatnonzero(rows)[0])].as_py()
            raise InputError(
                f"{self.path}: {int(rows.sum())} rows are wrong, {first(_row_numbers(rows))}: {expected}, got {value!r}"
            )


def _row_numbers(rows: Bools) -> list[int]:
    return [int(row) + 1 for row in np.flatnonzero(rows)[:11]]


def nearest(name: str, known: Iterable[str]) -> str:
    """`` (did you mean 'x'?)`` for the closest known name, or nothing."""
    hint = did_you_mean(name, known)
    return f" ({hint})" if hint else ""


def read_user_table(given: str | AnyPath, *, root: AnyPath) -> UserTable:
    """Read a CSV (UTF-8, with or without BOM) or Parquet table; a relative path is looked up in ``root`` first.

    Raises InputError: missing, unreadable, empty, ragged, or with a repeated column name.
    """
    path = _find(given, root)
    try:
        content = path.read_bytes()
        data = _read_parquet(content) if path.name.lower().endswith(".parquet") else _read_csv(content, path)
    except (OSError, pa.ArrowException, UnicodeDecodeError, csv.Error) as error:
        reason = str(error).splitlines()[0]
        raise InputError(f"cannot read table {path}: {reason}; expected UTF-8 CSV or Parquet") from None
    repeated = sorted({name for name in data.column_names if data.column_names.count(name) > 1})
    if repeated:
        raise InputError(f"{path}: columns named twice: {first(repeated)}; rename them")
    if "" in data.column_names:
        raise InputError(f"{path}: column {data.column_names.index('') + 1} has no name; name it or write no index")
    if data.num_rows == 0:
        raise InputError(f"{path} has no rows")
    return UserTable(path=path, data=data)


def _find(given: str | AnyPath, root: AnyPath) -> AnyPath:
    if isinstance(given, RemotePath) or is_url(given):
        found = locate(given)
    else:
        path = Path(given)
        found = below if not path.is_absolute() and (below := root / path.as_posix()).is_file() else path
    if not found.is_file():
        raise InputError(f"no table {given}, neither in {root} nor in the working directory")
    return found


def _read_csv(content: bytes, path: AnyPath) -> pa.Table:
    header = next(csv.reader(io.TextIOWrapper(io.BytesIO(content), encoding="utf-8-sig", newline="")), [])
    names = [name.strip() for name in header]
    if not any(names):
        raise InputError(f"{path} has no header line; the first line should name the columns")
    return pyarrow.csv.read_csv(
        pa.BufferReader(content),
        read_options=pyarrow.csv.ReadOptions(column_names=names, skip_rows_after_names=1),
        parse_options=pyarrow.csv.ParseOptions(newlines_in_values=True),
        convert_options=pyarrow.csv.ConvertOptions(
            column_types=dict.fromkeys(names, pa.string()), strings_can_be_null=True, null_values=[""]
        ),
    )


def _read_parquet(content: bytes) -> pa.Table:
    data = pq.read_table(pa.BufferReader(content), page_checksum_verification=True)
    names = [name for name in data.column_names if not name.startswith("__index_level_")]  # left there by pandas
    data = data.select(names)
    return pa.Table.from_arrays([_as_text(column) for column in data.columns], names=names)


def _as_text(column: pa.ChunkedArray) -> pa.ChunkedArray:
    if pa.types.is_dictionary(column.type):
        column = column.cast(column.type.value_type)
    if pa.types.is_floating(column.type):
        # A column of integers with a gap is stored as floats: 3.0 means 3.
        whole = pc.all(pc.equal(pc.round(column), column)).as_py()
        column = column.cast(pa.int64()) if whole else column
    return column.cast(pa.string())
