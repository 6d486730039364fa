"""Coder sessions: any split gives the same stream; what is refused, and how."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from latentpack.entropy.coder import Decoder, Encoder
from latentpack.entropy.tables import TableSet, default_gaussian_scales
from latentpack.kernels import rans
from latentpack.kernels.errors import BitstreamError

TABLES = TableSet.gaussian([0, *default_gaussian_scales()])


def latent(n, seed=0, uncoded=True):
    """Symbols int16 [n] and rows uint8 [n]; row 0 is not coded."""
    rng = np.random.default_rng(seed)
    index = rng.integers(0 if uncoded else 1, len(TABLES), n)
    scales = np.array([0, *default_gaussian_scales()])[index]
    symbols = np.rint(rng.standard_t(3, n) * scales).clip(-32768, 32767)
    return torch.from_numpy(symbols.astype(np.int16)), torch.from_numpy(index.astype(np.uint8))


def encode(symbols, index, **options):
    encoder = Encoder(TABLES, **options)
    encoder.put(symbols, index)
    return encoder.finish()


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**32 - 1), st.sampled_from(rans.backends()[-3:]), st.integers(0, 1200))
def test_any_split_gives_the_same(seed, backend, n):
    rng = np.random.default_rng(seed)
    symbols, index = latent(n, seed)
    data = encode(symbols, index, backend=backend)
    encoder = Encoder(TABLES, backend=backend)
    cuts = sorted(rng.integers(0, n + 1, 4).tolist())
    for s, i in zip(np.split(symbols, cuts), np.split(index, cuts), strict=True):
        encoder.put(s, i)
    assert encoder.finish() == data == rans.encode(TABLES, symbols.numpy(), index.numpy())
    decoder = Decoder(TABLES, data, backend=backend)
    cuts = sorted(rng.integers(0, n + 1, 6).tolist())
    parts = [decoder.get(part) for part in np.split(index, cuts)]
    decoder.finish()
    assert torch.equal(torch.cat(parts), symbols)


def test_symbol_by_symbol():
    symbols, index = latent(200)
    decoder = Decoder(TABLES, encode(symbols, index, lanes=8))
    assert [int(decoder.get(index[k : k + 1])) for k in range(200)] == symbols.tolist()
    decoder.finish()


def test_nothing():
    assert Encoder(TABLES).finish() == b""
    assert encode(*latent(0)) == b""
    decoder = Decoder(TABLES, b"")
    assert decoder.get(torch.zeros(3, dtype=torch.uint8)).tolist() == [0, 0, 0]
    assert decoder.get(torch.zeros(0, dtype=torch.uint8)).shape == (0,)
    decoder.finish()


def test_shapes_and_kinds():
    """Tensors, arrays, views: what counts is the order of a contiguous copy."""
    symbols, index = (t.reshape(4, 5, 6) for t in latent(120))
    data = encode(symbols, index)
    assert encode(symbols.numpy(), index.numpy()) == data
    turned = symbols.permute(2, 0, 1), index.permute(2, 0, 1)
    assert encode(*turned) == encode(*(t.contiguous() for t in turned)) != data
    got = Decoder(TABLES, data).get(index)
    assert got.dtype == torch.int16 and got.shape == (4, 5, 6) and torch.equal(got, symbols)
    decoder = Decoder(TABLES, encode(*turned))
    assert torch.equal(decoder.get(turned[1]), turned[0])
    decoder.finish()
    one = encode(symbols[0, 0, 0], index[0, 0, 0])
    assert Decoder(TABLES, one).get(index[0, 0, 0]).shape == ()


def test_put_takes_a_copy():
    symbols, index = latent(50)
    data = encode(symbols, index)
    encoder = Encoder(TABLES)
    encoder.put(symbols, index)
    symbols.zero_()
    index.zero_()
    assert encoder.finish() == data


def test_lanes_and_backends():
    symbols, index = latent(3000, uncoded=False)
    for lanes in (1, 4, 32):
        streams = {encode(symbols, index, lanes=lanes, backend=b) for b in rans.backends()}
        (stream,) = streams
        assert 1 << stream[0] == lanes
    with pytest.raises(ValueError, match="lanes is 64"):
        encode(symbols, index, lanes=64)
    with pytest.raises(ValueError, match="backend is 'gpu'"):
        encode(symbols, index, backend="gpu")


@pytest.mark.parametrize(
    "symbols",
    [
        torch.tensor([float("nan")]),
        torch.tensor([1.0], dtype=torch.bfloat16),
        torch.tensor([1]),
        torch.tensor([1], dtype=torch.int32),
        np.array([1.0]),
        [1],
        None,
    ],
)
def test_only_int16(symbols):
    with pytest.raises(ValueError, match=r"symbols is .*, expected int16: round"):
        Encoder(TABLES).put(symbols, torch.zeros(1, dtype=torch.uint8))


def test_wrong_arguments():
    symbols, index = latent(10)
    with pytest.raises(ValueError, match=r"index is torch\.int64, expected uint8"):
        Encoder(TABLES).put(symbols, index.long())
    with pytest.raises(ValueError, match="they must agree"):
        Encoder(TABLES).put(symbols, index[:5])
    with pytest.raises(ValueError, match="index 65 is outside the 65 rows"):
        Encoder(TABLES).put(symbols, torch.full_like(index, 65))
    with pytest.raises(ValueError, match="not coded"):
        encode(torch.ones_like(symbols), torch.zeros_like(index))
    with pytest.raises(ValueError, match="on meta"):
        Encoder(TABLES).put(symbols.to("meta"), index)
    with pytest.raises(ValueError, match="index 200 is outside"):
        Decoder(TABLES, encode(symbols, index)).get(torch.full_like(index, 200))


def test_finished_sessions():
    symbols, index = latent(10)
    encoder = Encoder(TABLES)
    encoder.finish()
    with pytest.raises(RuntimeError, match="new Encoder"):
        encoder.put(symbols, index)
    with pytest.raises(RuntimeError, match="new Encoder"):
        encoder.finish()


def test_streams_must_end_where_the_symbols_do():
    symbols, index = latent(100, uncoded=False)
    data = encode(symbols, index)
    early = Decoder(TABLES, data)
    early.get(index[:99])
    with pytest.raises(BitstreamError, match="does not end cleanly"):
        early.finish()
    late = Decoder(TABLES, data)
    late.get(index)
    with pytest.raises(BitstreamError, match="ends too early"):
        late.get(index)
    other = TableSet.gaussian([0, *default_gaussian_scales() * 1.01])
    with pytest.raises(BitstreamError):
        wrong = Decoder(other, data)
        wrong.get(index)
        wrong.finish()
