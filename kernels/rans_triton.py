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

from .rans_device_source import WORD_ROOM, Source
from .rans_device_tables import DeviceTables
from .rans_triton_encode import (
    LANES,
    LOWER,
    NEXT,
    ROOM_OF_SYMBOL,
    STATE,
    STATUS,
    STREAM_ROOM,
    WORDS,
    close_up,
    encode_chain,
    rank,
)

_BLOCK = 1024
_PIECE = 1 << 13  # symbols for a program of `pack`, about


@triton.jit
def _size(state, stream, mask):
    lanes = tl.load(state + stream * STATE + LANES, mask=mask, other=0)
    words = tl.load(state + stream * STATE + WORDS, mask=mask, other=0)
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
    own = state + stream * STATE
    lanes, count = tl.load(own + LANES), tl.load(own + WORDS)
    size = _size(state, stream, stream >= 0)
    end = tl.load(bounds + stream + 1) * ROOM_OF_SYMBOL + STREAM_ROOM * (stream + 1)
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
    x = tl.where(mine, x, LOWER)
    good = good & (tl.min(x.to(tl.int64), 0) >= LOWER)
    own = state + stream * STATE
    tl.store(own + lane, x.to(tl.int64))
    tl.store(own + LANES, tl.where(good, lanes, 0))
    tl.store(own + NEXT, tl.full([], 0, tl.int64))
    tl.store(own + WORDS, tl.full([], 0, tl.int64))
    tl.store(own + STATUS, tl.where(good, 0, 9).to(tl.int64))


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
    own = state + stream * STATE
    status = tl.load(own + STATUS)
    bad = (status == 0) & (tl.max(wrong, 0) > 0)
    status = tl.where(bad, 1, status)
    empty = (status == 0) & (count > 0) & (tl.load(own + LANES) == 0)
    tl.store(own + STATUS, tl.where(empty, 3, status))


@triton.jit
def _renormalise(x, mask, data, words, at, end, status):
    """Refills the states of the mask that need it; nothing happens once the words are out."""
    low = mask & (x < LOWER)
    need = tl.sum(low.to(tl.int32), 0)
    short = (at + need) > end
    low = low & (short == 0) & (status == 0)
    word = _word_at(data, words + 2 * (at + rank(low)), low)
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
    own = state + stream * STATE
    first = tl.load(bounds + stream)
    lanes = tl.load(own + LANES).to(tl.int32)
    next_ = tl.load(own + NEXT).to(tl.int32)
    at = tl.load(own + WORDS)
    status = tl.load(own + STATUS).to(tl.int32)
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
    tl.store(own + NEXT, after.to(tl.int64))
    tl.store(own + WORDS, at)
    tl.store(own + STATUS, status.to(tl.int64))


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
    close_up[grid](
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
    encode_chain[grid](
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
