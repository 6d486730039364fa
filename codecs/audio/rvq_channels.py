"""How the channels of a sound become coded channels and back, and which weigh how much.

Two channels are coded as they are, or as mid and side, whichever puts more of the energy into one
of them (Johnston and Ferreira, "Sum-difference stereo transform coding", ICASSP 1992); weaker coded
channels get fewer codebooks. More channels are coded as they are.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

SILENT = 2.0**-15  # peak of what counts as silence: the last bit of 16
_JOINT = ((0.5, 0.5), (0.5, -0.5))  # mid and side
_SWITCH_DB = 3.0  # by which the other way must be better before it is taken
_DB_PER_STAGE = 2.0  # a coded channel weaker by so much gets a codebook less
_FLOOR = 1e-9  # of energies


def into(channels: int, joint: bool) -> Tensor:
    """The matrix from channels to coded channels."""
    return torch.tensor(_JOINT) if joint else torch.eye(channels)


def out_of(channels: int, joint: bool) -> Tensor:
    """Its inverse."""
    return 2 * torch.tensor(_JOINT) if joint else torch.eye(channels)


def choose_joint(x: Tensor, last: bool) -> bool:
    """Whether two channels [2, n] are better coded as mid and side.

    Args:
        x: the samples.
        last: what was chosen before.
    """
    apart = _contrast_db(x)
    joint = _contrast_db(into(2, True) @ x)
    return joint > apart - _SWITCH_DB if last else joint > apart + _SWITCH_DB


def _contrast_db(x: Tensor) -> float:
    energies = x.square().mean(1) + _FLOOR
    return abs(10 * math.log10(float(energies[0] / energies[1])))


def fewer_stages(x: Tensor) -> list[int]:
    """By how many codebooks each coded channel [C, n] gets less than the strongest."""
    level = 10 * (x.square().mean(1) + _FLOOR).log10()
    return [int(less) for less in ((level.max() - level) / _DB_PER_STAGE).round()]


def stages_of(base: int, fewer: Sequence[int], most: int) -> list[int]:
    """Codebooks of each coded channel when the strongest gets `base`."""
    return [min(max(1, base - less), most) for less in fewer]


def mix(x: Tensor, start: Tensor, end: Tensor, hold: int, ramp: int) -> Tensor:
    """Apply a matrix that goes over from one to another.

    Args:
        x: float [C, n].
        start: [C', C], for the first `hold` samples.
        end: [C', C], behind the ramp.
        hold: samples.
        ramp: samples in which the one becomes the other.
    """
    if torch.equal(start, end):
        return _apply(end, x)
    share = (torch.arange(ramp) + 0.5) / ramp
    risen = x[:, hold : hold + ramp]
    middle = _apply(start, risen * (1 - share)) + _apply(end, risen * share)
    parts = (_apply(start, x[:, :hold]), middle, _apply(end, x[:, hold + ramp :]))
    return torch.cat(parts, 1)


def _apply(matrix: Tensor, x: Tensor) -> Tensor:
    """The product, channel by channel, so that a sample's sum does not depend on its neighbours."""
    total = torch.zeros(len(matrix), x.shape[1])
    for column, row in zip(matrix.unbind(1), x, strict=True):
        total = total + column[:, None] * row
    return total
