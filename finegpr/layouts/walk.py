"""Walk a folder of images: deterministic order, no symlink loops, nothing outside the root, junk counted."""

import os
from collections.abc import Collection
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from finegpr.errors import InputError
from finegpr.faults import patiently
from finegpr.object_stores import AnyPath, RemotePath

IMAGE_SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff", ".gif"})
# Files that live beside images on purpose. Any other suffix is a candidate that is listed as rejected.
COMPANION_SUFFIXES = frozenset(
    {".csv", ".tsv", ".json", ".jsonl", ".txt", ".md", ".parquet", ".npz", ".npy", ".mat", ".xml", ".yaml", ".yml"}
    | {".html", ".pdf", ".zip", ".tar", ".gz", ".mp4", ".avi", ".mov", ".log"}
)
_JUNK = frozenset({"thumbs.db", "desktop.ini", "__macosx", "@eadir"})
# The end of nearly every name, recognised without taking the name apart.
_PLAIN = frozenset({".jpg", ".png"})


@dataclass(frozen=True, kw_only=True)
class Files:
    """Paths relative to the root with ``/``, sorted bytewise; ``rejected`` are (path, reason)."""

    images: list[str]
    rejected: list[tuple[str, str]]
    num_ignored: int


def require_folder(root: AnyPath) -> None:
    """Raises InputError when ``root`` is missing or is not a folder."""
    if not root.exists():
        raise InputError(f"no folder {root}; give the path of an image folder")
    if not root.is_dir():
        raise InputError(f"{root} is not a folder; give the path of an image folder")


def walk(root: AnyPath, *, below: str = "", skip: Collection[str] = ()) -> Files:
    """List the images under ``root / below``, leaving out the folders of that level named in ``skip``.

    Hidden files, thumbnails, companion files (tables, texts, archives) and special files (FIFO, device) are ignored
    and counted. Links to files inside the root are followed; a link that leaves the root is rejected. Links to folders
    are never followed: inside the root their target is listed under its own name, so loops cannot occur.
    """
    require_folder(root / below)
    if isinstance(root, RemotePath):
        return _walk_remote(root, below, skip)
    return _walk_local(root, below, skip)


def _walk_local(root: Path, below: str, skip: Collection[str]) -> Files:
    inside = os.path.join(os.path.realpath(root), "")  # noqa: PTH118 - a string prefix is what is compared
    images: list[str] = []
    rejected: list[tuple[str, str]] = []
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
            rejected.append((folder, f"folder cannot be read: {error.strerror}"))
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
                rejected.append((prefix + _printable(name), "name is not valid UTF-8; rename the file"))
                continue
            if entry.is_symlink():
                if not os.path.join(os.path.realpath(entry.path), "").startswith(inside):  # noqa: PTH118
                    rejected.append((prefix + name, "link leaves the root"))
                    continue
                if not os.path.exists(entry.path):  # noqa: PTH110 - entry.is_file raises for a link to itself
                    rejected.append((prefix + name, "broken link"))
                    continue
                if not entry.is_file():
                    num_ignored += 1
                    continue
            elif entry.is_dir(follow_symlinks=False):
                below_here.append(name)
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
                rejected.append((prefix + name, "not the name of an image file"))
        # Short names in short lists: what is left for the sort of all is to find it nearly in order.
        names.sort()
        images += [prefix + name for name in names] if prefix else names
        below_here.sort(reverse=True)
        folders += [prefix + name for name in below_here]
    return _files(images, rejected, num_ignored)


def _entries(folder: Path) -> "list[os.DirEntry[str]]":
    with os.scandir(folder) as scan:
        return list(scan)


def _walk_remote(root: RemotePath, below: str, skip: Collection[str]) -> Files:
    prefix = f"{below}/" if below else ""
    images: list[str] = []
    rejected: list[tuple[str, str]] = []
    num_ignored = 0
    left_out: set[str] = set()
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
                rejected.append((prefix + path, "not the name of an image file"))
    return _files(images, rejected, num_ignored + len(left_out))


def _files(images: list[str], rejected: list[tuple[str, str]], num_ignored: int) -> Files:
    # For valid UTF-8 the order of code points is the order of bytes.
    return Files(images=sorted(images), rejected=sorted(rejected), num_ignored=num_ignored)


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
