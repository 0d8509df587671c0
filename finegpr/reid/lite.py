"""The model ``efficientnet_lite0``: a pretrained network, cut and pooled for small images on a CPU."""

from typing import Any

import torch
from torch import Tensor, nn

from finegpr import efficientnet
from finegpr.reid.small import Stripes

_NUM_STAGES, _WIDTH = 4, 80  # of seven; with the fifth a step takes half as long again, and trains no better


class LiteNet(nn.Module):
    """The first four stages of EfficientNet-Lite0, by timm's names, four stripes and a norm: (n, 3, H, W) to (n, 320).

    H >= 64 leaves a stripe a row of places. ``neck`` normalises over the batch what both losses see (Luo et al. 2019):
    without it a training at the recipe's rate collapses.
    """

    def __init__(self) -> None:
        super().__init__()
        whole: Any = efficientnet.build("efficientnet_lite0")
        self.conv_stem, self.bn1, self.blocks = whole.conv_stem, whole.bn1, whole.blocks[:_NUM_STAGES]
        self.stripes = Stripes()
        self.neck = nn.BatchNorm1d(4 * _WIDTH)

    def forward(self, images: Tensor) -> Tensor:
        x = images.contiguous(memory_format=torch.channels_last)  # twice as fast on a CPU
        features: Tensor = self.neck(self.stripes(self.blocks(self.bn1(self.conv_stem(x)))))
        return features
