"""Copies to and from a GPU that go on while it computes; where the network runs on the CPU there is nothing to copy."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace

import torch
from torch import Tensor

from finegpr.pixels.prefetch import Images


def on_device(batches: Iterable[Images], device: torch.device) -> Iterator[Images]:
    """The same batches with their pixels on ``device``, copied on a stream of its own.

    The copy of a batch overlaps the device's work on the one before, as long as nobody waits for that in between.
    """
    if device.type != "cuda":
        yield from batches
        return
    copying = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
    for batch in batches:
        with torch.cuda.stream(copying):
            pixels = batch.pixels.to(device, non_blocking=True)
        computing = torch.cuda.current_stream(device)
        computing.wait_stream(copying)
        pixels.record_stream(computing)  # or its memory could be reused while the network still reads it
        yield replace(batch, pixels=pixels)


class OnHost:
    """Tensors on their way to the memory of the host, begun when this is made."""

    def __init__(self, tensors: Mapping[str, Tensor]) -> None:
        self._tensors = {name: tensor.to("cpu", non_blocking=True) for name, tensor in tensors.items()}
        device = next(iter(tensors.values())).device
        self._arrived = torch.cuda.current_stream(device).record_event() if device.type == "cuda" else None

    def wait(self) -> dict[str, Tensor]:
        """The tensors, once they have arrived."""
        if self._arrived is not None:
            self._arrived.synchronize()
        return self._tensors
