"""A network of convolutions as it is measured with: the same function in fewer operations, frozen."""

import copy

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils import fuse_conv_bn_eval


class StridedSame(nn.Conv2d):
    """TensorFlow's "SAME" convolution of stride 2, of odd kernels, without a padded copy of its input.

    That padding is one row and column less before the image than after it where a side is even, which ``conv2d`` cannot
    do. Here the kernel has a row and a column of zeros before its own, and the padding before is one more: the same
    sums, and what is more than enough after the image is not reached.
    """

    def __init__(self, conv: nn.Conv2d) -> None:
        rows, columns = conv.kernel_size
        wider = (rows + 1, columns + 1)
        super().__init__(conv.in_channels, conv.out_channels, wider, stride=2, groups=conv.groups, device="meta")
        self.weight = nn.Parameter(functional.pad(conv.weight.detach(), (1, 0, 1, 0)))
        self.bias = conv.bias

    def forward(self, input: Tensor) -> Tensor:
        height, width = input.shape[-2:]
        rows, columns = self.kernel_size
        padding = ((rows - 1) // 2 + height % 2, (columns - 1) // 2 + width % 2)
        return functional.conv2d(input, self.weight, self.bias, self.stride, padding, groups=self.groups)


def folded(network: nn.Module) -> nn.Module:
    """A frozen copy in evaluation mode whose parameters are channels last; what it computes is the same.

    Batch norms, those of timm with their activations, are folded into the convolutions before them; timm's strided
    convolutions with "SAME" padding become ``StridedSame``.
    """
    from timm.layers.conv2d_same import Conv2dSame

    network = copy.deepcopy(network).eval().requires_grad_(False)
    for module in list(network.modules()):
        before = ""
        for name, child in list(module.named_children()):
            if before and isinstance(child, nn.BatchNorm2d):
                setattr(module, before, fuse_conv_bn_eval(getattr(module, before), child))
                setattr(module, name, getattr(child, "act", nn.Identity()))
            before = name if isinstance(child, nn.Conv2d) else ""
    for module in list(network.modules()):
        for name, child in list(module.named_children()):
            if isinstance(child, Conv2dSame):
                setattr(module, name, StridedSame(child))
    return network.requires_grad_(False).to(memory_format=torch.channels_last)
