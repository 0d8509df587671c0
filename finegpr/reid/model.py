"""The network: pixels to embeddings, and where its first weights come from.

    python -m finegpr.reid.model resnet50 OUT.safetensors     fetch torchvision's ImageNet weights (needs network)

Nothing else downloads, and pickled weights (.pth) are never read.
"""

import os
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torchvision import models

from finegpr.errors import InputError
from finegpr.storage import file_sha256, read_arrays, write_arrays

_MEAN = (0.485, 0.456, 0.406)
_STD = (0.229, 0.224, 0.225)


class Stripes(nn.Module):
    """Mean of each of four horizontal stripes, side by side: (n, C, h, w) with h >= 4 to (n, 4 C)."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([stripe.mean(dim=(2, 3)) for stripe in x.tensor_split(4, dim=2)], dim=1)


class SmallNet(nn.Sequential):
    """Four strided 3x3 convolutions for small images on a CPU: (n, 3, H, W), H >= 64, to (n, 512).

    Batch normalisation as in a ResNet, so that the choice of training images shows as it does there: normalising
    each image by itself would take out the light that the choice is about. Stripes keep what is above apart from
    what is below (Sun et al. 2018).
    """

    def __init__(self) -> None:
        blocks: list[nn.Module] = []
        for before, after in pairwise((3, 16, 32, 64, 128)):
            blocks += [
                nn.Conv2d(before, after, 3, stride=2, padding=1, bias=False),
                nn.BatchNorm2d(after),
                nn.ReLU(),
            ]
        super().__init__(*blocks, Stripes())


def _resnet(build: Callable[..., nn.Module]) -> nn.Module:
    network = build(weights=None)
    network.fc = nn.Identity()
    return network


@dataclass(frozen=True, kw_only=True)
class Architecture:
    """``build()`` returns the network up to its pooled features, ``dimension`` wide; its ImageNet weights, if any."""

    build: Callable[[], nn.Module]
    dimension: int
    min_height: int
    imagenet: models.WeightsEnum | None


MODELS: Mapping[str, Architecture] = {
    "small": Architecture(build=SmallNet, dimension=512, min_height=64, imagenet=None),
    "resnet18": Architecture(
        build=lambda: _resnet(models.resnet18),
        dimension=512,
        min_height=16,
        imagenet=models.ResNet18_Weights.IMAGENET1K_V1,
    ),
    "resnet50": Architecture(
        build=lambda: _resnet(models.resnet50),
        dimension=2048,
        min_height=16,
        imagenet=models.ResNet50_Weights.IMAGENET1K_V1,
    ),
}


class Embedder(nn.Module):
    """uint8 images (n, 3, H, W) to embeddings (n, dimension), the pooled features; ``size`` is its (height, width)."""

    mean: Tensor
    std: Tensor

    def __init__(self, *, model: str, size: tuple[int, int]) -> None:
        super().__init__()
        architecture = MODELS[model]
        self.model, self.size, self.dimension = model, size, architecture.dimension
        self.backbone = architecture.build()
        self.register_buffer("mean", torch.tensor(_MEAN).view(1, 3, 1, 1) * 255, persistent=False)
        self.register_buffer("std", torch.tensor(_STD).view(1, 3, 1, 1) * 255, persistent=False)

    def forward(self, images: Tensor) -> Tensor:
        features: Tensor = self.backbone((images.float() - self.mean) / self.std)
        return features


@dataclass(frozen=True, kw_only=True)
class Weights:
    """First parameters of a backbone, with a description for every output; ``state`` is None for random ones."""

    description: str
    sha256: str
    state: dict[str, Tensor] | None


def find_weights(model: str, weights: str) -> Weights:
    """``random`` (PyTorch's initialisation, drawn from the training's seed), ``imagenet`` or the path of a file.

    ``imagenet`` is $AOST_WEIGHTS/<model>.safetensors, or in ~/.cache/aost where AOST_WEIGHTS is not set. A file holds
    torchvision's names, or is a checkpoint of this program. Raises InputError when the file is missing (saying how to
    make one) or holds another net's weights.
    """
    if weights == "random":
        return Weights(description=f"{model}, random weights", sha256="random", state=None)
    if weights != "imagenet":
        return _read(model, Path(weights), name=Path(weights).name)
    if MODELS[model].imagenet is None:
        raise InputError(f"there are no ImageNet weights for model {model}; choose weights: random or another model")
    path = Path(os.environ.get("AOST_WEIGHTS", Path.home() / ".cache" / "aost")).expanduser() / f"{model}.safetensors"
    if not path.exists():
        raise InputError(
            f"no ImageNet weights at {path}; on a machine with network run `python -m finegpr.reid.model {model} "
            f"{path.name}` and copy the file there (or set AOST_WEIGHTS to its folder), or choose weights: random"
        )
    return _read(model, path, name="ImageNet")


def _read(model: str, path: Path, *, name: str) -> Weights:
    arrays = read_arrays(path)
    prefix = "backbone." if any(key.startswith("backbone.") for key in arrays) else ""
    with torch.device("meta"):  # shapes only: no memory, no draw from the global random state
        expected = MODELS[model].build().state_dict()
    state = {}
    for key, value in expected.items():
        array = arrays.get(prefix + key)
        if array is None or array.size != value.numel() or not np.isfinite(array).all():
            got = "missing" if array is None else f"{array.dtype} {array.shape}"
            raise InputError(
                f"{path} is not a {model}: {key} is {got}, expected finite values of shape {tuple(value.shape)}; "
                f"choose the weights of a {model}, or weights: random"
            )
        state[key] = torch.from_numpy(array.copy()).reshape(value.shape)
    digest = file_sha256(path)
    return Weights(description=f"{model}, {name} weights (sha256 {digest[:12]})", sha256=digest, state=state)


def convert(model: str, path: Path) -> None:
    """Download torchvision's ImageNet weights (hash checked, no pickled code) and write them as safetensors."""
    source = MODELS[model].imagenet
    if source is None:
        raise InputError(f"there are no ImageNet weights for model {model}")
    state = source.get_state_dict(check_hash=True, weights_only=True)
    write_arrays(path, {key: value.numpy() for key, value in state.items()}, {"source": source.url})


if __name__ == "__main__":
    if len(sys.argv) != 3 or sys.argv[1] not in MODELS or not sys.argv[2].endswith(".safetensors"):
        sys.exit("usage: python -m finegpr.reid.model resnet18|resnet50 OUT.safetensors")
    convert(sys.argv[1], Path(sys.argv[2]))
    print(f"wrote {sys.argv[2]}")
