"""A second decoder, written from codecs/FORMAT.md alone, reads what the library writes."""

import io
import struct

import cbor2
import numpy as np
import pytest
import xxhash

from latentpack.codecs.codec import Packet
from latentpack.codecs.container import Writer
from latentpack.entropy.coder import Encoder
from latentpack.entropy.tables import TableSet
from latentpack.kernels import rans_ref


class File:
    """Sections 1 to 4."""

    def __init__(self, data):
        assert data[:8] == bytes.fromhex("894C504B0D0A1A0A")
        self.data, self.at = data, 8
        kind, body, _ = self.box()
        assert kind == "H" and body[0] == 1
        self.codec, rest = varint(body[1:])
        self.params = cbor2.loads(rest) if rest else {}
        self.metadata, self.packets, offsets = {}, {}, []
        while kind != "E":
            start = self.at
            kind, body, bulk = self.box()
            if kind == "M":
                self.metadata = cbor2.loads(body)
            elif kind == "P":
                key, payload = key_of(body)
                self.packets[key] = (payload, bulk)
                offsets.append((key, start))
            elif kind == "I":
                index_at, last = start, 0
                for expected in offsets:
                    key, body = key_of(body)
                    distance, body = varint(body)
                    last += distance
                    assert (key, last) == expected
        assert self.at == len(data)
        assert body == (b"" if len(offsets) < 2 else struct.pack("<Q", index_at))

    def box(self):
        start = self.at
        size, rest = varint(self.data[start + 1 : start + 30])
        bulk_size, rest = varint(rest)
        body_at = min(start + 30, len(self.data)) - len(rest)
        self.at = body_at + size + 4
        digest = xxhash.xxh3_64_intdigest(self.data[start : body_at + size]) & 0xFFFFFFFF
        assert self.data[body_at + size : self.at] == digest.to_bytes(4, "little")
        if bulk_size:
            self.at = (self.at + 15) // 16 * 16 + bulk_size
        body = self.data[body_at : body_at + size]
        return chr(self.data[start]), body, self.data[self.at - bulk_size : self.at]


def varint(data):
    value, size = 0, 0
    while True:
        value += (data[size] & 0x7F) << 7 * size
        size += 1
        if data[size - 1] < 0x80:
            return value, data[size:]


def key_of(data):
    size, data = varint(data)
    return (cbor2.loads(data[:size]) if size else None), data[size:]


class Rans:
    """Sections 9.1 to 9.3."""

    def __init__(self, tables, stream):
        self.p, rows = struct.unpack_from("<BH", tables)
        self.rows, at = [], 3 + 4 * rows
        for r in range(rows):
            offset, length = struct.unpack_from("<hH", tables, 3 + 4 * r)
            self.rows.append((offset, struct.unpack_from(f"<{length}H", tables, at)))
            at += 2 * length
        assert at == len(tables)
        lanes = 1 << stream[0]
        self.x = list(struct.unpack_from(f"<{lanes}I", stream, 1))
        self.words = [w for (w,) in struct.iter_unpack("<H", stream[1 + 4 * lanes :])]
        self.i = 0

    def renormalise(self, lane):
        if self.x[lane] < 1 << 16:
            self.x[lane] = self.x[lane] << 16 | self.words.pop(0)

    def raw(self, lane, bits):
        value = self.x[lane] % 2**bits
        self.x[lane] >>= bits
        self.renormalise(lane)
        return value

    def symbol(self, row):
        offset, freq = self.rows[row]
        if not freq:
            return 0
        lane = self.i % len(self.x)
        self.i += 1
        x, s, cum = self.x[lane], 0, 0
        while x % 2**self.p >= cum + freq[s]:
            cum += freq[s]
            s += 1
        self.x[lane] = freq[s] * (x >> self.p) + x % 2**self.p - cum
        self.renormalise(lane)
        return offset + s if s < len(freq) - 1 else self.escape(lane, offset, len(freq))

    def escape(self, lane, offset, length):
        lo, hi = offset, offset + length - 2
        left = self.raw(lane, 5) - 1
        e, shift = 0 if left < 0 else 1 << left, 0
        while left > 0:
            e += self.raw(lane, min(16, left)) << shift
            shift, left = shift + 16, left - 16
        return lo - 1 - (e - 1) // 2 if e % 2 else hi + 1 + e // 2


def normalised(count, p):
    """Section 9.5."""

    def log(n):
        e = n.bit_length() - 1
        y, bits = n << (31 - e), e
        for _ in range(28):
            y = y * y >> 31
            bits = bits << 1 | (y >= 1 << 32)
            y >>= y >= 1 << 32
        return bits

    symbols = [s for s, c in enumerate(count) if c]
    count, w = list(count), sum(count)
    freq = [max(1, (2 * c * 2**p + w) // (2 * w)) if c else 0 for c in count]

    def gain(s):
        return count[s] * (log(freq[s] + 1) - log(freq[s]))

    def loss(s):
        return count[s] * (log(freq[s]) - log(freq[s] - 1))

    while sum(freq) != 2**p:
        if sum(freq) < 2**p:
            freq[max(symbols, key=gain)] += 1
        else:
            freq[min((s for s in symbols if freq[s] > 1), key=loss)] -= 1
    while True:
        more = max(symbols, key=gain)
        less = min((s for s in symbols if freq[s] > 1), key=loss, default=more)
        if more == less or gain(more) <= loss(less):
            return freq
        freq[more] += 1
        freq[less] -= 1


@pytest.mark.parametrize("count", [0, 1, 2, 40])
def test_container(count):
    packets = [Packet(f"k{i}", bytes(i * 9), bytes([i]) * (i % 3 * 7)) for i in range(count)]
    file = io.BytesIO()
    with Writer(file, 300, {"a": [1.5, None]}, {"note": "é"}) as writer:
        for packet in packets:
            writer.write(packet)
    read = File(file.getvalue())
    assert (read.codec, read.params, read.metadata) == (300, {"a": [1.5, None]}, {"note": "é"})
    assert read.packets == {p.key: (p.body, p.bulk) for p in packets}


@pytest.mark.parametrize("lanes", [1, 4, 32])
@pytest.mark.parametrize("precision", [8, 12, 16])
def test_rans(lanes, precision):
    rng = np.random.default_rng(1)
    tables = TableSet.gaussian([0, 0.5, 3.0], precision)
    index = rng.integers(0, 3, 3000).astype(np.uint8)
    symbols = (rng.normal(size=3000) * 4 * (index > 0)).astype(np.int16)
    for i, extreme in enumerate((32767, -32768, 20000, -20000, 100)):
        index[i], symbols[i] = 1, extreme
    encoder = Encoder(tables, lanes=lanes)
    encoder.put(symbols, index)
    decoder = Rans(tables.to_bytes(), encoder.finish())
    assert [decoder.symbol(r) for r in index] == symbols.tolist()
    assert decoder.words == [] and set(decoder.x) == {1 << 16}


def test_normalisation():
    rng = np.random.default_rng(2)
    assert normalised([1, 1, 14], 3) == [1, 1, 6]
    for p in (3, 5, 8):
        for _ in range(20):
            count = rng.integers(0, 1 << rng.integers(1, 32), 8)
            count[:2] += 1
            assert rans_ref.normalise(count, p).tolist() == normalised(count.tolist(), p)
