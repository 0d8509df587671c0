"""The parts of a catalog: what may be drawn from and trained on, and that none of it is in a test."""

from dataclasses import replace

import numpy as np
import pandas as pd

from finegpr.arrays import Bools
from finegpr.catalog import Catalog
from finegpr.errors import InputError, StateError
from finegpr.layouts.listing import GALLERIES
from finegpr.object_stores import AnyPath, RemotePath


def without(catalog: Catalog, rows: Bools) -> Catalog:
    """The same catalog, in which these ``rows`` (n,) are junk of unknown attributes.

    So they are in no cell, fill no budget and are never drawn, and all rows keep their numbers.
    """
    frame = catalog.frame.copy()
    frame["identity"] = np.where(rows, -1, frame["identity"])
    for attribute in catalog.attributes:
        frame[attribute.name] = frame[attribute.name].where(~rows)
    return replace(catalog, frame=frame)


def train_part(catalog: Catalog) -> tuple[Catalog, str | None]:
    """The catalog as a source: ``without`` its query and gallery images, and a line on them, None where it has none.

    Raises InputError where all of its images are of these parts, and as ``require_people``.
    """
    require_people(catalog)
    is_test = (catalog.frame["part"] != "train").to_numpy()
    if not is_test.any():
        return catalog, None
    counts = catalog.frame["part"][is_test].value_counts(sort=False)
    others = ", ".join(f"{count} of {part}" for part, count in counts.items() if count)
    if is_test.all():
        raise InputError(
            f"{catalog.title} has no images in its part train ({others}), and only these are drawn and trained on; "
            "give a catalog of training images"
        )
    note = f"{catalog.title}: only the {int((~is_test).sum())} images of its part train are used, not {others}"
    return without(catalog, is_test), note


def require_people(catalog: Catalog) -> None:
    """Raises StateError where images outside galleries are of identity 0 or -1: no layout lists such."""
    is_wrong = (catalog.frame["identity"] < 1) & ~catalog.frame["part"].isin(GALLERIES)
    if is_wrong.any():
        raise StateError(
            f"the catalog of {catalog.title} has {int(is_wrong.sum())} images of identity 0 or -1 in its part "
            f"{catalog.frame['part'][is_wrong].iloc[0]}, as catalogs had before persons that count from 0 were listed "
            "one higher; index the images again"
        )


def refuse_overlap(source: Catalog, target: Catalog) -> None:
    """Raises InputError where an image that may be drawn from the source is a query or gallery image of the target.

    An image is known by its file, however root and path name it: links are followed, copies are other files.
    """
    tests = target.take(np.flatnonzero((target.frame["part"] != "train").to_numpy()))
    if not len(tests):
        return
    names, drawn = _file_names(tests), _file_names(source)
    # Only files of one name are looked at on the disk: data sets that have nothing in common share no names.
    maybe = drawn.isin(names) & (source.identities > 0) & (source.frame["part"] == "train")
    candidates = source.take(np.flatnonzero(maybe.to_numpy()))
    tests = tests.take(np.flatnonzero(names.isin(_file_names(candidates)).to_numpy()))
    tested = {_file(path): path for path in tests.file_paths()}
    shared = [(path, tested[file]) for path in candidates.file_paths() if (file := _file(path)) in tested]
    if shared:
        path, test = shared[0]
        raise InputError(
            f"{len(shared)} of {len(source)} images of the source {source.title} are query or gallery images of the "
            f"target {target.title}, such as {path}{'' if path == test else f', there {test}'}; scores would be "
            "inflated, leave them out of one of the two, or give both the same parts"
        )


def _file_names(catalog: Catalog) -> "pd.Series[str]":
    """The last piece of each path (n,)."""
    return catalog.frame["path"].str.replace(r"^.*/", "", regex=True)


def _file(path: AnyPath) -> object:
    """What is the same for two names of one file; the name itself where there is no such file."""
    if isinstance(path, RemotePath):
        return str(path)
    try:
        status = path.stat()
    except OSError:
        return path.absolute()
    return status.st_dev, status.st_ino
