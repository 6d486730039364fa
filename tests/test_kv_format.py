"""A second reader of key-value pages, written from FORMAT.md, section 12, on the golden files."""

import struct
from pathlib import Path

import numpy as np
import pytest
import xxhash

from latentpack.entropy.tables import TableSet
from latentpack.kernels import rans_ref

GOLDEN = Path(__file__).parent / "golden" / "kv"
WIDTHS = {10: 2, 11: 2, 12: 4, 17: 1, 18: 1}
FLOAT = (11, 12)


def read_tables(data):
    """Sizes, classes[tensor][layer], tops[tensor][layer], rows."""
    dtype, tensors, layers = struct.unpack_from("<BBI", data, 5)
    assert data[:5] == b"\x89LKT\x01"
    assert struct.pack("<Q", xxhash.xxh3_64_intdigest(data[:-8])) == data[-8:]
    sizes = [struct.unpack_from("<II", data, 11 + 8 * i) for i in range(tensors)]
    channels = [heads * dim for heads, dim in sizes]
    at = 11 + 8 * tensors

    def take(counts):
        nonlocal at
        found = []
        for count in counts:
            found.append([data[at + i * count : at + (i + 1) * count] for i in range(layers)])
            at += layers * count
        return found

    classes = take([(c + 1) // 2 if dtype in FLOAT else c for c in channels])
    tops = take(channels) if dtype in FLOAT else None
    return sizes, classes, tops, TableSet.from_bytes(data[at:-8])


def plane0(symbols, dtype, tops, channels):
    """The bytes of plane 0 of the tokens that these symbols are."""
    if dtype not in FLOAT:
        return [s >> 1 | (s & 1) << 7 for s in symbols]
    plane = []
    per_token = (channels + 1) // 2
    for i, symbol in enumerate(symbols):
        nibbles = [symbol >> shift & 15 for shift in (0, 4, 8, 12)]
        first = 2 * (i % per_token)
        plane.append((tops[first] - nibbles[0] - 16 * nibbles[2]) % 256)
        if first + 1 < channels:
            plane.append((tops[first + 1] - nibbles[1] - 16 * nibbles[3]) % 256)
    return plane


def element(dtype, planes, i):
    """Element i of planes, little-endian."""
    parts = [plane[i] for plane in planes]
    if dtype in FLOAT:
        exponent, rest = parts[:2]
        upper = (rest & 128) << 8 | exponent << 7 | rest & 127
        return bytes(parts[:1:-1]) + struct.pack("<H", upper)
    return bytes(parts[::-1])


def read_block(block, tokens, layer, dtype, tables):
    """The elements of the keys, then the values, of one block."""
    sizes, classes, tops, rows = tables
    width = WIDTHS[dtype]
    counts = [tokens * heads * dim for heads, dim in sizes]
    if len(block) == sum(counts) * width:
        return block
    decoder = rans_ref.Decoder(rows, block[sum(counts) * (width - 1) :])
    out, at = b"", 0
    for tensor, count in enumerate(counts):
        rests = [block[at + p * count : at + (p + 1) * count] for p in range(width - 1)]
        at += count * (width - 1)
        index = np.frombuffer(classes[tensor][layer] * tokens, np.uint8)
        symbols = decoder.get(index).tolist()
        first = plane0(symbols, dtype, tops and tops[tensor][layer], count // tokens)
        out += b"".join(element(dtype, [first, *rests], i) for i in range(count))
    decoder.finish()
    return out


@pytest.mark.parametrize("path", sorted(GOLDEN.glob("*.lkv")), ids=lambda path: path.stem)
def test_second_reader(path):
    data = path.read_bytes()
    lkt = path.with_suffix(".lkt").read_bytes()
    tables = read_tables(lkt)
    dtype, tensors, stacked, digest = struct.unpack_from("<BBB8s", data, 5)
    first, layers, tokens, page = struct.unpack_from("<IIII", data, 16)
    assert (data[:5], tensors, stacked, digest) == (b"\x89LKV\x01", 2, 1, lkt[-8:])
    assert (first, layers, tokens, page) == (0, 2, 40, 16)
    at = 32 + 8 * tensors
    pages = -(-tokens // page)
    records = list(struct.iter_unpack("<II", data[at : at + 8 * pages * layers]))
    at = -(-(at + 8 * len(records) + 4) // 16) * 16
    assert xxhash.xxh3_64_intdigest(data[: at - 4]) & 0xFFFFFFFF == int.from_bytes(
        data[at - 4 : at], "little"
    )
    row = WIDTHS[dtype] * 2 * 8
    original = path.with_suffix(".bin").read_bytes()
    for i, (size, checksum) in enumerate(records):
        end = at + -(-size // 16) * 16
        assert xxhash.xxh3_64_intdigest(data[at:end]) & 0xFFFFFFFF == checksum
        start, layer = i // layers * page, i % layers
        count = min(page, tokens - start)
        found = read_block(data[at : at + size], count, layer, dtype, tables)
        wanted = [((t * layers + layer) * tokens + start) * row for t in range(tensors)]
        assert found == b"".join(original[w : w + count * row] for w in wanted)
        at = end
    assert at == len(data)
