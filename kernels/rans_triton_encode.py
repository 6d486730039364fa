"""The encoder of rans_triton.py: coded symbols closed up, then the chain."""

# Kernels are written in Triton's language, which has no types that mypy knows.
# mypy: disable-error-code="untyped-decorator,no-untyped-def,no-untyped-call,attr-defined"

import triton
import triton.language as tl

from .rans_device_source import WORD_ROOM

STATE = tl.constexpr(36)  # of rans_device, as are the next ones
LANES, NEXT, WORDS, STATUS = (tl.constexpr(k) for k in (32, 33, 34, 35))
LOWER = tl.constexpr(1 << 16)
ROOM_OF_SYMBOL = tl.constexpr(WORD_ROOM)
STREAM_ROOM = tl.constexpr(64)


@triton.jit
def _bits(e):
    """Bits of e, 0 <= e < 2**24: the exponent of a float that holds it exactly."""
    exponent = (e.to(tl.float32).to(tl.int32, bitcast=True) >> 23) - 126
    return tl.where(e > 0, exponent, 0)


@triton.jit
def _escape(value, offset, length):
    high = offset + length - 2
    return tl.where(value > high, 2 * (value - high - 1), 2 * (offset - 1 - value) + 1)


@triton.jit
def _row_of(scale, inside, boundaries, count, SEARCH: tl.constexpr):
    """The number of boundaries below a scale."""
    low = tl.zeros(scale.shape, tl.int32)
    for step in tl.static_range(SEARCH):
        middle = low + (1 << (SEARCH - 1 - step))
        there = inside & (middle <= count)
        below = tl.load(boundaries + middle - 1, mask=there, other=float("inf")) < scale
        low = tl.where(there & below, middle, low)
    return low


@triton.jit
def _quantised(residual):
    """Nearest integer, ties to even, clamped to int16: sums with 1.5 * 2**23 round so."""
    clamped = tl.minimum(tl.maximum(residual, -32768.0), 32767.0)
    return ((clamped + 12582912.0) - 12582912.0).to(tl.int32)


@triton.jit
def close_up(
    symbols, index, y, means, scales, boundaries, boundary_count, y_hat, bounds, rows, row_count,
    costs, wanted_lanes, pairs, state, BLOCK: tl.constexpr, SEARCH: tl.constexpr,
):  # fmt: skip
    """Pairs of coded symbols, and the state of a stream before its first step."""
    stream = tl.program_id(0)
    first = tl.load(bounds + stream)
    n = (tl.load(bounds + stream + 1) - first).to(tl.int32)
    stride = 1 + n // 8192
    count = 0
    cost = tl.zeros([BLOCK], tl.int64)
    wrong = tl.zeros([BLOCK], tl.int32)
    for base in range(0, n, BLOCK):
        i = base + tl.arange(0, BLOCK)
        inside = i < n
        at = first + i
        if scales is None:
            row = tl.load(index + at, mask=inside, other=0).to(tl.int32)
        else:
            scale = tl.load(scales + at, mask=inside, other=1.0)
            wrong = tl.where(scale != scale, 8, wrong)
            row = _row_of(scale, inside, boundaries, boundary_count, SEARCH)
        outside = row >= row_count
        wrong = tl.where(outside, 1, wrong)
        row = tl.where(outside, 0, row)
        offset = tl.load(rows + 4 * row)
        length = tl.load(rows + 4 * row + 1)
        coded = inside & (length > 0)
        if y is None:
            value = tl.load(symbols + at, mask=inside, other=0).to(tl.int32)
            lost = inside & (length == 0) & (value != 0)
            wrong = tl.where(lost & (wrong == 0), 2, wrong)
        else:
            mean = tl.zeros([BLOCK], tl.float32)
            if means is not None:
                mean = tl.load(means + at, mask=inside, other=0.0)
            residual = tl.load(y + at, mask=inside, other=0.0) - mean
            nan = residual != residual
            wrong = tl.where(nan & (wrong != 1), 8, wrong)
            value = tl.where(coded, _quantised(tl.where(nan, 0.0, residual)), 0)
            if y_hat is not None:
                tl.store(y_hat + at, value.to(tl.float32) + mean, mask=inside)
        entry = value - offset
        escaped = coded & ((entry < 0) | (entry >= length - 1))
        place = tl.load(rows + 4 * row + 2) + tl.where(escaped, length - 1, entry)
        sampled = coded & (i % stride == 0)
        bits = tl.load(costs + place, mask=sampled, other=0)
        raw = 4 + tl.maximum(_bits(_escape(value, offset, length)), 1)
        cost += tl.where(sampled, bits + tl.where(escaped, raw << 16, 0), 0).to(tl.int64)
        kept = tl.cumsum(coded.to(tl.int32), 0)
        tl.store(pairs + first + count + kept - 1, value * 256 + row, mask=coded)
        count += tl.sum(coded.to(tl.int32), 0)
    samples = tl.maximum((n - 1) // stride + 1, 1)
    size = (tl.sum(cost, 0) // samples * n) >> 19
    lanes = 1
    for _ in tl.static_range(5):
        lanes = tl.where(2 * lanes * 1200 <= size, 2 * lanes, lanes)
    lanes = tl.where(wanted_lanes > 0, wanted_lanes, lanes)
    # A row that is not there is worse than a NaN, and that than a symbol that is not coded.
    status = tl.max(tl.where(wrong == 1, 16, wrong), 0)
    status = tl.where(status == 16, 1, status)
    own = state + stream.to(tl.int64) * STATE
    tl.store(own + tl.arange(0, 32), tl.full([32], LOWER, tl.int64))
    tl.store(own + LANES, tl.where((status == 0) & (count > 0), lanes, 0).to(tl.int64))
    tl.store(own + NEXT, count.to(tl.int64))
    tl.store(own + WORDS, tl.full([], 0, tl.int64))
    tl.store(own + STATUS, status.to(tl.int64))


@triton.jit
def _put_raw(x, active, value, bits):
    """The state after raw bits, and the word in front of them, and whether there is one."""
    full = active & (bits > 0) & ((x >> (32 - tl.maximum(bits, 1)).to(tl.uint32)) != 0)
    shifted = tl.where(full, x >> 16, x) << bits.to(tl.uint32)
    piece = value & ((1 << bits) - 1)
    return tl.where(active, shifted | piece.to(tl.uint32), x), x, full


@triton.jit
def rank(mask):
    """How many lanes below are in the mask."""
    ones = mask.to(tl.int32)
    return tl.cumsum(ones, 0) - ones


@triton.jit
def _store_words(to, word, full, place):
    tl.store(to + place, (word & 0xFFFF).to(tl.int16), mask=full)


@triton.jit
def encode_chain(bounds, rows, entries, pairs, words, state, PRECISION: tl.constexpr):
    """Pairs backwards into states; the words grow down from the end of the stream's room."""
    stream = tl.program_id(0).to(tl.int64)
    own = state + stream * STATE
    first = tl.load(bounds + stream)
    lanes = tl.load(own + LANES).to(tl.int32)
    count = tl.where(lanes > 0, tl.load(own + NEXT), 0).to(tl.int32)
    end = words + tl.load(bounds + stream + 1) * ROOM_OF_SYMBOL + STREAM_ROOM * (stream + 1)
    lane = tl.arange(0, 32)
    x = tl.full([32], LOWER, tl.uint32)
    used = tl.full([], 0, tl.int64)
    steps = (count + lanes - 1) // tl.maximum(lanes, 1)
    for done in range(0, steps):
        k = (steps - 1 - done) * lanes + lane
        active = (lane < lanes) & (k < count)
        pair = tl.load(pairs + first + k, mask=active, other=0)
        value = pair >> 8
        row = pair & 255
        offset = tl.load(rows + 4 * row)
        length = tl.load(rows + 4 * row + 1)
        entry = value - offset
        escaped = active & ((entry < 0) | (entry >= length - 1))
        place = tl.load(rows + 4 * row + 2) + tl.where(escaped, length - 1, entry)
        both = tl.load(entries + place, mask=active, other=1).to(tl.uint32, bitcast=True)
        freq, cum = both & 0xFFFF, both >> 16
        anyone = tl.max(escaped.to(tl.int32), 0) > 0
        if anyone:
            e = tl.where(escaped, _escape(value, offset, length), 0)
            nb = _bits(e)
            x, word_a, full_a = _put_raw(x, escaped, e >> 16, tl.maximum(nb - 17, 0))
            x, word_b, full_b = _put_raw(x, escaped, e, tl.minimum(tl.maximum(nb - 1, 0), 16))
            x, word_c, full_c = _put_raw(x, escaped, nb, tl.where(escaped, 5, 0))
            full = active & ((x >> (32 - PRECISION)) >= freq)
            a, b, c, d = (full_a.to(tl.int32), full_b.to(tl.int32), full_c.to(tl.int32),
                          full.to(tl.int32))  # fmt: skip
            used += tl.sum(a + b + c + d, 0)
            to = end - used
            at = tl.cumsum(a + b + c + d, 0) - (a + b + c + d)
            _store_words(to, x, full, at)
            _store_words(to, word_c, full_c, at + d)
            _store_words(to, word_b, full_b, at + d + c)
            _store_words(to, word_a, full_a, at + d + c + b)
        else:
            full = active & ((x >> (32 - PRECISION)) >= freq)
            used += tl.sum(full.to(tl.int32), 0)
            _store_words(end - used, x, full, rank(full))
        y = tl.where(full, x >> 16, x)
        x = tl.where(active, ((y // freq) << PRECISION) + y % freq + cum, x)
    tl.store(own + lane, x.to(tl.int64))
    tl.store(own + WORDS, used)
