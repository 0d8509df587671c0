"""Image files decoded and resized by threads while the network works on earlier ones: in order, and never far ahead."""

import os
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from types import TracebackType
from typing import Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from finegpr.arrays import Ints
from finegpr.object_stores import AnyPath
from finegpr.pixels.decode import load_into, read

AHEAD = 2  # batches begun before they are asked for

_MOST_BESIDE_CPU, _MOST_BESIDE_GPU = 4, 16

Bad = list[tuple[int, str]]


@dataclass(frozen=True, kw_only=True)
class Images:
    """Readable images uint8 (k, 3, H, W), channels last; ``positions`` (k,) of all, and position, reason of the bad."""

    pixels: Tensor
    positions: Ints
    bad: Bad


def decoding_threads(device: torch.device) -> int:
    """One for each core of this process: at most 4 beside a network on the CPU, which is slower, and 16 for a GPU."""
    most = _MOST_BESIDE_GPU if device.type == "cuda" else _MOST_BESIDE_CPU
    return min(most, len(os.sched_getaffinity(0)))


class Decoder:
    """Threads that decode and resize image files for a network on ``device``; for a GPU, into pinned memory.

    Sizes in pixels. What is read does not depend on the number of ``threads`` (None: ``decoding_threads``). ``read``
    gives a file's bytes.
    """

    def __init__(
        self,
        *,
        height: int,
        width: int,
        batch_size: int,
        device: torch.device,
        threads: int | None = None,
        read: Callable[[AnyPath], bytes] = read,
    ) -> None:
        self.height, self.width, self.batch_size = height, width, batch_size
        self.threads = threads or decoding_threads(device)
        self.read_file = read
        self.pinned = device.type == "cuda"
        self.pool = ThreadPoolExecutor(self.threads, thread_name_prefix="decode")

    def read(self, paths: Sequence[AnyPath]) -> "Reading":
        """Begin to decode ``paths``."""
        return Reading(self, paths)

    def close(self) -> None:
        """End the threads; images that were not yet begun never are."""
        self.pool.shutdown(cancel_futures=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()


class Reading:
    """The batches of some files, in order, each decoded before it is asked for.

    What is wrong with a file is told with its batch; any other error is raised in its batch's place.
    """

    def __init__(self, decoder: Decoder, paths: Sequence[AnyPath]) -> None:
        self._decoder, self._paths = decoder, paths
        self._starts = iter(range(0, len(paths), decoder.batch_size))
        self._begun: deque[tuple[int, Tensor, list[Future[Bad]]]] = deque()
        for _ in range(AHEAD):
            self._begin_next()

    def __iter__(self) -> Iterator[Images]:
        while self._begun:
            start, pixels, parts = self._begun[0]
            bad = [found for part in parts for found in part.result()]
            self._begun.popleft()
            self._begin_next()
            positions = np.setdiff1d(np.arange(len(pixels)), [index for index, _ in bad])
            readable = pixels[torch.from_numpy(positions)] if bad else pixels
            yield Images(
                pixels=readable.permute(0, 3, 1, 2),
                positions=start + positions,
                bad=[(start + index, reason) for index, reason in bad],
            )

    def close(self) -> None:
        """Begin nothing more."""
        for _, _, parts in self._begun:
            for part in parts:
                part.cancel()
        self._begun.clear()

    def _begin_next(self) -> None:
        start = next(self._starts, None)
        if start is None:
            return
        decoder = self._decoder
        paths = self._paths[start : start + decoder.batch_size]
        shape = (len(paths), decoder.height, decoder.width, 3)
        pixels = torch.empty(shape, dtype=torch.uint8, pin_memory=decoder.pinned)
        share = -(-len(paths) // decoder.threads)
        parts = [
            decoder.pool.submit(self._load, pixels.numpy()[first : first + share], paths[first : first + share], first)
            for first in range(0, len(paths), share)
        ]
        self._begun.append((start, pixels, parts))

    def _load(self, images: NDArray[np.uint8], paths: Sequence[AnyPath], first: int) -> Bad:
        bad = load_into(images, paths, read=self._decoder.read_file)
        return [(first + index, reason) for index, reason in bad]
