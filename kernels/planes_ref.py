"""Lossless coding of arrays by byte planes: the definition, in NumPy and plain integers.

An array of n elements of w bytes is cut into chunks of 2**k elements (the last may be shorter).
A chunk is split into byte planes and each plane is coded by the cheapest of a few modes.

Layouts (planes in coding order; plane 0 is the most compressible)
    BYTES    plane p is byte w - 1 - p of each element (little-endian: most significant first).
    FLOAT    w = 2 or 4, 8 exponent bits. With u the upper 16 bits: plane 0 is the exponent
             u >> 7 & 255, plane 1 the sign and upper mantissa u >> 8 & 128 | u & 127; planes 2
             and 3 (w = 4) are bytes 1 and 0.
    NIBBLES  w = 1, float8 e4m3. Byte i of plane 0 holds the exponents b >> 3 & 15 of elements
             2 i (low nibble) and 2 i + 1, byte i of plane 1 their rests b >> 4 & 8 | b & 7. A
             missing last element is 0.

Modes of a plane of m bytes
    RAW      the bytes.
    CONST    one value.
    BYTES    a stream of m symbols, and patches.
    PAIR     exponents of a FLOAT chunk: a stream of ceil(m / 2) symbols, and patches. A symbol
             is two nibbles, low one first; nibble d < 15 stands for exponent top - d (mod 256),
             15 for exponent 0. The missing last nibble is 0.
    WINDOW   the same nibbles, uncoded, ceil(m / 2) bytes, and patches.
    Patches replace single bytes of the decoded plane: u16 positions, ascending, then as many
    u8 values.

Head
    =========  =====  ===================================================================
    field      bytes  meaning
    =========  =====  ===================================================================
    k              1  log2 of the elements of a chunk, 6 to 16
    tables         1  their number, 0 to 64
    ...            *  the tables, stored as in `planes_tables_ref`
    contexts       1  0
    ...            *  one record for each chunk: u8 form, then
                      form 0 (RAW): u32 checksum
                      form 1 (CONST): the w bytes of the one element; no coded bytes
                      form 2 (PLANES): u32 checksum, then for each plane u8 mode and
                          CONST: u8 value
                          BYTES: u8 table, u16 patches, u32 bytes of the stream
                          PAIR: u8 top, u8 table, u16 patches, u32 bytes of the stream
                          WINDOW: u8 top, u16 patches
    =========  =====  ===================================================================
    Integers are little-endian. The checksum is the low half of XXH3-64 (seed 0) of the chunk's
    coded bytes with their padding.

Coded bytes of a chunk
    RAW: the elements. PLANES: first the RAW and WINDOW bytes of all planes in order, each padded
    with zeros to a multiple of 16; then, in order and without padding, stream and patches of
    each plane. Every chunk but the last is padded with zeros to a multiple of 16.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import xxhash

from .errors import BitstreamError
from .planes_head_ref import (
    ALIGN,
    BYTE_PLANES,
    BYTES,
    CONST,
    FLOAT,
    FORM_CONST,
    FORM_PLANES,
    FORM_RAW,
    MAX_CHUNK_LOG2,
    MIN_CHUNK_LOG2,
    NIBBLES,
    PAIR,
    RAW,
    WINDOW,
    ChunkRecord,
    Cursor,
    PlaneRecord,
    plane_count,
)
from .planes_tables_ref import (
    BIT,
    PATCH_BITS,
    SAMPLED,
    Table,
    TableSet,
    decode_stream,
    encode_stream,
    entropy,
    histogram,
    pack_table,
    sampled,
)

Bytes = npt.NDArray[np.uint8]

FAST, TIGHT, STORED = 0, 1, 2
# From one patch in so many exponents on, single exponents are considered.
MANY_OUTSIDE = 128


def split(chunk: Bytes, layout: int) -> list[Bytes]:
    """The planes of a chunk uint8 [n, w]."""
    n, width = chunk.shape
    if layout == BYTE_PLANES:
        return [chunk[:, width - 1 - p].copy() for p in range(width)]
    if layout == FLOAT:
        high, low = chunk[:, -1], chunk[:, -2]
        exponents, rests = high << 1 | low >> 7, high & 128 | low & 127
        lower = [chunk[:, width - 1 - p].copy() for p in range(2, width)]
        return [exponents.astype(np.uint8), rests.astype(np.uint8), *lower]
    b = np.zeros(n + n % 2, np.uint8)
    b[:n] = chunk[:, 0]
    return [_pairs(b >> 3 & 15), _pairs(b >> 4 & 8 | b & 7)]


def _pairs(nibbles: npt.NDArray[Any]) -> Bytes:
    pairs: Bytes = (nibbles[::2] | nibbles[1::2] << 4).astype(np.uint8)
    return pairs


def _nibbles(pairs: Bytes, count: int) -> Bytes:
    both: Bytes = np.stack([pairs & 15, pairs >> 4], axis=1).astype(np.uint8)
    return both.reshape(-1)[:count]


def join(planes: list[Bytes], n: int, layout: int) -> Bytes:
    """The chunk uint8 [n, w] of these planes: `split` backwards."""
    if layout == BYTE_PLANES:
        return np.stack(planes[::-1], axis=1)
    if layout == FLOAT:
        exponents, rests = planes[:2]
        low, high = exponents << 7 | rests & 127, exponents >> 1 | rests & 128
        return np.stack([*planes[:1:-1], low, high], axis=1)
    exponents, rests = (_nibbles(plane, n) for plane in planes)
    return ((rests & 8) << 4 | exponents << 3 | rests & 7).astype(np.uint8)[:, None]


@dataclass
class Coded:
    """A coded plane: its part of the chunk's record, and its bytes."""

    record: bytes
    fixed: bytes = b""
    stream: bytes = b""


def patches(plane: Bytes, decoded: Bytes) -> tuple[int, bytes]:
    """Number and bytes of what turns `decoded` into `plane`."""
    at = np.flatnonzero(plane != decoded)
    return len(at), at.astype("<u2").tobytes() + plane[at].tobytes()


def choose_top(exponents: Bytes) -> int:
    """The top of the window, from a sample of at most some 2048 exponents.

    The window is `top` - 14 to `top`, and exponent 0; the top that holds the most is taken, the
    lowest of equals.
    """
    counts = np.bincount(sampled(exponents, 2048)[0], minlength=256)
    counts[0] = 0
    ends = np.concatenate([[0], np.cumsum(counts)])
    inside = [int(ends[top + 1] - ends[max(0, top - 14)]) for top in range(256)]
    return int(np.argmax(inside))


def to_nibbles(exponents: Bytes, top: int) -> Bytes:
    """Window nibbles of these exponents, two to a byte."""
    distance = np.uint8(top) - exponents
    nibbles = np.where((distance < 15) & (exponents > 0), distance, 15).astype(np.uint8)
    return _pairs(np.concatenate([nibbles, np.zeros(len(nibbles) % 2, np.uint8)]))


def from_nibbles(pairs: Bytes, m: int, top: int) -> Bytes:
    """Exponents of m window nibbles."""
    nibbles = _nibbles(pairs, m)
    return np.where(nibbles < 15, np.uint8(top) - nibbles, 0).astype(np.uint8)


def code_window(plane: Bytes) -> Coded:
    """Mode WINDOW."""
    top = choose_top(plane)
    pairs = to_nibbles(plane, top)
    count, tail = patches(plane, from_nibbles(pairs, len(plane), top))
    if len(pairs) + len(tail) >= len(plane):
        return Coded(bytes([RAW]), plane.tobytes())
    return Coded(bytes([WINDOW, top]) + count.to_bytes(2, "little"), pairs.tobytes(), tail)


def code_pairs(plane: Bytes, tables: TableSet) -> Coded:
    """Mode PAIR, or what `code_bytes` makes of exponents that do not suit it."""
    m = len(plane)
    top = choose_top(plane)
    symbols = to_nibbles(plane, top)
    outside = int(np.count_nonzero(plane != from_nibbles(symbols, m, top)))
    t, cost = tables.estimate(histogram(symbols), 1)
    cost += outside * PATCH_BITS * BIT
    if MANY_OUTSIDE * outside > m and tables.estimate(histogram(plane), 0)[1] <= cost:
        return code_bytes(plane, 0, tables)
    if (t is None and tables.full) or not _pays(cost, m):
        return code_bytes(plane, 0, tables)
    if t is None:
        t = tables.add(symbols, 1)
    coding = tables.codings[t]
    symbols = coding.instead[symbols]
    stream = encode_stream(symbols, coding.table)
    count, tail = patches(plane, from_nibbles(symbols, m, top))
    if len(stream) + len(tail) >= m:
        return Coded(bytes([RAW]), plane.tobytes())
    return Coded(bytes([PAIR, top, t]) + _sizes(count, stream), stream=stream + tail)


def code_bytes(plane: Bytes, p: int, tables: TableSet) -> Coded:
    """Mode BYTES, or RAW where that does not pay. Only plane 0 is expected to."""
    m = len(plane)
    raw = Coded(bytes([RAW]), plane.tobytes())
    if p > 0 and m > SAMPLED and not _promising(plane):
        return raw
    t, cost = tables.estimate(histogram(plane), 2 * p)
    if (t is None and tables.full) or not _pays(cost, m):
        return raw
    if t is None:
        t = tables.add(plane, 2 * p)
    coding = tables.codings[t]
    symbols = coding.instead[plane]
    stream = encode_stream(symbols, coding.table)
    count, tail = patches(plane, symbols)
    if len(stream) + len(tail) >= m:
        return raw
    return Coded(bytes([BYTES, t]) + _sizes(count, stream), stream=stream + tail)


def _sizes(patch_count: int, stream: bytes) -> bytes:
    return patch_count.to_bytes(2, "little") + len(stream).to_bytes(4, "little")


def _pays(cost: int, m: int) -> bool:
    """Whether the estimate is below 99 % of m raw bytes."""
    return cost * 100 < 99 * 8 * m * BIT


def _promising(plane: Bytes) -> bool:
    """A glance at up to 1024 bytes: is their entropy below 7.4 bits?"""
    glance = np.bincount(sampled(plane, 1024)[0], minlength=256)
    return entropy(glance.astype(np.int64)) * 10 < 74 * int(glance.sum()) * BIT


def code_plane(plane: Bytes, p: int, layout: int, mode: int, tables: TableSet) -> Coded:
    """Code plane p of a chunk."""
    if np.all(plane == plane[0]):
        return Coded(bytes([CONST, plane[0]]))
    if layout == FLOAT and mode == FAST:
        return code_window(plane) if p == 0 else Coded(bytes([RAW]), plane.tobytes())
    if layout == FLOAT and p == 0:
        return code_pairs(plane, tables)
    return code_bytes(plane, p, tables)


def _pad(data: bytes) -> bytes:
    return data + bytes(-len(data) % ALIGN)


def code_chunk(
    chunk: Bytes, layout: int, mode: int, tables: TableSet
) -> tuple[bytes, bytes, bytes]:
    """Form, rest of the record after the checksum, and bytes of a chunk uint8 [n, w]."""
    if np.all(chunk == chunk[0]):
        return bytes([FORM_CONST]), chunk[0].tobytes(), b""
    if mode == STORED:
        return bytes([FORM_RAW]), b"", chunk.tobytes()
    planes = split(chunk, layout)
    coded = [code_plane(plane, p, layout, mode, tables) for p, plane in enumerate(planes)]
    data = b"".join(_pad(c.fixed) for c in coded) + b"".join(c.stream for c in coded)
    if len(data) >= chunk.size:
        return bytes([FORM_RAW]), b"", chunk.tobytes()
    return bytes([FORM_PLANES]), b"".join(c.record for c in coded), data


def encode(
    data: bytes, width: int, layout: int, mode: int = TIGHT, chunk_log2: int = MAX_CHUNK_LOG2
) -> tuple[bytes, bytes]:
    """Head and coded bytes of an array of elements of `width` bytes."""
    plane_count(layout, width)
    if not MIN_CHUNK_LOG2 <= chunk_log2 <= MAX_CHUNK_LOG2:
        raise ValueError(
            f"chunk_log2 is {chunk_log2}, expected {MIN_CHUNK_LOG2} to {MAX_CHUNK_LOG2}"
        )
    if len(data) % width:
        raise ValueError(f"{len(data)} bytes are no multiple of the element's {width}")
    elements = np.frombuffer(data, np.uint8).reshape(-1, width)
    tables = TableSet()
    records, pieces = [], []
    for start in range(0, len(elements), 1 << chunk_log2):
        last = start + (1 << chunk_log2) >= len(elements)
        form, rest, body = code_chunk(
            elements[start : start + (1 << chunk_log2)], layout, mode, tables
        )
        body = body if last else _pad(body)
        check = b"" if form[0] == FORM_CONST else checksum(body).to_bytes(4, "little")
        records.append(form + check + rest)
        pieces.append(body)
    stored = b"".join(pack_table(coding.table) for coding in tables.codings)
    head = bytes([chunk_log2, len(tables.codings)]) + stored + bytes([0]) + b"".join(records)
    return head, b"".join(pieces)


def checksum(data: bytes) -> int:
    """The low half of XXH3-64."""
    return int(xxhash.xxh3_64_intdigest(data)) & 0xFFFFFFFF


def decode(
    tables: list[Table], records: list[ChunkRecord], coded: bytes, width: int, layout: int
) -> bytes:
    """The elements of these chunks, of what `parse` found; BitstreamError if damaged."""
    chunks = [decode_chunk(r, tables, coded, width, layout) for r in records]
    return b"".join(chunk.tobytes() for chunk in chunks)


def decode_chunk(
    record: ChunkRecord, tables: list[Table], coded: bytes, width: int, layout: int
) -> Bytes:
    """The elements of one chunk, uint8 [n, w]."""
    if record.form == FORM_CONST:
        return np.tile(np.frombuffer(record.value, np.uint8), (record.n, 1))
    data = coded[record.start : record.start + record.size]
    if checksum(data) != record.checksum:
        raise BitstreamError(f"the chunk at coded byte {record.start} fails its checksum")
    if record.form == FORM_RAW:
        return np.frombuffer(data, np.uint8, record.n * width).reshape(-1, width)
    cursor = Cursor(data)
    m = (record.n + 1) // 2 if layout == NIBBLES else record.n
    fixed = [_fixed(cursor, plane, m) for plane in record.planes]
    planes = [
        _decode_plane(cursor, plane, f, m, tables)
        for plane, f in zip(record.planes, fixed, strict=True)
    ]
    return join(planes, record.n, layout)


def _fixed(cursor: Cursor, plane: PlaneRecord, m: int) -> bytes:
    size = m if plane.mode == RAW else (m + 1) // 2 if plane.mode == WINDOW else 0
    return cursor.take(size + -size % ALIGN)[:size]


def _decode_plane(
    cursor: Cursor, plane: PlaneRecord, fixed: bytes, m: int, tables: list[Table]
) -> Bytes:
    if plane.mode == RAW:
        return np.frombuffer(fixed, np.uint8)
    if plane.mode == CONST:
        return np.full(m, plane.value, np.uint8)
    if plane.mode == BYTES:
        decoded = decode_stream(cursor.take(plane.size), m, tables[plane.table])
    elif plane.mode == PAIR:
        pairs = decode_stream(cursor.take(plane.size), (m + 1) // 2, tables[plane.table])
        decoded = from_nibbles(pairs, m, plane.top)
    else:
        decoded = from_nibbles(np.frombuffer(fixed, np.uint8), m, plane.top)
    at = np.frombuffer(cursor.take(2 * plane.patches), "<u2").astype(np.int64)
    values = np.frombuffer(cursor.take(plane.patches), np.uint8)
    if len(at) and (at[-1] >= m or np.any(np.diff(at) <= 0)):
        raise BitstreamError(f"patch positions do not ascend below {m}")
    decoded[at] = values
    return decoded
