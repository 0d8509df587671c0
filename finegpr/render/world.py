"""How a rendered world reaches the disk: balanced conditions, resumable units of work, any number of workers."""

import functools
import io
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from multiprocessing import get_context
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from PIL import Image

from finegpr.atomic import flush_below, write_bytes, writing
from finegpr.attributes import ILLUMINATION, SCENE, VIEWPOINT, WEATHER
from finegpr.config import Config
from finegpr.errors import StateError
from finegpr.storage import canonical_hash, locked, read_json, read_marker, write_json, write_marker

Progress = Callable[[int, int], None]
Condition = tuple[str, str, str, str]
CONDITIONS = (VIEWPOINT, WEATHER, ILLUMINATION, SCENE)
# raise when the same config would draw other pixels
FORMAT = 1


def silent(_done: int, _total: int) -> None:
    """The progress callback of callers that show none."""


def deal(
    factors: Sequence[Sequence[str]], hands: int, size: int, random: np.random.Generator
) -> list[list[tuple[str, ...]]]:
    """``hands`` lists of ``size`` distinct combinations of the factors' values.

    Over all hands the counts of any two combinations differ by at most one, and within a hand every factor's values are
    nearly balanced: combinations are dealt from whole decks in an order that steps through all factors at once.
    """
    total = int(np.prod([len(values) for values in factors]))
    assert 0 < size <= total
    deck: list[tuple[str, ...]] = []
    dealt = []
    for _ in range(hands):
        hand: list[tuple[str, ...]] = []
        held: set[tuple[str, ...]] = set()
        skipped: list[tuple[str, ...]] = []
        while len(hand) < size:
            if not deck:
                deck = _shuffled_deck(factors, random)[::-1]
            card = deck.pop()
            if card in held:
                skipped.append(card)
            else:
                hand.append(card)
                held.add(card)
        deck.extend(skipped[::-1])
        dealt.append(hand)
    return dealt


def _shuffled_deck(factors: Sequence[Sequence[str]], random: np.random.Generator) -> list[tuple[str, ...]]:
    """Every combination once. Steps count in mixed radix, the longest factor fastest, and each digit is shifted by the
    faster ones, so that all factors move at every step; the values are relabelled at random."""
    order = sorted(range(len(factors)), key=lambda k: -len(factors[k]))
    labels = [[factor[i] for i in random.permutation(len(factor))] for factor in factors]
    deck = []
    for step in range(int(np.prod([len(values) for values in factors]))):
        card = [""] * len(factors)
        rest, shift, span = step, 0, 1
        fastest = step % len(labels[order[0]])
        for place, k in enumerate(order):
            rest, digit = divmod(rest, len(labels[k]))
            # from the third factor on a second shift keeps it from moving in step with the second
            slip = fastest // span if place > 1 else 0
            card[k] = labels[k][(digit + shift + slip) % len(labels[k])]
            shift += digit
            span *= len(labels[k]) if place else 1
        deck.append(tuple(card))
    return deck


def write_picture(path: Path, image: np.ndarray, **options: Any) -> None:
    """Write a picture as JPEG or PNG, by its suffix; ``options`` are Pillow's.

    It is not flushed: thousands of pictures are flushed together, or redrawn, sooner than one by one.
    """
    stream = io.BytesIO()
    Image.fromarray(image).save(stream, format="PNG" if path.suffix == ".png" else "JPEG", **options)
    write_bytes(path, stream.getvalue(), flush=False)


def is_whole(path: Path) -> bool:
    """Whether a picture is there and can be read: one that was not flushed may be empty after a power loss."""
    try:
        with Image.open(path, formats=("JPEG", "PNG")) as image:
            image.load()
    except (OSError, SyntaxError, ValueError):
        return False
    return True


@contextmanager
def claimed(root: Path, config: Config, world: Mapping[str, object]) -> Iterator[bool]:
    """Hold ``root`` for rendering ``config``; yields whether there is anything left to do and commits on leaving.

    Writes ``world.json`` first, so that an interrupted world is continued and another one is refused. Raises StateError
    when the folder holds anything else.
    """
    identity = canonical_hash({"format": FORMAT, "title": world["title"], "config": config.model_dump(mode="json")})
    with locked(root):
        description = root / "world.json"
        if description.exists():
            found = read_json(description)
            if not isinstance(found, dict) or found.get("hash") != identity:
                raise StateError(f"{root} holds another rendered world; choose another folder")
        elif any(not child.name.startswith(".lock") for child in root.iterdir()):
            raise StateError(f"{root} is not empty and holds no rendered world; choose another folder")
        marker = read_marker(root)
        if marker is not None and marker.get("hash") == identity:
            yield False
            return
        write_json(description, {**world, "hash": identity, "settings": config.model_dump(mode="json")})
        yield True
        flush_below(root)
        write_marker(root, {"hash": identity, "format": FORMAT})


Unit = TypeVar("Unit")


def run_units(
    work: Callable[[Unit], int], units: Iterable[Unit], *, total: int, workers: int, progress: Progress, root: Path
) -> None:
    """Call ``work`` on every unit, here or in ``workers`` fresh processes; it returns how many images it stands for."""
    done = 0
    with writing(root):
        if workers == 1:
            for unit in units:
                done += work(unit)
                progress(done, total)
            return
        with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
            for count in pool.map(work, units):
                done += count
                progress(done, total)


@functools.cache
def code(name: str, value: str) -> int:
    """FineGPR's code of a value, from 1: viewpoints start at 90deg and rise by 10deg, the others are in order."""
    if name == "viewpoint":
        return (int(VIEWPOINT.degrees(value)) - 90) % 360 // 10 + 1
    attribute = next(attribute for attribute in CONDITIONS if attribute.name == name)
    return attribute.index(value) + 1
