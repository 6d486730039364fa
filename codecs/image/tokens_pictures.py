"""Pictures of any size to codes and back, block by block, so that memory stays bounded."""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor

from .picture import Box
from .tokens_frozen import FrozenTokens
from .tokens_model import COARSE, FINE

TILE = 1024  # pixels to a side of what the prior sees, and of what the networks do at a time
_HALO_A = 128  # pixels around a block that its codes depend on: 64 of g_a, 4 latents behind it
_HALO_S = 6  # cells of level 0 around a block that its pixels depend on: 12 latents


def tile_shape(box: Box) -> tuple[int, int]:
    """Rows and columns of codes of level 0."""
    return math.ceil(box[2] / COARSE), math.ceil(box[3] / COARSE)


def analyse(model: FrozenTokens, x: Tensor) -> list[Tensor]:
    """Codes of the two scales, see TokensModel.encode.

    Args:
        model: the networks.
        x: RGB or grey, [B, 3 or 1, H, W], uint8, or floats in [0, 1]; a block at a time is made
            float.
    """
    height, width = x.shape[2:]
    h, w = tile_shape((0, 0, height, width))
    coarse = torch.empty(len(x), 1, h, w, dtype=torch.int64)
    fine = torch.empty(len(x), model.size.levels - 1, 2 * h, 2 * w, dtype=torch.int64)
    for (top, bottom), (left, right) in _blocks(height, width, TILE):
        above, before = min(top, _HALO_A), min(left, _HALO_A)
        block = x[:, :, top - above : bottom + _HALO_A, left - before : right + _HALO_A]
        block = (block.float() / 255 if x.dtype == torch.uint8 else block.float()).expand(
            -1, 3, -1, -1
        )
        pad = (0, -block.shape[3] % COARSE, 0, -block.shape[2] % COARSE)
        codes = model.networks.encode(F.pad(block, pad, mode="replicate"))
        for scale, whole, part in zip((COARSE, FINE), (coarse, fine), codes, strict=True):
            target = whole[:, :, _cells(top, bottom, scale), _cells(left, right, scale)]
            i, j = above // scale, before // scale
            target.copy_(part[:, :, i : i + target.shape[2], j : j + target.shape[3]])
    return [coarse, fine]


def synthesise(
    model: FrozenTokens, coarse: Tensor, fine: Tensor
) -> Iterator[tuple[int, int, Tensor]]:
    """Codes of the two scales -> top, left and pixels of each block, float [B, 3, H, W] in [0, 1].

    Raises:
        ValueError: a code is outside its codebook.
    """
    for (top, bottom), (left, right) in _blocks(coarse.shape[2], coarse.shape[3], TILE // COARSE):
        above, before = min(top, _HALO_S), min(left, _HALO_S)
        rows, columns = (top - above, bottom + _HALO_S), (left - before, right + _HALO_S)
        parts = [
            codes[:, :, k * rows[0] : k * rows[1], k * columns[0] : k * columns[1]]
            for k, codes in ((1, coarse), (2, fine))
        ]
        x_hat = model.networks.decode(parts)
        i, j = COARSE * above, COARSE * before
        x_hat = x_hat[:, :, i : i + COARSE * (bottom - top), j : j + COARSE * (right - left)]
        yield COARSE * top, COARSE * left, x_hat.clamp(0, 1)


def _blocks(
    height: int, width: int, side: int
) -> Iterator[tuple[tuple[int, int], tuple[int, int]]]:
    for top in range(0, height, side):
        for left in range(0, width, side):
            yield (top, min(top + side, height)), (left, min(left + side, width))


def _cells(start: int, end: int, scale: int) -> slice:
    """Codes that belong to these pixels; those of 1/16 come in pairs."""
    return slice(start // scale, math.ceil(end / COARSE) * (COARSE // scale))
