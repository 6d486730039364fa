"""Networks of frames that stand alone in `video/lite`: those of `image/light`, for 4:2:0.

    x -> g_a -> y -> * gain(t) -> (y - mu) rounded -> q, row
                  |-> h_a -> z -> h_s (integers) -> row of the Gaussian table per latent
                           '-> means of half the positions; context on them -> of the other half
    q + mu -> / gain(t) -> g_s -> x_hat

See `codecs/image/light_model.py` for the parts and their papers.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...entropy.models import gaussian
from ..transforms.conv import Conv2d, ResidualBlock, activate
from ..transforms.integer import ACTIVATION_STEP, QuantConv2d
from . import lite_blocks as blocks
from .lite_blocks import (
    CELL,
    DEAD_ZONE,
    LATENTS,
    LEVELS,
    MAIN,
    BlockTransform,
    Down,
    Gains,
    Modulation,
    interpolate,
)

CHANNELS, WIDE, BLOCKS = 96, 128, 3  # the sizes of image/light, S
Z_CHANNELS = 32
ROWS_PER_UNIT = 4.0  # gain of the last integer layer: small weights reach all 64 rows


class Analysis(nn.Module):
    """g_a: x minus one half [B, 6, h, w], multiples of 8 -> y [B, LATENTS, h/8, w/8]."""

    def __init__(self) -> None:
        """Start as the DCT."""
        super().__init__()
        self.transform = BlockTransform()
        self.head = Conv2d(CELL, CHANNELS)
        self.modulation = Modulation(CHANNELS)
        self.blocks = nn.Sequential(*(ResidualBlock(CHANNELS) for _ in range(BLOCKS)))
        self.tail = Conv2d(CHANNELS, MAIN, 3, stride=2, zero=True)

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        """See the class."""
        skip = self.transform(x)
        branch = F.pixel_unshuffle(x, 4).contiguous(memory_format=torch.channels_last)
        branch = activate(self.modulation(self.head(branch), t))
        main = skip[:, :MAIN] + self.tail(self.blocks(branch)).float()
        return torch.cat((main, skip[:, MAIN:]), 1)


class Synthesis(nn.Module):
    """g_s: y_hat [B, LATENTS, h/8, w/8] -> x minus one half [B, 6, h, w]."""

    def __init__(self) -> None:
        """Start as the inverse DCT."""
        super().__init__()
        self.transform = BlockTransform()
        # asinh: the DC is a hundred times larger than what the branch is there to mend.
        self.squash = nn.Parameter(torch.full((MAIN,), 8.0))
        self.head = Conv2d(MAIN, WIDE)
        self.modulation = Modulation(WIDE)
        self.up = Conv2d(WIDE, 4 * CHANNELS, 1)
        self.blocks = nn.Sequential(*(ResidualBlock(CHANNELS) for _ in range(BLOCKS)))
        self.tail = Conv2d(CHANNELS, CELL, zero=True)

    def forward(self, y_hat: Tensor, t: Tensor) -> Tensor:
        """See the class."""
        branch = torch.asinh(self.squash[:, None, None] * y_hat[:, :MAIN])
        branch = branch.contiguous(memory_format=torch.channels_last)
        branch = activate(self.modulation(self.head(branch), t))
        branch = F.pixel_shuffle(self.up(branch), 2)
        branch = self.blocks(branch.contiguous(memory_format=torch.channels_last))
        mended = F.pixel_shuffle(self.tail(branch).float(), 4)
        return self.transform.inverse(y_hat) + mended


class HyperScale(nn.Module):
    """h_s: z_hat -> row of the Gaussian table for each latent; the integer path.

    `offset` is the row that a level has where z says nothing, in table rows.
    """

    def __init__(self) -> None:
        """Make the layers."""
        super().__init__()
        self.first = QuantConv2d(Z_CHANNELS, WIDE, 3, relu=True, input_step=1.0)
        self.second = QuantConv2d(WIDE, 4 * CHANNELS, 3, True, ACTIVATION_STEP)
        self.third = QuantConv2d(CHANNELS, WIDE, 3, True, ACTIVATION_STEP)
        self.last = QuantConv2d(WIDE, LATENTS, 1, False, ACTIVATION_STEP)
        self.offset = nn.Parameter(torch.full((LEVELS, LATENTS), 16.0))

    def forward(self, z_hat: Tensor, t: Tensor) -> Tensor:
        """z_hat [B, Z_CHANNELS, h/16, w/16] -> rows [B, LATENTS, h/8, w/8] as real numbers."""
        with torch.autocast(z_hat.device.type, enabled=False):
            x = self.second(self.first(z_hat))
            x = self.last(self.third(F.pixel_shuffle(x, 2)))
            rows: Tensor = x * ROWS_PER_UNIT + interpolate(self.offset, t)
            return rows


class MeanContext(nn.Module):
    """Means of the latents: from z for the anchors, from z and the anchors for the rest."""

    def __init__(self) -> None:
        """Make the layers; both means start at zero."""
        super().__init__()
        self.hyper = nn.Sequential(
            Conv2d(Z_CHANNELS, CHANNELS),
            nn.LeakyReLU(0.1),
            Conv2d(CHANNELS, 4 * CHANNELS),
        )
        self.modulation = Modulation(CHANNELS)
        self.anchor_mean = Conv2d(CHANNELS, MAIN, 1, zero=True)
        self.context = Conv2d(MAIN, WIDE)
        self.mix = Conv2d(CHANNELS, WIDE, 1)
        self.rest_mean = Conv2d(WIDE, MAIN, 1, zero=True)

    def features(self, z_hat: Tensor, t: Tensor) -> Tensor:
        """z_hat -> features at the scale of y."""
        x = F.pixel_shuffle(self.hyper(z_hat), 2)
        return activate(self.modulation(x, t))

    def of_anchors(self, features: Tensor) -> Tensor:
        """Features -> means [B, LATENTS, ...], of use at the anchors."""
        return pad_means(self.anchor_mean(features).float())

    def of_rest(self, features: Tensor, anchors: Tensor) -> Tensor:
        """Features and y_hat (zero except at the anchors) -> means for the other half."""
        x = activate(self.context(torch.asinh(anchors[:, :MAIN])) + self.mix(features))
        return pad_means(self.rest_mean(x).float())


def pad_means(means: Tensor) -> Tensor:
    """Give the high frequencies the mean zero."""
    return F.pad(means, (0, 0, 0, 0, 0, LATENTS - MAIN))


def anchor_mask(h: int, w: int, device: torch.device | None = None) -> Tensor:
    """Checkerboard, bool [1, 1, h, w]: True where row + column is even."""
    rows = torch.arange(h, device=device)[:, None]
    return ((rows + torch.arange(w, device=device)) % 2 == 0)[None, None]


class IntraModel(nn.Module):
    """All networks of a frame that stands alone, in their training form."""

    dead_zone: Tensor

    def __init__(self) -> None:
        """Make a model that starts as a DCT codec."""
        super().__init__()
        self.g_a, self.g_s = Analysis(), Synthesis()
        self.h_a = Down(MAIN + LATENTS, CHANNELS, WIDE, Z_CHANNELS)
        self.h_s, self.means, self.gains = HyperScale(), MeanContext(), Gains()
        self.z_row = nn.Parameter(torch.full((LEVELS, Z_CHANNELS), 25.0))
        factors = gaussian.dead_zone(gaussian.freeze(), DEAD_ZONE)
        self.register_buffer("dead_zone", factors, persistent=False)

    def forward(self, x: Tensor, t: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """One training pass, with the integers that the encoder would code.

        Args:
            x: [B, 6, h, w] in [0, 1], h and w multiples of 16.
            t: rate positions in [0, LEVELS - 1], float [B].

        Returns:
            x_hat [B, 6, h, w], not clamped, estimated bits of each picture [B], and the integers
            q [B, LATENTS, h/8, w/8].
        """
        y = self.g_a(x - blocks.MIDDLE, t) * self.gains.up(t)
        squashed = torch.asinh(y)
        side = self.h_a(torch.cat((squashed[:, :MAIN], squashed.abs()), 1)).float()
        z, z_hat = blocks.round_z(side)
        z_bits = blocks.rate_bits(z, z_hat, interpolate(self.z_row, t), self.training)
        row = self.h_s(z_hat, t)
        factor = self.dead_zone[row.detach().clamp(0, gaussian.ROWS - 1).round().int()]
        features = self.means.features(z_hat, t)
        anchors = anchor_mask(y.shape[2], y.shape[3], y.device)
        mu = self.means.of_anchors(features)
        anchor_hat = torch.where(anchors, blocks.quantise(y - mu, factor) + mu, 0.0)
        mu = torch.where(anchors, mu, self.means.of_rest(features, anchor_hat))
        residual = y - mu
        q = blocks.quantise(residual, factor)
        y_bits = blocks.rate_bits(residual, q, row, self.training)
        bits = z_bits.sum((1, 2, 3)) + y_bits.sum((1, 2, 3))
        x_hat = self.g_s((q + mu) * self.gains.down(t), t) + blocks.MIDDLE
        return x_hat, bits, q
