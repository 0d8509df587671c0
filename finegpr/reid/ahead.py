"""Work of a training on image files, done by forked processes ahead of its use: in order, whatever their number."""

import os
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Generic, TypeVar

import torch
from torch.utils.data import DataLoader, Dataset

from finegpr.arrays import Ints
from finegpr.errors import AostError
from finegpr.pixels.prefetch import decoding_threads

Result = TypeVar("Result")


def decoding_processes(workers: int | None, place: torch.device) -> int:
    """``workers``, or else this process's part of the cores, at least one and no more than a network can use."""
    if workers is not None:
        return workers
    return max(1, decoding_threads(place) // int(os.environ.get("LOCAL_WORLD_SIZE", "1")))


def ahead(function: Callable[[Ints], Result], parts: Sequence[Ints], *, workers: int) -> Iterator[Result]:
    """``function`` of each part, in order; by ``workers`` processes, at most two parts each ahead, or in this one.

    What it raises is raised here, in its part's place. Raises AostError when a process is killed.
    """
    if workers == 0 or not parts:
        yield from map(function, parts)
        return
    loader: DataLoader[Any] = DataLoader(
        _Work(function, parts),
        batch_size=None,
        num_workers=min(workers, len(parts)),
        collate_fn=_as_it_is,
        multiprocessing_context="fork",
        generator=torch.Generator(),  # the global one is the training's
    )
    results = iter(loader)
    for _ in parts:
        try:
            result, error = next(results)
        except RuntimeError as killed:
            if "exited unexpectedly" not in str(killed) and "is killed" not in str(killed):
                raise
            reason = str(killed).splitlines()[0]
            raise AostError(
                f"a process that decodes images was ended from outside ({reason}); if memory is short, choose fewer "
                "with train.workers, 0 for none"
            ) from None
        if error is not None:
            raise error
        yield result


class _Work(Dataset[Any], Generic[Result]):
    def __init__(self, function: Callable[[Ints], Result], parts: Sequence[Ints]) -> None:
        self._function, self._parts = function, parts

    def __len__(self) -> int:
        return len(self._parts)

    def __getitem__(self, number: int) -> tuple[Result | None, Exception | None]:
        try:
            return self._function(self._parts[number]), None
        except (AostError, OSError, MemoryError) as error:  # as it is: PyTorch would put a traceback into its text
            return None, error


def _as_it_is(result: Any) -> Any:
    return result
