"""A warm process that runs ``aost`` in forks of itself, in which calls of the C library fail as they are told to.

A test loads this file by ``runpy.run_path`` and takes ``Injected`` from it; started as a program, under the library of
``fault_injector.c``, it is that process.
"""

import contextlib
import ctypes
import importlib
import json
import os
import subprocess
import sys
import traceback
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

OPEN, READ, WRITE, SYNC, NAME, STAT, MAP, LIST = (2**bit for bit in range(8))  # as in fault_injector.c
EVER = 10**9
WARM = (
    "torch",
    "xgboost",
    "cluster.verbs.run",
    "cluster.run.pipeline",
    "finegpr.measuring.measure",
    "finegpr.reid.train",
)


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """How a command ended, what it said on standard output and error, its calls by kind, and how many failed."""

    code: int
    said: str
    counted: dict[int, int]
    injected: int


class Injected:
    """The warm process; ``library`` is built into ``folder``."""

    def __init__(self, folder: Path) -> None:
        source, library = Path(__file__).with_name("fault_injector.c"), folder / "fault_injector.so"
        subprocess.run(["gcc", "-shared", "-fPIC", "-O1", "-o", library, source, "-ldl"], check=True)
        self._process = subprocess.Popen(
            [sys.executable, __file__],
            env={**os.environ, "LD_PRELOAD": str(library)},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def run(
        self, arguments: Sequence[str], *, below: Path, error: int = 0, kinds: int = 0, first: int = 1, number: int = 0
    ) -> Outcome:
        """``aost`` with ``arguments``; ``number`` calls of these ``kinds`` below a folder fail, from the ``first``."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        request = {"arguments": [*arguments], "inject": [str(below), error, kinds, first, number]}
        print(json.dumps(request), file=self._process.stdin, flush=True)
        found = json.loads(self._process.stdout.readline())
        return Outcome(**{**found, "counted": {int(kind): count for kind, count in found["counted"].items()}})

    def close(self) -> None:
        self._process.communicate()


def _serve() -> None:
    from finegpr import faults

    for module in WARM:
        importlib.import_module(module)
    faults.PAUSES_SECONDS = (0, 0, 0)
    for line in sys.stdin:
        outcome = _forked(json.loads(line))
        for module in outcome.pop("modules"):  # what else it needed is imported once, before the next fork
            if module not in sys.modules and not module.startswith("__"):
                with contextlib.suppress(Exception):
                    importlib.import_module(module)
        print(json.dumps(outcome), flush=True)


def _forked(request: dict[str, Any]) -> dict[str, Any]:
    reader, writer = os.pipe()
    said = os.memfd_create("said")
    child = os.fork()
    if child == 0:
        os.dup2(said, 1)
        os.dup2(said, 2)
        os._exit(_command(request, writer))
    os.close(writer)
    with os.fdopen(reader) as stream:
        counts = json.loads(stream.read() or '{"counted": {}, "injected": 0, "modules": []}')
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    with os.fdopen(said, "rb") as stream:
        stream.seek(0)
        return {"code": code, "said": stream.read().decode(), **counts}


def _command(request: dict[str, Any], writer: int) -> int:
    from cluster import cli

    library = ctypes.CDLL(None)
    below, error, kinds, first, number = request["inject"]
    library.inject.argtypes = [ctypes.c_char_p, ctypes.c_int, ctypes.c_int, ctypes.c_long, ctypes.c_long]
    library.inject(below.encode(), error, kinds, first, number)
    try:
        code = cli.run(request["arguments"])
    except BaseException:
        traceback.print_exc()
        code = 1
    sys.stdout.flush()
    counts = {
        "counted": {2**bit: library.counted(bit) for bit in range(8)},
        "injected": library.injected(),
        "modules": list(sys.modules),
    }
    with os.fdopen(writer, "w") as stream:
        json.dump(counts, stream)
    return code


if __name__ == "__main__":
    _serve()
