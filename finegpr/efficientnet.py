"""EfficientNet-Lite by timm, for measuring and for re-ID: the network, and its state by timm's names.

Tan and Le 2019; the Lite form has ReLU6, no squeeze-and-excitation and TensorFlow's "SAME" padding. timm is imported
where a network is built: 0.6 to 0.75 s and some 400 modules more than torch and torchvision.
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from numpy.typing import NDArray

if TYPE_CHECKING:
    from torch import nn

NETWORKS: Mapping[str, str] = {
    "efficientnet_lite0": "tf_efficientnet_lite0",
    "efficientnet_lite1": "tf_efficientnet_lite1",
    "efficientnet_lite2": "tf_efficientnet_lite2",
}
"""Our names, and timm's."""
_TOP = {"_conv_stem": "conv_stem", "_bn0": "bn1", "_conv_head": "conv_head", "_bn1": "bn2", "_fc": "classifier"}
# The parts of a block, with and without an expansion before the depthwise convolution.
_EXPANDED = {
    "_expand_conv": "conv_pw",
    "_bn0": "bn1",
    "_depthwise_conv": "conv_dw",
    "_bn1": "bn2",
    "_project_conv": "conv_pwl",
    "_bn2": "bn3",
}
_SEPARABLE = {"_depthwise_conv": "conv_dw", "_bn1": "bn1", "_project_conv": "conv_pw", "_bn2": "bn2"}


def build(network: str) -> "nn.Module":
    """One of NETWORKS up to its 1,280 pooled features (n, 1280), of random parameters; nothing is downloaded."""
    import timm

    built: nn.Module = timm.create_model(NETWORKS[network], pretrained=False, num_classes=0)
    return built


def by_timms_names(arrays: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
    """A state dict by the names of ``efficientnet_lite_pytorch``, by timm's; any other comes back as it is.

    There blocks are numbered through, here within stages; a stage ends where a block's output has another width.
    """
    if "_conv_stem.weight" not in arrays:
        return dict(arrays)
    widths = {
        int(key.split(".")[1]): len(array) for key, array in arrays.items() if key.endswith("._project_conv.weight")
    }
    places: dict[int, tuple[int, int]] = {}
    stage, within = -1, 0
    for block in sorted(widths):
        begins = widths[block] != widths.get(block - 1)
        stage, within = (stage + 1, 0) if begins else (stage, within + 1)
        places[block] = stage, within
    return {_timms_name(key, arrays, places): array for key, array in arrays.items()}


def _timms_name(key: str, arrays: Mapping[str, NDArray[Any]], places: Mapping[int, tuple[int, int]]) -> str:
    first, _, rest = key.partition(".")
    if first != "_blocks":
        return f"{_TOP.get(first, first)}.{rest}"
    number, part, rest = rest.split(".")
    parts = _EXPANDED if f"_blocks.{number}._expand_conv.weight" in arrays else _SEPARABLE
    stage, within = places[int(number)]
    return f"blocks.{stage}.{within}.{parts.get(part, part)}.{rest}"
