"""The grids of `video/inr` as symbols: what is expected of each value, in integers only.

A value y of frame t is expected at follow / 16 of the value at its place in frame t - 1, and as far
from it as its surroundings were: the misses at frame t - 1 around it, and of the coarser level at
frame t above it. Both are decoded before, so a whole level is one call of the coder.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ...entropy.models.laplace import FRACTIONS, SCALES
from ...kernels.errors import BitstreamError

CLASSES = 8
LIMIT = 1 << 13  # of a value
_ABOVE = 4  # weight of a miss of the coarser level
_SIXTEENTHS = 16  # MOST_FOLLOW of them are all of the value before

Array = npt.NDArray[np.int32]
Rows = npt.NDArray[np.uint8]
Symbols = npt.NDArray[np.int16]
Get = Callable[[Rows], Symbols]


@dataclass(frozen=True)
class Expectation:
    """Of the grids of one level.

    Attributes:
        follow: of each channel, 0 to 16: sixteenths of the value before that are expected.
        row: of each channel, 0 to 27: of the Laplace tables, for class 0.
        lift: int32 [2, 8]: what the class of the surroundings adds to the row; in the first frame,
            and in the others.
    """

    follow: Array
    row: Array
    lift: Array

    def rows(self, classes: Array, first: bool) -> Array:
        """Rows of the Laplace tables, int32 [C, H, W], for classes [H, W]."""
        moved: Array = self.row[:, None, None] + self.lift[0 if first else 1][classes]
        return moved.clip(0, SCALES - 1)


def classes_of(before: Array | None, above: Array | None, shape: tuple[int, int]) -> Array:
    """The class of the surroundings of each position, int32 [H, W] of 0 .. 7.

    Args:
        before: the sum over the channels of the misses |y - expected| in the frame before, [H, W].
        above: the same of the coarser level in this frame, [ceil(H / 2), ceil(W / 2)].
        shape: H and W.
    """
    height, width = shape
    total = np.zeros(shape, np.int32)
    if before is not None:
        padded = np.pad(before, 1)
        rows = padded[:-2] + padded[1:-1] + padded[2:]
        total += rows[:, :-2] + rows[:, 1:-1] + rows[:, 2:]
    if above is not None:
        total += _ABOVE * above.repeat(2, 0).repeat(2, 1)[:height, :width]
    return np.frexp(total.astype(np.float32))[1].clip(0, CLASSES - 1).astype(np.int32)


def expected(follow: Array, before: Array | None, shape: tuple[int, ...]) -> tuple[Array, Array]:
    """What is expected of values [C, H, W], rounded, and the sixteenths from there, -8 .. 7."""
    if before is None:
        return np.zeros(shape, np.int32), np.zeros(shape, np.int32)
    sixteenths = follow[:, None, None] * before
    mean = (sixteenths + _SIXTEENTHS // 2) >> 4
    return mean, sixteenths - _SIXTEENTHS * mean


class Walk:
    """Goes through the grids in the order of the stream: frame by frame, coarsest level first."""

    def __init__(self, expectations: list[Expectation], sizes: list[tuple[int, int]]) -> None:
        """Begin at the first frame.

        Args:
            expectations: of each level, finest first; a level without grids has no channels.
            sizes: height and width of each level.
        """
        self._expectations, self._sizes = expectations, sizes
        self._values: list[Array | None] = [None] * len(sizes)
        self._misses: list[Array | None] = [None] * len(sizes)
        self._first = True

    def frame(self, code: Callable[[int, Array, Array, Array], Array]) -> list[Array]:
        """Go through a frame; returns its values at each level.

        Args:
            code: (level, rows, mean, sixteenths) -> values, all [C, H, W].
        """
        above: Array | None = None
        for level in range(len(self._sizes) - 1, -1, -1):
            expectation, size = self._expectations[level], self._sizes[level]
            shape = (len(expectation.row), *size)
            if not shape[0]:
                above = None
                continue
            classes = classes_of(self._misses[level], above, size)
            rows = expectation.rows(classes, self._first)
            mean, rest = expected(expectation.follow, self._values[level], shape)
            values = code(level, rows, mean, rest)
            above = np.abs(values - mean).sum(0, dtype=np.int32)
            self._values[level], self._misses[level] = values, above
        self._first = False
        return [
            np.zeros((0, *size), np.int32) if values is None else values
            for values, size in zip(self._values, self._sizes, strict=True)
        ]


def symbols(
    expectations: list[Expectation], frames: list[list[Array]], sizes: list[tuple[int, int]]
) -> Iterator[tuple[Symbols, Rows]]:
    """What is written of each level of each frame, in the order of the stream.

    Args:
        expectations: of each level.
        frames: the values of each level [C, H, W] of each frame.
        sizes: height and width of each level.
    """
    walk = Walk(expectations, sizes)
    made: list[tuple[Symbols, Rows]] = []
    for values in frames:

        def code(level: int, rows: Array, mean: Array, rest: Array) -> Array:
            off = values[level] - mean  # noqa: B023
            signed = np.where(rest < 0, -off, off)
            made.append((signed.astype(np.int16).ravel(), _table_rows(rows, rest)))
            return values[level]  # noqa: B023

        walk.frame(code)
        yield from made
        made.clear()


def parse(
    expectations: list[Expectation], sizes: list[tuple[int, int]], count: int, get: Get
) -> list[list[Array]]:
    """The mirror of `symbols`: the values of each level of each frame.

    Raises:
        BitstreamError: a value is beyond its limit.
    """
    walk = Walk(expectations, sizes)

    def code(level: int, rows: Array, mean: Array, rest: Array) -> Array:
        signed = get(_table_rows(rows, rest)).astype(np.int32).reshape(mean.shape)
        values: Array = mean + np.where(rest < 0, -signed, signed)
        if int(np.abs(values).max()) > LIMIT:
            raise BitstreamError(f"a grid of level {level} has a value beyond {LIMIT}")
        return values

    return [walk.frame(code) for _ in range(count)]


def _table_rows(rows: Array, rest: Array) -> Rows:
    named: Rows = (FRACTIONS * rows + np.abs(rest)).astype(np.uint8).ravel()
    return named
