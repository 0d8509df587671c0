"""The network: pixels to embeddings, and what makes a file the first weights of its backbone."""

import torch
from torch import Tensor, nn

from finegpr.reid.backbones import find_architecture
from finegpr.weights import Weights, fitted, read_state

_MEAN = (0.485, 0.456, 0.406)
_STD = (0.229, 0.224, 0.225)


class Embedder(nn.Module):
    """uint8 images (n, 3, H, W) to embeddings (n, dimension), the pooled features; ``size`` is its (height, width)."""

    mean: Tensor
    std: Tensor

    def __init__(self, *, model: str, size: tuple[int, int]) -> None:
        super().__init__()
        architecture = find_architecture(model)
        self.model, self.size, self.dimension = model, size, architecture.dimension
        self.backbone = architecture.build()
        self.register_buffer("mean", torch.tensor(_MEAN).view(1, 3, 1, 1) * 255, persistent=False)
        self.register_buffer("std", torch.tensor(_STD).view(1, 3, 1, 1) * 255, persistent=False)

    def forward(self, images: Tensor) -> Tensor:
        features: Tensor = self.backbone((images.float() - self.mean) / self.std)
        return features


def load_weights(weights: Weights) -> dict[str, Tensor] | None:
    """The checked first parameters of a backbone; None for random ones, which are those it is built with.

    A file holds torchvision's or timm's names, or is a checkpoint of this program; what the architecture calls its own
    may be missing there, and is then missing here. Raises InputError when it holds another net's weights, StateError
    when it has changed.
    """
    if weights.path is None:
        return None
    model = weights.network
    arrays, architecture = read_state(weights), find_architecture(model)
    prefix = "backbone." if any(key.startswith("backbone.") for key in arrays) else ""
    with torch.device("meta"):  # shapes only: no memory, no draw from the global random state
        expected = architecture.build().state_dict()
    own = {key for key in expected if architecture.own and key.startswith(architecture.own)}
    found = fitted(
        weights,
        arrays,
        {
            key: (tuple(value.shape), not value.is_floating_point())
            for key, value in expected.items()
            if key not in own or prefix + key in arrays
        },
        what=f"a {model}",
        advice=f"choose the weights of a {model}, or weights: random",
        prefix=prefix,
        named=expected.keys() - own,
    )
    return {key: torch.from_numpy(values) for key, values in found.items()}
