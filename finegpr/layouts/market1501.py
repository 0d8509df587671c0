"""Market-1501: ``bounding_box_train/0002_c1s1_000451_03.jpg`` (identity, camera, sequence, frame, box)."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from finegpr.errors import InputError
from finegpr.layouts.listing import PART_TYPE, PARTS, Listing, build_frame, first, rejections, title_of
from finegpr.layouts.walk import require_folder, walk
from finegpr.object_stores import AnyPath, RemotePath

EXAMPLE = "bounding_box_train/0002_c1s1_000451_03.jpg"
FOLDERS = {
    "bounding_box_train": "train",
    "query": "query",
    "bounding_box_test": "gallery",
    "validation_query": "validation_query",
    "validation_gallery": "validation_gallery",
}
# Beside them lie crops drawn by hand.
OTHERS = ("gt_bbox", "gt_query")
# Images per part, as published; of Market-1501's gallery also without junk, and without distractors too.
_PUBLISHED: dict[str, dict[str, tuple[int, ...]]] = {
    "Market-1501": {"train": (12_936,), "query": (3_368,), "gallery": (19_732, 15_913, 13_115)},
    "DukeMTMC-reID": {"train": (16_522,), "query": (2_228,), "gallery": (17_661,)},
}
# The frame part is c1s1_000451_03 in Market-1501 and c1_f0046182 in DukeMTMC-reID; some names end in .jpg.jpg.
_NAME = (
    r"/(?P<identity>-1|[0-9]{4,9})_c(?P<camera>[0-9]{1,3})(?:s[0-9]+_[0-9]+_[0-9]+|_f[0-9]+)"
    r"\.(?i:jpg|jpeg|png)(?:\.(?i:jpg))?$"
)


def index(root: AnyPath) -> Listing:
    """List the Market-1501 folders that are there; ``validation_query`` and ``validation_gallery`` are optional too.

    Images lie in these folders themselves; folders in them are not read, and said. Identity -1 is junk and 0 a
    distractor, both in galleries only. Raises InputError when no folder is there.
    """
    require_folder(root)
    present = [folder for folder in FOLDERS if _is_there(root / folder)]
    if not present:
        got = first(sorted(entry.name for entry in root.iterdir())) or "nothing"
        raise InputError(f"{root} has none of the folders {', '.join(FOLDERS)} of layout market1501, got {got}")
    listed = {folder: walk(root, below=folder, one_level=True) for folder in sorted(present)}
    for folder, files in listed.items():
        if files.deeper and not files.images:
            raise InputError(
                f"{root / folder} holds no images itself, only folders ({first(files.deeper, limit=3)}); "
                "layout market1501 reads images that lie in it"
            )
    names = [name for files in listed.values() for name in files.images]
    part = np.repeat([PARTS.index(FOLDERS[folder]) for folder in listed], [len(f.images) for f in listed.values()])
    rejected = [row for files in listed.values() for row in files.rejected]

    paths = pa.array(names, pa.string())
    fields = pc.extract_regex(paths, _NAME)
    matched = np.asarray(fields.is_valid())
    rejected += [(names[row], f"not a name such as {EXAMPLE}") for row in np.flatnonzero(~matched)]
    kept = np.flatnonzero(matched)
    identity, camera = (np.asarray(field.cast(pa.int64())) for field in fields.filter(pa.array(matched)).flatten())
    part = part[kept].astype(np.int8)

    is_gallery = np.isin(part, [PARTS.index("gallery"), PARTS.index("validation_gallery")])
    wrong = {
        "camera 0; cameras count from 1": camera == 0,
        "junk (-1) or distractor (0000) outside a gallery": (identity < 1) & ~is_gallery,
    }
    good = np.ones(len(kept), dtype=bool)
    for reason, rows in wrong.items():
        rejected += [(names[kept[row]], reason) for row in np.flatnonzero(rows & good)]
        good &= ~rows
    identity, camera, part, kept = identity[good], camera[good], part[good], kept[good]
    return Listing(
        frame=build_frame(
            paths.take(pa.array(kept)),
            identity=identity,
            camera=camera,
            part=pd.Categorical.from_codes(part, dtype=PART_TYPE),
        ),
        rejected=rejections(rejected),
        num_ignored=sum(files.num_ignored for files in listed.values()),
        title=_title(root, part),
        example=EXAMPLE,
        notes=_not_read(root, [folder for files in listed.values() for folder in files.deeper]),
    )


def _is_there(folder: AnyPath) -> bool:
    """Whether anything is there by this name, which ``walk`` will refuse when it is no folder."""
    return folder.is_dir() if isinstance(folder, RemotePath) else folder.exists() or folder.is_symlink()


def _title(root: AnyPath, part: npt.NDArray[np.int8]) -> str:
    counts = dict(zip(PARTS, np.bincount(part, minlength=len(PARTS)).tolist(), strict=True))
    for name, published in _PUBLISHED.items():
        if len(part) and all(counts[each] in (0, *published.get(each, ())) for each in PARTS):
            return name
    return title_of(root, "Market-1501", fits=False)


def _not_read(root: AnyPath, deeper: Sequence[str]) -> tuple[str, ...]:
    notes = []
    if deeper:
        notes.append(f"{root}: not read, as images of layout market1501 lie in its own folders: {first(deeper)}")
    others = sorted(
        entry.name
        for entry in root.iterdir()
        if entry.name not in (*FOLDERS, *OTHERS) and not entry.name.startswith(".") and entry.is_dir()
    )
    if others:
        notes.append(f"{root}: not read, as these are no folders of layout market1501: {first(others)}")
    return tuple(notes)
