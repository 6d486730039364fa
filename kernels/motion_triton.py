"""Prediction by motion fields on any GPU that Triton knows. `motion_ref` defines the samples.

A program makes one block of one plane: 8 x 8 samples, 4 x 4 in planes of half the size. Integers
are exact; floats are summed in the order of `motion_ref`.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl

from .motion_ref import BLOCK, DEPTH, MEAN, TAPS

MAX_SCALE = 2  # maps of an eighth of the size are a gather of single cells: torch does that


def warp(
    references: torch.Tensor,
    vectors: torch.Tensor,
    mode: torch.Tensor | None = None,
    *,
    scale: int = 1,
    bits: int = 8,
) -> torch.Tensor:
    """The prediction of planes, on their device.

    Args:
        references: [references, planes, rows, columns], uint8, int16 or float32, contiguous.
        vectors: int16 [h, w, 2] of one reference, [2, h, w, 2] of two, contiguous.
        mode: uint8 [h, w] with two references.
        scale: 1 for planes as large as luma, 2 for half its size.
        bits: of integer samples.

    Returns:
        [planes, rows, columns]: int16 of 14 bits, or float32.

    Raises:
        ValueError: a wrong dtype, shape, scale or device.
    """
    count, planes, rows, columns = references.shape
    kinds = (torch.uint8, torch.int16, torch.float32)
    if scale not in range(1, MAX_SCALE + 1) or references.dtype not in kinds:
        raise ValueError(f"scale {scale}, {references.dtype}: expected 1 or 2, one of {kinds}")
    side = BLOCK // scale
    h, w = -(-rows // side), -(-columns // side)
    full = (h, w, 2) if mode is None else (2, h, w, 2)
    if count != (1 if mode is None else 2) or tuple(vectors.shape) != full:
        raise ValueError(f"vectors are {tuple(vectors.shape)} for {count} references")
    if vectors.dtype != torch.int16 or vectors.device != references.device:
        raise ValueError(f"vectors are {vectors.dtype} on {vectors.device}, expected int16")
    if mode is not None and (mode.dtype != torch.uint8 or tuple(mode.shape) != (h, w)):
        raise ValueError(f"mode is {mode.dtype} {tuple(mode.shape)}, expected uint8 {(h, w)}")
    if not (references.is_contiguous() and vectors.is_contiguous()):
        raise ValueError("references and vectors must be contiguous")
    floats = references.dtype == torch.float32
    out = torch.empty(
        (planes, rows, columns), dtype=references.dtype if floats else torch.int16,
        device=references.device,
    )  # fmt: skip
    taps = torch.from_numpy(TAPS[scale].astype("int32")).to(references.device)
    _warp[(h * w, planes)](
        references, vectors, vectors if mode is None else mode, taps, out, planes, rows, columns,
        h, w, 0 if floats else DEPTH - bits, taps.shape[0], taps.shape[1], side,
        mode is not None, floats, MEAN, (1 << DEPTH) - 1,
    )  # fmt: skip
    return out


@triton.jit
def _moved(
    plane, taps, rows, columns, y, x, dy, dx, up,
    PARTS: tl.constexpr, TAPS_: tl.constexpr, FLOATS: tl.constexpr,
):  # fmt: skip
    """Samples at rows y [side, 1] and columns x [1, side], moved by (dy, dx) parts."""
    # Division of what may be negative, towards minus infinity.
    f, g = dy & (PARTS - 1), dx & (PARTS - 1)
    top = y + (dy - f) // PARTS - (TAPS_ // 2 - 1)
    left = x + (dx - g) // PARTS - (TAPS_ // 2 - 1)
    if FLOATS:
        total = tl.zeros((y.shape[0], x.shape[1]), tl.float32)
    else:
        total = tl.full((y.shape[0], x.shape[1]), 32, tl.int32)
    for j in range(TAPS_):
        if FLOATS:
            a = tl.zeros((y.shape[0], x.shape[1]), tl.float32)
        else:
            a = tl.full((y.shape[0], x.shape[1]), 32, tl.int32)
        r = tl.minimum(tl.maximum(top + j, 0), rows - 1).to(tl.int64)
        for k in range(TAPS_):
            c = tl.minimum(tl.maximum(left + k, 0), columns - 1)
            sample = tl.load(plane + r * columns + c)
            tap = tl.load(taps + g * TAPS_ + k)
            if FLOATS:
                a += (tap.to(tl.float32) / 64) * sample
            else:
                a += tap * (sample.to(tl.int32) << up)
        tap = tl.load(taps + f * TAPS_ + j)
        if FLOATS:
            total += (tap.to(tl.float32) / 64) * a
        else:
            total += tap * (a >> 6)
    if FLOATS:
        moved = total
    else:
        moved = tl.minimum(tl.maximum(total >> 6, -32768), 32767)
    return moved


@triton.jit
def _warp(
    references, vectors, modes, taps, out, planes, rows, columns, h, w, up,
    PARTS: tl.constexpr, TAPS_: tl.constexpr, SIDE: tl.constexpr, TWO: tl.constexpr,
    FLOATS: tl.constexpr, BOTH: tl.constexpr, MOST: tl.constexpr,
):  # fmt: skip
    block, plane = tl.program_id(0), tl.program_id(1).to(tl.int64)
    size = rows.to(tl.int64) * columns
    y = (block // w * SIDE + tl.arange(0, SIDE))[:, None]
    x = (block % w * SIDE + tl.arange(0, SIDE))[None, :]
    dy = tl.load(vectors + 2 * block).to(tl.int32)
    dx = tl.load(vectors + 2 * block + 1).to(tl.int32)
    first = references + plane * size
    p = _moved(first, taps, rows, columns, y, x, dy, dx, up, PARTS, TAPS_, FLOATS)
    if TWO:
        mode = tl.load(modes + block)
        dy = tl.load(vectors + 2 * (h * w + block)).to(tl.int32)
        dx = tl.load(vectors + 2 * (h * w + block) + 1).to(tl.int32)
        second = first + planes * size
        q = _moved(second, taps, rows, columns, y, x, dy, dx, up, PARTS, TAPS_, FLOATS)
        if FLOATS:
            mean = (p + q) * 0.5
        else:
            mean = (p + q + 1) >> 1
        p = tl.where(mode == BOTH, mean, tl.where(mode == 1, q, p))
    if not FLOATS:
        p = tl.minimum(tl.maximum(p, 0), MOST)
    inside = (y < rows) & (x < columns)
    at = plane * size + y.to(tl.int64) * columns + x
    tl.store(out + at, p.to(out.dtype.element_ty), mask=inside)
