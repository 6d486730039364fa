"""Motion compensation that gradients pass through: planes and features moved by block vectors.

Vectors are int16 [B, h, w, 2] (dy, dx) in quarter luma samples, one for each block of 8 x 8 luma
samples (FORMAT.md, section 27); what lies outside the picture is its nearest edge. The filters are
those of `kernels/motion.py`.
"""

import functools

import torch
import torch.nn.functional as F
from torch import Tensor

from ...kernels import motion

BLOCK = 8  # luma samples


def warp_planes(x: Tensor, vectors: Tensor) -> Tensor:
    """Pictures [B, 6, H/2, W/2], H and W multiples of 8, moved by vectors [B, H/8, W/8, 2]."""
    luma = _warp_blocks(F.pixel_shuffle(x[:, :4], 2), vectors, BLOCK, 4, "luma")
    chroma = _warp_blocks(x[:, 4:], vectors, BLOCK // 2, 8, "chroma")
    return torch.cat((F.pixel_unshuffle(luma, 2), chroma), 1)


def warp_features(x: Tensor, vectors: Tensor) -> Tensor:
    """Features [B, C, H/8, W/8], one cell for each block, moved with bilinear interpolation."""
    return _warp_blocks(x, vectors, 1, 32, "features")


def _warp_blocks(x: Tensor, vectors: Tensor, block: int, units: int, kind: str) -> Tensor:
    """Move blocks of `block` samples to a side; `units` of the vectors are a sample."""
    bands = _bands(kind).to(x)
    side = bands.shape[2]
    batch, channels, height, width = x.shape
    h, w = vectors.shape[1:3]
    whole = torch.div(vectors.long(), units, rounding_mode="floor")
    fraction = vectors.long() - whole * units
    reach = torch.arange(side, device=x.device) - (side - block) // 2
    top = torch.arange(h, device=x.device)[:, None, None] * block + reach
    left = torch.arange(w, device=x.device)[:, None] * block + reach
    rows = (top + whole[..., 0, None]).clamp(0, height - 1)
    columns = (left + whole[..., 1, None]).clamp(0, width - 1)
    index = (rows[..., :, None] * width + columns[..., None, :]).view(batch, 1, -1)
    patches = x.flatten(2).gather(2, index.expand(-1, channels, -1))
    patches = patches.view(batch, channels, h, w, side, side)
    down, across = bands[fraction[..., 0]][:, None], bands[fraction[..., 1]][:, None]
    moved = down @ patches @ across.transpose(-1, -2)
    return moved.permute(0, 1, 2, 4, 3, 5).reshape(batch, channels, h * block, w * block)


@functools.cache
def _bands(kind: str) -> Tensor:
    """For each fraction of a sample the matrix [fractions, block, side] that interpolates."""
    if kind == "features":
        part = torch.arange(32) / 32
        # Three taps around the sample before: odd sides keep the reach symmetric.
        return torch.stack((torch.zeros(32), 1 - part, part), 1)[:, None]
    block, taps = (
        (BLOCK, torch.tensor(motion.LUMA_TAPS))
        if kind == "luma"
        else (BLOCK // 2, torch.tensor(motion.CHROMA_TAPS))
    )
    taps = taps.float() / taps[0].sum()
    fractions, length = taps.shape
    bands = torch.zeros(fractions, block, block + length)
    for row in range(block):
        # Tap length / 2 - 1 is on the sample itself.
        bands[:, row, row + 1 : row + 1 + length] = taps
    return bands
