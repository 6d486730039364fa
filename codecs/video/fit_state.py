"""What fitting a group of pictures for `video/fit` changes: the state of a frame."""

from __future__ import annotations

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
        height, width = even_size(planes)
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

    def grids(self) -> list[Grid]:
        """The latents as they would be coded: all grids, finest first."""
        values = self.rounded().astype(np.int16)
        sizes = [rows * columns for rows, columns in self.shapes[self.first :]]
        ends = np.cumsum(sizes)[:-1]
        parts = np.split(values, ends)
        zeros = [np.zeros(shape, np.int16) for shape in self.shapes[: self.first]]
        coded = [p.reshape(s) for p, s in zip(parts, self.shapes[self.first :], strict=True)]
        return zeros + coded


def even_size(planes: Sequence[Plane]) -> tuple[int, int]:
    """Height and width that grids are of: those of Y, made even with 4:2:0."""
    height, width = planes[0].shape
    return (height, width) if len(planes) == 1 else (height + height % 2, width + width % 2)
