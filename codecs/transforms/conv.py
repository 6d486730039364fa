"""Dense convolutions for CPUs: weights kept as matrices, blocks of 3x3 with a skip."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Conv2d(nn.Module):
    """2-D convolution, zero padding of `kernel_size // 2`, whose weight is stored as a matrix.

    A matrix [out, in * k * k] is what second-order optimisers (Muon) and the integer path
    (unfold + matmul) take. Dense 3x3 at low resolution is what CPUs do fastest.
    """

    def __init__(
        self, inputs: int, outputs: int, kernel_size: int = 3, stride: int = 1, zero: bool = False
    ) -> None:
        """Make the layer; `zero` starts it at zero (for branches that begin as nothing)."""
        super().__init__()
        self.shape = (outputs, inputs, kernel_size, kernel_size)
        self.stride = stride
        fan_in = inputs * kernel_size**2
        weight = torch.zeros(outputs, fan_in) if zero else torch.randn(outputs, fan_in)
        self.weight = nn.Parameter(weight * math.sqrt(1.6 / fan_in))
        self.bias = nn.Parameter(torch.zeros(outputs))

    def forward(self, x: Tensor) -> Tensor:
        """Float [B, in, H, W] -> [B, out, ceil(H / stride), ceil(W / stride)]."""
        weight = self.weight.view(self.shape).to(memory_format=torch.channels_last)
        return F.conv2d(x, weight, self.bias, self.stride, self.shape[2] // 2)


def activate(x: Tensor) -> Tensor:
    """Leaky ReLU: no unit dies under the large steps of an orthogonalising optimiser."""
    return F.leaky_relu(x, 0.1)


class ResidualBlock(nn.Module):
    """`x + conv(activate(conv(x)))` with 3x3 convolutions; the second one starts at zero."""

    def __init__(self, channels: int) -> None:
        """Make a block of `channels` channels."""
        super().__init__()
        self.first = Conv2d(channels, channels)
        self.second = Conv2d(channels, channels, zero=True)

    def forward(self, x: Tensor) -> Tensor:
        """Float [B, C, H, W] -> the same shape."""
        out: Tensor = x + self.second(activate(self.first(x)))
        return out
