"""The decoder of fitted pictures and frames: checks arguments, picks this machine's best backend.

Everything is defined in `fit_ref` and `fit_passes_ref`; every backend gives exactly those integers
and pixels, with any number of threads. The interpreter lock is released meanwhile.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from . import fit_passes_ref, fit_ref, rans
from .errors import BitstreamError
from .extension import compiled
from .fit_passes_ref import OWN, TEMPORAL
from .fit_ref import (
    CROSS,
    GRIDS,
    LIMIT,
    PREDICTION_BITS,
    TAPS,
    Bytes,
    Context,
    Grid,
    Samples,
    Synthesis,
)

__all__ = [
    "Context", "Synthesis", "decode", "frame_decode", "frame_symbols", "grid_shapes", "symbols",
    "synthesise", "synthesise_frame",
]  # fmt: skip

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
    _check_context(context, _causal(context))
    _check_grids(grids)
    if rans.pick(backend) == "ref":
        return fit_ref.symbols(context, grids)
    return _symbols(_packed(context, _causal(context), 0), grids, (), threads, backend)


def frame_symbols(
    context: Context,
    grids: Sequence[Grid],
    reference: Sequence[Grid] = (),
    *,
    threads: int = 1,
    backend: str | None = None,
) -> tuple[Grid, Bytes]:
    """What is coded of a frame's grids: see `fit_passes_ref.symbols`.

    Arguments and results are those of `symbols`; `reference`, grids of another frame, is there if
    and only if the model has inputs for it.
    """
    _check_frame_context(context, reference, _check_grids(grids))
    if rans.pick(backend) == "ref":
        return fit_passes_ref.symbols(context, grids, reference)
    return _symbols(_frame_model(context, reference), grids, reference, threads, backend)


def _symbols(
    model: _Model, grids: Sequence[Grid], reference: Sequence[Grid], threads: int,
    backend: str | None,
) -> tuple[Grid, Bytes]:  # fmt: skip
    n = sum(grid.size for grid in grids if grid.any())
    values, index = np.empty(n, np.int16), np.empty(n, np.uint8)
    compiled().fit_symbols(
        model, _joined(grids), _joined(reference), grids[0].shape, _mask_of(grids), values, index,
        threads, rans.ISAS.index(rans.pick(backend)),
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
    _check_context(context, _causal(context))
    _check_coded(coded)
    if decoder.backend == "ref":
        return fit_ref.decode(context, decoder.get, height, width, coded)
    return _decode(_packed(context, _causal(context), 0), decoder, height, width, coded, ())


def frame_decode(
    context: Context,
    decoder: rans.Decoder,
    height: int,
    width: int,
    coded: Sequence[bool],
    reference: Sequence[Grid] = (),
) -> list[Grid]:
    """The mirror of `frame_symbols`; arguments otherwise as for `decode`.

    Raises:
        BitstreamError: the stream is damaged.
    """
    _check_frame_context(context, reference, (height, width))
    _check_coded(coded)
    if decoder.backend == "ref":
        return fit_passes_ref.decode(context, decoder.get, height, width, coded, reference)
    model = _frame_model(context, reference)
    return _decode(model, decoder, height, width, coded, reference)


def _decode(
    model: _Model, decoder: rans.Decoder, height: int, width: int, coded: Sequence[bool],
    reference: Sequence[Grid],
) -> list[Grid]:  # fmt: skip
    shapes = grid_shapes(height, width)
    joined = np.zeros(sum(r * c for r, c in shapes), np.int16)
    other = _joined(reference)
    status = decoder.run(
        lambda tables, state, data, skip, isa: compiled().fit_decode(
            model, tables, state, data, skip, other, (height, width), _mask(coded), joined, isa
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
    compiled().fit_synthesise(
        _net(synthesis, 0), _joined(grids), _mask_of(grids), (height, width, False, 8), _NONE,
        pixels, threads, rans.ISAS.index(chosen),
    )  # fmt: skip
    return pixels


def synthesise_frame(
    synthesis: Synthesis,
    grids: Sequence[Grid],
    height: int,
    width: int,
    bits: int,
    prediction: Sequence[Grid] = (),
    *,
    threads: int = 1,
    backend: str | None = None,
) -> list[Samples]:
    """Planes of a frame: see `fit_ref.synthesise_frame`.

    Args:
        synthesis: the networks; of one or three colours, the latter in 4:2:0.
        grids: as for `symbols`, of the frame's size, made even where there are three colours.
        height: of the frame.
        width: of the frame.
        bits: of its samples, 8 to 14.
        prediction: int16 planes of 14 bits of the sizes of the frame's planes, where the networks
            take them.
        threads: as for `symbols`.
        backend: as for `symbols`.

    Returns:
        Planes [H, W], or those and two of half the size, rounded up; uint8 of 8 bits, else int16.
    """
    _check_synthesis(synthesis, len(prediction))
    colours = len(synthesis.b2)
    half = colours > 1
    shapes = [(height, width), *[(-(-height // 2), -(-width // 2))] * (colours - 1)]
    _check_prediction(prediction, shapes)
    whole = (2 * shapes[1][0], 2 * shapes[1][1]) if half else shapes[0]
    if _check_grids(grids) != whole:
        raise ValueError(f"grids are of a picture of {grids[0].shape}, expected {whole}")
    if not 8 <= bits <= PREDICTION_BITS:
        raise ValueError(f"bits is {bits}, expected 8 to {PREDICTION_BITS}")
    chosen = rans.pick(backend)
    if chosen == "ref":
        return fit_ref.synthesise_frame(synthesis, grids, height, width, bits, prediction)
    samples = np.empty(sum(r * c for r, c in shapes), np.uint8 if bits == 8 else np.int16)
    compiled().fit_synthesise(
        _net(synthesis, len(prediction)), _joined(grids), _mask_of(grids),
        (height, width, half, bits), _joined(prediction), samples, threads,
        rans.ISAS.index(chosen),
    )  # fmt: skip
    return _parted(samples, shapes)


_NONE = np.zeros(0, np.int16)


# Causal taps (0: a frame's passes), taps in a reference, width, arrays.
_Model = tuple[int, int, int, Any]


def _causal(context: Context) -> int:
    return context.inputs - CROSS


def _packed(context: Context, taps: int, temporal: int) -> _Model:
    return taps, temporal, len(context.b2), np.concatenate([a.reshape(-1) for a in context])


def _frame_model(context: Context, reference: Sequence[Grid]) -> _Model:
    return _packed(context, 0, len(TEMPORAL) if reference else 0)


def _net(synthesis: Synthesis, extra: int) -> tuple[int, int, int, Any]:
    arrays = np.concatenate([a.reshape(-1) for a in synthesis])
    return len(synthesis.b1), len(synthesis.b2), extra, arrays


def _joined(grids: Sequence[Grid]) -> Grid:
    return np.concatenate([_NONE, *(grid.reshape(-1) for grid in grids)])


def _parted(joined: Any, shapes: Sequence[tuple[int, int]]) -> list[Any]:
    ends = np.cumsum([r * c for r, c in shapes])
    return [part.reshape(s) for part, s in zip(np.split(joined, ends[:-1]), shapes, strict=True)]


def _mask_of(grids: Sequence[Grid]) -> int:
    return _mask([bool(grid.any()) for grid in grids])


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


def _check_coded(coded: Sequence[bool]) -> None:
    if len(coded) != GRIDS:
        raise ValueError(f"coded has {len(coded)} entries, expected {GRIDS}")


def _check_frame_context(
    context: Context, reference: Sequence[Grid], shape: tuple[int, int]
) -> None:
    taps = context.inputs - CROSS - (len(TEMPORAL) if reference else 0)
    if taps != OWN:
        raise ValueError(
            f"a context model of {context.inputs} inputs is not one of frames "
            f"{'with' if reference else 'without'} a reference"
        )
    _check_context(context, taps)
    if reference and _check_grids(reference) != shape:
        raise ValueError(
            f"the reference's grids are of a picture of {reference[0].shape}, expected {shape}"
        )


def _check_prediction(prediction: Sequence[Grid], shapes: Sequence[tuple[int, int]]) -> None:
    for plane, shape in zip(prediction, shapes, strict=bool(prediction)):
        if plane.dtype != np.int16 or plane.shape != shape:
            raise ValueError(f"a prediction is {plane.dtype} {plane.shape}, expected int16 {shape}")


def _check_context(context: Context, taps: int) -> None:
    h, n = context.w1.shape
    if not (1 <= taps <= len(TAPS) and h % 8 == 0 and 8 <= h <= _MAX_HIDDEN):
        raise ValueError(f"a context model of {h} units and {n} inputs is not one of these")
    shapes = ((h, n), (GRIDS, h), (h, h), (h,), (2, h), (2, n), (GRIDS, 2))
    for name, array, shape in zip(Context._fields, context, shapes, strict=True):
        most = (1 << 23) if name.startswith("b") else 32767
        if array.dtype != np.int32 or array.shape != shape:
            raise ValueError(f"{name} is {array.dtype} {array.shape}, expected int32 {shape}")
        if int(abs(array).max()) > most:
            raise ValueError(f"{name} has values outside +-{most}")


def _check_synthesis(synthesis: Synthesis, extra: int = 0) -> None:
    s, c = len(synthesis.b1), len(synthesis.b2)
    if c not in (1, 3):
        raise ValueError(f"a synthesis of {c} colours, expected 1 or 3")
    if extra not in (0, c):
        raise ValueError(f"a prediction of {extra} planes, expected {c} or none")
    shapes = (
        (GRIDS - 1, 4), (s, GRIDS + extra), (s,), (c, s), (c,), (c, GRIDS + extra),
        (c, c, 3, 3), (c,), (c, c, 3, 3), (c,),
    )  # fmt: skip
    for name, array, shape in zip(Synthesis._fields, synthesis, shapes, strict=True):
        if array.dtype != np.float32 or array.shape != shape:
            raise ValueError(f"{name} is {array.dtype} {array.shape}, expected float32 {shape}")
