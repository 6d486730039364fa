"""Tables of the way SEGMENTS in Triton: windows, counts and `rans_ref.normalise`; see the encoder.

The first three functions say what plane 0 and its symbols are.
"""

from __future__ import annotations

import triton
import triton.language as tl

from .planes_triton import BLOCK

FLOAT, NIBBLES = tl.constexpr(1), tl.constexpr(2)
PERIOD, TAKEN = tl.constexpr(4096), tl.constexpr(64)  # of `planes_segments_ref`


@triton.jit
def byte_of(data, i, p: tl.constexpr, n, mask, LAYOUT: tl.constexpr, WIDTH: tl.constexpr):
    """Bytes i of plane p of n elements at `data`."""
    if LAYOUT == NIBBLES:
        low = tl.load(data + 2 * i, mask=mask, other=0).to(tl.int32)
        high = tl.load(data + 2 * i + 1, mask=mask & (2 * i + 1 < n), other=0).to(tl.int32)
        if p == 0:
            return low >> 3 & 15 | (high >> 3 & 15) << 4
        return low >> 4 & 8 | low & 7 | (high >> 4 & 8 | high & 7) << 4
    at = data + WIDTH * i
    if LAYOUT == FLOAT and p < 2:
        high = tl.load(at + (WIDTH - 1), mask=mask, other=0).to(tl.int32)
        low = tl.load(at + (WIDTH - 2), mask=mask, other=0).to(tl.int32)
        if p == 0:
            return (high & 127) << 1 | low >> 7
        return high & 128 | low & 127
    return tl.load(at + (WIDTH - 1 - p), mask=mask, other=0).to(tl.int32)


@triton.jit
def nibble_of(exponent, top):
    """Window nibbles of exponents."""
    distance = (top - exponent) & 255
    return tl.where((distance < 15) & (exponent > 0), distance, 15)


@triton.jit
def symbol_of(data, i, top, n, mask, LAYOUT: tl.constexpr, WIDTH: tl.constexpr):
    """Symbols i of plane 0; those of FLOAT are pairs."""
    if LAYOUT == FLOAT:
        second = mask & (2 * i + 1 < n)
        low = nibble_of(byte_of(data, 2 * i, 0, n, mask, LAYOUT, WIDTH), top)
        high = nibble_of(byte_of(data, 2 * i + 1, 0, n, second, LAYOUT, WIDTH), top)
        return low | tl.where(second, high, 0) << 4
    return byte_of(data, i, 0, n, mask, LAYOUT, WIDTH)


@triton.jit
def find_window(
    data, tops, n, chunks, segments, LAYOUT: tl.constexpr, WIDTH: tl.constexpr, CHUNK: tl.constexpr
):
    """A program for each segment: the top of its window, from a sample of its exponents."""
    segment = tl.program_id(0).to(tl.int64)
    first = (segment * chunks + segments - 1) // segments * CHUNK  # a multiple of PERIOD
    last = tl.minimum(((segment + 1) * chunks + segments - 1) // segments * CHUNK, n)
    counts = tl.zeros([256], tl.int32)
    for start in range(first, last, PERIOD):
        i = start + tl.arange(0, TAKEN)
        exponents = byte_of(data, i.to(tl.int64), 0, n, i < last, LAYOUT, WIDTH)
        counts += tl.histogram(exponents, 256)  # others count as 0, which does not matter
    s, top = tl.arange(0, 256)[None, :], tl.arange(0, 256)[:, None]
    inside = (s > 0) & (s <= top) & (s > top - 15)
    held = tl.sum(tl.where(inside, counts[None, :], 0), 1)
    tl.store(tops + segment, tl.argmax(held, 0, tie_break_left=True))


@triton.jit
def count_symbols(
    data, tops, counts, n, chunks, segments, LAYOUT: tl.constexpr, WIDTH: tl.constexpr,
    CHUNK: tl.constexpr,
):  # fmt: skip
    """A program for each chunk: adds the counts of its symbols to its segment's."""
    chunk = tl.program_id(0).to(tl.int64)
    segment = chunk * segments // chunks
    data += chunk * (CHUNK * WIDTH)
    n = tl.minimum(n - chunk * CHUNK, CHUNK).to(tl.int32)
    symbols = n if LAYOUT == 0 else (n + 1) // 2
    top = tl.load(tops + segment)
    s = tl.arange(0, 256)
    found = tl.zeros([256], tl.int32)
    for start in range(0, symbols, BLOCK):
        i = start + tl.arange(0, BLOCK)
        symbol = symbol_of(data, i, top, n, i < symbols, LAYOUT, WIDTH)
        excess = tl.sum((i >= symbols).to(tl.int32), 0)
        symbol = tl.where(i < symbols, symbol, 0)
        found += tl.histogram(symbol, 256) - tl.where(s == 0, excess, 0)
    tl.atomic_add(counts + segment * 256 + s, found, mask=found > 0)


@triton.jit
def _log(log, at):
    return tl.load(log + at).to(tl.uint32, bitcast=True).to(tl.int64)


@triton.jit
def _gain(log, count, freq):
    """The symbol of the largest gain, and the gain."""
    gain = tl.where(count > 0, count * (_log(log, freq + 1) - _log(log, freq)), -1)
    return tl.argmax(gain, 0, tie_break_left=True), tl.max(gain, 0)


@triton.jit
def _loss(log, count, freq):
    """The symbol of the smallest loss, and the loss."""
    less = count * (_log(log, freq) - _log(log, tl.maximum(freq - 1, 0)))
    loss = tl.where(freq > 1, less, (1 << 62))
    return tl.argmin(loss, 0, tie_break_left=True), tl.min(loss, 0)


@triton.jit
def normalise(counts, log, tables, entries):
    """A program for each segment: its table, and freq | cum << 16 for the encoder."""
    segment = tl.program_id(0)
    s = tl.arange(0, 256)
    count = tl.load(counts + segment * 256 + s).to(tl.int64)
    present = tl.sum((count > 0).to(tl.int32), 0)
    absent = tl.argmax((count == 0).to(tl.int32), 0, tie_break_left=True)
    count = tl.where((present == 1) & (s == absent), 1, count)
    weight = tl.sum(count, 0)
    freq = tl.maximum((2 * count * 4096 + weight) // (2 * weight), 1)
    freq = tl.where(count > 0, freq, 0).to(tl.int32)
    total = tl.sum(freq, 0)
    while total < 4096:
        more, _ = _gain(log, count, freq)
        freq += (s == more).to(tl.int32)
        total += 1
    while total > 4096:
        less, _ = _loss(log, count, freq)
        freq -= (s == less).to(tl.int32)
        total -= 1
    more, gain = _gain(log, count, freq)
    less, loss = _loss(log, count, freq)
    while (more != less) & (gain > loss):
        freq += (s == more).to(tl.int32) - (s == less).to(tl.int32)
        more, gain = _gain(log, count, freq)
        less, loss = _loss(log, count, freq)
    tl.store(tables + segment * 256 + s, freq.to(tl.uint16))
    tl.store(entries + segment * 256 + s, freq | (tl.cumsum(freq, 0) - freq) << 16)
