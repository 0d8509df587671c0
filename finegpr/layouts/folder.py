"""Any tree of images without labels, such as a pile of photos of the target."""

import numpy as np
import pyarrow as pa

from finegpr.layouts.listing import Listing, build_frame, rejections
from finegpr.layouts.walk import walk
from finegpr.object_stores import AnyPath


def index(root: AnyPath) -> Listing:
    """List every image below ``root``. Each image is its own identity, 1..n: fine to measure, not to train on."""
    files = walk(root)
    return Listing(
        frame=build_frame(pa.array(files.images, pa.string()), identity=np.arange(1, len(files.images) + 1)),
        rejected=rejections(files.rejected),
        num_ignored=files.num_ignored,
        example="any/folder/photo.jpg",
    )
