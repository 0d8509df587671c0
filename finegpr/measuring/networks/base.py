"""What a measuring network is: images to one vector per term, whose squared distances are the terms."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from math import sqrt

import torch
from torch import Tensor, nn

from finegpr.device import Precision
from finegpr.weighing import Terms
from finegpr.weights import Weights

DTYPES: dict[Precision, torch.dtype] = {"float32": torch.float32, "bf16": torch.bfloat16}

# Of ImageNet's photos, of which every network here expects the mean and deviation taken out.
_MEAN = (0.485, 0.456, 0.406)
_STD = (0.229, 0.224, 0.225)

Statistic = Callable[[Tensor], Tensor]


@dataclass(frozen=True, kw_only=True)
class LoadedWeights(Weights):
    """Weights with their checked parameters, by the network's own names."""

    state: dict[str, Tensor]


class Extractor(nn.Module, ABC):
    """A frozen network: uint8 images (n, 3, H, W) to a vector (n, d) per term, float32.

    The squared distance between two images' vectors is that term, unweighted. ``statistics`` says of each term, in the
    order of ``terms``, the layer it is of and what of its map (n, N, H, W) is the vector. Feature maps are reduced
    while the pass walks on, so only one is alive at a time.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, terms: Terms, statistics: Mapping[str, tuple[str, Statistic]]) -> None:
        super().__init__()
        self.terms = terms
        self._of_layer: dict[str, list[tuple[str, Statistic]]] = {}
        for term in terms.names:
            layer, statistic = statistics[term]
            self._of_layer.setdefault(layer, []).append((term, statistic))
        self.register_buffer("mean", torch.tensor(_MEAN).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(_STD).view(1, 3, 1, 1), persistent=False)
        self.dtype = torch.float32

    def freeze(self, precision: Precision) -> None:
        """Ready to measure: no gradients, channels last, numbers of ``precision``."""
        self.requires_grad_(False)
        self.eval()
        self.dtype = DTYPES[precision]
        for name, module in self.named_children():
            setattr(self, name, module.to(self.dtype).to(memory_format=torch.channels_last))

    @abstractmethod
    def layers(self) -> Iterator[tuple[str | None, Callable[[Tensor], Tensor]]]:
        """What an image passes through in turn, each with the name of its map, if it has one."""

    @torch.inference_mode()
    def forward(self, images: Tensor) -> list[Tensor]:
        found = {term: vector for name, maps in self.feature_maps(images) for term, vector in self.reduce(name, maps)}
        return [found[term] for term in self.terms.names]

    def reduce(self, layer: str, maps: Tensor) -> list[tuple[str, Tensor]]:
        """The terms of a layer, each with its vectors of the layer's maps."""
        return [(term, statistic(maps)) for term, statistic in self._of_layer[layer]]

    @torch.inference_mode()
    def feature_maps(self, images: Tensor) -> Iterator[tuple[str, Tensor]]:
        """Name and map (n, N, H, W) of each layer that a term is of, one after the other."""
        x, left = self.normalise(images), set(self._of_layer)
        for name, layer in self.layers():
            if not left:
                break
            # On a GPU: the same numbers every time, and none of the three digits that TF32 would keep.
            with torch.backends.cudnn.flags(enabled=True, benchmark=False, deterministic=True, allow_tf32=False):
                x = layer(x)
            if name in left:
                left.remove(name)
                yield name, x

    @property
    def device(self) -> torch.device:
        """Where the parameters are; images are moved there."""
        return self.mean.device

    def normalise(self, images: Tensor) -> Tensor:
        """uint8 (n, 3, H, W) -> numbers of ``precision``, ImageNet mean and deviation taken out, channels last."""
        x = images.to(self.device).contiguous(memory_format=torch.channels_last).to(torch.float32, copy=True)
        return x.div_(255).sub_(self.mean).div_(self.std).to(self.dtype)


def he_initialised(shapes: Mapping[str, Tensor], seed: int) -> dict[str, Tensor]:
    """Random parameters of these shapes (He et al. 2015): filters by their number of inputs, biases 0; batch norms that
    change nothing."""
    generator = torch.Generator().manual_seed(seed)
    state = {}
    for key, value in shapes.items():
        if value.ndim > 1:
            state[key] = torch.randn(value.shape, generator=generator) * sqrt(2 / value[0].numel())
        else:
            ones = key.endswith(("weight", "running_var"))
            state[key] = torch.full(value.shape, float(ones)).to(value.dtype)
    return state
