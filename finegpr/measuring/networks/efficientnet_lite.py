"""EfficientNet-Lite0: a second network, whose ImageNet weights come as a package, at a tenth of VGG-19's time."""

from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from finegpr import efficientnet
from finegpr.device import Precision
from finegpr.folding import folded
from finegpr.measuring.networks.base import Extractor, LoadedWeights, he_initialised
from finegpr.measuring.networks.terms import LITE0_TERMS
from finegpr.perceptual import moments_vector, pooled_vector
from finegpr.weights import Weights


class EfficientNetLite0(Extractor):
    """Terms: means and deviations of channels after the stem and four of the seven stages, and the pooled features.

    Sides must be at least 32. Batch norms are folded into the convolutions before them.
    """

    def __init__(self, weights: LoadedWeights, precision: Precision = "float32") -> None:
        statistics = {name: (name, moments_vector) for name in LITE0_TERMS.style}
        super().__init__(LITE0_TERMS, statistics | {"content": ("head", pooled_vector)})
        network = efficientnet.build(weights.network)
        network.load_state_dict(weights.state)
        self.network = folded(network)
        self.freeze(precision)

    def layers(self) -> Iterator[tuple[str | None, Callable[[Tensor], Tensor]]]:
        network = self.network
        yield None, network.conv_stem
        yield "stem", network.bn1
        for number, stage in enumerate(network.blocks, start=1):
            yield f"stage{number}", stage
        yield None, network.conv_head
        yield "head", network.bn2
