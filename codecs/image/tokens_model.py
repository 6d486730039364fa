"""The networks of `image/tokens`: a picture as a hierarchy of codes.

    x -> g_a -> y (1/16) --> e_coarse (1/32) --> VQ, 4096 codes -----------------> level 0
                     |                             '-> y_0, features p (1/16)
                     '---- minus y_0, with p ----> e (1/16) --> RVQ, 1024 codes -> level 1
                                                                  again, residual -> level 2
                                                                  again, residual -> level 3
    y_0 + what the levels say -> g_s -> x_hat

McQuic (Zhu et al., "Unified Multivariate Gaussian Mixture for Efficient Neural Image Compression",
CVPR 2022) for the hierarchy of scales. Every map into and out of code space has a linear part that
starts as the principal components of y and a zero-initialised convolutional branch beside it, so
the untrained model is a vector quantizer of DCT coefficients. Levels may be missing from the end
(nested dropout, Rippel et al., ICML 2014): `depth` says how many there are.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..quantizers.quantizer import sum_losses
from ..quantizers.rvq import ResidualQuantizer
from ..quantizers.vq import VectorQuantizer
from ..transforms.conv import Conv2d, ResidualBlock, activate
from ..transforms.dct import opponent_dct

LATENTS = 256  # of y: 192 of luma, 32 of each chroma channel
COARSE = 32  # pixels to a side of a code of level 0
FINE = 16  # pixels to a side of a code of the other levels
_KEEP = (192, 32, 32)


@dataclass(frozen=True)
class Size:
    """Widths of the networks and sizes of the codebooks.

    Attributes:
        channels: features at 1/8 scale.
        wide: features of g_s at 1/16 scale.
        middle: features around the quantizers, at 1/16 scale.
        blocks: residual blocks of g_a and of g_s.
        coarse: codes of level 0 and their dimensions.
        fine: codes of the other levels.
        fine_dim: their dimensions.
    """

    channels: int = 96
    wide: int = 128
    middle: int = 96
    blocks: int = 3
    coarse: tuple[int, int] = (4096, 48)
    fine: tuple[int, ...] = (1024, 1024, 1024)
    fine_dim: int = 32

    @property
    def levels(self) -> int:
        """How many levels there are."""
        return 1 + len(self.fine)


S = Size()


class DepthModulation(nn.Module):
    """Scale and offset of feature channels for each depth."""

    def __init__(self, levels: int, channels: int) -> None:
        """Start as the identity."""
        super().__init__()
        self.scale = nn.Parameter(torch.ones(levels, channels))
        self.offset = nn.Parameter(torch.zeros(levels, channels))

    def forward(self, x: Tensor, depth: Tensor) -> Tensor:
        """Float [B, C, H, W] and depth [B], 1 to levels -> the same shape."""
        scale, offset = (t[depth - 1][:, :, None, None].to(x) for t in (self.scale, self.offset))
        return x * scale + offset


class Analysis(nn.Module):
    """g_a: RGB minus one half [B, 3, H, W], multiples of 32 -> y [B, LATENTS, H/16, W/16]."""

    def __init__(self, size: Size) -> None:
        """Start as the DCT."""
        super().__init__()
        self.linear = nn.Parameter(opponent_dct(FINE, _KEEP))
        self.head = Conv2d(192, size.channels)
        self.blocks = nn.Sequential(*(ResidualBlock(size.channels) for _ in range(size.blocks)))
        self.tail = Conv2d(size.channels, LATENTS, 3, stride=2, zero=True)

    def forward(self, x: Tensor) -> Tensor:
        """See the class."""
        with torch.autocast(x.device.type, enabled=False):
            skip = F.conv2d(F.pixel_unshuffle(x, FINE), self.linear[:, :, None, None])
        branch = F.pixel_unshuffle(x, 8).contiguous(memory_format=torch.channels_last)
        out: Tensor = skip + self.tail(self.blocks(activate(self.head(branch)))).float()
        return out


class Synthesis(nn.Module):
    """g_s: y_hat [B, LATENTS, H/16, W/16] and features -> RGB minus one half [B, 3, H, W]."""

    def __init__(self, size: Size) -> None:
        """Start as the inverse DCT."""
        super().__init__()
        self.linear = nn.Parameter(opponent_dct(FINE, _KEEP))
        self.head = Conv2d(LATENTS, size.wide)
        self.mix = Conv2d(size.middle, size.wide, 1, zero=True)
        self.modulation = DepthModulation(size.levels, size.wide)
        self.up = Conv2d(size.wide, 4 * size.channels, 1)
        self.blocks = nn.Sequential(*(ResidualBlock(size.channels) for _ in range(size.blocks)))
        self.tail = Conv2d(size.channels, 192, zero=True)

    def forward(self, y_hat: Tensor, features: Tensor, depth: Tensor) -> Tensor:
        """See the class; `depth` is int64 [B]."""
        with torch.autocast(y_hat.device.type, enabled=False):
            blocks = F.conv2d(y_hat, self.linear.t()[:, :, None, None])
            skip = F.pixel_shuffle(blocks, FINE)
        # asinh: the DC is a hundred times larger than what the branch is there to mend.
        branch = torch.asinh(8 * y_hat).contiguous(memory_format=torch.channels_last)
        branch = self.modulation(self.head(branch) + self.mix(features), depth)
        branch = F.pixel_shuffle(self.up(activate(branch)), 2)
        branch = self.blocks(branch.contiguous(memory_format=torch.channels_last))
        return skip + F.pixel_shuffle(self.tail(branch).float(), 8)


class CoarseLevel(nn.Module):
    """Level 0: y to vectors at 1/32 and back to a first y_hat and features."""

    def __init__(self, size: Size) -> None:
        """Start with a linear part of zero; `start` in tokens_training.py sets it."""
        super().__init__()
        dim = size.coarse[1]
        self.linear = nn.Parameter(torch.zeros(dim, 4 * LATENTS))
        self.into = Conv2d(size.middle, dim, 3, stride=2, zero=True)
        self.out = Conv2d(dim, 4 * size.middle)

    def analyse(self, y: Tensor, u: Tensor) -> Tensor:
        """Latents y [B, LATENTS, h, w], their features u -> vectors [B, dim, h/2, w/2]."""
        with torch.autocast(y.device.type, enabled=False):
            skip = F.conv2d(F.pixel_unshuffle(y, 2), self.linear[:, :, None, None])
        branch: Tensor = self.into(u)
        return skip + branch.float()

    def synthesise(self, vectors: Tensor) -> tuple[Tensor, Tensor]:
        """Quantised vectors -> y_hat [B, LATENTS, h, w] and features [B, middle, h, w]."""
        with torch.autocast(vectors.device.type, enabled=False):
            y_hat = F.conv2d(vectors, self.linear.t()[:, :, None, None])
        return F.pixel_shuffle(y_hat, 2), F.pixel_shuffle(activate(self.out(vectors)), 2)


class FineLevels(nn.Module):
    """Levels 1 and on: what level 0 left of y to vectors at 1/16 and back."""

    def __init__(self, size: Size) -> None:
        """Start with a linear part of zero; `start` in tokens_training.py sets it."""
        super().__init__()
        self.linear = nn.Parameter(torch.zeros(size.fine_dim, LATENTS))
        self.into = Conv2d(2 * size.middle, size.fine_dim, zero=True)
        self.out = Conv2d(size.fine_dim, size.middle)
        self.modulation = DepthModulation(size.levels, size.middle)
        self.blocks = nn.Sequential(*(ResidualBlock(size.middle) for _ in range(2)))
        self.mend = Conv2d(size.middle, LATENTS, 1, zero=True)

    def analyse(self, rest: Tensor, u: Tensor, p: Tensor) -> Tensor:
        """What y_0 left of y, features of y and level 0 -> vectors [B, fine_dim, h, w]."""
        with torch.autocast(rest.device.type, enabled=False):
            skip = F.conv2d(rest, self.linear[:, :, None, None])
        branch: Tensor = self.into(torch.cat((u, p.to(u)), 1))
        return skip + branch.float()

    def synthesise(self, vectors: Tensor, p: Tensor, depth: Tensor) -> tuple[Tensor, Tensor]:
        """Sum of the levels' vectors -> what to add to y_0, and features [B, middle, h, w]."""
        with torch.autocast(vectors.device.type, enabled=False):
            y_hat = F.conv2d(vectors, self.linear.t()[:, :, None, None])
        features = activate(self.modulation(p + self.out(vectors), depth))
        features = self.blocks(features.contiguous(memory_format=torch.channels_last))
        return y_hat + self.mend(features).float(), features


class TokensModel(nn.Module):
    """All networks and codebooks of `image/tokens`."""

    def __init__(self, size: Size = S) -> None:
        """Make the networks; without `start` their code space is empty."""
        super().__init__()
        self.size = size
        self.g_a, self.g_s = Analysis(size), Synthesis(size)
        self.features = nn.Sequential(
            Conv2d(LATENTS, size.middle), nn.LeakyReLU(0.1), ResidualBlock(size.middle)
        )
        self.coarse, self.fine = CoarseLevel(size), FineLevels(size)
        # A batch has few vectors of level 0 to each code: a longer memory.
        self.coarse_codes = VectorQuantizer(size.coarse[1], size.coarse[0], decay=0.995)
        self.fine_codes = ResidualQuantizer(
            [VectorQuantizer(size.fine_dim, k, decay=0.98) for k in size.fine]
        )

    @property
    def codebook_sizes(self) -> tuple[int, ...]:
        """Codes of each level."""
        return self.coarse_codes.codebook_sizes + self.fine_codes.codebook_sizes

    def analyse(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """RGB in [0, 1] -> y, its features, vectors of level 0."""
        y = self.g_a(x - 0.5)
        u = self.features(torch.asinh(8 * y).contiguous(memory_format=torch.channels_last))
        return y, u, self.coarse.analyse(y, u)

    def forward(self, x: Tensor, depth: Tensor) -> tuple[Tensor, list[Tensor], dict[str, Tensor]]:
        """One training pass.

        Args:
            x: RGB in [0, 1], float [B, 3, H, W], H and W multiples of 32.
            depth: how many levels each picture keeps, int64 [B], 1 to levels.

        Returns:
            x_hat [B, 3, H, W], not clamped, the codes of all levels as `encode` gives them, and the
            losses of the quantizers.
        """
        y, u, e = self.analyse(x)
        coarse = self.coarse_codes(e)
        y_0, p = self.coarse.synthesise(coarse.x_hat)
        e = self.fine.analyse(y - y_0, u, p)
        fine = self.fine_codes(e, depth - 1)
        more, features = self.fine.synthesise(fine.x_hat, p, depth)
        x_hat = self.g_s(y_0 + more, features, depth) + 0.5
        return x_hat, [coarse.codes, fine.codes], sum_losses([coarse.losses, fine.losses])

    def encode(self, x: Tensor) -> list[Tensor]:
        """RGB in [0, 1] to codes.

        Returns:
            Codes of level 0, int64 [B, 1, H/32, W/32], and of the others, int64
            [B, levels - 1, H/16, W/16].
        """
        y, u, e = self.analyse(x)
        coarse = self.coarse_codes.encode(e)
        y_0, p = self.coarse.synthesise(self.coarse_codes.decode(coarse))
        return [coarse, self.fine_codes.encode(self.fine.analyse(y - y_0, u, p))]

    def decode(self, codes: Sequence[Tensor]) -> Tensor:
        """The mirror of `encode`; the second item may hold fewer levels, or none.

        Returns:
            x_hat [B, 3, H, W], not clamped.
        """
        coarse, fine = codes
        y_0, p = self.coarse.synthesise(self.coarse_codes.decode(coarse))
        if fine.shape[1]:
            vectors = self.fine_codes.decode(fine)
        else:
            vectors = y_0.new_zeros(y_0.shape[0], self.size.fine_dim, *y_0.shape[2:])
        depth = torch.full((len(coarse),), 1 + fine.shape[1], device=coarse.device)
        more, features = self.fine.synthesise(vectors, p, depth)
        x_hat: Tensor = self.g_s(y_0 + more, features, depth) + 0.5
        return x_hat
