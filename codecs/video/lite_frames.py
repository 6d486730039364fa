"""Frames of `video/lite` to integers and back.

`parse_*` is the portable half of decoding: a stream -> integers, through integers only; a whole
group of pictures can be parsed before any picture is made. `show_*` turns integers into pictures
and may float. `code_*` is the encoder's: it chooses integers, puts them into a stream, and shows
what the decoder will show. Sides are multiples of 32 luma samples here, batches have one picture.
"""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from ...entropy.coder import Decoder, Encoder
from ...kernels.errors import BitstreamError
from ..image.light_frozen import RowTables
from ..image.light_model import MAIN, Z_LIMIT, anchor_mask
from .lite_blocks import MIDDLE
from .lite_frozen import FrozenIntra, FrozenLite
from .lite_inter import field_integers
from .lite_run import (
    Networks,
    Shown,
    after_intra,
    move,
    networks,
    to_picture,
    to_planes,
    to_rows,
)


class Integers(NamedTuple):
    """What the stream says of a frame.

    Attributes:
        z: side information, int8 [1, channels, h/2, w/2].
        q: residuals of the latents, int16 [1, LATENTS, h, w].
    """

    z: Tensor
    q: Tensor


def position_tensor(position: int) -> Tensor:
    """A rate position in levels, as the networks take it."""
    return torch.tensor([position / 64])


def parse_intra(model: FrozenLite, decoder: Decoder, h: int, w: int, position: int) -> Integers:
    """The integers of a frame that stands alone, with h x w blocks.

    Raises:
        BitstreamError: the bytes are not a stream of such integers.
    """
    h_s = model.intra.h_s
    z = _get_z(h_s, decoder, h, w, position)
    rows = h_s(z, position)
    return Integers(z, decoder.get(rows.flatten()).view(rows.shape))


def parse_inter(
    model: FrozenLite, decoder: Decoder, last: Tensor, vectors: Tensor, position: int
) -> Integers:
    """The integers of a frame that follows another.

    Args:
        model: networks and tables.
        decoder: of the stream.
        last: q of the frame before; zeros behind a frame that stands alone.
        vectors: int16 [1, 2 h, 2 w, 2], the field.
        position: of the rate.

    Raises:
        BitstreamError: the bytes are not a stream of such integers.
    """
    rows, (h, w) = model.inter.rows, last.shape[2:]
    z = _get_z(rows, decoder, h, w, position)
    features = rows.features(z, last, field_integers(vectors).round().to(torch.int8))
    q = torch.zeros(last.shape, dtype=torch.int16)
    _fill(q, _FIRST, decoder.get(_taken(rows.of_first(features, position), _FIRST)))
    _fill(q, _SECOND, decoder.get(_taken(rows.of_second(features, q, position), _SECOND)))
    return Integers(z, q)


def show_intra(model: FrozenLite, integers: Integers, position: int) -> Shown:
    """The picture of a frame that stands alone."""
    net, t = model.intra, position_tensor(position)
    means = _IntraMeans(net, integers.z, t)
    anchors = anchor_mask(*integers.q.shape[2:])
    mu = torch.where(anchors, means.of_anchors, means.of_rest(integers.q))
    x_hat = net.g_s((integers.q + mu) * net.gains.down(t), t) + MIDDLE
    return after_intra(x_hat.clamp(0, 1))


def show_inter(
    model: FrozenLite, before: Shown, vectors: Tensor, integers: Integers, position: int
) -> Shown:
    """The picture of a frame that follows another."""
    view = _InterView(networks(model.inter, position), before, vectors)
    return view.show(integers, view.means(integers.z))


def code_intra(
    model: FrozenLite, encoder: Encoder, luma: Tensor, chroma: Tensor, position: int
) -> Integers:
    """Choose the integers of a picture and put them into a stream.

    Args:
        model: networks and tables.
        encoder: of the stream.
        luma: [1, H, W] in [0, 1].
        chroma: U and V, [2, H/2, W/2].
        position: of the rate.
    """
    net, t = model.intra, position_tensor(position)
    x = torch.cat((F.pixel_unshuffle(luma, 2), chroma))[None]
    y = net.g_a(x - MIDDLE, t) * net.gains.up(t)
    squashed = torch.asinh(y)
    side = net.h_a(torch.cat((squashed[:, :MAIN], squashed.abs()), 1))
    z = _put_z(net.h_s, encoder, side, position)
    means = _IntraMeans(net, z, t)
    anchors = anchor_mask(y.shape[2], y.shape[3])
    rows = net.h_s(z, position)
    factor = model.dead_zone[rows.int()]
    q = _residual(y - means.of_anchors, factor)
    q = torch.where(anchors, q, _residual(y - means.of_rest(q), factor))
    encoder.put(q.flatten(), rows.flatten())
    return Integers(z, q)


def code_inter(
    model: FrozenLite,
    encoder: Encoder,
    cells: Tensor,
    before: Shown,
    vectors: Tensor,
    position: int,
) -> Shown:
    """Choose the integers of a frame, cells as `to_cells` makes them; returns what they show."""
    tables, h, w = model.inter.rows, cells.shape[0] // 2, cells.shape[1] // 2
    net = networks(model.inter, position)
    view = _InterView(net, before, vectors)
    y = net.analyse(cells, view.p, view.c) * net.up
    z = _put_z(tables, encoder, net.side(y, view.predicted, h, w), position)
    mu = view.means(z)
    residual = to_planes(y - mu, h, w)
    features = tables.features(z, before.q, field_integers(vectors).round().to(torch.int8))
    anchors = anchor_mask(h, w).expand(residual.shape)
    rows = tables.of_first(features, position)
    q = _residual(residual, model.dead_zone[rows.int()]) * anchors
    encoder.put(_taken(q, _FIRST), _taken(rows, _FIRST))
    rows = tables.of_second(features, q, position)
    q = torch.where(anchors, q, _residual(residual, model.dead_zone[rows.int()]))
    encoder.put(_taken(q, _SECOND), _taken(rows, _SECOND))
    return view.show(Integers(z, q), mu)


# The halves of the checkerboard, each as two grids of positions: row and column of the first.
_FIRST, _SECOND = ((0, 0), (1, 1)), ((0, 1), (1, 0))


def _taken(x: Tensor, half: tuple[tuple[int, int], ...]) -> Tensor:
    """What lies on a half of the checkerboard of [1, LATENTS, h, w], in the order of the stream."""
    return torch.stack([x[..., row::2, column::2] for row, column in half]).flatten()


def _fill(x: Tensor, half: tuple[tuple[int, int], ...], values: Tensor) -> None:
    """The mirror of `_taken`."""
    for (row, column), part in zip(half, values.chunk(2), strict=True):
        grid = x[..., row::2, column::2]
        grid.copy_(part.view(grid.shape))


class _InterView:
    """What both sides make of the frame before and the field."""

    def __init__(self, net: Networks, before: Shown, vectors: Tensor) -> None:
        self._net = net
        self.p, memory = move(before, vectors)
        self.c = net.trunk(self.p, memory)
        self.predicted = net.dct(self.p) * net.up

    def means(self, z: Tensor) -> Tensor:
        return self._net.means(self.c, z, self.predicted)

    def show(self, integers: Integers, mu: Tensor) -> Shown:
        net, (h, w) = self._net, self.p.shape[:2]
        rough = net.inverse((to_rows(integers.q) + mu) * net.down, h, w)
        cells, memory = net.filter(rough, self.p, self.c)
        return Shown(*to_picture(cells), memory, integers.q)


class _IntraMeans:
    """The two passes of the mean context."""

    def __init__(self, net: FrozenIntra, z: Tensor, t: Tensor) -> None:
        self._means = net.means
        self._features = net.means.features(z.float(), t)
        self.of_anchors = net.means.of_anchors(self._features)

    def of_rest(self, q: Tensor) -> Tensor:
        """Means of the second pass, given the residuals of the first."""
        anchors = anchor_mask(q.shape[2], q.shape[3])
        known = torch.where(anchors, q + self.of_anchors, 0.0)
        return self._means.of_rest(self._features, known)


def _residual(residual: Tensor, factor: Tensor) -> Tensor:
    """Rounded with the dead zone of its row, int16; zero where the table says "not coded"."""
    if not residual.isfinite().all():
        raise ValueError("the latents hold NaN or infinity; the weights or the input are damaged")
    return (residual * factor).round().clamp(-(2**15), 2**15 - 1).to(torch.int16)


def _put_z(tables: RowTables, encoder: Encoder, side: Tensor, position: int) -> Tensor:
    z = side.round().clamp(-Z_LIMIT, Z_LIMIT).to(torch.int8)
    rows = tables.z_rows(position)
    z = z * (rows > 0)[:, None, None]  # what is not coded is zero
    encoder.put(z.flatten().to(torch.int16), rows.repeat_interleave(z.shape[2] * z.shape[3]))
    return z


def _get_z(tables: RowTables, decoder: Decoder, h: int, w: int, position: int) -> Tensor:
    rows = tables.z_rows(position)
    z = decoder.get(rows.repeat_interleave(h // 2 * (w // 2)))
    if z.numel() and z.abs().amax() > Z_LIMIT:
        raise BitstreamError(f"side information exceeds {Z_LIMIT}; the stream is damaged")
    return z.view(1, -1, h // 2, w // 2).to(torch.int8)
