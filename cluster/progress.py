"""What a person sees while a run works: bars on a terminal, plain lines elsewhere, always on standard error."""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import Protocol

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from finegpr.visible import visible

PLAIN_EVERY_SECONDS, SILENT_SECONDS = 5.0, 10.0


class Tick(Protocol):
    """Called with the number of units done, of how many, and a short note."""

    def __call__(self, done: int, total: int, note: str = "") -> None: ...


@cache
def console() -> Console:
    """The console on standard error, one for bars and lines alike, so that a line is set above the bar.

    NO_COLOR, dumb terminals and pipes are respected. Nothing in a text is an instruction: neither [red] nor :smile:.
    """
    return Console(stderr=True, highlight=False, soft_wrap=True, markup=False, emoji=False)


def say(text: str) -> None:
    """One line for the person watching, control characters made visible."""
    console().print(visible(text))


def answer(text: str) -> None:
    """One line on standard output: what was asked for. Control characters are made visible; ``--json`` has them all."""
    print(visible(text))


@contextmanager
def progress(label: str, unit: str) -> Iterator[Tick]:
    """A bar for one piece of long work on a terminal; elsewhere a plain line every few seconds, and never silence."""
    if console().is_terminal:
        with _bar(label) as tick:
            yield tick
        return
    started = last = time.monotonic()
    state = "preparing"

    def tell() -> None:
        nonlocal last
        last = time.monotonic()
        reached, _, note = state.partition(", ")
        say(f"  {label}: {reached}, {last - started:.0f} s{f', {note}' if note else ''}")

    def plain(done: int, total: int, note: str = "") -> None:
        nonlocal state
        state = f"{done}/{total} {unit}{f', {note}' if note else ''}"
        if done == total or time.monotonic() - last >= PLAIN_EVERY_SECONDS:
            tell()

    def beat() -> None:
        while not over.wait(1.0):
            if time.monotonic() - last >= SILENT_SECONDS:
                tell()

    over = threading.Event()
    threading.Thread(target=beat, daemon=True).start()
    try:
        yield plain
    finally:
        over.set()


@contextmanager
def _bar(label: str) -> Iterator[Tick]:
    columns = (
        TextColumn("  {task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[note]}", markup=False),
    )
    with Progress(*columns, console=console(), transient=True) as bar:
        task = bar.add_task(visible(label), total=None, note="")

        def tick(done: int, total: int, note: str = "") -> None:
            bar.update(task, completed=done, total=total, note=visible(note))

        yield tick
