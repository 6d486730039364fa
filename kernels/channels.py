"""Elements in channels: checks arguments and picks the fastest backend of this machine.

The bytes are defined in `channels_ref`; every backend writes and reads exactly those. Coding
releases the interpreter lock, and one `Tables` may be used by any number of threads.
"""

from collections.abc import Sequence

import numpy as np

from . import channels_ref, rans
from .channels_ref import Part
from .errors import BitstreamError
from .extension import compiled
from .planes_head_ref import BYTE_PLANES, FLOAT
from .rans_ref import MAX_LANES, Tables

__all__ = ["BYTE_PLANES", "FLOAT", "Part", "decode", "encode"]

Buffer = bytes | bytearray | memoryview
_WIDTHS = {FLOAT: (2, 4), BYTE_PLANES: (1, 2, 4)}


def encode(
    tables: Tables,
    layout: int,
    parts: Sequence[Part],
    out: bytearray | memoryview,
    *,
    lanes: int | None = None,
    backend: str | None = None,
) -> int:
    """Code arrays of channels as one block.

    Args:
        tables: integer tables, a row for each class.
        layout: FLOAT (bf16 and fp32: pairs of exponents are coded) or BYTE_PLANES (the first
            bytes are).
        parts: arrays with what is known of their channels. All are of one dtype and have any
            strides, but neighbours in the last dimension; classes and tops are contiguous.
        out: where the block goes; at least as long as the elements.
        lanes: interleaved states, a power of two from 1 to 32; None = by the number of elements.
        backend: one of `rans.backends()`; None = the fastest. The bytes are the same.

    Returns:
        The size of the block. If that is more than `out` has, `out` holds anything.

    Raises:
        ValueError: a wrong dtype, shape or stride, or a class outside the tables.
    """
    chosen = rans.pick(backend)
    if lanes is not None and lanes not in (1, 2, 4, 8, 16, 32):
        raise ValueError(f"lanes is {lanes}, expected a power of two from 1 to {MAX_LANES}")
    if len(memoryview(out)) < sum(part.elements.nbytes for part in parts):
        raise ValueError(f"out has {len(memoryview(out))} bytes, fewer than the elements")
    if chosen == "ref":
        _check(layout, parts)
        block = channels_ref.encode(tables, layout, parts, lanes)
        memoryview(out)[: len(block)] = block[: len(out)]
        return len(block)
    lanes = lanes or channels_ref.choose_lanes(parts)
    prepared, isa = rans.prepared(tables), rans.ISAS.index(chosen)
    try:
        size: int = compiled().channels_encode(prepared, layout, list(parts), lanes, isa, out)
        return size
    except ValueError:  # the kernel's own checks are quicker, these say what is wrong
        _check(layout, parts)
        raise


def decode(
    tables: Tables,
    layout: int,
    blocks: Sequence[tuple[Buffer, Sequence[Part]]],
    *,
    backend: str | None = None,
) -> None:
    """Fill the arrays of blocks, each with its parts; the arguments are those of `encode`.

    Two blocks and more in a call are faster than one.

    Raises:
        BitstreamError: a block is damaged; the arrays hold anything then.
        ValueError: a wrong dtype, shape or stride, or a class outside the tables.
    """
    chosen = rans.pick(backend)
    if chosen == "ref":
        for data, parts in blocks:
            _check(layout, parts)
            channels_ref.decode(tables, layout, bytes(data), parts)
        return
    isa = rans.ISAS.index(chosen)
    listed = [(data, list(parts)) for data, parts in blocks]
    try:
        error = compiled().channels_decode(rans.prepared(tables), layout, listed, isa)
    except ValueError:
        for _, parts in blocks:
            _check(layout, parts)
        raise
    if error:
        raise BitstreamError(error)


def _check(layout: int, parts: Sequence[Part]) -> None:
    if not parts:
        raise ValueError("a block needs at least one part")
    dtype = parts[0].elements.dtype
    if dtype.kind != "u" or dtype.itemsize not in _WIDTHS.get(layout, ()):
        raise ValueError(f"elements of {dtype} do not fit layout {layout}")
    for elements, classes, tops in parts:
        if elements.ndim != 3 or elements.dtype != dtype:
            raise ValueError(f"a part is {elements.dtype} {elements.shape}, expected {dtype} [3-D]")
        apart = elements.shape[2] > 1 and elements.strides[2] != dtype.itemsize
        if elements.size and apart:
            raise ValueError("the last dimension of a part is strided; make it contiguous first")
        channels = elements.shape[1] * elements.shape[2]
        for name, known, count in (
            ("classes", classes, channels_ref.symbols_in(channels, layout)),
            ("tops", tops, channels if layout == FLOAT else 0),
        ):
            if known.dtype != np.uint8 or known.shape != (count,):
                raise ValueError(
                    f"{name} are {known.dtype} {known.shape}, expected uint8 ({count},)"
                )
