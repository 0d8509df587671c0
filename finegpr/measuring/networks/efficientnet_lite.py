"""EfficientNet-Lite0 up to its fifth stage: ImageNet weights that come as a package, at a tenth of VGG-19's time."""

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn

from finegpr import efficientnet
from finegpr.device import Precision
from finegpr.folding import folded
from finegpr.measuring.networks.base import Extractor, LoadedWeights, he_initialised
from finegpr.measuring.networks.terms import LITE0_TERMS
from finegpr.perceptual import grid_vector, moments_vector
from finegpr.weights import Weights, fitted, read_state

_CONTENT = "stage3"


class EfficientNetLite0(Extractor):
    """Terms: means and deviations of the channels that stages 1 to 5 of seven put out, and stage 3 in a grid of 4 x 2.

    Chosen by what finds planted conditions again at what cost: results/lite0-terms.md. Sides must be at least 32.
    """

    def __init__(self, weights: LoadedWeights, precision: Precision = "float32") -> None:
        statistics = {name: (name, moments_vector) for name in LITE0_TERMS.style}
        super().__init__(LITE0_TERMS, statistics | dict.fromkeys(LITE0_TERMS.content, (_CONTENT, grid_vector)))
        network = _empty(weights.network)
        network.load_state_dict(weights.state, assign=True)
        self.network = folded(network)
        self.freeze(precision)

    def layers(self) -> Iterator[tuple[str | None, Callable[[Tensor], Tensor]]]:
        network: Any = self.network
        yield None, network.conv_stem
        yield "stem", network.bn1
        for number, stage in enumerate(network.blocks, start=1):
            yield f"stage{number}", stage


def load(weights: Weights) -> LoadedWeights:
    """As ``load_network``: all parameters up to the pooled features, by timm's names; a classifier may be there."""
    empty = _empty(weights.network).state_dict()
    state = he_initialised(empty, weights.seed or 0) if weights.path is None else _read(weights, empty)
    return LoadedWeights(**vars(weights), state=state)


def _empty(network: str) -> nn.Module:
    with torch.device("meta"):  # shapes only: no memory, no draw from the global random state
        return efficientnet.build(network)


def _read(weights: Weights, empty: dict[str, Tensor]) -> dict[str, Tensor]:
    found = fitted(
        weights,
        read_state(weights),
        {key: (tuple(value.shape), not value.is_floating_point()) for key, value in empty.items()},
        what="an EfficientNet-Lite0",
        advice="choose weights: imagenet, which a package brings, or random",
    )
    return {key: torch.from_numpy(values) for key, values in found.items()}
