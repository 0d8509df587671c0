"""VGG-19: the right layers, the right weights, and no others."""

import os
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from torchvision.models import vgg as architecture

from finegpr.errors import InputError
from finegpr.measuring.bench import narrowed
from finegpr.measuring.networks import load_network
from finegpr.measuring.networks.base import LoadedWeights
from finegpr.measuring.networks.vgg19 import VGG19
from finegpr.perceptual import mean_distance
from finegpr.storage import write_arrays
from finegpr.weights import find_weights


def load(weights: str, *, seed: int = 0) -> LoadedWeights:
    return load_network(find_weights("vgg19", weights, seed=seed))


def arrays_of(cfg: str, *, batch_norm: bool = False, classifier: bool = True) -> dict[str, np.ndarray]:
    with torch.device("meta"):
        layers = architecture.make_layers(architecture.cfgs[cfg], batch_norm=batch_norm)
    arrays = {f"features.{key}": np.zeros(value.shape, np.float16) for key, value in layers.state_dict().items()}
    if classifier:
        arrays["classifier.0.bias"] = np.zeros(4, np.float16)
    return arrays


@pytest.fixture(scope="module")
def network() -> VGG19:
    return VGG19(load("random", seed=3))


def test_the_vectors_are_those_of_the_named_layers(network: VGG19) -> None:
    """Against torchvision's whole network walked by name: block b ends at its pooling, relu{b}_{i} is its i-th ReLU."""
    images = torch.randint(0, 256, (3, 3, 64, 32), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    x = (images / 255 - torch.tensor([0.485, 0.456, 0.406])[:, None, None]) / torch.tensor([0.229, 0.224, 0.225])[
        :, None, None
    ]
    maps, block, place = {}, 1, 0
    for layer in network.features:
        x = layer(x)
        if isinstance(layer, torch.nn.ReLU):
            place += 1
            maps[f"relu{block}_{place}"] = x.clone()
        elif isinstance(layer, torch.nn.MaxPool2d):
            block, place = block + 1, 0
    layers = [maps[name] for name in ("relu1_1", "relu2_1", "relu3_1", "relu4_1", "relu5_1", "relu4_2")]
    assert list(maps)[-1] == "relu5_1"
    vectors = network(images)
    assert [vector.shape for vector in vectors] == [(3, d) for d in (2080, 8256, 32896, 131328, 131328, 512 * 8 * 4)]
    expected = mean_distance(
        [layer[:1] for layer in layers],
        [layer[1:] for layer in layers],
        content_layer=5,
        layer_weight=[1, 1, 1, 1, 1, 0],
    )
    terms = [(vector[:1] - vector[1:]).square().sum(dim=1).mean() for vector in vectors]
    torch.testing.assert_close(torch.stack(terms[:5]).sum(), expected.style[0], rtol=1e-4, atol=0)
    torch.testing.assert_close(terms[5], expected.content[0], rtol=1e-4, atol=0)


def test_the_layers_are_as_wide_as_the_weights() -> None:
    narrow = VGG19(narrowed(8, seed=1))
    assert [len(layer.bias) for layer in narrow.features if isinstance(layer, torch.nn.Conv2d)] == (
        2 * [8] + 2 * [16] + 4 * [32] + 5 * [64]
    )
    assert [name for name, _ in narrow.feature_maps(torch.zeros(1, 3, 32, 32, dtype=torch.uint8))] == [
        "relu1_1",
        "relu2_1",
        "relu3_1",
        "relu4_1",
        "relu4_2",
        "relu5_1",
    ]


def test_bf16_rounds_the_network_and_nothing_after_it(network: VGG19) -> None:
    weights = load("random", seed=3)
    rounded = VGG19(weights, "bf16")
    assert weights.state["0.weight"].dtype == torch.float32, "the weights given are left alone"
    images = torch.randint(0, 256, (2, 3, 32, 32), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    for (name, maps), vector, exact in zip(rounded.feature_maps(images), rounded(images), network(images), strict=True):
        assert maps.dtype == torch.bfloat16, name
        assert vector.dtype == torch.float32
        assert 0 < float((vector - exact).norm() / exact.norm()) < 0.05


def test_random_weights_are_seeded_named_and_leave_the_global_state_alone() -> None:
    torch.manual_seed(0)
    before = torch.get_rng_state()
    first, again, other = (load("random", seed=seed) for seed in (0, 0, 1))
    VGG19(first)
    assert torch.equal(torch.get_rng_state(), before)
    assert first.description == "VGG-19, random He weights, seed 0"
    assert torch.equal(first.state["28.weight"], again.state["28.weight"])
    assert not torch.equal(first.state["28.weight"], other.state["28.weight"])
    assert first.sha256 == again.sha256 != other.sha256
    assert float(first.state["28.weight"].std()) == pytest.approx((2 / (512 * 9)) ** 0.5, rel=0.01)


def test_weights_come_from_disk_and_are_described_by_their_hash(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    arrays = arrays_of("E")
    arrays["features.0.bias"][:] = 0.5
    digest = write_arrays(tmp_path / "vgg19.safetensors", arrays)
    monkeypatch.setenv("AOST_WEIGHTS", str(tmp_path))
    found = load("imagenet")
    assert found.description == f"VGG-19, ImageNet weights (sha256 {digest[:12]})"
    assert len(found.state) == 26
    assert found.state["0.bias"].dtype == torch.float32
    assert VGG19(found).features[0].bias.tolist() == [0.5] * 64
    by_path = load(str(tmp_path / "vgg19.safetensors"), seed=0)
    assert by_path.sha256 == found.sha256
    assert "vgg19.safetensors" in by_path.description


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        (arrays_of("D"), r"not a VGG-19: features\.16 is|not a VGG-19: parameter features"),
        (arrays_of("A"), "is not a VGG-19"),
        (arrays_of("E", batch_norm=True), "is not a VGG-19"),
        ({"conv1.weight": np.zeros((64, 3, 7, 7), np.float32)}, "features.0.bias is missing"),
        (arrays_of("E") | {"features.0.bias": np.full(64, np.nan, np.float32)}, "finite floats"),
        (arrays_of("E") | {"features.5.bias": np.zeros(127, np.float32)}, r"\(127,\), expected .* \(128,\)"),
    ],
)
def test_weights_of_another_net_are_refused(tmp_path: Path, arrays: dict[str, np.ndarray], message: str) -> None:
    write_arrays(tmp_path / "w.safetensors", arrays)
    with pytest.raises(InputError, match=message) as caught:
        load(str(tmp_path / "w.safetensors"), seed=0)
    assert caught.value.exit_code == 3


class _Payload:
    def __init__(self, canary: Path) -> None:
        self.canary = canary

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, (str(self.canary),)


def test_a_pickle_is_refused_and_not_executed(tmp_path: Path) -> None:
    for name in ("w.pth", "w.safetensors"):
        (tmp_path / name).write_bytes(pickle.dumps(_Payload(tmp_path / "canary")))
        with pytest.raises(InputError, match="not a safetensors file"):
            load(str(tmp_path / name), seed=0)
    assert not (tmp_path / "canary").exists()
