"""The errors a user can meet. Each carries the exit code with which the command line ends.

Messages are one line: what was got, what was expected, what to do.
"""

from collections.abc import Iterable
from difflib import get_close_matches
from pathlib import Path


def did_you_mean(name: str, known: Iterable[str], *, otherwise: str = "", most: int = 1, cutoff: float = 0.7) -> str:
    """``did you mean 'x'?`` with the known name nearest to ``name``, or ``otherwise`` when none is near.

    With ``most`` above 1, up to so many names, the nearest first, without quotes. ``cutoff`` in [0, 1] is the least
    likeness that counts as near, as in ``difflib.get_close_matches``: a slip of the finger, not another word. A name
    whose words are some of a known one's, such as ``batch`` of ``batch_size``, is near too.
    """
    known = list(known)
    near = get_close_matches(name, known, n=most, cutoff=cutoff)
    near = near or [each for each in known if name and f"_{name}_" in f"_{each}_"][:most]
    if not near:
        return otherwise
    return f"did you mean {repr(near[0]) if most == 1 else ', '.join(near)}?"


def write_anew(path: Path) -> str:
    """What helps when a file that we wrote, in a folder of ours, is damaged or lost.

    Of a run's stage as of a verb's output: its folder, put aside, is written anew by the command that wrote it. Nothing
    has to be deleted, and the command that only reads the file would fail again.
    """
    return f"restore it from a copy, or move the folder {path.parent} aside and give the command that wrote it again"


class AostError(Exception):
    """Base of every error that is shown to a user as one line, without a traceback."""

    exit_code = 1


class ConfigError(AostError):
    """The command or the config is wrong: unknown key, wrong type, impossible combination."""

    exit_code = 2


class InputError(AostError, ValueError):
    """The user's data is wrong: a missing folder, a wrong layout, weights of another net."""

    exit_code = 3


class UnreadableError(InputError):
    """A file of the user cannot be opened: permission, a name too long. What it holds is not known."""


class StateError(AostError):
    """A file that we wrote ourselves is damaged, or does not belong to this run."""

    exit_code = 4


class BusyError(AostError):
    """Another process is writing this run folder."""

    exit_code = 5


class WriteError(AostError):
    """The output cannot be written: permission, space or memory."""

    exit_code = 6


class RefusedError(AostError):
    """What was asked for is possible, but against a guard that the user set."""

    exit_code = 7


class UnreachableError(AostError):
    """A store, a disk or the machine does not answer, or not in time; finished work is saved, same command resumes."""

    exit_code = 75
