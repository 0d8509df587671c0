"""Search and Pruning (SnP): people whose images are distributed like the target's, then their most diverse images.

The k-means is ours, not scikit-learn's, whose seeds draw other centres: manifests of before must come out again.
"""

import numpy as np
from scipy.spatial.distance import cdist

from finegpr.arrays import Floats, Ints, Singles
from finegpr.fid import covariance_root, gaussian_distance
from search.selectors.pool import Pool, choose_people, holds, require
from search.space import Budget

NUM_CLUSTERS = 50
MAX_DIMENSIONS = 64
SMALLEST_EIGENVALUE = 2e-6  # of the largest; below it directions are rounding noise
MAX_ITERATIONS = 100


def search_and_prune(pool: Pool, budget: Budget, *, seed: int) -> Ints:
    """Row numbers (B,), ascending, of measured images: Search and Pruning (Yao et al. 2023).

    As published: people are clustered by k-means on the means of their features into 50 clusters; clusters are joined
    by ascending Frechet distance to the target, and of these unions the one nearest to the target is kept; of it people
    at random, and of theirs one image each, then always the image farthest from those chosen. Ours: features are phi in
    at most 64 principal dimensions of the pool, not of Inception; clusters may differ in size (their code wants equal
    ones); distances take all images (their code as many of union and target); the union must hold the budget; people
    who cannot fill their even share come last, as in ``manifest.Sampler``. Only images with a sketch can be chosen.
    Raises InputError when too few are measured.
    """
    measured, sketched = pool.measured, pool.sketched
    rows = measured.measurements.row[sketched]
    labels, person = np.unique(measured.identity[rows], return_inverse=True)
    available = np.bincount(person, minlength=len(labels))
    require(available, budget, what="the measured images", advice="measure more images")
    x, target = principal(measured.phi[sketched], measured.target_phi)
    random = np.random.default_rng(seed)
    means = np.zeros((len(labels), x.shape[1]))
    np.add.at(means, person, x)
    cluster = k_means(means / available[:, None], min(NUM_CLUSTERS, len(labels)), random)
    people = nearest_union(x, person, cluster, target, available, budget)
    num = min(len(people), budget.images) if budget.identities is None else budget.identities
    keys = random.uniform(size=len(labels))[people]
    people = people[choose_people(available[people], keys, num=num, images=budget.images)]
    images = np.flatnonzero(np.isin(person, people))
    shuffled = random.permutation(images)
    first = shuffled[np.unique(person[shuffled], return_index=True)[1]]
    return np.sort(rows[images[farthest_points(x[images], np.searchsorted(images, first), budget.images)]])


def principal(source: Singles, target: Singles) -> tuple[Floats, Floats]:
    """Coordinates (n, d) and (m, d) of two sets of features in the d <= 64 principal dimensions of the first."""
    origin = source.mean(axis=0, dtype=np.float64)
    centred = source - origin
    values, vectors = np.linalg.eigh(centred.T @ centred / len(centred))
    kept = np.flatnonzero(values > SMALLEST_EIGENVALUE * max(values[-1], 0.0))[::-1][:MAX_DIMENSIONS]
    return centred @ vectors[:, kept], (target - origin) @ vectors[:, kept]


def k_means(x: Floats, num: int, random: np.random.Generator) -> Ints:
    """Labels (n,), 0 to ``num`` - 1 at most, none empty: Lloyd's iterations from k-means++ seeds (Arthur 2007)."""
    centres = x[[random.integers(len(x))]]
    while len(centres) < num:
        nearest = cdist(x, centres, "sqeuclidean").min(axis=1)
        if not nearest.any():
            break  # fewer distinct points than clusters
        centres = np.vstack([centres, x[random.choice(len(x), p=nearest / nearest.sum())]])
    return lloyd(x, centres)


def lloyd(x: Floats, centres: Floats) -> Ints:
    """Labels (n,) of the clusters that Lloyd's iterations from these centres end in, numbered without gaps."""
    label = cdist(x, centres, "sqeuclidean").argmin(axis=1)
    for _ in range(MAX_ITERATIONS):
        sums = np.zeros_like(centres)
        np.add.at(sums, label, x)
        size = np.bincount(label, minlength=len(centres))
        centres = np.where(size[:, None] > 0, sums / np.maximum(size, 1)[:, None], centres)
        last, label = label, cdist(x, centres, "sqeuclidean").argmin(axis=1)
        if np.array_equal(last, label):
            break
    return np.unique(label, return_inverse=True)[1]


def farthest_points(x: Floats, start: Ints, num: int) -> Ints:
    """Places (num,) in x (n, d): ``start`` (at most num), then again and again the point farthest from all chosen."""
    norms = np.square(x).sum(axis=1)
    distance = np.full(len(x), np.inf)
    chosen: list[int] = []
    while len(chosen) < num:
        place = int(start[len(chosen)] if len(chosen) < len(start) else distance.argmax())
        np.minimum(distance, norms - 2 * (x @ x[place]) + norms[place], out=distance)
        distance[place] = -np.inf  # below any other, also of twins
        chosen.append(place)
    return np.array(chosen, dtype=np.int64)


def nearest_union(x: Floats, person: Ints, cluster: Ints, target: Floats, available: Ints, budget: Budget) -> Ints:
    """The people of one of the unions of clusters, joined by their distance to the target (m, d): the nearest of those
    that hold the budget. ``x`` (n, d) and ``person`` (n,) are of images, ``cluster`` and ``available`` (I,) of people.
    """
    of_image = cluster[person]
    num = np.bincount(of_image).astype(np.float64)
    sums = np.stack([x[of_image == label].sum(axis=0) for label in range(len(num))])
    products = np.stack([x[of_image == label].T @ x[of_image == label] for label in range(len(num))])
    centred = target - target.mean(axis=0)
    root = covariance_root(centred.T @ centred / len(target))

    def distance(labels: Ints) -> float:
        mean = sums[labels].sum(axis=0) / num[labels].sum()
        covariance = products[labels].sum(axis=0) / num[labels].sum() - np.outer(mean, mean)
        return float(gaussian_distance(mean, covariance, target.mean(axis=0), root))

    order = np.argsort([distance(np.array([label])) for label in range(len(num))], kind="stable")
    unions = [order[: size + 1] for size in range(len(order))]
    holding = [union for union in unions if holds(available[np.isin(cluster, union)], budget)]
    return np.flatnonzero(np.isin(cluster, min(holding, key=distance)))
