"""Contexts of the plane coder: a table per class of an earlier byte, for `mode="small"`.

Stored form of a set of contexts
    =========  =====  ====================================================================
    field      bytes  meaning
    =========  =====  ====================================================================
    source         1  what a symbol's class follows from: 0 nothing, 1 the byte before it in
                      the plane (0 for the first), 2 the byte at its place in the plane before
    listed         1  number of listed bytes, 0 to 15; 0 if the source is 0
    bytes          *  the listed bytes: byte number c is class c, all others are the last class
    tables         *  one for each class (`planes_tables_ref`), or the two bytes 1, 0: no symbol
                      has this class
    =========  =====  ====================================================================

A plane in mode CONTEXT is a stream in which symbol i has the table of its class, and no patches.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from .errors import BitstreamError
from .planes_tables_ref import (
    BIT,
    COST_BITS,
    SYMBOL_BITS,
    TABLE_BITS,
    Table,
    choose_lanes,
    entropy,
    pack_table,
    unpack_table,
)
from .rans_ref import LOG_BITS, LOWER, log2_table, normalise

Bytes = npt.NDArray[np.uint8]
Counts = npt.NDArray[np.int64]

NOTHING, BEFORE, ABOVE = 0, 1, 2
MAX_SETS = 8
MAX_LISTED = 15
PRECISION = 14
LOG = log2_table((1 << PRECISION) + 1)
NO_TABLE = bytes([1, 0])
# Chunks from which contexts are learnt: of more, only every second, third ...
LEARNT = 1024


@dataclass
class ContextSet:
    """The tables of a plane by class; None where no symbol has the class."""

    source: int
    listed: bytes
    tables: list[Table | None]

    def classes(self, plane: Bytes, above: Bytes | None) -> npt.NDArray[np.int64]:
        """The class of each symbol of a plane."""
        class_of: Counts = np.full(256, len(self.listed), np.int64)
        class_of[list(self.listed)] = np.arange(len(self.listed))
        if self.source == BEFORE:
            given = np.concatenate([np.zeros(1, np.uint8), plane[:-1]])
        elif self.source == ABOVE and above is not None:
            given = above
        else:
            given = np.zeros(len(plane), np.uint8)
        classes: Counts = class_of[given]
        return classes

    def cost(self, plane: Bytes, above: Bytes | None) -> int | None:
        """Bits of a plane in units of 2**-9; None if it has a symbol of frequency 0."""
        classes = self.classes(plane, above)
        total = 0
        for c in range(len(self.tables)):
            counts = np.bincount(plane[classes == c], minlength=256)
            table = self.tables[c]
            if not counts.any():
                continue
            if table is None or np.any(table.freqs[counts > 0] == 0):
                return None
            costs = ((PRECISION << LOG_BITS) - LOG[table.freqs]) >> (LOG_BITS - COST_BITS)
            total += int(np.dot(counts, np.where(counts > 0, costs, 0)))
        return total


def learn(lessons: list[list[Bytes]], p: int) -> ContextSet | None:
    """The set for plane p, or None where it saves nothing.

    Args:
        lessons: the planes of the chunks that are learnt from. All of them say which bytes are
            listed; those in which plane p is constant do not count for the tables.
        p: number of the plane.
    """
    learnt = [planes for planes in lessons if np.any(planes[p] != planes[p][0])]
    sources = {NOTHING: b"", BEFORE: most_frequent([planes[p] for planes in lessons])}
    if p:
        sources[ABOVE] = most_frequent([planes[p - 1] for planes in lessons])
    best: tuple[int, ContextSet, list[Counts]] | None = None
    for source, values in sources.items():
        made = ContextSet(source, values, [None] * (len(values) + 1))
        counts = [np.zeros(256, np.int64) for _ in made.tables]
        for planes in learnt:
            classes = made.classes(planes[p], planes[p - 1] if p else None)
            for c in range(len(counts)):
                counts[c] += np.bincount(planes[p][classes == c], minlength=256)
        extra = sum(TABLE_BITS + SYMBOL_BITS * int(np.count_nonzero(c)) for c in counts)
        cost = sum(entropy(c) for c in counts) + extra * BIT
        if best is None or cost < best[0]:
            best = cost, made, counts
    symbols = sum(len(planes[p]) for planes in learnt)
    if best is None or best[0] >= 8 * symbols * BIT:
        return None
    _, made, counts = best
    made.tables = [Table(normalise(c, PRECISION), PRECISION) if c.any() else None for c in counts]
    return made


def most_frequent(planes: list[Bytes]) -> bytes:
    """Up to 15 bytes by falling count, the lower first of equals; none that does not occur."""
    counts = np.zeros(256, np.int64)
    for plane in planes:
        counts += np.bincount(plane, minlength=256)
    order = sorted(range(256), key=lambda value: (-int(counts[value]), value))
    return bytes(value for value in order[:MAX_LISTED] if counts[value])


def pack_set(contexts: ContextSet) -> bytes:
    """The stored form."""
    tables = (NO_TABLE if table is None else pack_table(table) for table in contexts.tables)
    return bytes([contexts.source, len(contexts.listed)]) + contexts.listed + b"".join(tables)


def unpack_set(data: bytes, at: int) -> tuple[ContextSet, int]:
    """The set stored at byte `at`, and the byte after it."""
    if len(data) - at < 2:
        raise BitstreamError("a set of contexts is cut short")
    source, count = data[at], data[at + 1]
    listed = data[at + 2 : at + 2 + count]
    if source > ABOVE or count > (MAX_LISTED if source else 0) or len(listed) < count:
        raise BitstreamError(f"a set of contexts has source {source} and {count} listed bytes")
    if len(set(listed)) < count:
        raise BitstreamError("a set of contexts lists a byte twice")
    at += 2 + count
    tables: list[Table | None] = []
    for _ in range(count + 1):
        if data[at : at + 2] == NO_TABLE:
            tables.append(None)
            at += 2
        else:
            table, at = unpack_table(data, at)
            tables.append(table)
    precisions = {table.precision for table in tables if table is not None}
    if len(precisions) > 1:
        raise BitstreamError("the tables of a set of contexts differ in precision")
    return ContextSet(source, listed, tables), at


def encode_stream(plane: Bytes, above: Bytes | None, contexts: ContextSet) -> bytes:
    """The stream of a plane of which each symbol has a frequency."""
    lanes = choose_lanes(len(plane))
    states = [LOWER] * lanes
    words: list[int] = []
    classes = contexts.classes(plane, above).tolist()
    rows = [None if t is None else (t.freqs.tolist(), _cums(t)) for t in contexts.tables]
    symbols = plane.tolist()
    for i in range(len(symbols) - 1, -1, -1):
        row = rows[classes[i]]
        assert row is not None  # `cost` was not None
        freq, cum = row[0][symbols[i]], row[1][symbols[i]]
        x = states[i % lanes]
        if x >= freq << (32 - PRECISION):
            words.append(x & 0xFFFF)
            x >>= 16
        states[i % lanes] = (x // freq << PRECISION) + x % freq + cum
    head = bytes([lanes.bit_length() - 1]) + np.array(states, "<u4").tobytes()
    return head + np.array(words[::-1], "<u2").tobytes()


def _cums(table: Table) -> list[int]:
    return [int(c) for c in np.cumsum(table.freqs) - table.freqs]


def decode_stream(data: bytes, count: int, above: Bytes | None, contexts: ContextSet) -> Bytes:
    """The plane of a stream, which must end cleanly."""
    lanes = 1 << data[0] if data and data[0] <= 5 else 0
    if not lanes or len(data) < 1 + 4 * lanes or len(data) % 2 == 0:
        raise BitstreamError(
            f"a coded stream of {len(data)} bytes is cut or has a wrong first byte"
        )
    states = np.frombuffer(data, "<u4", lanes, 1).tolist()
    words = iter(np.frombuffer(data, "<u2", offset=1 + 4 * lanes).tolist())
    class_of = [len(contexts.listed)] * 256
    for c, value in enumerate(contexts.listed):
        class_of[value] = c
    rows = [
        None if t is None else (t, _cums(t), np.repeat(np.arange(256), t.freqs))
        for t in contexts.tables
    ]
    out = np.zeros(count, np.uint8)
    previous = 0
    for i in range(count):
        given = previous if contexts.source == BEFORE else 0
        if contexts.source == ABOVE and above is not None:
            given = int(above[i])
        row = rows[class_of[given] if contexts.source else 0]
        if row is None:
            raise BitstreamError("a symbol has a class without a table")
        table, cums, symbol_of = row
        x = states[i % lanes]
        slot = x & ((1 << table.precision) - 1)
        s = int(symbol_of[slot])
        x = int(table.freqs[s]) * (x >> table.precision) + slot - cums[s]
        if x < LOWER:
            word = next(words, None)
            if word is None:
                raise BitstreamError("a coded stream ends before its last symbol")
            x = x << 16 | word
        states[i % lanes] = x
        out[i] = previous = s
    if next(words, None) is not None or any(x != LOWER for x in states):
        raise BitstreamError("a coded stream does not end cleanly: it is damaged")
    return out
