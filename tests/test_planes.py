"""The plane coder: a hand-worked stream, every backend against the reference, damaged bytes."""

import os

import numpy as np
import pytest
import xxhash
from hypothesis import given, settings
from hypothesis import strategies as st

from latentpack.kernels import planes, planes_head_ref, planes_ref, rans
from latentpack.kernels.errors import BitstreamError
from latentpack.kernels.planes import BYTE_PLANES, FLOAT, NIBBLES
from latentpack.kernels.planes_tables_ref import Table, pack_table, unpack_table
from latentpack.kernels.rans_ref import normalise

SEED = 7
BACKENDS = rans.backends()
SHAPES = [(FLOAT, 2), (FLOAT, 4), (NIBBLES, 1), *((BYTE_PLANES, w) for w in (1, 2, 3, 4, 8))]
# 2048 and 8192 are borders of lanes and of sampling, the rest borders of chunks and steps.
SIZES = [0, 1, 2, 31, 63, 64, 65, 127, 2047, 2049, 4096, 8193, 16_411, 65_535, 65_536, 65_537]


def floats(n, kind, rng):
    """Bit patterns of n float32 in a few distributions that meet every mode."""
    x = rng.standard_normal(n).astype(np.float32) * np.float32(0.02)
    if kind == "sparse":
        x[rng.random(n) < 0.7] = 0
    if kind == "scales":
        x *= np.exp2(rng.integers(-30, 30, n // 256 + 1).repeat(256)[:n]).astype(np.float32)
    if kind == "constant":
        x[:] = -1.5
    if kind == "bf16":
        x = (x.view(np.uint32) & 0xFFFF0000).view(np.float32)
    if kind == "bits":
        return rng.integers(0, 1 << 32, n, np.uint32)
    return x.view(np.uint32)


def array(n, layout, width, kind, seed=SEED):
    rng = np.random.default_rng(seed)
    bits = floats(n, kind, rng)
    if width == 8:
        return np.stack([bits, bits], 1).tobytes()
    size = max(width, 1)
    raw = bits.view(np.uint8).reshape(-1, 4)
    if size == 1 and layout == BYTE_PLANES:
        return (bits >> 23).astype(np.uint8).tobytes()
    return raw[:, 4 - size :].tobytes() if size <= 4 else raw.tobytes()


def round_trip(data, width, layout, mode="tight", chunk_log2=16, backend=None, threads=1):
    head, coded = planes.encode(
        data, width, layout, mode, chunk_log2=chunk_log2, backend=backend, threads=threads
    )
    out = bytearray(len(data))
    planes.Decoder(head, coded, len(data) // width, width, layout, backend=backend).decode(
        out, threads=threads
    )
    assert out == data
    return head, bytes(coded)


def test_a_stream_worked_by_hand():
    # 64 bytes: 62 x 0, then 1, 1. Below 128 symbols: one lane. Frequencies of 62 : 2 at 12 bits
    # are 3968 and 128 (exact). Coded backwards from L = 65536:
    #   1: x >= 128 << 20? no.      x = 65536 / 128 << 12 | 65536 % 128 + 3968 = 2101120
    #   1: 2101120 = 128 * 16415:   x = 16415 << 12 | 0 + 3968 = 67239808
    # and 62 zeros, each x = x / 3968 << 12 | x % 3968, without reaching 3968 << 20.
    x = 67_239_808
    for _ in range(62):
        assert x < 3968 << 20
        x = (x // 3968 << 12) + x % 3968
    stream = bytes([0]) + x.to_bytes(4, "little")
    # Table: symbols 0 to 1, P = 12. Orders 6 and 11 need 26 bits, fewer than the others; with
    # order 6, 3968 is q = 63 (five zeros, 111111) and low bits 0, 128 is q = 3 (0, 11) and 0.
    bits = "00000" + "111111" + "000000" + "0" + "11" + "000000"
    bits += "0" * (-len(bits) % 8)
    table = bytes([0, 1, 11 << 4 | 6]) + int(bits, 2).to_bytes(len(bits) // 8, "big")
    check = (xxhash.xxh3_64_intdigest(stream) & 0xFFFFFFFF).to_bytes(4, "little")
    record = bytes([2]) + check + bytes([2, 0]) + bytes([0, 0]) + bytes([5, 0, 0, 0])
    data = bytes(62) + bytes([1, 1])
    for backend in BACKENDS:
        head, coded = planes.encode(data, 1, BYTE_PLANES, backend=backend)
        assert bytes(coded) == stream
        assert head == bytes([16, 1]) + table + bytes([0]) + record


@pytest.mark.parametrize("kind", ["normal", "sparse", "scales", "constant", "bf16", "bits"])
@pytest.mark.parametrize(("layout", "width"), SHAPES)
def test_backends_equal_the_reference(layout, width, kind):
    data = array(9001, layout, width, kind)
    for mode in ("fast", "tight", "small", "segments", "stored"):
        want = round_trip(data, width, layout, mode, 12, "ref")
        for backend in BACKENDS[1:]:
            assert round_trip(data, width, layout, mode, 12, backend) == want


@pytest.mark.parametrize("n", SIZES)
@pytest.mark.parametrize(("layout", "width"), [(FLOAT, 2), (FLOAT, 4), (NIBBLES, 1)])
def test_sizes(layout, width, n):
    data = array(n, layout, width, "normal")
    for mode, chunk_log2 in (("tight", 16), ("fast", 16), ("segments", 16), ("tight", 6)):
        if chunk_log2 == 6 and n > 10_000:
            continue  # the reference takes long for very many chunks
        want = round_trip(data, width, layout, mode, chunk_log2, "ref")
        for backend in BACKENDS[1:]:
            assert round_trip(data, width, layout, mode, chunk_log2, backend) == want


@settings(max_examples=60, deadline=None)
@given(
    shape=st.sampled_from(SHAPES),
    n=st.integers(0, 2000),
    kind=st.sampled_from(["normal", "sparse", "scales", "bits"]),
    mode=st.sampled_from(["fast", "tight", "small", "segments"]),
    chunk_log2=st.integers(6, 13),
    seed=st.integers(0, 1 << 30),
)
def test_any_array(shape, n, kind, mode, chunk_log2, seed):
    layout, width = shape
    data = array(n, layout, width, kind, seed)
    want = round_trip(data, width, layout, mode, chunk_log2, "ref")
    for backend in BACKENDS[1:]:
        assert round_trip(data, width, layout, mode, chunk_log2, backend) == want


@settings(max_examples=60, deadline=None)
@given(data=st.binary(max_size=3000), layout_width=st.sampled_from(SHAPES))
def test_any_bytes(data, layout_width):
    layout, width = layout_width
    data = data[: len(data) // width * width]
    want = round_trip(data, width, layout, backend="ref")
    for backend in BACKENDS[1:]:
        assert round_trip(data, width, layout, backend=backend) == want


@pytest.mark.parametrize("kind", ["normal", "sparse", "scales", "bf16", "bits"])
@pytest.mark.parametrize(("layout", "width"), SHAPES)
def test_small_is_never_larger_than_tight(layout, width, kind):
    data = array(30_000, layout, width, kind)
    sizes = []
    for mode in ("tight", "small"):
        head, coded = round_trip(data, width, layout, mode, 13)
        sizes.append(len(head) + len(coded))
    assert sizes[1] <= sizes[0]


def test_small_uses_contexts():
    rng = np.random.default_rng(SEED)
    walk = (np.cumsum(rng.integers(-2, 3, 20_000)) % 12).astype(np.uint8).tobytes()
    sizes = {mode: len(round_trip(walk, 1, BYTE_PLANES, mode)[1]) for mode in ("tight", "small")}
    assert sizes["small"] < 0.9 * sizes["tight"]


@settings(max_examples=8, deadline=None)
@given(
    shape=st.sampled_from([(FLOAT, 2), (NIBBLES, 1), (BYTE_PLANES, 1), (BYTE_PLANES, 2)]),
    n=st.integers((1 << 18) - 5, 4 << 18),
    kind=st.sampled_from(["normal", "sparse", "scales", "constant"]),
    chunk_log2=st.integers(13, 16),
    threads=st.integers(1, 3),
)
def test_several_segments(shape, n, kind, chunk_log2, threads):
    layout, width = shape
    data = array(n, layout, width, kind)
    options = {"mode": "segments", "chunk_log2": chunk_log2}
    want = round_trip(data, width, layout, **options, backend="ref")
    assert want[0][1] == -(-n >> 18)
    assert round_trip(data, width, layout, **options, threads=threads) == want


def test_segments_by_hand():
    # 2**18 + 1 elements in chunks of 2**16: 5 chunks, 2 segments of 3 and 2 chunks. Exponents of
    # the first segment are 100 where they are sampled and 90 elsewhere, those of the second 130.
    exponents = np.full((1 << 18) + 1, 90, np.uint16)
    exponents[np.arange(len(exponents)) % 4096 < 64] = 100
    exponents[3 << 16 :] = 130
    exponents[-5:] = 120
    data = (exponents << 7).tobytes()
    for backend in BACKENDS:
        head, coded = planes.encode(data, 2, FLOAT, "segments", backend=backend)
        tables, _, records = planes_head_ref.parse(head, len(coded), len(exponents), 2, FLOAT)
        # 90 is 10 below 100, its nibble 10; 120 is 10 below 130. Of an odd chunk the last pair
        # has the nibble 0 beside that of its only exponent.
        counts = [{0xAA: 3 * 63 * 512, 0x00: 3 * 512}, {0x00: 32768 - 2, 0xAA: 2, 0x0A: 1}]
        for table, count in zip(tables, counts, strict=True):
            given = [count.get(s, 0) for s in range(256)]
            assert np.array_equal(table.freqs, normalise(given, 12))
        forms = [[plane.mode for plane in record.planes] for record in records]
        assert forms == [[3, 1]] * 4 + [[]]


@pytest.mark.skipif(len(BACKENDS) < 2, reason="the reference takes long for large arrays")
def test_arrays_that_are_written_past_the_caches():
    n = (5 << 20) + 12_345  # 10 MiB of bf16
    data = array(n, FLOAT, 2, "scales")
    for mode in ("fast", "tight"):
        want = planes.encode(data, 2, FLOAT, mode, backend=BACKENDS[1])
        for backend in BACKENDS[1:]:
            for offset, threads in ((0, 1), (1, 2), (16, 1)):
                room = memoryview(bytearray(len(data) + offset))[offset:]
                made = planes.encode(
                    data, 2, FLOAT, mode, out=room, threads=threads, backend=backend
                )
                assert made == want


def test_threads_do_not_change_a_byte():
    data = array(300_000, FLOAT, 2, "scales")
    want = round_trip(data, 2, FLOAT, chunk_log2=12)
    for threads in (2, 3, None):
        assert round_trip(data, 2, FLOAT, chunk_log2=12, threads=threads) == want


def test_many_scales_use_up_the_tables_and_still_decode():
    rng = np.random.default_rng(SEED)
    scale = np.exp(rng.standard_normal(200) * 3).repeat(4096)
    x = rng.standard_normal(200 * 4096) * np.where(rng.random(200 * 4096) < 0.5, scale, 1)
    data = (x.astype(np.float32).view(np.uint32) >> 16).astype(np.uint16).tobytes()
    head, _ = round_trip(data, 2, FLOAT, chunk_log2=12)
    assert head[1] <= 64


RANGES = [(0, 0), (0, 1), (0, 1024), (1023, 1025), (1, 9999), (3072, 7168), (5000, 5003)]
RANGES += [(9999, 10_000), (10_000, 10_000), (0, 10_000)]


@pytest.mark.parametrize(("layout", "width"), [(FLOAT, 2), (NIBBLES, 1), (BYTE_PLANES, 3)])
def test_a_range_of_elements(layout, width):
    data = array(10_000, layout, width, "normal")
    head, coded = planes.encode(data, width, layout, chunk_log2=10)
    for backend in BACKENDS:
        decoder = planes.Decoder(head, coded, 10_000, width, layout, backend=backend)
        assert (decoder.chunk_elements, decoder.chunks) == (1024, 10)
        for first, last in RANGES:
            for threads in (1, 3):
                out = bytearray((last - first) * width)
                decoder.decode(out, (first, last), threads=threads)
                assert out == data[first * width : last * width]
        for wrong in ((-1, 3), (5, 4), (0, 10_001)):
            with pytest.raises(ValueError, match="expected a range of 0 to 10000"):
                decoder.decode(bytearray(), wrong)


def test_a_range_meets_only_its_own_chunks():
    data = array(4096, FLOAT, 2, "normal")
    head, coded = planes.encode(data, 2, FLOAT, chunk_log2=10)
    broken = bytearray(coded)
    broken[0] ^= 1
    for backend in BACKENDS:
        decoder = planes.Decoder(head, broken, 4096, 2, FLOAT, backend=backend)
        out = bytearray(2 * 3072)
        decoder.decode(out, (1024, 4096))
        assert out == data[2048:]
        with pytest.raises(BitstreamError, match="checksum"):
            decoder.decode(bytearray(4), (1023, 1025))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: planes.encode(b"abc", 2, FLOAT), "no multiple"),
        (lambda: planes.encode(b"abc", 3, FLOAT), "does not take elements of 3 bytes"),
        (lambda: planes.encode(b"", 1, mode="best"), "mode is 'best'"),
        (lambda: planes.encode(b"", 1, chunk_log2=17), "chunk_log2 is 17"),
        (lambda: planes.encode(b"abcd", 1, out=bytearray(3)), "out has 3 bytes"),
        (lambda: planes.encode(b"", 1, threads=0), "threads is 0"),
        (lambda: planes.encode(b"", 1, backend="gpu"), "backend is 'gpu'"),
    ],
)
def test_wrong_arguments(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_tables_survive_packing():
    rng = np.random.default_rng(SEED)
    for present in (2, 3, 17, 200, 256):
        freqs = np.zeros(256, np.int64)
        freqs[rng.choice(256, present, replace=False)] = 1
        while freqs.sum() < 4096:
            s = rng.choice(np.flatnonzero(freqs))
            freqs[s] += min(4096 - freqs.sum(), rng.integers(1, 300))
        if freqs.max() < 4096:
            data = b"x" + pack_table(Table(freqs, 12))
            table, end = unpack_table(data, 1)
            assert end == len(data)
            assert np.array_equal(table.freqs, freqs)


def decode_all(head, coded, n, width, layout):
    """The same outcome from every backend: bytes, or None for BitstreamError."""
    outcomes = []
    for backend in BACKENDS:
        out = bytearray(n * width)
        try:
            planes.Decoder(head, coded, n, width, layout, backend=backend).decode(out)
            outcomes.append(bytes(out))
        except BitstreamError:
            outcomes.append(None)
    assert all(outcome == outcomes[0] for outcome in outcomes)
    return outcomes[0]


def sealed(head, coded, width, layout, n):
    """The head with right checksums, so that damage behind them is met."""
    try:
        *_, records = planes_head_ref.parse(head, len(coded), n, width, layout)
    except BitstreamError:
        return head
    for record in records:
        if record.form != planes_head_ref.FORM_CONST:
            old = record.checksum.to_bytes(4, "little")
            new = planes_ref.checksum(coded[record.start : record.start + record.size])
            head = head.replace(old, new.to_bytes(4, "little"), 1)
    return head


@pytest.mark.parametrize(
    ("layout", "width", "mode"),
    [
        (FLOAT, 2, "tight"),
        (FLOAT, 2, "fast"),
        (FLOAT, 2, "small"),
        (FLOAT, 4, "tight"),
        (NIBBLES, 1, "tight"),
        (NIBBLES, 1, "small"),
        (BYTE_PLANES, 2, "small"),
    ],
)
def test_damage_is_found_by_every_backend(layout, width, mode):
    rng = np.random.default_rng(SEED)
    n = 700
    head, coded = planes.encode(
        array(n, layout, width, "sparse"), width, layout, mode, chunk_log2=9
    )
    coded = bytes(coded)
    for cut in range(0, len(head)):
        assert decode_all(head[:cut], coded, n, width, layout) is None
    for _ in range(60):
        at = rng.integers(len(coded))
        broken = bytearray(coded)
        broken[at] ^= 1 << rng.integers(8)
        assert decode_all(head, bytes(broken), n, width, layout) is None
        decode_all(sealed(head, bytes(broken), width, layout, n), bytes(broken), n, width, layout)
    for _ in range(200):
        broken = bytearray(head)
        broken[rng.integers(len(head))] = rng.integers(256)
        decode_all(sealed(bytes(broken), coded, width, layout, n), coded, n, width, layout)


@pytest.mark.parametrize(("layout", "width"), [(BYTE_PLANES, 1), (FLOAT, 2), (FLOAT, 4)])
def test_long_streams_of_few_words_beside_a_shorter_one(layout, width):
    # The last stream ends with the coded bytes; the one beside it is longer.
    rng = np.random.default_rng(SEED)
    n = 8192 + 5000
    x = np.where(rng.random(n) < 0.05, np.float32(1.5), np.float32(0.5)).view(np.uint32)
    kept = slice(2, 3) if width == 1 else slice(4 - width, 4)  # the byte that differs
    data = x.astype("<u4").view(np.uint8).reshape(n, 4)[:, kept].tobytes()
    want = round_trip(data, width, layout, "tight", 13, "ref")
    for backend in BACKENDS[1:]:
        assert round_trip(data, width, layout, "tight", 13, backend) == want
    head, coded = want
    for _ in range(12):
        broken = bytearray(coded)
        broken[-1 - rng.integers(min(len(coded), 200))] ^= 1 << rng.integers(8)
        decode_all(sealed(head, bytes(broken), width, layout, n), bytes(broken), n, width, layout)


def test_random_heads_raise_or_decode():
    for _ in range(300):
        decode_all(os.urandom(40), os.urandom(64), 100, 1, BYTE_PLANES)
        decode_all(b"\x10\x00" + os.urandom(30), os.urandom(64), 70, 2, FLOAT)
