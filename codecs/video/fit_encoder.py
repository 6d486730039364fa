"""Fitting of `video/fit`: gradient descent on the latents of all frames of a group of pictures and
on the networks that its kinds of frames share.

The frames are visited in rounds, in coding order. A visit makes the prediction of a frame again from
its references as they stand, sometimes looking for its motion once more, goes on with its latents
and the networks of its kind for some iterations (as `codecs/image/fit_encoder.py` does), and decodes
it for those that follow. Before the last round the networks are rounded to what is coded and stay;
in it each frame is finished on references that are what a decoder has.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np

from ...kernels import fit_train
from ..image import fit_encoder as still
from ..image.fit_encoder import Recipe, phase_at
from ..image.fit_state import Array, Networks, Phase
from . import fit_networks as networks
from .fit_networks import Shape
from .fit_order import INTRA, KINDS, Slot
from .fit_state import FrameState, Plane

# What one iteration is worth of the others: by level. I frames have most to say.
_SHARES = (3.0, 1.6, 1.2, 1.0, 0.8, 0.7)


@dataclass(frozen=True)
class Plan:
    """What the quality of a fit depends on besides its length.

    Attributes:
        recipe: of the iterations, over all rounds.
        rounds: visits of each frame before the last one.
        first: the fraction of iterations in the first round.
        last: in the last one.
        weights: of distortion, by the level of a frame: others are made from it.
        searches: rounds before which motion is looked for.
        shares: of the iterations, by level.
    """

    recipe: Recipe = field(default_factory=Recipe)
    rounds: int = 12
    first: float = 0.2
    last: float = 0.2
    weights: tuple[float, ...] = (3.0, 2.0, 1.4, 1.1, 1.0, 0.9)
    searches: tuple[int, ...] = (0, 1, 3, 6)
    shares: tuple[float, ...] = _SHARES

    def weight(self, slot: Slot) -> float:
        """Of a frame's distortion."""
        return self.weights[min(slot.level, len(self.weights) - 1)]

    def share(self, slot: Slot) -> float:
        """Of a frame's iterations."""
        return self.shares[min(slot.level, len(self.shares) - 1)]
