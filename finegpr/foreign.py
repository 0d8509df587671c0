"""Files that somebody else wrote, given where one of ours is expected: what they are, and what to do instead."""

import os
from pathlib import Path

from finegpr.errors import InputError, StateError
from finegpr.faults import patiently
from finegpr.storage import DIGEST_KEY

_PARQUET = b"PAR1"
# The end of a file of ours within which its keys are looked for; the digest's comes after all else.
_FOOTER_BYTES = 1_000_000


def require_catalog(path: Path, *, key: bytes) -> None:
    """Raises InputError for what no version of this program wrote as a catalog, StateError for one that is cut off.

    ``key`` is what a catalog's metadata stand under.
    """
    written_by = "`aost index` writes a catalog, `aost select` a manifest"
    as_table = (
        f"not a catalog; to list images by its labels: `aost index FOLDER --layout table --set table={path} "
        "path_column=... --output catalog.parquet`"
    )
    if path.is_dir():
        raise InputError(f"{path} is a folder, expected a catalog; of a folder of images, {written_by.split(',')[0]}")
    try:
        head, size, tail = patiently(lambda: _ends(path), path)
    except FileNotFoundError:
        raise InputError(f"no catalog {path}; {written_by}") from None
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror}; {written_by}") from None
    if head == tail[-4:] == _PARQUET:
        # Either key may be what is damaged; the SHA-256 will say so.
        if not any(each in tail for each in (key, DIGEST_KEY)):
            raise InputError(f"{path} is a table, {as_table}")
    elif head == _PARQUET:
        raise StateError(f"{path} is damaged (it is cut off); restore it, or write it anew: {written_by}")
    elif path.suffix.lower() in (".csv", ".tsv"):
        raise InputError(f"{path} is a {path.suffix[1:].upper()} file, {as_table}")
    else:
        what = "empty" if size == 0 else "no Parquet file"
        raise InputError(f"{path} is {what}, expected a catalog; {written_by}")


def _ends(path: Path) -> tuple[bytes, int, bytes]:
    """The first bytes of a file, its size, and its end."""
    with path.open("rb") as stream:
        head = stream.read(4)
        size = stream.seek(0, os.SEEK_END)
        stream.seek(max(0, size - _FOOTER_BYTES))
        return head, size, stream.read()
