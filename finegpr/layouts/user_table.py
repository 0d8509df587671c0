"""A table made by the user (CSV or Parquet), read as text columns, so that ``0001`` stays ``0001``."""

import csv
from collections.abc import Collection, Iterable
from dataclasses import dataclass

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from finegpr.arrays import Bools, Ints
from finegpr.errors import InputError, did_you_mean
from finegpr.faults import patiently
from finegpr.home import from_home
from finegpr.layouts.listing import first
from finegpr.layouts.table_text import read_csv
from finegpr.object_stores import AnyPath, RemotePath, is_url, locate

INTEGER = r"^[+-]?[0-9]{1,18}(\.0*)?$"
"""A whole number as people's programs write it: ``7``, ``0007``, ``7.0``."""

# Words for a missing value that programs write; ``None`` and ``none`` may be values (no hat).
MISSING = ("", "NA", "N/A", "n/a", "#N/A", "<NA>", "NaN", "nan", "-NaN", "-nan", "NaT", "null", "NULL")
_FILL = "fill them in or leave the column out"


@dataclass(frozen=True, kw_only=True, eq=False)
class UserTable:
    """Columns of n rows, read as text when they are asked for.

    Row numbers in messages count from 1, without the header. ``notes`` say in a line what was
    recognised in the file that is not usual.
    """

    path: AnyPath
    data: pa.Table
    notes: tuple[str, ...] = ()

    def __len__(self) -> int:
        return int(self.data.num_rows)

    @property
    def columns(self) -> list[str]:
        """Column names, in the order of the file."""
        return list(self.data.column_names)

    def is_usable(self, column: str) -> bool:
        """Whether the column holds single values that can be written as text, not lists, structs or bytes."""
        return _is_plain(self.data.schema.field(column).type)

    def texts(
        self, column: str, *, strip: bool = True, may_miss: bool = False, advice: str = _FILL
    ) -> "pd.Series[str]":
        """One column (n,) of text, NaN where a value is missing and ``may_miss``.

        Raises InputError when it is absent, is not of single values, or has missing values (with row numbers).
        """
        if column not in self.columns:
            alone = "; columns are told apart by commas, semicolons, tabs or bars" if len(self.columns) == 1 else ""
            raise InputError(
                f"{self.path} has no column {column!r}{nearest(column, self.columns)}; "
                f"its columns are {', '.join(self.columns)}{alone}"
            )
        if not self.is_usable(column):
            raise InputError(
                f"{self.path}: column {column!r} holds {_named(self.data.schema.field(column).type)}, expected text, "
                "numbers or dates; write it as such, or leave the column out"
            )
        values = _as_text(self.data[column]).combine_chunks()
        trimmed = pc.utf8_trim_whitespace(values)
        missing = np.asarray(pc.or_(pc.is_null(trimmed), pc.is_in(trimmed, pa.array(MISSING))))
        if missing.any() and not may_miss:
            raise InputError(
                f"{self.path}: column {column!r} has {int(missing.sum())} missing values, rows "
                f"{first(_row_numbers(missing))}; {advice}"
            )
        values = trimmed if strip else values
        series: pd.Series[str] = pc.if_else(pa.array(missing), pa.scalar(None, pa.string()), values).to_pandas()
        return series

    def integers(self, column: str) -> Ints:
        """One column (n,) of integers. Raises InputError with the rows that are none."""
        texts = self.texts(column)
        self.refuse_rows(
            ~texts.str.match(INTEGER).to_numpy(dtype=bool), f"{column} should be an integer", column=column
        )
        return whole_numbers(texts)

    def refuse_rows(self, rows: Bools, expected: str, *, column: str) -> None:
        """Raise InputError naming count, row numbers and the first value where ``rows`` (n,) is true."""
        if rows.any():
            value = _as_text(self.data[column].slice(int(np.flatnonzero(rows)[0]), 1))[0].as_py()
            raise InputError(
                f"{self.path}: {int(rows.sum())} rows are wrong, {first(_row_numbers(rows))}: {expected}, got {value!r}"
            )


def whole_numbers(texts: "pd.Series[str]") -> Ints:
    """Texts (n,) that all match ``INTEGER``, as numbers."""
    return texts.str.replace(r"\.0*$", "", regex=True).to_numpy(dtype=object).astype(np.int64)


def _row_numbers(rows: Bools) -> list[int]:
    return [int(row) + 1 for row in np.flatnonzero(rows)[:11]]


def nearest(name: str, known: Iterable[str]) -> str:
    """`` (did you mean 'x'?)`` for the closest known name, or nothing."""
    hint = did_you_mean(name, known)
    return f" ({hint})" if hint else ""


def read_user_table(given: str | AnyPath, *, root: AnyPath, only: Collection[str] | None = None) -> UserTable:
    """Read a CSV or Parquet table; a relative path is looked up in ``root`` first.

    With ``only`` the other columns may hold nothing: of Parquet they are not read. Raises InputError: missing,
    unreadable, empty, ragged, or with a repeated column name.
    """
    path = _find(given, root)
    notes: list[str] = []
    try:
        content = patiently(path.read_bytes, path)
        if path.name.lower().endswith(".parquet") or content.startswith(b"PAR1"):
            data = _read_parquet(content, only)
        else:
            data, notes = read_csv(content)
    except (OSError, pa.ArrowException, ValueError, csv.Error) as error:
        reason = str(error).splitlines()[0]
        raise InputError(f"cannot read table {path}: {reason}; expected CSV or Parquet") from None
    repeated = sorted({name for name in data.column_names if data.column_names.count(name) > 1})
    if repeated:
        raise InputError(f"{path}: columns named twice: {first(repeated)}; rename them")
    if "" in data.column_names:
        raise InputError(f"{path}: column {data.column_names.index('') + 1} has no name; name it or write no index")
    if data.num_rows == 0:
        raise InputError(f"{path} has no rows")
    return UserTable(path=path, data=data, notes=(f"{path}: read as {', '.join(notes)}",) if notes else ())


def _find(given: str | AnyPath, root: AnyPath) -> AnyPath:
    if isinstance(given, RemotePath) or is_url(given):
        found = locate(given)
    else:
        path = from_home(given)
        found = below if not path.is_absolute() and (below := root / path.as_posix()).is_file() else path
    if not found.is_file():
        raise InputError(f"no table {given}, neither in {root} nor in the working directory")
    return found


def _read_parquet(content: bytes, only: Collection[str] | None) -> pa.Table:
    """The table; a column that cannot be text, or is not one of ``only``, is not read, only named."""
    file = pq.ParquetFile(pa.BufferReader(content), page_checksum_verification=True)
    schema = file.schema_arrow
    names = [name for name in schema.names if not name.startswith("__index_level_")]  # left there by pandas
    if len(set(names)) < len(names):
        return pa.table([pa.nulls(1)] * len(names), names=names)  # refused by its names
    plain = [name for name in names if _is_plain(schema.field(name).type) and (only is None or name in only)]
    read = file.read(columns=plain, use_threads=False)
    columns = [
        read[name] if name in plain else pa.nulls(file.metadata.num_rows, schema.field(name).type) for name in names
    ]
    return pa.table(columns, schema=pa.schema([schema.field(name) for name in names]))


def _is_plain(type_: pa.DataType) -> bool:
    if pa.types.is_dictionary(type_):
        return _is_plain(type_.value_type)
    tests = (
        pa.types.is_string, pa.types.is_large_string, pa.types.is_string_view, pa.types.is_boolean,
        pa.types.is_integer, pa.types.is_floating, pa.types.is_decimal, pa.types.is_date, pa.types.is_time,
        pa.types.is_timestamp, pa.types.is_null,
    )  # fmt: skip
    return any(test(type_) for test in tests)


def _named(type_: pa.DataType) -> str:
    known = {
        "lists": (pa.types.is_list, pa.types.is_large_list, pa.types.is_fixed_size_list),
        "structs": (pa.types.is_struct,),
        "maps": (pa.types.is_map,),
        "bytes": (pa.types.is_binary, pa.types.is_large_binary, pa.types.is_fixed_size_binary),
    }
    kind = next((kind for kind, tests in known.items() if any(test(type_) for test in tests)), "values")
    return f"{kind} (type {str(type_)[:60]})"


def _as_text(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """Values as text, not a number as null; 3.0 is written 3, for whole numbers with a gap are stored as floats."""
    if pa.types.is_dictionary(column.type):
        column = column.cast(column.type.value_type)
    if pa.types.is_floating(column.type):
        column = column.cast(pa.float32()) if pa.types.is_float16(column.type) else column
        column = pc.if_else(pc.is_nan(column), pa.scalar(None, column.type), column)
        whole = pc.fill_null(pc.and_(pc.equal(pc.round(column), column), pc.less(pc.abs(column), 2.0**53)), False)
        as_integers = pc.if_else(whole, column, 0.0).cast(pa.int64()).cast(pa.string())
        return pc.if_else(whole, as_integers, column.cast(pa.string()))
    return column.cast(pa.string())
