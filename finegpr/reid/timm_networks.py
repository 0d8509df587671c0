"""Any network of timm as a backbone: ``model: timm/NAME``. Without a file of weights it begins at random ones."""

from functools import lru_cache, partial
from typing import Any

import timm
import torch
from torch import nn

from finegpr.errors import did_you_mean
from finegpr.reid.architecture import Architecture


@lru_cache
def of_timm(name: str) -> Architecture:
    """timm's network of this name. Raises ValueError, with the nearest name, for another."""
    if name not in (known := timm.list_models()):
        near = did_you_mean(name, known, otherwise="`timm.list_models()` in Python lists all")
        raise ValueError(f"timm {timm.__version__} has no network {name!r}; {near}")
    network: Any = _shape_of(name)
    dimension = int(getattr(network, "head_hidden_size", None) or network.num_features)
    return Architecture(build=partial(_build, name), dimension=dimension, require_size=partial(_require_size, name))


def _build(name: str) -> nn.Module:
    network: nn.Module = timm.create_model(name, pretrained=False, num_classes=0)
    return network


@lru_cache(maxsize=4)
def _shape_of(name: str) -> nn.Module:
    """The network without numbers: no memory, no draw from the global random state."""
    with torch.device("meta"):
        return _build(name).eval()


def _require_size(name: str, height: int, width: int) -> None:
    """Raises ValueError where the network does not make one vector of an image of that size: it is tried."""
    size, dimension = f"{height}x{width}", of_timm(name).dimension
    try:
        with torch.inference_mode():
            found = tuple(_shape_of(name)(torch.empty((2, 3, height, width), device="meta")).shape)
    except (AssertionError, IndexError, RuntimeError, ValueError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise ValueError(f"takes no images of {size} ({reason}); choose another size") from None
    if found != (2, dimension):
        raise ValueError(f"makes {found[1:]} of an image of {size}, expected {dimension} pooled features")
