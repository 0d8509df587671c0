"""Label-free scores from the literature, which ``label_free.py`` beside this file compares; higher is better.

Features (n, d) are L2-normalised, ``pooled`` are those before; ``others`` (n, n - 1) are the other photos of each, most
similar first. The letters are those of the record.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.cluster.hierarchy import fcluster, linkage
from scipy.spatial.distance import squareform

Floats = NDArray[np.floating[Any]]
Ints = NDArray[np.int64]
Pixels = NDArray[np.uint8]


def unit(rows: Floats) -> Floats:
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def others_first(similarity: Floats) -> Ints:
    """Every other photo (n, n - 1) of each, most similar first."""
    similarity = similarity.astype(np.float64)
    np.fill_diagonal(similarity, -np.inf)
    return np.argsort(-similarity, axis=1, kind="stable")[:, :-1]


def members(lists: Ints, num: int) -> NDArray[np.bool_]:
    """Lists (n, k) as rows (n, num) of a matrix."""
    result = np.zeros((len(lists), num), dtype=bool)
    np.put_along_axis(result, lists, values=True, axis=1)
    return result


def jaccard(first: NDArray[np.bool_], second: NDArray[np.bool_]) -> float:
    return float(((first & second).sum(axis=1) / np.maximum((first | second).sum(axis=1), 1)).mean())


def cropped_and_erased(pixels: Pixels, random: np.random.Generator) -> Pixels:
    """Mirrored half of the time, 75 to 95 % of the height and width, and a patch of a tenth in the mean colour."""
    num, _, height, width = pixels.shape
    scale = random.uniform(0.75, 0.95, (num, 2))
    theta = np.zeros((num, 2, 3))
    theta[:, 0, 0] = scale[:, 1] * random.choice([-1, 1], num)
    theta[:, 1, 1] = scale[:, 0]
    theta[:, :, 2] = (random.uniform(-1, 1, (num, 2)) * (1 - scale))[:, ::-1]
    grid = torch.nn.functional.affine_grid(torch.from_numpy(theta).float(), list(pixels.shape), align_corners=False)
    view = torch.nn.functional.grid_sample(
        torch.from_numpy(pixels.astype(np.float32)), grid, align_corners=False, padding_mode="border"
    ).numpy()
    tall, wide = round(height / 3), round(width / 3)
    corners = zip(random.integers(0, height - tall, num), random.integers(0, width - wide, num), strict=True)
    for image, (top, left) in zip(view, corners, strict=True):
        image[:, top : top + tall, left : left + wide] = image.mean(axis=(1, 2))[:, None, None]
    return view.round().clip(0, 255).astype(np.uint8)


def in_other_light(pixels: Pixels, random: np.random.Generator) -> Pixels:
    """Gain and gamma by up to 1.4, and a cast by up to 1.13 in each channel."""
    num = len(pixels)
    gain = np.exp(random.uniform(-0.35, 0.35, (num, 1, 1, 1)) + random.uniform(-0.12, 0.12, (num, 3, 1, 1)))
    gamma = np.exp(random.uniform(-0.35, 0.35, (num, 1, 1, 1)))
    return (255 * (pixels / 255 * gain).clip(0, 1) ** gamma).round().astype(np.uint8)


VIEWS: dict[str, Callable[[Pixels, np.random.Generator], Pixels]] = {
    "mirrored": lambda pixels, _: pixels[..., ::-1],
    "cropped and erased": cropped_and_erased,
    "in other light": in_other_light,
}


def with_views(embed: Callable[[Pixels], Floats], pixels: Pixels, features: Floats, others: Ints) -> dict[str, float]:
    """(a) Does a changed photo find its original; (b) are its neighbours the same."""
    found: dict[str, float] = {}
    near = members(others[:, :10], len(others))
    for name, change in VIEWS.items():
        view = embed(change(pixels, np.random.default_rng(1)))
        similarity = view @ features.T
        rank = 1 + (similarity > np.diag(similarity)[:, None]).sum(axis=1)
        found[f"(a) finds itself {name}, mean reciprocal rank"] = float((1 / rank).mean())
        changed = members(others_first(view @ view.T)[:, :10], len(others))
        found[f"(b) 10-reciprocal neighbours kept {name}"] = jaccard(near & near.T, changed & changed.T)
    return found


def with_cameras(features: Floats, camera: Ints, others: Ints) -> dict[str, float]:
    """(c) What is near across cameras."""
    is_same = camera[:, None] == camera
    chance = (~is_same).sum(axis=1) / (len(camera) - 1)
    mutual = []
    for one in np.unique(camera):
        for other in np.unique(camera[camera != one]):
            similarity = features[camera == one] @ features[camera == other].T
            there = similarity.argmax(axis=1)
            mutual.append((similarity.argmax(axis=0)[there] == np.arange(len(there))).mean())
    near = np.take_along_axis(is_same, others[:, :5], axis=1)
    return {
        "(c) other cameras among 5 nearest": float(((~near).mean(axis=1) / chance).mean()),
        "(c) mutual nearest of two cameras": float(np.mean(mutual)),
    }


def silhouette(distances: Floats, cluster: Ints) -> float:
    """Mean silhouette (Rousseeuw 1987); 0 for a photo alone."""
    one_hot = np.eye(cluster.max() + 1)[cluster]
    size = one_hot.sum(axis=0)
    total, rows = distances @ one_hot, np.arange(len(cluster))
    within = total[rows, cluster] / np.maximum(size[cluster] - 1, 1)
    between = total / size
    between[rows, cluster] = np.inf
    nearest = between.min(axis=1)
    return float(np.where(size[cluster] == 1, 0, (nearest - within) / np.maximum(nearest, within)).mean())


def of_features(pooled: Floats, features: Floats, others: Ints) -> dict[str, float]:
    """(d) clusters, (e) spectra, (f) neighbourhoods."""
    num = len(features)
    distances = np.sqrt(np.maximum(2 - 2 * features.astype(np.float64) @ features.T, 0))
    np.fill_diagonal(distances, 0)
    tree = linkage(squareform(distances, checks=False), "average")
    share = np.linalg.svd(features, compute_uv=False)
    share = share / share.sum() + 1e-7
    spectrum = np.linalg.svd(pooled - pooled.mean(axis=0), compute_uv=False)[10:100] ** 2
    slope = -np.polyfit(np.log(np.arange(11, 101)), np.log(spectrum), 1)[0]
    near = np.take_along_axis(features @ features.T, others, axis=1).astype(np.float64)
    weight = np.exp((near - near[:, :1]) / 0.05)
    weight /= weight.sum(axis=1, keepdims=True)
    return {
        "(d) silhouette, n / 5 clusters": silhouette(distances, fcluster(tree, num // 5, "maxclust") - 1),
        "(d) silhouette, n / 10 clusters": silhouette(distances, fcluster(tree, num // 10, "maxclust") - 1),
        "(e) RankMe": float(np.exp(-(share * np.log(share)).sum())),
        "(e) alpha-ReQ: alpha near 1": float(-abs(slope - 1)),
        "(f) soft neighbourhood density": float(-(weight * np.log(weight + 1e-300)).sum(axis=1).mean()),
        "(f) nearest against mean similarity": float(((near[:, 0] - near.mean(axis=1)) / near.std(axis=1)).mean()),
    }


def frechet(first: Floats, second: Floats) -> float:
    """Squared Frechet distance of two sets (n, d) and (m, d) as Gaussians."""
    covariances = [np.cov(each, rowvar=False) for each in (first, second)]
    value, axes = np.linalg.eigh(covariances[0])
    root = axes * np.sqrt(np.maximum(value, 0)) @ axes.T
    cross = np.sqrt(np.maximum(np.linalg.eigvalsh(root @ covariances[1] @ root), 0)).sum()
    apart = ((first.mean(axis=0) - second.mean(axis=0)) ** 2).sum()
    return float(apart + sum(np.trace(each) for each in covariances) - 2 * cross)


def with_training_data(classifier: Floats, source: Floats, pooled: Floats, features: Floats) -> dict[str, float]:
    """(g) The classifier's predictions, and how far the photos are from the training images."""
    logits = pooled @ classifier.T
    predicted = np.exp(logits - logits.max(axis=1, keepdims=True))
    predicted /= predicted.sum(axis=1, keepdims=True)
    # In 64 dimensions, for which there are images enough to know a covariance.
    axes = np.linalg.svd(source - source.mean(axis=0), full_matrices=False)[2][:64].T
    return {
        "(g) nuclear norm of the predictions": float(np.linalg.svd(predicted, compute_uv=False).sum()),
        "(g) mean near that of the training images": -float(
            np.linalg.norm(source.mean(axis=0) - features.mean(axis=0))
        ),
        "(g) Frechet near to the training images": -frechet(source @ axes, features @ axes),
    }
