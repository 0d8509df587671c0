"""Style and content distances against independent float64 numbers; means against pairs."""

from pathlib import Path

import numpy as np
import pytest
import torch

from finegpr.errors import InputError
from finegpr.perceptual import (
    content_vector,
    gram_matrix,
    grid_vector,
    mean_distance,
    moments_vector,
    pairwise_distance,
    style_vector,
)

golden = Path(__file__).parents[1] / "golden"


def features(group: str, side: str, dtype: torch.dtype) -> list[torch.Tensor]:
    with np.load(golden / "gan_style_content.npz") as vectors:
        return [torch.tensor(vectors[f"{group}_{side}_l{layer}"], dtype=dtype) for layer in range(3)]


# float32 loses 5e-4 of a near pair's style to the rounding of the features alone; expanded squares lose 1000 %.
@pytest.mark.parametrize(
    ("group", "dtype", "tolerance"),
    [
        ("relu", torch.float64, 1e-12),
        ("near", torch.float64, 1e-10),
        ("relu", torch.float32, 1e-6),
        ("near", torch.float32, 1.5e-3),
    ],
)
def test_golden_distances(group: str, dtype: torch.dtype, tolerance: float) -> None:
    source, target = features(group, "syn", dtype), features(group, "real", dtype)
    pairs = pairwise_distance(source, target, content_layer=1)
    means = mean_distance(source, target, content_layer=1)
    with np.load(golden / "gan_style_content.npz") as vectors:
        for part in ("style", "content", "total"):
            np.testing.assert_allclose(getattr(pairs, part), vectors[f"{group}_{part}"], rtol=tolerance)
            np.testing.assert_allclose(getattr(means, part), vectors[f"{group}_{part}_mean"], rtol=tolerance)


def test_golden_equations_of_the_paper() -> None:
    with np.load(golden / "aost_style_content.npz") as vectors:
        source = [torch.tensor(vectors[f"F{layer}"])[None] for layer in range(2)]
        target = [torch.tensor(vectors[f"P{layer}"])[None] for layer in range(2)]
        distances = pairwise_distance(source, target, content_layer=-1)
        np.testing.assert_allclose(distances.style[0, 0], vectors["style"], rtol=1e-12)
        np.testing.assert_allclose(distances.total[0, 0], vectors["total_alpha0.9_beta1"], rtol=1e-12)
        for layer in range(2):
            alone = pairwise_distance(
                source, target, content_layer=layer, layer_weight=[float(layer == k) for k in range(2)]
            )
            np.testing.assert_allclose(alone.style[0, 0], vectors[f"style_E{layer}"], rtol=1e-12)
            np.testing.assert_allclose(alone.content[0, 0], vectors[f"content{layer}"], rtol=1e-12)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_moments_and_means_of_fields_are_those_of_numpy(dtype: torch.dtype) -> None:
    maps = torch.randn(2, 5, 8, 6, generator=torch.Generator().manual_seed(0)).to(dtype)
    maps = maps.contiguous(memory_format=torch.channels_last)
    flat = maps.double().numpy().reshape(2, 5, 48)
    mean, deviation = flat.mean(axis=2), flat.std(axis=2)
    moments, fields = moments_vector(maps), grid_vector(maps)
    assert moments.dtype == fields.dtype == torch.float32
    np.testing.assert_allclose(moments, np.concatenate([mean, deviation], axis=1) / 5**0.5, rtol=1e-5, atol=1e-7)
    of_field = maps.double().numpy().reshape(2, 5, 4, 2, 2, 3).mean(axis=(3, 5)).reshape(2, -1)
    np.testing.assert_allclose(fields, of_field / 2**0.5, rtol=1e-5, atol=1e-6)
    apart = float((moments[0] - moments[1]).double().square().sum())
    by_hand = np.square(mean[0] - mean[1]).sum() + np.square(deviation[0] - deviation[1]).sum()
    assert apart == pytest.approx(by_hand / 5, rel=1e-5)
    assert moments_vector(torch.ones(1, 2, 3, 3))[0].tolist() == pytest.approx([0.5**0.5, 0.5**0.5, 0.0, 0.0])


def random_layers(seed: int, size: int) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    shapes = [(6, 8, 4), (9, 4, 2)]
    return [torch.randn(size, *shape, generator=generator, dtype=torch.float64) for shape in shapes]


@pytest.mark.parametrize("num_target", [1, 2, 17])
def test_the_mean_over_pairs_is_the_mean_distance(num_target: int) -> None:
    source, target = random_layers(0, 5), random_layers(1, num_target)
    weights = {"content_layer": 0, "layer_weight": [0.5, 2.0], "alpha": 3.0, "beta": 0.25}
    pairs = pairwise_distance(source, target, **weights)
    means = mean_distance(source, target, **weights)
    assert pairs.total.shape == (5, num_target)
    assert means.total.shape == (5,)
    for part in ("style", "content", "total"):
        torch.testing.assert_close(getattr(pairs, part).mean(dim=1), getattr(means, part), rtol=1e-12, atol=0)
    torch.testing.assert_close(means.total, 3 * means.style + 0.25 * means.content)


def test_a_layer_of_weight_zero_is_not_a_style_layer() -> None:
    source, target = random_layers(0, 3), random_layers(1, 4)
    first = mean_distance(source, target, content_layer=1, layer_weight=[0.2, 0.0])
    alone = mean_distance(source[:1], target[:1], content_layer=0, layer_weight=0.2)
    torch.testing.assert_close(first.style, alone.style)


def test_an_image_is_at_distance_zero_from_itself() -> None:
    layers = random_layers(0, 3)
    assert pairwise_distance(layers, layers, content_layer=0).total.diagonal().abs().max() == 0


@pytest.mark.parametrize("filters", [1, 5, 64, 65, 150])
def test_the_style_vector_holds_the_gram_matrix_entry_by_entry(filters: int) -> None:
    """Row by row of the upper triangle, also where the fast form ends a block of 64 rows."""
    maps = torch.randn(3, filters, 4, 3, dtype=torch.float64)
    gram = gram_matrix(maps) / (2 * filters * 12)
    torch.testing.assert_close(gram, torch.einsum("nihw,njhw->nij", maps, maps) / (2 * filters * 12))
    row, column = torch.triu_indices(filters, filters)
    expected = gram[:, row, column] * torch.where(row == column, 1.0, 2.0**0.5)
    torch.testing.assert_close(style_vector(maps), expected)


@pytest.mark.parametrize("filters", [5, 64, 150])
@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_vectors_carry_the_distances(memory_format: torch.memory_format, filters: int) -> None:
    maps = torch.randn(2, filters, 4, 3, dtype=torch.float64).contiguous(memory_format=memory_format)
    flat = maps.flatten(2)
    gram = flat @ flat.transpose(1, 2)
    style = (gram[0] - gram[1]).square().sum() / (4 * filters**2 * 12**2)
    assert style_vector(maps).shape == (2, filters * (filters + 1) // 2)
    torch.testing.assert_close((style_vector(maps)[0] - style_vector(maps)[1]).square().sum(), style)
    content = (maps[0] - maps[1]).square().sum() / 2
    torch.testing.assert_close((content_vector(maps)[0] - content_vector(maps)[1]).square().sum(), content)


def test_vectors_of_bfloat16_maps_are_summed_in_float32() -> None:
    maps = torch.randn(2, 70, 16, 16).bfloat16().contiguous(memory_format=torch.channels_last)
    for vector in (style_vector, content_vector):
        assert vector(maps).dtype == torch.float32
        torch.testing.assert_close(vector(maps).double(), vector(maps.double()), rtol=1e-5, atol=1e-6)


def test_gradients_pass_through_the_vectors_also_after_inference() -> None:
    maps = torch.randn(1, 70, 4, 3, dtype=torch.float64)
    with torch.inference_mode():
        style_vector(maps)
    maps.requires_grad_()
    style_vector(maps).square().sum().backward()
    assert maps.grad is not None
    gram = torch.einsum("nimk,njmk->nij", maps, maps) / (2 * 70 * 12)
    (expected,) = torch.autograd.grad(gram.square().sum(), maps)
    torch.testing.assert_close(maps.grad, expected)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"source": []}, "0 layers"),
        ({"target": random_layers(1, 4)[:1]}, "same layers"),
        ({"target": random_layers(1, 4)[::-1]}, "same size"),
        ({"target": random_layers(1, 0)}, "0 target images"),
        ({"content_layer": 2}, "content_layer 2"),
        ({"layer_weight": [0.2]}, "1 layer weights for 2"),
    ],
)
def test_wrong_arguments_are_named(change: dict[str, object], message: str) -> None:
    arguments = {"source": random_layers(0, 3), "target": random_layers(1, 4), "content_layer": 0, "layer_weight": 0.2}
    arguments |= change
    for function in (pairwise_distance, mean_distance):
        options = dict(arguments)
        with pytest.raises(InputError, match=message):
            function(options.pop("source"), options.pop("target"), **options)
