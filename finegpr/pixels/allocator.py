"""What the C library does with freed memory: kept while a network runs on the CPU, given back afterwards.

The feature maps of a batch are hundreds of megabytes, freed and asked for again layer after layer. glibc returns such
blocks to the kernel each time and gets them back page by page, which takes 12 % of VGG-19's time.
"""

import ctypes

_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3  # malloc.h
_DYNAMIC_LIMIT = 32 * 2**20  # glibc's own thresholds grow so far by themselves


def keep_freed_blocks() -> None:
    """Keep blocks of any size for the next request. Without glibc nothing happens."""
    _set(mmap=2**31 - 1, trim=2**31 - 1)


def give_back_freed_blocks() -> None:
    """Return what is free to the kernel, now and as usual from now on."""
    _set(mmap=_DYNAMIC_LIMIT, trim=2 * _DYNAMIC_LIMIT)
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)


def _set(*, mmap: int, trim: int) -> None:
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_MMAP_THRESHOLD, mmap)
        mallopt(_TRIM_THRESHOLD, trim)
