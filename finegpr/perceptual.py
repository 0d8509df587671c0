"""Perceptual distance of AOST, equations (1)-(3): style from Gram matrices, content from feature maps.

Both parts are squared Euclidean distances between vectors: one style vector per layer (the upper triangle of the
Gram matrix, off-diagonal entries times sqrt 2, over 2 N M) and one content vector (the feature map over sqrt 2).
Means over a target, the principal basis and the sketches all work on these vectors and know nothing of layers.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from math import sqrt

import torch
from torch import Tensor
from torch.nn.functional import adaptive_avg_pool2d

from finegpr.errors import InputError
from finegpr.weighing import ALPHA, BETA, LAYER_WEIGHT

_GRAM_ROWS = 64


@dataclass(frozen=True, kw_only=True)
class Distances:
    """Style, content and total = alpha * style + beta * content; shape (n, m) for pairs, (n,) for means over m."""

    style: Tensor
    content: Tensor
    total: Tensor


def gram_matrix(features: Tensor) -> Tensor:
    """Feature maps (n, N, H, W) -> G (n, N, N), G_ij = sum over positions k of F_ik F_jk: the plain form.

    ``style_vector`` is the upper triangle of G / (2 N M), M = H W, off-diagonal entries times sqrt 2, and much faster.
    """
    flat = features.flatten(2)
    return flat @ flat.transpose(1, 2)


def style_vector(features: Tensor) -> Tensor:
    """Feature maps (n, N, H, W) -> (n, N (N + 1) / 2); squared distance = sum (G - A)^2 / (4 N^2 M^2), M = H W.

    Of bfloat16 maps the products are exact and their sums, like the result, float32.
    """
    x = _by_position(features)
    narrow = x.dtype == torch.bfloat16
    if narrow and not x.is_cuda:
        x, narrow = x.float(), False
    positions, filters = x.shape[1:]
    entries, scale = _upper_triangle(filters, positions, torch.float32 if narrow else x.dtype, x.device)
    parts = []
    # Some rows of G at a time, and of those nothing that lies left of the diagonal block: nearly half the work.
    for start, wanted in zip(range(0, filters, _GRAM_ROWS), entries, strict=True):
        rows, columns = x[:, :, start : start + _GRAM_ROWS].transpose(1, 2), x[:, :, start:]
        product = torch.bmm(rows, columns, out_dtype=torch.float32) if narrow else torch.bmm(rows, columns)
        parts.append(product.flatten(1).index_select(1, wanted))
    return torch.cat(parts, dim=1).mul_(scale)


def moments_vector(features: Tensor) -> Tensor:
    """Feature maps (n, N, H, W) -> (n, 2 N): means and deviations of the channels over positions, over sqrt N.

    Squared distance = 1/N sum (mu - mu')^2 + (sigma - sigma')^2, the statistics of batch normalisation as a style (Li
    et al. 2017, equation 12); the deviation is that of the positions themselves, not an estimate. Float32 of bfloat16
    maps.
    """
    x = _by_position(features)
    x = x.float() if x.dtype == torch.bfloat16 else x
    positions, filters = x.shape[1:]
    # Two sums: a tenth of the time of torch.var_mean along this axis; and pairwise, where a product with 1 / M is not.
    mean = x.sum(dim=1) / positions
    variance = (x - mean[:, None]).square_().sum(dim=1) / positions
    return torch.cat([mean, variance.sqrt_()], dim=1).div_(sqrt(filters))


def grid_vector(features: Tensor) -> Tensor:
    """Feature maps (n, N, H, W) -> (n, 8 N), means over the fields of a grid of 4 x 2; squared distance =
    1/2 sum (F - P)^2 over the fields.

    A content vector that is as long at every size of image, and of which a sketch keeps more. Float32.
    """
    return adaptive_avg_pool2d(features.float(), (4, 2)).flatten(1) / sqrt(2.0)


def content_vector(features: Tensor) -> Tensor:
    """Feature maps (n, N, H, W) -> (n, H W N); squared distance = 1/2 sum (F - P)^2. Float32 of bfloat16 maps."""
    vector = _by_position(features).flatten(1)
    return (vector.float() if vector.dtype == torch.bfloat16 else vector) / sqrt(2.0)


def _by_position(features: Tensor) -> Tensor:
    """(n, N, H, W) -> (n, H W, N), a view; of a channels-last map it is contiguous."""
    return features.permute(0, 2, 3, 1).flatten(1, 2)


@lru_cache(maxsize=16)
def _upper_triangle(
    filters: int, positions: int, dtype: torch.dtype, device: torch.device
) -> tuple[list[Tensor], Tensor]:
    """Where the upper triangle of G lies in the rows that are computed together, and the factor of each entry."""
    with torch.inference_mode(False):  # kept, and so perhaps used where gradients are wanted
        entries, factors = [], []
        for start in range(0, filters, _GRAM_ROWS):
            width = filters - start
            row, column = torch.triu_indices(min(_GRAM_ROWS, width), width, device=device)
            scale = torch.full(row.shape, sqrt(2.0) / (2 * filters * positions), dtype=dtype, device=device)
            scale[row == column] /= sqrt(2.0)
            entries.append(row * width + column)
            factors.append(scale)
        return entries, torch.cat(factors)


def pairwise_distance(
    source_features: Sequence[Tensor],
    target_features: Sequence[Tensor],
    *,
    content_layer: int,
    layer_weight: float | Sequence[float] = LAYER_WEIGHT,
    alpha: float = ALPHA,
    beta: float = BETA,
) -> Distances:
    """Distances (n, m) between every source and every target image, by differences: O(n m), exact for near images.

    Features are a sequence over layers of (n, N, H, W) and (m, N, H, W); ``content_layer`` indexes it;
    ``layer_weight`` is one w or one per layer, 0 = not a style layer.
    Raises InputError for shapes that do not match, an unknown content layer or a wrong number of weights.
    """
    weights = _checked(source_features, target_features, content_layer, layer_weight)
    style = source_features[0].new_zeros(len(source_features[0]), len(target_features[0]))
    for weight, source, target in zip(weights, source_features, target_features, strict=True):
        if weight:
            style += weight * _squared_distances(style_vector(source), style_vector(target))
    content = _squared_distances(
        content_vector(source_features[content_layer]), content_vector(target_features[content_layer])
    )
    return Distances(style=style, content=content, total=alpha * style + beta * content)


def mean_distance(
    source_features: Sequence[Tensor],
    target_features: Sequence[Tensor],
    *,
    content_layer: int,
    layer_weight: float | Sequence[float] = LAYER_WEIGHT,
    alpha: float = ALPHA,
    beta: float = BETA,
) -> Distances:
    """Mean distances (n,) of every source image to the whole target, never forming pairs: O(n + m).

    Arguments and errors as for ``pairwise_distance``, of whose rows this is the mean, by
    mean_j |u - v_j|^2 = |u - v|^2 + mean_j |v_j - v|^2 with v the mean of the v_j.
    """
    weights = _checked(source_features, target_features, content_layer, layer_weight)
    style = source_features[0].new_zeros(len(source_features[0]))
    for weight, source, target in zip(weights, source_features, target_features, strict=True):
        if weight:
            style += weight * _mean_squared_distance(style_vector(source), style_vector(target))
    content = _mean_squared_distance(
        content_vector(source_features[content_layer]), content_vector(target_features[content_layer])
    )
    return Distances(style=style, content=content, total=alpha * style + beta * content)


def _squared_distances(x: Tensor, y: Tensor) -> Tensor:
    # |x|^2 - 2 <x, y> + |y|^2 loses every digit for near images; torch forms the differences when told to.
    return torch.cdist(x, y, compute_mode="donot_use_mm_for_euclid_dist").square()


def _mean_squared_distance(x: Tensor, y: Tensor) -> Tensor:
    mean = y.mean(dim=0)
    return (x - mean).square().sum(dim=1) + (y - mean).square().sum(dim=1).mean()


def _checked(
    source: Sequence[Tensor], target: Sequence[Tensor], content_layer: int, layer_weight: float | Sequence[float]
) -> list[float]:
    """The style weight of each layer, after every shape has been compared."""
    if not source or len(source) != len(target):
        raise InputError(f"source has {len(source)} layers and target {len(target)}; give the same layers of both")
    for layer, (x, y) in enumerate(zip(source, target, strict=True)):
        if x.ndim != 4 or y.ndim != 4 or x.shape[1:] != y.shape[1:]:
            raise InputError(
                f"layer {layer}: source {tuple(x.shape)} and target {tuple(y.shape)} should be (n, N, H, W) and "
                "(m, N, H, W); resize both sides to the same size"
            )
        if len(x) != len(source[0]) or len(y) != len(target[0]) or not len(y):
            raise InputError(f"layer {layer}: {len(x)} source and {len(y)} target images; expected as many as layer 0")
    if not -len(source) <= content_layer < len(source):
        raise InputError(f"content_layer {content_layer} is not one of the {len(source)} layers")
    weights = [float(layer_weight)] * len(source) if isinstance(layer_weight, int | float) else list(layer_weight)
    if len(weights) != len(source):
        raise InputError(f"{len(weights)} layer weights for {len(source)} layers; give one, or one per layer")
    return weights
