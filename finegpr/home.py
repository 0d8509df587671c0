"""``~`` in a path that a person gave: configs and ``--option=~/x`` reach us as they were typed, past every shell."""

import os
from pathlib import Path

from finegpr.errors import ConfigError


def from_home(path: str | Path) -> Path:
    """The path with ``~`` or ``~user`` at its beginning replaced by that home folder.

    Raises ConfigError where there is no such home, so that no folder called ``~`` comes to be. A name such as
    ``~old.csv`` stays what it is, and so does ``./~/x``.
    """
    text = os.fspath(path)
    if not text.startswith("~"):
        return Path(path)
    home, slash, _ = text.partition("/")
    whole = os.path.expanduser(text)  # noqa: PTH111 - pathlib's raises for a file called ~old.csv
    if whole == text and (slash or home == "~"):
        raise ConfigError(
            f"there is no home folder {home}, of {text}; give the whole path, or ./{text} for such a name"
        )
    return Path(whole)
