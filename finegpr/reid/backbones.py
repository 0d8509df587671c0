"""The networks that a re-ID model can be built on.

A new one is a function that builds it and a line in MODELS; any of timm's goes by ``timm/NAME``. Networks are imported
where they are built, because settings name models and are read without torch, those of timm's excepted.
"""

from collections.abc import Callable, Mapping
from functools import partial
from typing import TYPE_CHECKING

from finegpr.errors import did_you_mean
from finegpr.reid.architecture import Architecture
from finegpr.weights import TIMM

if TYPE_CHECKING:
    from torch import nn


def find_architecture(model: str) -> Architecture:
    """One of MODELS, or of timm's networks. Raises ValueError for any other name, saying the nearest."""
    if model.startswith(TIMM):
        from finegpr.reid.timm_networks import of_timm

        return of_timm(model.removeprefix(TIMM))
    if model not in MODELS:
        known = f"known models: {', '.join(MODELS)}, and {TIMM}NAME for any of timm"
        raise ValueError(f"no model {model!r}; {did_you_mean(model, MODELS, otherwise=known)}")
    return MODELS[model]


def _at_least(least: int) -> Callable[[int, int], None]:
    def require_size(height: int, width: int) -> None:  # noqa: ARG001 (any width will do)
        if height < least:
            raise ValueError(f"needs a height of at least {least}, got {height}")

    return require_size


def _small() -> "nn.Module":
    from finegpr.reid.small import SmallNet

    return SmallNet()


def _lite() -> "nn.Module":
    from finegpr.reid.lite import LiteNet

    return LiteNet()


def _resnet(name: str) -> "nn.Module":
    from torch import nn
    from torchvision import models

    network: nn.Module = models.get_model(name, weights=None)
    network.fc = nn.Identity()
    return network


MODELS: Mapping[str, Architecture] = {
    "small": Architecture(build=_small, dimension=512, require_size=_at_least(64)),
    "efficientnet_lite0": Architecture(build=_lite, dimension=320, require_size=_at_least(64), own="neck."),
    "resnet18": Architecture(build=partial(_resnet, "resnet18"), dimension=512, require_size=_at_least(16)),
    "resnet50": Architecture(build=partial(_resnet, "resnet50"), dimension=2048, require_size=_at_least(16)),
}
