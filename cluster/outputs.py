"""What lies already where a verb is to write: one rule, so that nothing that was finished is lost.

A folder says in ``asked.json`` what it was begun for. The same command goes on in it; another one is refused with the
difference, or, with --fresh, begins again beside what was there. A file that is replaced by another one is kept.
"""

import re
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from cluster.progress import say
from finegpr.atomic import flush_folder, move, write_atomic, writing
from finegpr.errors import ConfigError
from finegpr.storage import changed_fields, first_free, read_json, write_json

ASKED = "asked.json"
_SET_ASIDE = "before"
_HASH = re.compile(r"[0-9a-f]{64}")


def begin(folder: Path, asked: Mapping[str, Any], *, fresh: bool, may_grow: bool = False, record: str = ASKED) -> None:
    """Begin or go on, in a locked ``folder``, with what is ``asked``: JSON-ready settings, and hashes of the inputs.

    It is written down as ``record``. With ``may_grow`` what was not asked for before may be added. Raises ConfigError
    with the difference where the folder was begun for anything else, unless ``fresh``: then all of it is moved into a
    folder of its own.
    """
    path = folder / record
    held = [child for child in sorted(folder.iterdir()) if not child.name.startswith((".", _SET_ASIDE))]
    changes = []
    # A command that failed before it wrote anything has begun nothing.
    if path.exists() and held != [path]:
        changes = differences(read_json(path), dict(asked), but_new=may_grow)
    if changes and not fresh:
        raise ConfigError(
            f"{folder} was begun with other settings or inputs ({'; '.join(changes[:6])}); choose another --output, "
            "use --fresh to set aside what it holds, or undo the change"
        )
    if changes:
        kept = first_free(folder / _SET_ASIDE)
        with writing(kept):
            kept.mkdir()
            for child in held:
                move(child, kept / child.name)
        say(f"  other settings or inputs ({'; '.join(changes[:6])}); what {folder} held is kept as {kept}")
    if not path.exists() or may_grow or held == [path]:
        write_json(path, dict(asked))


@contextmanager
def replacing(path: Path) -> Iterator[None]:
    """While this lasts a verb writes the file ``path``, by renaming; another one that was there is kept beside it."""
    if not path.is_file():
        yield
        return
    kept = first_free(path.with_name(f"{path.stem}.{_SET_ASIDE}"), suffix=path.suffix)
    with writing(kept):
        try:
            kept.hardlink_to(path)
            flush_folder(kept.parent)
        except OSError:  # not every file system has hard links
            write_atomic(kept, lambda temporary: shutil.copy2(path, temporary))
    try:
        yield
    finally:
        if path.is_file() and path.read_bytes() == kept.read_bytes():
            kept.unlink()
        else:
            say(f"  {path} held something else; it is kept as {kept}")


def differences(before: object, after: object, *, but_new: bool = False) -> list[str]:
    """Fields in which two JSON values differ, as ``a.b: old -> new``, of hashes that they changed; with ``but_new``
    those that were there before."""
    return [
        f"{place.removeprefix('config.')}: {_in_words(old, new)}"
        for place, old, new in changed_fields(before, after)
        if old or not but_new
    ]


def _in_words(old: object, new: object) -> str:
    if all(isinstance(each, str) and _HASH.fullmatch(each) for each in (old, new)):
        return "changed"  # two hashes tell nobody more
    return f"{_short(old)} -> {_short(new)}"


def _short(value: object) -> str:
    text = str(value)
    if len(text) <= 40:
        return text
    # Of a path the end says most.
    return f"...{text[-60:]}" if text.startswith("/") else f"{text[:37]}..."
