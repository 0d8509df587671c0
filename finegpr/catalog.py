"""The catalog: the table of images and their attributes, and the cells they fall into."""

import inspect
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from finegpr import storage
from finegpr.arrays import Bools, Codes, Ints
from finegpr.attributes import Attribute, by_name
from finegpr.errors import ConfigError, InputError, StateError
from finegpr.faults import patiently
from finegpr.foreign import require_catalog
from finegpr.layouts import LAYOUTS
from finegpr.layouts.listing import (
    LABELS,
    PART_TYPE,
    PARTS,
    Listing,
    category_type,
    check_rejected,
    rejections,
    unsafe_paths,
)
from finegpr.layouts.people import refuse_shared
from finegpr.layouts.user_table import nearest
from finegpr.layouts.walk import require_folder
from finegpr.object_stores import AnyPath, locate
from finegpr.subset import Subset

FORMAT = 1
"""Bumped by hand when the file's schema changes."""

WORLD = "world.json"
_DICTIONARY = pa.dictionary(pa.int16(), pa.string())
_METADATA = b"catalog"
# Cells are counted in an array of all possible ones while that has at most so many entries for every row.
_COUNTED_PER_ROW = 4


def parquet_schema(attributes: Sequence[Attribute]) -> pa.Schema:
    """The columns of a catalog file.

    ====================  ==========================  ==========================================================
    path                  string                      relative to the root, with ``/``; never leaves the root
    identity              int64                       -1 junk and 0 distractor (in galleries), persons from 1
    camera                int64                       0 unknown, cameras from 1; below 0 ignored, all different
    part                  dictionary<int16, string>   one of PARTS
    one per attribute     dictionary<int16, string>   one of the attribute's values, null unknown
    ====================  ==========================  ==========================================================

    The schema metadata ``catalog`` is JSON: format, title, layout, root, attributes, rejected, num_ignored.
    """
    fields = [("path", pa.string()), ("identity", pa.int64()), ("camera", pa.int64()), ("part", _DICTIONARY)]
    return pa.schema(fields + [(attribute.name, _DICTIONARY) for attribute in attributes])


@dataclass(frozen=True, kw_only=True, eq=False)
class Cells:
    """The combinations of attribute values that have images.

    ``codes`` (C, A) int16 are value indices in the order of ``attributes``, sorted lexicographically; ``of_row`` (n,)
    int64 is the cell of each row, -1 where one of the attributes is unknown; ``images`` (C,) int64 counts rows.
    """

    attributes: tuple[Attribute, ...]
    codes: Codes
    of_row: Ints
    images: Ints

    def __len__(self) -> int:
        return len(self.images)

    @cached_property
    def frame(self) -> pd.DataFrame:
        """The value names, one row per cell and one column per attribute."""
        return pd.DataFrame(
            {
                attribute.name: pd.Categorical.from_codes(self.codes[:, column], dtype=category_type(attribute))
                for column, attribute in enumerate(self.attributes)
            },
            index=pd.RangeIndex(len(self)),
        )

    def mask(self, subset: Subset) -> Bools:
        """Which cells (C,) are in the subset. Raises InputError for an attribute that is not one of the cells'."""
        mask = np.ones(len(self), dtype=bool)
        for name, chosen in subset.values.items():
            attribute = by_name(self.attributes, name)
            mask &= _is_chosen(attribute, chosen)[self.codes[:, self.attributes.index(attribute)]]
        return mask


@dataclass(frozen=True, kw_only=True, eq=False)
class Catalog:
    """Images and their labels.

    ``frame`` has a RangeIndex and the columns path (str, relative to ``root``, posix), identity and camera (int64),
    part (category over PARTS) and one category column per attribute, whose categories are ``attribute.values`` in order
    and whose NaN means unknown. Identity -1 is junk and 0 a distractor; camera 0 is unknown. ``rejected`` (path,
    reason) lists the files that were left out; ``num_ignored`` counts hidden and companion files. ``notes`` are lines
    to be told when it is made; no file keeps them.
    """

    frame: pd.DataFrame
    root: AnyPath
    title: str
    layout: str
    attributes: tuple[Attribute, ...]
    rejected: pd.DataFrame
    num_ignored: int = 0
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        expected = [*LABELS, *(attribute.name for attribute in self.attributes)]
        if list(self.frame.columns) != expected:
            raise ValueError(f"a catalog's columns should be {expected}, got {list(self.frame.columns)}")

    def __len__(self) -> int:
        return len(self.frame)

    @property
    def identities(self) -> Ints:
        """Who is in each image, (n,): 1 and above are people, 0 a distractor, -1 junk."""
        return self.frame["identity"].to_numpy(dtype=np.int64)

    @classmethod
    def index(cls, root: str | AnyPath, *, layout: str, title: str | None = None, **options: Any) -> "Catalog":
        """List the images below ``root``, sorted by path (bytewise), by one of LAYOUTS and that layout's options.

        ``root`` is a folder, or a URL that pyarrow.fs opens, such as ``s3://bucket/prefix``; ``title`` is what outputs
        call the images, by default what the renderer, the layout or the folder does. Raises ConfigError for an
        unknown layout or option, InputError for a folder that is missing, empty, of another layout, or has too many
        misfits (see ``check_rejected``), and for a person in more than one of training, test and validation.
        """
        root = locate(root)
        if layout not in LAYOUTS:
            raise ConfigError(f"no layout {layout!r}{nearest(layout, LAYOUTS)}; known layouts: {', '.join(LAYOUTS)}")
        _check_options(layout, options)
        require_folder(root)
        listing = _without_unsafe(LAYOUTS[layout](root, **options))
        check_rejected(listing, root=root, layout=layout)
        refuse_shared(listing.frame, root=root)
        world = read_world(root)
        return cls(
            frame=listing.frame,
            root=root,
            title=title or (world["title"] if world else listing.title or root.resolve().name),
            layout=layout,
            attributes=listing.attributes,
            rejected=listing.rejected,
            num_ignored=listing.num_ignored,
            notes=listing.notes,
        )

    def write(self, path: Path) -> None:
        """Atomically write one Parquet file with the schema of ``parquet_schema``."""
        facts = {
            "format": FORMAT,
            "title": self.title,
            "layout": self.layout,
            "root": str(self.root),
            "attributes": [attribute.facts for attribute in self.attributes],
            "rejected": self.rejected.to_dict("list"),
            "num_ignored": self.num_ignored,
        }
        schema = parquet_schema(self.attributes)
        columns = [_to_arrow(self.frame[field.name], field.type) for field in schema]
        storage.write_table(
            path, pa.table(columns, schema=schema.with_metadata({_METADATA: json.dumps(facts, allow_nan=False)}))
        )

    @classmethod
    def read(cls, path: Path, *, root: str | AnyPath | None = None) -> "Catalog":
        """Read what ``write`` wrote; ``root`` says where the images are now, if they were moved.

        Raises InputError when the file is missing or none of ours, or says how its store is reached (see ``locate``),
        StateError when it is damaged, of another format, or names a path outside its root.
        """
        require_catalog(path, key=_METADATA)
        table = storage.read_table(path)
        facts = _read_facts(path, table.schema.metadata or {})
        attributes = tuple(Attribute(**{**fields, "values": tuple(fields["values"])}) for fields in facts["attributes"])
        storage.check_schema(path, table.schema, parquet_schema(attributes))
        if unsafe_paths(table["path"].combine_chunks()).any():
            raise StateError(f"{path} names a file outside its root; it was not made by this program, do not use it")
        frame: dict[str, Any] = {
            "path": table["path"].to_pandas(),
            "identity": table["identity"].to_numpy(),
            "camera": table["camera"].to_numpy(),
            "part": _from_arrow(path, table, "part", PART_TYPE),
        }
        for attribute in attributes:
            frame[attribute.name] = _from_arrow(path, table, attribute.name, category_type(attribute))
        rejected = facts["rejected"]
        return cls(
            frame=pd.DataFrame(frame),
            root=_stored_root(path, facts["root"]) if root is None else locate(root),
            title=facts["title"],
            layout=facts["layout"],
            attributes=attributes,
            rejected=rejections(list(zip(rejected["path"], rejected["reason"], strict=True))),
            num_ignored=facts["num_ignored"],
        )

    def select(self, subset: Subset) -> "Catalog":
        """The rows in the subset; a row whose value of a named attribute is unknown is out.

        Raises InputError for an unknown attribute or value. The result may be empty.
        """
        mask = np.ones(len(self), dtype=bool)
        for name, chosen in subset.values.items():
            # The last entry answers for code -1, unknown.
            is_chosen = np.append(_is_chosen(by_name(self.attributes, name), chosen), False)
            mask &= is_chosen[self.frame[name].cat.codes.to_numpy()]
        return self.take(np.flatnonzero(mask))

    def part(self, *names: str) -> "Catalog":
        """The rows of these parts. Raises InputError for a name that is not in PARTS. The result may be empty."""
        for name in names:
            if name not in PARTS:
                raise InputError(f"no part {name!r}{nearest(name, PARTS)}; known parts: {', '.join(PARTS)}")
        return self.take(np.flatnonzero(self.frame["part"].isin(names).to_numpy()))

    def take(self, rows: npt.NDArray[np.integer[Any]] | Sequence[int]) -> "Catalog":
        """These rows, in this order. Raises ValueError for a mask, which is no list of row numbers."""
        rows = np.asarray(rows)
        if rows.dtype == bool:
            raise ValueError("take needs row numbers, got a mask; pass numpy.flatnonzero(mask)")
        return replace(self, frame=self.frame.take(rows.astype(np.int64)).reset_index(drop=True))

    @property
    def image_attributes(self) -> tuple[Attribute, ...]:
        """The attributes that may differ between images of a person."""
        return tuple(attribute for attribute in self.attributes if attribute.level == "image")

    @property
    def identity_attributes(self) -> tuple[Attribute, ...]:
        """The attributes of the person."""
        return tuple(attribute for attribute in self.attributes if attribute.level == "identity")

    def file_paths(self) -> list[AnyPath]:
        """Where each image is, in row order."""
        return [self.root / path for path in self.frame["path"].tolist()]

    def cells(self, names: Sequence[str]) -> Cells:
        """The non-empty combinations of values of these attributes. InputError for an unknown or repeated name."""
        attributes = tuple(by_name(self.attributes, name) for name in names)
        sizes = [len(attribute.values) for attribute in attributes]
        if len(set(names)) != len(names) or float(np.prod(sizes, dtype=float)) > 2**62:
            raise InputError(f"cells need distinct attributes with at most 2^62 combinations, got {list(names)}")
        key = np.zeros(len(self), dtype=np.int64)
        unknown = np.zeros(len(self), dtype=bool)
        for attribute, size in zip(attributes, sizes, strict=True):
            codes = self.frame[attribute.name].cat.codes.to_numpy()
            unknown |= codes < 0
            key *= size
            key += codes
        key[unknown] = -1
        keys, of_row, images = _number_keys(key, math.prod(sizes))
        cell_codes = np.empty((len(keys), len(attributes)), dtype=np.int16)
        for column in reversed(range(len(attributes))):
            keys, cell_codes[:, column] = np.divmod(keys, sizes[column])
        return Cells(attributes=attributes, codes=cell_codes, of_row=of_row, images=images)

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 of the rows in order: paths, labels and attributes. Root, title and image bytes are not in it."""
        parts = [storage.canonical_hash([attribute.facts for attribute in self.attributes])]
        parts.append(_sha256_of_joined(self.frame["path"]))
        parts += [storage.sha256(self.frame[name].to_numpy("<i8").tobytes()) for name in ("identity", "camera")]
        for name in ("part", *(attribute.name for attribute in self.attributes)):
            parts.append(storage.sha256(self.frame[name].cat.codes.to_numpy("<i2").tobytes()))
        return storage.sha256("".join(parts))


def _number_keys(key: Ints, num_possible: int) -> tuple[Ints, Ints, Ints]:
    """The keys (C,) that occur, in order, the place of each row's key among them (n,), and their counts (C,).

    Keys (n,) are -1, which is no key and has place -1, or 0 .. num_possible - 1.
    """
    if num_possible > _COUNTED_PER_ROW * max(len(key), 1):
        keys, place = np.unique(np.append(key, -1), return_inverse=True)  # -1 is the first, whether it occurs or not
        place = place[:-1] - 1
        return keys[1:], place, np.bincount(place + 1, minlength=len(keys))[1:]
    counts = np.bincount(key + 1, minlength=num_possible + 1)[1:]
    keys = np.flatnonzero(counts)
    place_of = np.full(num_possible + 1, -1, dtype=np.int64)  # the last entry answers for key -1
    place_of[keys] = np.arange(len(keys))
    return keys, place_of[key], counts[keys]


def _is_chosen(attribute: Attribute, chosen: frozenset[str]) -> Bools:
    """Which of the attribute's values are chosen. Raises InputError for an unknown value."""
    mask = np.zeros(len(attribute.values), dtype=bool)
    mask[[attribute.index(value) for value in sorted(chosen)]] = True
    return mask


def _sha256_of_joined(texts: "pd.Series[str]") -> str:
    """SHA-256 of the texts with NUL between them, as UTF-8."""
    array = pa.array(texts, pa.large_string())
    everything = pa.ListArray.from_arrays(pa.array([0, len(array)], pa.int32()), array)
    return storage.sha256(pc.binary_join(everything, pa.scalar("\0", array.type))[0].as_buffer())


def _check_options(layout: str, options: dict[str, Any]) -> None:
    known = {
        name: parameter
        for name, parameter in inspect.signature(LAYOUTS[layout]).parameters.items()
        if parameter.kind is inspect.Parameter.KEYWORD_ONLY
    }
    for name in options:
        if name not in known:
            raise ConfigError(
                f"layout {layout} has no option {name!r}{nearest(name, known)}; "
                f"its options: {', '.join(known) or 'none'}"
            )
    for name, parameter in known.items():
        if parameter.default is inspect.Parameter.empty and name not in options:
            raise ConfigError(f"layout {layout} needs the option {name!r}")


def _without_unsafe(listing: Listing) -> Listing:
    """Reject names that are legal here but would be a drive, a URL or a way out of the root elsewhere."""
    unsafe = unsafe_paths(pa.array(listing.frame["path"], pa.string()))
    if not unsafe.any():
        return listing
    refused = rejections([(path, "looks like a drive, a URL or '..'") for path in listing.frame["path"][unsafe]])
    return replace(
        listing,
        frame=listing.frame[~unsafe].reset_index(drop=True),
        rejected=pd.concat([listing.rejected, refused], ignore_index=True),
    )


def read_world(root: AnyPath) -> dict[str, Any] | None:
    """What the renderer left in the root, with its ``title``; None where it did not render it."""
    path = root / WORLD
    if not path.is_file():
        return None
    text = patiently(path.read_bytes, path)
    try:
        world = json.loads(text)
    except (ValueError, RecursionError):
        world = None
    if not isinstance(world, dict) or not isinstance(world.get("title"), str):
        raise InputError(
            f'{path} should hold {{"title": "..."}}; it is what `aost render` writes: rename the file if it is yours'
        )
    return world


def _to_arrow(column: "pd.Series[Any]", type_: pa.DataType) -> pa.Array:
    if not pa.types.is_dictionary(type_):
        return pa.array(column, type=type_)
    codes = column.cat.codes.to_numpy()
    return pa.DictionaryArray.from_arrays(
        pa.array(codes, type=pa.int16(), mask=codes < 0), pa.array(list(column.cat.categories), type=pa.string())
    )


def _from_arrow(path: Path, table: pa.Table, name: str, dtype: pd.CategoricalDtype) -> pd.Categorical:
    """Codes in the order of ``dtype``: a Parquet dictionary keeps neither the order nor unused values."""
    codes = [np.empty(0, dtype=np.int64)]
    for chunk in table[name].chunks:
        place = dtype.categories.get_indexer(pd.Index(chunk.dictionary.to_pylist(), dtype="str"))
        used = chunk.indices.fill_null(-1).to_numpy()
        if (place < 0).any():
            raise StateError(
                f"{path}: column {name} holds values that are not of {list(dtype.categories)}; index again"
            )
        codes.append(np.append(place, -1)[used])
    return pd.Categorical.from_codes(np.concatenate(codes), dtype=dtype)


def _stored_root(path: Path, root: str) -> AnyPath:
    try:
        return locate(root)
    except ConfigError as error:
        raise InputError(f"{path}: {error}") from None


def _read_facts(path: Path, metadata: dict[bytes, bytes]) -> dict[str, Any]:
    if _METADATA not in metadata:
        raise InputError(f"{path} is another table of this program, not a catalog; `aost index` writes a catalog")
    facts = json.loads(metadata[_METADATA])
    if facts["format"] != FORMAT:
        raise StateError(f"{path} has catalog format {facts['format']}, expected {FORMAT}; index the images again")
    return dict(facts)
