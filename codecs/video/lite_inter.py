"""Networks of frames that follow another in `video/lite`.

    decoded frame, memory --warped by the field--> p, m
    (p, m) -> trunk -> c [1/8 scale]                                          both sides
    x -> DCT + branch(x, c) -> y -> * gain(t) -> (y - mu) rounded -> q, row   the encoder
              y - mu -> h_a -> z
    z, c -> mu = DCT(p) (1 - keep) + delta                                    both sides, float
    z, last q, field -> row of the Gaussian table, of half the positions;     both sides, integers
        with these q -> of the other half
    q + mu -> / gain(t) -> inverse DCT -> + filter(it, c) -> x_hat; its features -> memory

All branches start at zero: as a hybrid codec of motion and DCT. The prior from decoded integers is
the idea of Sun et al., "Spatiotemporal Entropy Model is All You Need for Learned Video Compression"
(2021); memory that runs on beside the pictures that of DCVC (Li et al., 2021, and later).
"""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...entropy.models import gaussian
from ..image.light_model import (
    DEAD_ZONE,
    LEVELS,
    MAIN,
    ROWS_PER_UNIT,
    Z_LIMIT,
    Modulation,
    anchor_mask,
    interpolate,
    pad_means,
    quantise,
)
from ..transforms.conv import Conv2d, ResidualBlock, activate
from ..transforms.integer import ACTIVATION_STEP, QuantConv2d, round_ste
from .lite_blocks import CELL, LATENTS, MIDDLE, BlockTransform, Down, Gains
from .lite_warp import warp_features, warp_planes

CHANNELS = 64  # at 1/8 scale: of trunk, filter and memory
WIDE = 96  # at 1/16 scale
Z_CHANNELS = 16
SIDE = 48  # of each source of the integer path
FIELD_CHANNELS = 4


class Decoded(NamedTuple):
    """What the next frame is made from.

    Attributes:
        x_hat: the picture, [B, 6, h, w], not clamped.
        memory: [B, CHANNELS, h/4, w/4].
        q: the integers, [B, LATENTS, h/8, w/8].
    """

    x_hat: Tensor
    memory: Tensor
    q: Tensor


def field_integers(vectors: Tensor) -> Tensor:
    """What a field says about where changes are, in integers: [B, FIELD_CHANNELS, h/2, w/2].

    Of each 2 x 2 blocks, at most 127: the largest step to the left and to above, the largest
    vector, and how many vectors differ from the first.

    Args:
        vectors: int16 [B, h, w, 2] in quarter samples, h and w even.
    """
    v = vectors.int().permute(0, 3, 1, 2)
    left = (v - torch.cat((v[..., :1], v[..., :-1]), 3)).abs().amax(1, keepdim=True)
    above = (v - torch.cat((v[:, :, :1], v[:, :, :-1]), 2)).abs().amax(1, keepdim=True)
    size = v.abs().amax(1, keepdim=True)
    cells = torch.cat((left, above, size), 1).float()
    largest = F.max_pool2d(cells, 2)
    first = v[:, :, ::2, ::2].repeat_interleave(2, 2).repeat_interleave(2, 3)
    other = (v != first).any(1, keepdim=True).float()
    count = 16 * F.avg_pool2d(other, 2) * 4
    return torch.cat((largest, count), 1).clamp(0, 127)


class Trunk(nn.Module):
    """Prediction and memory to features c: [B, 6, h, w], [B, CHANNELS, h/4, w/4]."""

    def __init__(self) -> None:
        """Make the layers."""
        super().__init__()
        self.head = Conv2d(CELL + CHANNELS, CHANNELS, 1)
        self.modulation = Modulation(CHANNELS)
        self.block = ResidualBlock(CHANNELS)

    def forward(self, p: Tensor, memory: Tensor, t: Tensor) -> Tensor:
        """-> [B, CHANNELS, h/4, w/4]."""
        x = torch.cat((F.pixel_unshuffle(p, 4), memory.to(p)), 1)
        x = activate(self.modulation(self.head(_last(x)), t))
        out: Tensor = self.block(x)
        return out


class Analysis(nn.Module):
    """g_a: what the encoder adds to the DCT of x, of the main latents."""

    def __init__(self) -> None:
        """Start as nothing."""
        super().__init__()
        self.head = Conv2d(CELL + CHANNELS, CHANNELS)
        self.modulation = Modulation(CHANNELS)
        self.blocks = nn.Sequential(*(ResidualBlock(CHANNELS) for _ in range(2)))
        self.tail = Conv2d(CHANNELS, MAIN, 3, stride=2, zero=True)

    def forward(self, x: Tensor, p: Tensor, c: Tensor, t: Tensor) -> Tensor:
        """-> [B, LATENTS, h/8, w/8]; x and p are [B, 6, h, w]."""
        branch = _last(torch.cat((4 * F.pixel_unshuffle(x - p, 4), c.to(x)), 1))
        branch = activate(self.modulation(self.head(branch), t))
        return pad_means(self.tail(self.blocks(branch)).float(), LATENTS)


class Means(nn.Module):
    """What is expected of the latents, from the features c and z."""

    def __init__(self) -> None:
        """Start at the DCT of the prediction."""
        super().__init__()
        self.context = Conv2d(CHANNELS, WIDE, 3, stride=2)
        self.hyper = nn.Sequential(
            Conv2d(Z_CHANNELS, CHANNELS), nn.LeakyReLU(0.1), Conv2d(CHANNELS, 4 * WIDE, 1)
        )
        self.modulation = Modulation(WIDE)
        self.tail = Conv2d(WIDE, 2 * MAIN, 1, zero=True)

    def forward(self, c: Tensor, z_hat: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
        """-> the share of the prediction to leave out, and what to add; [B, LATENTS, h/8, w/8].

        The second is in steps of the quantiser.
        """
        x = self.context(c) + F.pixel_shuffle(self.hyper(z_hat), 2)
        share, delta = self.tail(activate(self.modulation(x, t))).float().chunk(2, 1)
        return pad_means(share, LATENTS), pad_means(delta, LATENTS)


class Rows(nn.Module):
    """Rows of the Gaussian table, from integers alone: z, the last frame's q, the field, anchors.

    `offset` is the row that a level has where these say nothing.
    """

    def __init__(self) -> None:
        """Make the layers."""
        super().__init__()
        unit = ACTIVATION_STEP
        self.of_z = QuantConv2d(Z_CHANNELS, CHANNELS, 3, relu=True, input_step=1.0)
        self.up = QuantConv2d(CHANNELS, 4 * SIDE, 1, True, unit)
        self.of_last = QuantConv2d(MAIN, SIDE, 1, True, 1.0)
        self.hidden = QuantConv2d(2 * SIDE + FIELD_CHANNELS, WIDE, 3, True, unit)
        self.of_anchors = QuantConv2d(MAIN, SIDE, 3, True, 1.0)
        self.mix = QuantConv2d(WIDE + SIDE, WIDE, 1, True, unit)
        self.first = QuantConv2d(WIDE, LATENTS, 1, False, unit)
        self.second = QuantConv2d(WIDE, LATENTS, 1, False, unit)
        self.offset = nn.Parameter(torch.full((LEVELS, LATENTS), 8.0))

    def features(self, z_hat: Tensor, last: Tensor, field: Tensor) -> Tensor:
        """What both halves share: [B, WIDE, h/8, w/8].

        Args:
            z_hat: [B, Z_CHANNELS, h/16, w/16].
            last: q of the last frame.
            field: of `field_integers`.
        """
        side = F.pixel_shuffle(self.up(self.of_z(z_hat)), 2)
        last = self.of_last(magnitudes(last))
        x: Tensor = self.hidden(torch.cat((side, last, field * ACTIVATION_STEP), 1))
        return x

    def of_first(self, features: Tensor, t: Tensor) -> Tensor:
        """Rows of the anchors."""
        rows: Tensor = self.first(features) * ROWS_PER_UNIT + interpolate(self.offset, t)
        return rows

    def of_second(self, features: Tensor, anchors: Tensor, t: Tensor) -> Tensor:
        """Rows of the others; `anchors` is q, zero except at the anchors."""
        near = self.of_anchors(magnitudes(anchors))
        x = self.mix(torch.cat((features, near), 1))
        rows: Tensor = self.second(x) * ROWS_PER_UNIT + interpolate(self.offset, t)
        return rows


def magnitudes(q: Tensor) -> Tensor:
    """Sizes of the main integers as inputs of an int8 layer."""
    return q[:, :MAIN].detach().abs().clamp(0, 127)


class Filter(nn.Module):
    """What is added behind the inverse DCT, and the features that are kept as memory."""

    def __init__(self) -> None:
        """Start as nothing."""
        super().__init__()
        self.head = Conv2d(2 * CELL + CHANNELS, CHANNELS, 1)
        self.modulation = Modulation(CHANNELS)
        self.blocks = nn.Sequential(*(ResidualBlock(CHANNELS) for _ in range(3)))
        self.tail = Conv2d(CHANNELS, CELL, zero=True)

    def forward(self, x: Tensor, p: Tensor, c: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
        """Pictures x and p [B, 6, h, w] -> x_hat, memory."""
        cells = torch.cat((F.pixel_unshuffle(x, 4), 4 * F.pixel_unshuffle(x - p, 4), c.to(x)), 1)
        features = activate(self.modulation(self.head(_last(cells)), t))
        features = self.blocks(features)
        return x + F.pixel_shuffle(self.tail(features).float(), 4), features


class InterModel(nn.Module):
    """All networks of a frame that follows another, in their training form."""

    dead_zone: Tensor

    def __init__(self) -> None:
        """Make a model that starts as a hybrid codec."""
        super().__init__()
        self.transform = BlockTransform()
        self.trunk, self.g_a, self.means = Trunk(), Analysis(), Means()
        self.h_a = Down(MAIN + LATENTS, CHANNELS, CHANNELS, Z_CHANNELS)
        self.rows, self.filter, self.gains = Rows(), Filter(), Gains()
        self.z_row = nn.Parameter(torch.full((LEVELS, Z_CHANNELS), 16.0))
        factors = gaussian.dead_zone(gaussian.freeze(), DEAD_ZONE)
        self.register_buffer("dead_zone", factors, persistent=False)

    def forward(
        self, x: Tensor, before: Decoded, vectors: Tensor, t: Tensor
    ) -> tuple[Decoded, Tensor]:
        """One training pass of one frame, see `IntraModel.forward`.

        Args:
            x: [B, 6, h, w] in [0, 1], h and w multiples of 16.
            before: the last frame.
            vectors: int16 [B, h/4, w/4, 2], the field.
            t: rate positions [B].

        Returns:
            The decoded frame, and the estimated bits of each, without those of the field, [B].
        """
        x = x - MIDDLE
        p = predict(before, vectors) - MIDDLE
        c = self.trunk(p, warp_features(before.memory, vectors), t)
        up, down = self.gains.up(t), self.gains.down(t)
        predicted = self.transform(p) * up
        y = (self.transform(x) + self.g_a(x, p, c, t)) * up
        squashed = torch.asinh(y - predicted)
        inputs = torch.cat((torch.asinh(predicted[:, :MAIN]), squashed.abs()), 1)
        z = gaussian.leaky_clamp(self.h_a(inputs).float(), -Z_LIMIT, Z_LIMIT)
        z_hat = round_ste(z)
        z_bits = gaussian.coded_bits(z, z_hat, interpolate(self.z_row, t), self.training)
        share, delta = self.means(c, z_hat, t)
        mu = predicted * (1 - share) + delta
        q, y_bits = self._code(y - mu, z_hat, before.q, field_integers(vectors), t)
        rough = self.transform.inverse((q + mu) * down)
        x_hat, memory = self.filter(rough, p, c, t)
        bits = z_bits.sum((1, 2, 3)) + y_bits.sum((1, 2, 3))
        return Decoded(x_hat + MIDDLE, memory, q), bits

    def _code(
        self, residual: Tensor, z_hat: Tensor, last: Tensor, field: Tensor, t: Tensor
    ) -> tuple[Tensor, Tensor]:
        """The integers of the residual, and bits of each."""
        anchors = anchor_mask(residual.shape[2], residual.shape[3], residual.device)
        with torch.autocast(residual.device.type, enabled=False):
            features = self.rows.features(z_hat, last, field)
            row = self.rows.of_first(features, t)
            first = torch.where(anchors, quantise(residual, self._factor(row)), 0.0)
            row = torch.where(anchors, row, self.rows.of_second(features, first, t))
        q = torch.where(anchors, first, quantise(residual, self._factor(row)))
        return q, gaussian.coded_bits(residual, q, row, self.training)

    def _factor(self, row: Tensor) -> Tensor:
        return self.dead_zone[row.detach().clamp(0, gaussian.ROWS - 1).round().int()]


def predict(before: Decoded, vectors: Tensor) -> Tensor:
    """The last picture moved by a field, [B, 6, h, w]."""
    return warp_planes(before.x_hat, vectors)


def after_intra(x_hat: Tensor) -> Decoded:
    """What follows a frame that stands alone: nothing is remembered but its picture."""
    batch, _, h, w = x_hat.shape
    memory = x_hat.new_zeros(batch, CHANNELS, h // 4, w // 4)
    return Decoded(x_hat, memory, x_hat.new_zeros(batch, LATENTS, h // 8, w // 8))


def _last(x: Tensor) -> Tensor:
    return x.contiguous(memory_format=torch.channels_last)
