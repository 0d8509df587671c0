"""Freed blocks stay with the process while asked for, and go back to the kernel afterwards."""

import ctypes
from pathlib import Path

import pytest
import torch

from finegpr.pixels.allocator import give_back_freed_blocks, keep_freed_blocks

BLOCK_MB = 64


def resident_mb() -> float:
    """What the process has in memory. Page faults would not do: with huge pages there are few of them."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096 / 2**20


@pytest.mark.skipif(not hasattr(ctypes.CDLL(None), "mallopt"), reason="not glibc")
def test_a_freed_block_stays_until_it_is_given_back() -> None:
    try:
        keep_freed_blocks()
        block = torch.ones(BLOCK_MB * 2**18)
        used = resident_mb()
        del block
        kept = resident_mb()
    finally:
        give_back_freed_blocks()
    left = resident_mb()
    assert abs(used - kept) < BLOCK_MB / 8
    assert kept - left > BLOCK_MB * 7 / 8
