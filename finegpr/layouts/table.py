"""Any data set described by a CSV or Parquet table with one row per image."""

import os
import posixpath
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa

from finegpr.arrays import Bools, Ints
from finegpr.attributes import Attribute
from finegpr.errors import ConfigError, InputError
from finegpr.faults import is_absent, patiently, unreadable
from finegpr.layouts.listing import GALLERIES, PART_TYPE, PARTS, Listing, build_frame, first, rejections, unsafe_paths
from finegpr.layouts.table_attributes import Kinds, read_attribute
from finegpr.layouts.table_ids import cameras, identities
from finegpr.layouts.user_table import UserTable, read_user_table
from finegpr.layouts.walk import require_folder
from finegpr.object_stores import AnyPath, RemotePath


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
    ordinal: Sequence[str] | Mapping[str, Sequence[str]] = (),
    bins: Mapping[str, int] = MappingProxyType({}),
    missing: str | None = None,
    first_identity: int | None = None,
    first_camera: int | None = None,
) -> Listing:
    """List the images that ``table`` names; its path column is relative to ``root``.

    Identities and cameras are whole numbers or names; -1 junk and 0 distractors are of galleries, persons and cameras
    may count from 0: see ``finegpr.layouts.table_ids``. Without ``identity_column`` each image is its own identity,
    1..n: fine to measure, not to train on.
    ``attributes`` defaults to all other columns of text, numbers or dates; those in ``identity_level`` belong to the
    person, those in ``circular`` hold angles in degrees, those in ``ordinal`` are ordered, by number or as a mapping
    lists their values; ``bins`` makes so many ranges of a column; ``missing`` values are an error, a value of their own
    (own-value), or their images are not listed (leave-out): see ``finegpr.layouts.table_attributes``. Files that do not
    exist are rejected row by row; unsafe or repeated paths, missing values and an attribute with a value for nearly
    every image are an InputError.
    """
    require_folder(root)
    if isinstance(attributes, str):
        raise ConfigError(f"attributes should be a list of columns, got the text {attributes!r}")
    used = [column for column in (path_column, identity_column, camera_column, part_column) if column is not None]
    rows = read_user_table(table, root=root, only=None if attributes is None else [*used, *attributes])
    paths = _paths(rows, path_column, root)
    others = [column for column in rows.columns if column not in used]
    names = [name for name in others if rows.is_usable(name)] if attributes is None else list(attributes)
    kinds = Kinds.of(
        names, identity_level=identity_level, circular=circular, ordinal=ordinal, bins=bins, missing=missing
    )
    notes = list(rows.notes)
    if attributes is None and (unusable := [name for name in others if name not in names]):
        notes.append(f"{rows.path}: columns of lists, structs or bytes are no attributes: {first(unusable)}")

    part = pd.Categorical(["train"], dtype=PART_TYPE).repeat(len(rows))
    if part_column is not None:
        part = _parts(rows, part_column)
    identity, camera = np.arange(1, len(rows) + 1), np.zeros(len(rows), np.int64)
    if identity_column is not None:
        identity, said = identities(rows, identity_column, in_gallery=np.isin(part, GALLERIES), lowest=first_identity)
        notes += said
    if camera_column is not None:
        camera, said = cameras(rows, camera_column, lowest=first_camera)
        notes += said
    values = {}
    known = np.ones(len(rows), dtype=bool)
    for name in names:
        attribute, codes, said = read_attribute(rows, name, kinds, identity)
        if attribute.level == "identity":
            _refuse_mixed(rows, attribute, codes, identity)
        values[attribute] = codes
        known &= codes >= 0
        notes += said
    if not known.all():
        notes.append(f"{rows.path}: {int((~known).sum())} of {len(rows)} images left out for a missing value")

    exists, reasons = _existing(paths, root)
    rejected = [(path, reason) for path, reason in zip(paths, reasons, strict=True) if reason]
    listed = exists & known
    order = np.argsort(np.asarray(paths, dtype=object)[listed], kind="stable")
    kept = np.flatnonzero(listed)[order]
    return Listing(
        frame=build_frame(
            pa.array(paths, pa.string()).take(pa.array(kept)),
            identity=identity[kept],
            camera=camera[kept],
            part=part[kept],
            attributes={attribute: codes[kept] for attribute, codes in values.items()},
        ),
        attributes=tuple(values),
        rejected=rejections(rejected),
        example="a path, relative to the root, of a file that exists",
        notes=tuple(notes),
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
        entries = patiently(lambda: list(os.scandir(folder)), folder)
    except OSError as error:
        if is_absent(error):
            return {}
        raise unreadable(folder, error) from None
    for entry in entries:
        if entry.is_symlink() and not os.path.realpath(entry.path).startswith(inside):
            files[entry.name] = "link leaves the root"
        elif os.path.isfile(entry.path):  # noqa: PTH113 - entry.is_file raises for a link to itself
            files[entry.name] = ""
    return files


def _refuse_mixed(rows: UserTable, attribute: Attribute, codes: Ints, identity: Ints) -> None:
    known = (codes >= 0) & (identity > 0)  # junk and distractors are of many
    codes, identity = codes[known], identity[known]
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
