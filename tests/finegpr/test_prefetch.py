"""Decoding ahead: the same batches whatever the threads do, never far ahead, and no thread left behind."""

import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from finegpr.pixels import prefetch
from finegpr.pixels.decode import load, load_into
from finegpr.pixels.prefetch import AHEAD, Decoder, decoding_threads

CPU = torch.device("cpu")


@pytest.fixture
def paths(tmp_path: Path) -> list[Path]:
    """23 images, two of them bad."""
    for index in range(23):
        pixels = np.random.default_rng(index).integers(0, 256, (40, 20, 3)).astype(np.uint8)
        Image.fromarray(pixels).save(tmp_path / f"{index:02d}.png")
    (tmp_path / "05.png").write_bytes(b"<html>")
    (tmp_path / "20.png").unlink()
    return [tmp_path / f"{index:02d}.png" for index in range(23)]


def decoder(threads: int = 3, batch_size: int = 4) -> Decoder:
    return Decoder(height=32, width=16, batch_size=batch_size, device=CPU, threads=threads)


def decode_threads() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name.startswith("decode")]


@pytest.mark.parametrize("threads", [1, 3, 9])
def test_batches_come_in_order_with_the_pixels_of_load(
    paths: list[Path], threads: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    def uneven(images: Any, paths: Sequence[Path], **more: Any) -> Any:
        time.sleep(0.02 * (paths[0].name in ("00.png", "09.png")))  # the first parts of batches finish last
        return load_into(images, paths, **more)

    monkeypatch.setattr(prefetch, "load_into", uneven)
    expected, bad = load(paths, height=32, width=16)
    with decoder(threads) as opened:
        batches = list(opened.read(paths))
    assert [len(batch.pixels) for batch in batches] == [4, 3, 4, 4, 4, 2]
    positions = np.concatenate([batch.positions for batch in batches])
    assert positions.tolist() == [index for index in range(23) if index not in (5, 20)]
    np.testing.assert_array_equal(torch.cat([batch.pixels for batch in batches]), expected[positions])
    assert [found for batch in batches for found in batch.bad] == bad == [(5, "unidentified"), (20, "missing")]
    assert all(batch.pixels.is_contiguous(memory_format=torch.channels_last) for batch in batches)


def test_a_batch_of_bad_images_is_empty(paths: list[Path]) -> None:
    with decoder() as opened:
        (batch,) = opened.read([paths[5], paths[20]])
    assert batch.pixels.shape == (0, 3, 32, 16)
    assert [reason for _, reason in batch.bad] == ["unidentified", "missing"]


def test_nothing_to_read_gives_nothing() -> None:
    with decoder() as opened:
        assert list(opened.read([])) == []


def test_reading_begins_at_once_and_stays_two_batches_ahead(paths: list[Path], monkeypatch: pytest.MonkeyPatch) -> None:
    begun: list[str] = []
    arrived = threading.Semaphore(0)

    def noted(images: Any, paths: Sequence[Path], **more: Any) -> Any:
        begun.extend(path.name for path in paths)
        arrived.release()
        return load_into(images, paths, **more)

    monkeypatch.setattr(prefetch, "load_into", noted)
    with decoder(threads=1) as opened:
        reading = opened.read(paths)
        for batches, batch in enumerate(reading, start=1):
            expected = min(AHEAD + batches, 6)
            while len(begun) < min(4 * expected, 23):
                assert arrived.acquire(timeout=30), "the next batches were not begun"
            assert len(begun) <= 4 * expected, "and no more than those"
            del batch


def test_an_error_is_raised_in_its_place_and_the_threads_end(
    paths: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    def failing(images: Any, paths: Sequence[Path], **more: Any) -> Any:
        if any(path.name == "09.png" for path in paths):
            raise MemoryError("no more")
        return load_into(images, paths, **more)

    monkeypatch.setattr(prefetch, "load_into", failing)
    seen = []
    with pytest.raises(MemoryError, match="no more"), decoder() as opened:
        for batch in opened.read(paths):
            seen.append(batch.positions[0])
    assert seen == [0, 4]
    assert decode_threads() == []


def test_an_interrupted_reader_leaves_no_thread_and_no_work(paths: list[Path], monkeypatch: pytest.MonkeyPatch) -> None:
    begun: list[Path] = []

    def slow(images: Any, paths: Sequence[Path], **more: Any) -> Any:
        begun.extend(paths)
        time.sleep(0.05)
        return load_into(images, paths, **more)

    monkeypatch.setattr(prefetch, "load_into", slow)
    with pytest.raises(KeyboardInterrupt), decoder(threads=1) as opened:
        for _ in opened.read(paths):
            raise KeyboardInterrupt
    assert decode_threads() == []
    assert len(begun) < 4 * (AHEAD + 2), "what was not begun is dropped"


def test_a_closed_reading_begins_nothing_more(paths: list[Path]) -> None:
    with decoder() as opened:
        reading = opened.read(paths)
        next(iter(reading))
        reading.close()
        assert list(reading) == []
        assert len(list(opened.read(paths))) == 6, "the decoder itself goes on"


def test_threads_follow_the_cores_and_the_device(monkeypatch: pytest.MonkeyPatch) -> None:
    for cores, beside_cpu, beside_gpu in ((1, 1, 1), (2, 2, 2), (12, 4, 12), (64, 4, 16)):
        monkeypatch.setattr(prefetch.os, "sched_getaffinity", lambda _, cores=cores: set(range(cores)))
        assert decoding_threads(CPU) == beside_cpu
        assert decoding_threads(torch.device("cuda")) == beside_gpu
