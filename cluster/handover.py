"""The end of every verb: the files that it made, by their paths, and the command that takes them on."""

import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from cluster.progress import say


def hand_over(files: Mapping[str, Path | str], *command: object) -> dict[str, Any]:
    """Say the files and the next ``command``, if there is one, and return both as ``--json`` prints them.

    Words in capitals in a command are for the person to fill in.
    """
    width = max(map(len, files), default=0)
    for what, path in files.items():
        say(f"  {what:{width}}  {path}")
    told: dict[str, Any] = {"files": {what: str(path) for what, path in files.items()}}
    if command:
        told["next"] = shlex.join(str(word) for word in command)
        say(f"next: {told['next']}")
    return told
