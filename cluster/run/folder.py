"""The run folder: one folder per stage, skipped when its finish marker carries the hash of what would be done.

A derived stage lives in ``<stage>/<hash>/``, so a changed config is computed anew beside the old one. A journalled
stage (search, training) lives in ``<stage>/`` itself and refuses a changed config, because its journal is history.
"""

import shutil
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from cluster.outputs import differences
from cluster.progress import say
from finegpr.atomic import move, withdraw, writing
from finegpr.errors import ConfigError, StateError, write_anew
from finegpr.storage import (
    ENDED,
    MARKER,
    canonical_hash,
    first_free,
    locked,
    path_part,
    read_json,
    read_marker,
    write_json,
    write_marker,
)

PLAN = "plan.json"

# A stage's number is raised by hand when the same config would give other files than before.
FORMATS = {"world": 1, "index": 1, "measure": 3, "search": 3, "check": 1, "select": 2, "train": 1}


@dataclass(kw_only=True)
class Stage:
    """One stage of one run: where it lives, what it would do, and what its finish marker says, if it has one."""

    name: str
    folder: Path
    plan: dict[str, Any]
    marker: dict[str, Any] | None
    status: Literal["done", "resumed", "skipped"] = "done"

    @property
    def done(self) -> bool:
        return self.marker is not None

    @property
    def key(self) -> str:
        """Hash of inputs, config and format: what later stages name as their input."""
        return canonical_hash(self.plan)

    def finish(self, *, seconds: float, **fields: Any) -> None:
        """Write the finish marker, after everything else; ``fields`` (counts, mostly) stand beside the cost."""
        self.marker = {"hash": self.key, "seconds": round(seconds, 3), ENDED: round(time.time(), 3), **fields}
        write_marker(self.folder, self.marker)

    def reload(self) -> None:
        """Read the finish marker that a worker process has written."""
        self.marker = read_marker(self.folder)


@dataclass(kw_only=True)
class RunFolder:
    """Opens the stages below ``root`` and remembers them in order, for the cost ledger."""

    root: Path
    fresh: bool = False
    opened: list[Stage] = field(default_factory=list)

    def open(
        self,
        name: str,
        *of: str,
        inputs: Mapping[str, Any],
        config: Mapping[str, Any],
        journal: bool = False,
        changes: Callable[[Path], str | None] = lambda _: None,
    ) -> Stage:
        """The stage ``name``, planned and, when it has been finished before, done.

        ``of`` are the arm, the objective and so on that it is of, whatever these are called. ``changes`` says of a
        finished stage's folder what became of its files since, by which it goes on. Raises ConfigError, with a field
        diff, when a journalled stage was begun under another config, and StateError for a damaged marker.
        """
        name = "/".join((name, *map(path_part, of)))
        plan = {"stage": name, "format": FORMATS[name.split("/")[0]], "inputs": dict(inputs), "config": dict(config)}
        key = canonical_hash(plan)
        folder = self.root / name if journal else self.root / name / key[:12]
        if journal:
            self._refuse_change(folder, plan)
        elif not folder.exists():
            self._tell_change(folder, plan)
        marker = read_marker(folder)
        if marker is not None and marker.get("hash") != key:
            raise StateError(f"{folder} is finished, but for other inputs; {write_anew(folder / PLAN)}")
        changed = None if marker is None else changes(folder)
        if changed is not None:
            withdraw(folder / MARKER)
            marker = None
        stage = Stage(name=name, folder=folder, plan=plan, marker=marker)
        self.opened.append(stage)
        if stage.done:
            stage.status = "skipped"
            say(f"{name}: done before, skipped")
        elif not (folder / PLAN).exists():
            write_json(folder / PLAN, plan)
            say(name)
        else:
            stage.status = "resumed"
            say(f"{name}: {changed or 'begun before'}, goes on")
        return stage

    @contextmanager
    def stage(
        self,
        name: str,
        *of: str,
        inputs: Mapping[str, Any],
        config: Mapping[str, Any],
        journal: bool = False,
        changes: Callable[[Path], str | None] = lambda _: None,
    ) -> Iterator[tuple[Stage, dict[str, Any]]]:
        """``open`` a stage and finish it when the body ends without error.

        Yields the stage and a dictionary for the marker's fields. A body finds ``stage.done`` and then only reads.
        """
        stage = self.open(name, *of, inputs=inputs, config=config, journal=journal, changes=changes)
        fields: dict[str, Any] = {}
        started = time.monotonic()
        yield stage, fields
        if not stage.done:
            stage.finish(seconds=time.monotonic() - started, **fields)

    def _refuse_change(self, folder: Path, plan: dict[str, Any]) -> None:
        if not (folder / PLAN).exists():
            return
        changes = differences(read_json(folder / PLAN), plan)
        if not changes:
            return
        if not self.fresh:
            raise ConfigError(begun_otherwise(folder, changes))
        kept = first_free(folder.with_name(f"{folder.name}.before"))
        with writing(kept):
            move(folder, kept)
        say(f"{plan['stage']}: settings changed ({'; '.join(changes[:6])}); the old journal is kept as {kept}")

    def _tell_change(self, folder: Path, plan: dict[str, Any]) -> None:
        plans = sorted(folder.parent.glob(f"*/{PLAN}"), key=lambda path: path.stat().st_mtime)
        if plans:
            changes = differences(read_json(plans[-1]), plan)
            say(f"{plan['stage']}: {'; '.join(changes[:6])}; computed anew beside {plans[-1].parent.name}")


def wall_seconds(markers: Iterable[Mapping[str, Any]]) -> float | None:
    """How long these pieces of work took by the clock, those at the same time counted once; None where it is not known.

    A finish marker says when its work ended and how long it took.
    """
    spans = []
    for marker in markers:
        if ENDED not in marker:
            return None
        spans.append((float(marker[ENDED]) - float(marker["seconds"]), float(marker[ENDED])))
    total, until = 0.0, float("-inf")
    for start, end in sorted(spans):
        total += max(0.0, end - max(start, until))
        until = max(until, end)
    return total


def begun_otherwise(folder: Path, changes: Sequence[str]) -> str:
    """Why a journalled stage does not go on, and what to do."""
    return (
        f"{folder} was begun with other settings ({'; '.join(changes[:6])}); "
        "--fork starts a new run, --fresh sets this stage's journal aside, or undo the change"
    )


def fork(root: Path) -> Path:
    """A new run folder beside ``root`` that shares its derived stages by hard link and has no journals."""
    target = first_free(root, start=2)
    if not root.is_dir():
        raise ConfigError(f"--fork starts from a finished or begun run, and {root} is none; leave --fork out")
    with locked(root), writing(target):
        for name in ("world", "index", "measure"):
            if (root / name).exists():
                shutil.copytree(root / name, target / name, copy_function=_link)
    say(f"forked {root}; to go on in the new run later, give --output {target} instead of --fork")
    return target


def _link(source: str, target: str) -> None:
    try:
        Path(target).hardlink_to(source)
    except OSError:
        # Not every file system has hard links.
        shutil.copy2(source, target)
