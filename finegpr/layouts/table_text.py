"""The text of a CSV as people's programs write it: its encoding, what separates its columns, its decimal commas."""

import codecs
import csv
import io
import re

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv

SEPARATORS = {",": "commas", ";": "semicolons", "\t": "tabs", "|": "bars"}
_MARKS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),  # before UTF-16, whose mark it begins with
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
# What is often called .csv and is none, by its first bytes.
_OTHERS = {
    b"PK\x03\x04": "an Excel workbook or another zip archive; save it as CSV",
    b"\xd0\xcf\x11\xe0": "an old Excel workbook; save it as CSV",
    b"\x1f\x8b": "compressed by gzip; unpack it",
    b"{": "JSON; write it as CSV or Parquet",
    b"[": "JSON; write it as CSV or Parquet",
    b"ARROW1": "an Arrow or Feather file; write it as Parquet",
}
_SEP_LINE = re.compile(r"sep=(.)\r?\n", re.IGNORECASE)
_NUM_LOOKED_AT = 20  # rows by which a separator is told
_DECIMAL_COMMA = r"^[+-]?[0-9]*,[0-9]+$"
_DECIMAL = r"^[+-]?[0-9]*(,[0-9]+)?$"
_THOUSANDS = r"^[+-]?([1-9][0-9]{0,2}(,[0-9]{3})*|0)$"


def read_csv(content: bytes) -> tuple[pa.Table, list[str]]:
    """Text columns, an empty cell being null, and what was recognised that is not usual, a few words each.

    Raises ValueError, csv.Error or pa.ArrowException, whose first line says why it cannot be read.
    """
    text, notes = _decode(content)
    separator = None
    if told := _SEP_LINE.match(text):
        separator, text = told[1], text[told.end() :]
    separator = separator or _separator(text)
    if separator != ",":
        notes.append(f"separated by {SEPARATORS.get(separator, repr(separator))}")
    names = [name.strip() for name in next(csv.reader(io.StringIO(text, newline=""), delimiter=separator), [])]
    if not any(names):
        raise ValueError("it has no header line; the first line should name the columns")
    table = pyarrow.csv.read_csv(
        pa.BufferReader(text.encode()),
        # Threads of the reader outlive it, and abort the process when torch ends before them.
        read_options=pyarrow.csv.ReadOptions(column_names=names, skip_rows_after_names=1, use_threads=False),
        parse_options=pyarrow.csv.ParseOptions(newlines_in_values=True, delimiter=separator),
        convert_options=pyarrow.csv.ConvertOptions(
            column_types=dict.fromkeys(names, pa.string()), strings_can_be_null=True, null_values=[""]
        ),
    )
    columns, with_commas = [], []
    for name, column in zip(names, table.columns, strict=True):
        with_point = _with_decimal_points(column)
        if with_point is not None:
            with_commas.append(name)
        columns.append(column if with_point is None else with_point)
    if with_commas:
        notes.append(f"numbers with decimal commas in {', '.join(with_commas)}")
    return pa.table(columns, names=names), notes


def _decode(content: bytes) -> tuple[str, list[str]]:
    for start, kind in _OTHERS.items():
        if content.startswith(start):
            raise ValueError(f"it is {kind}")
    for mark, encoding in _MARKS:
        if content.startswith(mark):
            notes = [] if encoding == "utf-8-sig" else [encoding.upper()]
            return content.decode(encoding), notes
    if b"\0" in content:
        raise ValueError("it holds zero bytes: no text, or UTF-16 without its mark; save it as UTF-8")
    try:
        return content.decode("utf-8"), []
    except UnicodeDecodeError as error:
        try:
            text = content.decode("cp1252")
        except UnicodeDecodeError:
            raise ValueError(f"its text is neither UTF-8 nor Latin-1 ({error}); save it as UTF-8") from None
        return text, ["Latin-1, for it is no UTF-8"]


def _separator(text: str) -> str:
    """That which cuts the first rows into as many columns, through no quotes, and into most; else the comma."""
    best, most = ",", (False, False, 1)
    for separator in SEPARATORS:
        reader = csv.reader(io.StringIO(text, newline=""), delimiter=separator)
        try:
            rows = [row for _, row in zip(range(_NUM_LOOKED_AT), reader, strict=False) if row]
        except csv.Error:
            continue
        if rows:
            is_table = all(len(row) == len(rows[0]) for row in rows)
            found = (is_table, not any('"' in text for row in rows for text in row), len(rows[0]))
            if found[2] > 1 and (most[2] == 1 or found > most):
                best, most = separator, found
    return best


def _with_decimal_points(column: pa.ChunkedArray) -> pa.ChunkedArray | None:
    """The column with points for its decimal commas; None where it is not one of such numbers alone.

    ``1,000`` alone may be a thousand: a column in which every comma could be of thousands stays text.
    """
    if not pc.any(pc.match_substring_regex(column, _DECIMAL_COMMA)).as_py():
        return None
    if not pc.all(pc.match_substring_regex(column, _DECIMAL)).as_py():
        return None
    if pc.all(pc.match_substring_regex(column, _THOUSANDS)).as_py():
        return None
    return pc.replace_substring(column, ",", ".")
