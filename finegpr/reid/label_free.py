"""A score of a re-ID network on photos without labels: ranks networks on one target, where no mAP can be had.

The photos are ranked for one another, and two properties of those rankings, both from the prediction of a query's
performance in retrieval, are multiplied. ``results/label-free.md`` has what they were chosen from, and how well they
rank networks. Identities are never looked at.
"""

from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np
from numpy.typing import NDArray

from finegpr.arrays import Floats, Ints
from finegpr.catalog import Catalog
from finegpr.errors import InputError
from finegpr.reid.data import ImageStore
from finegpr.reid.evaluate import embed
from finegpr.reid.model import Embedder

NUM_NEAREST = 20  # whose similarities are spread
NUM_MUTUAL = 5  # who should hold one another
MIN_PHOTOS = 2 * NUM_NEAREST
MAX_PHOTOS = 2_000  # a larger target is scored by that many, drawn once
METRICS = ("label_free", "spread", "reciprocity", "num_photos")

_LABELLED = ("query", "gallery", "validation_query", "validation_gallery")


@dataclass(frozen=True, kw_only=True)
class LabelFree:
    """``spread`` (at least 0) and ``reciprocity`` (0 to 1) of ``num_photos`` photos, see ``label_free``."""

    spread: float
    reciprocity: float
    num_photos: int

    @property
    def score(self) -> float:
        """Their product; without a unit, higher is better. Compares networks on the same photos, and nothing else."""
        return self.spread * self.reciprocity

    def metrics(self) -> dict[str, float]:
        """By the names in METRICS."""
        values = (self.score, self.spread, self.reciprocity, self.num_photos)
        return dict(zip(METRICS, values, strict=True))


def label_free(features: NDArray[np.floating[Any]], cameras: Ints | None = None) -> LabelFree:
    """Score L2-normalised features (n, d) by their cosine similarities, ``cameras`` (n,) helping where all are known.

    ``spread``: standard deviation of a photo's similarity to its 20 nearest others, mean over photos, divided by that
    of all pairs (after NQC: Shtok et al., TOIS 2012). ``reciprocity``: share of a photo's 5 nearest that have it among
    their own 5 (after Pedronette and Torres, SIBGRAPI 2015); with two cameras or more, share of the photos and other
    cameras where the nearest photo there has it as its nearest in turn. Ties go to the lower index. Both are 0 where
    all features are alike. Raises InputError for fewer than MIN_PHOTOS, or values that are not finite.
    """
    num = len(features)
    if features.ndim != 2 or num < MIN_PHOTOS:
        raise InputError(
            f"a label-free score needs features (n, d) of {MIN_PHOTOS} photos or more, got {features.shape}"
        )
    if not np.isfinite(features).all():
        raise InputError("features hold NaN or infinity; did the training diverge?")
    similarity = np.asarray(features @ features.T, dtype=np.float64)
    scale = similarity[~np.eye(num, dtype=bool)].std()
    if scale <= np.finfo(np.float32).eps:
        return LabelFree(spread=0.0, reciprocity=0.0, num_photos=num)
    np.fill_diagonal(similarity, -np.inf)
    order = np.argsort(-similarity, axis=1, kind="stable")[:, :NUM_NEAREST]
    nearest = np.take_along_axis(similarity, order, axis=1)
    across = cameras is not None and bool((cameras > 0).all()) and len(np.unique(cameras)) > 1
    return LabelFree(
        spread=float(nearest.std(axis=1).mean() / scale),
        reciprocity=_between(similarity, cameras) if across and cameras is not None else _among(order[:, :NUM_MUTUAL]),
        num_photos=num,
    )


def _among(lists: Ints) -> float:
    """Share of the entries of lists (n, k) that list back."""
    holds = np.zeros((len(lists), len(lists)), dtype=bool)
    np.put_along_axis(holds, lists, values=True, axis=1)
    return float((holds & holds.T).sum() / lists.size)


def _between(similarity: Floats, cameras: Ints) -> float:
    """Share of (photo, other camera) whose nearest there has the photo as its nearest."""
    rows_of = [np.flatnonzero(cameras == camera) for camera in np.unique(cameras)]
    num_mutual = num_all = 0
    for here, there in combinations(rows_of, 2):
        block = similarity[np.ix_(here, there)]
        forth, back = block.argmax(axis=1), block.argmax(axis=0)
        num_mutual += 2 * int((back[forth] == np.arange(len(here))).sum())
        num_all += len(here) + len(there)
    return num_mutual / num_all


def is_labelled(target: Catalog) -> bool:
    """Whether it has a part for ranking queries; without one its identities are not known, or not to be looked at."""
    return bool(target.frame["part"].isin(_LABELLED).any())


def unlabelled_photos(target: Catalog) -> Catalog:
    """The photos that a label-free score sees: the part train, of which at most MAX_PHOTOS, always the same ones."""
    photos = target.part("train")
    if len(photos) <= MAX_PHOTOS:
        return photos
    return photos.take(np.sort(np.random.default_rng(0).choice(len(photos), MAX_PHOTOS, replace=False)))


def score_photos(embedder: Embedder, target: Catalog, *, images: ImageStore | None, batch_size: int = 256) -> LabelFree:
    """``label_free`` of a network on ``unlabelled_photos``; bad images are left out. It is left in evaluation mode.

    Raises InputError for too many bad images, too few photos, or features that are not finite.
    """
    features, photos, _ = embed(embedder, unlabelled_photos(target), images=images, batch_size=batch_size, flip=False)
    return label_free(features, photos.frame["camera"].to_numpy())
