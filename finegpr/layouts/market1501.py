"""Market-1501: ``bounding_box_train/0002_c1s1_000451_03.jpg`` (identity, camera, sequence, frame, box)."""

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from finegpr.errors import InputError
from finegpr.layouts.listing import PART_TYPE, PARTS, Listing, build_frame, first, rejections
from finegpr.layouts.walk import require_folder, walk
from finegpr.object_stores import AnyPath

EXAMPLE = "bounding_box_train/0002_c1s1_000451_03.jpg"
FOLDERS = {
    "bounding_box_train": "train",
    "query": "query",
    "bounding_box_test": "gallery",
    "validation_query": "validation_query",
    "validation_gallery": "validation_gallery",
}
# The frame part is c1s1_000451_03 in Market-1501 and c1_f0046182 in DukeMTMC-reID; some names end in .jpg.jpg.
_NAME = (
    r"/(?P<identity>-1|[0-9]{4,9})_c(?P<camera>[0-9]{1,3})(?:s[0-9]+_[0-9]+_[0-9]+|_f[0-9]+)"
    r"\.(?i:jpg|jpeg|png)(?:\.(?i:jpg))?$"
)


def index(root: AnyPath) -> Listing:
    """List the Market-1501 folders that are there; ``validation_query`` and ``validation_gallery`` are optional too.

    Identity -1 is junk and 0 a distractor, both in galleries only. Raises InputError when no folder is there.
    """
    require_folder(root)
    present = [folder for folder in FOLDERS if (root / folder).is_dir()]
    if not present:
        got = first(sorted(entry.name for entry in root.iterdir())) or "nothing"
        raise InputError(f"{root} has none of the folders {', '.join(FOLDERS)} of layout market1501, got {got}")
    listed = {folder: walk(root, below=folder) for folder in sorted(present)}
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
        title="Market-1501",
        example=EXAMPLE,
    )
