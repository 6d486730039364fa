"""How frames that follow another are run: the networks of `lite_inter.py`, laid out for speed.

All is channels last: `cells` are float32 [h/4, w/4, 96], latents rows [h/8 * w/8, 384] of blocks.
What a rate position scales is folded into weights; branches run in bfloat16 where the processor
multiplies it, else in float32. DCT, prediction and sums stay float32.
"""

from __future__ import annotations

import functools
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...kernels import motion
from ..image.light_model import MAIN, Modulation, interpolate
from ..transforms.conv import Conv2d, ResidualBlock
from .lite_blocks import CELL, LATENTS, MIDDLE
from .lite_frozen import FrozenInter
from .lite_inter import CHANNELS

_LAST = torch.channels_last


class Shown(NamedTuple):
    """A decoded frame, and what the next one is made from.

    Attributes:
        y: luma, float32 [1, H, W] in [0, 1].
        uv: float32 [2, H/2, W/2].
        memory: float32 [CHANNELS, H/8, W/8].
        q: the integers, int16 [1, LATENTS, H/16, W/16].
    """

    y: Tensor
    uv: Tensor
    memory: Tensor
    q: Tensor


def after_intra(x_hat: Tensor) -> Shown:
    """What follows a frame [1, 6, h, w] that stands alone."""
    h, w = x_hat.shape[2:]
    y = F.pixel_shuffle(x_hat[:, :4], 2)[0].contiguous()
    memory = torch.zeros(CHANNELS, h // 4, w // 4)
    q = torch.zeros(1, LATENTS, h // 8, w // 8, dtype=torch.int16)
    return Shown(y, x_hat[0, 4:].contiguous(), memory, q)


@functools.cache
def branch_type() -> torch.dtype:
    """What branches are computed in."""
    has = torch.cpu.get_capabilities()
    return torch.bfloat16 if has.get("avx512_bf16") or has.get("amx_bf16") else torch.float32


class _Conv:
    """A convolution, modulated for one rate position."""

    def __init__(
        self, layer: Conv2d, modulation: Modulation | None = None, t: Tensor | None = None
    ) -> None:
        weight, bias = layer.weight.view(layer.shape), layer.bias + 0
        if modulation is not None and t is not None:
            scale, offset = (
                interpolate(table, t).flatten() for table in (modulation.scale, modulation.offset)
            )
            weight, bias = weight * scale[:, None, None, None], bias * scale + offset
        kind = branch_type()
        self._weight = weight.to(kind).contiguous(memory_format=_LAST)
        self._bias = bias.to(kind)
        self._stride, self._padding = layer.stride, layer.shape[2] // 2

    def __call__(self, x: Tensor) -> Tensor:
        return F.conv2d(x, self._weight, self._bias, self._stride, self._padding)

    def active(self, x: Tensor) -> Tensor:
        """With the leaky ReLU behind it."""
        return F.leaky_relu_(self(x), 0.1)


class _Blocks:
    """Residual blocks."""

    def __init__(self, *blocks: ResidualBlock) -> None:
        self._layers = [(_Conv(block.first), _Conv(block.second)) for block in blocks]

    def __call__(self, x: Tensor) -> Tensor:
        for first, second in self._layers:
            x = second(first.active(x)).add_(x)
        return x


class Networks:
    """The networks at one rate position."""

    def __init__(self, net: FrozenInter, position: int) -> None:
        """Fold the rate position into the weights."""
        t = torch.tensor([position / 64])
        self.up, self.down = (f(t).flatten() for f in (net.gains.up, net.gains.down))
        order = _cell_order()
        self._dct = net.transform.forward_matrix[:, order].contiguous()
        self._inverse = net.transform.inverse_matrix[order].contiguous()
        trunk, means, g_a, filter = net.trunk, net.means, net.g_a, net.filter
        self._trunk = _Conv(trunk.head, trunk.modulation, t), _Blocks(trunk.block)
        self._context, self._tail = _Conv(means.context), _Conv(means.tail)
        self._hyper = _Conv(_layer(means.hyper, 0)), _Conv(_layer(means.hyper, 2))
        self._scale, self._offset = (
            interpolate(table, t).to(branch_type())
            for table in (means.modulation.scale, means.modulation.offset)
        )
        self._filter = _Conv(filter.head, filter.modulation, t), _Blocks(*filter.blocks)
        self._last = _Conv(filter.tail)
        self._g_a = _Conv(g_a.head, g_a.modulation, t), _Blocks(*g_a.blocks), _Conv(g_a.tail)
        self._h_a = [_Conv(_layer(net.h_a, i)) for i in (0, 2, 4)]

    def dct(self, cells: Tensor) -> Tensor:
        """Cells -> latents [N, LATENTS], without gains."""
        h, w, _ = cells.shape
        blocks = cells.view(h // 2, 2, w // 2, 2, CELL).transpose(1, 2)
        return _product(blocks.reshape(-1, LATENTS), self._dct)

    def inverse(self, latents: Tensor, h: int, w: int) -> Tensor:
        """The mirror of `dct`: cells [h, w, CELL]."""
        blocks = _product(latents, self._inverse).view(h // 2, w // 2, 2, 2, CELL)
        return blocks.transpose(1, 2).reshape(h, w, CELL)

    def trunk(self, cells: Tensor, memory: Tensor) -> Tensor:
        """Prediction and memory [CHANNELS, h, w], both moved -> features c, channels last."""
        head, block = self._trunk
        return block(head.active(_gather(cells, memory.permute(1, 2, 0))))

    def means(self, c: Tensor, z: Tensor, predicted: Tensor) -> Tensor:
        """Features, z and the DCT of the prediction -> means [N, LATENTS]."""
        first, second = self._hyper
        side = z.to(branch_type()).contiguous(memory_format=_LAST)
        x = self._context(c) + F.pixel_shuffle(second(first.active(side)), 2)
        x = F.leaky_relu_(x * self._scale + self._offset, 0.1)
        share, delta = _rows(self._tail(x)).float().chunk(2, 1)
        mu = predicted.clone()
        mu[:, :MAIN].addcmul_(predicted[:, :MAIN], share, value=-1).add_(delta)
        return mu

    def filter(self, cells: Tensor, p: Tensor, c: Tensor) -> tuple[Tensor, Tensor]:
        """What is decoded, the prediction, features -> cells of the picture, memory."""
        head, blocks = self._filter
        x = blocks(head.active(_gather(cells, (cells - p) * 4, _cells(c))))
        return cells + _cells(self._last(x)), x[0].float().contiguous()

    def analyse(self, cells: Tensor, p: Tensor, c: Tensor) -> Tensor:
        """g_a: latents [N, LATENTS] of a picture with this prediction, without gains."""
        head, blocks, tail = self._g_a
        y = self.dct(cells)
        y[:, :MAIN] += _rows(tail(blocks(head.active(_gather((cells - p) * 4, _cells(c))))))
        return y

    def side(self, y: Tensor, predicted: Tensor, h: int, w: int) -> Tensor:
        """h_a: z before it is rounded, float32 [1, channels, h / 2, w / 2]."""
        first, second, third = self._h_a
        inputs = torch.cat((predicted[:, :MAIN].asinh(), (y - predicted).asinh().abs()), 1)
        x = inputs.to(branch_type()).view(1, h, w, -1).permute(0, 3, 1, 2)
        return third(second.active(first.active(x))).float().contiguous()


@functools.lru_cache(maxsize=8)
def networks(net: FrozenInter, position: int) -> Networks:
    """The networks at a rate position; those used last are kept."""
    return Networks(net, position)


def move(before: Shown, vectors: Tensor) -> tuple[Tensor, Tensor]:
    """Prediction less MIDDLE as cells, and memory [CHANNELS, h, w], by a field [1, h, w, 2]."""
    field = motion.Field(vectors[0].numpy())
    y, uv, memory = (
        torch.from_numpy(motion.warp_float([x.numpy()], field, scale))
        for x, scale in ((before.y, 1), (before.uv, 2), (before.memory, 8))
    )
    return to_cells(y, uv), memory


def to_cells(y: Tensor, uv: Tensor) -> Tensor:
    """Luma [1, H, W] and chroma [2, H/2, W/2], less MIDDLE -> cells [H/8, W/8, CELL]."""
    h, w = y.shape[1] // 8, y.shape[2] // 8
    cells = torch.empty(h, w, 6, 4, 4)
    luma = y.view(h, 4, 2, w, 4, 2).permute(0, 3, 2, 5, 1, 4)
    cells[:, :, :4].view(h, w, 2, 2, 4, 4).copy_(luma)
    cells[:, :, 4:].copy_(uv.view(2, h, 4, w, 4).permute(1, 3, 0, 2, 4))
    return cells.view(h, w, CELL).sub_(MIDDLE)


def to_picture(cells: Tensor) -> tuple[Tensor, Tensor]:
    """The mirror of `to_cells`, within [0, 1]."""
    h, w, _ = cells.shape
    parts = (cells + MIDDLE).clamp_(0, 1).view(h, w, 6, 4, 4)
    luma = parts[:, :, :4].view(h, w, 2, 2, 4, 4).permute(0, 4, 2, 1, 5, 3)
    chroma = parts[:, :, 4:].permute(2, 0, 3, 1, 4)
    return luma.reshape(1, 8 * h, 8 * w), chroma.reshape(2, 4 * h, 4 * w)


def to_rows(x: Tensor) -> Tensor:
    """[1, C, h, w] -> float32 [h * w, C]."""
    return x[0].flatten(1).t().float()


def to_planes(rows: Tensor, h: int, w: int) -> Tensor:
    """The mirror of `to_rows`."""
    return rows.t().reshape(1, -1, h, w)


def _cell_order() -> Tensor:
    """Where `pixel_unshuffle(8)` has the numbers of a block of 2 x 2 cells, int64 [384]."""
    block = torch.arange(LATENTS).view(6, 2, 4, 2, 4)
    return block.permute(1, 3, 0, 2, 4).flatten()


def _product(x: Tensor, matrix: Tensor) -> Tensor:
    """float32 [N, K] with a matrix [M, K] -> [N, M]; by oneDNN, which is twice as fast as MKL."""
    if torch.backends.mkldnn.enabled and hasattr(torch.ops.mkldnn, "_linear_pointwise"):
        y: Tensor = torch.ops.mkldnn._linear_pointwise(x, matrix, None, "none", [], "")
        return y
    return F.linear(x, matrix)


def _gather(*parts: Tensor) -> Tensor:
    """Arrays [h, w, C] side by side, as the input of a branch."""
    h, w, _ = parts[0].shape
    x = torch.empty(1, h, w, sum(part.shape[2] for part in parts), dtype=branch_type())
    start = 0
    for part in parts:
        x[0, ..., start : start + part.shape[2]].copy_(part)
        start += part.shape[2]
    return x.permute(0, 3, 1, 2)


def _cells(x: Tensor) -> Tensor:
    """Channels last [1, C, h, w] -> [h, w, C]."""
    return x[0].permute(1, 2, 0)


def _rows(x: Tensor) -> Tensor:
    """Channels last [1, C, h, w] -> [h * w, C]."""
    return _cells(x).flatten(0, 1)


def _layer(layers: nn.Sequential, index: int) -> Conv2d:
    layer = layers[index]
    assert isinstance(layer, Conv2d)
    return layer
