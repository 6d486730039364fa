"""The decoder of fitted pictures: checks arguments and picks the fastest backend of this machine.

Everything is defined in `fit_ref`; every backend gives exactly those integers and pixels, with any
number of threads. The interpreter lock is released meanwhile.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from . import fit_ref, rans
from .errors import BitstreamError
from .extension import compiled
from .fit_ref import CROSS, GRIDS, LIMIT, TAPS, Bytes, Context, Grid, Synthesis

__all__ = ["Context", "Synthesis", "decode", "grid_shapes", "symbols", "synthesise"]

grid_shapes = fit_ref.grid_shapes
_MAX_HIDDEN = 32
_OUTSIDE = 100  # kOutside of fit.h


def symbols(
    context: Context, grids: Sequence[Grid], *, threads: int = 1, backend: str | None = None
) -> tuple[Grid, Bytes]:
    """What is coded of grids: see `fit_ref.symbols`.

    Args:
        context: the context model.
        grids: 7 arrays int16, finest first, values within +-LIMIT, of the sizes of `grid_shapes`.
        threads: to compute with.
        backend: one of `rans.backends()`; None = the fastest. The result is the same.

    Returns:
        Symbols int16 [n] and their rows of the tables uint8 [n].
    """
    _check_context(context)
    height, width = _check_grids(grids)
    chosen = rans.pick(backend)
    if chosen == "ref":
        return fit_ref.symbols(context, grids)
    coded = [bool(grid.any()) for grid in grids]
    n = sum(grid.size for grid, there in zip(grids, coded, strict=True) if there)
    values, index = np.empty(n, np.int16), np.empty(n, np.uint8)
    compiled().fit_symbols(
        _packed(context), _joined(grids), (height, width), _mask(coded), values, index,
        threads, rans.ISAS.index(chosen),
    )  # fmt: skip
    return values, index


def decode(
    context: Context, decoder: rans.Decoder, height: int, width: int, coded: Sequence[bool]
) -> list[Grid]:
    """The grids of a picture, with the backend of the decoder: the mirror of `symbols`.

    Args:
        context: the context model.
        decoder: of a stream whose next symbols are those of the grids, with SCALES * FRACTIONS
            rows of tables that are all coded.
        height: of the picture.
        width: of the picture.
        coded: for each grid, finest first, whether it is; others are zeros.

    Raises:
        BitstreamError: the stream is damaged.
    """
    _check_context(context)
    if len(coded) != GRIDS:
        raise ValueError(f"coded has {len(coded)} entries, expected {GRIDS}")
    if decoder.backend == "ref":
        return fit_ref.decode(context, decoder.get, height, width, coded)
    shapes = grid_shapes(height, width)
    joined = np.zeros(sum(r * c for r, c in shapes), np.int16)
    status = decoder.run(
        lambda tables, state, data, skip, isa: compiled().fit_decode(
            _packed(context), tables, state, data, skip, (height, width), _mask(coded), joined, isa
        )
    )
    if status == _OUTSIDE:
        raise BitstreamError(f"a latent is outside +-{LIMIT}")
    return _parted(joined, shapes)


def synthesise(
    synthesis: Synthesis, grids: Sequence[Grid], *, threads: int = 1, backend: str | None = None
) -> Bytes:
    """Pixels uint8 [C, H, W] of grids: see `fit_ref.synthesise`; arguments as for `symbols`."""
    _check_synthesis(synthesis)
    height, width = _check_grids(grids)
    chosen = rans.pick(backend)
    if chosen == "ref":
        return fit_ref.synthesise(synthesis, grids)
    colours = len(synthesis.b2)
    pixels = np.empty((colours, height, width), np.uint8)
    arrays = np.concatenate([a.reshape(-1) for a in synthesis])
    compiled().fit_synthesise(
        (len(synthesis.b1), colours, arrays), _joined(grids), (height, width), pixels,
        threads, rans.ISAS.index(chosen),
    )  # fmt: skip
    return pixels


def _packed(context: Context) -> tuple[int, int, Any]:
    return context.taps, len(context.b2), np.concatenate([a.reshape(-1) for a in context])


def _joined(grids: Sequence[Grid]) -> Grid:
    return np.concatenate([grid.reshape(-1) for grid in grids])


def _parted(joined: Grid, shapes: Sequence[tuple[int, int]]) -> list[Grid]:
    ends = np.cumsum([r * c for r, c in shapes])
    return [part.reshape(s) for part, s in zip(np.split(joined, ends[:-1]), shapes, strict=True)]


def _mask(coded: Sequence[bool]) -> int:
    return sum(1 << k for k, there in enumerate(coded) if there)


def _check_grids(grids: Sequence[Grid]) -> tuple[int, int]:
    """Height and width of the picture."""
    if len(grids) != GRIDS or any(g.ndim != 2 or not g.size for g in grids):
        raise ValueError(f"expected {GRIDS} grids of two dimensions, none of them empty")
    height, width = grids[0].shape
    for grid, shape in zip(grids, grid_shapes(height, width), strict=True):
        if grid.dtype != np.int16 or grid.shape != shape:
            raise ValueError(f"a grid is {grid.dtype} {grid.shape}, expected int16 {shape}")
        if int(grid.max()) > LIMIT or int(grid.min()) < -LIMIT:
            raise ValueError(f"a latent is outside +-{LIMIT}")
    return height, width


def _check_context(context: Context) -> None:
    h, n = context.w1.shape
    taps = n - CROSS
    if not (1 <= taps <= len(TAPS) and h % 8 == 0 and 8 <= h <= _MAX_HIDDEN):
        raise ValueError(f"a context model of {h} units and {n} inputs is not one of these")
    shapes = ((h, n), (GRIDS, h), (h, h), (h,), (2, h), (2, n), (GRIDS, 2))
    for name, array, shape in zip(Context._fields, context, shapes, strict=True):
        most = (1 << 23) if name.startswith("b") else 32767
        if array.dtype != np.int32 or array.shape != shape:
            raise ValueError(f"{name} is {array.dtype} {array.shape}, expected int32 {shape}")
        if int(abs(array).max()) > most:
            raise ValueError(f"{name} has values outside +-{most}")


def _check_synthesis(synthesis: Synthesis) -> None:
    s, c = len(synthesis.b1), len(synthesis.b2)
    if c not in (1, 3):
        raise ValueError(f"a synthesis of {c} colours, expected 1 or 3")
    shapes = (
        (GRIDS - 1, 4), (s, GRIDS), (s,), (c, s), (c,), (c, GRIDS),
        (c, c, 3, 3), (c,), (c, c, 3, 3), (c,),
    )  # fmt: skip
    for name, array, shape in zip(Synthesis._fields, synthesis, shapes, strict=True):
        if array.dtype != np.float32 or array.shape != shape:
            raise ValueError(f"{name} is {array.dtype} {array.shape}, expected float32 {shape}")
