"""Motion fields and what they predict, in NumPy.

This is the definition; every other backend gives exactly these samples.

A picture of H x W luma samples has ceil(H / 8) x ceil(W / 8) blocks of 8 x 8 samples, and a field
says for each block where in the reference its samples come from: (dy, dx) in quarters of a luma
sample. In a plane of half the size (chroma of 4:2:0) blocks have 4 x 4 samples and the same numbers
are eighths of a sample; in a map of an eighth of the size a block is one cell and they are 32nds.

Prediction of integers: samples of b bits are first moved up to 14 bits. With the position of a
sample plus its vector = (y + fy / u, x + fx / u), u being 4 for luma and 8 for chroma,
    a[j] = (sum over k of taps[fx][k] * sample[y + j - n, x + k - n] + 32) >> 6
    p    = (sum over j of taps[fy][j] * a[j] + 32) >> 6, clamped to int16
where n is 3 for the 8 taps of luma and 1 for the 4 taps of chroma, j and k count from 0, and
positions outside of the plane are those of the nearest sample in it. The mean of two references is
(p0 + p1 + 1) >> 1. Last it is clamped to 0 .. 2**14 - 1.

Prediction of floats (binary32): the same with taps / 64, no rounding to integers and no clamp; sums
are in the order of k and j; the mean is (p0 + p1) / 2. Cells of maps of an eighth of the size are
weighted linearly between two neighbours in each direction, (32 - f) / 32 and f / 32.

The taps are the least-squares approximation of a delay over frequencies up to 0.7 (luma) and 0.3
(chroma) of half the sampling rate, rounded together to 64ths.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

Vectors = npt.NDArray[np.int16]
Modes = npt.NDArray[np.uint8]
Prediction = npt.NDArray[np.int16]
Floats = npt.NDArray[np.float32]
Samples = npt.NDArray[np.uint8] | npt.NDArray[np.int16]
Array = npt.NDArray[Any]

BLOCK = 8
DEPTH = 14
FIRST, SECOND, MEAN = 0, 1, 2  # modes
LUMA_TAPS = np.array(
    [
        [0, 0, 0, 64, 0, 0, 0, 0],
        [-1, 3, -9, 57, 18, -6, 2, 0],
        [-1, 4, -11, 40, 40, -11, 4, -1],
        [0, 2, -6, 18, 57, -9, 3, -1],
    ],
    np.int16,
)
CHROMA_TAPS = np.array(
    [
        [0, 64, 0, 0],
        [-2, 59, 8, -1],
        [-4, 53, 18, -3],
        [-5, 46, 27, -4],
        [-5, 37, 37, -5],
        [-4, 27, 46, -5],
        [-3, 18, 53, -4],
        [-1, 8, 59, -2],
    ],
    np.int16,
)
CELL_TAPS = np.array([[64 - 2 * f, 2 * f] for f in range(32)], np.int16)
TAPS = {1: LUMA_TAPS, 2: CHROMA_TAPS, 8: CELL_TAPS}  # by how much smaller than luma a plane is


class Field(NamedTuple):
    """Motion of a picture's blocks.

    Attributes:
        vectors: int16 [h, w, 2], (dy, dx) in quarters of a luma sample; of two references
            [2, h, w, 2].
        mode: uint8 [h, w] with two references: FIRST, SECOND or MEAN; None with one.
    """

    vectors: Vectors
    mode: Modes | None = None


def blocks(height: int, width: int) -> tuple[int, int]:
    """Rows and columns of the blocks of a picture."""
    return -(-height // BLOCK), -(-width // BLOCK)


def warp(references: Sequence[Sequence[Samples]], field: Field, bits: int = 8) -> list[Prediction]:
    """The prediction of every plane of a picture.

    Args:
        references: one or two pictures: luma [H, W], or it and planes of half the size
            [ceil(H / 2), ceil(W / 2)].
        field: with `mode` where there are two.
        bits: of the references' samples.

    Returns:
        Planes int16 of 14 bits.
    """
    out = []
    for number, planes in enumerate(zip(*references, strict=True)):
        shape, scale = planes[0].shape, 2 if number else 1
        made = [
            _moved(plane.astype(np.int64) << (DEPTH - bits), *_per_sample(v, shape, scale), scale)
            for plane, v in zip(planes, _by_reference(field), strict=True)
        ]
        p = made[0]
        if field.mode is not None:
            mode = _spread(field.mode, shape, scale)
            mean = (made[0] + made[1] + 1) >> 1
            p = np.where(mode == MEAN, mean, np.where(mode == SECOND, made[1], made[0]))
        out.append(p.clip(0, (1 << DEPTH) - 1).astype(np.int16))
    return out


def warp_float(references: Sequence[Floats], field: Field, scale: int) -> Floats:
    """The prediction of float32 planes [C, rows, columns] that are `scale` times smaller than luma.

    Args:
        references: one or two.
        field: with `mode` where there are two.
        scale: 1, 2 or 8.
    """
    shape = references[0].shape[1:]
    made = []
    for planes, v in zip(references, _by_reference(field), strict=True):
        y, x = _per_sample(v, shape, scale)
        made.append(np.stack([_moved(plane, y, x, scale) for plane in planes]))
    if field.mode is None:
        return made[0]
    mode = _spread(field.mode, shape, scale)
    mean = (made[0] + made[1]) * np.float32(0.5)
    return np.where(mode == MEAN, mean, np.where(mode == SECOND, made[1], made[0]))


def _by_reference(field: Field) -> Sequence[Vectors]:
    return [field.vectors] if field.mode is None else list(field.vectors)


def _spread(values: Array, shape: Sequence[int], scale: int) -> Array:
    """What blocks have, for every sample."""
    side = BLOCK // scale
    return values.repeat(side, 0).repeat(side, 1)[: shape[0], : shape[1]]


def _per_sample(vectors: Vectors, shape: Sequence[int], scale: int) -> tuple[Array, Array]:
    """Rows and columns that samples come from, in parts of a sample."""
    unit = len(TAPS[scale])
    moves = _spread(vectors, shape, scale).astype(np.int64)
    rows, columns = np.mgrid[: shape[0], : shape[1]]
    return rows * unit + moves[..., 0], columns * unit + moves[..., 1]


def _moved(plane: Array, y: Array, x: Array, scale: int) -> Array:
    taps = TAPS[scale] if plane.dtype == np.int64 else TAPS[scale].astype(np.float32) / 64
    unit, count = taps.shape
    before = count // 2 - 1
    rows, columns = plane.shape
    down, across = taps[y % unit], taps[x % unit]
    total = np.zeros(y.shape, plane.dtype)
    for j in range(count):
        a = np.zeros(y.shape, plane.dtype)
        r = (y // unit + j - before).clip(0, rows - 1)
        for k in range(count):
            c = (x // unit + k - before).clip(0, columns - 1)
            a = a + across[..., k] * plane[r, c]
        total = total + down[..., j] * _rounded(a)
    made = _rounded(total)
    return made if plane.dtype == np.float32 else made.clip(-32768, 32767)


def _rounded(total: Array) -> Array:
    return total if total.dtype == np.float32 else (total + 32) >> 6
