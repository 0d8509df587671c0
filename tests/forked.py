"""Processes that tests kill: each is forked from one that has imported everything, so it is at work in a moment.

A test loads this file by ``runpy.run_path``, as tests are no package, and takes ``Forked`` from it.
"""

import contextlib
import os
import runpy
import sys
from collections.abc import Mapping, Sequence
from multiprocessing import get_context
from multiprocessing.connection import Connection
from typing import Any

CONTEXT = get_context("forkserver")
CONTEXT.set_forkserver_preload(
    ["torch", "cluster.run.pipeline", "finegpr.measuring.measure", "finegpr.reid.train", "search.simulation"]
)


class Forked:
    """A program of several lines, or a module as by ``python -m``; its output and errors are one pipe of text."""

    def __init__(self, program: str, arguments: Sequence[str], environment: Mapping[str, str] | None = None) -> None:
        reader, writer = CONTEXT.Pipe(duplex=False)
        given = {
            "PROGRAM": program,
            "ARGUMENTS": [*arguments],
            "ENVIRONMENT": {**os.environ, **(environment or {})},
            "OUTPUT": writer,
        }
        self._process = CONTEXT.Process(
            target=runpy.run_path, args=(__file__,), kwargs={"init_globals": given, "run_name": "forked"}
        )
        self._process.start()
        writer.close()
        self.stdout = os.fdopen(os.dup(reader.fileno()))
        reader.close()

    @property
    def returncode(self) -> int | None:
        return self._process.exitcode

    def poll(self) -> int | None:
        return self._process.exitcode

    def wait(self, timeout: float | None = None) -> int | None:
        """The exit code, None when it still runs after ``timeout`` seconds."""
        self._process.join(timeout)
        return self._process.exitcode

    def send_signal(self, number: int) -> None:
        with contextlib.suppress(ProcessLookupError):
            assert self._process.pid is not None, "a process that was started"
            os.kill(self._process.pid, number)

    def kill(self) -> None:
        self._process.kill()

    def communicate(self) -> str:
        """All that it wrote and nobody has read yet, once it has ended."""
        with self.stdout:
            said = self.stdout.read()
        self.wait()
        return said


def _run(program: str, arguments: list[str], environment: dict[str, str], output: Connection) -> None:
    for number in (1, 2):
        os.dup2(output.fileno(), number)
    output.close()
    os.environ.clear()
    os.environ.update(environment)
    sys.argv = [program, *arguments]
    if "\n" not in program:
        runpy.run_module(program, run_name="__main__")
    else:
        exec(compile(program, "<program>", "exec"), {"__name__": "__main__"})


if __name__ == "forked":
    given: dict[str, Any] = globals()
    _run(given["PROGRAM"], given["ARGUMENTS"], given["ENVIRONMENT"], given["OUTPUT"])
