"""What the networks of `video/lite` share: the block transform, rates, and steps of the quantiser.

Pictures are 4:2:0 and stay so: `x` [B, 6, H/2, W/2] holds the four phases of luma (as
`pixel_unshuffle(2)` lays them out), U and V, values 0 to 1. A block of 16 x 16 luma samples and its
chroma are 384 numbers, the latents the 384 coefficients of their DCT.
"""

import functools
import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..image.light_model import LEVELS, interpolate
from ..transforms.conv import Conv2d
from ..transforms.dct import dct_matrix

LMBDA_RANGE = (0.0014, 0.18)  # of level 0 and of level 7; R + lmbda * 255^2 * D
CHROMA_WEIGHT = 2.0  # D = (6 MSE_Y + 2 MSE_U + 2 MSE_V) / 8, see `distortion`
CELL = 96  # numbers in a cell of 8 x 8 luma samples, of which the networks take a vector
LATENTS = 384
MIDDLE = 0.5  # what is taken off samples before the transform
LUMA_UNIT, CHROMA_UNIT = 2.017, 3.5  # of latents, to be those of `image/light`


def lmbda_of(t: Tensor) -> Tensor:
    """Lagrangian of rate position `t` in [0, LEVELS - 1]."""
    low, high = LMBDA_RANGE
    return low * (high / low) ** (t / (LEVELS - 1))


def distortion(x: Tensor, x_hat: Tensor) -> Tensor:
    """Weighted mean squared error of [B, 6, h, w] -> [B].

    Chroma counts twice as much as in the 6:1:1 mean of errors: the figure that codecs are judged
    by is a mean of decibels, and chroma has smaller errors.
    """
    error = (x - x_hat).square().mean((2, 3))
    return (6 * error[:, :4].mean(1) + CHROMA_WEIGHT * error[:, 4:].sum(1)) / 8


@functools.cache
def frequencies(size: int) -> list[tuple[int, int]]:
    """Vertical and horizontal frequency of the coefficients of a block, lowest first."""
    pairs = [(u, v) for u in range(size) for v in range(size)]
    return sorted(pairs, key=lambda p: (p[0] + p[1], p[0]))


def block_transform() -> Tensor:
    """Latents of a block, float32 [LATENTS, 384]: the DCT in units of LUMA_UNIT and CHROMA_UNIT.

    Columns are ordered as `pixel_unshuffle(8)` lays out [6, 8, 8]. Rows: 192 of luma, 32 each of
    (V - U) / sqrt(2) and -(U + V) / sqrt(2), then the higher frequencies of the three.
    """
    full, half = dct_matrix(16), dct_matrix(8)
    luma = torch.zeros(256, 6, 8, 8)
    for row, (u, v) in enumerate(frequencies(16)):
        block = torch.outer(full[u], full[v]) * LUMA_UNIT
        luma[row, :4] = F.pixel_unshuffle(block[None], 2)
    chroma = torch.stack([torch.outer(half[u], half[v]) for u, v in frequencies(8)])
    chroma = chroma * CHROMA_UNIT / math.sqrt(2)
    first, second = torch.zeros(2, 64, 6, 8, 8)
    first[:, 4], first[:, 5] = -chroma, chroma
    second[:, 4], second[:, 5] = -chroma, -chroma
    low = [luma[:192], first[:32], second[:32]]
    high = [luma[192:], first[32:], second[32:]]
    return torch.cat(low + high).flatten(1)


def units() -> Tensor:
    """Unit of each latent, float32 [LATENTS]."""
    low = [LUMA_UNIT] * 192 + [CHROMA_UNIT] * 64
    return torch.tensor(low + [LUMA_UNIT] * 64 + [CHROMA_UNIT] * 64)


class BlockTransform(nn.Module):
    """The DCT of whole blocks, and back; nothing of it is trained."""

    forward_matrix: Tensor
    inverse_matrix: Tensor

    def __init__(self) -> None:
        """Make the matrices."""
        super().__init__()
        matrix = block_transform()
        inverse = (matrix / units()[:, None].square()).t().contiguous()
        self.register_buffer("forward_matrix", matrix, persistent=False)
        self.register_buffer("inverse_matrix", inverse, persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """Samples minus MIDDLE [B, 6, h, w], multiples of 8 -> latents [B, LATENTS, h/8, w/8]."""
        with torch.autocast(x.device.type, enabled=False):
            return _product(self.forward_matrix, F.pixel_unshuffle(x.float(), 8))

    def inverse(self, latents: Tensor) -> Tensor:
        """The mirror of `forward`."""
        with torch.autocast(latents.device.type, enabled=False):
            return F.pixel_shuffle(_product(self.inverse_matrix, latents.float()), 8)


def _product(matrix: Tensor, x: Tensor) -> Tensor:
    """A matrix [M, N] with the vectors of [B, N, h, w]."""
    return (matrix @ x.flatten(2)).view(len(x), len(matrix), *x.shape[2:])


class Gains(nn.Module):
    """Steps of the quantiser: latents are multiplied with `up`, and with `down` after it."""

    def __init__(self) -> None:
        """Start at the step that is best at high rates."""
        super().__init__()
        # R + lmbda 255^2 D with D = weight * e^2 per sample: the best step is
        # sqrt(6 / (lmbda ln 2 weight)) / 255, in the units of the latents.
        lmbda = lmbda_of(torch.arange(LEVELS).float())
        chroma = units() == CHROMA_UNIT
        weight = torch.where(chroma, CHROMA_WEIGHT / 8 * 4, 6 / 8) / units().square()
        gain = 255 * torch.sqrt(lmbda[:, None] * math.log(2) * weight / 6)
        self.log_up = nn.Parameter(gain.log())
        self.log_down = nn.Parameter(-gain.log())

    def up(self, t: Tensor) -> Tensor:
        """Factors [B, LATENTS, 1, 1]."""
        return interpolate(self.log_up, t).exp()

    def down(self, t: Tensor) -> Tensor:
        """Factors [B, LATENTS, 1, 1]."""
        return interpolate(self.log_down, t).exp()


class Down(nn.Sequential):
    """Layers that halve the resolution once, then end in `outputs` channels."""

    def __init__(self, inputs: int, channels: int, wide: int, outputs: int) -> None:
        """Make the layers."""
        super().__init__(
            Conv2d(inputs, channels),
            nn.LeakyReLU(0.1),
            Conv2d(channels, wide, 3, stride=2),
            nn.LeakyReLU(0.1),
            Conv2d(wide, outputs),
        )
