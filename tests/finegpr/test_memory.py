"""Freed blocks stay with the process while asked for, and go back to the kernel afterwards."""

import ctypes
import resource

import pytest
import torch

from finegpr.memory import give_back_freed_blocks, keep_freed_blocks


def pages_touched() -> int:
    """Page faults of filling and freeing 64 MB."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    torch.ones(16 * 2**20)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before


@pytest.mark.skipif(not hasattr(ctypes.CDLL(None), "mallopt"), reason="not glibc")
def test_a_freed_block_is_used_again_until_it_is_given_back() -> None:
    try:
        keep_freed_blocks()
        kept = [pages_touched() for _ in range(16)][-1]  # the first few may each find the block in the wrong place
    finally:
        give_back_freed_blocks()
    assert kept < 1000 < 10 * 1000 < pages_touched()
