"""Lossless coding of arrays by byte planes: checks arguments and picks the fastest backend.

The bytes are defined in `planes_ref`; every backend writes and reads exactly those. `ref` is
always there; `scalar`, `avx2` and `avx512` are compiled, see `rans.backends`. Coding releases
the interpreter lock, and `threads` never changes a byte.
"""

import os
from typing import Any

from . import memory, planes_ref
from .errors import BitstreamError
from .planes_context_ref import MAX_SETS
from .planes_head_ref import (
    BYTE_PLANES,
    FLOAT,
    MAX_CHUNK_LOG2,
    MIN_CHUNK_LOG2,
    NIBBLES,
    parse,
    plane_count,
)
from .planes_tables_ref import MAX_TABLES
from .rans import backends

__all__ = [
    "BYTE_PLANES",
    "FLOAT",
    "MAX_CHUNK_LOG2",
    "MIN_CHUNK_LOG2",
    "NIBBLES",
    "Decoder",
    "encode",
    "head_sizes",
]

Buffer = bytes | bytearray | memoryview
MODES = {
    "fast": (planes_ref.FAST,),
    "tight": (planes_ref.TIGHT,),
    "small": (
        planes_ref.TIGHT,
        planes_ref.CONTEXTS,
        planes_ref.CONTEXTS_BUT_0,
        planes_ref.CONTEXTS_OF_BYTES,
    ),
    "segments": (planes_ref.SEGMENTS,),
    "stored": (planes_ref.STORED,),
}
# A frequency takes at most 18 bits with the order 11, which is one of those that are tried.
MAX_TABLE_BYTES = 3 + 256 * 18 // 8 + 1
_ISAS = ("scalar", "avx2", "avx512")


def _isa(backend: str | None) -> int | None:
    """The compiled backend's number; None for the reference."""
    known = backends()
    if backend is None:
        backend = known[-1]
    elif backend not in known:
        raise ValueError(f"backend is {backend!r}, this machine has {', '.join(known)}")
    return None if backend == "ref" else _ISAS.index(backend)


def _threads(threads: int | None) -> int:
    if threads is None:
        return min(16, len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 1)
    if threads < 1:
        raise ValueError(f"threads is {threads}, expected 1 or more, or None for all cores")
    return threads


def encode(
    data: Buffer,
    width: int,
    layout: int = BYTE_PLANES,
    mode: str = "tight",
    *,
    chunk_log2: int = MAX_CHUNK_LOG2,
    out: Buffer | None = None,
    threads: int | None = 1,
    backend: str | None = None,
) -> tuple[bytes, memoryview]:
    """Code an array.

    Args:
        data: contiguous bytes of n elements, in this machine's (little-endian) order.
        width: bytes of an element, 1 to 8.
        layout: BYTE_PLANES, FLOAT (8 exponent bits; width 2 or 4) or NIBBLES (e4m3; width 1).
        mode: "fast", "tight", "small" (the smallest of several ways, slower by far),
            "segments" (as "tight", but plane 0 only and with a table for each of up to 64
            parts of the array: what a GPU makes in one pass), or "stored" (only constant
            chunks are coded). "fast" differs for FLOAT only.
        chunk_log2: log2 of the elements of a chunk, 6 to 16. Less is worse and slower.
        out: room for the coded bytes, as many as `data` has; None = made here.
        threads: at most so many; None = one per core.
        backend: one of `rans.backends()`; None = the fastest. The bytes are the same.

    Returns:
        Head and coded bytes, both needed for decoding; the second is a part of `out`. The coded
        bytes are never more than `data`, the head is below 1 % of it from some 10 kB on.

    Raises:
        ValueError: an argument is outside its range.
    """
    isa, workers = _isa(backend), _threads(threads)
    if mode not in MODES:
        raise ValueError(f"mode is {mode!r}, expected {', '.join(MODES)}")
    plane_count(layout, width)
    view = memoryview(data).cast("B")
    if len(view) % width:
        raise ValueError(f"{len(view)} bytes are no multiple of the element's {width}")
    if not MIN_CHUNK_LOG2 <= chunk_log2 <= MAX_CHUNK_LOG2:
        raise ValueError(
            f"chunk_log2 is {chunk_log2}, expected {MIN_CHUNK_LOG2} to {MAX_CHUNK_LOG2}"
        )
    room = memory.room(len(view)) if out is None else memoryview(out).cast("B")
    if len(room) < len(view):
        raise ValueError(f"out has {len(room)} bytes, expected {len(view)}")
    best: tuple[bytes, int] | None = None
    chosen = -1
    for way in MODES[mode]:
        head, used = _encode(view, width, layout, way, chunk_log2, room, workers, isa)
        if best is None or len(head) + used < len(best[0]) + best[1]:
            best, chosen = (head, used), way
    assert best is not None  # every mode has a way
    if chosen != way:  # `room` holds what the last way wrote
        _encode(view, width, layout, chosen, chunk_log2, room, workers, isa)
    return best[0], room[: best[1]]


def _encode(
    view: memoryview,
    width: int,
    layout: int,
    way: int,
    chunk_log2: int,
    room: memoryview,
    workers: int,
    isa: int | None,
) -> tuple[bytes, int]:
    """Head, and how much of `room` is used."""
    if isa is None:
        head, coded = planes_ref.encode(bytes(view), width, layout, way, chunk_log2)
        room[: len(coded)] = coded
        return head, len(coded)
    from . import _cpp

    return _cpp.planes_encode(view, width, layout, way, chunk_log2, room, workers, isa)


def head_sizes(n: int, width: int, layout: int, mode: str, chunk_log2: int) -> tuple[int, int]:
    """The size of the head that is likely for an array, and the largest that is possible.

    Args:
        n: elements of the array.
        width: bytes of an element.
        layout: of the planes.
        mode: how it is encoded.
        chunk_log2: log2 of the elements of a chunk.
    """
    planes, chunks = plane_count(layout, width), -(-n >> chunk_log2)
    coded_first = mode != "stored"
    likely = 4 if layout == FLOAT and mode == "fast" else 9
    expected = 3 + chunks * (5 + coded_first * (likely + planes - 1))
    # A record's form and checksum or value; the fields of each plane's mode.
    record = 5 + max(4, width) + max(planes, width) * 9
    sets = MAX_SETS * (2 + 16 * MAX_TABLE_BYTES) if len(MODES[mode]) > 1 else 0
    return expected, 3 + chunks * record + MAX_TABLES * MAX_TABLE_BYTES + sets


class Decoder:
    """An array that `encode` made: its head is checked here, its chunks when they are decoded.

    Args:
        head: as `encode` returned it.
        coded: the coded bytes. They are kept, not copied.
        n: elements of the array.
        width: bytes of an element.
        layout: as it was encoded.
        backend: one of `rans.backends()`; None = the fastest.

    Attributes:
        chunk_elements: elements of a chunk; the last one may have less.
        chunks: number of chunks.

    Raises:
        BitstreamError: the head is damaged or does not fit the other arguments.
    """

    def __init__(
        self,
        head: Buffer,
        coded: Buffer,
        n: int,
        width: int,
        layout: int,
        *,
        backend: str | None = None,
    ) -> None:
        self._isa = _isa(backend)
        plane_count(layout, width)
        self._coded = memoryview(coded).cast("B")
        self._shape = (n, width, layout)
        self._parsed: Any
        if self._isa is None:
            self._parsed = parse(bytes(head), len(self._coded), *self._shape)
        else:
            from . import _cpp

            self._parsed = _cpp.planes_parse(head, len(self._coded), *self._shape)
            if isinstance(self._parsed, str):
                raise BitstreamError(self._parsed)
        self.chunk_elements = 1 << head[0]
        self.chunks = -(-n // self.chunk_elements)

    def decode(
        self, out: Buffer, elements: tuple[int, int] | None = None, *, threads: int | None = 1
    ) -> None:
        """Decode the array, or elements first .. last - 1 of it.

        Only the chunks that hold them are read, checked and decoded.

        Args:
            out: contiguous and writable, as many bytes as the elements have.
            elements: first and last; None = all. Borders of chunks save a copy.
            threads: at most so many; None = one per core.

        Raises:
            BitstreamError: a chunk is damaged; `out` may have been written to in part.
            ValueError: `out` has not the right size, or there are no such elements.
        """
        workers = _threads(threads)
        n, width, layout = self._shape
        first, last = elements if elements is not None else (0, n)
        if not 0 <= first <= last <= n:
            raise ValueError(f"elements are {first} to {last}, expected a range of 0 to {n}")
        to = memoryview(out).cast("B")
        if len(to) != (last - first) * width:
            raise ValueError(f"out has {len(to)} bytes, expected {(last - first) * width}")
        if self._isa is None:
            tables, sets, records = self._parsed
            begin, end = first // self.chunk_elements, -(-last // self.chunk_elements)
            chunks = planes_ref.decode(
                tables, sets, records[begin:end], bytes(self._coded), width, layout
            )
            skipped = (first - begin * self.chunk_elements) * width
            to[:] = chunks[skipped : skipped + len(to)]
            return
        from . import _cpp

        error = _cpp.planes_decode(self._parsed, self._coded, first, last, to, workers, self._isa)
        if error:
            raise BitstreamError(error)
