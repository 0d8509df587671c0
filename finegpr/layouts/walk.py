"""Walk a folder of images: deterministic order, no symlink loops, nothing outside the root, junk counted."""

import os
from collections.abc import Collection
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from finegpr.errors import InputError
from finegpr.faults import patiently
from finegpr.object_stores import AnyPath, RemotePath

IMAGE_SUFFIXES = frozenset(
    {".jpg", ".jpeg", ".jpe", ".jfif", ".jif", ".png", ".bmp", ".webp", ".tif", ".tiff", ".gif", ".avif"}
)
NO_IMAGE = "not the name of an image file"
# Files that live beside images on purpose. Any other suffix is a candidate that is listed as rejected.
COMPANION_SUFFIXES = frozenset(
    {".csv", ".tsv", ".json", ".jsonl", ".txt", ".md", ".parquet", ".npz", ".npy", ".mat", ".xml", ".yaml", ".yml"}
    | {".html", ".pdf", ".zip", ".tar", ".gz", ".mp4", ".avi", ".mov", ".log"}
)
_JUNK = frozenset(
    {"thumbs.db", "desktop.ini", "__macosx", "@eadir"}
    # Of a whole disk; often they cannot be read.
    | {"lost+found", "$recycle.bin", "system volume information"}
)
# The end of nearly every name, recognised without taking the name apart.
_PLAIN = frozenset({".jpg", ".png"})


@dataclass(frozen=True, kw_only=True)
class Files:
    """Paths relative to the root with ``/``, sorted bytewise; ``rejected`` are (path, reason).

    ``deeper`` are the folders that were seen and not read, where only the uppermost level was asked for.
    """

    images: list[str]
    rejected: list[tuple[str, str]]
    num_ignored: int
    deeper: tuple[str, ...] = ()


def require_folder(root: AnyPath) -> None:
    """Raises InputError when ``root`` is missing or is not a folder."""
    if not root.exists():
        raise InputError(f"no folder {root}; give the path of an image folder")
    if not root.is_dir():
        raise InputError(f"{root} is not a folder; give the path of an image folder")


def walk(root: AnyPath, *, below: str = "", skip: Collection[str] = (), one_level: bool = False) -> Files:
    """List the images under ``root / below``, leaving out the folders of that level named in ``skip``.

    Hidden files, thumbnails, companion files (tables, texts, archives) and special files (FIFO, device) are ignored
    and counted. Links to files inside the root are followed; a link that leaves the root is rejected. Links to folders
    are never followed, ``below`` itself included: where their target is listed under its own name nothing is lost, so
    loops cannot occur. With ``one_level`` folders are not read but named.

    Raises InputError for folders of which nobody knows how many images they stand for: those that cannot be read, and
    links to what is not listed.
    """
    if below and isinstance(root, Path) and (root / below).is_symlink():
        raise InputError(
            f"{root / below} is a link, and links to folders are not followed; put the folder itself in its place"
        )
    require_folder(root / below)
    if isinstance(root, RemotePath):
        return _walk_remote(root, below, skip, one_level=one_level)
    return _walk_local(root, below, skip, one_level=one_level)


def _walk_local(root: Path, below: str, skip: Collection[str], *, one_level: bool) -> Files:
    inside = os.path.join(os.path.realpath(root), "")  # noqa: PTH118 - a string prefix is what is compared
    images: list[str] = []
    rejected: list[tuple[str, str]] = []
    lost: list[tuple[str, str]] = []  # folders
    deeper: list[str] = []
    num_ignored = 0
    folders = [below]
    while folders:
        folder = folders.pop()
        prefix = f"{folder}/" if folder else ""
        names: list[str] = []  # of this folder's images
        below_here: list[str] = []
        try:
            entries = patiently(partial(_entries, root / folder), root / folder)
        except OSError as error:
            lost.append((folder or ".", f"cannot be read: {error.strerror}"))
            continue
        skipped = skip if folder == below else ()
        for entry in entries:
            name = entry.name
            if (
                name[-4:] in _PLAIN
                and name[0] != "."
                and name.isascii()
                and name not in skipped
                and entry.is_file(follow_symlinks=False)
            ):
                names.append(name)  # what the rest of this loop would find, for two million files
                continue
            if _is_hidden(name) or name in skipped:
                num_ignored += 1
                continue
            if not _is_utf8(name):
                shown = prefix + _printable(name)
                if not os.path.isdir(entry.path):  # noqa: PTH112 - entry.is_dir raises for a link to itself
                    rejected.append((shown, "name is not valid UTF-8; rename the file"))
                elif one_level:
                    deeper.append(shown)
                else:
                    lost.append((shown, "name is not valid UTF-8"))
                continue
            if entry.is_symlink():
                real = os.path.join(os.path.realpath(entry.path), "")  # noqa: PTH118
                reason = "" if real.startswith(inside) else "link leaves the root"
                if os.path.isdir(entry.path):  # noqa: PTH112 - entry.is_dir raises for a link to itself
                    if one_level:
                        deeper.append(prefix + name)
                    elif reason or not _is_listed(real[len(inside) :], below, skip):
                        lost.append((prefix + name, reason or "link to a folder that is not listed"))
                    else:
                        num_ignored += 1
                    continue
                if not os.path.exists(entry.path):  # noqa: PTH110 - entry.is_file raises for a link to itself
                    # Without the suffix of a file it may have been a folder, on a disk that is not there.
                    of_file = one_level or _suffix(name) in IMAGE_SUFFIXES | COMPANION_SUFFIXES
                    (rejected if of_file else lost).append((prefix + name, reason or "broken link"))
                    continue
                if reason:
                    rejected.append((prefix + name, reason))
                    continue
                if not entry.is_file():
                    num_ignored += 1
                    continue
            elif entry.is_dir(follow_symlinks=False):
                (deeper if one_level else below_here).append(prefix + name if one_level else name)
                continue
            elif not entry.is_file(follow_symlinks=False):
                num_ignored += 1
                continue
            suffix = _suffix(name)
            if suffix in IMAGE_SUFFIXES:
                names.append(name)
            elif suffix in COMPANION_SUFFIXES:
                num_ignored += 1
            else:
                rejected.append((prefix + name, NO_IMAGE))
        # Short names in short lists: what is left for the sort of all is to find it nearly in order.
        names.sort()
        images += [prefix + name for name in names] if prefix else names
        below_here.sort(reverse=True)
        folders += [prefix + name for name in below_here]
    if lost:
        named = [f"{folder} ({reason})" for folder, reason in sorted(lost)]
        raise InputError(
            f"{root}: {len(lost)} folders stand for an unknown number of images: {', '.join(named[:5])}"
            f"{', ...' if len(named) > 5 else ''}; let them be read, put folders in place of links, and begin the "
            "names of those that are not wanted with a dot"
        )
    return _files(images, rejected, num_ignored, deeper)


def _entries(folder: Path) -> "list[os.DirEntry[str]]":
    with os.scandir(folder) as scan:
        return list(scan)


def _is_listed(folder: str, below: str, skip: Collection[str]) -> bool:
    """Whether a walk comes to ``folder``, a path below the root that ends in ``/`` or is empty."""
    start = f"{below}/" if below else ""
    parts = folder[len(start) :].split("/")[:-1]
    return folder.startswith(start) and not any(map(_is_hidden, parts)) and (not parts or parts[0] not in skip)


def _walk_remote(root: RemotePath, below: str, skip: Collection[str], *, one_level: bool) -> Files:
    prefix = f"{below}/" if below else ""
    images: list[str] = []
    rejected: list[tuple[str, str]] = []
    num_ignored = 0
    left_out: set[str] = set()
    deeper: set[str] = set()
    # Folder -> the uppermost folder on the way to it that is left out, or "".
    known: dict[str, str] = {"": ""}

    def upper(folder: str) -> str:
        if folder not in known:
            parent, _, name = folder.rpartition("/")
            is_left_out = _is_hidden(name) or (not parent and name in skip)
            known[folder] = upper(parent) or (folder if is_left_out else "")
        return known[folder]

    for path, is_file in (root / below).entries(recursive=True):
        folder, _, name = path.rpartition("/")
        if outer := upper(folder if is_file else path):
            left_out.add(outer)
        elif one_level and "/" in path.lstrip("/"):
            deeper.add(prefix + path.partition("/")[0])
        elif is_file:
            suffix = _suffix(name)
            if _is_hidden(name) or (not folder and name in skip):
                num_ignored += 1
            elif path.startswith("/") or "//" in path:
                rejected.append((prefix + path, "a part of its path is empty; rename the object"))
            elif suffix in IMAGE_SUFFIXES:
                images.append(prefix + path)
            elif suffix in COMPANION_SUFFIXES:
                num_ignored += 1
            else:
                rejected.append((prefix + path, NO_IMAGE))
    return _files(images, rejected, num_ignored + len(left_out), deeper)


def _files(images: list[str], rejected: list[tuple[str, str]], num_ignored: int, deeper: Collection[str]) -> Files:
    # For valid UTF-8 the order of code points is the order of bytes.
    return Files(
        images=sorted(images), rejected=sorted(rejected), num_ignored=num_ignored, deeper=tuple(sorted(deeper))
    )


def _is_hidden(name: str) -> bool:
    return name.startswith(".") or name.lower() in _JUNK


def _suffix(name: str) -> str:
    return "." + name.rpartition(".")[2].lower()


def _is_utf8(name: str) -> bool:
    if name.isascii():
        return True
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True


def _printable(name: str) -> str:
    return os.fsencode(name).decode("utf-8", "backslashreplace")
