"""The rANS core: the definition against hand-worked streams, every backend against it."""

import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from latentpack.kernels import rans, rans_ref
from latentpack.kernels.errors import BitstreamError
from latentpack.kernels.rans_ref import LOWER, Tables

GOLDEN = Path(__file__).parent / "golden" / "rans"
COMPILED = [backend for backend in rans.backends() if backend != "ref"]
SIZES = [0, 1, 2, 7, 8, 9, 15, 16, 17, 31, 32, 33, 127, 509, 1021]
LANES = [None, 1, 2, 4, 8, 16, 32]
seeds = st.integers(0, 2**32 - 1)
quick = settings(max_examples=60, deadline=None)


def random_tables(rng, precision, narrow=True, uncoded=False):
    """Some rows of every length; narrow ones lie close together, others anywhere in int16."""
    rows, offsets = [], []
    longest = min(1 << precision, 255 if narrow else 600)
    for _ in range(int(rng.integers(1, 12))):
        length = int(rng.integers(2, longest + 1))
        if uncoded and rng.random() < 0.3:
            length = 0
        low = -120 if narrow else int(rng.integers(-32768, 32767 - length))
        offsets.append(low + int(rng.integers(0, 255 - length + 1)) if narrow and length else low)
        counts = rng.geometric(0.02, max(length, 2)) ** int(rng.integers(1, 4))
        rows.append(rans_ref.normalise(counts, precision) if length else np.zeros(0, np.uint16))
    return Tables(precision, offsets, [len(row) for row in rows], np.concatenate(rows))


def random_symbols(rng, tables, n, escapes=0.02):
    """Symbols drawn from the tables, some of them replaced by any int16."""
    index = rng.integers(0, len(tables), n).astype(np.uint8)
    symbols = np.zeros(n, np.int16)
    for r in range(len(tables)):
        here = index == r
        if tables.lengths[r]:
            p = tables.row(r) / (1 << tables.precision)
            drawn = rng.choice(len(p), here.sum(), p=p) + tables.offsets[r]
            symbols[here] = np.clip(drawn, -32768, 32767)
    wild = (rng.random(n) < escapes) & (tables.lengths[index] > 0)
    symbols[wild] = rng.integers(-32768, 32768, wild.sum())
    return symbols, index


def decoded(tables, data, index, backend, splits=()):
    decoder = rans.Decoder(tables, data, backend=backend)
    parts = [decoder.get(part) for part in np.split(index, sorted(splits))]
    decoder.finish()
    return np.concatenate(parts)


HAND = [
    # x = 2^16; entry 1 (freq 1, cum 2): 2^18 + 2; entry 0 (freq 2, cum 0): 131073 << 2.
    ([0, 1], "00 04000800"),
    # e = 2 * (5 - 1 - 1) = 6, nb = 3: raw 2 in 2 bits, raw 3 in 5 bits, then the escape.
    ([5], "00 0f010002"),
    # e = 65530, nb = 16: 15 raw bits fill the state, so nb pushes out the word 0x7ffa.
    ([32767], "00 43004000 fa7f"),
    # e = 2 * (0 - 1 + 1) + 1 = 1: nb = 1 and no more bits.
    ([-1], "00 07008000"),
    # e = 0: nb = 0.
    ([2], "00 03008000"),
]


@pytest.mark.parametrize("backend", rans.backends())
@pytest.mark.parametrize(("symbols", "stream"), HAND)
def test_hand_worked(symbols, stream, backend):
    tables = Tables(2, [0], [3], [2, 1, 1])
    values, index = np.array(symbols, np.int16), np.zeros(len(symbols), np.uint8)
    assert rans.encode(tables, values, index, backend=backend).hex() == stream.replace(" ", "")
    assert decoded(tables, bytes.fromhex(stream), index, backend).tolist() == symbols


@quick
@given(seeds, st.sampled_from(SIZES), st.sampled_from(LANES), st.integers(1, 16), st.booleans())
def test_backends_write_and_read_the_same_bytes(seed, n, lanes, precision, narrow):
    rng = np.random.default_rng(seed)
    tables = random_tables(rng, precision, narrow, uncoded=seed % 3 == 0)
    symbols, index = random_symbols(rng, tables, n)
    data = rans_ref.encode(tables, symbols, index, lanes)
    for backend in rans.backends():
        assert rans.encode(tables, symbols, index, lanes=lanes, backend=backend) == data
        splits = rng.integers(0, n + 1, 3)
        assert np.array_equal(decoded(tables, data, index, backend, splits), symbols)


@pytest.mark.parametrize("backend", COMPILED)
def test_blocks_of_the_compiled_coder(backend):
    """The encoder makes room for blocks of 4096 symbols."""
    rng = np.random.default_rng(1)
    for uncoded in (False, True):
        tables = random_tables(rng, 12, uncoded=uncoded)
        for n in (4095, 4096, 4097, 8191, 12289):
            symbols, index = random_symbols(rng, tables, n)
            for lanes in (1, 16, 32):
                data = rans.encode(tables, symbols, index, lanes=lanes, backend=backend)
                assert data == rans_ref.encode(tables, symbols, index, lanes)
                assert np.array_equal(decoded(tables, data, index, backend), symbols)


@pytest.mark.parametrize("backend", rans.backends())
def test_every_escape(backend):
    """Nothing but escapes, with all lengths of them, and the two ends of int16."""
    tables = Tables(1, [0, -32768, 32767], [2, 2, 2], [1, 1] * 3)
    ends = [2**k + d for k in range(15) for d in (-1, 0, 1)] + [32767, -32768]
    symbols = np.array([*ends, *(-e for e in ends[:-1])], np.int16).repeat(3)
    index = np.tile(np.arange(3, dtype=np.uint8), len(symbols) // 3)
    for lanes in (1, 8, 16, 32):
        data = rans.encode(tables, symbols, index, lanes=lanes, backend=backend)
        assert np.array_equal(decoded(tables, data, index, backend), symbols)


@pytest.mark.parametrize("backend", rans.backends())
def test_rows_that_are_not_coded(backend):
    tables = Tables(4, [0, 0, -3], [0, 2, 3], [12, 4, 10, 4, 2])
    index = np.array([0, 1, 0, 0, 2, 0], np.uint8)
    symbols = np.array([0, 0, 0, 0, -2, 0], np.int16)
    data = rans.encode(tables, symbols, index, backend=backend)
    coded = np.array([1, 4])
    assert data == rans.encode(tables, symbols[coded], index[coded], backend=backend)
    assert np.array_equal(decoded(tables, data, index, backend, [3]), symbols)
    zeros = np.zeros(5, np.uint8)
    assert rans.encode(tables, zeros.astype(np.int16), zeros, backend=backend) == b""
    assert np.array_equal(decoded(tables, b"", zeros, backend), zeros)
    symbols[2] = 1
    with pytest.raises(ValueError, match="not coded"):
        rans.encode(tables, symbols, index, backend=backend)


def test_lanes_follow_the_payload():
    tables = Tables(8, [0], [2], [128, 128])
    for bits, lanes in ((0, 1), (2 * 9599, 1), (2 * 9600, 2), (8 * 9600, 8), (99 * 9600, 32)):
        symbols, index = np.zeros(bits, np.int16), np.zeros(bits, np.uint8)
        assert rans_ref.choose_lanes(tables, symbols, index) == lanes
        for backend in COMPILED:
            data = rans.encode(tables, symbols, index, backend=backend)
            assert bits == 0 or 1 << data[0] == lanes


def outcome(tables, data, index, backend):
    """The symbols, or None for a BitstreamError; anything else is a bug."""
    try:
        return decoded(tables, data, index, backend).tolist()
    except BitstreamError:
        return None


def mutations(rng, data, count):
    """Cuts at every place, flips of bits, changed runs of bytes, and noise."""
    yield from (data[:k] for k in range(0, len(data), max(1, 4 * len(data) // count)))
    for _ in range(count // 2):
        changed = bytearray(data)
        for at in rng.integers(0, len(data), rng.integers(1, 4)):
            changed[at] ^= 1 << rng.integers(0, 8)
        yield bytes(changed)
    for _ in range(count // 8):
        yield bytes(rng.integers(0, 6, 1, np.uint8)) + rng.bytes(int(rng.integers(0, 300)))
        at = int(rng.integers(0, len(data)))
        yield data[:at] + rng.bytes(int(rng.integers(0, 40))) + data[at:]


def fuzz(seed, count, backends):
    rng = np.random.default_rng(seed)
    tables = random_tables(rng, int(rng.integers(1, 17)), seed % 2 == 0, seed % 5 == 0)
    symbols, index = random_symbols(rng, tables, int(rng.integers(100, 900)))
    data = rans.encode(tables, symbols, index, lanes=int(2 ** rng.integers(0, 6)))
    for changed in mutations(rng, data, count) if data else ():
        results = [outcome(tables, changed, index, backend) for backend in backends]
        assert all(result == results[0] for result in results)
        if changed != data and results[0] is not None:
            # Only a stream that really is one gets through: coding it again gives it back.
            again = np.array(results[0], np.int16)
            assert rans.encode(tables, again, index, lanes=1 << changed[0]) == changed


@pytest.mark.parametrize("seed", range(20))
def test_damaged_streams_raise(seed):
    fuzz(seed, 500, COMPILED or ["ref"])


@pytest.mark.parametrize("seed", range(4))
def test_damage_is_the_same_to_the_definition(seed):
    fuzz(seed, 40, rans.backends())


@pytest.mark.parametrize("backend", rans.backends())
def test_damage_one_by_one(backend):
    tables = Tables(2, [0], [3], [2, 1, 1])
    index = np.zeros(1, np.uint8)
    state = LOWER.to_bytes(4, "little")

    def fails(stream, match, rows=index):
        with pytest.raises(BitstreamError, match=match):
            decoded(tables, stream, rows, backend)

    fails(b"\x06", r"log2\(lanes\) is 6")
    fails(b"\x00\x00", "cannot be a stream")
    fails(b"\x00" + state + b"\x01", "cannot be a stream")
    fails(b"\x00" + bytes(4), "expected at least 65536")
    fails(b"", "empty")
    fails(b"\x00" + state, "ends too early")
    fails(b"\x00" + bytes.fromhex("04000800"), "does not end cleanly")
    fails(b"\x00" + bytes.fromhex("04000800 0000"), "words left", np.zeros(2, np.uint8))
    # The escape, then nb = 19 in 5 bits.
    fails(b"\x00" + ((LOWER << 5 | 19) << 2 | 3).to_bytes(4, "little"), "escape")
    # nb = 18 and no further bits: e = 2^17 stands for 65538.
    words = b"\x00" + ((LOWER << 5 | 18) << 2 | 3).to_bytes(4, "little") + bytes(8)
    fails(words, "outside int16")


@pytest.mark.parametrize("backend", rans.backends())
def test_wrong_arguments(backend):
    tables = Tables(2, [0], [3], [2, 1, 1])
    zero = np.zeros(3, np.uint8)
    with pytest.raises(ValueError, match="index 1 is outside the 1 rows"):
        rans.encode(tables, np.zeros(3, np.int16), zero + 1, backend=backend)
    with pytest.raises(ValueError, match="index 9 is outside"):
        rans.Decoder(tables, b"", backend=backend).get(zero + 9)
    with pytest.raises(ValueError, match="2 symbols but 3 indices"):
        rans.encode(tables, np.zeros(2, np.int16), zero, backend=backend)
    with pytest.raises(ValueError, match="symbols is float64, expected int16"):
        rans.encode(tables, np.zeros(3), zero, backend=backend)
    with pytest.raises(ValueError, match="lanes is 3"):
        rans.encode(tables, np.zeros(3, np.int16), zero, lanes=3, backend=backend)
    with pytest.raises(ValueError, match="backend is 'abacus'"):
        rans.encode(tables, np.zeros(3, np.int16), zero, backend="abacus")
    with pytest.raises(ValueError, match="out is int16"):
        out = np.zeros(2, np.int16)
        rans.Decoder(tables, b"", backend=backend).get(zero, out)


@pytest.mark.parametrize("backend", COMPILED)
def test_threads_share_tables(backend):
    """The rows of the decoder are filled on first use, perhaps by several threads at once."""
    rng = np.random.default_rng(5)
    symbols, index = random_symbols(rng, tables := random_tables(rng, 12), 5000)
    data = rans.encode(tables, symbols, index, lanes=32)

    def decode(fresh):
        return np.array_equal(decoded(fresh, data, index, backend), symbols)

    for _ in range(20):
        fresh = Tables(12, tables.offsets, tables.lengths, tables.freqs)
        with ThreadPoolExecutor(4) as pool:
            assert all(pool.map(decode, [fresh] * 8))


def test_without_a_compiler(monkeypatch):
    tables = Tables(2, [0], [3], [2, 1, 1])
    symbols, index = np.array([0, 1, 7], np.int16), np.zeros(3, np.uint8)
    data = rans.encode(tables, symbols, index)
    monkeypatch.setattr("latentpack.kernels._cpp", None, raising=False)
    monkeypatch.setitem(__import__("sys").modules, "latentpack.kernels._cpp", None)
    monkeypatch.delattr("latentpack.kernels._cpp")
    rans._compiled.cache_clear()
    rans.backends.cache_clear()
    try:
        with pytest.warns(RuntimeWarning, match="reinstall latentpack") as caught:
            assert rans.encode(tables, symbols, index) == data
            assert np.array_equal(decoded(tables, data, index, None), symbols)
            assert rans.backends() == ("ref",)
        assert len(caught) == 1
    finally:
        rans._compiled.cache_clear()
        rans.backends.cache_clear()


@pytest.mark.parametrize("path", sorted(GOLDEN.glob("*.json")), ids=lambda path: path.stem)
def test_golden(path):
    golden = json.loads(path.read_text())
    if "counts" in golden:
        for freq in (rans.normalise, rans_ref.normalise):
            assert freq(golden["counts"], golden["precision"]).tolist() == golden["freqs"]
        return
    tables = Tables(*(golden[key] for key in ("precision", "offsets", "lengths", "freqs")))
    symbols, index = np.array(golden["symbols"], np.int16), np.array(golden["index"], np.uint8)
    data = bytes.fromhex(golden["stream"])
    for backend in rans.backends():
        assert rans.encode(tables, symbols, index, lanes=golden["lanes"], backend=backend) == data
        assert np.array_equal(decoded(tables, data, index, backend), symbols)


def test_there_are_golden_files():
    assert len(list(GOLDEN.glob("*.json"))) >= 8


@pytest.mark.parametrize("backend", rans.backends())
@pytest.mark.parametrize("uncoded", [0, 1, 20])
def test_quantise(backend, uncoded):
    """Ties, ends of int16, infinities; rows that are not coded, few or many."""
    rng = np.random.default_rng(uncoded)
    lengths = np.array([0] * uncoded + [2] * 5)
    tables = Tables(1, [0] * len(lengths), lengths, [1, 1] * 5)
    for n in (0, 1, 31, 1023, 1024, 1025, 3001):
        y = rng.normal(0, 10.0 ** rng.integers(-2, 8, n)).astype(np.float32)
        y[::7] = np.rint(y[::7]).clip(-1e4, 1e4) + 0.5
        y[:4] = [np.inf, -np.inf, -0.0, 0.5][:n]
        means = np.where(rng.random(n) < 0.5, 0, rng.normal(size=n)).astype(np.float32)
        index = rng.integers(0, len(lengths), n).astype(np.uint8)
        for mean in (means, None):
            got = rans.quantise(tables, y, mean, index, backend=backend)
            want = rans_ref.quantise(tables, y, mean, index)
            assert all(np.array_equal(a, b) for a, b in zip(got, want, strict=True))
            assert [a.tobytes() for a in got] == [a.tobytes() for a in want]
        if n:
            y[n // 2] = np.nan
            with pytest.raises(ValueError, match="is NaN"):
                rans.quantise(tables, y, None, index, backend=backend)


def test_rows_of():
    rng = np.random.default_rng(1)
    for count in (0, 1, 63, 254, 255):
        limits = np.sort(rng.normal(0, 10.0 ** rng.integers(-30, 30, count)).astype(np.float32))
        limits[: count // 3] = limits[count // 3 : count // 3 + 1]  # many equal
        near = [np.nextafter(limits, np.float32(s)) for s in (-np.inf, np.inf)]
        scales = np.concatenate([limits, *near, rng.normal(size=50), [0, -0.0, np.inf, -np.inf]])
        scales = scales.astype(np.float32)
        assert np.array_equal(rans.rows_of(scales, limits), rans_ref.rows_of(scales, limits))
    zeros = np.float32([-0.0, 0.0])
    assert rans.rows_of(zeros, zeros).tolist() == [0, 0]
    with pytest.raises(ValueError, match="a scale is NaN"):
        rans.rows_of(np.float32([1, np.nan]), zeros)
    with pytest.raises(ValueError, match="256 boundaries, expected at most 255 that ascend"):
        rans.rows_of(zeros, np.zeros(256, np.float32))
    with pytest.raises(ValueError, match="that ascend"):
        rans.rows_of(zeros, np.float32([2, 1]))
