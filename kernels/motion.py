"""Motion of blocks: search, coding, prediction. Checks arguments and picks the best backend.

What a field predicts is defined in `motion_ref` and its bytes in `motion_coder_ref`; every backend
gives exactly those. The search gives the same field with every compiled backend. The interpreter
lock is released meanwhile.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from . import motion_coder_ref, motion_ref, rans
from .errors import BitstreamError
from .extension import compiled
from .motion_ref import (
    CHROMA_TAPS,
    DEPTH,
    LUMA_TAPS,
    MEAN,
    TAPS,
    Array,
    Field,
    Floats,
    Prediction,
    Samples,
    blocks,
)

__all__ = [
    "CHROMA_TAPS",
    "EFFORTS",
    "LUMA_TAPS",
    "Field",
    "blocks",
    "decode",
    "encode",
    "search",
    "warp",
    "warp_float",
]

EFFORTS = 3
MAX_SIDE = 65536  # of a picture
_NOTHING = np.empty(0, np.uint8)
_KINDS = {np.dtype(np.uint8): 0, np.dtype(np.int16): 1}


def warp(
    references: Sequence[Sequence[Samples]],
    field: Field,
    bits: int = 8,
    *,
    backend: str | None = None,
) -> list[Prediction]:
    """The prediction of a picture from one or two others, as integers.

    Args:
        references: one or two pictures, each of 1 or more planes: luma [H, W] first, others
            [ceil(H / 2), ceil(W / 2)]. uint8, or int16 without negative samples; contiguous.
        field: vectors [h, w, 2] for one picture, [2, h, w, 2] and a mode for two; (h, w) is
            `blocks(H, W)`. Vectors may point anywhere: edges repeat.
        bits: of the samples, 8 to 14; 8 for uint8.
        backend: one of `rans.backends()`; None = the fastest. The result is the same.

    Returns:
        A plane int16 for each plane, of 14 bits: what `sample << (14 - bits)` would predict.

    Raises:
        ValueError: a wrong dtype, shape, number of references or mode.
    """
    planes = list(zip(*references, strict=True))
    if not planes or not planes[0][0].size:
        raise ValueError("there is nothing to predict from: no planes, or empty ones")
    _check_references(len(references), field)
    height, width = planes[0][0].shape
    _check_field(field, blocks(height, width))
    kind = planes[0][0].dtype
    if kind not in _KINDS or not 8 <= bits <= (8 if kind == np.uint8 else DEPTH):
        raise ValueError(
            f"references are {kind} of {bits} bits, expected uint8 or int16 of 8 to 14"
        )
    for number, pair in enumerate(planes):
        shape = (-(-height // 2), -(-width // 2)) if number else (height, width)
        for plane in pair:
            if plane.dtype != kind or plane.shape != shape or not plane.flags.c_contiguous:
                raise ValueError(
                    f"plane {number} is {plane.dtype} {plane.shape}, "
                    f"expected {kind} {shape}, contiguous"
                )
            if kind == np.int16 and (int(plane.min()) < 0 or int(plane.max()) >> bits):
                raise ValueError(f"plane {number} has samples outside of {bits} bits")
    chosen = rans.pick(backend)
    if chosen == "ref":
        return motion_ref.warp(references, field, bits)
    out = []
    for number, pair in enumerate(planes):
        rows, columns = pair[0].shape
        to = np.empty((rows, columns), np.int16)
        compiled().motion_warp(
            pair[0], pair[-1] if len(pair) > 1 else _NOTHING, *_buffers(field),
            (1, rows, columns), _KINDS[kind], 2 if number else 1, bits, to,
            rans.ISAS.index(chosen),
        )  # fmt: skip
        out.append(to)
    return out


def warp_float(
    references: Sequence[Floats], field: Field, scale: int = 1, *, backend: str | None = None
) -> Floats:
    """The prediction of float32 planes or feature maps, with the same field for all of them.

    Args:
        references: one or two arrays float32 [C, rows, columns], contiguous.
        field: as for `warp`, of the picture.
        scale: by how much smaller than luma the maps are: 1 (blocks of 8 x 8, 8 taps), 2 (4 x 4,
            4 taps) or 8 (one cell for each block, bilinear).
        backend: as for `warp`.

    Returns:
        float32 [C, rows, columns]; neither rounded nor clamped.

    Raises:
        ValueError: a wrong dtype, shape, scale, number of references or mode.
    """
    if scale not in TAPS:
        raise ValueError(f"scale is {scale}, expected one of {tuple(TAPS)}")
    _check_references(len(references), field)
    shape = references[0].shape
    for planes in references:
        if planes.dtype != np.float32 or planes.ndim != 3 or not planes.flags.c_contiguous:
            raise ValueError(
                f"a reference is {planes.dtype} {planes.shape}, expected float32 [C, rows, columns]"
            )
        if planes.shape != shape or not planes.size:
            raise ValueError(f"references are {shape} and {planes.shape}: not alike, or empty")
    side = motion_ref.BLOCK // scale
    _check_field(field, (-(-shape[1] // side), -(-shape[2] // side)))
    chosen = rans.pick(backend)
    if chosen == "ref":
        return motion_ref.warp_float(references, field, scale)
    to = np.empty(shape, np.float32)
    compiled().motion_warp(
        references[0], references[-1] if len(references) > 1 else _NOTHING, *_buffers(field),
        shape, 2, scale, DEPTH, to, rans.ISAS.index(chosen),
    )  # fmt: skip
    return to


def search(
    current: Samples,
    references: Sequence[Samples],
    lmbda: float,
    *,
    bits: int = 8,
    effort: int = 1,
    before: Field | None = None,
    backend: str | None = None,
) -> Field:
    """A field that predicts luma well and costs few bits.

    It minimises, as far as a search can, the rate of the field plus what is left: coefficients of
    8 x 8 Hadamard transforms of the difference cost lmbda times their square, or where that is less
    the rate of coding them down to that cost (reverse water-filling).

    Args:
        current: luma [H, W] of the picture, uint8 or int16.
        references: luma of one or two other pictures, alike.
        lmbda: what a unit of squared error (of a luma sample of 8 bits) is worth in bits: the
            objective is bits + lmbda * squared error.
        bits: of the samples, 8 to 14.
        effort: 0 (one pass), 1 (two) or 2 (three, and farther).
        before: a field for as many references that the decoder has as well when it decodes the new
            one (of the picture before): vectors like its cost little.
        backend: a compiled one of `rans.backends()`; None = the fastest. The result is the same.

    Returns:
        The field.

    Raises:
        ValueError: a wrong dtype, shape, number, effort or lmbda.
        RuntimeError: the compiled kernels are missing.
    """
    chosen = rans.pick(backend)
    if chosen == "ref":
        raise RuntimeError(
            "the search for motion has compiled backends only; "
            "reinstall latentpack where there is a C++ compiler"
        )
    if not 1 <= len(references) <= 2:
        raise ValueError(f"{len(references)} references, expected 1 or 2")
    if not 0 < lmbda < float("inf") or effort not in range(EFFORTS):
        raise ValueError(f"lmbda {lmbda}, effort {effort}: expected above 0, below {EFFORTS}")
    shape = current.shape
    if len(shape) != 2 or not current.size:
        raise ValueError(f"current is {shape}, expected [H, W]")
    pictures = []
    for picture in (current, *references):
        if picture.dtype != current.dtype or picture.shape != shape:
            raise ValueError(
                f"a picture is {picture.dtype} {picture.shape}, expected {current.dtype} {shape}"
            )
        pictures.append(_as_bytes(picture, bits))
    h, w = blocks(*shape)
    two = len(references) == 2
    vectors = np.zeros((2, h, w, 2) if two else (h, w, 2), np.int16)
    field = Field(vectors, np.zeros((h, w), np.uint8) if two else None)
    if before is not None:
        _check_before(before, (h, w), two)
    compiled().motion_search(
        pictures[0], pictures[1], pictures[2] if two else _NOTHING, shape,
        *_buffers(before), lmbda, effort,
        *_buffers(field), rans.ISAS.index(chosen),
    )  # fmt: skip
    return field


def encode(field: Field, before: Field | None = None, *, backend: str | None = None) -> bytes:
    """Code a field, without its size.

    Args:
        field: of one reference or of two.
        before: a field of the same size for as many references, which the decoder has too (of the
            picture before); motion like its costs less.
        backend: one of `rans.backends()`; None = the fastest. The bytes are the same.

    Returns:
        The bytes; one for a field of zeros (of two references: of zeros and means).

    Raises:
        ValueError: a wrong dtype, shape or mode.
    """
    two = field.mode is not None
    if field.vectors.ndim != (4 if two else 3) or not field.vectors.size:
        raise ValueError(f"vectors are {field.vectors.shape}, expected [h, w, 2] or [2, h, w, 2]")
    h, w = field.vectors.shape[-3:-1]
    shape = h, w
    _check_field(field, shape)
    if before is not None:
        _check_before(before, shape, two)
    if rans.pick(backend) == "ref":
        return motion_coder_ref.encode(field, before)
    data: bytes = compiled().motion_encode(*_buffers(field), *_buffers(before), (8 * h, 8 * w))
    return data


def decode(
    data: bytes | bytearray | memoryview,
    height: int,
    width: int,
    *,
    two: bool = False,
    before: Field | None = None,
    backend: str | None = None,
) -> Field:
    """The field that `encode` coded.

    Args:
        data: all its bytes and no others. There is no checksum: damage gives another field.
        height: of the picture, in luma samples.
        width: of the picture.
        two: whether it is for two references.
        before: as it was for encoding.
        backend: as for `encode`.

    Raises:
        ValueError: a wrong size or field before.
        BitstreamError: there are more bytes than the field takes.
    """
    if not (0 < height <= MAX_SIDE and 0 < width <= MAX_SIDE):
        raise ValueError(f"a picture of {height} x {width}, expected sides of 1 to {MAX_SIDE}")
    h, w = blocks(height, width)
    if before is not None:
        _check_before(before, (h, w), two)
    if rans.pick(backend) == "ref":
        field, used = motion_coder_ref.decode(bytes(data), h, w, two, before)
    else:
        vectors = np.zeros((2, h, w, 2) if two else (h, w, 2), np.int16)
        field = Field(vectors, np.zeros((h, w), np.uint8) if two else None)
        used = compiled().motion_decode(data, *_buffers(before), (height, width), *_buffers(field))
    if used < len(data):
        raise BitstreamError(f"the field takes {used} bytes at most, there are {len(data)}")
    return field


def _as_bytes(picture: Array, bits: int) -> Array:
    if picture.dtype == np.uint8 and bits == 8:
        return np.ascontiguousarray(picture)
    if picture.dtype != np.int16 or not 8 <= bits <= DEPTH:
        raise ValueError(f"a picture is {picture.dtype} of {bits} bits, expected uint8 or int16")
    if bits == 8:
        return picture.clip(0, 255).astype(np.uint8)
    rounded = (picture.astype(np.int32) + (1 << (bits - 9))) >> (bits - 8)
    return rounded.clip(0, 255).astype(np.uint8)


def _buffers(field: Field | None) -> tuple[Array, Array]:
    if field is None:
        return _NOTHING, _NOTHING
    mode = _NOTHING if field.mode is None else field.mode
    return np.ascontiguousarray(field.vectors), np.ascontiguousarray(mode)


def _check_references(count: int, field: Field) -> None:
    if count != (1 if field.mode is None else 2):
        raise ValueError(f"{count} references, but a field for {1 if field.mode is None else 2}")


def _check_before(before: Field, shape: tuple[int, int], two: bool) -> None:
    _check_references(1 + two, before)
    _check_field(before, shape)


def _check_field(field: Field, shape: tuple[int, int]) -> None:
    full = (*shape, 2) if field.mode is None else (2, *shape, 2)
    if field.vectors.dtype != np.int16 or field.vectors.shape != full:
        raise ValueError(
            f"vectors are {field.vectors.dtype} {field.vectors.shape}, expected int16 {full}"
        )
    mode = field.mode
    if mode is None:
        return
    if mode.dtype != np.uint8 or mode.shape != shape or int(mode.max()) > MEAN:
        raise ValueError(f"mode is {mode.dtype} {mode.shape}, expected uint8 {shape}, 0 to {MEAN}")
