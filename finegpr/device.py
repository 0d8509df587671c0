"""Which device computes, in which precision, and with how many threads.

torch is imported where it is asked, because settings name devices and are read without it.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Literal

from finegpr.errors import ConfigError

if TYPE_CHECKING:
    import torch

DeviceName = Literal["auto", "cpu", "cuda"]
Precision = Literal["float32", "bf16"]


def resolve_device(name: DeviceName) -> "torch.device":
    """The device of this process; ``auto`` takes the current CUDA device where there is one, else the CPU.

    Raises ConfigError when ``cuda`` is asked for and there is none.
    """
    import torch

    if name == "cpu" or (name == "auto" and not torch.cuda.is_available()):
        return torch.device("cpu")
    if not torch.cuda.is_available():
        raise ConfigError("device cuda was asked for, but torch sees none here; use device auto or cpu")
    return torch.device("cuda", torch.cuda.current_device())


@contextmanager
def limited_threads(threads: int) -> Iterator[None]:
    """Let torch use exactly ``threads`` CPU threads inside: sums, and so results, depend on their number."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        yield
    finally:
        torch.set_num_threads(before)
