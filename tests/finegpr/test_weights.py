"""Where first weights come from, and how plans on the disk and outputs name them."""

import hashlib
import subprocess
import sys
from pathlib import Path
from urllib.error import URLError

import numpy as np
import pytest
import torch
from torchvision import models

from finegpr.errors import InputError
from finegpr.storage import read_arrays, write_arrays
from finegpr.weights import convert, find_weights, imagenet_path, main

STATE = {
    "features.0.weight": torch.full((2, 3, 3, 3), 0.5),
    "features.0.bias": torch.zeros(2),
    "classifier.0.bias": torch.zeros(4),
}


def test_random_weights_have_the_names_that_plans_hold() -> None:
    he, own = find_weights("vgg19", "random", seed=3), find_weights("small", "random")
    assert (he.sha256, he.description) == ("random 3", "VGG-19, random He weights, seed 3")
    assert (own.sha256, own.description) == ("random", "small, random weights")
    assert (he.path, he.seed, own.path, own.seed) == (None, 3, None, None)


@pytest.mark.parametrize(("network", "title"), [("vgg19", "VGG-19"), ("resnet50", "resnet50")])
def test_files_are_named_by_their_hash(
    network: str, title: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / f"{network}.safetensors"
    write_arrays(path, {"any": np.zeros(2, np.float32)})
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    monkeypatch.setenv("AOST_WEIGHTS", str(tmp_path))
    by_name, by_path = (find_weights(network, weights, seed=0) for weights in ("imagenet", str(path)))
    assert by_name.description == f"{title}, ImageNet weights (sha256 {digest[:12]})"
    assert by_path.description == f"{title}, {network}.safetensors weights (sha256 {digest[:12]})"
    assert (by_name.sha256, by_name.path) == (by_path.sha256, by_path.path) == (digest, path)


def test_finding_needs_no_torch(tmp_path: Path) -> None:
    path = tmp_path / "any.safetensors"
    write_arrays(path, {"any": np.zeros(2, np.float32)})
    script = f"""
import sys
from finegpr.weights import find_weights
for network in ("vgg19", "resnet50", "small"):
    find_weights(network, {str(path)!r}), find_weights(network, "random", seed=0)
assert not {{"torch", "torchvision"}} & sys.modules.keys()
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("network", ["vgg19", "resnet50"])
def test_absent_imagenet_weights_say_how_to_get_them(
    network: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AOST_WEIGHTS", str(tmp_path))
    assert imagenet_path(network) == tmp_path / f"{network}.safetensors"
    with pytest.raises(InputError, match=rf"python -m finegpr\.weights {network} {network}\.saf.*weights: random"):
        find_weights(network, "imagenet", seed=0)


def test_a_missing_file_and_a_model_without_imagenet_weights_are_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"cannot read .*nowhere\.safetensors: No such file"):
        find_weights("vgg19", str(tmp_path / "nowhere.safetensors"), seed=0)
    with pytest.raises(InputError, match="no ImageNet weights for model small"):
        find_weights("small", "imagenet")


@pytest.mark.parametrize(
    ("network", "origin", "kept"),
    [
        ("vgg19", models.VGG19_Weights, {"features.0.weight", "features.0.bias"}),
        ("resnet18", models.ResNet18_Weights, set(STATE)),
    ],
)
def test_convert_leaves_out_vggs_classifier_and_asks_for_no_pickled_code(
    network: str, origin: type, kept: set[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = {}

    def download(_: object, **options: object) -> dict[str, torch.Tensor]:
        asked.update(options)
        return STATE

    monkeypatch.setattr(origin, "get_state_dict", download)
    convert(network, tmp_path / "w.safetensors")
    assert asked == {"check_hash": True, "weights_only": True}
    arrays = read_arrays(tmp_path / "w.safetensors")
    assert set(arrays) == kept
    np.testing.assert_array_equal(arrays["features.0.weight"], STATE["features.0.weight"])


@pytest.mark.parametrize(
    "arguments", [[], ["vgg19", "out.pth"], ["small", "OUT.safetensors"], ["OUT.safetensors"], ["vgg19", "a", "b"]]
)
def test_the_command_refuses_wrong_names(arguments: list[str]) -> None:
    with pytest.raises(InputError, match=r"a network of torchvision .*vgg19 OUT\.safetensors"):
        main(arguments)


def test_a_failed_download_says_where_to_run_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def offline(*_: object, **__: object) -> dict[str, torch.Tensor]:
        raise URLError("no route")

    monkeypatch.setattr(models.VGG19_Weights, "get_state_dict", offline)
    with pytest.raises(InputError, match="machine with network"):
        main(["vgg19", str(tmp_path / "vgg19.safetensors")])
    assert not (tmp_path / "vgg19.safetensors").exists()
