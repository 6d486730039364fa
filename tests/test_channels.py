"""Blocks of channels: a hand-made block, every backend against the definition, damage."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from latentpack.kernels import channels, channels_ref, rans, rans_ref
from latentpack.kernels.channels import BYTE_PLANES, FLOAT, Part
from latentpack.kernels.errors import BitstreamError
from latentpack.kernels.rans_ref import Tables

COMPILED = [backend for backend in rans.backends() if backend != "ref"]
CASES = [(FLOAT, np.uint16), (FLOAT, np.uint32)] + [
    (BYTE_PLANES, dtype) for dtype in (np.uint8, np.uint16, np.uint32)
]


def some_tables(rng, rows):
    counts = [rng.geometric(0.03, int(rng.integers(2, 120))) for _ in range(rows)]
    freqs = [rans_ref.normalise(count) for count in counts]
    offsets = rng.integers(0, 100, rows)
    return Tables(12, offsets, [len(row) for row in freqs], np.concatenate(freqs))


def some_part(rng, tables, layout, dtype, shape, strided):
    """Elements whose symbols are mostly codable; in any strides but the last."""
    rows, groups, width = shape
    bits = dtype(0).itemsize * 8
    stored = (groups, rows, width) if strided else shape
    high = rng.normal(60, 12 if layout == BYTE_PLANES else 2, stored).clip(0, 255).astype(np.uint64)
    low = rng.integers(0, 1 << bits - 8, stored).astype(np.uint64)
    x = (high << bits - 9 if bits > 8 else high >> 1) | low
    x |= rng.integers(0, 2, stored).astype(np.uint64) << bits - 1
    x = x.astype(dtype)
    channels = groups * width
    classes = rng.integers(0, len(tables), channels_ref.symbols_in(channels, layout))
    tops = rng.integers(60, 70, channels if layout == FLOAT else 0)
    x = x.transpose(1, 0, 2) if strided else x
    return Part(x, classes.astype(np.uint8), tops.astype(np.uint8))


def empty_like(parts):
    """Parts to decode into, in memory a group after the other."""
    return [
        part._replace(elements=np.zeros(x.transpose(1, 0, 2).shape, x.dtype).transpose(1, 0, 2))
        for part in parts
        for x in part[:1]
    ]


def encoded(tables, layout, parts, **options):
    """The block as bytes; escapes may take more than the elements do."""
    room = bytearray(200 + 10 * sum(part.elements.nbytes for part in parts))
    return bytes(room[: channels.encode(tables, layout, parts, room, **options)])


def assert_same(parts, got):
    for a, b in zip(parts, got, strict=True):
        assert np.array_equal(a.elements, b.elements)


def test_a_hand_made_block():
    """Two tokens of two channels, bf16: the rests first, then the stream of two symbols."""
    # Distances 0 and 1 make 0x10; that, or an escape, a bit each.
    tables = Tables(1, [0x10], [2], [1, 1])
    x = np.array([0x3F81, 0xBF02, 0xBF83, 0x3F04], np.uint16).reshape(2, 1, 2)
    part = Part(x, np.zeros(1, np.uint8), np.full(2, 127, np.uint8))  # exponents 127 and 126
    data = channels_ref.encode(tables, FLOAT, [part])
    assert data[:4] == bytes([0x01, 0x82, 0x83, 0x04])
    # From L = 2**16, twice x = x // 1 * 2 + x % 1 + 0.
    assert data[4:] == bytes([0]) + (4 << 16).to_bytes(4, "little")


def test_symbols_of_exponents():
    x = np.array([100, 99, 100 - 0x5A, 101, 100], np.uint16).reshape(1, 1, 5) << 7
    symbols, (rest,) = channels_ref.symbols_of(x, FLOAT, np.full(5, 100, np.uint8))
    # Distances (0, 1), (0x5A, 0xFF), and 0 alone.
    assert symbols.view(np.uint16).tolist() == [0x0010, 0xF5FA, 0]
    assert rest.tolist() == [0] * 5


def test_rotation_makes_neighbours_of_both_signs():
    half = np.array([0x3C00, 0xBC00], np.uint16).reshape(2, 1, 1)  # 1.0 and -1.0 in fp16
    symbols, (low,) = channels_ref.symbols_of(half, BYTE_PLANES, channels_ref.NO_TOPS)
    assert symbols.tolist() == [0x78, 0x79]
    assert low.tolist() == [0, 0]


@pytest.mark.parametrize(("layout", "dtype"), CASES)
@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 2**32 - 1))
def test_backends_agree(layout, dtype, seed):
    rng = np.random.default_rng(seed)
    tables = some_tables(rng, int(rng.integers(1, 6)))
    parts = []
    for _ in range(int(rng.integers(1, 3))):
        shape = rng.integers(0, 9, 3)
        parts.append(some_part(rng, tables, layout, dtype, shape, bool(rng.integers(2))))
    expected = encoded(tables, layout, parts, backend="ref")
    for backend in rans.backends():
        assert encoded(tables, layout, parts, backend=backend) == expected
        got = empty_like(parts)
        channels.decode(tables, layout, [(expected, got)], backend=backend)
        assert_same(parts, got)


@pytest.mark.parametrize("backend", COMPILED)
@pytest.mark.parametrize("layout", [FLOAT, BYTE_PLANES])
@pytest.mark.parametrize("strided", [False, True])
def test_strips_larger_than_the_scratch(backend, layout, strided):
    """More symbols than are decoded at once, rows that are longer than that, and one symbol."""
    rng = np.random.default_rng(1)
    tables = some_tables(rng, 4)
    for shape in ((300, 4, 33), (3, 2, 5000), (1, 1, 1), (16385, 1, 1)):
        parts = [some_part(rng, tables, layout, np.uint16, shape, strided) for _ in range(2)]
        data = encoded(tables, layout, parts, backend=backend)
        got = empty_like(parts)
        channels.decode(tables, layout, [(data, got)], backend=backend)
        assert_same(parts, got)


@pytest.mark.parametrize("lanes", [1, 2, 4, 8, 16, 32])
def test_any_lanes_decode(lanes):
    rng = np.random.default_rng(lanes)
    tables = some_tables(rng, 3)
    parts = [some_part(rng, tables, FLOAT, np.uint16, (40, 2, 8), False)]
    data = encoded(tables, FLOAT, parts, lanes=lanes)
    assert data == encoded(tables, FLOAT, parts, lanes=lanes, backend="ref")
    for backend in rans.backends():
        got = empty_like(parts)
        channels.decode(tables, FLOAT, [(data, got)], backend=backend)
        assert_same(parts, got)


@pytest.mark.parametrize("backend", rans.backends())
def test_arguments(backend):
    rng = np.random.default_rng(0)
    tables = some_tables(rng, 2)
    part = some_part(rng, tables, FLOAT, np.uint16, (4, 2, 8), False)
    x, classes, tops = part

    def refuses(match, layout=FLOAT, parts=(part,), **options):
        with pytest.raises(ValueError, match=match) as caught:
            encoded(tables, layout, list(parts), backend=backend, **options)
        assert not isinstance(caught.value, BitstreamError)

    refuses("at least one part", parts=())
    refuses("do not fit layout", layout=7)
    refuses("do not fit layout", parts=[part._replace(elements=x.astype(np.uint8))])
    refuses("do not fit layout", parts=[part._replace(elements=x.astype(np.uint64))])
    refuses("3-D", parts=[part._replace(elements=x[0])])
    refuses("3-D", parts=[part, part._replace(elements=x.astype(np.uint32))])
    refuses("strided", parts=[Part(x[:, :, ::2], classes[:4], tops[:8])])
    refuses("classes are", parts=[part._replace(classes=classes[:-1])])
    refuses("tops are", parts=[part._replace(tops=tops[:-1])])
    refuses("tops are", layout=BYTE_PLANES, parts=[Part(x, np.tile(classes, 2), tops)])
    wrong = part._replace(classes=classes + 9)
    refuses("class is outside", parts=[wrong])
    refuses("lanes is 3", lanes=3)
    with pytest.raises(ValueError, match="fewer than the elements"):
        channels.encode(tables, FLOAT, [part], bytearray(x.nbytes - 1), backend=backend)
    data = encoded(tables, FLOAT, [part])
    with pytest.raises(ValueError, match="class is outside"):
        channels.decode(tables, FLOAT, [(data, empty_like([wrong]))], backend=backend)
    with pytest.raises(ValueError, match="backend is 'gpu'"):
        encoded(tables, FLOAT, [part], backend="gpu")


@pytest.mark.parametrize("backend", rans.backends())
def test_damage(backend):
    """Cuts are noticed; flipped bits of the stream never crash, and most are noticed.

    Not those in an escape's value: pages have checksums.
    """
    rng = np.random.default_rng(3)
    tables = some_tables(rng, 3)
    parts = [some_part(rng, tables, FLOAT, np.uint16, (20, 2, 8), False)]
    data = encoded(tables, FLOAT, parts)
    for size in range(len(data)):
        with pytest.raises(BitstreamError):
            channels.decode(tables, FLOAT, [(data[:size], empty_like(parts))], backend=backend)
    unnoticed = 0
    bits = range(8 * 320, 8 * len(data), 7 if backend == "ref" else 1)
    for i in bits:
        broken = bytearray(data)
        broken[i // 8] ^= 1 << i % 8
        try:
            channels.decode(tables, FLOAT, [(bytes(broken), empty_like(parts))], backend=backend)
            unnoticed += 1
        except BitstreamError:
            pass
    assert unnoticed < len(bits) / 3


@pytest.mark.parametrize("backend", COMPILED)
def test_random_bytes_never_crash(backend):
    rng = np.random.default_rng(4)
    tables = some_tables(rng, 3)
    parts = [some_part(rng, tables, FLOAT, np.uint16, (20, 2, 8), False)]
    for _ in range(2000):
        data = rng.integers(0, 256, int(rng.integers(0, 900)), np.uint8)
        data[320:321] = rng.integers(0, 6)
        try:
            channels.decode(tables, FLOAT, [(data.tobytes(), empty_like(parts))], backend=backend)
        except BitstreamError:
            pass


@pytest.mark.parametrize("backend", rans.backends())
def test_nothing_is_written_beyond_the_room(backend):
    """A block that is larger than its elements is told by its size."""
    tables = Tables(12, [0], [2], [4095, 1])  # all but one symbol is an escape
    x = np.random.default_rng(0).integers(0, 1 << 16, (40, 1, 6)).astype(np.uint16)
    part = Part(x, np.zeros(3, np.uint8), np.zeros(6, np.uint8))
    room = bytearray(b"\xa5" * (x.nbytes + 100))
    out = memoryview(room)[: x.nbytes]
    assert channels.encode(tables, FLOAT, [part], out, backend=backend) > x.nbytes
    assert room[x.nbytes :] == b"\xa5" * 100


@pytest.mark.parametrize("backend", rans.backends())
@pytest.mark.parametrize(("layout", "dtype"), [(FLOAT, np.uint16), (BYTE_PLANES, np.uint8)])
def test_blocks_that_are_decoded_together(backend, layout, dtype):
    """Of all lengths and lanes, with escapes at other places, and a damaged one among them."""
    rng = np.random.default_rng(8)
    tables = some_tables(rng, 4)
    shapes = [
        (90, 2, 8),
        (90, 2, 8),
        (31, 2, 8),
        (90, 1, 6),
        (0, 2, 8),
        (4, 3, 2),
        (90, 2, 8),
        (70, 2, 8),
    ]
    lanes = [32, 32, 32, 32, 32, 4, 16, 16]
    parts = [[some_part(rng, tables, layout, dtype, s, False) for _ in "kv"] for s in shapes]
    data = [encoded(tables, layout, p, lanes=n) for p, n in zip(parts, lanes, strict=True)]
    got = [empty_like(part) for part in parts]
    channels.decode(tables, layout, list(zip(data, got, strict=True)), backend=backend)
    for part, decoded in zip(parts, got, strict=True):
        assert_same(part, decoded)
    channels.decode(tables, layout, [], backend=backend)
    for which in range(2):
        broken = list(data)
        broken[which] = broken[which][:-2]
        with pytest.raises(BitstreamError):
            channels.decode(tables, layout, list(zip(broken, got, strict=True)), backend=backend)


def test_large_blocks_together():
    """Several strips of two streams, one of which runs out of words sooner."""
    rng = np.random.default_rng(9)
    tables = some_tables(rng, 4)
    for rows in ((700, 700), (700, 300), (2, 700)):
        parts = [[some_part(rng, tables, FLOAT, np.uint16, (n, 4, 32), True)] for n in rows]
        data = [encoded(tables, FLOAT, part, lanes=32) for part in parts]
        got = [empty_like(part) for part in parts]
        channels.decode(tables, FLOAT, list(zip(data, got, strict=True)))
        for part, decoded in zip(parts, got, strict=True):
            assert_same(part, decoded)
