"""Scoring a trained network: embeddings of query and gallery, their distances, and the ranking of these."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from finegpr.arrays import Ints, Singles
from finegpr.catalog import Catalog
from finegpr.device import DeviceName, limited_threads, resolve_device
from finegpr.errors import InputError
from finegpr.pixels.decode import check_quarantine
from finegpr.reid.checkpoint import read_embedder
from finegpr.reid.data import ImageStore, open_pixels
from finegpr.reid.model import Embedder
from finegpr.reid.queries import Queries, count_queries
from finegpr.reid.ranking import AveragePrecision, Ranking, evaluate_ranking
from finegpr.reid.rerank import k_reciprocal
from finegpr.storage import write_json

__all__ = [
    "Evaluation",
    "Ranking",
    "embed",
    "euclidean",
    "evaluate_checkpoint",
    "evaluate_embedder",
    "evaluate_ranking",
]


@dataclass(frozen=True, kw_only=True, eq=False)
class Evaluation:
    """The ranking of one checkpoint, its metrics, and the (path, reason) of images that could not be read.

    ``queries`` says how many of the readable ones counted. ``options`` names what was not plain: ``flip`` and
    ``rerank``, true where used, and another ``ap`` than hits.
    """

    ranking: Ranking
    metrics: dict[str, float]
    queries: Queries
    num_gallery: int
    quarantined: tuple[tuple[str, str], ...]
    device: str
    options: dict[str, bool | str]

    def write(self, path: Path) -> None:
        """Write ``metrics.json``: the metrics, what they were measured on, and how where that was not plain."""
        facts = {"num_gallery": self.num_gallery, "num_bad": len(self.quarantined), "device": self.device}
        write_json(path, {**self.metrics, **self.queries.to_record(), **facts, **self.options})


def evaluate_checkpoint(
    checkpoint: Path,
    query: Catalog,
    gallery: Catalog,
    *,
    images: ImageStore | None = None,
    batch_size: int = 256,
    flip_test: bool = False,
    rerank: bool = False,
    ap: AveragePrecision = "hits",
    device: DeviceName = "auto",
    threads: int = 1,
) -> Evaluation:
    """Rank ``gallery`` for every ``query`` by the Euclidean distance of L2-normalised embeddings.

    ``flip_test`` adds the embedding of the mirrored image before normalising; ``rerank`` applies ``k_reciprocal``;
    ``ap`` as for ``evaluate_ranking``. Pixels come from ``images`` where given, else from the files. Raises InputError
    for an empty side, too many bad images, a file that is not a checkpoint, and as ``count_queries``.
    """
    place = resolve_device(device)
    with limited_threads(threads):
        embedder = read_embedder(checkpoint).to(place)
        return evaluate_embedder(
            embedder, query, gallery, images=images, batch_size=batch_size, flip_test=flip_test, rerank=rerank, ap=ap
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
    ap: AveragePrecision = "hits",
) -> Evaluation:
    """``evaluate_checkpoint`` of a network that is in memory; it is left in evaluation mode."""
    count_queries(query, gallery)  # what cannot be scored is known before the work
    query_features, query, bad_query = embed(embedder, query, images=images, batch_size=batch_size, flip=flip_test)
    features, gallery, bad = embed(embedder, gallery, images=images, batch_size=batch_size, flip=flip_test)
    distances = euclidean(query_features, features)
    if rerank:
        own = euclidean(query_features, query_features), euclidean(features, features)
        distances = k_reciprocal(distances, *own).astype(np.float32)
    ranking = evaluate_ranking(distances, *_truth(query, gallery), ap=ap)
    queries = count_queries(query, gallery)
    options: dict[str, bool | str] = {name: True for name, used in (("flip", flip_test), ("rerank", rerank)) if used}
    if ap != "hits":
        options["ap"] = ap
    return Evaluation(
        ranking=ranking,
        metrics=ranking.metrics(),
        queries=queries,
        num_gallery=len(gallery),
        quarantined=(*bad_query, *bad),
        device=embedder.mean.device.type,
        options=options,
    )


def _truth(query: Catalog, gallery: Catalog) -> list[Ints]:
    cameras = [side.frame["camera"].to_numpy() for side in (query, gallery)]
    return [query.identities, gallery.identities, *cameras]


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
