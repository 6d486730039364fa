"""An array as its difference from another array: the definition, in NumPy.

Elements are integers of w bytes (1, 2, 4, 8) of an array and of its base, which both sides have.
Every distance becomes a token and raw bits; the token is coded by `rans_ref` with the row that
the base's element names (for floats: by its exponent, since a training step of about constant
size is the more units in the last place the smaller the weight is). Every other backend gives
exactly these bytes.

Distance, modulo 2**(8 w) and read as signed, by the operation of the array
    ULP         order(new) - order(base), order(u) = u for u >= 0 (as signed), else u with all
                bits but the sign inverted: the integers in the order of the floats, so that the
                distance counts units in the last place. All bit patterns are different integers.
    DIFFERENCE  new - base
    XOR         new ^ base

Token of a distance d with m = |d|, and s = 3 (w <= 2), 2 (w = 4) or 1 (w = 8)
    r = max(0, bits of m - 1 - s); t = (r << s) + (m >> r), with the sign of d; the low r bits of
    m are raw. So distances below 2**(s + 1) are their own tokens.

Row of an element: class_of[base >> shift & (2**bits - 1)].

Chunk of n elements
    With `blocks`, elements belong to blocks of 64. A nibble has a bit for each of four blocks,
    the first in bit 0: whether any element of the block changed (0 beyond the last block). The
    nibbles come first, with their own row; elements of unchanged blocks are not coded.
    stream  the nibbles (row R) and the tokens (rows 0 to R - 1) as one rANS stream
    raw     the raw bits of all elements in order, low bits first, zeros up to a whole byte
"""

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from . import rans, rans_ref
from .errors import BitstreamError

Integers = npt.NDArray[np.unsignedinteger]  # type: ignore[type-arg]
Signed = npt.NDArray[np.signedinteger]  # type: ignore[type-arg]

ULP, DIFFERENCE, XOR = 0, 1, 2
OPERATIONS = ("ulp", "difference", "xor")
BLOCK = 64
SUB_BITS = {1: 3, 2: 3, 4: 2, 8: 1}
ZERO = 128  # column of token 0 where tokens are counted
MAX_FIELD_BITS = 11


class Layout(NamedTuple):
    """What the elements are.

    Attributes:
        width: bytes of an element.
        operation: ULP, DIFFERENCE or XOR.
        shift: where the field begins that names an element's row.
        bits: of that field, 0 to 11; 0 = all elements have one row.
    """

    width: int
    operation: int
    shift: int
    bits: int

    def field(self, base: Integers) -> npt.NDArray[np.int64]:
        """The field of each element."""
        return (base >> base.dtype.type(self.shift)).astype(np.int64) & ((1 << self.bits) - 1)


class Counts(NamedTuple):
    """What a chunk holds.

    Attributes:
        tokens: int64 [2**bits, 256], how often each token (plus 128) stands at each field, of
            elements whose block changed.
        quiet: int64 [2**bits], elements of unchanged blocks.
        nibbles: int64 [16].
    """

    tokens: npt.NDArray[np.int64]
    quiet: npt.NDArray[np.int64]
    nibbles: npt.NDArray[np.int64]


def max_token(width: int) -> int:
    """The largest token: that of 2**(8 * width - 1)."""
    s = SUB_BITS[width]
    return ((8 * width - 1 - s) << s) + (1 << s)


def _ordered(values: Integers, operation: int) -> Signed:
    signed: Signed = values.view(f"i{values.dtype.itemsize}")
    if operation != ULP:
        return signed
    return np.where(signed < 0, signed ^ np.iinfo(signed.dtype).max, signed)


def distances(new: Integers, base: Integers, operation: int) -> Signed:
    """The signed distances."""
    if operation == XOR:
        return _ordered(new ^ base, XOR)
    return _ordered(new, operation) - _ordered(base, operation)


def moved(base: Integers, distance: Signed, operation: int) -> Integers:
    """The inverse: elements at these distances from the base."""
    if operation == XOR:
        return base ^ distance.view(base.dtype)
    place = _ordered(base, operation) + distance
    return _ordered(place.view(base.dtype), operation).view(base.dtype)  # its own inverse


def tokens_of(
    d: Signed,
) -> tuple[npt.NDArray[np.int16], npt.NDArray[np.uint8], npt.NDArray[np.uint64]]:
    """Token, number of raw bits, and raw bits of each distance."""
    width = d.dtype.itemsize
    s = SUB_BITS[width]
    m = np.abs(d).view(f"u{width}").astype(np.uint64)
    raw_bits = np.zeros(len(d), np.uint8)
    for r in range(1, 8 * width - s):
        raw_bits += m >> np.uint64(s + r) > 0
    t = (raw_bits.astype(np.int16) << s) + (m >> raw_bits).astype(np.int16)
    low = m & ((np.uint64(1) << raw_bits.astype(np.uint64)) - np.uint64(1))
    return np.where(d < 0, -t, t).astype(np.int16), raw_bits, low


def pack_bits(values: npt.NDArray[np.uint64], sizes: npt.NDArray[np.uint8]) -> bytes:
    """The low bits of values one after another."""
    ends = np.cumsum(sizes, dtype=np.int64)
    owner = np.repeat(np.arange(len(sizes)), sizes)
    place = np.arange(len(owner)) - (ends - sizes)[owner]
    bits = values[owner] >> place.astype(np.uint64) & np.uint64(1)
    return np.packbits(bits.astype(np.uint8), bitorder="little").tobytes()


def unpack_bits(data: bytes, sizes: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint64]:
    """The inverse; BitstreamError unless the data is exactly these bits."""
    total = int(sizes.sum(dtype=np.int64))
    bits = np.unpackbits(np.frombuffer(data, np.uint8), bitorder="little")
    if len(data) != (total + 7) // 8 or bits[total:].any():
        raise BitstreamError(f"{len(data)} bytes of raw bits do not hold {total} bits and zeros")
    ends = np.cumsum(sizes, dtype=np.int64)
    owner = np.repeat(np.arange(len(sizes)), sizes)
    place = np.arange(total) - (ends - sizes)[owner]
    values = np.zeros(len(sizes), np.uint64)
    np.bitwise_or.at(values, owner, bits[:total].astype(np.uint64) << place.astype(np.uint64))
    return values


def changed_blocks(d: Signed) -> npt.NDArray[np.bool_]:
    """Whether each block of 64 distances holds another one than 0."""
    padded = np.zeros(-(-len(d) // BLOCK) * BLOCK, np.bool_)
    padded[: len(d)] = d != 0
    changed: npt.NDArray[np.bool_] = padded.reshape(-1, BLOCK).any(1)
    return changed


def nibbles_of(changed: npt.NDArray[np.bool_]) -> npt.NDArray[np.int16]:
    """Four blocks in a nibble."""
    bits = np.zeros(-(-len(changed) // 4) * 4, np.int16)
    bits[: len(changed)] = changed
    return bits.reshape(-1, 4) @ np.array([1, 2, 4, 8], np.int16)


def count(new: Integers, base: Integers, layout: Layout) -> Counts:
    """Count what a chunk holds."""
    d = distances(new, base, layout.operation)
    field = layout.field(base)
    changed = changed_blocks(d)
    coded = np.repeat(changed, BLOCK)[: len(d)]
    fields = 1 << layout.bits
    key = field[coded] * 256 + ZERO + tokens_of(d)[0][coded]
    return Counts(
        np.bincount(key, minlength=fields * 256).reshape(fields, 256).astype(np.int64),
        np.bincount(field[~coded], minlength=fields).astype(np.int64),
        np.bincount(nibbles_of(changed), minlength=16).astype(np.int64),
    )


def rows_of(
    base: Integers,
    layout: Layout,
    class_of: npt.NDArray[np.uint8],
    changed: npt.NDArray[np.bool_] | None,
) -> npt.NDArray[np.uint8]:
    """The row of each element; with blocks, the skipped row of those that are not coded."""
    rows = class_of[layout.field(base)]
    if changed is not None:
        skip = np.uint8(int(class_of.max()) + 2)
        rows = np.where(np.repeat(changed, BLOCK)[: len(rows)], rows, skip)
    return rows


def encode(
    tables: rans_ref.Tables,
    class_of: npt.NDArray[np.uint8],
    new: Integers,
    base: Integers,
    layout: Layout,
    blocks: bool,
    lanes: int,
) -> tuple[bytes, bytes]:
    """Stream and raw bits of a chunk."""
    d = distances(new, base, layout.operation)
    symbols, sizes, low = tokens_of(d)
    rows = rows_of(base, layout, class_of, changed_blocks(d) if blocks else None)
    if blocks:
        nibbles = nibbles_of(changed_blocks(d))
        symbols = np.concatenate([nibbles, symbols])
        rows = np.concatenate([np.full(len(nibbles), class_of.max() + 1, np.uint8), rows])
    stream = rans.encode(tables, symbols, rows, lanes=lanes, backend="ref")
    return stream, pack_bits(low, sizes)


def decode(
    tables: rans_ref.Tables,
    class_of: npt.NDArray[np.uint8],
    stream: bytes,
    raw: bytes,
    base: Integers,
    layout: Layout,
    blocks: bool,
) -> Integers:
    """The elements of a chunk; BitstreamError if it is damaged."""
    decoder = rans.Decoder(tables, stream, backend="ref")
    changed = None
    if blocks:
        count = -(-len(base) // BLOCK)
        nibbles = decoder.get(np.full(-(-count // 4), class_of.max() + 1, np.uint8))
        if np.any((nibbles < 0) | (nibbles > 15)):
            raise BitstreamError("a nibble of blocks is outside 0 to 15")
        changed = (nibbles[:, None] >> np.arange(4) & 1).astype(np.bool_).reshape(-1)[:count]
    symbols = decoder.get(rows_of(base, layout, class_of, changed)).astype(np.int64)
    decoder.finish()
    s, magnitude = SUB_BITS[layout.width], np.abs(symbols)
    if len(symbols) and magnitude.max() > max_token(layout.width):
        raise BitstreamError(f"a token is beyond {max_token(layout.width)}")
    sizes = np.maximum(0, (magnitude >> s) - 1).astype(np.uint8)
    top = (magnitude - (sizes.astype(np.int64) << s)).astype(np.uint64)
    m = top << sizes.astype(np.uint64) | unpack_bits(raw, sizes)
    d = np.where(symbols < 0, np.uint64(0) - m, m).astype(f"u{layout.width}")
    return moved(base, d.view(f"i{layout.width}"), layout.operation)
