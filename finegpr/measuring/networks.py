"""VGG-19 up to relu5_1: images to the vectors of ``perceptual``, and where its weights come from.

    python -m finegpr.measuring.networks OUT.safetensors     fetch and convert ImageNet weights (needs network)

Nothing else downloads, and pickled weights (.pth) are never read.
"""

import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import sqrt
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from torch import Tensor, nn
from torchvision.models import vgg as architecture

from finegpr.arrays import Singles
from finegpr.errors import AostError, InputError
from finegpr.perceptual import content_vector, style_vector
from finegpr.storage import file_sha256, read_arrays, write_arrays
from finegpr.weighing import STYLE_LAYERS

Precision = Literal["float32", "bf16"]
DTYPES: dict[Precision, torch.dtype] = {"float32": torch.float32, "bf16": torch.bfloat16}

_LAYERS = {1: "relu1_1", 6: "relu2_1", 11: "relu3_1", 20: "relu4_1", 22: "relu4_2", 29: "relu5_1"}
_DEPTH = max(_LAYERS) + 1
_MEAN = (0.485, 0.456, 0.406)
_STD = (0.229, 0.224, 0.225)


@dataclass(frozen=True, kw_only=True)
class Weights:
    """Checked parameters of the 13 convolutions up to relu5_1, with a description for every output."""

    description: str
    sha256: str
    state: dict[str, Tensor]


class VGG19(nn.Module):
    """The network, frozen: uint8 images (n, 3, H, W) to six vectors (n, d) per image, float32.

    They are perceptual.style_vector of relu1_1 to relu5_1, then perceptual.content_vector of relu4_2: the squared
    distance between two images' vectors is that term, unweighted. Sides must be at least 16. Feature maps are reduced
    while the pass walks on, so only one is alive at a time; their numbers are of ``precision``.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, weights: Weights, precision: Precision = "float32") -> None:
        super().__init__()
        self.features = _empty_features(widths=_widths(weights.state))
        self.features.load_state_dict(weights.state, assign=True)
        self.requires_grad_(False)
        self.eval()
        self.dtype = DTYPES[precision]
        self.to(self.dtype).to(memory_format=torch.channels_last)
        self.register_buffer("mean", torch.tensor(_MEAN).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(_STD).view(1, 3, 1, 1), persistent=False)

    @torch.inference_mode()
    def forward(self, images: Tensor) -> list[Tensor]:
        style, content = [], []
        for name, maps in self.feature_maps(images):
            if name in STYLE_LAYERS:
                style.append(style_vector(maps))
            else:
                content.append(content_vector(maps))
        return style + content

    @torch.inference_mode()
    def feature_maps(self, images: Tensor) -> Iterator[tuple[str, Tensor]]:
        """Name and map (n, N, H, W) of the six layers, one after the other."""
        x = self.normalise(images)
        for index, layer in enumerate(self.features):
            # On a GPU: the same numbers every time, and none of the three digits that TF32 would keep.
            with torch.backends.cudnn.flags(enabled=True, benchmark=False, deterministic=True, allow_tf32=False):
                x = layer(x)
            if index in _LAYERS:
                yield _LAYERS[index], x

    @property
    def device(self) -> torch.device:
        """Where the parameters are; images are moved there."""
        return self.mean.device

    def normalise(self, images: Tensor) -> Tensor:
        """uint8 (n, 3, H, W) -> numbers of ``precision``, ImageNet mean and deviation taken out, channels last."""
        x = images.to(self.device).contiguous(memory_format=torch.channels_last).to(torch.float32, copy=True)
        return x.div_(255).sub_(self.mean).div_(self.std).to(self.dtype)


def find_weights(weights: str, *, seed: int) -> Weights:
    """``imagenet`` (a file on disk), ``random`` (He initialisation drawn from ``seed``) or the path of a file.

    ``imagenet`` is $AOST_WEIGHTS/vgg19.safetensors, or ~/.cache/aost/vgg19.safetensors where AOST_WEIGHTS is not set.
    Raises InputError when the file is missing (saying how to make one), or holds another net's weights.
    """
    if weights == "random":
        return _he_initialised(seed)
    if weights != "imagenet":
        return read_weights(Path(weights), name=Path(weights).name)
    path = imagenet_path()
    if not path.exists():
        raise InputError(
            f"no ImageNet weights at {path}; on a machine with network run "
            f"`python -m finegpr.measuring.networks {path.name}` and "
            "copy the file there (or set AOST_WEIGHTS to its folder), or choose weights: random"
        )
    return read_weights(path, name="ImageNet")


def imagenet_path() -> Path:
    """Where ``weights: imagenet`` looks."""
    return Path(os.environ.get("AOST_WEIGHTS", Path.home() / ".cache" / "aost")).expanduser() / "vgg19.safetensors"


def read_weights(path: Path, *, name: str) -> Weights:
    """Read VGG-19 parameters under torchvision's names; later layers and the classifier may be there or not.

    Raises InputError when names, shapes or values are not those of a VGG-19 without batch normalisation.
    """
    arrays = read_arrays(path)
    expected = {key: tuple(value.shape) for key, value in _empty_features(full=True).state_dict().items()}
    needed = _empty_features().state_dict().keys()
    found = {key.removeprefix("features."): array for key, array in arrays.items() if key.startswith("features.")}
    wrong = sorted(needed - found.keys()) or sorted(found.keys() - expected.keys())
    if wrong:
        raise InputError(
            f"{path} is not a VGG-19: parameter features.{wrong[0]} is "
            f"{'missing' if wrong[0] in needed else 'not part of one'}; convert torchvision's vgg19 with "
            "`python -m finegpr.measuring.networks OUT.safetensors`"
        )
    for key, array in found.items():
        if array.shape != expected[key] or array.dtype.kind != "f" or not np.isfinite(array).all():
            raise InputError(
                f"{path} is not a VGG-19: features.{key} is {array.dtype} {array.shape}, expected finite floats of "
                f"shape {expected[key]}"
            )
    digest = file_sha256(path)
    state = {key: torch.from_numpy(found[key].astype(np.float32)) for key in needed}
    return Weights(description=f"VGG-19, {name} weights (sha256 {digest[:12]})", sha256=digest, state=state)


def convert(path: Path) -> None:
    """Download torchvision's ImageNet VGG-19 (550 MB, hash checked, no pickled code) and write its convolutions."""
    origin = architecture.VGG19_Weights.IMAGENET1K_V1
    try:
        downloaded = origin.get_state_dict(check_hash=True, weights_only=True)
    except OSError as error:
        raise InputError(f"cannot fetch {origin.url} ({error}); run this on a machine with network") from None
    arrays: dict[str, Singles] = {
        key: value.numpy() for key, value in downloaded.items() if key.startswith("features.")
    }
    write_arrays(path, arrays, {"source": origin.url})


def _empty_features(*, full: bool = False, widths: Sequence[int] | None = None) -> nn.Sequential:
    """VGG-19's layers, all of them or up to relu5_1; ``widths`` are filters other than its own."""
    plan = architecture.cfgs["E"]
    if widths is not None:
        of_layer = iter(widths)
        plan = [layer if layer == "M" else next(of_layer, layer) for layer in plan]
    with torch.device("meta"):  # shapes only: no memory, no draw from the global random state
        layers: nn.Sequential = architecture.make_layers(plan, batch_norm=False)
    return layers if full else layers[:_DEPTH]


def _widths(state: Mapping[str, Tensor]) -> list[int]:
    return [len(state[key]) for key in _empty_features().state_dict() if key.endswith("bias")]


def _he_initialised(seed: int) -> Weights:
    generator = torch.Generator().manual_seed(seed)
    state = {}
    for key, value in _empty_features().state_dict().items():
        if key.endswith("weight"):
            state[key] = torch.randn(value.shape, generator=generator) * sqrt(2 / value[0].numel())
        else:
            state[key] = torch.zeros(value.shape)
    return Weights(description=f"VGG-19, random He weights, seed {seed}", sha256=f"random {seed}", state=state)


def main(arguments: list[str]) -> None:
    """``python -m finegpr.measuring.networks OUT.safetensors``. Raises InputError for anything but one such name."""
    if len(arguments) != 1 or not arguments[0].endswith(".safetensors"):
        raise InputError(
            f"expected one file name, as in `python -m finegpr.measuring.networks OUT.safetensors`, got {arguments}"
        )
    convert(Path(arguments[0]))
    print(f"wrote {arguments[0]}")


if __name__ == "__main__":
    try:
        main(sys.argv[1:])
    except AostError as error:
        print(error, file=sys.stderr)
        sys.exit(error.exit_code)
