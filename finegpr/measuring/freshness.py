"""What of a measurement is still to be measured, or anew because its image changed since.

A changed image is measured again with its whole batch, and nothing else is: the numbers are those of measuring
everything, to the last bit, because a network's depend on the size of a batch in the last digits.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from finegpr.arrays import Ints
from finegpr.catalog import Catalog
from finegpr.contents import Contents, Tick, look, look_at_times
from finegpr.errors import InputError
from finegpr.measuring.files import (
    DERIVED_MARKER,
    PLAN,
    PLAN_MARKER,
    REFERENCE_MARKER,
    read_record,
    read_verified,
    shard_contents,
    shard_paths,
    target_contents,
)
from finegpr.object_stores import locate


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
    shards = _planned(folder)
    finished = [index for index in range(len(shards)) if is_finished(folder, index, inputs[index])]
    pending = {index: Pending(rows=shards[index]) for index in sorted({*range(len(shards))}.difference(finished))}
    for index, changed in _changed(folder, catalog, shards, finished, remember=True, tick=tick):
        batches = np.unique(changed // batch_size)
        positions = np.flatnonzero(np.isin(np.arange(len(shards[index])) // batch_size, batches))
        pending[index] = Pending(rows=shards[index], positions=positions)
    return dict(sorted(pending.items()))


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
    shards = _planned(folder)
    finished = [index for index in range(len(shards)) if all(path.exists() for path in shard_paths(folder, index))]
    changed = [shards[index][at] for index, at in _changed(folder, catalog, shards, finished, remember=False)]
    return catalog.frame["path"].iloc[np.concatenate(changed)].tolist() if changed else []


def require_unchanged(folder: Path, catalog: Catalog) -> None:
    """Raises InputError where images of ``catalog`` changed after ``folder`` was measured."""
    if changed := changed_images(folder, catalog):
        missing = [path for path in changed if not (catalog.root / path).exists()]
        if missing:
            raise InputError(
                f"{in_words(missing)} in {catalog.root} are missing, which were there when {folder} was measured; put "
                "them back, or index and measure what there is"
            )
        raise InputError(
            f"{in_words(changed)} in {catalog.root} changed after {folder} was measured; run the `aost measure` "
            "command of it again: it measures these anew, and nothing else"
        )


def photos_key(folder: Path, target: str, sample: Catalog) -> str:
    """``Contents.key`` of a target's photos as they are now, which are remembered; those measured are in the marker."""
    path = target_contents(folder, target)
    known = Contents.read(path)
    found = look(sample.root, sample.frame["path"].to_numpy(), known)
    if known is None or not found.looks_as(known):
        found.write(path)
    return found.key


def require_photos_unchanged(folder: Path, target: str) -> None:
    """Raises InputError where photos of a target changed after it was measured, or added from sketches, in ``folder``.

    That is looked at where they lie on a disk of this machine.
    """
    known = Contents.read(target_contents(folder, target))
    root = None if known is None else locate(known.root)
    if known is None or not isinstance(root, Path) or not root.is_dir():
        return
    marker = DERIVED_MARKER if (folder / DERIVED_MARKER).exists() else REFERENCE_MARKER
    measured = read_record(folder / marker)["photos"][target]
    found = look(root, known.paths, known)
    if found.key == measured:
        return
    # What is remembered may be of photos that were to be measured and then were not: which ones changed is not known.
    changed = in_words(known.paths[found.differs(known)].tolist()) if known.key == measured else "photos"
    raise InputError(
        f"{changed} of target {target} in {root} changed after {folder} was "
        "measured; run the `aost measure` command of it again"
    )


def in_words(changed: Sequence[str]) -> str:
    """Some images in words: how many, and the first."""
    return f"1 image ({changed[0]})" if len(changed) == 1 else f"{len(changed)} images ({changed[0]} ...)"


def _planned(folder: Path) -> list[Ints]:
    """The rows of every shard of the plan."""
    plan = read_verified(folder / PLAN, read_record(folder / PLAN_MARKER)["sha256"])
    return np.split(plan["row"], np.cumsum(plan["size"])[:-1])


def _changed(
    folder: Path,
    catalog: Catalog,
    shards: Sequence[Ints],
    finished: Sequence[int],
    *,
    remember: bool,
    tick: Tick = lambda *_: None,
) -> Iterator[tuple[int, Ints]]:
    """The finished shards of which images changed, and the positions of these."""
    if not finished:
        return
    paths = catalog.frame["path"].to_numpy()
    # All at once: of a store, this is one listing.
    times = look_at_times(catalog.root, paths[np.concatenate([shards[index] for index in finished])])
    stops = np.cumsum([len(shards[index]) for index in finished])
    for done, (index, stamps) in enumerate(zip(finished, np.split(times, stops[:-1]), strict=True)):
        tick(done, len(finished))
        measured = read_record(shard_paths(folder, index)[1])["contents"]
        known = Contents.read(shard_contents(folder, index))
        if known is not None and (known.key != measured or len(known) != len(stamps)):
            known = None  # what it remembers is of other images than those that were measured
        found = look(catalog.root, paths[shards[index]], known, stamps=stamps)
        if known is None:
            changed = np.arange(len(stamps) if found.key != measured else 0)
        else:
            changed = np.flatnonzero(found.differs(known))
        if len(changed):
            yield index, changed
        elif remember and (known is None or not found.looks_as(known)):
            found.write(shard_contents(folder, index))
