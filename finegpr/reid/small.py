"""The model ``small``: a re-ID network for small images on a CPU."""

from itertools import pairwise

import torch
from torch import Tensor, nn


class Stripes(nn.Module):
    """Mean of each of four horizontal stripes, side by side: (n, C, h, w) with h >= 4 to (n, 4 C)."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([stripe.mean(dim=(2, 3)) for stripe in x.tensor_split(4, dim=2)], dim=1)


class SmallNet(nn.Sequential):
    """Four strided 3x3 convolutions for small images on a CPU: (n, 3, H, W), H >= 64, to (n, 512).

    Batch normalisation as in a ResNet, so that the choice of training images shows as it does there: normalising
    each image by itself would take out the light that the choice is about. Stripes keep what is above apart from
    what is below (Sun et al. 2018).
    """

    def __init__(self) -> None:
        blocks: list[nn.Module] = []
        for before, after in pairwise((3, 16, 32, 64, 128)):
            blocks += [
                nn.Conv2d(before, after, 3, stride=2, padding=1, bias=False),
                nn.BatchNorm2d(after),
                nn.ReLU(),
            ]
        super().__init__(*blocks, Stripes())
