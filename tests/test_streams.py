"""Batches of streams: on the CPU and on a device the bytes of a session for each."""

import numpy as np
import pytest
import torch

from latentpack.entropy import streams
from latentpack.entropy.coder import Encoder
from latentpack.entropy.tables import TableSet, default_gaussian_scales
from latentpack.kernels import cuda, rans
from latentpack.kernels.errors import BitstreamError
from latentpack.tests import cuda_on_cpu

TABLES = TableSet.gaussian([0, *default_gaussian_scales()])


@pytest.fixture(params=[*rans.backends(), "cuda"])
def backend(request, monkeypatch):
    """Every backend; the device's runs on the CPU."""
    if request.param == "cuda":
        monkeypatch.setattr(cuda, "load", lambda name, device: cuda_on_cpu.load(name))
    return request.param


def batch(sizes, seed=0):
    rng = np.random.default_rng(seed)
    index = [rng.integers(0, 65, n).astype(np.uint8) for n in sizes]
    symbols = [(rng.normal(size=len(i)) * i / 9).astype(np.int16) for i in index]
    return [[torch.from_numpy(a) for a in arrays] for arrays in (symbols, index)]


def session(symbols, index):
    encoder = Encoder(TABLES)
    encoder.put(symbols, index)
    return encoder.finish()


def test_each_is_a_stream_of_its_own(backend):
    symbols, index = batch([400, 0, 1, 77])
    symbols[0], index[0] = symbols[0].view(20, 20).T, index[0].view(20, 20).T
    want = [session(*pair) for pair in zip(symbols, index, strict=True)]
    coded = streams.encode_streams(TABLES, symbols, index, backend=backend)
    assert coded.to_bytes() == want
    for given in (coded, want):
        got = streams.decode_streams(TABLES, given, index, backend=backend)
        assert all(torch.equal(a, b) for a, b in zip(got, symbols, strict=True))
    damaged = [*want[:3], want[3][:-2]]
    with pytest.raises(BitstreamError):
        streams.decode_streams(TABLES, damaged, index, backend=backend)


def test_nothing(backend):
    none = torch.zeros(0, 5, dtype=torch.int16)
    coded = streams.encode_streams(TABLES, none, none.to(torch.uint8), backend=backend)
    assert coded.to_bytes() == []
    assert streams.decode_streams(TABLES, coded, none.to(torch.uint8), backend=backend) == []


def test_threads(monkeypatch):
    """Streams that are shared among threads."""
    monkeypatch.setattr(streams, "_WORTH_A_THREAD", 1000)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 3)
    symbols, index = (torch.stack(part) for part in batch([5000] * 7))
    coded = streams.encode_streams(TABLES, symbols, index)
    assert coded.to_bytes() == [session(*pair) for pair in zip(symbols, index, strict=True)]
    got = streams.decode_streams(TABLES, coded, index)
    assert torch.equal(torch.stack(got), symbols)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_latents(backend, dtype):
    rng = np.random.default_rng(2)
    levels = default_gaussian_scales()
    boundaries = np.array([0.1, *np.sqrt(levels[1:] * levels[:-1])], np.float32)
    scales = torch.from_numpy(np.exp(rng.normal(-1, 1.5, (3, 10, 20)))).to(dtype)
    means = torch.from_numpy(rng.normal(0, 3, (3, 10, 20))).to(dtype)
    y = means + torch.from_numpy(rng.normal(size=(3, 10, 20))).to(dtype) * scales
    limits = torch.from_numpy(boundaries)
    rows = torch.bucketize(scales.float(), limits).to(torch.uint8)
    q = (y.float() - means.float()).round().masked_fill(rows == 0, 0)
    want = [session(*pair) for pair in zip(q.to(torch.int16), rows, strict=True)]
    for index, more in ((rows, {}), (scales, {"boundaries": limits})):
        coded, y_hat = streams.encode_latents(TABLES, y, index, means, **more, backend=backend)
        assert coded.to_bytes() == want
        assert y_hat.dtype == torch.float32 and torch.equal(y_hat, q + means.float())
    back, status = streams.decode_latents(TABLES, coded, rows, means.float(), backend=backend)
    streams.check(status)
    assert torch.equal(back, y_hat)
    y[1, 3, 4] = float("nan")
    with pytest.raises(ValueError, match="is NaN"):
        streams.encode_latents(TABLES, y, rows, means, backend=backend)[0].to_bytes()


def test_wrong_arguments():
    symbols, index = batch([4, 5])
    with pytest.raises(ValueError, match="expected as many"):
        streams.encode_streams(TABLES, symbols, index[:1])
    with pytest.raises(ValueError, match="1 indices for 2 streams"):
        streams.decode_streams(TABLES, [b"", b""], index[:1])
    with pytest.raises(ValueError, match=r"means is \[3\], expected \[2, 3\]"):
        rows = torch.zeros(2, 3, dtype=torch.uint8)
        streams.encode_latents(TABLES, torch.zeros(2, 3), rows, torch.zeros(3))
