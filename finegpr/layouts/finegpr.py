"""FineGPR: ``0001/0001_c01_w01_l01_p01.jpg`` (identity, camera, weather, illumination, scene), nested or flat."""

import math
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa

from finegpr.attributes import IDENTITY_ATTRIBUTES, ILLUMINATION, SCENE, VIEWPOINT, WEATHER, Attribute
from finegpr.errors import InputError
from finegpr.layouts.listing import Listing, build_frame, first, rejections, title_of
from finegpr.layouts.names import Integers, read_numbers
from finegpr.layouts.user_table import UserTable, nearest, read_user_table
from finegpr.layouts.walk import walk
from finegpr.object_stores import AnyPath

EXAMPLE = "0001/0001_c01_w01_l01_p01.jpg"
DEFAULT_TABLE = "attributes.csv"
# Body masks and key points come with the full set; they are images of no person.
ANNOTATION_FOLDERS = ("masks", "mask", "keypoints", "key_points", "poses")
_NAME = (
    r"(?:(?P<folder>[0-9]{4,9})/)?(?P<identity>[0-9]{4,9})"
    r"_c(?P<viewpoint>[0-9]{2})_w(?P<weather>[0-9]{2})_l(?P<illumination>[0-9]{2})_p(?P<scene>[0-9]{2})"
    r"\.(?i:jpg|jpeg|png)"
)
# Images of the whole set, and of its flat subset.
_PUBLISHED = (2_028_600, 4_600)
_CODED = (VIEWPOINT, WEATHER, ILLUMINATION, SCENE)
# Repeated labels are looked for in an array of all possible ones while that has at most so many bytes for every row.
_FLAGS_PER_ROW = 32


def index(root: AnyPath, *, identity_attributes: str | Path | None = None) -> Listing:
    """List FineGPR below ``root``; both forms on disk are recognised.

    ``identity_attributes`` is a CSV or Parquet table with a column ``identity`` and any of the thirteen identity
    attributes, by value (``male``) or by code (``01``); ``attributes.csv`` in the root is the default.
    """
    files = walk(root, skip=ANNOTATION_FOLDERS)
    paths = pa.array(files.images, pa.string())
    matched, numbers = read_numbers(paths, _NAME)
    folder, identity = numbers["folder"], numbers["identity"]
    wrong = {
        f"not a name such as {EXAMPLE}": ~matched,
        "its identity is 0000; identities count from 0001": identity == 0,
        "lies in the folder of another identity": (folder >= 0) & (folder != identity),
    }
    for attribute in _CODED:
        code = numbers[attribute.name]
        wrong[f"unknown {attribute.name} code; known are 01 to {len(attribute.values):02}"] = (code < 1) | (
            code > len(attribute.values)
        )
    rejected = list(files.rejected)
    good = np.ones(len(paths), dtype=bool)
    for reason, rows in wrong.items():
        rejected += [(files.images[row], reason) for row in np.flatnonzero(rows & good)]
        good &= ~rows

    if not good.all():
        paths = paths.filter(pa.array(good))
        identity, numbers = identity[good], {name: number[good] for name, number in numbers.items()}
    camera = numbers[VIEWPOINT.name]
    values = {attribute: numbers[attribute.name] - 1 for attribute in _CODED}
    # c01 looks from 90 degrees and the camera goes on in steps of ten: c28 is at 0.
    values[VIEWPOINT] = (values[VIEWPOINT] + 9) % len(VIEWPOINT.values)
    _refuse_duplicates(paths, identity, values)

    table = _identity_table(root, identity_attributes)
    if table is not None and len(identity):
        values |= _identity_values(table, identity)
    return Listing(
        frame=build_frame(paths, identity=identity, camera=camera, attributes=values),
        attributes=tuple(values),
        rejected=rejections(rejected),
        num_ignored=files.num_ignored,
        title=title_of(root, "FineGPR", fits=len(paths) in _PUBLISHED),
        example=EXAMPLE,
        notes=() if table is None else table.notes,
    )


def _refuse_duplicates(paths: pa.Array, identity: Integers, values: dict[Attribute, Integers]) -> None:
    key = identity.astype(np.int64)
    for attribute, codes in values.items():
        key *= len(attribute.values)
        key += codes
    num_possible = (int(identity.max(initial=0)) + 1) * math.prod(len(attribute.values) for attribute in values)
    if num_possible < _FLAGS_PER_ROW * len(key):
        seen = np.zeros(num_possible, dtype=bool)
        seen[key] = True
        if np.count_nonzero(seen) == len(key):
            return
    repeated = pd.Series(key).duplicated().to_numpy()
    if repeated.any():
        names = paths.filter(pa.array(repeated)).slice(0, 10).to_pylist()
        raise InputError(
            f"{int(repeated.sum())} images repeat the labels of another (is the set there both nested and flat?): "
            f"{first(names)}; keep one copy"
        )


def _identity_table(root: AnyPath, given: str | Path | None) -> UserTable | None:
    if given is not None:
        return read_user_table(given, root=root)
    return read_user_table(root / DEFAULT_TABLE, root=root) if (root / DEFAULT_TABLE).is_file() else None


def _identity_values(table: UserTable, identity: Integers) -> dict[Attribute, Integers]:
    """Value indices (n,) of every identity attribute that the table has a column for."""
    known = {attribute.name: attribute for attribute in IDENTITY_ATTRIBUTES}
    for column in table.columns:
        if column != "identity" and column not in known:
            raise InputError(
                f"{table.path}: unknown column {column!r}{nearest(column, known)}; "
                f"known are identity, {', '.join(known)}"
            )
    numbers = table.integers("identity")
    repeated = pd.Series(numbers).duplicated()
    if repeated.any():
        raise InputError(
            f"{table.path}: identities given twice: {first(numbers[repeated].tolist())}; keep one row each"
        )
    person, present = pd.factorize(identity)
    missing = np.setdiff1d(present, numbers)
    if len(missing):
        raise InputError(
            f"{table.path} lacks {len(missing)} of {len(present)} identities: "
            f"{first([f'{number:04}' for number in missing])}; add their rows"
        )
    order = np.argsort(numbers)
    rows = order[np.searchsorted(numbers, present, sorter=order)]
    return {
        attribute: _value_indices(table, attribute)[rows][person]
        for attribute in IDENTITY_ATTRIBUTES
        if attribute.name in table.columns
    }


def _value_indices(table: UserTable, attribute: Attribute) -> Integers:
    texts = table.texts(attribute.name)
    known = {value: position for position, value in enumerate(attribute.values)}
    for position in range(len(attribute.values)):
        known[str(position + 1)] = known[f"{position + 1:02}"] = position
    indices = texts.map(known)
    table.refuse_rows(
        indices.isna().to_numpy(),
        f"{attribute.name} should be one of {', '.join(attribute.values)} or a code 01 to {len(attribute.values):02}",
        column=attribute.name,
    )
    return np.asarray(indices, dtype=np.int32)
