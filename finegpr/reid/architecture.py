"""What is known of a re-ID backbone before it is built."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import nn


@dataclass(frozen=True, kw_only=True)
class Architecture:
    """``build()`` returns the network up to its pooled features, ``dimension`` wide, of random parameters.

    ``require_size(height, width)`` raises ValueError for images that it does not take; the message goes on after the
    model's name. Parameters whose names begin with ``own``, where it is not "", are in no file of ImageNet weights and
    stay as they are built.
    """

    build: "Callable[[], nn.Module]"
    dimension: int
    require_size: Callable[[int, int], None]
    own: str = ""
