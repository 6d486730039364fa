"""Arrays as differences from a base: checks arguments, chooses rows, cuts chunks.

`delta_ref` defines chunks, `delta_tables` the rows; `ref` (NumPy) is always there, `scalar`,
`avx2` and `avx512` are compiled, see `rans.backends`. Coding releases the interpreter lock, and
`threads` never changes a byte.

Head
    =========  =====  ===================================================================
    field      bytes  meaning
    =========  =====  ===================================================================
    operation      1  0 ULP, 1 DIFFERENCE, 2 XOR
    k              1  log2 of the elements of a chunk, 16 to 22
    blocks         1  0 or 1
    rows           1  R, 1 to 64
    runs           *  R varints, each at least 1, adding to 2**bits: so many values of the
                      field, from 0 on, have row 0, the next row 1, ...
    ...            *  the R rows, then with blocks that of the nibbles
    ...            *  for each chunk: varint bytes of its stream, varint bytes of its raw
                      bits, and unless both are 0 (an unchanged chunk) a u32 checksum
    =========  =====  ===================================================================
    Coded bytes: stream and raw bits of each chunk. The checksum is the low half of XXH3-64
    (seed 0) of both.
"""

from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import numpy.typing as npt
import xxhash

from . import delta_ref, delta_tables, rans
from .delta_ref import DIFFERENCE, MAX_FIELD_BITS, OPERATIONS, ULP, XOR, Counts, Layout
from .delta_tables import Cursor, Plan
from .errors import BitstreamError
from .extension import compiled
from .planes import _isa, _threads

__all__ = ["DIFFERENCE", "ULP", "XOR", "Decoder", "Layout", "Measured", "encode", "measure"]

Buffer = bytes | bytearray | memoryview
T = TypeVar("T")
R = TypeVar("R")

MIN_CHUNK_LOG2, MAX_CHUNK_LOG2 = 16, 22
CHUNK_BYTES = 1 << 14  # coded bytes that a chunk shall have: 32 lanes are 0.8 % of them
BYTES_PER_LANE = 400


@dataclass(frozen=True)
class Measured:
    """How an array will be coded.

    Attributes:
        layout: with the operation that was chosen.
        plan: the rows.
        raw_bits: bits that are not coded.
        elements: of the array.
        changed: whether any element is another one than in the base.
    """

    layout: Layout
    plan: Plan
    raw_bits: int
    elements: int
    changed: bool

    @property
    def nbytes(self) -> int:
        """Expected size, without heads and lanes."""
        return (self.plan.cost + self.raw_bits + 7) // 8

    @property
    def chunk_log2(self) -> int:
        """The smallest chunk that has enough coded bytes."""
        k = MIN_CHUNK_LOG2
        while k < MAX_CHUNK_LOG2 and self._payload(1 << k) < CHUNK_BYTES:
            k += 1
        return k

    def lanes(self, elements: int) -> int:
        """Lanes of a chunk's stream."""
        lanes = 1
        while lanes < 32 and 2 * lanes * BYTES_PER_LANE <= self._payload(elements):
            lanes *= 2
        return lanes

    def _payload(self, elements: int) -> int:
        return self.plan.cost * elements // (8 * max(1, self.elements))


def measure(
    new: Buffer,
    base: Buffer,
    width: int,
    operations: Sequence[int],
    shift: int = 0,
    bits: int = 0,
    *,
    threads: int | None = 1,
    backend: str | None = None,
) -> Measured:
    """Find out what a delta will cost, and with which rows.

    Args:
        new: contiguous elements.
        base: as many.
        width: bytes of an element: 1, 2, 4 or 8.
        operations: of `ULP`, `DIFFERENCE`, `XOR` the ones to try; the cheapest is taken.
        shift: where the field begins that names an element's row; for floats the exponent.
        bits: of the field, 0 to 11.
        threads: at most so many; None = one per core.
        backend: one of `rans.backends()`; None = the fastest.

    Raises:
        ValueError: an argument is outside its range.
    """
    found = [
        _measured(Layout(width, operation, shift, bits), new, base, threads, backend)
        for operation in operations
    ]
    return min(found, key=lambda one: one.plan.cost + one.raw_bits)


def _measured(
    layout: Layout, new: Buffer, base: Buffer, threads: int | None, backend: str | None
) -> Measured:
    a, b = _elements(new, layout, "new"), _elements(base, layout, "base")
    if len(a) != len(b):
        raise ValueError(f"new has {len(a)} elements, base {len(b)}; expected as many")
    isa = _isa(backend)
    step = 1 << 22
    parts = [slice(start, start + step) for start in range(0, max(1, len(a)), step)]
    counted = list(_map(lambda part: _count(layout, a[part], b[part], isa), parts, threads))
    counts = Counts(*(np.sum(arrays, axis=0) for arrays in zip(*counted, strict=True)))
    plans = [
        delta_tables.plan(counts, blocks)
        for blocks in (False, True)[: 1 + bool(counts.quiet.any())]
    ]
    magnitude = np.abs(np.arange(256) - delta_ref.ZERO)
    sizes = np.maximum(0, (magnitude >> delta_ref.SUB_BITS[layout.width]) - 1)
    raw_bits = int((counts.tokens.sum(0) * sizes).sum())
    best = min(plans, key=lambda plan: plan.cost)
    return Measured(layout, best, raw_bits, len(a), bool(counts.tokens.any()))


def _count(
    layout: Layout, new: delta_ref.Integers, base: delta_ref.Integers, isa: int | None
) -> Counts:
    if isa is None:
        return delta_ref.count(new, base, layout)
    fields = 1 << layout.bits
    arrays = [np.zeros(shape, np.int64) for shape in ((fields, 256), fields, 16)]
    compiled().delta_count(tuple(layout), new, base, *arrays, isa)
    return Counts(*arrays)


def encode(
    measured: Measured,
    new: Buffer,
    base: Buffer,
    *,
    threads: int | None = 1,
    backend: str | None = None,
) -> tuple[bytes, bytes]:
    """Head and coded bytes of arrays that were measured; both are needed for decoding."""
    layout, plan, k = measured.layout, measured.plan, measured.chunk_log2
    a, b = _elements(new, layout, "new"), _elements(base, layout, "base")
    if not len(a) == len(b) == measured.elements:
        raise ValueError(f"{len(a)} and {len(b)} elements; {measured.elements} were measured")
    isa = _isa(backend)
    tables = delta_tables.tables_of(plan.rows, plan.blocks)
    class_of = _classes(plan.runs)

    def code(start: int) -> tuple[bytes, bytes]:
        new, base = a[start : start + (1 << k)], b[start : start + (1 << k)]
        if np.array_equal(new, base):
            return b"", b""
        lanes = measured.lanes(len(new))
        if isa is None:
            return delta_ref.encode(tables, class_of, new, base, layout, plan.blocks, lanes)
        prepared = rans.prepared(tables)
        arrays = (class_of, new, base)
        coded: tuple[bytes, bytes] = compiled().delta_encode(
            tuple(layout), prepared, *arrays, plan.blocks, lanes, isa
        )
        return coded

    if isa is not None:
        rans.prepared(tables)  # once, before there are threads
    chunks = list(_map(code, range(0, len(a), 1 << k), threads))
    head = bytes([layout.operation, k, plan.blocks, len(plan.runs)])
    head += b"".join(map(_varint, plan.runs)) + b"".join(map(delta_tables.pack, plan.rows))
    for stream, raw in chunks:
        head += _varint(len(stream)) + _varint(len(raw))
        head += _checksum(stream, raw) if stream or raw else b""
    return head, b"".join(part for chunk in chunks for part in chunk)


@dataclass(frozen=True)
class _Chunk:
    start: int
    stream: int
    raw: int
    checksum: bytes


class Decoder:
    """An array that `encode` made; chunks are checked when they are decoded.

    Args:
        head: as `encode` returned it.
        coded: the coded bytes. They are kept, not copied.
        n: elements of the array.
        width: bytes of an element.
        shift: as it was encoded.
        bits: as it was encoded.
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
        shift: int = 0,
        bits: int = 0,
        *,
        backend: str | None = None,
    ) -> None:
        self._isa = _isa(backend)
        self._coded = memoryview(coded).cast("B")
        cursor = Cursor(bytes(head))
        operation, k, blocks, rows = (cursor.byte() for _ in range(4))
        if operation >= len(OPERATIONS) or blocks > 1:
            raise BitstreamError(f"a delta of operation {operation}, blocks {blocks} is illegal")
        if not (MIN_CHUNK_LOG2 <= k <= MAX_CHUNK_LOG2 and 1 <= rows <= delta_tables.MAX_ROWS):
            raise BitstreamError(f"a delta with chunks of 2**{k} and {rows} rows is illegal")
        self._layout = Layout(width, operation, shift, bits)
        self._blocks = bool(blocks)
        runs = [_get_varint(cursor) for _ in range(rows)]
        if sum(runs) != 1 << bits or 0 in runs:
            raise BitstreamError(f"the runs of a delta's rows add to {sum(runs)}, not {1 << bits}")
        self._class_of = _classes(runs)
        packed = [delta_tables.unpack(cursor, width) for _ in range(rows + blocks)]
        self._tables = delta_tables.tables_of(packed, self._blocks)
        self.chunk_elements, self._n = 1 << k, n
        self.chunks = -(-n // self.chunk_elements)
        if 2 * self.chunks > len(cursor.data) - cursor.at:
            raise BitstreamError(f"the head of a delta is too short for {self.chunks} chunks")
        self._records = self._read_records(cursor)

    def _read_records(self, cursor: Cursor) -> list[_Chunk]:
        records, at = [], 0
        for _ in range(self.chunks):
            stream, raw = _get_varint(cursor), _get_varint(cursor)
            check = bytes(cursor.byte() for _ in range(4)) if stream or raw else b""
            records.append(_Chunk(at, stream, raw, check))
            at += stream + raw
        if at != len(self._coded) or cursor.at != len(cursor.data):
            raise BitstreamError(
                f"the chunks of a delta have {at} bytes, {len(self._coded)} are there"
            )
        return records

    def decode(
        self,
        base: Buffer,
        out: Buffer,
        chunks: tuple[int, int] | None = None,
        *,
        threads: int | None = 1,
    ) -> None:
        """Decode the array, or chunks first .. last - 1 of it.

        Args:
            base: the elements of the base at the same places.
            out: contiguous and writable, as many bytes; it may be the base itself.
            chunks: first and last; None = all.
            threads: at most so many; None = one per core.

        Raises:
            BitstreamError: a chunk is damaged; `out` may have been written to in part.
            ValueError: a buffer has not the right size, or there are no such chunks.
        """
        first, last = chunks if chunks is not None else (0, self.chunks)
        if not 0 <= first <= last <= self.chunks:
            raise ValueError(
                f"chunks are {first} to {last}, expected a range of 0 to {self.chunks}"
            )
        step = self.chunk_elements
        elements = min(self._n, last * step) - min(self._n, first * step)
        old, to = _elements(base, self._layout, "base"), _elements(out, self._layout, "out")
        if len(old) != elements or len(to) != elements:
            raise ValueError(f"base and out have {len(old)} and {len(to)} elements, not {elements}")
        if self._isa is not None:
            rans.prepared(self._tables)

        def decode(i: int) -> None:
            part = slice(i * step, (i + 1) * step)
            self._decode_chunk(self._records[first + i], first + i, old[part], to[part])

        for _ in _map(decode, range(last - first), threads):
            pass

    def _decode_chunk(
        self, record: _Chunk, i: int, base: delta_ref.Integers, out: delta_ref.Integers
    ) -> None:
        if not record.checksum:
            if base.ctypes.data != out.ctypes.data:
                out[:] = base
            return
        stream, raw = self._checked(record, i)
        if self._isa is None:
            coded = (self._tables, self._class_of, bytes(stream), bytes(raw))
            out[:] = delta_ref.decode(*coded, base, self._layout, self._blocks)
            return
        error = compiled().delta_decode(
            tuple(self._layout),
            rans.prepared(self._tables),
            self._class_of,
            stream,
            raw,
            base,
            self._blocks,
            out,
            self._isa,
        )
        if error:
            raise BitstreamError(f"chunk {i}: {error}")

    def check(self) -> None:
        """Compare the chunks with their checksums, for which no base is needed.

        Raises:
            BitstreamError: a chunk is damaged.
        """
        for i, record in enumerate(self._records):
            if record.checksum:
                self._checked(record, i)

    def _checked(self, record: _Chunk, i: int) -> tuple[memoryview, memoryview]:
        """Stream and raw bits of a chunk that fits its checksum."""
        middle = record.start + record.stream
        stream = self._coded[record.start : middle]
        raw = self._coded[middle : middle + record.raw]
        if _checksum(stream, raw) != record.checksum:
            raise BitstreamError(f"chunk {i} of a delta fails its checksum")
        return stream, raw


def _elements(data: Buffer, layout: Layout, name: str) -> delta_ref.Integers:
    width, operation, shift, bits = layout
    if width not in delta_ref.SUB_BITS or not 0 <= operation < len(OPERATIONS):
        raise ValueError(f"width {width}, operation {operation}; expected 1, 2, 4, 8 and 0 to 2")
    if not (0 <= bits <= MAX_FIELD_BITS and 0 <= shift <= 8 * width - bits):
        raise ValueError(f"a field of {bits} bits at {shift} is not inside {width} bytes")
    view = memoryview(data).cast("B")
    if len(view) % width:
        raise ValueError(f"{name} has {len(view)} bytes, no multiple of the element's {width}")
    return np.frombuffer(view, f"u{width}")


def _classes(runs: Iterable[int]) -> npt.NDArray[np.uint8]:
    runs = list(runs)
    return np.repeat(np.arange(len(runs), dtype=np.uint8), runs)


def _map(call: Callable[[T], R], items: Sequence[T], threads: int | None) -> Iterable[R]:
    workers = min(_threads(threads), len(items))
    if workers <= 1:
        yield from map(call, items)
        return
    with ThreadPoolExecutor(workers) as pool:
        yield from pool.map(call, items)


def _checksum(stream: Buffer, raw: Buffer) -> bytes:
    state = xxhash.xxh3_64(stream)
    state.update(raw)
    return (state.intdigest() & 0xFFFFFFFF).to_bytes(4, "little")


def _varint(value: int) -> bytes:
    out = bytearray()
    while value > 127:
        out.append(value & 127 | 128)
        value >>= 7
    return bytes([*out, value])


def _get_varint(cursor: Cursor) -> int:
    value = 0
    for shift in range(0, 63, 7):
        byte = cursor.byte()
        value |= (byte & 127) << shift
        if byte < 128:
            if byte == 0 and shift:
                break
            return value
    raise BitstreamError("a varint in the head of a delta is too long")
