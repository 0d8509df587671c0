"""EfficientNet-Lite0 as it measures: the layers of timm's network, statistics of these, and no other weights."""

from pathlib import Path

import numpy as np
import pytest
import timm
import torch

from finegpr.errors import InputError
from finegpr.measuring.config import MeasureConfig
from finegpr.measuring.networks import NETWORKS, load_network
from finegpr.measuring.networks.base import LoadedWeights
from finegpr.measuring.networks.efficientnet_lite import EfficientNetLite0
from finegpr.storage import write_arrays
from finegpr.weights import find_weights

LITE0 = "efficientnet_lite0"


def load(weights: str, *, seed: int = 0) -> LoadedWeights:
    return load_network(find_weights(LITE0, weights, seed=seed))


@pytest.fixture(scope="module")
def pretrained() -> LoadedWeights:
    return load("imagenet")


def images(number: int, height: int = 64, width: int = 32) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (number, 3, height, width), dtype=torch.uint8, generator=generator)


def test_it_is_what_measures_unless_another_is_asked_for(pretrained: LoadedWeights) -> None:
    assert MeasureConfig().network == LITE0
    assert MeasureConfig().find_weights().sha256 == pretrained.sha256
    with pytest.raises(ValueError, match=r"no network 'lite0'; known networks: vgg19, efficientnet_lite0"):
        MeasureConfig(network="lite0")


def test_the_vectors_are_those_of_timm_s_features(pretrained: LoadedWeights) -> None:
    """Against timm's own network, batch norms apart, with moments and maps by numpy."""
    reference = timm.create_model("tf_efficientnet_lite0", pretrained=False, features_only=False, num_classes=0).eval()
    reference.load_state_dict(pretrained.state)
    pixels = images(3)
    x = (pixels / 255 - torch.tensor([0.485, 0.456, 0.406])[:, None, None]) / torch.tensor([0.229, 0.224, 0.225])[
        :, None, None
    ]
    maps = []
    with torch.inference_mode():
        x = reference.bn1(reference.conv_stem(x))
        for stage in reference.blocks:
            x = stage(x)
            maps.append(x.double().numpy())
    vectors = EfficientNetLite0(pretrained)(pixels)
    assert len(vectors) == len(NETWORKS[LITE0].terms) == 6
    for vector, features in zip(vectors, maps[:5], strict=False):
        filters = features.shape[1]
        expected = np.concatenate([features.mean(axis=(2, 3)), features.std(axis=(2, 3))], axis=1) / filters**0.5
        np.testing.assert_allclose(vector, expected, rtol=1e-3, atol=1e-5)
    fields = maps[2].reshape(3, 40, 4, 2, 2, 2).mean(axis=(3, 5)).reshape(3, -1)
    np.testing.assert_allclose(vectors[5], fields / 2**0.5, rtol=1e-3, atol=1e-4)


def test_no_layer_after_the_last_term_is_computed(pretrained: LoadedWeights) -> None:
    network = EfficientNetLite0(pretrained)
    network.network.blocks[5].forward = None
    assert len(network(images(1))) == 6


def test_bf16_rounds_the_network_and_nothing_after_it(pretrained: LoadedWeights) -> None:
    exact, rounded = EfficientNetLite0(pretrained), EfficientNetLite0(pretrained, "bf16")
    pixels = images(2)
    assert {maps.dtype for _, maps in rounded.feature_maps(pixels)} == {torch.bfloat16}
    for vector, expected in zip(rounded(pixels), exact(pixels), strict=True):
        assert vector.dtype == torch.float32
        assert 0 < float((vector - expected).norm() / expected.norm()) < 0.1


def test_random_weights_are_seeded_and_leave_the_global_state_alone() -> None:
    torch.manual_seed(0)
    before = torch.get_rng_state()
    first, again, other = (load("random", seed=seed) for seed in (0, 0, 1))
    vectors = [EfficientNetLite0(each)(images(2)) for each in (first, again, other)]
    assert torch.equal(torch.get_rng_state(), before)
    assert first.description == "EfficientNet-Lite0, random He weights, seed 0"
    assert torch.equal(vectors[0][5], vectors[1][5])
    assert not torch.equal(vectors[0][5], vectors[2][5])
    assert all(vector.isfinite().all() and float(vector.std()) > 0 for vector in vectors[0])


def test_weights_of_another_net_are_refused(tmp_path: Path, pretrained: LoadedWeights) -> None:
    arrays = {key: value.numpy() for key, value in pretrained.state.items()}
    path = tmp_path / "w.safetensors"
    write_arrays(path, arrays)
    assert torch.equal(load(str(path)).state["conv_head.weight"], pretrained.state["conv_head.weight"])
    write_arrays(path, arrays | {"bn1.running_var": np.full(32, np.nan, np.float32)})
    with pytest.raises(InputError, match=r"not an EfficientNet-Lite0: bn1\.running_var is float32 \(32,\) with NaN"):
        load(str(path))
    write_arrays(path, {f"module.{key}": array for key, array in arrays.items()})
    with pytest.raises(InputError, match=r"is missing, expected .*begin with 'module\.'"):
        load(str(path))
    write_arrays(path, {"features.0.weight": np.zeros((64, 3, 3, 3), np.float32)})
    with pytest.raises(InputError, match=r"not an EfficientNet-Lite0: conv_stem\.weight is missing"):
        load(str(path))
