"""Launches the kernels of rans.cu; `rans_device` checks the arguments and says what they are."""

import ctypes

import torch
from torch import Tensor

from . import cuda
from .rans_device_source import WORD_ROOM, Source
from .rans_device_tables import DeviceTables

SOURCE = "rans.cu"
_PIECE = 1 << 13  # symbols for a block of `pack`, about


def encode(
    tables: DeviceTables,
    source: Source,
    bounds: Tensor,
    lanes: int,
    pairs: Tensor,
    words: Tensor,
    state: Tensor,
) -> None:
    """Symbols or latents to words and states."""
    module = cuda.load(SOURCE, state.device)
    boundaries = source.boundaries
    arguments = [
        source.symbols,
        source.rows,
        source.y,
        source.means,
        source.scales,
        boundaries,
        ctypes.c_uint32(0 if boundaries is None else len(boundaries)),
        source.y_hat,
        bounds,
        tables.rows,
        ctypes.c_uint32(len(tables.rows)),
        tables.entries,
        tables.reciprocals,
        tables.costs,
        ctypes.c_uint32(tables.precision),
        ctypes.c_uint32(lanes),
        pairs,
        words,
        ctypes.c_uint32(WORD_ROOM),
        state,
    ]
    module.launch("rans_encode", len(state), 512, arguments)


def pack(bounds: Tensor, state: Tensor, words: Tensor, data: Tensor, offsets: Tensor) -> None:
    """Words and states to streams, one behind the other."""
    streams = len(state)
    pieces = max(1, min(64, len(words) // WORD_ROOM // max(1, streams) // _PIECE))
    sizes = [ctypes.c_uint32(WORD_ROOM), ctypes.c_uint32(streams)]
    cuda.load(SOURCE, state.device).launch(
        "rans_pack", (streams, pieces), 256, [bounds, state, words, *sizes, data, offsets]
    )


def begin(data: Tensor, offsets: Tensor, state: Tensor) -> None:
    """Heads of streams to states."""
    module = cuda.load(SOURCE, state.device)
    module.launch("rans_begin", len(state), 32, [data, offsets, state])


def decode(
    tables: DeviceTables,
    data: Tensor,
    offsets: Tensor,
    bounds: Tensor,
    index: Tensor,
    means: Tensor | None,
    out: Tensor | None,
    y_hat: Tensor | None,
    places: Tensor,
    state: Tensor,
) -> None:
    """The next symbols of each stream."""
    kind = "u8" if tables.slots.dtype == torch.uint8 else "u16"
    arguments = [
        data,
        ctypes.c_int64(len(data)),
        offsets,
        bounds,
        index,
        means,
        tables.rows,
        ctypes.c_uint32(len(tables.rows)),
        tables.entries,
        tables.slots,
        ctypes.c_uint32(tables.precision),
        out,
        y_hat,
        places,
        state,
    ]
    cuda.load(SOURCE, state.device).launch(f"rans_decode_{kind}", len(state), 512, arguments)
