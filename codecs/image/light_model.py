"""The networks of `image/light`: transforms, hyperprior and mean context.

    x [0,1] -> g_a -> y -> * gain(t) -> (y - mu) rounded -> q, row          (coded, one call)
                        |-> h_a -> z rounded (coded first)
                              |-> h_s      (integers)  -> row of the Gaussian table per latent
                              '-> h_mean   (float)     -> mu of half the positions (anchors),
                                           context on them -> mu of the other half
    q + mu -> / gain(t) -> g_s -> x_hat

g_a and g_s are a 16x16 DCT in opponent colours, trained on as a linear skip, plus zero-initialised
convolutional branches at 1/8 scale. One model serves all rates: `t` in [0, 7] is interpolated
between learned gain vectors (Cui et al., "Asymmetric Gained Deep Image Compression", CVPR 2021).
Scales come from z alone through integer layers, so the parse is the same on every machine;
context (He et al., "Checkerboard Context Model", CVPR 2021) moves means only.
"""

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...entropy.models import gaussian
from ..transforms.conv import Conv2d, ResidualBlock, activate
from ..transforms.dct import opponent_dct
from ..transforms.integer import ACTIVATION_STEP, QuantConv2d, round_ste

LEVELS = 8
LMBDA_RANGE = (0.0008, 0.1)  # of level 0 and of level 7; R + lmbda * 255^2 * MSE
LATENTS = 512
MAIN = 256  # the first latents, low frequencies: what the branches and the means deal with
Z_CHANNELS = 32
Z_LIMIT = 127  # z is the input of int8 layers
DEAD_ZONE = 0.5  # strength that gives the smallest R + lmbda * D on pictures of the training set


@dataclass(frozen=True)
class Size:
    """Widths of the networks; `S` is the size that ships."""

    channels: int = 96  # at 1/8 scale
    wide: int = 128  # at 1/16 scale
    blocks: int = 3


S = Size()


def lmbda_of(t: Tensor) -> Tensor:
    """Lagrangian of rate position `t` in [0, LEVELS - 1]."""
    low, high = LMBDA_RANGE
    return low * (high / low) ** (t / (LEVELS - 1))


def interpolate(table: Tensor, t: Tensor) -> Tensor:
    """Rows of `table` [LEVELS, C] at real positions `t` [B] -> [B, C, 1, 1]."""
    below = t.floor().clamp(0, LEVELS - 2).long()
    part = (t - below).unsqueeze(1)
    return (table[below] * (1 - part) + table[below + 1] * part)[:, :, None, None]


def block_dct() -> Tensor:
    """Rows of the 16x16 DCT, float32 [LATENTS, 768]: all of luma, half of each chroma channel."""
    low, high = (192, 32, 32), (256, 128, 128)
    return torch.cat((opponent_dct(16, low), opponent_dct(16, high, skip=low)))


class Modulation(nn.Module):
    """Per-level scale and offset of feature channels."""

    def __init__(self, channels: int) -> None:
        """Start as the identity."""
        super().__init__()
        self.scale = nn.Parameter(torch.ones(LEVELS, channels))
        self.offset = nn.Parameter(torch.zeros(LEVELS, channels))

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        """Float [B, C, H, W] and t [B] -> the same shape."""
        return x * interpolate(self.scale, t).to(x) + interpolate(self.offset, t).to(x)


class Analysis(nn.Module):
    """g_a: RGB minus one half [B, 3, H, W], multiples of 16 -> y [B, LATENTS, H/16, W/16]."""

    def __init__(self, size: Size) -> None:
        """Start as the DCT."""
        super().__init__()
        self.linear = nn.Parameter(block_dct())
        self.head = Conv2d(192, size.channels)
        self.modulation = Modulation(size.channels)
        self.blocks = nn.Sequential(*(ResidualBlock(size.channels) for _ in range(size.blocks)))
        self.tail = Conv2d(size.channels, MAIN, 3, stride=2, zero=True)

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        """See the class."""
        with torch.autocast(x.device.type, enabled=False):
            skip = F.conv2d(F.pixel_unshuffle(x, 16), self.linear[:, :, None, None])
        branch = F.pixel_unshuffle(x, 8).contiguous(memory_format=torch.channels_last)
        branch = activate(self.modulation(self.head(branch), t))
        main = skip[:, :MAIN] + self.tail(self.blocks(branch)).float()
        return torch.cat((main, skip[:, MAIN:]), 1)


class Synthesis(nn.Module):
    """g_s: y_hat [B, LATENTS, H/16, W/16] -> RGB minus one half [B, 3, H, W]."""

    def __init__(self, size: Size) -> None:
        """Start as the inverse DCT."""
        super().__init__()
        self.linear = nn.Parameter(block_dct())
        self.head = Conv2d(MAIN, size.wide)
        self.modulation = Modulation(size.wide)
        self.up = Conv2d(size.wide, 4 * size.channels, 1)
        self.blocks = nn.Sequential(*(ResidualBlock(size.channels) for _ in range(size.blocks)))
        self.tail = Conv2d(size.channels, 192, zero=True)

    def forward(self, y_hat: Tensor, t: Tensor) -> Tensor:
        """See the class."""
        with torch.autocast(y_hat.device.type, enabled=False):
            blocks = F.conv2d(y_hat, self.linear.t()[:, :, None, None])
            skip = F.pixel_shuffle(blocks, 16)
        # asinh: the DC is a hundred times larger than what the branch is there to mend.
        branch = torch.asinh(8 * y_hat[:, :MAIN]).contiguous(memory_format=torch.channels_last)
        branch = activate(self.modulation(self.head(branch), t))
        branch = F.pixel_shuffle(self.up(branch), 2)
        branch = self.blocks(branch.contiguous(memory_format=torch.channels_last))
        return skip + F.pixel_shuffle(self.tail(branch).float(), 8)


class HyperAnalysis(nn.Module):
    """h_a: scaled y [B, LATENTS, h, w] -> z [B, Z_CHANNELS, h/2, w/2] before rounding."""

    def __init__(self, size: Size) -> None:
        """Make the layers."""
        super().__init__()
        self.layers = nn.Sequential(
            Conv2d(MAIN + LATENTS, size.channels),
            nn.LeakyReLU(0.1),
            Conv2d(size.channels, size.wide, 3, stride=2),
            nn.LeakyReLU(0.1),
            Conv2d(size.wide, Z_CHANNELS),
        )

    def forward(self, y: Tensor) -> Tensor:
        """See the class; asinh keeps both the DC and the faint coefficients in range."""
        squashed = torch.asinh(y)
        z: Tensor = self.layers(torch.cat((squashed[:, :MAIN], squashed.abs()), 1)).float()
        return z


class HyperScale(nn.Module):
    """h_s: z_hat -> row of the Gaussian table for each latent; the integer path.

    `offset` is the row that a level has where z says nothing, in table rows.
    """

    def __init__(self, size: Size, latents: int = LATENTS) -> None:
        """Make the layers, for so many latents."""
        super().__init__()
        self.first = QuantConv2d(Z_CHANNELS, size.wide, 3, relu=True, input_step=1.0)
        self.second = QuantConv2d(size.wide, 4 * size.channels, 3, True, ACTIVATION_STEP)
        self.third = QuantConv2d(size.channels, size.wide, 3, True, ACTIVATION_STEP)
        self.last = QuantConv2d(size.wide, latents, 1, False, ACTIVATION_STEP)
        self.offset = nn.Parameter(torch.full((LEVELS, latents), 16.0))

    def forward(self, z_hat: Tensor, t: Tensor) -> Tensor:
        """z_hat [B, Z_CHANNELS, h/2, w/2] -> rows [B, latents, h, w] as real numbers."""
        with torch.autocast(z_hat.device.type, enabled=False):
            x = self.second(self.first(z_hat))
            x = self.last(self.third(F.pixel_shuffle(x, 2)))
            rows: Tensor = x * ROWS_PER_UNIT + interpolate(self.offset, t)
            return rows


ROWS_PER_UNIT = 4.0  # gain of the last layer: small weights reach all 64 rows


class MeanContext(nn.Module):
    """Means of the latents: from z for the anchors, from z and the anchors for the rest."""

    def __init__(self, size: Size, latents: int = LATENTS) -> None:
        """Make the layers, for so many latents; both means start at zero."""
        super().__init__()
        self._latents = latents
        self.hyper = nn.Sequential(
            Conv2d(Z_CHANNELS, size.channels),
            nn.LeakyReLU(0.1),
            Conv2d(size.channels, 4 * size.channels),
        )
        self.modulation = Modulation(size.channels)
        self.anchor_mean = Conv2d(size.channels, MAIN, 1, zero=True)
        self.context = Conv2d(MAIN, size.wide)
        self.mix = Conv2d(size.channels, size.wide, 1)
        self.rest_mean = Conv2d(size.wide, MAIN, 1, zero=True)

    def features(self, z_hat: Tensor, t: Tensor) -> Tensor:
        """z_hat -> features at the scale of y."""
        x = F.pixel_shuffle(self.hyper(z_hat), 2)
        return activate(self.modulation(x, t))

    def of_anchors(self, features: Tensor) -> Tensor:
        """Features -> means [B, latents, h, w], of use at the anchors."""
        return pad_means(self.anchor_mean(features).float(), self._latents)

    def of_rest(self, features: Tensor, anchors: Tensor) -> Tensor:
        """Features and y_hat (zero except at the anchors) -> means for the other half."""
        x = activate(self.context(torch.asinh(anchors[:, :MAIN])) + self.mix(features))
        return pad_means(self.rest_mean(x).float(), self._latents)


def pad_means(means: Tensor, latents: int) -> Tensor:
    """Give the high frequencies, the latents behind the main ones, the mean zero."""
    return F.pad(means, (0, 0, 0, 0, 0, latents - MAIN))


def anchor_mask(h: int, w: int, device: torch.device | None = None) -> Tensor:
    """Checkerboard, bool [1, 1, h, w]: True where row + column is even."""
    rows = torch.arange(h, device=device)[:, None]
    return ((rows + torch.arange(w, device=device)) % 2 == 0)[None, None]


class LightModel(nn.Module):
    """All networks of `image/light` in their training form."""

    def __init__(self, size: Size = S) -> None:
        """Make a model that starts as a DCT codec."""
        super().__init__()
        self.size = size
        self.g_a, self.g_s = Analysis(size), Synthesis(size)
        self.h_a, self.h_s = HyperAnalysis(size), HyperScale(size)
        self.means = MeanContext(size)
        # At high rate the best step of a unit-gain transform is sqrt(6 / (lmbda ln 2)) / 255.
        lmbda = lmbda_of(torch.arange(LEVELS).float())
        gain = 255 * torch.sqrt(lmbda * math.log(2) / 6)
        self.log_gain = nn.Parameter(gain.log()[:, None].expand(LEVELS, LATENTS).clone())
        self.log_degain = nn.Parameter(-self.log_gain.detach().clone())
        self.z_row = nn.Parameter(torch.full((LEVELS, Z_CHANNELS), 25.0))
        self.dead_zone: Tensor
        factors = gaussian.dead_zone(gaussian.freeze(), DEAD_ZONE)
        self.register_buffer("dead_zone", factors, persistent=False)

    def forward(self, x: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
        """One training pass, with the integers that the encoder would code.

        The rate is that of the integers, see `gaussian.coded_bits`.

        Args:
            x: RGB in [0, 1], float [B, 3, H, W], H and W multiples of 32.
            t: rate positions in [0, LEVELS - 1], float [B].

        Returns:
            x_hat [B, 3, H, W], not clamped, and the estimated bits of each picture [B].
        """
        y = self.g_a(x - 0.5, t) * interpolate(self.log_gain, t).exp()
        z = gaussian.leaky_clamp(self.h_a(y), -Z_LIMIT, Z_LIMIT)
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
        y_hat = (q + mu) * interpolate(self.log_degain, t).exp()
        bits = z_bits.sum((1, 2, 3)) + y_bits.sum((1, 2, 3))
        return self.g_s(y_hat, t) + 0.5, bits


def quantise(residual: Tensor, factor: Tensor) -> Tensor:
    """Round with a dead zone, see `gaussian.dead_zone`; the gradient passes straight through."""
    return residual + ((residual * factor).round() - residual).detach()
