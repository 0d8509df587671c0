"""The journal: every trial of a search, append-only, and the reason why a killed search goes on as if nothing was.

JSON lines. The first line is a header with the whole config. Each generation is appended at once: its trials, then a
line that closes it with a SHA-256 over everything before, which makes any changed byte show. Only deterministic
fields are written, so a search that was killed and resumed leaves the same bytes; seconds go to ``timings.jsonl``.
"""

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from finegpr.atomic import write_bytes, writing
from finegpr.errors import StateError
from finegpr.faults import patiently
from finegpr.storage import changed_fields, sha256
from search.trial import Trial

JOURNAL = "journal.jsonl"
TIMINGS = "timings.jsonl"
FORMAT = 1
"""Bumped by hand when a line's meaning changes."""


class Journal:
    """The journal in ``folder``, opened for a search with this JSON-ready ``config``.

    ``generations`` holds the finished generations found in it. ``notice`` says in one line what a kill had left half
    written and was dropped, or is None. Raises StateError, with file and line, for damage anywhere else, and with a
    field diff when the journal was written under another config.
    """

    def __init__(self, folder: Path, config: Mapping[str, Any]) -> None:
        self.path = folder / JOURNAL
        self._timings = folder / TIMINGS
        self.generations: list[tuple[Trial, ...]] = []
        self.notice: str | None = None
        self._digest = ""
        canonical = json.loads(json.dumps(dict(config), sort_keys=True, allow_nan=False))
        if not self.path.exists():
            # Atomic, so a journal that exists has its header.
            write_bytes(self.path, _line({"kind": "header", "format": FORMAT, "config": canonical}))
        self._read(canonical)

    def append(self, trials: Sequence[Trial], *, seconds: float) -> None:
        """Append one generation and flush it to the disk. ``seconds`` goes to the timings only."""
        generation = len(self.generations)
        body = b"".join(_line({"kind": "trial", **trial.to_record()}) for trial in trials)
        self._digest = _chain(self._digest, body)
        close = {"kind": "generation", "index": generation, "num_trials": len(trials), "sha256": self._digest}
        with writing(self.path), self.path.open("ab") as stream:
            stream.write(body + _line(close))
            stream.flush()
            os.fsync(stream.fileno())
        with writing(self._timings), self._timings.open("ab") as stream:
            stream.write(_line({"generation": generation, "seconds": round(seconds, 4)}))
        self.generations.append(tuple(trials))

    def _read(self, config: object) -> None:
        data = patiently(self.path.read_bytes, self.path)
        lines = data.splitlines(keepends=True)
        self._check_header(lines[0] if lines else b"", config)
        self._digest = _chain("", lines[0])
        kept = len(lines[0])
        trials: list[Trial] = []
        body = b""
        for number, line in enumerate(lines[1:], start=2):
            if not line.endswith(b"\n"):
                break  # only a kill leaves a line without its end
            record = self._parse(line, number)
            body += line
            if record.get("kind") == "trial":
                trials.append(self._trial(record, number))
                continue
            self._digest = _chain(self._digest, body[: len(body) - len(line)])
            expected = {"kind": "generation", "index": len(self.generations), "num_trials": len(trials)}
            if record != {**expected, "sha256": self._digest}:
                first = number - len(trials)
                raise self._damaged(number, f"lines {first} to {number} do not match their checksum")
            self.generations.append(tuple(trials))
            kept += len(body)
            trials, body = [], b""
        if kept < len(data):
            self._drop(kept, len(data))

    def _check_header(self, line: bytes, config: object) -> None:
        header = self._parse(line, 1)
        if header.get("kind") != "header" or not isinstance(header.get("config"), dict):
            raise self._damaged(1, "the header is missing")
        if header.get("format") != FORMAT:
            raise StateError(
                f"{self.path} has journal format {header.get('format')}, expected {FORMAT}; start a new run"
            )
        changed = [
            f"{place}: was {json.dumps(old)[:60]}, now {json.dumps(new)[:60]}"
            for place, old, new in changed_fields(header["config"], config, same=_same)
        ]
        if changed:
            raise StateError(
                f"{self.path} belongs to another config: {'; '.join(changed[:8])}"
                + (f"; and {len(changed) - 8} more" if len(changed) > 8 else "")
                + ". Restore the config, or start a new run"
            )
        if line != _line({"kind": "header", "format": FORMAT, "config": config}):
            raise self._damaged(1, "the header was edited")

    def _parse(self, line: bytes, number: int) -> dict[str, Any]:
        try:
            record = json.loads(line, parse_constant=_refuse_constant)
        except json.JSONDecodeError as error:
            raise self._damaged(number, f"{error.msg}, column {error.colno}") from None
        except (ValueError, RecursionError) as error:
            raise self._damaged(number, str(error)) from None
        if not isinstance(record, dict):
            raise self._damaged(number, "not a JSON object")
        return record

    def _trial(self, record: dict[str, Any], number: int) -> Trial:
        try:
            return Trial.from_record({name: value for name, value in record.items() if name != "kind"})
        except (ValueError, TypeError) as error:
            raise self._damaged(number, str(error)) from None

    def _drop(self, kept: int, size: int) -> None:
        generation = len(self.generations)
        self.notice = f"{self.path}: dropped {size - kept} bytes of unfinished generation {generation}; doing it again"
        with writing(self.path), self.path.open("r+b") as stream:
            stream.truncate(kept)
            os.fsync(stream.fileno())

    def _damaged(self, number: int, reason: str) -> StateError:
        return StateError(f"{self.path} line {number} is damaged ({reason}); restore the file or start a new run")


def _line(record: Mapping[str, Any]) -> bytes:
    return (json.dumps(record, separators=(",", ":"), allow_nan=False) + "\n").encode()


def _chain(digest: str, body: bytes) -> str:
    return sha256(digest.encode() + body)


def _refuse_constant(name: str) -> float:
    raise ValueError(f"{name} is not a number")


def _same(old: object, new: object) -> bool:
    """A setting that was 1 and is 1.0 has changed: the header's bytes have."""
    return old == new and type(old) is type(new)
