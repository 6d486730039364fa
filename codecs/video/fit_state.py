"""What fitting a group of pictures for `video/fit` changes: the state of a frame."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...kernels import fit_train
from ...kernels.fit_train import Frame
from ..image import fit_networks as still
from ..image.fit_state import Array, Latents
from .fit_order import Slot

Plane = NDArray[Any]  # uint8, or int16 for more bits
Grid = NDArray[np.int16]


class FrameState:
    """A frame, what it is predicted from, and its latents.

    Attributes:
        slot: its place in the group.
        planes: what it should become.
        latents: of the grids from `first` on.
        field: its motion; None where it has no references yet.
        frame: planes and prediction as iterations take them.
        decoded: planes as they stand.
    """

    def __init__(self, slot: Slot, planes: Sequence[Plane], bits: int, first: int, damping: float):
        """Begin with latents of zeros."""
        self.slot, self.planes, self.bits, self.first = slot, list(planes), bits, first
        height, width = even_shape([p.shape for p in planes])
        self.shapes = still.grid_shapes(height, width)
        sizes = [rows * columns for rows, columns in self.shapes[first:]]
        self.latents = Latents(np.zeros(sum(sizes), np.float32), sizes, damping)
        self.field: Any = None
        self.prediction: list[NDArray[np.int16]] = []
        self.frame: Frame = fit_train.frame_of(self.planes, bits)
        self.decoded: list[Plane] = []

    def predict(self, prediction: Sequence[NDArray[np.int16]]) -> None:
        """Take another prediction."""
        self.prediction = list(prediction)
        self.frame = fit_train.frame_of(self.planes, self.bits, self.prediction)

    def rounded(self) -> Array:
        """The latents as they would be coded, as floats."""
        values: Array = np.clip(np.rint(self.latents.values), -still.LIMIT, still.LIMIT)
        return values

    def flat(self, grids: Sequence[Grid]) -> Array:
        """Grids of a frame of this size as iterations take them."""
        joined = np.concatenate([grid.reshape(-1) for grid in grids[self.first :]])
        flat: Array = joined.astype(np.float32)
        return flat

    def error(self, decoded: Sequence[Plane]) -> float:
        """The sum of squared errors over luma, in 8 bits, of which chroma has its share."""
        unit = 4.0 ** (self.bits - 8)
        means = [
            float(np.square(a.astype(np.int32) - b).mean(dtype=np.float64)) / unit
            for a, b in zip(self.planes, decoded, strict=True)
        ]
        mean = means[0] if len(means) == 1 else (6 * means[0] + means[1] + means[2]) / 8
        return mean * math.prod(even_shape([p.shape for p in self.planes]))

    def grids(self) -> list[Grid]:
        """The latents as they would be coded: all grids, finest first."""
        values = self.rounded().astype(np.int16)
        sizes = [rows * columns for rows, columns in self.shapes[self.first :]]
        ends = np.cumsum(sizes)[:-1]
        parts = np.split(values, ends)
        zeros = [np.zeros(shape, np.int16) for shape in self.shapes[: self.first]]
        coded = [p.reshape(s) for p, s in zip(parts, self.shapes[self.first :], strict=True)]
        return zeros + coded


def even_shape(shapes: Sequence[tuple[int, ...]]) -> tuple[int, int]:
    """Height and width that grids are of, of the planes' shapes: those of Y, even with 4:2:0."""
    height, width = shapes[0]
    return (height, width) if len(shapes) == 1 else (height + height % 2, width + width % 2)
