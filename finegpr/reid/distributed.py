"""The processes of one training: one, or a torch.distributed group that somebody else has started."""

import os
from dataclasses import dataclass
from typing import TypeVar, cast

import torch
from torch import Tensor, distributed, nn
from torch.nn.parallel import DistributedDataParallel

from finegpr.device import DeviceName, resolve_device

Value = TypeVar("Value")


@dataclass(frozen=True, kw_only=True)
class Ranks:
    """This process's number and how many there are."""

    rank: int
    num_ranks: int

    @classmethod
    def current(cls) -> "Ranks":
        """The initialised process group, or this process alone."""
        if distributed.is_available() and distributed.is_initialized():
            return cls(rank=distributed.get_rank(), num_ranks=distributed.get_world_size())
        return cls(rank=0, num_ranks=1)

    @property
    def is_first(self) -> bool:
        return self.rank == 0

    def device(self, name: DeviceName) -> torch.device:
        """``resolve_device``, one CUDA device per process of a machine."""
        place = resolve_device(name)
        if place.type == "cuda" and self.num_ranks > 1:
            place = torch.device("cuda", int(os.environ.get("LOCAL_RANK", self.rank)) % torch.cuda.device_count())
            torch.cuda.set_device(place)
        return place

    def replicate(self, network: nn.Module, place: torch.device) -> nn.Module:
        """The network on its device, with gradients averaged over the processes."""
        network = network.to(place)
        if self.num_ranks == 1:
            return network
        if place.type == "cuda":
            network = nn.SyncBatchNorm.convert_sync_batchnorm(network)  # type: ignore[no-untyped-call]
        return DistributedDataParallel(network, device_ids=[place] if place.type == "cuda" else None)

    def mean(self, values: Tensor) -> Tensor:
        """Mean over the processes, the same in each."""
        if self.num_ranks > 1:
            distributed.all_reduce(values)
            values /= self.num_ranks
        return values

    def from_first(self, values: Tensor) -> Tensor:
        """What the first process has."""
        if self.num_ranks > 1:
            distributed.broadcast(values, src=0)
        return values

    def gather(self, value: Value) -> list[Value]:
        """What each process has, in the order of their ranks."""
        if self.num_ranks == 1:
            return [value]
        values: list[Value | None] = [None] * self.num_ranks
        distributed.all_gather_object(values, value)
        return cast(list[Value], values)

    def wait(self) -> None:
        """Until every process is here."""
        if self.num_ranks > 1:
            distributed.barrier()
