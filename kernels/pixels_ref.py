"""Planes of pictures by online prediction and mixing: the definition of every bit.

Nothing is trained beforehand and nothing is sent but decisions: encoder and decoder learn the same
from what is already coded. Each sample of a plane, row by row:

1. Eight experts predict it: two least-squares fits over 16 taps (own neighbours and, of up to two
   planes before, the neighbours on all sides) with weights that fall exponentially with the
   distance, near and far (`pixels_taps_ref.LeastSquares`); each with a slow gradient descent over
   up to 48 taps on top; their blend by recent errors; the blend with the mean error in its texture,
   and with that in the signs of recent errors; the edge-detecting median of JPEG-LS.
2. The sample is told as steps from the best prediction: on which side, in which span, where in it
   (`PlaneCoder._sample` in `pixels_plane_ref`), some three binary decisions for a photograph.
3. Each decision has a probability by each expert (a logistic distribution whose scale comes from
   the errors around) and by eight adaptive counters in different contexts, one of which is what
   came after the same surroundings before (`pixels_plane_ref.Match`). Three sets of weights
   mix these in the logistic domain, two maps correct the mixture by what came of ones like it
   and a binary arithmetic coder takes it (`pixels_mix_ref`).

Least squares around a pixel follow Wu, Barthel and Zhang ("Piecewise 2D autoregression for
predictive image coding", ICIP 1998) and Meyer and Tischer (TMW, 1997); the recursion that makes
them cheap enough to be solved for every pixel, and all else here, is our own. Mixing in the
logistic domain is Mahoney's ("Adaptive weighing of context models for lossless data compression",
2005).

All numbers are IEEE binary32 with + - * / only, each operation rounded by itself, and sums of
vectors in the order of `pixels_numbers_ref.total`, so every machine computes the same. A
near-lossless plane takes steps of 2 * error + 1, and what is decoded is what all models see.
"""

from collections.abc import Sequence

import numpy as np

from .pixels_mix_ref import Coder, Decoder, Encoder
from .pixels_numbers_ref import Samples
from .pixels_plane_ref import PlaneCoder
from .pixels_taps_ref import Canvas, Plane

__all__ = ["Plane", "decode", "encode"]


def encode(samples: Samples, planes: Sequence[Plane]) -> bytes:
    """Code samples [planes, height, width]; they become what is decoded."""
    coder = Encoder()
    _run(samples, planes, coder)
    return coder.finish()


def decode(data: bytes, planes: Sequence[Plane], height: int, width: int) -> Samples:
    """The mirror of `encode`. Any bytes decode to something."""
    samples = np.zeros((len(planes), height, width), np.uint16)
    _run(samples, planes, Decoder(data))
    return samples


def _run(samples: Samples, planes: Sequence[Plane], coder: Coder) -> None:
    """Code the planes one after the other."""
    _, height, width = samples.shape
    canvases: list[Canvas] = []
    misses: list[Canvas] = []
    for plane, rows in zip(planes, samples, strict=True):
        canvases.append(Canvas(height, width))
        misses.append(Canvas(height, width))
        PlaneCoder(plane, canvases, misses, coder).run(rows)
