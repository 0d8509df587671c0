"""Any tree of images without labels, such as a pile of photos of the target."""

from collections.abc import Sequence

import numpy as np
import pyarrow as pa

from finegpr.errors import InputError
from finegpr.layouts import market1501
from finegpr.layouts.listing import Listing, build_frame, first, rejections
from finegpr.layouts.walk import walk
from finegpr.object_stores import AnyPath

_OF_MARKET = {*market1501.FOLDERS, *market1501.OTHERS}
_TESTS = {"query", "gallery", "test", "val", "validation", "probe", "image_query", "image_test"}
_PARTS = {"train", "image_train", *_TESTS}


def index(root: AnyPath) -> Listing:
    """List every image below ``root``. Each image is its own identity, 1..n: fine to measure, not to train on.

    Raises InputError for a folder in the layout of Market-1501, whose test images would be photos to imitate.
    """
    files = walk(root)
    return Listing(
        frame=build_frame(pa.array(files.images, pa.string()), identity=np.arange(1, len(files.images) + 1)),
        rejected=rejections(files.rejected),
        num_ignored=files.num_ignored,
        example="any/folder/photo.jpg",
        notes=_notes(root, files.images),
    )


def _notes(root: AnyPath, images: Sequence[str]) -> tuple[str, ...]:
    """What is said of folders that look like the parts of a data set."""
    beside: dict[str, set[str]] = {}  # the folders of each folder
    for folder in {path.rpartition("/")[0] for path in images}:
        parent = ""
        for name in folder.split("/"):
            beside.setdefault(parent, set()).add(name)
            parent = f"{parent}/{name}" if parent else name
    notes = []
    for parent, names in sorted(beside.items()):
        place = root / parent if parent else root
        if len(parts := sorted(name for name in names if name.lower() in _OF_MARKET)) > 1:
            raise InputError(
                f"{place} is in the layout of Market-1501 ({', '.join(parts)}), and layout folder would mix its test "
                f"images with the photos to imitate; give {place} with layout market1501, or one of these folders"
            )
        parts = sorted(name for name in names if name.lower() in _PARTS)
        if len(parts) > 1 and any(name.lower() in _TESTS for name in parts):
            notes.append(f"{place}: all of {first(parts)} are photos to imitate; give one of them to leave the others")
    return tuple(notes)
