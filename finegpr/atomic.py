"""How files reach the disk: temporary name, flush, rename.

Every file of a run goes through here, so that a kill or a power loss at any moment leaves the old or the new file,
never half of one.
"""

import errno
import fcntl
import os
import re
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from finegpr.faults import unwritable

PRIVATE = 0o600
"""Permissions of files that hold photos of people."""
_TEMPORARY = re.compile(r"\.aost-[0-9a-f]{32}\.tmp")
_FLUSHES_AT_ONCE = 16


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Turns the operating system's refusal to write ``path`` into one WriteError that names it."""
    try:
        yield
    except OSError as error:
        raise unwritable(path, error) from error


def write_atomic(path: Path, write: Callable[[Path], object], *, private: bool = False, flush: bool = True) -> None:
    """Call ``write`` with the name of an empty file beside ``path``, flush it to the disk, then rename it into place.

    ``private``: the file is readable and writable by its owner only, from the first byte; else as the umask has it.
    Without ``flush`` a kill still leaves the old or the new file; a power loss may leave an empty one, until
    ``flush_below`` has been called.
    """
    with writing(path):
        make_folder(path.parent)
        with _temporary(path.parent, mode=PRIVATE if private else 0o666) as temporary:
            write(temporary)
            if flush:
                _flush(temporary)
            temporary.replace(path)
        if flush:
            flush_folder(path.parent)


@contextmanager
def _temporary(folder: Path, *, mode: int) -> Iterator[Path]:
    """An empty file with a name of its own, removed at the end if it was not renamed.

    It is locked as long as it is written, which tells those who clean up, on any machine, that its writer lives.
    """
    while True:
        path = folder / f".aost-{uuid.uuid4().hex}.tmp"
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, mode)
        try:
            with suppress(OSError):  # not every file system has locks
                fcntl.flock(descriptor, fcntl.LOCK_EX)
            if os.fstat(descriptor).st_nlink == 0:
                continue  # taken for left behind in the moment before it was locked
            yield path
            return
        finally:
            path.unlink(missing_ok=True)
            os.close(descriptor)


def reserve(stream: BinaryIO, num_bytes: int) -> None:
    """Take up ``num_bytes`` on the disk for a file that is being written, so that a full disk is known at once.

    Where a file system cannot, nothing happens. Raises OSError for want of space.
    """
    if not hasattr(os, "posix_fallocate"):
        return
    try:
        os.posix_fallocate(stream.fileno(), 0, num_bytes)
    except OSError as error:
        if error.errno not in (errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL):
            raise


def _flush(path: Path) -> None:
    with path.open("rb") as stream:
        os.fsync(stream.fileno())


def flush_folder(folder: Path) -> None:
    """Flush what is called how in ``folder``: without this a renamed file has its old name after a power loss.

    File systems that cannot do that for a folder are let off; a disk that fails or is full is an OSError.
    """
    try:
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
    except OSError as error:
        if error.errno in (errno.EIO, errno.ENOSPC, errno.EDQUOT):
            raise


def flush_below(folder: Path) -> None:
    """Flush every file and folder below ``folder``: many together take less time than each when it is written."""
    with writing(folder), ThreadPoolExecutor(_FLUSHES_AT_ONCE) as pool:
        for place, _, names in os.walk(folder):
            list(pool.map(_flush, [Path(place, name) for name in names if not name.startswith(".")]))
            flush_folder(Path(place))


def make_folder(folder: Path) -> None:
    """Make ``folder`` and those above it, flushed to the disk, where they are missing. Raises OSError."""
    missing = [each for each in (folder, *folder.parents) if not each.exists()]
    folder.mkdir(parents=True, exist_ok=True)
    for each in missing:
        flush_folder(each.parent)


def move(source: Path, target: Path) -> None:
    """Rename a file or folder, replacing a file, and flush that to the disk. Raises OSError."""
    source.replace(target)
    for folder in {source.parent, target.parent}:
        flush_folder(folder)


def write_bytes(path: Path, data: bytes | bytearray, *, private: bool = False, flush: bool = True) -> None:
    """Atomically write bytes; ``private`` and ``flush`` as for ``write_atomic``."""
    write_atomic(path, lambda temporary: temporary.write_bytes(data), private=private, flush=flush)


def withdraw(path: Path) -> None:
    """Remove a finish marker before its file is replaced, so that it never vouches for the new one."""
    with writing(path):
        path.unlink(missing_ok=True)
        flush_folder(path.parent)


def remove_temporaries(folder: Path, *, lock: str) -> None:
    """Remove what killed writers left behind in ``folder``: files with our mark that nobody is writing.

    A folder below that holds a file ``lock`` is left to whoever locks it next.
    """
    for place, folders, names in os.walk(folder):
        folders[:] = [name for name in folders if not Path(place, name, lock).exists()]
        for temporary in (Path(place, name) for name in names if _TEMPORARY.fullmatch(name)):
            with suppress(OSError):  # that it is being written, among others
                descriptor = os.open(temporary, os.O_RDWR | os.O_NOFOLLOW)
                try:
                    fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    temporary.unlink()
                finally:
                    os.close(descriptor)
