"""Re-ranking by k-reciprocal encoding (Zhong, Zheng, Cao and Li, CVPR 2017)."""

from collections.abc import Iterator

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import sparse

from finegpr.arrays import Floats, Ints
from finegpr.errors import InputError

_BLOCK_VALUES = 1 << 24  # rows of the joint distance matrix are made in blocks of at most this many float64 values


def k_reciprocal(
    query_gallery: ArrayLike,
    query_query: ArrayLike,
    gallery_gallery: ArrayLike,
    *,
    k1: int = 20,
    k2: int = 6,
    lambda_value: float = 0.3,
) -> Floats:
    """Distances (Q, G) mixed from ``lambda_value`` of the original and the rest Jaccard distance of neighbour sets.

    Takes Euclidean, not squared, distances (Q, G), (Q, Q), (G, G). They are squared and each row is divided by its own
    maximum over all Q + G points; neighbour lists have k1 + 1 entries, the point itself included; ties go to the
    lower index, queries first. Raises InputError for shapes, settings or values that do not fit.
    """
    joint = _Joint(np.asarray(query_gallery), np.asarray(query_query), np.asarray(gallery_gallery))
    if k1 < 1 or k2 < 1 or not 0 <= lambda_value <= 1:
        raise InputError(f"expected k1 >= 1, k2 >= 1 and 0 <= lambda <= 1, got {k1}, {k2} and {lambda_value}")
    nearest = joint.nearest(max(k1 + 1, k2))
    neighbours = _reciprocal(nearest[:, : k1 + 1])
    half = _reciprocal(nearest[:, : round(k1 / 2) + 1])  # Python rounds half to even, as the authors' code does
    weights = joint.weights(_expanded(neighbours, half))
    if k2 > 1:
        weights = _mean_of(nearest[:, :k2]) @ weights
    jaccard = _jaccard(weights.tocsr(), joint.num_query)
    original = np.concatenate([rows[:, joint.num_query :] for _, rows in joint.blocks(joint.num_query)])
    return (1 - lambda_value) * jaccard + lambda_value * original


class _Joint:
    """The normalised squared distances among queries and gallery together, made row by row, never whole."""

    def __init__(self, query_gallery: NDArray[np.generic], *own: NDArray[np.generic]) -> None:
        shape = query_gallery.shape
        if len(shape) != 2 or 0 in shape or any(part.shape != (n, n) for part, n in zip(own, shape, strict=True)):
            shapes = [part.shape for part in (query_gallery, *own)]
            raise InputError(f"expected distances of shapes (Q, G), (Q, Q), (G, G), got {', '.join(map(str, shapes))}")
        self.parts = (query_gallery, *own)
        if not all(np.isfinite(part).all() for part in self.parts):
            raise InputError("expected finite distances, got NaN or infinity; do the embeddings hold NaN?")
        self.num_query = shape[0]
        self.num_points = sum(shape)

    def blocks(self, stop: int | None = None) -> Iterator[tuple[int, Floats]]:
        """(first row, rows (b, Q + G)) up to row ``stop``."""
        query_gallery, query_query, gallery_gallery = self.parts
        split, stop = self.num_query, self.num_points if stop is None else stop
        step = max(1, _BLOCK_VALUES // self.num_points)
        for begin in range(0, stop, step):
            end = min(begin + step, stop)
            rows = np.empty((end - begin, self.num_points))
            queries = max(0, min(end, split) - begin)
            rows[:queries, :split] = query_query[begin : begin + queries]
            rows[:queries, split:] = query_gallery[begin : begin + queries]
            rows[queries:, :split] = query_gallery[:, max(begin, split) - split : max(end, split) - split].T
            rows[queries:, split:] = gallery_gallery[max(begin, split) - split : max(end, split) - split]
            np.square(rows, out=rows)
            largest = rows.max(axis=1, keepdims=True)
            yield begin, np.divide(rows, largest, out=np.zeros_like(rows), where=largest > 0)

    def nearest(self, count: int) -> Ints:
        """Indices (Q + G, count) of the nearest points, ties by index."""
        count = min(count, self.num_points)
        result = np.empty((self.num_points, count), dtype=np.int64)
        for begin, rows in self.blocks():
            reach = np.partition(rows, count - 1, axis=1)[:, count - 1]
            for offset, row in enumerate(rows):
                candidates = np.flatnonzero(row <= reach[offset])
                order = np.argsort(row[candidates], kind="stable")[:count]
                result[begin + offset] = candidates[order]
        return result

    def weights(self, sets: sparse.csr_array) -> sparse.csr_array:
        """exp(-distance) on the members of every set (one per row), each row summing to 1."""
        values = np.empty(sets.nnz)
        for begin, rows in self.blocks():
            first, last = sets.indptr[begin], sets.indptr[begin + len(rows)]
            row_of = np.repeat(np.arange(len(rows)), np.diff(sets.indptr[begin : begin + len(rows) + 1]))
            values[first:last] = np.exp(-rows[row_of, sets.indices[first:last]])
        filled = sparse.csr_array((values, sets.indices, sets.indptr), shape=sets.shape)
        total = np.asarray(filled.sum(axis=1)).ravel()
        # Among exact duplicates a point can miss its own list and be left with no neighbour at all.
        filled.data /= np.repeat(np.where(total > 0, total, 1), np.diff(filled.indptr))
        return filled


def _member(lists: Ints) -> sparse.csr_array:
    """Lists (n, k) of indices as an (n, n) matrix of ones."""
    n, k = lists.shape
    return sparse.csr_array((np.ones(n * k, dtype=np.int32), lists.ravel(), np.arange(0, n * k + 1, k)), shape=(n, n))


def _reciprocal(lists: Ints) -> sparse.csr_array:
    """Which listed points list the point back (eq. 1 of the paper)."""
    member = _member(lists)
    return member.multiply(member.T).tocsr()


def _expanded(neighbours: sparse.csr_array, half: sparse.csr_array) -> sparse.csr_array:
    """Neighbours' half lists join a point's set when more than two thirds of them are in it already (eq. 2)."""
    shared = neighbours.multiply(neighbours @ half.T).tocoo()
    size = np.asarray(half.sum(axis=1)).ravel()
    joins = 3 * shared.data > 2 * size[shared.col]
    chosen = sparse.csr_array(
        (np.ones(joins.sum(), dtype=np.int32), (shared.row[joins], shared.col[joins])), shape=neighbours.shape
    )
    sets = (neighbours + chosen @ half).tocsr()
    sets.sort_indices()
    return sets


def _mean_of(lists: Ints) -> sparse.csr_array:
    """The matrix that averages the listed rows: local query expansion."""
    return _member(lists) * (1.0 / lists.shape[1])


def _jaccard(weights: sparse.csr_array, num_query: int) -> Floats:
    """1 - sum of minima / sum of maxima between every query's and every gallery point's weights (eq. 10)."""
    num_gallery = weights.shape[0] - num_query
    gallery = weights[num_query:].tocsc()
    result = np.empty((num_query, num_gallery))
    for query in range(num_query):
        members = slice(weights.indptr[query], weights.indptr[query + 1])
        columns = gallery[:, weights.indices[members]]
        own = np.repeat(weights.data[members], np.diff(columns.indptr))
        shared = np.bincount(columns.indices, np.minimum(columns.data, own), minlength=num_gallery)
        result[query] = 1 - shared / (2 - shared)
    return result
