"""Whether images are still what they were: by size and times of their files, and where these differ, by their bytes.

The rule is that of version control. A file of the same path, size, time of change and time of its entry is the same;
any other is read, and is the same where its SHA-256 is. So a folder that was copied, moved or touched holds the same
images, at the cost of reading them once, and one that was repainted under the same names does not.
"""

import hashlib
import os
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from finegpr import storage
from finegpr.arrays import Bools, Ints
from finegpr.catalog import Catalog
from finegpr.errors import StateError
from finegpr.faults import is_absent, patiently, unreadable
from finegpr.object_stores import AnyPath, RemotePath
from finegpr.pixels.decode import BadImage, read

BYTES = 16
"""Of a file's SHA-256 that are kept: two files of two million are alike by chance once in 10^25."""

# A file may be changed again within one tick of its clock: what is younger than this when it is looked at is not known
# by its times. Two seconds is the coarsest clock there is, FAT's; a store counts whole seconds.
TICK_NS = 2_000_000_000
THREADS = 16
# What lies in a store is asked for file by file up to so many, and beyond that by listing the folder of them all.
MOST_ASKED_ONE_BY_ONE = 5_000

Digests = NDArray[np.uint8]
Tick = Callable[[int, int], None]

_SCHEMA = pa.schema(
    [
        ("path", pa.string()),
        ("size", pa.int64()),
        ("modified", pa.int64()),
        ("entered", pa.int64()),
        ("digest", pa.binary(BYTES)),
    ],
)
_ROOT = b"root"


@dataclass(frozen=True, kw_only=True, eq=False)
class Contents:
    """What n files below ``root`` held when they were looked at.

    ``stamps`` (n, 3) int64: size in bytes, times of change and of the entry in nanoseconds, -1 where a file cannot be
    read or was too young to be known by them. ``digests`` (n, 16) uint8: of the SHA-256, 0 where it cannot be read.
    """

    root: str
    paths: NDArray[Any]
    stamps: Ints
    digests: Digests

    def __len__(self) -> int:
        return len(self.paths)

    @cached_property
    def key(self) -> str:
        """SHA-256 of what all files held, in order; wherever they lie and whenever they were written."""
        return storage.sha256(self.digests.tobytes())

    def differs(self, other: "Contents") -> Bools:
        """Which files (n,) hold other bytes than those of ``other``, row by row."""
        return np.asarray((self.digests != other.digests).any(axis=1))

    def looks_as(self, other: "Contents") -> bool:
        """Whether the same was seen of the same files: nothing is to be remembered anew."""
        return (
            self.root == other.root
            and np.array_equal(self.paths, other.paths)
            and np.array_equal(self.stamps, other.stamps)
            and np.array_equal(self.digests, other.digests)
        )

    def replaced(self, positions: Ints, other: "Contents") -> "Contents":
        """With what ``other`` saw at these positions."""
        stamps, digests = self.stamps.copy(), self.digests.copy()
        stamps[positions], digests[positions] = other.stamps, other.digests
        return Contents(root=other.root, paths=self.paths, stamps=stamps, digests=digests)

    def write(self, path: Path) -> None:
        """Atomically write one Parquet file."""
        digests = pa.FixedSizeBinaryArray.from_buffers(
            pa.binary(BYTES), len(self), [None, pa.py_buffer(np.ascontiguousarray(self.digests).tobytes())]
        )
        columns = [pa.array(self.paths, pa.string()), *(pa.array(column) for column in self.stamps.T), digests]
        schema = _SCHEMA.with_metadata({_ROOT: self.root.encode("utf-8", "surrogateescape")})
        storage.write_table(path, pa.table(columns, schema=schema))

    @classmethod
    def read(cls, path: Path) -> "Contents | None":
        """What ``write`` wrote; None where it is missing, damaged or of another version: then files are read again."""
        if not path.exists():
            return None
        try:
            table = storage.read_table(path, schema=_SCHEMA)
        except StateError:
            return None
        digests = np.frombuffer(b"".join(table["digest"].to_pylist()), dtype=np.uint8).reshape(-1, BYTES)
        return cls(
            root=(table.schema.metadata or {})[_ROOT].decode("utf-8", "surrogateescape"),
            paths=table["path"].to_numpy(zero_copy_only=False),
            stamps=np.stack([table[name].to_numpy() for name in ("size", "modified", "entered")], axis=1),
            digests=digests,
        )


def look(
    root: AnyPath,
    paths: Sequence[str] | NDArray[Any],
    known: Contents | None = None,
    *,
    stamps: Ints | None = None,
    tick: Tick = lambda *_: None,
) -> Contents:
    """The contents of n files below ``root``, whose ``stamps`` are looked at where they are not given.

    Those that are as ``known``, by the rule above, are not read; ``tick`` is told (files read, files to be read).
    """
    paths = np.asarray(paths, dtype=object)
    if stamps is None:
        stamps = look_at_times(root, paths)
    digests = np.zeros((len(paths), BYTES), dtype=np.uint8)
    is_known = np.zeros(len(paths), dtype=bool)
    if known is not None and known.root == str(root):
        row_of = {path: row for row, path in enumerate(known.paths.tolist())}
        place = np.array([row_of.get(path, -1) for path in paths.tolist()], dtype=np.int64)
        is_known = (place >= 0) & (stamps >= 0).all(axis=1)
        is_known &= (known.stamps[place] == stamps).all(axis=1)
        digests[is_known] = known.digests[place[is_known]]
    unread = np.flatnonzero(~is_known & (stamps[:, 0] >= 0))
    with ThreadPoolExecutor(THREADS) as pool:
        found = pool.map(lambda row: _digest(root / paths[row]), unread.tolist(), chunksize=1)
        for done, (row, digest) in enumerate(zip(unread, found, strict=True), start=1):
            digests[row] = np.frombuffer(digest, dtype=np.uint8)
            tick(done, len(unread))
    return Contents(root=str(root), paths=paths, stamps=_known_by_times(stamps), digests=digests)


def contents_key(catalog: Catalog, cache: Path, *, tick: Tick = lambda *_: None) -> str:
    """``Contents.key`` of a catalog's images. What was read is remembered in the file ``cache``, for any rows of it."""
    known = Contents.read(cache)
    found = look(catalog.root, catalog.frame["path"].to_numpy(), known, tick=tick)
    everything = found if known is None else _merged(known, found)
    if known is None or not everything.looks_as(known):
        everything.write(cache)
    return found.key


def look_at_times(root: AnyPath, paths: Sequence[str] | NDArray[Any]) -> Ints:
    """Size, time of change and of the entry (n, 3) of files, -1 where one is missing.

    Raises UnreadableError and UnreachableError where it cannot be known.
    """
    if isinstance(root, RemotePath):
        return _of_store(root, list(paths))
    stamps = np.full((len(paths), 3), -1, dtype=np.int64)
    below = f"{root}/"
    for row, path in enumerate(paths):
        try:
            status = patiently(partial(os.stat, below + path), below + path)  # a Path takes ten times as long
        except ValueError:  # a NUL in its name
            continue
        except OSError as error:
            if is_absent(error):
                continue
            raise unreadable(Path(below + path), error) from None
        stamps[row] = status.st_size, status.st_mtime_ns, status.st_ctime_ns
    return stamps


def _of_store(root: RemotePath, paths: list[str]) -> Ints:
    stamps = np.full((len(paths), 3), -1, dtype=np.int64)
    if len(paths) > MOST_ASKED_ONE_BY_ONE:
        found = root.stats()
        for row, path in enumerate(paths):
            if (stat := found.get(path)) is not None:
                stamps[row] = stat.st_size, stat.st_mtime_ns, 0
        return stamps

    def ask(path: str) -> tuple[int, int, int]:
        try:
            stat = (root / path).stat()
        except FileNotFoundError:
            return -1, -1, -1
        return stat.st_size, stat.st_mtime_ns, 0

    with ThreadPoolExecutor(THREADS) as pool:
        stamps[:] = np.array(list(pool.map(ask, paths)), dtype=np.int64).reshape(-1, 3)
    return stamps


class Reader:
    """Reads images that are wanted for their pixels, and remembers what they held: no file is read twice."""

    def __init__(self, root: AnyPath) -> None:
        self._root = root
        self._digests: dict[AnyPath, bytes] = {}
        self._pool = ThreadPoolExecutor(1)

    def begin(self, paths: NDArray[Any]) -> "Future[Ints]":
        """Look at the times of files that are about to be read: before, on a disk; at the same time, in a store."""
        looking = self._pool.submit(look_at_times, self._root, paths)
        if isinstance(self._root, Path):
            looking.result()
        return looking

    def __call__(self, path: AnyPath) -> bytes:
        """``pixels.decode.read``, from any thread."""
        data = read(path)
        self._digests[path] = digest_of(data)
        return data

    def contents(self, paths: NDArray[Any], looked: "Future[Ints]") -> Contents:
        """What files held that were read after ``begin`` returned ``looked``."""
        files = [self._root / path for path in paths]
        digests = b"".join(self._digests.get(file, bytes(BYTES)) for file in files)
        for file in files:
            self._digests.pop(file, None)
        return Contents(
            root=str(self._root),
            paths=paths,
            stamps=_known_by_times(looked.result()),
            digests=np.frombuffer(digests, dtype=np.uint8).reshape(-1, BYTES),
        )

    def close(self) -> None:
        """End its thread."""
        self._pool.shutdown(cancel_futures=True)


def digest_of(data: bytes) -> bytes:
    """What is kept of the SHA-256 of a file's bytes."""
    return hashlib.sha256(data).digest()[:BYTES]


def _digest(path: AnyPath) -> bytes:
    try:
        return digest_of(read(path))
    except BadImage:
        return bytes(BYTES)


def _known_by_times(stamps: Ints) -> Ints:
    """The stamps (n, 3), -1 for files that are too young."""
    young = stamps[:, 1:].max(axis=1, initial=-1) > time.time_ns() - TICK_NS
    return np.where(young[:, None], -1, stamps)


def _merged(known: Contents, found: Contents) -> Contents:
    """What is known of all files: ``found``, and of the same root what else was known before."""
    if known.root != found.root:
        return found
    old = ~np.isin(known.paths.astype(str), found.paths.astype(str))
    if not old.any():
        return found
    return Contents(
        root=found.root,
        paths=np.concatenate([known.paths[old], found.paths]),
        stamps=np.concatenate([known.stamps[old], found.stamps]),
        digests=np.concatenate([known.digests[old], found.digests]),
    )
