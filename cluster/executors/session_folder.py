"""Where the files of a private Ray lie while it runs: logs, sockets, and what does not fit into memory."""

import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import filelock

from cluster.progress import say
from finegpr.errors import WriteError
from finegpr.storage import LOCK

PREFIX = "aost-"
SETTINGS = ("RAY_TMPDIR", "TMPDIR")
NEEDED_BYTES = 64 << 20
# Unix sockets allow 107 characters of path, 103 on some systems; Ray's own part has 64.
LONGEST = 103 - 64
# Ray puts the path into command lines and messages of its own.
_PLAIN = re.compile(r"[A-Za-z0-9_./-]+")
_NAME = re.compile(rf"{PREFIX}[a-z0-9_]{{8}}")
PLACES = (Path("/tmp"), Path("/var/tmp"))
SHORT = (*PLACES, Path("/dev/shm"))
ADVICE = f"set TMPDIR to a folder with {NEEDED_BYTES >> 20} MB free, or use --serial"


@contextmanager
def session_folder() -> Iterator[Path]:
    """A private folder for one Ray, short enough for its sockets and removed at the end.

    It lies where RAY_TMPDIR or TMPDIR say, else in /tmp or /var/tmp. Where that path is long or odd a link leads to it.
    It is locked as long as it is used, so that what killed processes left behind is known, and removed here. Raises
    WriteError that names every place and what is wrong with it.
    """
    place = _place()
    _remove_left_behind(place)
    try:
        folder = Path(tempfile.mkdtemp(prefix=PREFIX, dir=place))
    except OSError as error:
        raise WriteError(f"cannot write {place}: {error.strerror}; set TMPDIR to another folder") from None
    link = None
    try:
        with filelock.FileLock(folder / LOCK):
            if len(os.fsencode(folder)) > LONGEST or not _PLAIN.fullmatch(str(folder)):
                link = _link(folder)
            yield link or folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        if link is not None:
            link.unlink(missing_ok=True)


def _place() -> Path:
    """The first folder in which a session has room; says so where it is not the one that was set."""
    given = [(Path(os.environ[name]).absolute(), name) for name in SETTINGS if os.environ.get(name)]
    lacks: dict[Path, str] = {}
    for place, setting in [*given, *((place, "") for place in PLACES)]:
        lack = lacks.get(place) or unfit(place)
        if lack is None:
            if given and not setting:
                say(f"  Ray's files lie in {place}: {_told(lacks, given)}")
            return place
        lacks[place] = lack
    raise WriteError(f"Ray finds no folder for its files: {_told(lacks, given)}; {ADVICE}")


def _told(lacks: dict[Path, str], given: list[tuple[Path, str]]) -> str:
    settings = {place: f" ({name})" for place, name in given}
    return ", ".join(f"{place}{settings.get(place, '')}: {lack}" for place, lack in lacks.items())


def unfit(place: Path) -> str | None:
    """What is wrong with a folder for the files of a session, None when nothing is."""
    try:
        tempfile.TemporaryFile(dir=place).close()
        free = shutil.disk_usage(place).free
    except OSError as error:
        return error.strerror or str(error)
    return None if free >= NEEDED_BYTES else f"{free >> 20} MB free"


def _link(folder: Path) -> Path:
    for place in SHORT:
        with suppress(OSError):
            link = place / folder.name
            link.symlink_to(folder)
            return link
    raise WriteError(
        f"{folder} is too long or odd a path for Ray's sockets, and no link to it can be made in "
        f"{', '.join(map(str, SHORT))}; set RAY_TMPDIR to a plain path of at most "
        f"{LONGEST - len(folder.name) - 1} characters, or use --serial"
    )


def _remove_left_behind(place: Path) -> None:
    for folder in place.glob(f"{PREFIX}*"):
        if _NAME.fullmatch(folder.name) and (folder / LOCK).exists():
            with suppress(OSError, filelock.Timeout), filelock.FileLock(folder / LOCK, timeout=0):
                shutil.rmtree(folder, ignore_errors=True)
    for short in SHORT:
        for link in short.glob(f"{PREFIX}*"):
            if _NAME.fullmatch(link.name) and link.is_symlink() and not link.exists():
                with suppress(OSError):
                    link.unlink()
