"""Where the first weights of every network come from, and how they are named; nothing is read into a network here.

    python -m finegpr.weights vgg19 OUT.safetensors     fetch and convert ImageNet weights (needs network)

Nothing else downloads, and pickled weights (.pth) are never read.
"""

import os
import sys
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from finegpr.errors import AostError, InputError
from finegpr.home import from_home
from finegpr.storage import file_sha256, write_arrays
from finegpr.visible import visible

VGG = "vgg19"


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
    """``imagenet`` (a file on disk), ``random`` or the path of a file.

    ``imagenet`` is $AOST_WEIGHTS/<network>.safetensors, or in ~/.cache/aost where AOST_WEIGHTS is not set. ``seed`` is
    that of random He weights; without it they are PyTorch's, drawn from the training's seed. Raises InputError when
    the file is missing (saying how to make one) or cannot be read.
    """
    title = "VGG-19" if network == VGG else network
    if weights == "random":
        if seed is None:
            return Weights(network=network, description=f"{title}, random weights", sha256="random", path=None)
        description = f"{title}, random He weights, seed {seed}"
        return Weights(network=network, description=description, sha256=f"random {seed}", path=None, seed=seed)
    path = from_home(weights)
    name = path.name
    if weights == "imagenet":
        path, name = imagenet_path(network), "ImageNet"
        if not path.exists():
            if network not in _published():
                raise InputError(
                    f"there are no ImageNet weights for model {network}; choose weights: random or another model"
                )
            raise InputError(
                f"no ImageNet weights at {path}; on a machine with network run `python -m finegpr.weights {network} "
                f"{path.name}` and copy the file there (or set AOST_WEIGHTS to its folder), or choose weights: random"
            )
    try:
        digest = file_sha256(path)
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror}") from None
    description = f"{title}, {name} weights (sha256 {digest[:12]})"
    return Weights(network=network, description=description, sha256=digest, path=path)


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


def wrapped(found: Iterable[str], needed: Collection[str]) -> str:
    """The prefix with which every needed name is found, in words of an error; "" where there is none."""
    first, names = min(needed), set(found)
    for name in sorted(names):
        prefix = name.removesuffix(first)
        if name.endswith("." + first) and all(prefix + each in names for each in needed):
            return f"; all its names begin with {prefix!r}, as a wrapper like DataParallel adds: save them without it"
    return ""


def imagenet_path(network: str) -> Path:
    """Where ``weights: imagenet`` looks."""
    return from_home(os.environ.get("AOST_WEIGHTS") or "~/.cache/aost") / f"{network}.safetensors"


def _published() -> list[str]:
    """The networks that torchvision has ImageNet weights for."""
    from torchvision import models

    names: list[str] = models.list_models(module=models)
    return names


def convert(network: str, path: Path) -> None:
    """Download torchvision's ImageNet weights (hash checked, no pickled code) and write them as safetensors.

    VGG-19's classifier, 480 of its 550 MB, is left out. Raises InputError where there is no network.
    """
    from torchvision import models

    origin = models.get_model_weights(network).IMAGENET1K_V1
    try:
        state = origin.get_state_dict(check_hash=True, weights_only=True)
    except OSError as error:
        raise InputError(f"cannot fetch {origin.url} ({error}); run this on a machine with network") from None
    prefix = "features." if network == VGG else ""
    arrays = {key: value.numpy() for key, value in state.items() if key.startswith(prefix)}
    write_arrays(path, arrays, {"source": origin.url})


def main(arguments: list[str]) -> None:
    """``python -m finegpr.weights NETWORK OUT.safetensors``. Raises InputError for anything but two such names."""
    if len(arguments) != 2 or arguments[0] not in _published() or not arguments[1].endswith(".safetensors"):
        raise InputError(
            "expected a network of torchvision (vgg19, resnet50, ...) and a file name, as in "
            f"`python -m finegpr.weights vgg19 OUT.safetensors`, got {arguments}"
        )
    network, path = arguments
    convert(network, from_home(path))
    print(f"wrote {path}")


if __name__ == "__main__":
    try:
        main(sys.argv[1:])
    except AostError as error:
        print(visible(str(error)), file=sys.stderr)
        sys.exit(error.exit_code)
