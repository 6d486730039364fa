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
    CONTEXT  a stream of m symbols whose tables follow from earlier bytes (`planes_context_ref`).
    Patches replace single bytes of the decoded plane: u16 positions, ascending, then as many
    u8 values.

Head
    =========  =====  ===================================================================
    field      bytes  meaning
    =========  =====  ===================================================================
    k              1  log2 of the elements of a chunk, 6 to 16
    tables         1  their number, 0 to 64
    ...            *  the tables, stored as in `planes_tables_ref`
    contexts       1  number of their sets, 0 to 8
    ...            *  the sets of contexts, stored as in `planes_context_ref`
    ...            *  one record for each chunk: u8 form, then
                      form 0 (RAW): u32 checksum
                      form 1 (CONST): the w bytes of the one element; no coded bytes
                      form 2 (PLANES), 3 (the same in layout BYTES): u32 checksum, then for
                      each plane u8 mode and
                          CONST: u8 value
                          BYTES: u8 table, u16 patches, u32 bytes of the stream
                          PAIR: u8 top, u8 table, u16 patches, u32 bytes of the stream
                          WINDOW: u8 top, u16 patches
                          CONTEXT: u8 set, u32 bytes of the stream
    =========  =====  ===================================================================
    Integers are little-endian. The checksum is the low half of XXH3-64 (seed 0) of the chunk's
    coded bytes with their padding.

Coded bytes of a chunk
    RAW: the elements. Planes: first the RAW and WINDOW bytes of all planes in order, each padded
    with zeros to a multiple of 16; then, in order and without padding, stream and patches of
    each plane. Every chunk but the last is padded with zeros to a multiple of 16.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import xxhash

from .errors import BitstreamError
from .planes_context_ref import LEARNT, ContextSet, learn, pack_set
from .planes_context_ref import decode_stream as decode_contexts
from .planes_context_ref import encode_stream as encode_contexts
from .planes_head_ref import (
    ALIGN,
    BYTE_PLANES,
    BYTES,
    CONST,
    CONTEXT,
    FLOAT,
    FORM_BYTES,
    FORM_CONST,
    FORM_PLANES,
    FORM_RAW,
    MAX_CHUNK_LOG2,
    NIBBLES,
    PAIR,
    RAW,
    WINDOW,
    ChunkRecord,
    Cursor,
    PlaneRecord,
)
from .planes_layouts_ref import best_top, from_nibbles, join, split, to_nibbles
from .planes_segments_ref import Segment
from .planes_segments_ref import learn as learn_segments
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

# The three of CONTEXTS are tried for "small": for all planes, for all but plane 0, and for the
# byte planes of any layout.
FAST, TIGHT, STORED, CONTEXTS, CONTEXTS_BUT_0, CONTEXTS_OF_BYTES, SEGMENTS = range(7)
# From one patch in so many exponents on, single exponents are considered.
MANY_OUTSIDE = 128
NO_LIMIT = 1 << 62
MAX_PLANES = 8


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
    """The top of the window, from a sample of at most some 2048 exponents."""
    return best_top(np.bincount(sampled(exponents, 2048)[0], minlength=256))


def code_window(plane: Bytes) -> Coded:
    """Mode WINDOW."""
    top = choose_top(plane)
    pairs = to_nibbles(plane, top)
    count, tail = patches(plane, from_nibbles(pairs, len(plane), top))
    if len(pairs) + len(tail) >= len(plane):
        return Coded(bytes([RAW]), plane.tobytes())
    return Coded(bytes([WINDOW, top]) + count.to_bytes(2, "little"), pairs.tobytes(), tail)


def code_pairs(plane: Bytes, tables: TableSet, limit: int) -> Coded | None:
    """Mode PAIR, or what `code_bytes` makes of exponents that do not suit it.

    None where a table would cost `limit` or more; contexts do with that.
    """
    m = len(plane)
    top = choose_top(plane)
    symbols = to_nibbles(plane, top)
    outside = int(np.count_nonzero(plane != from_nibbles(symbols, m, top)))
    t, cost = tables.estimate(histogram(symbols), 1)
    cost += outside * PATCH_BITS * BIT
    if MANY_OUTSIDE * outside > m and tables.estimate(histogram(plane), 0)[1] <= cost:
        return code_bytes(plane, 0, tables, limit)
    if (t is None and tables.full) or not _pays(cost, m):
        return code_bytes(plane, 0, tables, limit)
    if cost >= limit:
        return None
    if t is None:
        t = tables.add(np.bincount(symbols, minlength=256), 1)
    return pairs_with(plane, symbols, top, t, tables)


def pairs_with(plane: Bytes, symbols: Bytes, top: int, t: int, tables: TableSet) -> Coded:
    """Mode PAIR with table t; RAW where that takes as much."""
    coding = tables.codings[t]
    symbols = coding.instead[symbols]
    stream = encode_stream(symbols, coding.table)
    count, tail = patches(plane, from_nibbles(symbols, len(plane), top))
    if len(stream) + len(tail) >= len(plane):
        return Coded(bytes([RAW]), plane.tobytes())
    return Coded(bytes([PAIR, top, t]) + _sizes(count, stream), stream=stream + tail)


def code_bytes(plane: Bytes, p: int, tables: TableSet, limit: int) -> Coded | None:
    """Mode BYTES, or RAW where that does not pay, or None as `code_pairs`."""
    m = len(plane)
    raw = Coded(bytes([RAW]), plane.tobytes()) if 8 * m * BIT < limit else None
    if p > 0 and m > SAMPLED and not _promising(plane):
        return raw
    t, cost = tables.estimate(histogram(plane), 2 * p)
    if (t is None and tables.full) or not _pays(cost, m):
        return raw
    if cost >= limit:
        return None
    if t is None:
        t = tables.add(np.bincount(plane, minlength=256), 2 * p)
    return bytes_with(plane, t, tables)


def bytes_with(plane: Bytes, t: int, tables: TableSet) -> Coded:
    """Mode BYTES with table t; RAW where that takes as much."""
    coding = tables.codings[t]
    symbols = coding.instead[plane]
    stream = encode_stream(symbols, coding.table)
    count, tail = patches(plane, symbols)
    if len(stream) + len(tail) >= len(plane):
        return Coded(bytes([RAW]), plane.tobytes())
    return Coded(bytes([BYTES, t]) + _sizes(count, stream), stream=stream + tail)


def code_in_segment(plane: Bytes, p: int, coder: "Coder", segment: Segment) -> Coded:
    """A plane of a chunk in the way SEGMENTS."""
    if p > 0:
        return Coded(bytes([RAW]), plane.tobytes())
    if coder.layout != FLOAT:
        return bytes_with(plane, segment.number, coder.tables)
    symbols = to_nibbles(plane, segment.top)
    return pairs_with(plane, symbols, segment.top, segment.number, coder.tables)


def _sizes(patch_count: int, stream: bytes) -> bytes:
    return patch_count.to_bytes(2, "little") + len(stream).to_bytes(4, "little")


def _pays(cost: int, m: int) -> bool:
    """Whether the estimate is below 99 % of m raw bytes."""
    return cost * 100 < 99 * 8 * m * BIT


def _promising(plane: Bytes) -> bool:
    """A glance at up to 1024 bytes: is their entropy below 7.4 bits?"""
    glance = np.bincount(sampled(plane, 1024)[0], minlength=256)
    return entropy(glance.astype(np.int64)) * 10 < 74 * int(glance.sum()) * BIT


def _pad(data: bytes) -> bytes:
    return data + bytes(-len(data) % ALIGN)


@dataclass
class Coder:
    """How an array is coded: what its chunks share."""

    layout: int
    mode: int
    tables: TableSet
    contexts: list[ContextSet | None]


def code_plane(planes: list[Bytes], p: int, coder: Coder, segment: Segment | None) -> Coded:
    """Code plane p of a chunk."""
    plane, tables = planes[p], coder.tables
    if np.all(plane == plane[0]):
        return Coded(bytes([CONST, plane[0]]))
    if coder.layout == FLOAT and coder.mode == FAST:
        return code_window(plane) if p == 0 else Coded(bytes([RAW]), plane.tobytes())
    if segment is not None:
        return code_in_segment(plane, p, coder, segment)
    contexts = coder.contexts[p]
    above = planes[p - 1] if p else None
    limit = None if contexts is None else contexts.cost(plane, above)
    bits = NO_LIMIT if limit is None else limit
    if coder.layout == FLOAT and p == 0:
        coded = code_pairs(plane, tables, bits)
    else:
        coded = code_bytes(plane, p, tables, bits)
    if coded is not None:
        return coded
    assert contexts is not None  # only a limit makes None
    number = sum(earlier is not None for earlier in coder.contexts[:p])
    stream = encode_contexts(plane, above, contexts)
    if len(stream) >= len(plane):
        return Coded(bytes([RAW]), plane.tobytes())
    return Coded(bytes([CONTEXT, number]) + len(stream).to_bytes(4, "little"), stream=stream)


def learn_contexts(chunks: list[Bytes], layout: int, mode: int) -> list[ContextSet | None]:
    """Contexts for each plane, from every second, third ... of over 1024 chunks."""
    if mode not in (CONTEXTS, CONTEXTS_BUT_0, CONTEXTS_OF_BYTES) or not chunks:
        return [None] * MAX_PLANES
    taken = chunks[:: -(-len(chunks) // LEARNT)]
    lessons = [split(chunk, layout) for chunk in taken if np.any(chunk != chunk[0])]
    count = len(lessons[0]) if lessons else 0
    sets = [learn(lessons, p) if mode != CONTEXTS_BUT_0 or p else None for p in range(count)]
    return sets + [None] * (MAX_PLANES - count)


def code_chunk(chunk: Bytes, coder: Coder, segment: Segment | None) -> tuple[bytes, bytes, bytes]:
    """Form, rest of the record after the checksum, and bytes of a chunk uint8 [n, w]."""
    if np.all(chunk == chunk[0]):
        return bytes([FORM_CONST]), chunk[0].tobytes(), b""
    if coder.mode == STORED:
        return bytes([FORM_RAW]), b"", chunk.tobytes()
    planes = split(chunk, coder.layout)
    coded = [code_plane(planes, p, coder, segment) for p in range(len(planes))]
    data = b"".join(_pad(c.fixed) for c in coded) + b"".join(c.stream for c in coded)
    if len(data) >= chunk.size:
        return bytes([FORM_RAW]), b"", chunk.tobytes()
    form = FORM_BYTES if coder.mode == CONTEXTS_OF_BYTES else FORM_PLANES
    return bytes([form]), b"".join(c.record for c in coded), data


def encode(
    data: bytes, width: int, layout: int, mode: int = TIGHT, chunk_log2: int = MAX_CHUNK_LOG2
) -> tuple[bytes, bytes]:
    """Head and coded bytes of an array of elements of `width` bytes."""
    if mode == CONTEXTS_OF_BYTES:
        layout = BYTE_PLANES
    elements = np.frombuffer(data, np.uint8).reshape(-1, width)
    step = 1 << chunk_log2
    chunks = [elements[start : start + step] for start in range(0, len(elements), step)]
    contexts = learn_contexts(chunks, layout, mode)
    coder = Coder(layout, mode, TableSet(), contexts)
    segments: list[Segment] = []
    if mode == SEGMENTS:
        segments = learn_segments(chunks, layout, coder.tables)
    records, pieces = [], []
    for i, chunk in enumerate(chunks):
        form, rest, body = code_chunk(chunk, coder, segments[i] if segments else None)
        body = body if i == len(chunks) - 1 else _pad(body)
        check = b"" if form[0] == FORM_CONST else checksum(body).to_bytes(4, "little")
        records.append(form + check + rest)
        pieces.append(body)
    stored = b"".join(pack_table(coding.table) for coding in coder.tables.codings)
    sets = [pack_set(contexts) for contexts in coder.contexts if contexts is not None]
    head = bytes([chunk_log2, len(coder.tables.codings)]) + stored
    return head + bytes([len(sets)]) + b"".join(sets) + b"".join(records), b"".join(pieces)


def checksum(data: bytes) -> int:
    """The low half of XXH3-64."""
    return int(xxhash.xxh3_64_intdigest(data)) & 0xFFFFFFFF


def decode(
    tables: list[Table],
    sets: list[ContextSet],
    records: list[ChunkRecord],
    coded: bytes,
    width: int,
    layout: int,
) -> bytes:
    """The elements of these chunks, of what `parse` found; BitstreamError if damaged."""
    chunks = [decode_chunk(r, tables, sets, coded, width, layout) for r in records]
    return b"".join(chunk.tobytes() for chunk in chunks)


def decode_chunk(
    record: ChunkRecord,
    tables: list[Table],
    sets: list[ContextSet],
    coded: bytes,
    width: int,
    layout: int,
) -> Bytes:
    """The elements of one chunk, uint8 [n, w]."""
    if record.form == FORM_CONST:
        return np.tile(np.frombuffer(record.value, np.uint8), (record.n, 1))
    data = coded[record.start : record.start + record.size]
    if checksum(data) != record.checksum:
        raise BitstreamError(f"the chunk at coded byte {record.start} fails its checksum")
    if record.form == FORM_RAW:
        return np.frombuffer(data, np.uint8, record.n * width).reshape(-1, width)
    if record.form == FORM_BYTES:
        layout = BYTE_PLANES
    cursor = Cursor(data)
    m = (record.n + 1) // 2 if layout == NIBBLES else record.n
    fixed = [_fixed(cursor, plane, m) for plane in record.planes]
    planes: list[Bytes] = []
    for plane, f in zip(record.planes, fixed, strict=True):
        if plane.mode == CONTEXT:
            above = planes[-1] if planes else None
            contexts = sets[plane.table]
            planes.append(decode_contexts(cursor.take(plane.size), m, above, contexts))
        else:
            planes.append(_decode_plane(cursor, plane, f, m, tables))
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
