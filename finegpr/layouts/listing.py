"""What a layout hands back: one row per image, what was left out and why, and when that is too much."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Concatenate

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from finegpr.arrays import Bools
from finegpr.attributes import Attribute
from finegpr.errors import InputError
from finegpr.layouts.names import as_bytes
from finegpr.layouts.walk import IMAGE_SUFFIXES, NO_IMAGE
from finegpr.object_stores import AnyPath

PARTS = ("train", "query", "gallery", "validation_query", "validation_gallery")
PART_TYPE = pd.CategoricalDtype(list(PARTS))
GALLERIES = ("gallery", "validation_gallery")
LABELS = ("path", "identity", "camera", "part")

MAX_REJECTED = 20
MAX_REJECTED_SHARE_OF_MANY = 0.001
MAX_REJECTED_SHARE = 0.1

_BYTES_AT_A_TIME = 1 << 18  # they fit the processor's cache
# Windows and POSIX forms alike: a catalog may be read on another machine than the one that wrote it.
_UNSAFE = r"^$|^[/\\]|^[A-Za-z]:|\x00|^[A-Za-z][A-Za-z0-9+.-]*://|(^|[/\\])\.\.([/\\]|$)"


@dataclass(frozen=True, kw_only=True, eq=False)
class Listing:
    """The images found below a root, in the order of the catalog.

    ``frame`` has the columns of ``LABELS`` and one category column per attribute. ``rejected`` (path, reason) are
    files that should have been images of this layout; ``num_ignored`` counts the rest (hidden files, tables ...).
    ``title`` is the data set's name when the layout implies one. ``example`` is a path this layout accepts. ``notes``
    are what a person should be told: lines.
    """

    frame: pd.DataFrame
    attributes: tuple[Attribute, ...] = ()
    rejected: pd.DataFrame
    num_ignored: int = 0
    title: str | None = None
    example: str
    notes: tuple[str, ...] = ()


Layout = Callable[Concatenate[AnyPath, ...], Listing]
"""Lists the images below a root by one naming convention; its keyword-only parameters are its options.

Raises InputError when the folder or a table is unusable as a whole; single files are rejected with a reason.
"""


def build_frame(
    paths: pa.Array,
    *,
    identity: npt.NDArray[np.integer[Any]],
    camera: npt.NDArray[np.integer[Any]] | int = 0,
    part: "pd.Categorical[Any] | str" = "train",
    attributes: Mapping[Attribute, npt.NDArray[np.integer[Any]]] | None = None,
) -> pd.DataFrame:
    """Assemble a catalog's frame of n rows from columns of length n; attributes are value indices, -1 unknown."""
    columns: dict[str, Any] = {
        "path": paths.cast(pa.string()).to_pandas(),
        "identity": identity.astype(np.int64),
        "camera": np.broadcast_to(np.asarray(camera, dtype=np.int64), len(paths)),
        "part": pd.Categorical([part], dtype=PART_TYPE).repeat(len(paths)) if isinstance(part, str) else part,
    }
    for attribute, codes in (attributes or {}).items():
        columns[attribute.name] = pd.Categorical.from_codes(codes, dtype=category_type(attribute))
    return pd.DataFrame(columns)


def category_type(attribute: Attribute) -> pd.CategoricalDtype:
    """The pandas type of an attribute's column: its values, in order."""
    return pd.CategoricalDtype(list(attribute.values))


def rejections(rows: Sequence[tuple[str, str]] = ()) -> pd.DataFrame:
    """The table of rejected files: path and reason."""
    return pd.DataFrame(list(rows), columns=["path", "reason"], dtype="str")


def unsafe_paths(paths: pa.Array) -> Bools:
    """Which paths (n,) could leave the root: absolute, drive letter, URL, NUL, ``..`` or empty."""
    if not _may_be_unsafe(paths):
        return np.zeros(len(paths), dtype=bool)
    return np.asarray(pc.match_substring_regex(paths, _UNSAFE).to_numpy(zero_copy_only=False), dtype=bool)


def _may_be_unsafe(paths: pa.Array) -> bool:
    """Whether any path is empty, begins with ``/``, or holds ``:``, ``\\``, NUL or ``..``: soon seen, seldom true."""
    if not len(paths):
        return False
    text, starts = as_bytes(paths)
    begins = starts[:-1]
    if (begins == starts[1:]).any() or (text[begins] == ord("/")).any():
        return True
    for begin in range(0, len(text), _BYTES_AT_A_TIME):
        piece = text[begin : begin + _BYTES_AT_A_TIME + 1]
        is_dot = piece == ord(".")
        if (is_dot[1:] & is_dot[:-1]).any() or any((piece == byte).any() for byte in b":\\\0"):
            return True
    return False


def first(values: Sequence[object], *, limit: int = 10) -> str:
    """The first ten of ``values`` for a message of one line."""
    texts = [text if (text := str(value)).isprintable() else repr(text) for value in values[:limit]]
    return ", ".join(texts) + (", ..." if len(values) > limit else "")


def title_of(root: AnyPath, name: str, *, fits: bool) -> str:
    """What a folder in the layout of the data set ``name`` is called: so where its counts are the published ones."""
    return name if fits else f"{root.resolve().name} in {name}'s layout"


def check_rejected(listing: Listing, *, root: object, layout: str) -> None:
    """Refuse a listing without images or with too many rejected files.

    More than max(20 files, 0.1 %) of the candidate files, and always more than 10 %, is an InputError with counts,
    the first reasons and an accepted example.
    """
    num_rejected, num_images = len(listing.rejected), len(listing.frame)
    suffixes = ""
    if (listing.rejected["reason"] == NO_IMAGE).any():
        suffixes = f"; names of images end in {', '.join(sorted(IMAGE_SUFFIXES))}"
    if num_images == 0 and num_rejected == 0:
        raise InputError(f"{root} holds no images; layout {layout} expects files such as {listing.example}")
    if num_images == 0:
        got = listing.rejected.iloc[0]
        raise InputError(
            f"none of the {num_rejected} files in {root} fits layout {layout}: got {got['path']!r} ({got['reason']}), "
            f"expected names such as {listing.example!r}{suffixes}; choose another layout or folder"
        )
    num_files = num_images + num_rejected
    limit = min(max(MAX_REJECTED, MAX_REJECTED_SHARE_OF_MANY * num_files), MAX_REJECTED_SHARE * num_files)
    if num_rejected > limit:
        reasons = [f"{row.path}: {row.reason}" for row in listing.rejected.head(3).itertuples()]
        raise InputError(
            f"{num_rejected} of {num_files} files in {root} do not fit layout {layout}, at most {int(limit)} may; "
            f"the first: {'; '.join(reasons)}; expected names such as {listing.example!r}{suffixes}"
        )
