"""VGG-19 up to relu5_1: images to the vectors of ``perceptual``, and what makes a file one of a VGG-19."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import sqrt
from pathlib import Path

import torch
from torch import Tensor, nn

from finegpr.errors import InputError
from finegpr.measuring.config import Precision
from finegpr.perceptual import content_vector, style_vector
from finegpr.storage import read_arrays
from finegpr.weighing import STYLE_LAYERS
from finegpr.weights import Weights, fitting, wrapped

DTYPES: dict[Precision, torch.dtype] = {"float32": torch.float32, "bf16": torch.bfloat16}

_LAYERS = {1: "relu1_1", 6: "relu2_1", 11: "relu3_1", 20: "relu4_1", 22: "relu4_2", 29: "relu5_1"}
_DEPTH = max(_LAYERS) + 1
_MEAN = (0.485, 0.456, 0.406)
_STD = (0.229, 0.224, 0.225)


@dataclass(frozen=True, kw_only=True)
class LoadedWeights(Weights):
    """Weights with their checked parameters: those of the 13 convolutions up to relu5_1, by torchvision's names."""

    state: dict[str, Tensor]


class VGG19(nn.Module):
    """The network, frozen: uint8 images (n, 3, H, W) to six vectors (n, d) per image, float32.

    They are perceptual.style_vector of relu1_1 to relu5_1, then perceptual.content_vector of relu4_2: the squared
    distance between two images' vectors is that term, unweighted. Sides must be at least 16. Feature maps are reduced
    while the pass walks on, so only one is alive at a time; their numbers are of ``precision``.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, weights: LoadedWeights, precision: Precision = "float32") -> None:
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


def load_weights(weights: Weights) -> LoadedWeights:
    """The parameters, read and checked, or drawn from the seed; no global random state has a part in it.

    A file holds torchvision's names; later layers and the classifier may be there or not. Raises InputError when names,
    shapes or values are not those of a VGG-19 without batch normalisation, StateError when the file has changed.
    """
    state = _he_initialised(weights.seed or 0) if weights.path is None else _read(weights.path, weights.sha256)
    return LoadedWeights(**vars(weights), state=state)


def _read(path: Path, sha256: str) -> dict[str, Tensor]:
    arrays = read_arrays(path, expected_sha256=sha256)
    expected = {key: tuple(value.shape) for key, value in _empty_features(full=True).state_dict().items()}
    needed = _empty_features().state_dict().keys()
    found = {key.removeprefix("features."): array for key, array in arrays.items() if key.startswith("features.")}
    wrong = sorted(needed - found.keys()) or sorted(found.keys() - expected.keys())
    if wrong:
        why = wrapped(arrays, {f"features.{key}" for key in needed})
        raise InputError(
            f"{path} is not a VGG-19: parameter features.{wrong[0]} is "
            f"{'missing' if wrong[0] in needed else 'not part of one'}{why}; convert torchvision's vgg19 with "
            "`python -m finegpr.weights vgg19 OUT.safetensors`"
        )
    state = {}
    for key, array in found.items():
        values, got = fitting(array, expected[key])
        if values is None:
            raise InputError(
                f"{path} is not a VGG-19: features.{key} is {got}, expected finite floats of shape {expected[key]}"
            )
        state[key] = torch.from_numpy(values)
    return {key: state[key] for key in needed}


def _he_initialised(seed: int) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    state = {}
    for key, value in _empty_features().state_dict().items():
        if key.endswith("weight"):
            state[key] = torch.randn(value.shape, generator=generator) * sqrt(2 / value[0].numel())
        else:
            state[key] = torch.zeros(value.shape)
    return state


def _empty_features(*, full: bool = False, widths: Sequence[int] | None = None) -> nn.Sequential:
    """VGG-19's layers, all of them or up to relu5_1; ``widths`` are filters other than its own."""
    from torchvision.models import vgg as architecture  # seconds, and only where a network is built

    plan = architecture.cfgs["E"]
    if widths is not None:
        of_layer = iter(widths)
        plan = [layer if layer == "M" else next(of_layer, layer) for layer in plan]
    with torch.device("meta"):  # shapes only: no memory, no draw from the global random state
        layers: nn.Sequential = architecture.make_layers(plan, batch_norm=False)
    return layers if full else layers[:_DEPTH]


def _widths(state: Mapping[str, Tensor]) -> list[int]:
    return [len(state[key]) for key in _empty_features().state_dict() if key.endswith("bias")]
