"""The networks that images are measured by. A new one is a file with an ``Extractor``, and an entry in NETWORKS.

Networks are imported where they are built, because settings name them and measurements are read without torch.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from finegpr.device import Precision
from finegpr.measuring.networks.terms import LITE0_TERMS, VGG19_TERMS
from finegpr.weighing import Terms
from finegpr.weights import Weights

if TYPE_CHECKING:
    from finegpr.measuring.networks.base import Extractor, LoadedWeights


@dataclass(frozen=True, kw_only=True)
class Network:
    """``terms`` are of its distance, ``coordinates`` (T,) what sketches keep of each; ``load`` reads and checks
    parameters, or draws them; ``build`` takes these."""

    terms: Terms
    coordinates: tuple[int, ...]
    load: "Callable[[Weights], LoadedWeights]"
    build: "Callable[[LoadedWeights, Precision], Extractor]"


def _load_vgg19(weights: Weights) -> "LoadedWeights":
    from finegpr.measuring.networks import vgg19

    return vgg19.load(weights)


def _build_vgg19(weights: "LoadedWeights", precision: Precision) -> "Extractor":
    from finegpr.measuring.networks import vgg19

    return vgg19.VGG19(weights, precision)


def _load_lite0(weights: Weights) -> "LoadedWeights":
    from finegpr.measuring.networks import efficientnet_lite

    return efficientnet_lite.load(weights)


def _build_lite0(weights: "LoadedWeights", precision: Precision) -> "Extractor":
    from finegpr.measuring.networks import efficientnet_lite

    return efficientnet_lite.EfficientNetLite0(weights, precision)


NETWORKS: Mapping[str, Network] = {
    "vgg19": Network(terms=VGG19_TERMS, coordinates=(32, 32, 32, 32, 32, 128), load=_load_vgg19, build=_build_vgg19),
    "efficientnet_lite0": Network(
        terms=LITE0_TERMS, coordinates=(16, 16, 32, 48, 64, 64), load=_load_lite0, build=_build_lite0
    ),
}


def load_network(weights: Weights) -> "LoadedWeights":
    """The parameters, read and checked, or drawn from the seed; no global random state has a part in it.

    Raises InputError when names, shapes or values are not those of the network, StateError when the file has changed.
    """
    return NETWORKS[weights.network].load(weights)
