"""Ranking a gallery by distance and scoring it by the Market-1501 protocol: mAP, CMC and mINP."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray

from finegpr.arrays import Floats, Ints, Singles
from finegpr.catalog import Catalog
from finegpr.device import DeviceName, limited_threads, resolve_device
from finegpr.errors import InputError
from finegpr.pixels.decode import check_quarantine
from finegpr.reid.checkpoint import read_embedder
from finegpr.reid.data import ImageStore, open_pixels
from finegpr.reid.model import Embedder
from finegpr.reid.rerank import k_reciprocal
from finegpr.storage import write_json

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
    ap: Literal["hits", "trapezoid"] = "hits",
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


@dataclass(frozen=True, kw_only=True, eq=False)
class Evaluation:
    """The ranking of one checkpoint, its metrics, and the (path, reason) of images that could not be read."""

    ranking: Ranking
    metrics: dict[str, float]
    num_query: int
    num_gallery: int
    quarantined: tuple[tuple[str, str], ...]
    device: str

    def write(self, path: Path) -> None:
        """Write ``metrics.json``: the metrics and what they were measured on."""
        facts = {"num_query": self.num_query, "num_gallery": self.num_gallery, "num_bad": len(self.quarantined)}
        write_json(path, {**self.metrics, **facts, "device": self.device})


def evaluate_checkpoint(
    checkpoint: Path,
    query: Catalog,
    gallery: Catalog,
    *,
    images: ImageStore | None = None,
    batch_size: int = 256,
    flip_test: bool = False,
    rerank: bool = False,
    device: DeviceName = "auto",
    threads: int = 1,
) -> Evaluation:
    """Rank ``gallery`` for every ``query`` by the Euclidean distance of L2-normalised embeddings.

    ``flip_test`` adds the embedding of the mirrored image before normalising; ``rerank`` applies ``k_reciprocal``.
    Pixels come from ``images`` where given, else from the files. Raises InputError for an empty side, too many bad
    images, a file that is not a checkpoint, or no valid query.
    """
    place = resolve_device(device)
    with limited_threads(threads):
        embedder = read_embedder(checkpoint).to(place)
        return evaluate_embedder(
            embedder, query, gallery, images=images, batch_size=batch_size, flip_test=flip_test, rerank=rerank
        )


def evaluate_embedder(
    embedder: Embedder,
    query: Catalog,
    gallery: Catalog,
    *,
    images: ImageStore | None,
    batch_size: int = 256,
    flip_test: bool = False,
    rerank: bool = False,
) -> Evaluation:
    """``evaluate_checkpoint`` of a network that is in memory; it is left in evaluation mode."""
    query_features, query, bad_query = embed(embedder, query, images=images, batch_size=batch_size, flip=flip_test)
    features, gallery, bad = embed(embedder, gallery, images=images, batch_size=batch_size, flip=flip_test)
    distances = euclidean(query_features, features)
    if rerank:
        own = euclidean(query_features, query_features), euclidean(features, features)
        distances = k_reciprocal(distances, *own).astype(np.float32)
    ranking = evaluate_ranking(distances, *_truth(query, gallery))
    return Evaluation(
        ranking=ranking,
        metrics=ranking.metrics(),
        num_query=len(query),
        num_gallery=len(gallery),
        quarantined=(*bad_query, *bad),
        device=embedder.mean.device.type,
    )


def _truth(query: Catalog, gallery: Catalog) -> list[Ints]:
    return [side.frame[column].to_numpy() for column in ("identity", "camera") for side in (query, gallery)]


def embed(
    embedder: Embedder, catalog: Catalog, *, images: ImageStore | None, batch_size: int, flip: bool
) -> tuple[Singles, Catalog, list[tuple[str, str]]]:
    """L2-normalised embeddings (n, d) of the readable images, their catalog, and the (path, reason) of the others."""
    place = embedder.mean.device
    height, width = embedder.size
    pixels = open_pixels(catalog, height=height, width=width, images=images, cache_bytes=0)
    embedder.eval()
    features, kept = [], []
    quarantined: dict[int, str] = {}
    for begin in range(0, len(catalog), batch_size):
        rows = np.arange(begin, min(begin + batch_size, len(catalog)))
        values, bad = pixels.read(rows)
        quarantined.update(bad)
        kept.append(rows[~np.isin(rows, [row for row, _ in bad])])
        with torch.inference_mode():
            batch = torch.from_numpy(values).to(place)
            embedding = embedder(batch) + embedder(batch.flip(3)) if flip else embedder(batch)
            features.append(torch.nn.functional.normalize(embedding)[kept[-1] - begin].cpu().numpy())
    paths = catalog.frame["path"]
    bad_files = [(str(paths[row]), reason) for row, reason in quarantined.items()]
    check_quarantine(bad_files, len(catalog), of=catalog.title)
    if not kept:
        raise InputError(f"there is nothing to evaluate: {catalog.title} has no images in the chosen parts")
    return np.concatenate(features), catalog.take(np.concatenate(kept)), bad_files


def euclidean(x: Singles, y: Singles) -> Singles:
    """Euclidean distances (n, m) of unit vectors (n, d) and (m, d), by sqrt(2 - 2 cos)."""
    squared: Singles = x @ y.T
    squared *= -2  # in place, as such a matrix can fill a large part of memory
    squared += 2
    np.maximum(squared, 0, out=squared)
    np.sqrt(squared, out=squared)
    return squared
