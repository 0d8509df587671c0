"""Backbones by name: that pretrained weights are really in them, and what is said where they cannot be."""

import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from pydantic import ValidationError
from torch import Tensor

from finegpr import efficientnet
from finegpr.catalog import Catalog
from finegpr.errors import InputError
from finegpr.reid.backbones import MODELS, find_architecture
from finegpr.reid.checkpoint import read_embedder
from finegpr.reid.config import TrainConfig
from finegpr.reid.model import Embedder, load_weights
from finegpr.reid.recipes import recipe
from finegpr.reid.train import fit
from finegpr.storage import write_arrays
from finegpr.weights import find_weights

LITE = "efficientnet_lite0"
SIZE = (64, 32)
SHORT = {"steps": 3, "batch_size": 8, "device": "cpu", "save_seconds": 0}


def config(**changes: Any) -> TrainConfig:
    return TrainConfig.model_validate(recipe("quick").model_dump() | SHORT | changes)


def picture(height: int = SIZE[0], width: int = SIZE[1]) -> Tensor:
    """Two images (2, 3, H, W): slopes of colour, and waves."""
    y, x = np.mgrid[:height, :width] / np.array([[[height]], [[width]]])
    slopes = np.stack([x, y, 1 - x * y])
    waves = 0.5 + 0.5 * np.sin(np.stack([9 * x + 4 * y, 17 * y, 30 * x * y]))
    return torch.from_numpy((255 * np.stack([slopes, waves])).astype(np.uint8))


def embedder(model: str = LITE, size: tuple[int, int] = SIZE, weights: str = "imagenet") -> Embedder:
    torch.manual_seed(0)
    built = Embedder(model=model, size=size)
    if (state := load_weights(find_weights(model, weights))) is not None:
        built.backbone.load_state_dict(state, strict=False)
    return built.eval()


@pytest.fixture(scope="module")
def train(tmp_path_factory: pytest.TempPathFactory) -> Catalog:
    """Four people, six images each."""
    root = tmp_path_factory.mktemp("people")
    generator = np.random.default_rng(0)
    (root / "bounding_box_train").mkdir()
    for identity in range(1, 5):
        colour = generator.integers(40, 216, 3)
        for frame in range(6):
            pixels = (colour + generator.normal(0, 20, (32, 16, 3))).clip(0, 255).astype(np.uint8)
            name = f"{identity:04d}_c{1 + frame % 3}s1_{frame:06d}_00.jpg"
            Image.fromarray(pixels).save(root / "bounding_box_train" / name)
    return Catalog.index(root, layout="market1501")


# ---- shapes and numbers


GOLDEN = [[-1.5472, -4.8214, 0.5063, -5.3461, -1.8127], [6.9652, 3.5984, 5.1697, 6.1760, -3.5402]]
"""Features 0, 80, 160, 240 and 319 of both images of ``picture``."""


@pytest.mark.parametrize("model", MODELS)
def test_features_are_as_wide_as_is_said(model: str) -> None:
    built = Embedder(model=model, size=SIZE).eval()
    with torch.inference_mode():
        assert built(picture()).shape == (2, built.dimension)
        assert built(picture(130, 50)).shape == (2, built.dimension)


def test_pretrained_numbers() -> None:
    """Frozen from the published weights; random ones give others, and less alike images."""
    with torch.inference_mode():
        found, other = (embedder(weights=weights)(picture()) for weights in ("imagenet", "random"))
    places = [0, 80, 160, 240, 319]
    np.testing.assert_allclose(found[:, places], GOLDEN, atol=1e-3)
    assert (found - other).abs().max() > 0.1


def test_the_stages_are_those_of_the_whole_network() -> None:
    """The whole network by timm, with the same weights, shows the same map after its fourth stage."""
    lite = embedder()
    whole = efficientnet.build(LITE).eval()
    found = find_weights(LITE, "imagenet")
    from finegpr.weights import read_state

    state = {key: torch.from_numpy(value) for key, value in read_state(found).items()}
    whole.load_state_dict({key: value for key, value in state.items() if not key.startswith("classifier.")})
    maps: list[Tensor] = []
    whole.blocks[3].register_forward_hook(lambda _module, _inputs, output: maps.append(output))
    pixels = (picture().float() - lite.mean) / lite.std
    with torch.inference_mode():
        whole(pixels)
        stripes = torch.cat([stripe.mean(dim=(2, 3)) for stripe in maps[0].tensor_split(4, dim=2)], dim=1)
        neck = lite.backbone.neck
        expected = (stripes - neck.running_mean) / (neck.running_var + neck.eps).sqrt()
        torch.testing.assert_close(lite(picture()), expected, atol=1e-4, rtol=1e-4)


# ---- training


def test_a_training_says_what_it_began_with(train: Catalog, tmp_path: Path) -> None:
    pretrained = fit(config(), train, output=tmp_path / "pretrained", seed=0)
    assert pretrained.weights == "EfficientNet-Lite0, ImageNet weights (sha256 579344248a93)"
    random = fit(config(weights="random"), train, output=tmp_path / "random", seed=0)
    assert random.weights == "EfficientNet-Lite0, random weights"
    again = fit(config(weights=str(random.checkpoint), steps=1), train, output=tmp_path / "again", seed=0)
    assert again.weights.startswith("EfficientNet-Lite0, model.safetensors weights")
    built = read_embedder(pretrained.checkpoint).eval()
    assert built(picture()).shape == (2, 320)


def test_all_of_an_own_checkpoint_is_taken_up(train: Catalog, tmp_path: Path) -> None:
    trained = fit(config(), train, output=tmp_path, seed=0)
    state = load_weights(find_weights(LITE, str(trained.checkpoint)))
    assert state is not None
    assert state.keys() == Embedder(model=LITE, size=SIZE).backbone.state_dict().keys()
    assert int(state["neck.num_batches_tracked"]) == 3


class _InterruptedError(Exception):
    pass


def test_an_interrupted_training_ends_with_the_same_bytes(train: Catalog, tmp_path: Path) -> None:
    def interrupt(record: Any) -> None:
        if record.epoch == 2:
            raise _InterruptedError

    settings = config(steps=None, epochs=3)
    whole = fit(settings, train, output=tmp_path / "whole", seed=3)
    with pytest.raises(_InterruptedError):
        fit(settings, train, output=tmp_path / "cut", seed=3, report=interrupt)
    seen: list[int] = []
    resumed = fit(settings, train, output=tmp_path / "cut", seed=3, report=lambda record: seen.append(record.epoch))
    assert seen == [2, 3]
    assert resumed.history == whole.history
    assert resumed.checkpoint.read_bytes() == whole.checkpoint.read_bytes()


def test_weights_of_another_network_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "other.safetensors"
    write_arrays(path, {"conv_stem.weight": np.zeros((32, 3, 3, 3), np.float32)})
    with pytest.raises(InputError, match=f"is not a {LITE}: bn1.weight is missing"):
        load_weights(find_weights(LITE, str(path)))


# ---- any network of timm


def test_a_network_of_timm_trains(train: Catalog, tmp_path: Path) -> None:
    settings = config(model="timm/resnet10t", weights="random", loss="softmax", height=32, width=32, steps=1)
    result = fit(settings, train, output=tmp_path, seed=0)
    assert result.weights == "timm/resnet10t, random weights"
    built = read_embedder(result.checkpoint).eval()
    assert built(picture(32, 32)).shape == (2, built.dimension)


def test_lite0_by_timms_name_has_the_same_weights() -> None:
    with torch.inference_mode():
        found = embedder("timm/tf_efficientnet_lite0")(picture())
    assert found.shape == (2, 1280)
    assert find_weights("timm/tf_efficientnet_lite0", "imagenet").sha256 == find_weights(LITE, "imagenet").sha256


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model": "timm/resnet10"}, r"timm \S+ has no network 'resnet10'; did you mean 'resnet\w+'"),
        ({"model": "timm/qqqqqqqq"}, r"has no network 'qqqqqqqq'; `timm.list_models\(\)`"),
        ({"model": "efficientnet_lite"}, "no model 'efficientnet_lite'; did you mean 'efficientnet_lite0'"),
        ({"model": "timm/vit_tiny_patch16_224"}, r"model timm/vit_\w+ takes no images of 64x32 \(Input height"),
        ({"model": "timm/convnext_atto", "height": 16, "width": 16}, "takes no images of 16x16"),
        ({"height": 63}, f"model {LITE} needs a height of at least 64, got 63"),
    ],
)
def test_what_cannot_be_built_is_one_line(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message) as raised:
        config(weights="random", **changes)
    assert len(raised.value.errors()) == 1
    assert "\n" not in raised.value.errors()[0]["msg"]


def test_nothing_is_downloaded(train: Catalog, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_arguments: Any, **_more: Any) -> None:
        raise AssertionError("a connection was asked for")

    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setenv("AOST_WEIGHTS", str(tmp_path))
    settings = config(model="timm/resnet10t", weights="imagenet", height=32, width=32)
    with pytest.raises(InputError, match=r"no ImageNet weights of timm/resnet10t at .*resnet10t\.safetensors"):
        fit(settings, train, output=tmp_path / "out", seed=0)
    state = find_architecture("timm/resnet10t").build().state_dict()
    write_arrays(tmp_path / "resnet10t.safetensors", {key: value.numpy() for key, value in state.items()})
    assert "ImageNet weights" in fit(settings, train, output=tmp_path / "out", seed=0).weights


def test_timm_is_loaded_only_where_one_of_its_networks_is_named() -> None:
    script = """
import sys
from finegpr.reid.recipes import RECIPES
for recipe in RECIPES.values():
    type(recipe).model_validate(recipe.model_dump())
assert not {"torch", "torchvision", "timm"} & sys.modules.keys()
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
