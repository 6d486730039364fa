"""Byte planes on any GPU that Triton knows: encode in the way SEGMENTS (`planes_segments_ref`).

For devices without CUDA, as `planes_triton`. Only launches; nothing waits for the device but
`to_host`.

    window     a program for each segment samples its exponents, FLOAT only (`planes_triton_tables`,
               as the next two)
    count      a program for each chunk: counts of the symbols of plane 0, added to its segment's
    normalise  a program for each segment: `rans_ref.normalise`, in the same integers
    code       a program of one warp for each chunk: its stream to a workspace, backwards, and its
               record; then a sum over the sizes says where each chunk begins
    place      a program for each chunk writes its bytes there

The checksums of chunks are not made on the device: their places in the records hold 0, which
`planes_triton.decode` does not look at, and `to_host` fills them in.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl

from .planes_cuda import DEFAULT_LOG2, Packed, _log_table
from .planes_cuda_head import head_of
from .planes_head_ref import FORM_CONST
from .planes_ref import checksum
from .planes_triton import BLOCK, LANES, LOWER
from .planes_triton_tables import (
    byte_of,
    count_symbols,
    find_window,
    nibble_of,
    normalise,
    symbol_of,
)

FLOAT, NIBBLES = tl.constexpr(1), tl.constexpr(2)


def encode(data: torch.Tensor, width: int, layout: int, chunk_log2: int = DEFAULT_LOG2) -> Packed:
    """Launch the encoding of an array.

    Args:
        data: uint8 [n * width], contiguous.
        width: bytes of an element.
        layout: with the width one of `planes_cuda.SHAPES`.
        chunk_log2: log2 of the elements of a chunk, 12 to 14.

    Returns:
        The coded array, without checksums.

    Raises:
        ValueError: an argument is outside its range.
    """
    if data.dtype != torch.uint8 or not data.is_contiguous() or data.numel() % width:
        raise ValueError(f"data: expected contiguous uint8, a multiple of {width} bytes")
    device, n = data.device, data.numel() // width
    packed = Packed.empty(n, width, layout, chunk_log2, device)
    chunks, segments = packed.chunks, len(packed.tables)
    if not chunks:
        return packed
    shape = {"LAYOUT": layout, "WIDTH": width, "CHUNK": 1 << chunk_log2}
    tops = torch.zeros(segments, dtype=torch.int32, device=device)
    counts = torch.zeros((segments, 256), dtype=torch.int32, device=device)
    entries = torch.empty((segments, 256), dtype=torch.int32, device=device)
    if layout == FLOAT:
        find_window[(segments,)](data, tops, n, chunks, segments, **shape)
    count_symbols[(chunks,)](data, tops, counts, n, chunks, segments, **shape)
    normalise[(segments,)](counts, _log_table(device), packed.tables, entries)
    words = torch.empty((chunks, 1 << chunk_log2), dtype=torch.int16, device=device)
    states = torch.empty((chunks, 32), dtype=torch.int32, device=device)
    sizes = torch.empty(chunks, dtype=torch.int64, device=device)
    packed.records.zero_()
    _code[(chunks,)](
        data, tops, entries, words, states, packed.records, sizes, n, chunks, segments, **shape,
        num_warps=1,
    )  # fmt: skip
    ends = sizes.cumsum(0)
    packed.records[:, 2:4] = (ends - sizes)[:, None].view(torch.int32)
    packed.used.copy_(ends[-1:])
    _place[(chunks,)](data, words, states, packed.records, packed.coded, n, sizes, **shape)
    return packed


def to_host(packed: Packed) -> tuple[bytes, bytes]:
    """Head and coded bytes as `planes.encode` makes them in mode "segments", checksums included."""
    size = int(packed.used.item())
    coded = packed.coded[:size].cpu().numpy().tobytes()
    records = packed.records.cpu()
    starts = records[:, 2:4].contiguous().view(torch.int64)[:, 0].tolist()
    ends = [*starts[1:], size][: len(starts)]
    for record, start, end in zip(records, starts, ends, strict=True):
        if record[0] != FORM_CONST:
            value = checksum(coded[start:end])
            record[1] = value - (value >> 31 << 32)
    tables = packed.tables.cpu().numpy()
    head = head_of(packed.chunk_log2, tables, records.numpy(), packed.width, packed.layout)
    return head, coded


@triton.jit
def _varies(data, p: tl.constexpr, m, n, LAYOUT: tl.constexpr, WIDTH: tl.constexpr):
    """Whether the bytes of a plane are not all the same."""
    zero = tl.zeros([BLOCK], tl.int32)
    first = byte_of(data, zero, p, n, zero == 0, LAYOUT, WIDTH)
    differ = 0
    for start in range(0, m, BLOCK):
        i = start + tl.arange(0, BLOCK)
        there = byte_of(data, i, p, n, i < m, LAYOUT, WIDTH)
        differ += tl.sum(((there != first) & (i < m)).to(tl.int32), 0)
    return differ > 0


@triton.jit
def _elements_vary(data, n, WIDTH: tl.constexpr):
    differ = 0
    for start in range(0, n * WIDTH, BLOCK):
        i = start + tl.arange(0, BLOCK)
        mask = i < n * WIDTH
        there = tl.load(data + i, mask=mask, other=0)
        differ += tl.sum(((there != tl.load(data + i % WIDTH)) & mask).to(tl.int32), 0)
    return differ > 0


@triton.jit
def _outside(data, i, top, m, n, WIDTH: tl.constexpr):
    """Exponents i, and which of them need a patch."""
    exponent = byte_of(data, i, 0, n, i < m, FLOAT, WIDTH)
    return exponent, (i < m) & (exponent > 0) & (nibble_of(exponent, top) == 15)


@triton.jit
def _patches(data, top, m, n, WIDTH: tl.constexpr):
    count = 0
    for start in range(0, m, BLOCK):
        _, outside = _outside(data, start + tl.arange(0, BLOCK), top, m, n, WIDTH)
        count += tl.sum(outside.to(tl.int32), 0)
    return count


@triton.jit
def _stream(
    data, top, entries, words, states, symbols, n, LAYOUT: tl.constexpr, WIDTH: tl.constexpr,
    CHUNK: tl.constexpr,
):  # fmt: skip
    """Code plane 0 backwards; the words end at the end of `words`: the bytes of the stream."""
    lane = tl.arange(0, LANES)
    lanes = tl.where(symbols >= 2048, 32, tl.where(symbols >= 128, 4, 1))
    x = tl.zeros([LANES], tl.uint32) + LOWER
    used = 0
    last = (symbols - 1) // lanes * lanes
    for done in range(0, last + 1, lanes):
        i = last - done + lane
        active = (lane < lanes) & (i < symbols)
        symbol = symbol_of(data, i, top, n, active, LAYOUT, WIDTH)
        entry = tl.load(entries + symbol, mask=active, other=1)
        freq = (entry & 0xFFFF).to(tl.uint32)
        full = active & (x >> 20 >= freq)
        need = full.to(tl.int32)
        used += tl.sum(need, 0)
        place = CHUNK - used + tl.cumsum(need, 0) - need
        tl.store(words + place, (x & 0xFFFF).to(tl.int16), mask=full)
        x = tl.where(full, x >> 16, x)
        coded = (x // freq << 12) + x % freq + (entry >> 16).to(tl.uint32)
        x = tl.where(active, coded, x)
    tl.store(states + lane, x.to(tl.int32, bitcast=True))
    return 1 + 4 * lanes + 2 * used


@triton.jit
def _code(
    data, tops, entries, words, states, records, sizes, n, chunks, segments, LAYOUT: tl.constexpr,
    WIDTH: tl.constexpr, CHUNK: tl.constexpr,
):  # fmt: skip
    chunk = tl.program_id(0).to(tl.int64)
    segment = (chunk * segments // chunks).to(tl.int32)
    data += chunk * (CHUNK * WIDTH)
    n = tl.minimum(n - chunk * CHUNK, CHUNK).to(tl.int32)
    m = (n + 1) // 2 if LAYOUT == NIBBLES else n
    planes: tl.constexpr = 2 if LAYOUT == NIBBLES else WIDTH
    record, top = records + chunk * 16, tl.load(tops + segment)
    size = 0
    form = 1
    if _elements_vary(data, n, WIDTH):
        form = 2
        for p in tl.static_range(planes):
            coding = byte_of(data, tl.arange(0, 1), p, n, tl.arange(0, 1) == 0, LAYOUT, WIDTH)
            coding = 1 | tl.sum(coding, 0) << 8
            patches, stream, fixed = 0, 0, 0
            if _varies(data, p, m, n, LAYOUT, WIDTH):
                coding, fixed = 0, (m + 15) // 16 * 16
                if p == 0:
                    symbols = n if LAYOUT == 0 else (n + 1) // 2
                    stream = _stream(
                        data, top, entries + segment * 256, words + chunk * CHUNK,
                        states + chunk * 32, symbols, n, LAYOUT, WIDTH, CHUNK,
                    )  # fmt: skip
                    coding = 2 | segment << 16
                    if LAYOUT == FLOAT:
                        patches = _patches(data, top, m, n, WIDTH)
                        coding = 3 | top << 8 | segment << 16
                    if stream + 3 * patches >= m:
                        coding, patches, stream = 0, 0, 0
                    else:
                        fixed = 0
            size += fixed + stream + 3 * patches
            tl.store(record + 4 + 3 * p, coding)
            tl.store(record + 5 + 3 * p, patches)
            tl.store(record + 6 + 3 * p, stream)
        if size >= n * WIDTH:
            form, size = 0, n * WIDTH
    else:
        at = tl.arange(0, 4)
        value = tl.load(data + at, mask=at < WIDTH, other=0).to(tl.int32)
        tl.store(record + 4, tl.sum(value << 8 * at, 0))
    tl.store(record, form)
    padded = (size + 15) // 16 * 16
    tl.store(sizes + chunk, tl.where(chunk == chunks - 1, size, padded).to(tl.int64))


@triton.jit
def _put_stream(
    data, words, states, coded, size, patches, top, m, n, LAYOUT: tl.constexpr, WIDTH: tl.constexpr,
    CHUNK: tl.constexpr,
):  # fmt: skip
    """Write stream and patches of plane 0."""
    symbols = n if LAYOUT == 0 else (n + 1) // 2
    log = tl.where(symbols >= 2048, 5, tl.where(symbols >= 128, 2, 0))
    begin = 1 + 4 * (1 << log)
    tl.store(coded, log.to(tl.uint8))
    count = size - begin
    for start in range(0, size - 1, BLOCK):
        k = start + tl.arange(0, BLOCK)
        state = tl.load(states.to(tl.pointer_type(tl.uint8)) + k, mask=k < begin - 1, other=0)
        at = (words + CHUNK).to(tl.pointer_type(tl.uint8)) - count + (k - (begin - 1))
        word = tl.load(at, mask=(k >= begin - 1) & (k < size - 1), other=0)
        tl.store(coded + 1 + k, state | word, mask=k < size - 1)
    if LAYOUT == FLOAT:
        put = 0
        for start in range(0, tl.where(patches > 0, m, 0), BLOCK):
            i = start + tl.arange(0, BLOCK)
            exponent, outside = _outside(data, i, top, m, n, WIDTH)
            need = outside.to(tl.int32)
            rank = put + tl.cumsum(need, 0) - need
            tl.store(coded + size + 2 * rank, (i & 255).to(tl.uint8), mask=outside)
            tl.store(coded + size + 2 * rank + 1, (i >> 8).to(tl.uint8), mask=outside)
            tl.store(coded + size + 2 * patches + rank, exponent.to(tl.uint8), mask=outside)
            put += tl.sum(need, 0)


@triton.jit
def _zeros(coded, begin, end):
    """Zeros up to 15 bytes of padding."""
    at = begin + tl.arange(0, 16)
    tl.store(coded + at, tl.zeros([16], tl.uint8), mask=at < end)


@triton.jit
def _place(
    data, words, states, records, coded, n, sizes, LAYOUT: tl.constexpr, WIDTH: tl.constexpr,
    CHUNK: tl.constexpr,
):  # fmt: skip
    chunk = tl.program_id(0).to(tl.int64)
    data += chunk * (CHUNK * WIDTH)
    n = tl.minimum(n - chunk * CHUNK, CHUNK).to(tl.int32)
    m = (n + 1) // 2 if LAYOUT == NIBBLES else n
    planes: tl.constexpr = 2 if LAYOUT == NIBBLES else WIDTH
    record = records + chunk * 16
    form = tl.load(record)
    coded += tl.load((record + 2).to(tl.pointer_type(tl.int64)))
    end = tl.load(sizes + chunk).to(tl.int32)
    if form == 0:
        for start in range(0, n * WIDTH, BLOCK):
            i = start + tl.arange(0, BLOCK)
            there = tl.load(data + i, mask=i < n * WIDTH, other=0)
            tl.store(coded + i, there, mask=i < n * WIDTH)
        _zeros(coded, n * WIDTH, end)
    elif form == 2:
        at = 0
        for p in tl.static_range(planes):
            if tl.load(record + 4 + 3 * p) & 255 == 0:
                for start in range(0, m, BLOCK):
                    i = start + tl.arange(0, BLOCK)
                    there = byte_of(data, i, p, n, i < m, LAYOUT, WIDTH)
                    tl.store(coded + at + i, there.to(tl.uint8), mask=i < m)
                _zeros(coded + at, m, (m + 15) // 16 * 16)
                at += (m + 15) // 16 * 16
        coding = tl.load(record + 4)
        if coding & 255 >= 2:
            patches, size = tl.load(record + 5), tl.load(record + 6)
            _put_stream(
                data, words + chunk * CHUNK, states + chunk * 32, coded + at, size, patches,
                coding >> 8 & 255, m, n, LAYOUT, WIDTH, CHUNK,
            )  # fmt: skip
            at += size + 3 * patches
        _zeros(coded, at, end)
