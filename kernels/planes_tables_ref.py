"""Tables of the plane coder: costs in integers, choice of a table, stored form, coded streams.

A table is 256 frequencies that add to 2**P; a symbol of frequency 0 is coded as another one and
patched after decoding. LOG is `rans_ref.log2_table`, in units of 2**-28 bit; costs are rounded
down to units of 2**-9 bit, so that 4096 of them add up in 32 bits.

Stored form of a table
    =================  ====  ===========================================================
    field              bits  meaning
    =================  ====  ===========================================================
    first, last           8  symbols outside first .. last have frequency 0; first <= last
    shape                 8  P - 1 in the upper four bits, the order g in the lower four
    frequencies           *  for each symbol first .. last, most significant bit first:
                             with q = (freq >> g) + 1 of b bits: b - 1 zeros, the b bits of
                             q, the low g bits of freq; then zeros to a whole byte
    =================  ====  ===========================================================
    The encoder takes the order 0 .. 11 that needs the fewest bits, the lowest of equals.

Stream (the layout of `rans_ref`): u8 log2 of the lanes, a u32 state per lane, u16 words.
"""

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from .errors import BitstreamError
from .rans_ref import LOG_BITS, LOWER, log2_table, normalise

Bytes = npt.NDArray[np.uint8]
Counts = npt.NDArray[np.int64]

MAX_TABLES = 64
PRECISION = 12
MAX_PRECISION = 15
MAX_ORDER = 11
LOG = log2_table((1 << 12) + 1)
COST_BITS = 9
BIT = 1 << COST_BITS
PATCH_BITS = 24
# Symbols that are counted to choose a table.
SAMPLED = 4096
# A new table is expected to take this many bits, and so many for each symbol in it.
TABLE_BITS, SYMBOL_BITS = 128, 10
# Symbols needed for 32 and for 4 lanes: 4 bytes a lane stay below about 10 % of the payload.
LANES_32, LANES_4 = 2048, 128


class Sample(NamedTuple):
    """Counts of the sampled symbols, and how many symbols each stands for."""

    counts: Counts
    weight: int


def sampled(symbols: Bytes, limit: int) -> tuple[Bytes, int]:
    """At most some `limit` of the symbols, and for how many each stands.

    With the smallest j for which count <= limit << j: 32 symbols of each block b of 32 << j,
    from 32 * (b * 2654435769 mod 2**32 >> 32 - j) on, so that no period of the data (the rows
    of a matrix) is always met at the same place.
    """
    j = 0
    while len(symbols) > limit << j:
        j += 1
    block = np.arange(-(-len(symbols) // (32 << j)), dtype=np.uint64)
    place = (block * np.uint64(2654435769) & np.uint64(0xFFFFFFFF)) >> np.uint64(32 - j)
    first = ((block << np.uint64(j)) + place) * np.uint64(32)
    at = (first[:, None] + np.arange(32, dtype=np.uint64)).reshape(-1)
    return symbols[at[at < len(symbols)].astype(np.int64)], 1 << j


def histogram(symbols: Bytes) -> Sample:
    """Counts of a sample of the symbols."""
    taken, weight = sampled(symbols, SAMPLED)
    return Sample(np.bincount(taken, minlength=256).astype(np.int64), weight)


def log2_any(value: int) -> int:
    """Log2 of value >= 1 by its upper 12 bits, in units of 2**-28."""
    shift = max(0, value.bit_length() - 12)
    return int(LOG[value >> shift]) + (shift << LOG_BITS)


def entropy(counts: Counts) -> int:
    """Bits that these counts cost with their own frequencies, in units of 2**-9."""
    total = int(counts.sum())
    own = sum(int(c) * log2_any(int(c)) for c in counts if c)
    return (total * log2_any(total) - own) >> (LOG_BITS - COST_BITS) if total else 0


class Table:
    """A table of 256 frequencies.

    Attributes:
        freqs: int64 [256], adding to 2**precision.
        precision: bits of a probability.
    """

    def __init__(self, freqs: npt.ArrayLike, precision: int) -> None:
        self.freqs = np.asarray(freqs).astype(np.int64)
        self.precision = precision


class Coding:
    """A table as the encoder uses it, for pairs of nibbles or for bytes.

    Attributes:
        table: the table, of 12 bits.
        instead: uint8 [256], the symbol that is coded: itself if its frequency is not 0, else
            the one that costs least with 24 bits for each patch, the lowest of equals. A pair
            needs a patch for each nibble that differs, a byte one.
        costs: int64 [256], bits of each symbol with its patches, in units of 2**-9.
    """

    def __init__(self, table: Table, pairs: bool) -> None:
        self.table = table
        own = ((PRECISION << LOG_BITS) - LOG[table.freqs]) >> (LOG_BITS - COST_BITS)
        self.instead = np.arange(256, dtype=np.uint8)
        self.costs = own.copy()
        coded = np.flatnonzero(table.freqs)
        for s in np.flatnonzero(table.freqs == 0):
            differ = [(coded ^ s) & 15 > 0, (coded ^ s) >> 4 > 0]
            patches = np.sum(differ, axis=0) if pairs else 1
            costs = own[coded] + patches * PATCH_BITS * BIT
            self.instead[s] = coded[np.argmin(costs)]
            self.costs[s] = costs.min()


class TableSet:
    """The tables of a tensor, made as its chunks are met.

    `kind` keeps apart what is never shared: plane p as bytes is 2 p, as exponent pairs 2 p + 1.
    """

    def __init__(self) -> None:
        self.codings: list[Coding] = []
        self._kinds: list[int] = []

    def estimate(self, sample: Sample, kind: int) -> tuple[int | None, int]:
        """The table to use (None: make one) and the bits it costs, in units of 2**-9.

        A table is used again unless a new one saves more than it takes to store and than the
        entropy of a sample flatters it, about a bit for each symbol sampled.
        """
        counts, weight = sample
        reuse = [
            (int(np.dot(counts, coding.costs)) * weight, t)
            for t, coding in enumerate(self.codings)
            if self._kinds[t] == kind
        ]
        present = int(np.count_nonzero(counts))
        extra = TABLE_BITS + (SYMBOL_BITS + (weight if weight > 1 else 0)) * present
        fresh = entropy(counts) * weight + extra * BIT
        if reuse and (self.full or min(reuse)[0] <= fresh):
            cost, t = min(reuse)
            return t, cost
        return None, fresh

    def add(self, counts: Counts, kind: int) -> int:
        """Make a table from the counts of all symbols; its number."""
        freqs = normalise(counts, PRECISION)
        self.codings.append(Coding(Table(freqs, PRECISION), kind % 2 == 1))
        self._kinds.append(kind)
        return len(self.codings) - 1

    @property
    def full(self) -> bool:
        """Whether no table can be added."""
        return len(self.codings) >= MAX_TABLES


def pack_table(table: Table) -> bytes:
    """The stored form."""
    used = np.flatnonzero(table.freqs)
    first, last = int(used[0]), int(used[-1])
    freqs = [int(f) for f in table.freqs[first : last + 1]]

    def bits(order: int) -> int:
        return sum(2 * ((f >> order) + 1).bit_length() - 1 + order for f in freqs)

    order = min(range(MAX_ORDER + 1), key=lambda g: (bits(g), g))
    text = "".join(_code(f, order) for f in freqs)
    text += "0" * (-len(text) % 8)
    shape = (table.precision - 1) << 4 | order
    return bytes([first, last, shape]) + int(text, 2).to_bytes(len(text) // 8, "big")


def _code(freq: int, order: int) -> str:
    q = f"{(freq >> order) + 1:b}"
    low = f"{freq & ((1 << order) - 1):0{order}b}" if order else ""
    return "0" * (len(q) - 1) + q + low


def unpack_table(data: bytes, at: int) -> tuple[Table, int]:
    """The table stored at byte `at`, and the byte after it."""
    if len(data) - at < 3:
        raise BitstreamError("a table is cut short")
    first, last, shape = data[at : at + 3]
    precision, order = (shape >> 4) + 1, shape & 15
    if first > last or precision > MAX_PRECISION or order > MAX_ORDER:
        raise BitstreamError(f"a table has symbols {first} to {last} and shape {shape:#04x}")
    # A code has at most 2 * 15 + 1 + 11 bits.
    text = "".join(f"{b:08b}" for b in data[at + 3 : at + 3 + 43 * (last - first + 1) // 8 + 8])
    freqs = np.zeros(256, np.int64)
    bit = 0
    for symbol in range(first, last + 1):
        zeros = text.find("1", bit) - bit
        end = bit + 2 * zeros + 1 + order
        if not 0 <= zeros <= 15 or end > len(text):
            raise BitstreamError(f"the frequency of symbol {symbol} of a table is cut or too large")
        q = int(text[bit + zeros : bit + 2 * zeros + 1], 2)
        low = int(text[end - order : end], 2) if order else 0
        freqs[symbol] = (q - 1) << order | low
        bit = end
    if "1" in text[bit : (bit + 7) // 8 * 8]:
        raise BitstreamError("the spare bits after a table are not zero")
    if freqs.sum() != 1 << precision or freqs.max() == 1 << precision:
        raise BitstreamError(
            f"a table's frequencies add to {freqs.sum()}, expected 2**{precision} from two or more"
        )
    return Table(freqs, precision), at + 3 + (bit + 7) // 8


def choose_lanes(count: int) -> int:
    """Lanes of a stream of so many symbols."""
    return 32 if count >= LANES_32 else 4 if count >= LANES_4 else 1


def encode_stream(symbols: Bytes, table: Table) -> bytes:
    """The stream of these symbols, each of frequency 1 or more."""
    lanes = choose_lanes(len(symbols))
    precision = table.precision
    cums = np.cumsum(table.freqs) - table.freqs
    states = np.full(lanes, LOWER, np.int64)
    words: list[npt.NDArray[np.int64]] = []
    for start in range((len(symbols) - 1) // lanes * lanes, -1, -lanes):
        step = symbols[start : start + lanes]
        freq, x = table.freqs[step], states[: len(step)]
        over = x >= freq << (32 - precision)
        words.append(x[over] & 0xFFFF)
        x = np.where(over, x >> 16, x)
        states[: len(step)] = (x // freq << precision) + x % freq + cums[step]
    head = bytes([lanes.bit_length() - 1]) + states.astype("<u4").tobytes()
    return head + b"".join(w.astype("<u2").tobytes() for w in reversed(words))


def decode_stream(data: bytes, count: int, table: Table) -> Bytes:
    """The symbols of a stream, which must end cleanly."""
    lanes = 1 << data[0] if data and data[0] <= 5 else 0
    if not lanes or len(data) < 1 + 4 * lanes or len(data) % 2 == 0:
        raise BitstreamError(
            f"a coded stream of {len(data)} bytes is cut or has a wrong first byte"
        )
    states = np.frombuffer(data, "<u4", lanes, 1).astype(np.int64)
    words = np.frombuffer(data, "<u2", offset=1 + 4 * lanes).astype(np.int64)
    cums = np.cumsum(table.freqs) - table.freqs
    symbol_of = np.repeat(np.arange(256), table.freqs)
    out = np.empty(count, np.uint8)
    read = 0
    for start in range(0, count, lanes):
        x = states[: min(lanes, count - start)]
        slot = x & ((1 << table.precision) - 1)
        s = symbol_of[slot]
        out[start : start + lanes] = s
        x = table.freqs[s] * (x >> table.precision) + slot - cums[s]
        low = np.flatnonzero(x < LOWER)
        if read + len(low) > len(words):
            raise BitstreamError("a coded stream ends before its last symbol")
        x[low] = x[low] << 16 | words[read : read + len(low)]
        read += len(low)
        states[: len(x)] = x
    if read != len(words) or np.any(states != LOWER):
        raise BitstreamError("a coded stream does not end cleanly: it is damaged")
    return out
