"""Faults of the machine, which may pass by themselves, told apart from what is wrong with one file.

A failing disk, a network folder that went away, a limit that was reached: it says nothing about the file that was
being read. So it is tried again, and then ends the run by name; it is never a property of the file that is kept.
"""

import errno
import os
import time
from collections.abc import Callable
from typing import TypeVar

from finegpr.errors import AostError, UnreachableError, UnreadableError, WriteError

PAUSES_SECONDS = (0.1, 0.4, 1.5)  # before the second, third and last attempt
_ABSENT = frozenset({errno.ENOENT, errno.ENOTDIR, errno.ELOOP})
_OF_THE_FILE = frozenset({errno.EACCES, errno.EPERM, errno.ENAMETOOLONG, errno.EISDIR, errno.ENXIO, errno.EILSEQ})
_LIMITS = {
    errno.EMFILE: "; raise the limit of open files (`ulimit -n`)",
    errno.ENFILE: "; close programs, or raise the machine's limit of open files (fs.file-max)",
}
_OF_TORCH = ("can't allocate memory", "CUDA error: out of memory")
_SPACE = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})

T = TypeVar("T")


def is_absent(error: OSError) -> bool:
    """Whether ``error`` says that there is no such file."""
    return isinstance(error, FileNotFoundError) or error.errno in _ABSENT


def is_of_file(error: OSError) -> bool:
    """Whether ``error`` says something about its file, rather than about the machine or a store."""
    return is_absent(error) or error.errno in _OF_THE_FILE


def is_out_of_memory(error: BaseException) -> bool:
    """Whether memory was short: of Python, NumPy or the system, of PyTorch on the CPU or on a GPU."""
    if isinstance(error, OSError):
        return error.errno == errno.ENOMEM
    return (
        isinstance(error, MemoryError)
        or type(error).__name__ == "OutOfMemoryError"
        or (isinstance(error, RuntimeError) and any(text in str(error) for text in _OF_TORCH))
    )


def patiently(action: Callable[[], T], path: object) -> T:
    """What ``action``, which reads ``path``, returns; tried four times where the machine fails.

    Raises the OSError that says something about the file at once and as it is. Raises UnreachableError, or WriteError
    for want of memory, where all attempts failed; it names the file and the error.
    """
    for pause in (*PAUSES_SECONDS, None):
        try:
            return action()
        except (OSError, MemoryError) as error:
            if isinstance(error, OSError) and is_of_file(error):
                raise
            if pause is None:
                raise unreadable(path, error, attempts=len(PAUSES_SECONDS) + 1) from error
        time.sleep(pause)
    raise AssertionError("the last attempt returns or raises")


def unreadable(path: object, error: Exception, *, attempts: int = 1) -> AostError:
    """What a run ends with when ``path`` cannot be read, after so many ``attempts``: for good, or for now."""
    if is_out_of_memory(error):
        return out_of_memory(f"reading {path}")
    if not isinstance(error, OSError):
        return UnreachableError(f"cannot read {path}: {error}; finished work is saved, the same command resumes")
    if error.errno in (errno.EACCES, errno.EPERM):
        return UnreadableError(f"cannot read {path}: {named(error)}; allow this user to read it and its folders")
    if error.errno == errno.ENAMETOOLONG:
        return UnreadableError(f"cannot read {path}: {named(error)}; give a shorter root, or a shorter name")
    if is_of_file(error):
        return UnreadableError(f"cannot read {path}: {named(error)}; expected a file")
    tried = f", tried {attempts} times" if attempts > 1 else ""
    return UnreachableError(
        f"cannot read {path}: {named(error)}{tried}{_LIMITS.get(error.errno or 0, '')}; "
        "this is no fault of the file: finished work is saved, the same command resumes"
    )


def unwritable(path: object, error: OSError) -> WriteError:
    """What a run ends with when ``path`` cannot be written."""
    if error.errno == errno.ENOMEM:
        return out_of_memory(f"writing {path}")
    advice = _LIMITS.get(error.errno or 0)
    if advice is None:
        advice = "; free space or choose another --output" if error.errno in _SPACE else "; choose another --output"
    return WriteError(f"cannot write {path}: {named(error)}{advice}")


def out_of_memory(doing: str) -> WriteError:
    """What a run ends with when there was no memory for ``doing`` something."""
    return WriteError(f"out of memory while {doing}; free memory, or use a smaller batch_size or fewer workers")


def of_machine(error: BaseException) -> AostError | None:
    """What a run ends with that met ``error`` where nobody expected it; None for what is not the machine's fault."""
    if is_out_of_memory(error):
        where = getattr(error, "filename", None)
        return out_of_memory(f"using {where}" if where else "computing")
    if not isinstance(error, OSError) or error.errno is None or isinstance(error, ConnectionError):
        return None
    if error.errno in _SPACE | {errno.EROFS}:
        return unwritable(error.filename or "the output", error)
    return unreadable(error.filename or "what was asked of the system", error)


def named(error: OSError) -> str:
    """An error in words and by its name, such as ``Input/output error (EIO)``."""
    code = errno.errorcode.get(error.errno or 0)
    text = error.strerror or (os.strerror(error.errno) if error.errno else str(error))
    return f"{text} ({code})" if code else text
