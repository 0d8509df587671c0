"""What a process is given by those who start it: the encoding of names, the path of modules, standard streams."""

import errno
import io
import os
import sys
from typing import Any


def require_utf8() -> None:
    """Begin again in Python's UTF-8 mode where names of files would be read in another encoding.

    A catalog holds names, and is to hold the same under every locale. Does nothing where a person has forced the mode.
    """
    if sys.getfilesystemencoding() != "utf-8" and os.environ.get("PYTHONUTF8") != "1":
        os.environ["PYTHONUTF8"] = "1"  # for processes of ours and of Ray as well
        _flush()
        os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])


def keep_working_folder_out() -> None:
    """Processes that this one starts do not look for modules in the working directory, where a person's own lie."""
    os.environ.setdefault("PYTHONSAFEPATH", "1")


def _flush() -> None:
    for stream in (sys.stdout, sys.stderr):
        if stream is not None:
            stream.flush()


class Streams:
    """Makes the standard streams of this process such that writing to them never raises.

    One that was closed leads nowhere, so that no file that is opened gets its number. What a full disk, a pipe that
    nobody reads or a lost terminal does not take is dropped; what an encoding lacks is escaped.
    """

    def __init__(self) -> None:
        _fill_closed()
        self._raw = {name: _Dropping(number) for number, name in ((1, "stdout"), (2, "stderr"))}
        for name, raw in self._raw.items():
            setattr(sys, name, _text(raw, getattr(sys, name), is_error=name == "stderr"))

    def lost(self) -> str | None:
        """Why what was printed on standard output did not arrive; None when it did, or when nobody wanted it."""
        sys.stdout.flush()
        return self._raw["stdout"].reason


class _Dropping(io.FileIO):
    """A file of which the writer learns afterwards what it did not take."""

    def __init__(self, number: int) -> None:
        super().__init__(number, "w", closefd=False)
        self.reason: str | None = None

    def write(self, data: Any) -> int:
        try:
            return super().write(data)
        except OSError as error:
            if error.errno != errno.EPIPE:
                self.reason = error.strerror or str(error)
            return len(memoryview(data).cast("B"))


def _fill_closed() -> None:
    number = 0
    while number <= 2:
        number = os.open(os.devnull, os.O_RDWR)  # the lowest that is free
        if number <= 2:
            os.set_inheritable(number, True)
    os.close(number)
    if sys.stdin is None:
        sys.stdin = open(0, closefd=False)  # noqa: SIM115 - a stream without a path


def _text(raw: _Dropping, replaced: Any, *, is_error: bool) -> io.TextIOWrapper:
    encoding = getattr(replaced, "encoding", None) or "utf-8"
    # A name that is not UTF-8 leaves as it came; on a screen, or in another encoding, what is lacking is escaped.
    escape = "backslashreplace" if is_error or encoding.lower() != "utf-8" else "surrogateescape"
    return io.TextIOWrapper(
        io.BufferedWriter(raw),
        encoding=encoding,
        errors=escape,
        line_buffering=getattr(replaced, "line_buffering", is_error),
        write_through=getattr(replaced, "write_through", False),
    )
