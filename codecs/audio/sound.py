"""What a lossy sound codec takes: samples of several kinds, as floats."""

from __future__ import annotations

import torch
from torch import Tensor

MOST_CHANNELS = 64
_SCALES = {torch.int16: 2.0**-15, torch.int32: 2.0**-31}


def to_float(x: Tensor, codec: str) -> Tensor:
    """Samples as float32 [C, N], full scale at -1 and 1.

    Args:
        x: [C, N], floats, or int16 or int32 at full scale.
        codec: its name, for messages.

    Raises:
        ValueError: another shape or dtype, or numbers that are not finite.
    """
    if x.ndim != 2 or not 1 <= x.shape[0] <= MOST_CHANNELS:
        raise ValueError(
            f"{codec} takes a sound as [channels, samples] of 1 to {MOST_CHANNELS} channels, got "
            f"{list(x.shape)}"
        )
    if x.dtype in _SCALES:
        return x.float() * _SCALES[x.dtype]
    if not x.is_floating_point():
        raise ValueError(f"{codec} takes floats, int16 or int32, got {x.dtype}")
    if not bool(torch.isfinite(x).all()):
        raise ValueError(f"{codec} takes finite samples, got NaN or infinity; clean it first")
    return x.detach().float()
