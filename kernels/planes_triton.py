"""Byte planes on any GPU that Triton knows: decode. `planes_ref` defines the bytes.

For devices without CUDA; on CUDA `planes_cuda` is faster. The form in device memory is the same,
`planes_cuda.Packed`. A program of one warp decodes a chunk: lanes are a vector of 32, and the word
of a lane that needs one has the rank that a running sum of their mask gives.

Planes 1 and up that are streams are decoded into their byte of the elements, where the join of
plane 0 finds them; planes that are not are read when they are joined. Everything that is read or
written is checked against its array, and every stream against its end; the checksums of chunks are
not (`planes_cuda` and the CPU check them).
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl

from .planes_cuda import SHAPES, Packed

FLOAT, NIBBLES = tl.constexpr(1), tl.constexpr(2)
FORM_RAW, FORM_CONST, FORM_PLANES = tl.constexpr(0), tl.constexpr(1), tl.constexpr(2)
RAW, CONST, BYTES = tl.constexpr(0), tl.constexpr(1), tl.constexpr(2)
PAIR, WINDOW = tl.constexpr(3), tl.constexpr(4)
# Those of `planes_cuda`.
BAD_RECORD, BAD_STREAM, BAD_PATCHES = tl.constexpr(2), tl.constexpr(3), tl.constexpr(4)
LOWER = tl.constexpr(1 << 16)
LANES = tl.constexpr(32)
BLOCK = tl.constexpr(512)
SLOTS = 4096


def decode(packed: Packed, out: torch.Tensor, chunks: tuple[int, int] | None = None) -> None:
    """Launch the decoding of an array, or of chunks first .. last - 1.

    Damage is left in `packed.error`: ask `packed.check()`, which waits for the device.

    Args:
        packed: the coded array.
        out: uint8 [elements * width], contiguous, on its device, at a multiple of 4 bytes.
        chunks: first and last; None = all.

    Raises:
        ValueError: `out` does not fit, or there are no such chunks.
    """
    size = packed.elements(chunks) * packed.width
    if (out.dtype, out.numel(), out.device) != (torch.uint8, size, packed.coded.device):
        raise ValueError(f"out: expected uint8 [{size}] on {packed.coded.device}")
    if not out.is_contiguous() or out.data_ptr() % 4 or (packed.layout, packed.width) not in SHAPES:
        raise ValueError("out must be contiguous, at a multiple of 4 bytes, of a shape in SHAPES")
    first, last = chunks if chunks is not None else (0, packed.chunks)
    if first == last:
        return
    _decode[(last - first,)](
        packed.coded,
        packed.used,
        packed.records,
        make_slots(packed.tables),
        out,
        packed.error,
        first,
        packed.n,
        len(packed.tables),
        packed.chunks,
        LAYOUT=packed.layout,
        WIDTH=packed.width,
        CHUNK=1 << packed.chunk_log2,
        num_warps=1,
    )


def make_slots(tables: torch.Tensor) -> torch.Tensor:
    """What the decoder looks up, int32 [T, 4096]: freq << 20 | symbol << 12 | slot - cum."""
    slots = torch.empty((len(tables), SLOTS), dtype=torch.int32, device=tables.device)
    if len(tables):
        _make_slots[(len(tables),)](tables, slots, COUNT=SLOTS)
    return slots


@triton.jit
def _make_slots(tables, slots, COUNT: tl.constexpr):
    freqs = tables + tl.program_id(0) * 256
    slot = tl.arange(0, COUNT)
    symbol = tl.zeros([COUNT], tl.int32)
    cum = tl.zeros([COUNT], tl.int32)
    end = 0
    for s in range(255):
        end += tl.load(freqs + s).to(tl.int32)
        symbol += (slot >= end).to(tl.int32)
        cum = tl.where(slot >= end, end, cum)
    freq = tl.load(freqs + symbol).to(tl.int32)
    tl.store(slots + tl.program_id(0) * COUNT + slot, freq << 20 | symbol << 12 | slot - cum)


@triton.jit
def fail(error, chunk, code):
    """Keep the lowest of chunk << 8 | code; -1, the highest, is none."""
    tl.atomic_min(
        error.to(tl.pointer_type(tl.uint64)), (chunk.to(tl.int64) << 8 | code).to(tl.uint64)
    )


@triton.jit
def _field(record, p: tl.constexpr, k: tl.constexpr):
    """Coding, patches or stream bytes of a plane."""
    return tl.load(record + 4 + 3 * p + k)


@triton.jit
def _fixed(mode, m):
    """Bytes that a plane has before the streams."""
    size = tl.where(mode == RAW, m, tl.where(mode == WINDOW, (m + 1) // 2, 0))
    return (size + 15) // 16 * 16


@triton.jit
def fixed_before(record, p: tl.constexpr, m):
    """Bytes of a chunk before the RAW or WINDOW bytes of plane p."""
    size = 0
    for q in tl.static_range(p):
        size += _fixed(_field(record, q, 0) & 255, m)
    return size


@triton.jit
def stream_before(record, p: tl.constexpr, planes: tl.constexpr, m):
    """Bytes of a chunk before the stream of plane p."""
    size = fixed_before(record, planes, m)
    for q in tl.static_range(p):
        size += _field(record, q, 2) + 3 * _field(record, q, 1)
    return size


@triton.jit
def record_fits(record, used, tables, planes: tl.constexpr, layout: tl.constexpr, m, stored, last):
    """Whether a record of form RAW or PLANES is legal and its bytes are there."""
    form = tl.load(record)
    size = stored.to(tl.int64)
    legal = form == FORM_RAW
    if form == FORM_PLANES:
        legal = form == FORM_PLANES
        size = fixed_before(record, planes, m).to(tl.int64)
        for p in tl.static_range(planes):
            coding = _field(record, p, 0)
            mode = coding & 255
            patches, stream = _field(record, p, 1), _field(record, p, 2)
            coded = (mode == BYTES) | (mode == PAIR)
            exponents = (mode == PAIR) | (mode == WINDOW)
            legal = legal & (mode <= WINDOW)
            if p > 0 or layout != FLOAT:
                legal = legal & (mode <= BYTES)
            legal = legal & tl.where(coded, coding >> 16 < tables, stream == 0)
            legal = legal & (coded | exponents | (patches == 0))
            legal = legal & (stream >= 0) & (patches >= 0) & (patches < LOWER) & (coding >= 0)
            size += stream.to(tl.int64) + 3 * patches
    size = tl.where(last, size, (size + 15) // 16 * 16)
    start = tl.load((record + 2).to(tl.pointer_type(tl.int64)))
    return legal & (start >= 0) & (start % 16 == 0) & (start <= used) & (size <= used - start)


@triton.jit
def load_u16(at, mask):
    """Little-endian integers at any address, as int32."""
    low = tl.load(at, mask=mask, other=0).to(tl.int32)
    return low | tl.load(at + 1, mask=mask, other=0).to(tl.int32) << 8


@triton.jit
def open_stream(stream, size):
    """Lanes (0: damaged), first states uint32 [32], the words and their number."""
    log = tl.load(stream, mask=size > 0, other=255).to(tl.int32)
    lanes = 1 << (log & 7)
    fine = (log <= 5) & (size >= 1 + 4 * lanes) & (size % 2 == 1)
    lanes = tl.where(fine, lanes, 0)
    lane = tl.arange(0, LANES)
    at, there = stream + 1 + 4 * lane, lane < lanes
    x = load_u16(at, there).to(tl.uint32) | load_u16(at + 2, there).to(tl.uint32) << 16
    x = tl.where(there, x, LOWER)
    return lanes, x, stream + 1 + 4 * lanes, (size - 1 - 4 * lanes) // 2


@triton.jit
def decode_step(x, active, slots, words, count, at):
    """A symbol for each active lane: symbols, new states, number of the next word."""
    entry = tl.load(slots + (x & 4095).to(tl.int32)).to(tl.uint32, bitcast=True)
    y = (entry >> 20) * (x >> 12) + (entry & 4095)
    low = active & (y < LOWER)
    need = low.to(tl.int32)
    rank = at + tl.cumsum(need, 0) - need
    word = load_u16(words + 2 * rank, low & (rank < count)).to(tl.uint32)
    y = tl.where(low, y << 16 | word, y)
    return (entry >> 12 & 255).to(tl.int32), tl.where(active, y, x), at + tl.sum(need, 0)


@triton.jit
def exponent_of(nibble, top):
    """The exponent of a window nibble."""
    return tl.where(nibble < 15, (top - nibble) & 255, 0)


@triton.jit
def _other(
    coded, out, record, p: tl.constexpr, m, i, mask, LAYOUT: tl.constexpr, WIDTH: tl.constexpr
):
    """Bytes i of plane p > 0: of its RAW bytes, or where its stream has been decoded to."""
    coding = _field(record, p, 0)
    mode = coding & 255
    raw = tl.load(coded + fixed_before(record, p, m) + i, mask=mask & (mode == RAW), other=0)
    there = tl.load(_place(out, p, i, LAYOUT, WIDTH), mask=mask & (mode == BYTES), other=0)
    value = tl.where(mode == CONST, coding >> 8 & 255, 0)
    return raw.to(tl.int32) | there.to(tl.int32) | value


@triton.jit
def _place(out, p: tl.constexpr, i, LAYOUT: tl.constexpr, WIDTH: tl.constexpr):
    """Where byte i of a plane p is kept until it is joined."""
    if LAYOUT == NIBBLES:
        return out + 2 * i
    return out + WIDTH * i + (WIDTH - 1 - p)


@triton.jit
def _join(coded, out, record, n, m, i, values, mask, LAYOUT: tl.constexpr, WIDTH: tl.constexpr):
    """Write the elements of bytes i of plane 0."""
    if LAYOUT == NIBBLES:
        rests = _other(coded, out, record, 1, m, i, mask, LAYOUT, WIDTH)
        low = (rests & 8) << 4 | (values & 15) << 3 | rests & 7
        high = (rests >> 4 & 8) << 4 | (values >> 4) << 3 | rests >> 4 & 7
        tl.store(out + 2 * i, low.to(tl.uint8), mask=mask)
        tl.store(out + 2 * i + 1, high.to(tl.uint8), mask=mask & (2 * i + 1 < n))
    elif WIDTH == 1:
        tl.store(out + i, values.to(tl.uint8), mask=mask)
    else:
        rests = _other(coded, out, record, 1, m, i, mask, LAYOUT, WIDTH)
        if LAYOUT == FLOAT:
            u = values << 7 | (rests & 128) << 8 | rests & 127
        else:
            u = values << 8 | rests
        if WIDTH == 2:
            tl.store(out.to(tl.pointer_type(tl.uint16)) + i, u.to(tl.uint16), mask=mask)
        else:
            low = _other(coded, out, record, 2, m, i, mask, LAYOUT, WIDTH) << 8
            low |= _other(coded, out, record, 3, m, i, mask, LAYOUT, WIDTH)
            tl.store(out.to(tl.pointer_type(tl.int32)) + i, u << 16 | low, mask=mask)


@triton.jit
def _join_pairs(coded, out, record, n, i, pairs, mask, WIDTH: tl.constexpr):
    """Write the elements 2 i and 2 i + 1 of pairs of window nibbles."""
    top = _field(record, 0, 0) >> 8 & 255
    values = tl.interleave(exponent_of(pairs & 15, top), exponent_of(pairs >> 4, top))
    place = tl.interleave(2 * i, 2 * i + 1)
    both = tl.interleave(mask.to(tl.int32), mask.to(tl.int32)) > 0
    _join(coded, out, record, n, n, place, values, both & (place < n), FLOAT, WIDTH)


@triton.jit
def _stream(
    coded, out, record, p: tl.constexpr, n, m, slots, planes: tl.constexpr, LAYOUT: tl.constexpr,
    WIDTH: tl.constexpr,
):  # fmt: skip
    """Decode the stream of a plane; whether it ends cleanly."""
    coding = _field(record, p, 0)
    pairs = coding & 255 == PAIR
    count = tl.where(pairs, (m + 1) // 2, m)
    stream = coded + stream_before(record, p, planes, m)
    lanes, x, words, word_count = open_stream(stream, _field(record, p, 2))
    slots += (coding >> 16) * 4096
    lane = tl.arange(0, LANES)
    at = 0
    count = tl.where(lanes > 0, count, 0)
    for start in range(0, count, tl.maximum(lanes, 1)):
        i = start + lane
        active = (lane < lanes) & (i < count)
        symbols, x, at = decode_step(x, active, slots, words, word_count, at)
        if p > 0:
            tl.store(_place(out, p, i, LAYOUT, WIDTH), symbols.to(tl.uint8), mask=active)
        elif LAYOUT == FLOAT:
            if pairs:
                _join_pairs(coded, out, record, n, i, symbols, active, WIDTH)
            else:
                _join(coded, out, record, n, m, i, symbols, active, LAYOUT, WIDTH)
        else:
            _join(coded, out, record, n, m, i, symbols, active, LAYOUT, WIDTH)
    return (lanes > 0) & (at == word_count) & (tl.sum((x != LOWER).to(tl.int32), 0) == 0)


@triton.jit
def _plain(coded, out, record, n, m, LAYOUT: tl.constexpr, WIDTH: tl.constexpr):
    """Join a plane 0 that is no stream."""
    coding = _field(record, 0, 0)
    mode = coding & 255
    count = tl.where(mode == WINDOW, (m + 1) // 2, m)
    for start in range(0, count, BLOCK):
        i = start + tl.arange(0, BLOCK)
        mask = i < count
        values = tl.load(coded + i, mask=mask & (mode != CONST), other=0).to(tl.int32)
        values = tl.where(mode == CONST, coding >> 8 & 255, values)
        if LAYOUT == FLOAT:
            if mode == WINDOW:
                _join_pairs(coded, out, record, n, i, values, mask, WIDTH)
            else:
                _join(coded, out, record, n, m, i, values, mask, LAYOUT, WIDTH)
        else:
            _join(coded, out, record, n, m, i, values, mask, LAYOUT, WIDTH)


@triton.jit
def _patch(
    coded, out, record, p: tl.constexpr, n, m, planes: tl.constexpr, LAYOUT: tl.constexpr,
    WIDTH: tl.constexpr,
):  # fmt: skip
    """Replace bytes of a plane; whether their positions ascend below m."""
    count = _field(record, p, 1)
    places = coded + stream_before(record, p, planes, m) + _field(record, p, 2)
    wrong = 0
    for start in range(0, count, LANES):
        k = start + tl.arange(0, LANES)
        mask = k < count
        place = load_u16(places + 2 * k, mask)
        before = load_u16(places + 2 * k - 2, mask & (k > 0))
        fine = mask & (place < m) & ((place > before) | (k == 0))
        value = tl.load(places + 2 * count + k, mask=mask, other=0).to(tl.int32)
        wrong += tl.sum((mask & ~fine).to(tl.int32), 0)
        if p > 0:
            tl.store(_place(out, p, place, LAYOUT, WIDTH), value.to(tl.uint8), mask=fine)
        elif LAYOUT == FLOAT:
            at = out + WIDTH * place + (WIDTH - 2)
            u = load_u16(at, fine) & 0x807F | value << 7
            tl.store(at, (u & 255).to(tl.uint8), mask=fine)
            tl.store(at + 1, (u >> 8).to(tl.uint8), mask=fine)
        elif LAYOUT == NIBBLES:
            at, two = out + 2 * place, fine & (2 * place + 1 < n)
            low = tl.load(at, mask=fine, other=0).to(tl.int32) & 0x87 | (value & 15) << 3
            high = tl.load(at + 1, mask=two, other=0).to(tl.int32) & 0x87 | (value >> 4) << 3
            tl.store(at, low.to(tl.uint8), mask=fine)
            tl.store(at + 1, high.to(tl.uint8), mask=two)
        else:
            tl.store(_place(out, p, place, LAYOUT, WIDTH), value.to(tl.uint8), mask=fine)
    return wrong == 0


@triton.jit
def _fill(coded, out, record, size, form, WIDTH: tl.constexpr):
    """A stored or a constant chunk of so many bytes."""
    for start in range(0, size, BLOCK):
        i = start + tl.arange(0, BLOCK)
        mask = i < size
        stored = tl.load(coded + i, mask=mask & (form == FORM_RAW), other=0)
        value = tl.load((record + 4).to(tl.pointer_type(tl.uint8)) + i % WIDTH)
        tl.store(out + i, tl.where(form == FORM_RAW, stored, value), mask=mask)


@triton.jit
def _decode(
    coded, used, records, slots, out, error, first, n, tables, chunks, LAYOUT: tl.constexpr,
    WIDTH: tl.constexpr, CHUNK: tl.constexpr,
):  # fmt: skip
    number = tl.program_id(0)
    chunk = first + number
    record = records + chunk.to(tl.int64) * 16
    out += number.to(tl.int64) * (CHUNK * WIDTH)
    n = tl.minimum(n - chunk.to(tl.int64) * CHUNK, CHUNK).to(tl.int32)
    planes: tl.constexpr = 2 if LAYOUT == NIBBLES else WIDTH
    m = (n + 1) // 2 if LAYOUT == NIBBLES else n
    form = tl.load(record)
    fits = record_fits(
        record, tl.load(used), tables, planes, LAYOUT, m, n * WIDTH, chunk == chunks - 1
    )
    coded += tl.load((record + 2).to(tl.pointer_type(tl.int64)))
    if form == FORM_CONST:
        _fill(coded, out, record, n * WIDTH, form, WIDTH)
    elif not fits:
        fail(error, chunk, BAD_RECORD)
    elif form == FORM_RAW:
        _fill(coded, out, record, n * WIDTH, form, WIDTH)
    else:
        ended = form == FORM_PLANES
        patched = form == FORM_PLANES
        for p in tl.static_range(planes - 1, -1, -1):
            mode = _field(record, p, 0) & 255
            if (mode == BYTES) | (mode == PAIR):
                good = _stream(coded, out, record, p, n, m, slots, planes, LAYOUT, WIDTH)
                ended = ended & good
            elif p == 0:
                _plain(coded, out, record, n, m, LAYOUT, WIDTH)
            tl.debug_barrier()
            good = _patch(coded, out, record, p, n, m, planes, LAYOUT, WIDTH)
            patched = patched & good
            tl.debug_barrier()
        if not ended:
            fail(error, chunk, BAD_STREAM)
        elif not patched:
            fail(error, chunk, BAD_PATCHES)
