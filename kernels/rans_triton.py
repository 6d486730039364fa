"""rANS over indexed tables in Triton: for GPUs without NVRTC, and in Triton's interpreter anywhere.

The same steps as rans.cu with the same arguments (`rans_device` says what they are): a program for
each stream. Coded symbols are closed up in a launch of their own, because a program of one warp is
right for the chain and slow for everything else.

A chain takes a vector of 32 lanes through its steps. Words go to lanes in ascending order: a
lane's place is the number of lanes below it that need one, a cumulative sum. Escapes take the
words of their raw bits in between, so a step of the decoder that meets one stops there first.
"""

# Kernels are written in Triton's language, which has no types that mypy knows.
# mypy: disable-error-code="untyped-decorator,no-untyped-def,no-untyped-call,attr-defined"

import torch
import triton
import triton.language as tl
from torch import Tensor

from .rans_device import WORD_ROOM, DeviceTables, Source

_BLOCK = 1024
_PIECE = 1 << 13  # symbols for a program of `pack`, about
_STATE = tl.constexpr(36)  # of rans_device, as are the next ones
_LANES, _NEXT, _WORDS, _STATUS = (tl.constexpr(k) for k in (32, 33, 34, 35))
_LOWER = tl.constexpr(1 << 16)
_WORD_ROOM = tl.constexpr(WORD_ROOM)
_STREAM_ROOM = tl.constexpr(64)


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
def _close_up(
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
    own = state + stream.to(tl.int64) * _STATE
    tl.store(own + tl.arange(0, 32), tl.full([32], _LOWER, tl.int64))
    tl.store(own + _LANES, tl.where((status == 0) & (count > 0), lanes, 0).to(tl.int64))
    tl.store(own + _NEXT, count.to(tl.int64))
    tl.store(own + _WORDS, tl.full([], 0, tl.int64))
    tl.store(own + _STATUS, status.to(tl.int64))


@triton.jit
def _put_raw(x, active, value, bits):
    """The state after raw bits, and the word in front of them, and whether there is one."""
    full = active & (bits > 0) & ((x >> (32 - tl.maximum(bits, 1)).to(tl.uint32)) != 0)
    shifted = tl.where(full, x >> 16, x) << bits.to(tl.uint32)
    piece = value & ((1 << bits) - 1)
    return tl.where(active, shifted | piece.to(tl.uint32), x), x, full


@triton.jit
def _rank(mask):
    """How many lanes below are in the mask."""
    ones = mask.to(tl.int32)
    return tl.cumsum(ones, 0) - ones


@triton.jit
def _store_words(to, word, full, place):
    tl.store(to + place, (word & 0xFFFF).to(tl.int16), mask=full)


@triton.jit
def _encode_chain(bounds, rows, entries, pairs, words, state, PRECISION: tl.constexpr):
    """Pairs backwards into states; the words grow down from the end of the stream's room."""
    stream = tl.program_id(0).to(tl.int64)
    own = state + stream * _STATE
    first = tl.load(bounds + stream)
    lanes = tl.load(own + _LANES).to(tl.int32)
    count = tl.where(lanes > 0, tl.load(own + _NEXT), 0).to(tl.int32)
    end = words + tl.load(bounds + stream + 1) * _WORD_ROOM + _STREAM_ROOM * (stream + 1)
    lane = tl.arange(0, 32)
    x = tl.full([32], _LOWER, tl.uint32)
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
            _store_words(end - used, x, full, _rank(full))
        y = tl.where(full, x >> 16, x)
        x = tl.where(active, ((y // freq) << PRECISION) + y % freq + cum, x)
    tl.store(own + lane, x.to(tl.int64))
    tl.store(own + _WORDS, used)


@triton.jit
def _size(state, stream, mask):
    lanes = tl.load(state + stream * _STATE + _LANES, mask=mask, other=0)
    words = tl.load(state + stream * _STATE + _WORDS, mask=mask, other=0)
    return tl.where(lanes > 0, 1 + 4 * lanes + 2 * words, 0)


@triton.jit
def _pack(bounds, state, words, data, offsets, streams, PIECES: tl.constexpr, BLOCK: tl.constexpr):
    """A piece of a stream to its place behind the streams before it."""
    stream = tl.program_id(0).to(tl.int64)
    before = tl.zeros([BLOCK], tl.int64)
    for base in range(0, tl.program_id(0), BLOCK):
        other = base + tl.arange(0, BLOCK)
        before += _size(state, other.to(tl.int64), other < stream)
    start = tl.sum(before, 0)
    own = state + stream * _STATE
    lanes, count = tl.load(own + _LANES), tl.load(own + _WORDS)
    size = _size(state, stream, stream >= 0)
    end = tl.load(bounds + stream + 1) * _WORD_ROOM + _STREAM_ROOM * (stream + 1)
    from_ = words + end - count
    head = 1 + 4 * lanes
    log = tl.sum(
        (tl.full([8], 1, tl.int64) << tl.arange(0, 8).to(tl.int64) < lanes).to(tl.int64), 0
    )
    for base in range(tl.program_id(1) * BLOCK, size, PIECES * BLOCK):
        i = base + tl.arange(0, BLOCK).to(tl.int64)
        part = i - head
        word = tl.load(from_ + part // 2, mask=(i >= head) & (i < size), other=0).to(tl.int64)
        byte = word >> (part % 2 * 8)
        k = i - 1
        x = tl.load(own + k // 4, mask=(i > 0) & (i < head), other=0)
        byte = tl.where(i < head, x >> (k % 4 * 8), byte)
        byte = tl.where(i == 0, log, byte)
        tl.store(data + start + i, (byte & 255).to(tl.uint8), mask=i < size)
    if tl.program_id(1) == 0:
        tl.store(offsets + stream, start)
        if stream == streams - 1:
            tl.store(offsets + streams, start + size)


@triton.jit
def _word_at(data, place, mask):
    low = tl.load(data + place, mask=mask, other=0).to(tl.uint32)
    return low | tl.load(data + place + 1, mask=mask, other=0).to(tl.uint32) << 8


@triton.jit
def _begin(data, offsets, state):
    """The head of a stream into its state."""
    stream = tl.program_id(0).to(tl.int64)
    start = tl.load(offsets + stream)
    size = tl.load(offsets + stream + 1) - start
    log = tl.load(data + start, mask=size > 0, other=0).to(tl.int64)
    lanes = tl.where((size > 0) & (log <= 5), tl.full([], 1, tl.int64) << tl.minimum(log, 5), 0)
    body = size - 1 - 4 * lanes
    good = (size == 0) | ((lanes > 0) & (body >= 0) & (body % 2 == 0))
    lane = tl.arange(0, 32)
    mine = good & (lane < lanes)
    at = start + 1 + 4 * lane
    x = _word_at(data, at, mine) | _word_at(data, at + 2, mine) << 16
    x = tl.where(mine, x, _LOWER)
    good = good & (tl.min(x.to(tl.int64), 0) >= _LOWER)
    own = state + stream * _STATE
    tl.store(own + lane, x.to(tl.int64))
    tl.store(own + _LANES, tl.where(good, lanes, 0))
    tl.store(own + _NEXT, tl.full([], 0, tl.int64))
    tl.store(own + _WORDS, tl.full([], 0, tl.int64))
    tl.store(own + _STATUS, tl.where(good, 0, 9).to(tl.int64))


@triton.jit
def _find_coded(
    bounds, index, means, out, y_hat, rows, row_count, places, counts, state, BLOCK: tl.constexpr
):
    """Places of coded symbols, their number; out and y_hat as if none were coded."""
    stream = tl.program_id(0).to(tl.int64)
    first = tl.load(bounds + stream)
    n = (tl.load(bounds + stream + 1) - first).to(tl.int32)
    count = 0
    wrong = tl.zeros([BLOCK], tl.int32)
    for base in range(0, n, BLOCK):
        i = base + tl.arange(0, BLOCK)
        inside = i < n
        row = tl.load(index + first + i, mask=inside, other=0).to(tl.int32)
        wrong |= (row >= row_count).to(tl.int32)
        length = tl.load(rows + 4 * row + 1, mask=row < row_count, other=0)
        coded = inside & (length > 0)
        kept = tl.cumsum(coded.to(tl.int32), 0)
        tl.store(places + first + count + kept - 1, i, mask=coded)
        count += tl.sum(coded.to(tl.int32), 0)
        if out is not None:
            tl.store(out + first + i, tl.zeros([BLOCK], tl.int16), mask=inside)
        if y_hat is not None:
            mean = tl.zeros([BLOCK], tl.float32)
            if means is not None:
                mean = tl.load(means + first + i, mask=inside, other=0.0)
            tl.store(y_hat + first + i, mean, mask=inside)
    tl.store(counts + stream, count.to(tl.int32))
    own = state + stream * _STATE
    status = tl.load(own + _STATUS)
    bad = (status == 0) & (tl.max(wrong, 0) > 0)
    status = tl.where(bad, 1, status)
    empty = (status == 0) & (count > 0) & (tl.load(own + _LANES) == 0)
    tl.store(own + _STATUS, tl.where(empty, 3, status))


@triton.jit
def _renormalise(x, mask, data, words, at, end, status):
    """Refills the states of the mask that need it; nothing happens once the words are out."""
    low = mask & (x < _LOWER)
    need = tl.sum(low.to(tl.int32), 0)
    short = (at + need) > end
    low = low & (short == 0) & (status == 0)
    word = _word_at(data, words + 2 * (at + _rank(low)), low)
    x = tl.where(low, x << 16 | word, x)
    at += tl.sum(low.to(tl.int32), 0)
    return x, at, tl.where(short & (status == 0), 4, status)


@triton.jit
def _raw(x, bits, who, data, words, at, end, status):
    """Raw bits of the one lane of `who`."""
    value = tl.sum(tl.where(who, x & ((1 << bits) - 1).to(tl.uint32), 0).to(tl.int32), 0)
    x = tl.where(who, x >> bits.to(tl.uint32), x)
    x, at, status = _renormalise(x, who, data, words, at, end, status)
    return value, x, at, status


@triton.jit
def _decode_chain(
    data, offsets, bounds, index, means, rows, entries, slots, places, counts, out, y_hat, state,
    PRECISION: tl.constexpr,
):  # fmt: skip
    """The symbols at `places`, in order; the state is where the next call goes on."""
    stream = tl.program_id(0).to(tl.int64)
    own = state + stream * _STATE
    first = tl.load(bounds + stream)
    lanes = tl.load(own + _LANES).to(tl.int32)
    next_ = tl.load(own + _NEXT).to(tl.int32)
    at = tl.load(own + _WORDS)
    status = tl.load(own + _STATUS).to(tl.int32)
    count = tl.load(counts + stream)
    words = tl.load(offsets + stream) + 1 + 4 * lanes
    end = (tl.load(offsets + stream + 1) - words) // 2
    lane = tl.arange(0, 32)
    x = tl.load(own + lane).to(tl.uint32)
    steps = tl.where(count > 0, (next_ + count + lanes - 1) // tl.maximum(lanes, 1), 0)
    step = 0
    while (step < steps) & (status == 0):
        k = step * lanes + lane - next_
        active = (lane < lanes) & (k >= 0) & (k < count)
        place = tl.load(places + first + k, mask=active, other=0)
        row = tl.load(index + first + place, mask=active, other=0).to(tl.int32)
        offset = tl.load(rows + 4 * row, mask=active, other=0)
        length = tl.load(rows + 4 * row + 1, mask=active, other=0)
        slot = x & ((1 << PRECISION) - 1)
        entry = tl.load(slots + ((row << PRECISION) | slot.to(tl.int32)), mask=active, other=0)
        entry = entry.to(tl.int32)
        start = tl.load(rows + 4 * row + 2, mask=active, other=0)
        both = tl.load(entries + start + entry, mask=active, other=0).to(tl.uint32, bitcast=True)
        x = tl.where(active, (both & 0xFFFF) * (x >> PRECISION) + slot - (both >> 16), x)
        value = offset + entry
        left = active
        escaped = active & (entry == length - 1)
        # Up to the first escape, then its bits, and so on.
        who = tl.min(tl.where(escaped, lane, 32), 0)
        while (who < 32) & (status == 0):
            x, at, status = _renormalise(
                x, left & (lane <= who), data, words, at, end, status
            )  # fmt: skip
            one = lane == who
            five = tl.full([], 5, tl.int32)
            nb, x, at, status = _raw(x, five, one, data, words, at, end, status)
            status = tl.where((status == 0) & (nb > 18), 5, status)
            nb = tl.minimum(nb, 18)
            low = tl.minimum(tl.maximum(nb - 1, 0), 16)
            e, x, at, status = _raw(x, low, one, data, words, at, end, status)
            top, x, at, status = _raw(
                x, tl.maximum(nb - 17, 0), one, data, words, at, end, status
            )  # fmt: skip
            e += (top << 16) + tl.where(nb > 0, 1 << tl.maximum(nb - 1, 0), 0)
            high = offset + length - 2
            found = tl.where((e & 1) == 1, offset - 1 - (e >> 1), high + 1 + (e >> 1))
            value = tl.where(one, found, value)
            far = tl.max((one & ((found < -32768) | (found > 32767))).to(tl.int32), 0)
            status = tl.where((status == 0) & (far > 0), 6, status)
            left = left & (lane > who)
            who = tl.min(tl.where(escaped & left, lane, 32), 0)
        x, at, status = _renormalise(x, left, data, words, at, end, status)
        good = active & (status == 0)
        if out is not None:
            tl.store(out + first + place, value.to(tl.int16), mask=good)
        if y_hat is not None:
            mean = tl.zeros([32], tl.float32)
            if means is not None:
                mean = tl.load(means + first + place, mask=good, other=0.0)
            tl.store(y_hat + first + place, value.to(tl.float32) + mean, mask=good)
        step += 1
    tl.store(own + lane, x.to(tl.int64))
    after = tl.where(lanes > 0, (next_ + count) % tl.maximum(lanes, 1), 0)
    tl.store(own + _NEXT, after.to(tl.int64))
    tl.store(own + _WORDS, at)
    tl.store(own + _STATUS, status.to(tl.int64))


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
    grid = (len(state),)
    if not len(state):
        return
    boundaries = source.boundaries
    limits = 0 if boundaries is None else len(boundaries)
    _close_up[grid](
        source.symbols,
        source.rows,
        source.y,
        source.means,
        source.scales,
        boundaries,
        limits,
        source.y_hat,
        bounds,
        tables.rows,
        len(tables.rows),
        tables.costs,
        lanes,
        pairs,
        state,
        BLOCK=_BLOCK,
        SEARCH=limits.bit_length(),
        num_warps=8,
    )
    _encode_chain[grid](
        bounds,
        tables.rows,
        tables.entries,
        pairs,
        words,
        state,
        PRECISION=tables.precision,
        num_warps=1,
    )


def pack(bounds: Tensor, state: Tensor, words: Tensor, data: Tensor, offsets: Tensor) -> None:
    """Words and states to streams, one behind the other."""
    streams = len(state)
    pieces = max(1, min(64, len(words) // WORD_ROOM // max(1, streams) // _PIECE))
    if streams:
        _pack[(streams, pieces)](
            bounds, state, words, data, offsets, streams, PIECES=pieces, BLOCK=_BLOCK
        )


def begin(data: Tensor, offsets: Tensor, state: Tensor) -> None:
    """Heads of streams to states."""
    if len(state):
        _begin[(len(state),)](data, offsets, state, num_warps=1)


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
    grid = (len(state),)
    if not len(state):
        return
    counts = torch.empty(len(state), dtype=torch.int32, device=state.device)
    _find_coded[grid](
        bounds,
        index,
        means,
        out,
        y_hat,
        tables.rows,
        len(tables.rows),
        places,
        counts,
        state,
        BLOCK=_BLOCK,
        num_warps=8,
    )
    _decode_chain[grid](
        data,
        offsets,
        bounds,
        index,
        means,
        tables.rows,
        tables.entries,
        tables.slots,
        places,
        counts,
        out,
        y_hat,
        state,
        PRECISION=tables.precision,
        num_warps=1,
    )
