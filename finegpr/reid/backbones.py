"""The networks that a re-ID model can be built on.

A new one is a function that builds it and a line in MODELS. Networks are imported where they are built, because
settings name models and are read without torch.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import nn


@dataclass(frozen=True, kw_only=True)
class Architecture:
    """``build()`` returns the network up to its pooled features, ``dimension`` wide, of random parameters."""

    build: "Callable[[], nn.Module]"
    dimension: int
    min_height: int


def _small() -> "nn.Module":
    from finegpr.reid.small import SmallNet

    return SmallNet()


def _resnet(name: str) -> "nn.Module":
    from torch import nn
    from torchvision import models

    network: nn.Module = models.get_model(name, weights=None)
    network.fc = nn.Identity()
    return network


MODELS: Mapping[str, Architecture] = {
    "small": Architecture(build=_small, dimension=512, min_height=64),
    "resnet18": Architecture(build=partial(_resnet, "resnet18"), dimension=512, min_height=16),
    "resnet50": Architecture(build=partial(_resnet, "resnet50"), dimension=2048, min_height=16),
}
