"""Ranking a gallery by distance and scoring it by the Market-1501 protocol: mAP, CMC and mINP."""

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from finegpr.arrays import Floats, Ints
from finegpr.errors import InputError

AveragePrecision = Literal["hits", "trapezoid"]

JUNK = -1
DISTRACTOR = 0

_BLOCK_VALUES = 1 << 22  # queries are ranked in blocks of at most this many distances


@dataclass(frozen=True, kw_only=True, eq=False)
class Ranking:
    """How well queries rank their own person's images first; all values are fractions, higher is better.

    ``mean_ap`` and ``mean_inp`` (Ye et al. 2021) are means over the ``num_valid`` queries with a match; ``cmc``
    (max_rank,): entry r - 1 is the share of valid queries with a match among the first r; ``average_precision`` (Q,)
    is NaN for a query without a match.
    """

    mean_ap: float
    cmc: Floats
    mean_inp: float
    average_precision: Floats
    num_valid: int

    def metrics(self) -> dict[str, float]:
        """mAP, rank-1, rank-5, rank-10 (the CMC holds its last value), mINP and num_valid."""
        ranks = {f"rank-{rank}": float(self.cmc[min(rank, len(self.cmc)) - 1]) for rank in (1, 5, 10)}
        return {"mAP": self.mean_ap, **ranks, "mINP": self.mean_inp, "num_valid": self.num_valid}


def evaluate_ranking(
    distances: ArrayLike,
    query_ids: ArrayLike,
    gallery_ids: ArrayLike,
    query_cameras: ArrayLike,
    gallery_cameras: ArrayLike,
    *,
    max_rank: int = 50,
    ap: AveragePrecision = "hits",
) -> Ranking:
    """Score distances (Q, G), smaller = more similar, against identities and cameras (Q,) and (G,).

    Gallery images of the query's person and camera, and those of identity -1, are left out; identity 0 is a wrong
    answer to every query. Ties go to the lower gallery index. AP is the mean of the precision at the hits, or
    ``trapezoid``, the rule of the Market-1501 toolbox. Raises InputError (a ValueError) for shapes that do not fit,
    NaN, or when no query has a match.
    """
    distances = np.asarray(distances)
    queries, gallery = _labels(query_ids, query_cameras, "query"), _labels(gallery_ids, gallery_cameras, "gallery")
    if distances.shape != (queries.shape[1], gallery.shape[1]):
        raise InputError(
            f"expected distances of shape {(queries.shape[1], gallery.shape[1])} by the labels, got {distances.shape}"
        )
    if max_rank < 1 or ap not in ("hits", "trapezoid"):
        raise InputError(f"expected max_rank >= 1 and ap hits or trapezoid, got {max_rank} and {ap!r}")
    scores = np.full((3, len(distances)), np.nan)
    step = max(1, _BLOCK_VALUES // max(1, gallery.shape[1]))
    for begin in range(0, len(distances), step):
        rows = slice(begin, begin + step)
        scores[:, rows] = _score(distances[rows], queries[:, rows], gallery, trapezoid=ap == "trapezoid")
    average_precision, inverse_penalty, first_rank = scores
    is_valid = ~np.isnan(first_rank)
    if not is_valid.any():
        raise InputError(_no_match(queries, gallery))
    firsts = np.bincount(np.minimum(first_rank[is_valid].astype(np.int64), max_rank + 1), minlength=max_rank + 2)
    return Ranking(
        mean_ap=float(average_precision[is_valid].mean()),
        cmc=np.cumsum(firsts[1 : max_rank + 1]) / is_valid.sum(),
        mean_inp=float(inverse_penalty[is_valid].mean()),
        average_precision=average_precision,
        num_valid=int(is_valid.sum()),
    )


def _labels(ids: ArrayLike, cameras: ArrayLike, side: str) -> Ints:
    ids, cameras = np.asarray(ids), np.asarray(cameras)
    if ids.ndim != 1 or ids.shape != cameras.shape or not {ids.dtype.kind, cameras.dtype.kind} <= {"i", "u"}:
        raise InputError(
            f"expected one integer identity and camera per {side} image, "
            f"got {ids.dtype} {ids.shape} and {cameras.dtype} {cameras.shape}"
        )
    return np.stack([ids.astype(np.int64), cameras.astype(np.int64)])


def _score(distances: NDArray[np.generic], queries: Ints, gallery: Ints, *, trapezoid: bool) -> Floats:
    """Average precision, inverse negative penalty and rank of the first hit (3, q); NaN where there is no match."""
    if np.isnan(distances).any():
        raise InputError("distances hold NaN; did the training diverge, or an embedding overflow?")
    ids, cameras = gallery[:, np.argsort(distances, axis=1, kind="stable")]
    is_same = ids == queries[0][:, None]
    is_kept = ~(is_same & (cameras == queries[1][:, None])) & (ids != JUNK)
    is_hit = is_same & is_kept & (ids != DISTRACTOR)
    row, column = np.nonzero(is_hit)  # row by row, nearest first
    rank = np.cumsum(is_kept, axis=1, dtype=np.int32)[row, column].astype(np.float64)
    num_hits = np.bincount(row, minlength=len(distances))
    start = np.cumsum(num_hits) - num_hits
    hit = np.arange(1, len(row) + 1) - start[row]
    precision = hit / rank
    if trapezoid:
        before = np.where(rank > 1, (hit - 1) / np.maximum(rank - 1, 1), 1.0)
        precision = (before + precision) / 2
    scores = np.full((3, len(distances)), np.nan)
    matched = np.flatnonzero(num_hits)
    scores[0, matched] = (np.bincount(row, precision, minlength=len(distances)) / np.maximum(num_hits, 1))[matched]
    scores[1, matched] = num_hits[matched] / rank[(start + num_hits - 1)[matched]]
    scores[2, matched] = rank[start[matched]]
    return scores


def _no_match(queries: Ints, gallery: Ints) -> str:
    shared = len(np.intersect1d(queries[0], gallery[0][gallery[0] > DISTRACTOR]))
    return (
        f"none of {queries.shape[1]} queries has a match among {gallery.shape[1]} gallery images: {shared} query "
        "identities are in the gallery, but never from another camera; the usual cause is wrong camera labels "
        f"(got query cameras {_few(queries[1])}, gallery cameras {_few(gallery[1])})"
    )


def _few(values: Ints) -> str:
    distinct = np.unique(values)
    return ", ".join(map(str, distinct[:8])) + (", ..." if len(distinct) > 8 else "")
