"""Which images are in which batch: a function of the seed and the epoch alone, whatever the number of processes."""

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from finegpr.arrays import Bools, Ints
from finegpr.errors import InputError

EpochBatches = Callable[[int], Iterator[Ints]]


def batches_per_epoch(num_images: int, batch_size: int) -> int:
    """Whole batches in one pass over the images, at least 1."""
    return max(1, num_images // batch_size)


def shuffled_batches(num_images: int, *, batch_size: int, seed: int) -> EpochBatches:
    """epoch -> batches (batch_size,) of distinct rows; every row once, but for the incomplete last batch.

    With fewer images than ``batch_size`` an epoch is one batch, in which rows come again in turn.
    """
    num_batches = batches_per_epoch(num_images, batch_size)

    def batches(epoch: int) -> Iterator[Ints]:
        order = _generator(seed, epoch).permutation(num_images)
        yield from np.resize(order, (num_batches, batch_size))

    return batches


def identity_batches(labels: Ints, *, batch_size: int, per_identity: int, seed: int) -> EpochBatches:
    """epoch -> batches of P = batch_size / per_identity identities with K = per_identity rows each, side by side.

    An epoch has as many batches as ``shuffled_batches``; a batch holds distinct identities while there are P. An
    identity gives distinct rows while it has K. Raises InputError when a batch could hold no positive or no negative
    pair.
    """
    identities, of_row = np.unique(labels, return_inverse=True)
    rows_of = np.split(np.argsort(of_row, kind="stable"), np.cumsum(np.bincount(of_row))[:-1])
    num_pairs = sum(len(rows) > 1 for rows in rows_of)
    if len(identities) < 2 or not num_pairs:
        raise InputError(
            f"a triplet loss needs at least 2 identities and 2 images of one, got {len(identities)} identities, "
            f"{num_pairs} of them with 2 images or more; use loss softmax or choose more images"
        )
    num_batches, num_chosen = batches_per_epoch(len(labels), batch_size), batch_size // per_identity

    def batches(epoch: int) -> Iterator[Ints]:
        generator = _generator(seed, epoch)
        waiting = np.empty(0, dtype=np.int64)
        for _ in range(num_batches):
            if len(waiting) < min(num_chosen, len(identities)):
                waiting = generator.permutation(len(identities))
            chosen, waiting = np.resize(waiting, num_chosen), waiting[num_chosen:]
            yield np.concatenate([_draw(rows_of[identity], per_identity, generator) for identity in chosen])

    return batches


def _draw(rows: Ints, count: int, generator: np.random.Generator) -> Ints:
    return np.resize(generator.permutation(rows), count)


def flips(num_images: int, probability: float, *, seed: int, epoch: int, batch: int) -> Bools:
    """Which images (num_images,) of a batch are mirrored."""
    return np.random.default_rng([seed, epoch, batch]).random(num_images) < probability


def _generator(seed: int, epoch: int) -> np.random.Generator:
    return np.random.default_rng([seed, epoch])


def share(batch: NDArray[Any], *, rank: int, num_ranks: int) -> NDArray[Any]:
    """The part of a batch that process ``rank`` works on; its length must be a multiple of ``num_ranks``."""
    size = len(batch) // num_ranks
    return batch[rank * size : (rank + 1) * size]
