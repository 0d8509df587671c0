"""What a person sees while a run works: bars on a terminal, plain lines elsewhere, always on standard error."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import Protocol

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from finegpr.visible import visible

PLAIN_EVERY_SECONDS = 5.0


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
    """A bar for one piece of long work on a terminal; elsewhere a plain line every few seconds."""
    if console().is_terminal:
        with _bar(label) as tick:
            yield tick
        return
    started = last = time.monotonic()

    def plain(done: int, total: int, note: str = "") -> None:
        nonlocal last
        now = time.monotonic()
        if done == total or now - last >= PLAIN_EVERY_SECONDS:
            last = now
            say(f"  {label}: {done}/{total} {unit}, {now - started:.0f} s{f', {note}' if note else ''}")

    yield plain


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
