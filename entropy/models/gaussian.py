"""Gaussian entropy model over a fixed table of scales: the network speaks in table rows.

The prediction is a row number (a real number in training, a uint8 in the stream), so no float
scale is ever turned into a table choice on the decoder. Row i stands for the standard deviation
`MIN_SCALE * exp(STEP * i)`; Minnen et al., "Joint Autoregressive and Hierarchical Priors", 2018,
for the model; TensorFlow Compression's indexed models for the idea of emitting the index.
"""

import math

import numpy as np
import torch
from torch import Tensor

from ..tables import TableSet, default_gaussian_scales

ROWS = 64
MIN_SCALE = 0.11
MAX_SCALE = 32.0
STEP = math.log(MAX_SCALE / MIN_SCALE) / (ROWS - 1)
_ESCAPE_BITS = 20.0  # about what an escape costs; beyond it the estimate rises slowly


def rate_bits(q: Tensor, row: Tensor) -> Tensor:
    """Estimated bits of each symbol, differentiable in both arguments.

    Args:
        q: residuals y - mu, with uniform noise in training or rounded, any float shape.
        row: table row as a real number, broadcastable to `q`; clamped to [0, ROWS - 1].
    """
    row = leaky_clamp(row, 0.0, ROWS - 1.0)
    inverse = torch.exp(-STEP * row) / MIN_SCALE
    distance = q.abs()
    upper = torch.special.log_ndtr((0.5 - distance) * inverse)
    lower = torch.special.log_ndtr((-0.5 - distance) * inverse)
    bits = -(upper + torch.log1p(-torch.exp(lower - upper))) / math.log(2)
    return torch.where(bits > _ESCAPE_BITS, _ESCAPE_BITS + 0.05 * (bits - _ESCAPE_BITS), bits)


def coded_bits(latents: Tensor, integers: Tensor, row: Tensor, training: bool) -> Tensor:
    """Bits of what latents were rounded to; rows learn from the integers that will be coded.

    In training the latents, which feel nothing of a step function, get the gradient of the rate
    with uniform noise at fixed rows (Balle et al., "End-to-end Optimized Image Compression", ICLR
    2017).

    Args:
        latents: before rounding.
        integers: of the same shape.
        row: of the table, as for `rate_bits`.
        training: whether gradients are wanted.
    """
    hard = rate_bits(integers.detach(), row)
    if not training:
        return hard
    soft = rate_bits(latents + (torch.rand_like(latents) - 0.5), row.detach())
    return hard + soft - soft.detach()


def rows_of(size: Tensor) -> Tensor:
    """Table rows, as real numbers, of Gaussians whose mean absolute value is `size`."""
    scale = size * math.sqrt(math.pi / 2)
    return (torch.log(scale.clamp_min(MIN_SCALE) / MIN_SCALE) / STEP).clamp(0, ROWS - 1)


def leaky_clamp(x: Tensor, low: float, high: float) -> Tensor:
    """Clamp whose gradient is 0.1 outside the range, so that a value can find its way back."""
    inside = x.clamp(low, high)
    leak = 0.1 * (x - inside)
    return inside + leak - leak.detach()


def freeze() -> TableSet:
    """The integer tables of the rows: row 0 is not coded, rows 1 to ROWS - 1 are Gaussians.

    To be called when a model is frozen and kept with its weights, never at load.
    """
    return TableSet.gaussian([0.0, *default_gaussian_scales()[1:]])


def dead_zone(tables: TableSet, strength: float) -> Tensor:
    """What to multiply a residual with before it is rounded, so that bits count beside the error.

    Where rate and distortion balance, an error of e steps is worth 6 / ln 2 * e^2 bits (from
    D = step^2 / 12), so to go from k to k + 1 pays where the fraction exceeds 1/2 + ln 2 / 12 *
    (bits(k + 1) - bits(k)). A Gaussian's difference grows as 2k + 1: all thresholds of a row are
    stretched alike, which one factor does before plain rounding.

    Args:
        tables: of `freeze`; their exact costs count.
        strength: share of the bits that is counted. Below 1, as a zero also spoils the context of
            its neighbours; 0 is plain rounding.

    Returns:
        float32 [rows]; 0 for rows that are not coded.
    """
    factors = np.zeros(len(tables), np.float32)
    for row in np.flatnonzero(tables.lengths):
        index = np.array([row], np.uint8)
        zero, one = (tables.cost_bits(np.array([k], np.int16), index) for k in (0, 1))
        factors[row] = 1 / (1 + strength * math.log(2) / 6 * max(0.0, one - zero))
    return torch.from_numpy(factors)
