"""Interleaved rANS over indexed tables: the definition, in plain Python integers.

Range variant of Duda (2013, arXiv:1311.2540) with up to 32 interleaved states
(Giesen 2014, arXiv:1402.3392). Every other backend gives exactly these bytes.

Notation: `P` is the precision, `freq` and `cum` are integers over 2**P, a state `x` is a u32 in
[L, 2**32) with L = 2**16, and a word is 16 bits.

Stream
    ==================  =====  ==========================================================
    field               bytes  meaning
    ==================  =====  ==========================================================
    log2(lanes)         1      0 to 5
    states              4 * l  one u32 per lane, little-endian, each >= L
    words               2 * w  u16, little-endian, in the order in which they are read
    ==================  =====  ==========================================================
    No coded symbol: no bytes at all.

Decoding coded symbol i uses lane i mod lanes:
    1. slot = x & (2**P - 1); s is the entry with cum[s] <= slot < cum[s] + freq[s];
       x = freq[s] * (x >> P) + slot - cum[s]; renormalise: if x < L, x = x << 16 | next word.
    2. Entry s < length - 1 stands for the value offset + s.
    3. The last entry is the escape. It is followed, in the same lane, by raw bits:
       raw(b) = x & (2**b - 1), x >>= b, renormalise. nb = raw(5); e is then read from its
       low nb - 1 bits, in pieces of at most 16, low piece first, below a leading one (nb = 0
       stands for e = 0). With lo and hi the ends of the row: even e is hi + 1 + e / 2, odd e
       is lo - 1 - (e - 1) / 2. nb > 18 and values outside int16 are errors.
    4. A row of length 0 is not coded: its symbol is 0, it takes no lane and no bits.
After the last symbol every state is L and every word has been read; anything else is an error.
"""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from .errors import BitstreamError

LOWER = 1 << 16
MAX_LANES = 32
MAX_ROWS = 256
BYTES_PER_LANE = 1200
COST_SAMPLES = 1 << 13
LOG_BITS = 28
MAX_ESCAPE_BITS = 18


class Tables:
    """Frozen integer tables: row r covers offset[r] .. offset[r] + length[r] - 2, then escape.

    Attributes:
        precision: bits of a probability, 1 to 16.
        offsets: int32 [T], the value of each row's first entry; T is 1 to 256.
        lengths: int32 [T], entries of each row with the escape; 0 = not coded.
        freqs: uint16 [sum of lengths], packed rows, each >= 1 and summing to 2**precision.
    """

    def __init__(
        self,
        precision: int,
        offsets: npt.ArrayLike,
        lengths: npt.ArrayLike,
        freqs: npt.ArrayLike,
    ) -> None:
        self.precision = int(precision)
        self.offsets = _frozen(offsets, np.int32)
        self.lengths = _frozen(lengths, np.int32)
        self.freqs = _frozen(freqs, np.uint16)
        self.starts = _frozen(np.cumsum(self.lengths) - self.lengths, np.int64)
        self._check()
        self.prepared: object = None  # what a compiled backend made of these tables

    def __len__(self) -> int:
        return len(self.offsets)

    def row(self, r: int) -> npt.NDArray[np.uint16]:
        """The frequencies of row r, uint16 [lengths[r]]."""
        return self.freqs[self.starts[r] : self.starts[r] + self.lengths[r]]

    def _check(self) -> None:
        if not 1 <= self.precision <= 16:
            raise ValueError(f"precision is {self.precision}, expected 1 to 16")
        if not (1 <= len(self.offsets) <= MAX_ROWS and len(self.offsets) == len(self.lengths)):
            raise ValueError(
                f"{len(self.offsets)} offsets and {len(self.lengths)} lengths, "
                f"expected the same number, 1 to {MAX_ROWS}"
            )
        if np.any(self.lengths < 0) or np.any(self.lengths == 1):
            raise ValueError("a row has 1 entry or less than 0, expected 0 or at least 2")
        if int(self.lengths.sum()) != len(self.freqs):
            raise ValueError(f"{len(self.freqs)} freqs, the lengths add to {self.lengths.sum()}")
        last = self.offsets + self.lengths - 2
        coded = self.lengths > 0
        if np.any(coded & ((self.offsets < -32768) | (last > 32767))):
            raise ValueError("a row reaches outside int16")
        ends = np.concatenate([[0], np.cumsum(self.freqs, dtype=np.int64)])
        sums = ends[self.starts + self.lengths] - ends[self.starts]
        if np.any(self.freqs == 0) or np.any(sums[coded] != 1 << self.precision):
            raise ValueError(f"a row has a zero or does not add to 2**{self.precision}")


def _frozen(values: npt.ArrayLike, dtype: type[np.generic]) -> npt.NDArray:  # type: ignore[type-arg]
    given = np.asarray(values)
    array = given.astype(dtype).reshape(-1)
    if not np.array_equal(array, given.reshape(-1)):
        raise ValueError(f"a table holds values outside {np.dtype(dtype)}")
    array.flags.writeable = False
    return array


def log2_table(count: int) -> npt.NDArray[np.int64]:
    """floor-ish log2 of 1 .. count - 1 in units of 2**-28; entry 0 is 0.

    By repeated squaring of a 32-bit mantissa, so that every machine finds the same integers:
    y = f scaled to [2**31, 2**32); each of 28 times y = y * y >> 31, and where y >= 2**32 the
    next fraction bit is one and y is halved (all rounding down).
    """
    f = np.arange(count, dtype=np.uint64)
    f[0] = 1
    exponent = np.frexp(f.astype(np.float64))[1].astype(np.uint64) - np.uint64(1)
    y = f << (np.uint64(31) - exponent)
    log = exponent
    for _ in range(LOG_BITS):
        y = y * y >> np.uint64(31)
        bit = y >> np.uint64(32)
        y >>= bit
        log = log << np.uint64(1) | bit
    return log.astype(np.int64)


def normalise(counts: npt.ArrayLike, precision: int = 12) -> npt.NDArray[np.uint16]:
    """Turn counts into frequencies that add to 2**precision and cost least, in integers only.

    With LOG = `log2_table`, the sum of counts[s] * LOG[freq[s]] is made as large as can be:
        1. freq[s] = max(1, floor((2 * counts[s] * 2**P + total) / (2 * total))) for every
           counts[s] > 0, and 0 otherwise. A lone symbol shares with the lowest other symbol,
           which is given count 1 and stands for it.
        2. While the sum is below 2**P: the s of the largest gain counts[s] * (LOG[freq[s] + 1]
           - LOG[freq[s]]) gets one more. While it is above: the s with freq[s] > 1 of the
           smallest loss counts[s] * (LOG[freq[s]] - LOG[freq[s] - 1]) gets one less.
        3. While the largest gain exceeds the smallest loss, and they are of two symbols: one
           more for the first, one less for the second.
    Ties go to the lowest symbol.

    Args:
        counts: integers [K], K >= 2, each in [0, 2**32), not all zero.
        precision: P, 1 to 16; at most 2**P symbols may be present.

    Returns:
        uint16 [K], 0 exactly where the count is 0 (but for the lone symbol's partner).

    >>> normalise([1, 1, 14], precision=3).tolist()
    [1, 1, 6]
    """
    c = np.asarray(counts).astype(np.int64)
    if not 1 <= precision <= 16:
        raise ValueError(f"precision is {precision}, expected 1 to 16")
    if c.ndim != 1 or len(c) < 2 or c.min() < 0 or c.max() >= 1 << 32 or not c.any():
        raise ValueError("counts: expected at least two integers in [0, 2**32), not all zero")
    total = 1 << precision
    present = np.count_nonzero(c)
    if present > total:
        raise ValueError(f"{present} symbols do not fit into 2**{precision}; raise the precision")
    if present == 1:
        c = c.copy()
        c[int(np.flatnonzero(c == 0)[0])] = 1
    log = log2_table(total + 2)
    weight = int(c.sum())
    f = np.array([max(1, (2 * int(v) * total + weight) // (2 * weight)) if v else 0 for v in c])
    while (excess := int(f.sum()) - total) != 0:
        if excess < 0:
            f[_best_gain(c, f, log)[0]] += 1
        else:
            f[_least_loss(c, f, log)[0]] -= 1
    while True:
        (s, gain), (t, loss) = _best_gain(c, f, log), _least_loss(c, f, log)
        if s == t or gain <= loss:
            return f.astype(np.uint16)
        f[s] += 1
        f[t] -= 1


Counts = npt.NDArray[np.int64]


def _best_gain(c: Counts, f: Counts, log: Counts) -> tuple[int, int]:
    gain = np.where(c > 0, c * (log[f + 1] - log[f]), -1)
    s = int(np.argmax(gain))
    return s, int(gain[s])


def _least_loss(c: Counts, f: Counts, log: Counts) -> tuple[int, int]:
    loss = np.where(f > 1, c * (log[f] - log[np.maximum(f - 1, 0)]), np.iinfo(np.int64).max)
    t = int(np.argmin(loss))
    return t, int(loss[t])


class Step(NamedTuple):
    """What one symbol puts into a state: an entry of a table, then raw (value, bits) pieces."""

    freq: int
    cum: int
    raw: tuple[tuple[int, int], ...]


def steps(
    tables: Tables, symbols: npt.NDArray[np.int16], index: npt.NDArray[np.uint8]
) -> Iterator[Step]:
    """The coded symbols in order, each as its `Step`; symbols of uncoded rows are left out."""
    cums = np.cumsum(tables.freqs, dtype=np.int64) - tables.freqs
    for value, r in zip(symbols.tolist(), index.tolist(), strict=True):
        length = int(tables.lengths[r])
        if length == 0:
            if value != 0:
                raise ValueError(f"symbol {value} in row {r}, which is not coded: expected 0")
            continue
        start = int(tables.starts[r])
        entry = value - int(tables.offsets[r])
        escaped = not 0 <= entry < length - 1
        k = start + (length - 1 if escaped else entry)
        cum = int(cums[k] - cums[start])
        lo = int(tables.offsets[r])
        yield Step(int(tables.freqs[k]), cum, _raw(value, lo, length) if escaped else ())


def _raw(value: int, lo: int, length: int) -> tuple[tuple[int, int], ...]:
    hi = lo + length - 2
    e = 2 * (value - hi - 1) if value > hi else 2 * (lo - 1 - value) + 1
    nb = e.bit_length()
    pieces = [(nb, 5)]
    for shift in range(0, nb - 1, 16):
        bits = min(16, nb - 1 - shift)
        pieces.append((e >> shift & ((1 << bits) - 1), bits))
    return tuple(pieces)


def quantise(
    tables: Tables,
    y: npt.NDArray[np.float32],
    means: npt.NDArray[np.float32] | None,
    index: npt.NDArray[np.uint8],
) -> tuple[npt.NDArray[np.int16], npt.NDArray[np.float32]]:
    """Latents to symbols, and to y_hat = symbol + mean.

    The symbol is y - mean in float32, clamped to int16 and rounded to the nearest, ties to even;
    0 in rows that are not coded. ValueError for a NaN, and for y and mean of the same infinity.
    """
    mean = np.zeros_like(y) if means is None else means
    with np.errstate(invalid="ignore"):
        residual = y - mean
    if np.isnan(residual).any():
        raise ValueError("a latent or a mean is NaN, or both are the same infinity")
    q = np.rint(residual.clip(-32768, 32767)).astype(np.int16)
    q *= tables.lengths[index] > 0
    return q, q.astype(np.float32) + mean


def rows_of(
    scales: npt.NDArray[np.float32], boundaries: npt.NDArray[np.float32]
) -> npt.NDArray[np.uint8]:
    """The row of each scale: how many boundaries (ascending, at most 255) are below it."""
    if np.isnan(scales).any():
        raise ValueError("a scale is NaN")
    return np.searchsorted(boundaries, scales).astype(np.uint8)


def choose_lanes(
    tables: Tables, symbols: npt.NDArray[np.int16], index: npt.NDArray[np.uint8]
) -> int:
    """Lanes for a payload: the largest power of two <= bytes / 1200, between 1 and 32.

    Bytes are estimated as n times the mean cost of every k-th symbol, k = 1 + (n >> 13), in
    integers (units of 2**-16 bit, `log2_table` shifted right by 12), so that every backend
    chooses alike. The choice binds the encoder only.
    """
    stride = 1 + len(symbols) // COST_SAMPLES
    log = log2_table((1 << tables.precision) + 1) >> (LOG_BITS - 16)
    cost = 0
    for step in steps(tables, symbols[::stride], index[::stride]):
        cost += (tables.precision << 16) - int(log[step.freq])
        cost += sum(bits for _, bits in step.raw) << 16
    bytes_est = cost // max(1, len(symbols[::stride])) * len(symbols) >> 19
    lanes = 1
    while lanes < MAX_LANES and 2 * lanes * BYTES_PER_LANE <= bytes_est:
        lanes *= 2
    return lanes


def encode(
    tables: Tables,
    symbols: npt.NDArray[np.int16],
    index: npt.NDArray[np.uint8],
    lanes: int | None = None,
) -> bytes:
    """Code `symbols[i]` with row `index[i]` of the tables; see the module's docstring.

    The encoder is the decoder backwards: last symbol first, each state starting at L.
    """
    coded = list(steps(tables, symbols, index))
    if not coded:
        return b""
    lanes = lanes or choose_lanes(tables, symbols, index)
    precision = tables.precision
    states = [LOWER] * lanes
    words: list[int] = []

    def make_room(x: int, limit: int) -> int:
        if x >= limit:
            words.append(x & 0xFFFF)
            x >>= 16
        return x

    for i in range(len(coded) - 1, -1, -1):
        freq, cum, raw = coded[i]
        x = states[i % lanes]
        for value, bits in reversed(raw):
            x = make_room(x, 1 << (32 - bits)) << bits | value
        x = make_room(x, freq << (32 - precision))
        states[i % lanes] = (x // freq << precision) + x % freq + cum
    head = bytes([lanes.bit_length() - 1]) + np.array(states, "<u4").tobytes()
    return head + np.array(words[::-1], "<u2").tobytes()


class Decoder:
    """A stream being read: `get` any number of times, then `finish`."""

    def __init__(self, tables: Tables, data: bytes) -> None:
        self._tables = tables
        self._cums = np.cumsum(tables.freqs, dtype=np.int64) - tables.freqs
        self._states, self._words = parse(data)
        self._next_word = 0
        self._count = 0

    def get(self, index: npt.NDArray[np.uint8]) -> npt.NDArray[np.int16]:
        """The next len(index) symbols, int16."""
        coded = (int(r) if self._tables.lengths[r] else None for r in index.tolist())
        return np.array([0 if r is None else self._symbol(r) for r in coded], np.int16)

    def finish(self) -> None:
        """Raise BitstreamError unless the stream ends here."""
        left = len(self._words) - self._next_word
        check_end(left, all(x == LOWER for x in self._states))

    def _symbol(self, r: int) -> int:
        if not self._states:
            raise BitstreamError("the coded stream is empty, symbols were expected")
        tables, precision = self._tables, self._tables.precision
        lane = self._count % len(self._states)
        self._count += 1
        start, length = int(tables.starts[r]), int(tables.lengths[r])
        cums = self._cums[start : start + length] - self._cums[start]
        x = self._states[lane]
        slot = x & ((1 << precision) - 1)
        s = int(np.searchsorted(cums, slot, side="right")) - 1
        x = int(tables.freqs[start + s]) * (x >> precision) + slot - int(cums[s])
        self._states[lane] = self._renormalised(x)
        lo = int(tables.offsets[r])
        return lo + s if s < length - 1 else self._escaped(lane, lo, lo + length - 2)

    def _escaped(self, lane: int, lo: int, hi: int) -> int:
        nb = self._raw(lane, 5)
        if nb > MAX_ESCAPE_BITS:
            raise BitstreamError(f"an escape of {nb} bits, at most {MAX_ESCAPE_BITS} are legal")
        e = 1 << (nb - 1) if nb else 0
        for shift in range(0, nb - 1, 16):
            e += self._raw(lane, min(16, nb - 1 - shift)) << shift
        value = lo - 1 - e // 2 if e & 1 else hi + 1 + e // 2
        if not -32768 <= value <= 32767:
            raise BitstreamError(f"an escaped value of {value} is outside int16")
        return value

    def _raw(self, lane: int, bits: int) -> int:
        x = self._states[lane]
        self._states[lane] = self._renormalised(x >> bits)
        return x & ((1 << bits) - 1)

    def _renormalised(self, x: int) -> int:
        if x >= LOWER:
            return x
        if self._next_word == len(self._words):
            raise BitstreamError("the coded stream ends too early")
        self._next_word += 1
        return x << 16 | self._words[self._next_word - 1]


def parse(data: bytes) -> tuple[list[int], list[int]]:
    """Split a stream into its states and its words, without decoding."""
    lanes = lanes_of(data)
    if lanes == 0:
        return [], []
    states = np.frombuffer(data, "<u4", lanes, 1)
    if states.min() < LOWER:
        raise BitstreamError(f"a state is {states.min()}, expected at least {LOWER}")
    return states.tolist(), np.frombuffer(data, "<u2", -1, 1 + 4 * lanes).tolist()


def lanes_of(data: bytes) -> int:
    """The number of lanes, 0 for an empty stream; BitstreamError for an impossible head."""
    if len(data) == 0:
        return 0
    if data[0] > 5:
        raise BitstreamError(f"log2(lanes) is {data[0]}, expected 0 to 5")
    lanes = 1 << data[0]
    body = len(data) - 1 - 4 * lanes
    if body < 0 or body % 2:
        raise BitstreamError(f"{len(data)} bytes cannot be a stream of {lanes} lanes")
    return lanes


def check_end(words_left: int, at_start: bool) -> None:
    """Raise BitstreamError unless no words are left and every lane is at its start."""
    if words_left or not at_start:
        raise BitstreamError(
            f"the coded stream does not end cleanly ({words_left} words left): "
            "it is damaged or was written with other tables"
        )
