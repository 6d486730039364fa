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
from ..image.light_model import (
    DEAD_ZONE,
    LEVELS,
    MAIN,
    Z_CHANNELS,
    Z_LIMIT,
    HyperScale,
    MeanContext,
    Modulation,
    S,
    anchor_mask,
    interpolate,
    quantise,
)
from ..transforms.conv import Conv2d, ResidualBlock, activate
from ..transforms.integer import round_ste
from .lite_blocks import CELL, LATENTS, MIDDLE, BlockTransform, Down, Gains


class Analysis(nn.Module):
    """g_a: x minus one half [B, 6, h, w], multiples of 8 -> y [B, LATENTS, h/8, w/8]."""

    def __init__(self) -> None:
        """Start as the DCT."""
        super().__init__()
        self.transform = BlockTransform()
        self.head = Conv2d(CELL, S.channels)
        self.modulation = Modulation(S.channels)
        self.blocks = nn.Sequential(*(ResidualBlock(S.channels) for _ in range(S.blocks)))
        self.tail = Conv2d(S.channels, MAIN, 3, stride=2, zero=True)

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
        self.head = Conv2d(MAIN, S.wide)
        self.modulation = Modulation(S.wide)
        self.up = Conv2d(S.wide, 4 * S.channels, 1)
        self.blocks = nn.Sequential(*(ResidualBlock(S.channels) for _ in range(S.blocks)))
        self.tail = Conv2d(S.channels, CELL, zero=True)

    def forward(self, y_hat: Tensor, t: Tensor) -> Tensor:
        """See the class."""
        branch = torch.asinh(self.squash[:, None, None] * y_hat[:, :MAIN])
        branch = branch.contiguous(memory_format=torch.channels_last)
        branch = activate(self.modulation(self.head(branch), t))
        branch = F.pixel_shuffle(self.up(branch), 2)
        branch = self.blocks(branch.contiguous(memory_format=torch.channels_last))
        mended = F.pixel_shuffle(self.tail(branch).float(), 4)
        return self.transform.inverse(y_hat) + mended


class IntraModel(nn.Module):
    """All networks of a frame that stands alone, in their training form."""

    dead_zone: Tensor

    def __init__(self) -> None:
        """Make a model that starts as a DCT codec."""
        super().__init__()
        self.g_a, self.g_s = Analysis(), Synthesis()
        self.h_a = Down(MAIN + LATENTS, S.channels, S.wide, Z_CHANNELS)
        self.h_s, self.means = HyperScale(S, LATENTS), MeanContext(S, LATENTS)
        self.gains = Gains()
        self.z_row = nn.Parameter(torch.full((LEVELS, Z_CHANNELS), 25.0))
        factors = gaussian.dead_zone(gaussian.freeze(), DEAD_ZONE)
        self.register_buffer("dead_zone", factors, persistent=False)

    def forward(self, x: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
        """One training pass, with the integers that the encoder would code.

        Args:
            x: [B, 6, h, w] in [0, 1], h and w multiples of 16.
            t: rate positions in [0, LEVELS - 1], float [B].

        Returns:
            x_hat [B, 6, h, w], not clamped, and estimated bits of each picture [B].
        """
        y = self.g_a(x - MIDDLE, t) * self.gains.up(t)
        squashed = torch.asinh(y)
        side = self.h_a(torch.cat((squashed[:, :MAIN], squashed.abs()), 1)).float()
        z = gaussian.leaky_clamp(side, -Z_LIMIT, Z_LIMIT)
        z_hat = round_ste(z)
        z_bits = gaussian.coded_bits(z, z_hat, interpolate(self.z_row, t), self.training)
        row = self.h_s(z_hat, t)
        factor = self.dead_zone[row.detach().clamp(0, gaussian.ROWS - 1).round().int()]
        features = self.means.features(z_hat, t)
        anchors = anchor_mask(y.shape[2], y.shape[3], y.device)
        mu = self.means.of_anchors(features)
        anchor_hat = torch.where(anchors, quantise(y - mu, factor) + mu, 0.0)
        mu = torch.where(anchors, mu, self.means.of_rest(features, anchor_hat))
        residual = y - mu
        q = quantise(residual, factor)
        y_bits = gaussian.coded_bits(residual, q, row, self.training)
        bits = z_bits.sum((1, 2, 3)) + y_bits.sum((1, 2, 3))
        x_hat = self.g_s((q + mu) * self.gains.down(t), t) + MIDDLE
        return x_hat, bits
