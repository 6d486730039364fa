"""Rows of the delta coder: which fields share one, their frequencies and their stored form.

All of it is integers, so that every machine makes the same bytes; there is no second backend,
since it works on counts. A row codes tokens lo .. lo + k - 1 at P = 12 bits and all others by
its escape.

Stored form of a row
    =========  ====  =====================================================================
    field      bits  meaning
    =========  ====  =====================================================================
    lo            8  lo + 128; 0 = the row is not coded (its token is 0), nothing follows
    length        8  k - 1; lo + k - 1 is at most the width's largest token
    q             4  precision of what is stored, 1 to 12
    g             4  order of the code of the numbers, 0 to 11
    numbers       *  for each token, most significant bit first: with v = (f >> g) + 1 of b
                     bits, b - 1 zeros, the b bits of v, the low g bits of f; they add to
                     2**q; then zeros to a whole byte
    =========  ====  =====================================================================
    Frequency: f << 12 - q, or 1 where f = 0. The escape has 1. What this adds is taken from the
    largest, the first of equals, which must be left with 1 or more.
"""

import itertools
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from .delta_ref import ZERO, Counts, max_token
from .errors import BitstreamError
from .rans_ref import LOG_BITS, Tables, log2_table

Ints = npt.NDArray[np.int64]

PRECISION = 12
MAX_ROWS = 64
MAX_ORDER = 11
PRECISIONS = np.arange(4, PRECISION + 1)[:, None]  # of stored numbers, that are tried
UNIT = 16  # costs are in units of 2**-16 bit
LOG = log2_table((1 << PRECISION) + 1) >> (LOG_BITS - UNIT)
# [g, f] bits of a number f by the code of order g.
NUMBER_BITS = np.array(
    [
        [2 * ((f >> g) + 1).bit_length() - 1 + g for f in range((1 << PRECISION) + 1)]
        for g in range(MAX_ORDER + 1)
    ]
)
# What a row and a token in it are expected to take, before they are stored.
ROW_BITS, TOKEN_BITS = 32, 6
# Fields next to each other with the fewest elements share a row before others are compared.
COMPARED = 48
MERGED = 256  # fields, or groups of as many fields each, among which they are looked for
# A token at a row's end is left to the escape if it stands less than once in so many elements
# for each frequency that this saves: an escape takes some 12 bits more, and time.
RARE = 1 << 15


class Row(NamedTuple):
    """A row that is stored.

    Attributes:
        lo: the lowest token; meaningless for a row that is not coded.
        numbers: int64 [k], adding to 2**q; empty for a row that is not coded.
        q: their precision.
    """

    lo: int
    numbers: Ints
    q: int


class Plan(NamedTuple):
    """How an array is coded.

    Attributes:
        runs: how many fields, one after another, each row has.
        rows: of the fields, then that of the nibbles if there are blocks.
        blocks: whether there are.
        cost: bits of all chunks with the rows, as an estimate.
    """

    runs: list[int]
    rows: list[Row]
    blocks: bool
    cost: int


def log2_any(values: Ints) -> Ints:
    """Log2 of values >= 1 by their upper 12 bits, in units of 2**-16; 0 for 0."""
    shift = np.maximum(0, np.frexp(values.astype(np.float64))[1].astype(np.int64) - PRECISION)
    logs: Ints = LOG[values >> shift] + (shift << UNIT)
    return logs


def self_cost(counts: Ints) -> Ints:
    """Bits of the last axis' counts with their own frequencies, in units of 2**-16."""
    total = counts.sum(-1)
    bits: Ints = total * log2_any(total) - (counts * log2_any(counts)).sum(-1)
    return bits


def plan(counts: Counts, blocks: bool) -> Plan:
    """Choose rows that cost little, with or without blocks."""
    tokens = counts.tokens.copy()
    if not blocks:
        tokens[:, ZERO] += counts.quiet
    runs = _runs(tokens)
    starts = np.cumsum([0, *runs[:-1]])
    merged = np.add.reduceat(tokens, starts, axis=0)
    if blocks:
        nibbles = np.zeros((1, 256), np.int64)
        nibbles[0, ZERO : ZERO + 16] = counts.nibbles
        merged = np.concatenate([merged, nibbles])
    made = [_row(row) for row in merged]
    return Plan(runs, [row for row, _ in made], blocks, sum(cost for _, cost in made) >> UNIT)


def _runs(tokens: Ints) -> list[int]:
    """Neighbouring fields that share a row: the cheapest partition, in exact arithmetic."""
    used = np.flatnonzero(tokens.any(1))
    if not len(used):
        return [len(tokens)]
    stride = -(-len(used) // MERGED)
    groups = [used[start : start + stride].tolist() for start in range(0, len(used), stride)]
    counts = np.add.reduceat(tokens[used], np.arange(0, len(used), stride))
    while len(groups) > COMPARED:
        totals = counts.sum(1)
        k = int(np.argmin(totals[:-1] + totals[1:]))
        groups[k : k + 2] = [groups[k] + groups[k + 1]]
        counts[k] += counts[k + 1]
        counts = np.delete(counts, k + 1, 0)
    counts = counts[:, counts.any(0)]
    sums = np.concatenate([np.zeros((1, counts.shape[1]), np.int64), np.cumsum(counts, 0)])
    best, before = [0], [0]
    for j in range(1, len(sums)):
        part = sums[j] - sums[:j]
        cost = self_cost(part) + (ROW_BITS + TOKEN_BITS * np.count_nonzero(part, 1) << UNIT)
        cost += np.array(best)
        before.append(int(np.argmin(cost)))
        best.append(int(cost.min()))
    ends = [len(groups)]
    while before[ends[-1]]:
        ends.append(before[ends[-1]])
    last = [groups[end - 1][-1] + 1 for end in ends[::-1]]
    last[-1] = len(tokens)  # fields that do not occur go with the one before, or the first
    return [end - start for start, end in itertools.pairwise([0, *last])]


def _row(counts: Ints) -> tuple[Row, int]:
    """A row for these counts [256], and what it and its tokens cost in units of 2**-16 bit."""
    used = np.flatnonzero(counts)
    if not len(used) or (len(used) == 1 and used[0] == ZERO):
        return Row(0, np.zeros(0, np.int64), 0), 8 << UNIT
    lo, hi = _trimmed(counts, used)
    kept = counts[lo : hi + 1]
    outside = int(counts.sum() - kept.sum())
    numbers = _rounded(kept)
    freqs, legal = frequencies(numbers, PRECISIONS)
    cost = (kept * ((PRECISION << UNIT) - LOG[np.maximum(freqs, 1)])).sum(1)
    cost += 32 + _sizes(numbers).min(0) << UNIT
    best = int(np.argmin(np.where(legal, cost, 1 << 62)))  # q = 12 is always legal
    row = Row(lo - ZERO, numbers[best], int(PRECISIONS[best, 0]))
    return row, int(cost[best]) + (outside * (PRECISION + 12) << UNIT)


def _trimmed(counts: Ints, used: Ints) -> tuple[int, int]:
    """The first and last token of a row: rare ones at the ends are left to the escape."""
    total, low, high = int(counts.sum()), 0, len(used) - 1
    while high > low:
        gaps = int(used[low + 1] - used[low]), int(used[high] - used[high - 1])
        rare = [
            int(counts[used[end]]) * RARE <= total * gap
            for end, gap in zip((low, high), gaps, strict=True)
        ]
        if not any(rare):
            break
        if rare[0] and (not rare[1] or counts[used[low]] <= counts[used[high]]):
            low += 1
        else:
            high -= 1
    return int(used[low]), int(used[high])


def _rounded(counts: Ints) -> Ints:
    """Counts as numbers that add to 2**q, for each q; the largest takes what rounding leaves."""
    total = int(counts.sum())
    numbers = ((counts << PRECISIONS + 1) + total) // (2 * total)
    each = np.arange(len(numbers))
    numbers[each, numbers.argmax(1)] += (1 << PRECISIONS[:, 0]) - numbers.sum(1)
    return numbers


def frequencies(numbers: Ints, q: Ints) -> tuple[Ints, npt.NDArray[np.bool_]]:
    """The frequencies, without the escape's 1, and whether they are all above 0.

    Args:
        numbers: [rows, k].
        q: [rows, 1].
    """
    freqs = numbers << PRECISION - q
    holes = freqs == 0
    freqs[holes] = 1
    each = np.arange(len(freqs))
    freqs[each, freqs.argmax(1)] -= holes.sum(1) + 1
    return freqs, np.all(freqs > 0, axis=1)


def _sizes(numbers: Ints) -> Ints:
    """Bits of numbers, summed over the last axis, for each order."""
    sizes: Ints = NUMBER_BITS[:, np.maximum(numbers, 0)].sum(-1)
    return sizes


def pack(row: Row) -> bytes:
    """The stored form."""
    if not len(row.numbers):
        return b"\0"
    sizes = _sizes(row.numbers)
    g = int(np.argmin(sizes))
    value = 0
    for f in row.numbers.tolist():
        v = (f >> g) + 1
        value = (value << 2 * v.bit_length() - 1 | v) << g | f & ((1 << g) - 1)
    value <<= int(-sizes[g] % 8)
    head = bytes([row.lo + ZERO, len(row.numbers) - 1, row.q << 4 | g])
    return head + value.to_bytes((int(sizes[g]) + 7) // 8, "big")


class Cursor:
    """Reads bytes; BitstreamError where there are none left."""

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.at = 0

    def byte(self) -> int:
        """The next byte."""
        if self.at >= len(self.data):
            raise BitstreamError("the head of a delta ends too early")
        self.at += 1
        return self.data[self.at - 1]


def unpack(cursor: Cursor, width: int) -> Row:
    """The inverse of `pack`; BitstreamError for what it does not write."""
    first = cursor.byte()
    if not first:
        return Row(0, np.zeros(0, np.int64), 0)
    lo, length, shape = first - ZERO, cursor.byte() + 1, cursor.byte()
    q, g = shape >> 4, shape & 15
    limit = max_token(width)
    if not (1 <= q <= PRECISION and g <= MAX_ORDER and -limit <= lo and lo + length - 1 <= limit):
        raise BitstreamError(f"a row of tokens {lo} to {lo + length - 1}, q {q}, g {g} is illegal")
    # As text, in which the next 1 is found at once.
    most = (length * (2 * PRECISION + 1 + g) + 7) // 8
    data = cursor.data[cursor.at : cursor.at + most]
    text = f"{int.from_bytes(data, 'big'):0{8 * len(data)}b}"
    numbers, at = [], 0
    for _ in range(length):
        one = text.find("1", at)
        end = 2 * one - at + 1 + g
        if one < 0 or one - at > PRECISION or end > len(text):
            raise BitstreamError("a number of a row is too long, or the head ends too early")
        code = int(text[one:end], 2)
        numbers.append((code >> g) - 1 << g | code & ((1 << g) - 1))
        at = end
    cursor.at += (at + 7) // 8
    left = "1" in text[at : at + -at % 8]
    row = Row(lo, np.array(numbers, np.int64), q)
    legal = frequencies(row.numbers[None], np.array([[q]]))[1][0]
    if left or sum(numbers) != 1 << q or not legal:
        raise BitstreamError(f"the numbers of a row do not add to 2**{q}, or leave no room")
    return row


def tables_of(rows: list[Row], blocks: bool) -> Tables:
    """The tables of the coder: the rows, and one that is not coded for skipped elements."""
    if blocks:
        rows = [*rows, Row(0, np.zeros(0, np.int64), 0)]
    freqs = [_with_escape(row) for row in rows]
    lengths = [len(f) for f in freqs]
    return Tables(PRECISION, [row.lo for row in rows], lengths, np.concatenate(freqs))


def _with_escape(row: Row) -> Ints:
    if not len(row.numbers):
        return row.numbers
    return np.append(frequencies(row.numbers[None], np.array([[row.q]]))[0][0], 1)
