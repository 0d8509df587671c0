"""What of a measurement is still to be measured, or anew because its image changed since.

A changed image is measured again with its whole batch, and nothing else is: the numbers are those of measuring
everything, to the last bit, because a network's depend on the size of a batch in the last digits.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from finegpr.arrays import Ints
from finegpr.catalog import Catalog
from finegpr.contents import Contents, Tick, look
from finegpr.errors import InputError
from finegpr.measuring.files import (
    PLAN,
    PLAN_MARKER,
    REFERENCE_MARKER,
    read_record,
    read_verified,
    shard_contents,
    shard_paths,
)


@dataclass(frozen=True, kw_only=True)
class Pending:
    """What is to be measured of one shard: all ``rows`` of it, or those at ``positions``, whose images changed."""

    rows: Ints
    positions: Ints | None = None

    def __len__(self) -> int:
        return len(self.measured)

    @property
    def measured(self) -> Ints:
        """The rows of the catalog that are to be measured."""
        return self.rows if self.positions is None else self.rows[self.positions]


def pending_shards(folder: Path, catalog: Catalog, *, tick: Tick = lambda *_: None) -> dict[int, Pending]:
    """The shards of the plan that are unfinished or of other inputs, and of the others the batches with changed images.

    What only lies elsewhere or was touched is remembered as it is now. ``tick`` is told (shards looked at, shards).
    """
    batch_size: int = read_record(folder / REFERENCE_MARKER)["settings"]["batch_size"]
    inputs: Sequence[str] = read_record(folder / PLAN_MARKER)["shards"]
    pending = {}
    for index, rows in enumerate(_planned(folder)):
        tick(index, len(inputs))
        if not is_finished(folder, index, inputs[index]):
            pending[index] = Pending(rows=rows)
        elif len(changed := _changed(folder, index, catalog, rows, remember=True)):
            batches = np.unique(changed // batch_size)
            positions = np.flatnonzero(np.isin(np.arange(len(rows)) // batch_size, batches))
            pending[index] = Pending(rows=rows, positions=positions)
    return pending


def is_finished(folder: Path, index: int, inputs: str) -> bool:
    """Whether a shard of these ``inputs`` is on the disk, whatever has become of its images."""
    path, marker_path = shard_paths(folder, index)
    return path.exists() and marker_path.exists() and read_record(marker_path)["inputs"] == inputs


def changed_images(folder: Path, catalog: Catalog) -> list[str]:
    """Paths of the images that hold something else than when they were measured for ``folder``, whose catalog this is.

    Nothing is written. Files of the same size and times are not read: see ``finegpr.contents``.
    """
    if not (folder / PLAN_MARKER).exists():
        return []
    paths = catalog.frame["path"]
    changed: list[str] = []
    for index, rows in enumerate(_planned(folder)):
        if all(path.exists() for path in shard_paths(folder, index)):
            changed += paths.iloc[rows[_changed(folder, index, catalog, rows, remember=False)]].tolist()
    return changed


def require_unchanged(folder: Path, catalog: Catalog) -> None:
    """Raises InputError where images of ``catalog`` changed after ``folder`` was measured."""
    if changed := changed_images(folder, catalog):
        raise InputError(
            f"{in_words(changed)} in {catalog.root} changed after {folder} was measured; run the `aost measure` "
            "command of it again: it measures these anew, and nothing else"
        )


def in_words(changed: Sequence[str]) -> str:
    """Some images in words: how many, and the first."""
    return f"1 image ({changed[0]})" if len(changed) == 1 else f"{len(changed)} images ({changed[0]} ...)"


def _planned(folder: Path) -> list[Ints]:
    """The rows of every shard of the plan."""
    plan = read_verified(folder / PLAN, read_record(folder / PLAN_MARKER)["sha256"])
    return np.split(plan["row"], np.cumsum(plan["size"])[:-1])


def _changed(folder: Path, index: int, catalog: Catalog, rows: Ints, *, remember: bool) -> Ints:
    """Positions in a finished shard of the images that changed."""
    measured = read_record(shard_paths(folder, index)[1])["contents"]
    known = Contents.read(shard_contents(folder, index))
    if known is not None and (known.key != measured or len(known) != len(rows)):
        known = None  # what it remembers is of other images than those that were measured
    found = look(catalog.root, catalog.frame["path"].to_numpy()[rows], known)
    if known is None:
        changed = np.arange(len(rows) if found.key != measured else 0)
    else:
        changed = np.flatnonzero(found.differs(known))
    if remember and not len(changed) and (known is None or not found.looks_as(known)):
        found.write(shard_contents(folder, index))
    return changed
