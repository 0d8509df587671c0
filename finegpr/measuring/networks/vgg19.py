"""VGG-19 up to relu5_1: the network of the paper, and what makes a file one of a VGG-19."""

from collections.abc import Callable, Iterator, Mapping, Sequence

import torch
from torch import Tensor, nn

from finegpr.device import Precision
from finegpr.errors import InputError
from finegpr.measuring.networks.base import Extractor, LoadedWeights, he_initialised
from finegpr.measuring.networks.terms import VGG19_TERMS
from finegpr.perceptual import content_vector, style_vector
from finegpr.weights import Weights, fitting, read_state, wrapped

_LAYERS = {1: "relu1_1", 6: "relu2_1", 11: "relu3_1", 20: "relu4_1", 22: "relu4_2", 29: "relu5_1"}
_DEPTH = max(_LAYERS) + 1
_CONTENT = "relu4_2"


class VGG19(Extractor):
    """Terms as in AOST: Gram matrices of relu1_1 to relu5_1, and the map of relu4_2. Sides must be at least 16."""

    def __init__(self, weights: LoadedWeights, precision: Precision = "float32") -> None:
        statistics = {name: (name, style_vector) for name in VGG19_TERMS.style}
        super().__init__(VGG19_TERMS, statistics | dict.fromkeys(VGG19_TERMS.content, (_CONTENT, content_vector)))
        self.features = _empty_features(widths=_widths(weights.state))
        self.features.load_state_dict(weights.state, assign=True)
        self.freeze(precision)

    def layers(self) -> Iterator[tuple[str | None, Callable[[Tensor], Tensor]]]:
        return ((_LAYERS.get(index), layer) for index, layer in enumerate(self.features))


def load(weights: Weights) -> LoadedWeights:
    """As ``load_network``: the 13 convolutions up to relu5_1, by torchvision's names.

    A file holds these names; later layers and the classifier may be there or not.
    """
    state = (
        he_initialised(_empty_features().state_dict(), weights.seed or 0) if weights.path is None else _read(weights)
    )
    return LoadedWeights(**vars(weights), state=state)


def _read(weights: Weights) -> dict[str, Tensor]:
    arrays, path = read_state(weights), weights.path
    expected = {key: tuple(value.shape) for key, value in _empty_features(full=True).state_dict().items()}
    needed = _empty_features().state_dict().keys()
    found = {key.removeprefix("features."): array for key, array in arrays.items() if key.startswith("features.")}
    wrong = sorted(needed - found.keys()) or sorted(found.keys() - expected.keys())
    if wrong:
        why = wrapped(arrays, {f"features.{key}" for key in needed})
        raise InputError(
            f"{path} is not a VGG-19: parameter features.{wrong[0]} is "
            f"{'missing' if wrong[0] in needed else 'not part of one'}{why}; `aost weights vgg19` says how to bring one"
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
