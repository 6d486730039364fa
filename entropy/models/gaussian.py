"""Gaussian entropy model over a fixed table of scales: the network speaks in table rows.

The prediction is a row number (a real number in training, a uint8 in the stream), so no float
scale is ever turned into a table choice on the decoder. Row i stands for the standard deviation
`MIN_SCALE * exp(STEP * i)`; Minnen et al., "Joint Autoregressive and Hierarchical Priors", 2018,
for the model; TensorFlow Compression's indexed models for the idea of emitting the index.
"""

import math

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
