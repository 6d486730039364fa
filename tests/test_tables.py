"""Frozen tables: normalisation, bytes, Gaussian rows, and the price of symbols in them."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from latentpack.entropy.tables import TableSet, default_gaussian_scales
from latentpack.kernels import rans, rans_ref
from latentpack.kernels.errors import BitstreamError

quick = settings(max_examples=100, deadline=None)


@pytest.mark.parametrize(
    ("counts", "precision", "freqs"),
    [
        ([1, 1, 14], 3, [1, 1, 6]),
        ([5, 0, 3], 3, [5, 0, 3]),
        ([1, 1, 1], 2, [2, 1, 1]),  # a tie: the lowest symbol gets the rest
        ([10**6, 1, 1, 1], 2, [1, 1, 1, 1]),
        ([0, 7, 0], 4, [2, 14, 0]),  # a lone symbol never gets everything
        ([7, 0], 1, [1, 1]),
        ([2**32 - 1, 1], 16, [65535, 1]),
    ],
)
def test_normalise_by_hand(counts, precision, freqs):
    assert rans_ref.normalise(counts, precision).tolist() == freqs
    assert rans.normalise(counts, precision).tolist() == freqs


@quick
@given(
    st.lists(st.integers(0, 60) | st.integers(0, 2**32 - 1), min_size=2, max_size=300),
    st.integers(1, 16),
)
def test_normalise_compiled_equals_reference(counts, precision):
    present = sum(c > 0 for c in counts)
    if not 0 < present <= 1 << precision:
        for normalise in (rans.normalise, rans_ref.normalise):
            with pytest.raises(ValueError, match=r"precision|not all zero"):
                normalise(counts, precision)
        return
    freqs = rans_ref.normalise(counts, precision)
    assert np.array_equal(rans.normalise(counts, precision), freqs)
    assert freqs.sum(dtype=np.int64) == 1 << precision
    assert present == 1 or np.array_equal(freqs > 0, np.array(counts) > 0)


@quick
@given(st.lists(st.integers(1, 200), min_size=2, max_size=4), st.integers(2, 5))
def test_normalise_is_optimal(counts, precision):
    def cost(freqs):
        return -sum(c * math.log2(f) for c, f in zip(counts, freqs, strict=True))

    total, k = 1 << precision, len(counts)
    splits = itertools.combinations(range(1, total), k - 1)
    best = min(cost(np.diff([0, *cuts, total])) for cuts in splits)
    assert cost(rans_ref.normalise(counts, precision)) == pytest.approx(best, rel=1e-6, abs=1e-6)


@pytest.mark.parametrize("counts", [[], [3], [0, 0], [1, -1], [1, 2**32], [[1, 2], [3, 4]]])
def test_normalise_refuses(counts):
    for normalise in (rans.normalise, rans_ref.normalise):
        with pytest.raises(ValueError, match="counts: expected"):
            normalise(counts, 12)
    with pytest.raises(ValueError, match="precision is 17"):
        rans.normalise([1, 1], 17)


def test_log2_table():
    log = rans_ref.log2_table(1 << 16)
    exact = np.log2(np.arange(1, 1 << 16)) * 2**28
    assert np.all(np.abs(log[1:] - exact) < 2)
    assert log[[0, 1, 2, 4, 32768]].tolist() == [0, 0, 1 << 28, 2 << 28, 15 << 28]


def small():
    return TableSet(3, [-1, 0, 5], [4, 0, 2], [1, 5, 1, 1, 7, 1])


def test_bytes_by_hand():
    data = bytes.fromhex("03 0300  ffff0400 00000000 05000200  0100 0500 0100 0100 0700 0100")
    assert small().to_bytes() == data
    back = TableSet.from_bytes(data)
    assert back.precision == 3 and back.offsets.tolist() == [-1, 0, 5]
    assert back.lengths.tolist() == [4, 0, 2] and back.freqs.tolist() == [1, 5, 1, 1, 7, 1]
    assert back.row(0).tolist() == [1, 5, 1, 1] and back.row(2).tolist() == [7, 1]
    assert back.digest == small().digest and len(back.digest) == 8


def test_damaged_bytes():
    data = small().to_bytes()
    for cut in range(len(data)):
        with pytest.raises(BitstreamError, match="not a table set"):
            TableSet.from_bytes(data[:cut])
    for at, bit in itertools.product(range(len(data)), range(8)):
        changed = bytearray(data)
        changed[at] ^= 1 << bit
        try:
            tables = TableSet.from_bytes(bytes(changed))
        except BitstreamError:
            continue
        # What gets through is another set of tables, and has another name.
        assert tables.to_bytes() == changed and tables.digest != small().digest
    with pytest.raises(BitstreamError):
        TableSet.from_bytes(data + b"\0")
    with pytest.raises(BitstreamError):
        TableSet.from_bytes(b"\x0c\xff\xff")  # 65535 rows announced, none there


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ((0, [0], [2], [1, 1]), "precision is 0"),
        ((17, [0], [2], [1, 1]), "precision is 17"),
        ((1, [], [], []), "0 offsets"),
        ((1, [0] * 257, [2] * 257, [1, 1] * 257), "257 offsets"),
        ((1, [0, 0], [2], [1, 1]), "2 offsets and 1 lengths"),
        ((1, [0], [1], [2]), "a row has 1 entry"),
        ((1, [0], [-1], []), "a row has"),
        ((1, [0], [2], [1, 1, 1]), "3 freqs"),
        ((1, [0], [2], [2, 0]), "has a zero"),
        ((2, [0], [2], [1, 1]), "does not add to"),
        ((1, [-32769], [2], [1, 1]), "outside int16"),
        ((1, [32768], [2], [1, 1]), "outside int16"),
        ((1, [0.5], [2], [1, 1]), "outside int32"),
        ((1, [0], [2], [65537, 1]), "outside uint16"),
    ],
)
def test_tables_are_checked(fields, message):
    with pytest.raises(ValueError, match=message):
        TableSet(*fields)


def test_tables_are_frozen():
    with pytest.raises(ValueError, match="read-only"):
        small().freqs[0] = 2


def test_default_gaussian():
    scales = default_gaussian_scales()
    assert (
        len(scales) == 64 and scales[0] == pytest.approx(0.11) and scales[-1] == pytest.approx(32)
    )
    tables = TableSet.gaussian(scales)
    assert len(tables) == 64 and tables.precision == 12
    for r, scale in enumerate(scales):
        row = tables.row(r).astype(int)
        half = -tables.offsets[r]
        assert len(row) == 2 * half + 2 and np.all(row[: 2 * half + 1] <= row[half])
        # Symmetric, but for what makes the sum 2^12.
        assert np.abs(row[:half] - row[half + 1 : -1][::-1]).max(initial=0) <= 1
        assert math.erfc((half + 0.5) / scale / 2**0.5) <= 2**-12
    # The fast paths of the coder need all values within 255 of each other.
    assert tables.lengths.max() <= 256


def test_gaussian_rows():
    tables = TableSet.gaussian([0, 0.5, 0], precision=16, tail_mass=0.1)
    assert tables.lengths.tolist() == [0, 4, 0]
    p = [math.erf(k / 0.5 / 2**0.5) for k in (0.5, 1.5)]
    expected = np.array([(p[1] - p[0]) / 2, p[0], (p[1] - p[0]) / 2, 1 - p[1]]) * 65536
    assert np.abs(tables.row(1) - expected).max() <= 1
    for scale in (-1, math.nan, math.inf):
        with pytest.raises(ValueError, match="scale is"):
            TableSet.gaussian([scale])


def test_from_pmfs():
    tables = TableSet.from_pmfs([[0.5, 0.25, 0.25], [], [3, 1]], [7, 0, -2], precision=4)
    assert tables.row(0).tolist() == [8, 4, 4] and tables.row(2).tolist() == [12, 4]
    assert tables.offsets.tolist() == [7, 0, -2] and tables.lengths.tolist() == [3, 0, 2]
    assert TableSet.from_pmfs([[1, 0, 0]], [0], precision=4).row(0).tolist() == [14, 1, 1]
    for pmf in ([0.5, -0.1], [math.nan, 1], [math.inf, 1], [0, 0]):
        with pytest.raises(ValueError, match="a pmf has"):
            TableSet.from_pmfs([pmf], [0])
    with pytest.raises(ValueError, match="do not fit"):
        TableSet.from_pmfs([np.ones(9)], [0], precision=3)


def test_concatenate():
    both = TableSet.concatenate([small(), TableSet.gaussian([0.5], precision=3)])
    assert len(both) == 4 and both.to_bytes()[3:15] == small().to_bytes()[3:15]
    with pytest.raises(ValueError, match=r"precisions \[3, 12\]"):
        TableSet.concatenate([small(), TableSet.gaussian([1.0])])


def test_cost_by_hand():
    tables = small()  # row 0: -1, 0, 1 at 1/8, 5/8, 1/8 and escape 1/8; row 2: 5 at 7/8

    def cost(symbol, row):
        return tables.cost_bits(np.array([symbol], np.int16), np.array([row], np.uint8))

    assert cost(-1, 0) == 3
    assert cost(0, 0) == pytest.approx(3 - math.log2(5))
    assert cost(0, 1) == 0
    assert cost(5, 2) == pytest.approx(3 - math.log2(7))
    assert cost(2, 0) == 3 + 5  # e = 0: the 5 bits of nb = 0
    assert cost(-2, 0) == 3 + 5  # e = 1: nb = 1, no more bits
    assert cost(4, 0) == 3 + 5 + 2  # e = 4: nb = 3
    assert cost(32767, 0) == 3 + 5 + 15 and cost(-32768, 0) == 3 + 5 + 15
    assert tables.cost_bits(np.zeros(0, np.int16), np.zeros(0, np.uint8)) == 0
    with pytest.raises(ValueError, match="index 3 is outside"):
        cost(0, 3)


@pytest.mark.parametrize("precision", [8, 12, 16])
@pytest.mark.parametrize("escapes", [0, 0.05])
def test_estimated_and_real_bytes_agree(precision, escapes):
    """Within 1 % above 10 kB, whatever the tables."""
    rng = np.random.default_rng(precision)
    scales = default_gaussian_scales()[:40]
    tables = TableSet.gaussian(scales, precision=precision, tail_mass=2.0**-7)
    index = rng.integers(0, len(scales), 60_000).astype(np.uint8)
    symbols = np.rint(rng.normal(size=len(index)) * scales[index]).astype(np.int16)
    wild = rng.random(len(index)) < escapes
    symbols[wild] = rng.integers(-32768, 32768, wild.sum())
    estimate = tables.cost_bits(symbols, index) / 8
    data = rans.encode(tables, symbols, index)
    assert estimate > 10_000
    assert estimate <= len(data) <= 1.01 * estimate


def test_rows_of_bits():
    tables = TableSet.binary([0.0, 0.25, 1.0], precision=8)
    assert tables.freqs.reshape(3, 3).tolist() == [[254, 1, 1], [191, 64, 1], [1, 254, 1]]
    assert tables.offsets.tolist() == [0, 0, 0]
    for wrong in ([1.5], [-0.1], [math.nan]):
        with pytest.raises(ValueError, match="not in"):
            TableSet.binary(wrong)
