"""A group of pictures of `video/fit` as bytes, and back to frames.

offset  size  meaning
0       1     preset (low 2 bits) and rate of the prior (high 6 bits)
1       1     p: the trade-off lmbda 2**(p / 16 - 15) that it was fitted for; not needed to decode
2       2 n   for n runs of segments (`fit_order`): length, how many
..      1-4   varint, length m of the motion
..      m     motion of the predicted frames in coding order (`kernels.motion`)
..      rest  one rANS stream: the networks of each kind there is (`image.fit_parameters`), then of
              each frame in coding order which grids are coded, and these (`kernels.fit_ref`)
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from ...kernels import fit, motion, rans
from ...kernels.errors import BitstreamError
from ...kernels.fit_ref import GRIDS, Context, Grid, Synthesis
from ...kernels.motion import Field
from ..fields import read_varint, varint
from ..image import fit_parameters
from ..image.fit_parameters import Coded
from ..image.fit_prior import bits_of, tables
from ..image.fit_stream import lmbda_of
from . import fit_order
from .fit_order import KINDS, MOST_SEGMENT, Slot
from .fit_prior import PRESETS, Prior, PriorFile
from .frames import VideoFormat

_NAMES = {preset.number: name for name, preset in PRESETS.items()}
_MASK_ROW = 9 * 12  # Laplace of scale 1: of the change of a mask
_START_MASK = (1 << GRIDS) - 1

Planes = list[npt.NDArray[Any]]


class Picture(NamedTuple):
    """What is coded of a frame: its motion, if it is predicted, and its latents, finest first."""

    field: Field | None
    grids: list[Grid]


@dataclass(frozen=True)
class Group:
    """What a group of pictures says.

    Attributes:
        priors: of the networks, by kind.
        position: of lmbda.
        lengths: of the segments.
        coded: the networks, by kind; None for kinds of which there is no frame.
        pictures: in coding order.
    """

    priors: Sequence[Prior]
    position: int
    lengths: list[int]
    coded: list[Coded | None]
    pictures: list[Picture]
