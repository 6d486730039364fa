"""The transforms g_a and g_s of CompressAI models, the same functions, in less time on a CPU.

Layers work on channels_last tensors, for which convolutions are faster; divisive normalisation
runs over blocks that stay in the cache; the last transposed convolution, to few channels, becomes
a convolution to four times as many, shuffled. Results differ in the last bits only. They are
values: no table row depends on them.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from compressai.layers import GDN
from torch import Tensor, nn

_BLOCK = 1024  # pixels
_FEW = 8  # channels below which a transposed convolution wastes most of its lanes


def accelerate(transform: nn.Module) -> None:
    """Replace layers of g_a or g_s, frozen, in place."""
    _replace(transform)
    transform.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    transform.register_forward_pre_hook(lambda _, args: (_channels_last(args[0]), *args[1:]))
    # What follows sees the layout that it would see otherwise.
    transform.register_forward_hook(lambda _, __, out: out.contiguous())


def _replace(parent: nn.Module) -> None:
    for name, child in parent.named_children():
        if type(child) is GDN:
            setattr(parent, name, _Normalisation(child))
        elif type(child) is nn.ConvTranspose2d and _doubles(child) and child.out_channels <= _FEW:
            setattr(parent, name, _Doubling(child))
        else:
            _replace(child)


def _channels_last(x: Tensor) -> Tensor:
    return x.contiguous(memory_format=torch.channels_last)


def _doubles(layer: nn.ConvTranspose2d) -> bool:
    plain = layer.groups == 1 and layer.dilation == (1, 1) and layer.padding_mode == "zeros"
    size = layer.kernel_size, layer.stride, layer.padding, layer.output_padding
    return plain and size == ((5, 5), (2, 2), (2, 2), (1, 1))


class _Normalisation(nn.Module):
    """Generalised divisive normalisation: x / sqrt(beta + gamma x^2), or times that root.

    Balle et al., "Density Modeling of Images Using a Generalized Normalization Transformation",
    ICLR 2016.
    """

    def __init__(self, layer: Any) -> None:
        super().__init__()
        self.inverse = bool(layer.inverse)
        self.beta = layer.beta_reparam(layer.beta)
        self.gamma = layer.gamma_reparam(layer.gamma).t().contiguous()

    def forward(self, x: Tensor) -> Tensor:
        """Float [B, C, H, W] -> the same shape, channels_last."""
        pixels = _channels_last(x).permute(0, 2, 3, 1)
        flat = pixels.reshape(-1, x.shape[1])
        out = torch.empty_like(flat)
        for at in range(0, len(flat), _BLOCK):
            part = flat[at : at + _BLOCK]
            norm = torch.addmm(self.beta, part * part, self.gamma)
            norm = norm.sqrt_() if self.inverse else norm.rsqrt_()
            torch.mul(norm, part, out=out[at : at + _BLOCK])
        return out.view(pixels.shape).permute(0, 3, 1, 2)


class _Doubling(nn.Module):
    """A 5 x 5 transposed convolution of stride 2: one 3 x 3 convolution for each of four phases.

    Pixel 2 i + a takes tap k of its kernel from place i + (a + 2 - k) / 2.
    """

    def __init__(self, layer: nn.ConvTranspose2d) -> None:
        super().__init__()
        weight = torch.zeros(layer.out_channels, 2, 2, layer.in_channels, 3, 3)
        taps = [(k % 2, k, (k % 2 + 2 - k) // 2 + 1) for k in range(5)]
        for a, k, row in taps:
            for b, m, column in taps:
                weight[:, a, b, :, row, column] = layer.weight[:, :, k, m].t()
        self.weight = nn.Parameter(weight.flatten(0, 2), requires_grad=False)
        bias = torch.zeros(layer.out_channels) if layer.bias is None else layer.bias
        self.bias = nn.Parameter(bias.detach().repeat_interleave(4), requires_grad=False)

    def forward(self, x: Tensor) -> Tensor:
        """Float [B, C, H, W] -> [B, D, 2 H, 2 W]."""
        return F.pixel_shuffle(F.conv2d(x, self.weight, self.bias, padding=1), 2)
