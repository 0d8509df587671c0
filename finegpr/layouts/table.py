"""Any data set described by a CSV or Parquet table with one row per image."""

import os
import posixpath
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa

from finegpr.arrays import Bools, Ints
from finegpr.attributes import Attribute
from finegpr.errors import ConfigError, InputError
from finegpr.layouts.listing import LABELS, PART_TYPE, PARTS, Listing, build_frame, first, rejections, unsafe_paths
from finegpr.layouts.user_table import UserTable, nearest, read_user_table
from finegpr.layouts.walk import require_folder
from finegpr.object_stores import AnyPath, RemotePath

MAX_VALUES = 1000


def index(
    root: AnyPath,
    *,
    table: str | Path,
    path_column: str = "path",
    identity_column: str | None = None,
    camera_column: str | None = None,
    part_column: str | None = None,
    attributes: Sequence[str] | None = None,
    identity_level: Sequence[str] = (),
    circular: Sequence[str] = (),
) -> Listing:
    """List the images that ``table`` names; its path column is relative to ``root``.

    Identities and cameras are integers (identity -1 junk, 0 distractor), or any text, numbered 1..n in sorted order.
    Without ``identity_column`` each image is its own identity, 1..n: fine to measure, not to train on.
    ``attributes`` defaults to all other columns; those in ``identity_level`` belong to the person, those in
    ``circular`` hold angles in degrees. Files that do not exist are rejected row by row; unsafe or repeated paths,
    missing values and an attribute with more than 1000 values are an InputError with row numbers.
    """
    require_folder(root)
    rows = read_user_table(table, root=root)
    paths = _paths(rows, path_column, root)
    for option, chosen in (("attributes", attributes), ("identity_level", identity_level), ("circular", circular)):
        if isinstance(chosen, str):
            raise ConfigError(f"{option} should be a list of columns, got the text {chosen!r}")
    used = [column for column in (path_column, identity_column, camera_column, part_column) if column is not None]
    names = [column for column in rows.columns if column not in used] if attributes is None else list(attributes)
    for option, chosen in (("identity_level", identity_level), ("circular", circular)):
        for name in chosen:
            if name not in names:
                raise InputError(f"{option} names {name!r}, which is no attribute{nearest(name, names)}; got {names}")

    identity = np.arange(1, len(rows) + 1) if identity_column is None else rows.labels(identity_column, least=-1)
    camera = np.zeros(len(rows), np.int64) if camera_column is None else rows.labels(camera_column, least=0)
    values = {}
    for name in names:
        level = "identity" if name in identity_level else "image"
        attribute, codes = _attribute(rows, name, circular=name in circular, is_identity_level=level == "identity")
        if level == "identity":
            _refuse_mixed(rows, attribute, codes, identity)
        values[attribute] = codes

    exists, reasons = _existing(paths, root)
    rejected = [(path, reason) for path, reason in zip(paths, reasons, strict=True) if reason]
    order = np.argsort(np.asarray(paths, dtype=object)[exists], kind="stable")
    kept = np.flatnonzero(exists)[order]
    return Listing(
        frame=build_frame(
            pa.array(paths, pa.string()).take(pa.array(kept)),
            identity=identity[kept],
            camera=camera[kept],
            part="train" if part_column is None else _parts(rows, part_column)[kept],
            attributes={attribute: codes[kept] for attribute, codes in values.items()},
        ),
        attributes=tuple(values),
        rejected=rejections(rejected),
        example="a path, relative to the root, of a file that exists",
    )


def _paths(rows: UserTable, column: str, root: AnyPath) -> list[str]:
    """Normalised relative paths (n,), every one inside the root and named once."""
    texts = rows.texts(column, strip=False)
    for prefix in {f"{root.absolute()}/", f"{root.resolve()}/"}:
        texts = texts.str.removeprefix(prefix)
    rows.refuse_rows(
        unsafe_paths(pa.array(texts, pa.string())),
        f"{column} should be a path inside {root}, without '..', drive or URL",
        column=column,
    )
    paths = [posixpath.normpath(path) if "//" in path or "./" in path else path for path in texts.tolist()]
    repeated = pd.Series(paths).duplicated().to_numpy()
    rows.refuse_rows(repeated, f"{column} repeats the path of an earlier row; keep one", column=column)
    return paths


def _existing(paths: Sequence[str], root: AnyPath) -> tuple[Bools, list[str]]:
    """Whether each file exists inside the root, and the reason where not. Each folder is listed once."""
    found: dict[str, dict[str, str]] = {}
    reasons = []
    for path in paths:
        folder, _, name = path.rpartition("/")
        if folder not in found:
            found[folder] = _regular_files(root, folder)
        reasons.append(found[folder].get(name, "no such file"))
    return np.array([not reason for reason in reasons], dtype=bool), reasons


def _regular_files(root: AnyPath, below: str) -> dict[str, str]:
    """File name -> '' or the reason why it cannot be used, of the folder ``root / below``."""
    if isinstance(root, RemotePath):
        try:
            return {name: "" for name, is_file in (root / below).entries() if is_file}
        except FileNotFoundError:
            return {}
    folder = root / below
    inside = os.path.join(os.path.realpath(root), "")  # noqa: PTH118 - a string prefix is what is compared
    if not os.path.join(os.path.realpath(folder), "").startswith(inside):  # noqa: PTH118
        return {}
    files = {}
    try:
        with os.scandir(folder) as scan:
            for entry in scan:
                if entry.is_symlink() and not os.path.realpath(entry.path).startswith(inside):
                    files[entry.name] = "link leaves the root"
                elif os.path.isfile(entry.path):  # noqa: PTH113 - entry.is_file raises for a link to itself
                    files[entry.name] = ""
    except OSError:
        return {}
    return files


def _attribute(rows: UserTable, name: str, *, circular: bool, is_identity_level: bool) -> tuple[Attribute, Ints]:
    """An attribute whose values are those of the column (angles and numbers in numeric order), and its codes (n,)."""
    if name in LABELS:
        raise InputError(f"{rows.path}: a column called {name!r} cannot be an attribute; rename it or list attributes")
    codes, uniques = rows.texts(name).factorize()
    distinct = [str(value) for value in uniques]
    if len(distinct) > MAX_VALUES:
        raise InputError(
            f"{rows.path}: attribute {name!r} has {len(distinct)} values, at most {MAX_VALUES} are allowed; "
            f"group them first, for instance pandas.cut({name}, 8, labels=...), or list attributes without it"
        )
    numbers = pd.to_numeric(pd.Series([value.removesuffix("deg") for value in distinct]), errors="coerce").to_numpy()
    order = np.argsort(numbers if np.isfinite(numbers).all() else np.asarray(distinct), kind="stable")
    attribute = Attribute(
        name=name,
        values=tuple(distinct[position] for position in order),
        level="identity" if is_identity_level else "image",
        circular=circular,
    )
    rank = np.empty(len(order), np.int64)
    rank[order] = np.arange(len(order))
    return attribute, rank[codes]


def _refuse_mixed(rows: UserTable, attribute: Attribute, codes: Ints, identity: Ints) -> None:
    people, first_row, position = np.unique(identity, return_index=True, return_inverse=True)
    mixed = np.unique(identity[codes != codes[first_row[position]]])
    if len(mixed):
        raise InputError(
            f"{rows.path}: {attribute.name} is an identity-level attribute, but {len(mixed)} of {len(people)} "
            f"identities have several values: {first(mixed.tolist())}; give each one value or call it no identity_level"
        )


def _parts(rows: UserTable, column: str) -> "pd.Categorical[Any]":
    texts = rows.texts(column)
    rows.refuse_rows(~texts.isin(PARTS).to_numpy(), f"{column} should be one of {', '.join(PARTS)}", column=column)
    return pd.Categorical(texts, dtype=PART_TYPE)
