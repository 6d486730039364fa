"""The fused product with a packed matrix, on a CPU that runs the CUDA source, or on a device."""

import numpy as np
import pytest
import torch

from latentpack.kernels import cuda, matvec, planes
from latentpack.kernels.errors import BitstreamError
from latentpack.kernels.planes_cuda import Packed
from latentpack.kernels.planes_head_ref import BYTE_PLANES, FLOAT
from latentpack.tests import cuda_on_cpu

GPU = pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device")


@pytest.fixture(params=["cpu", pytest.param("cuda", marks=[pytest.mark.gpu, GPU])])
def device(request, monkeypatch):
    """A real device, or the CPU in its place."""
    if request.param == "cpu":
        monkeypatch.setattr(cuda, "load", lambda name, device: cuda_on_cpu.load(name))
    return request.param


def randn(*shape, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator).bfloat16()


def pack(weight, device, mode="segments", chunk_log2=12):
    data = weight.contiguous().view(-1).view(torch.uint8).numpy().data
    head, coded = planes.encode(data, 2, FLOAT, mode, chunk_log2=chunk_log2)
    return Packed.from_host(head, coded, weight.numel(), 2, FLOAT, device)


def compare(weight, x, device, bias=None, **options):
    packed = pack(weight, device, **options)
    given = None if bias is None else bias.to(device)
    y = matvec.multiply(packed, len(weight), x.to(device), given).cpu()
    packed.check()
    exact = x.double() @ weight.double().t()
    exact = exact if bias is None else exact + bias.double()
    # float32 sums, then one rounding to bfloat16.
    bound = (x.double().abs() @ weight.double().abs().t()) * 2.0**-18 + exact.abs() * 2.0**-8
    assert y.shape == exact.shape and bool(((y.double() - exact).abs() <= bound + 1e-30).all())
    again = matvec.multiply(packed, len(weight), x.to(device), given).cpu()
    assert torch.equal(y, again)
    reference = matvec.multiply_ref(packed, len(weight), x.to(device), given).cpu()
    assert bool(((reference.double() - exact).abs() <= bound + 1e-30).all())


@pytest.mark.parametrize(("rows", "columns"), [(3, 4096), (40, 256), (7, 1000), (9, 777), (300, 8)])
@pytest.mark.parametrize("batch", [1, 3, 8])
def test_shapes(device, rows, columns, batch):
    compare(randn(rows, columns), randn(batch, columns, seed=1), device)


@pytest.mark.parametrize("mode", ["segments", "tight", "fast", "stored"])
def test_every_kind_of_chunk(device, mode):
    weight = randn(8, 2048)
    weight.view(-1)[::61] *= 1e12  # patches
    if mode != "tight":  # which would code the signs and mantissas of such, too
        weight.view(-1)[4096:8192] = 0.5  # a constant chunk
        weight.view(-1)[8192:10000] = -2.0
    for chunk_log2 in (8, 12, 16):
        compare(weight, randn(2, 2048, seed=1) * 1e-3, device, mode=mode, chunk_log2=chunk_log2)


def test_constant_planes_and_odd_ends(device):
    powers = torch.exp2(torch.randint(-5, 5, (5, 1001)).float()).bfloat16()  # no mantissa
    compare(powers, randn(1, 1001), device)
    signs = (torch.randint(0, 2, (5, 1000)) * 2 - 1).bfloat16()  # one exponent
    compare(signs, randn(2, 1000), device)


def test_bias_and_empty(device):
    compare(randn(33, 64), randn(4, 64), device, bias=randn(33, seed=5))
    nothing = pack(torch.zeros(4, 0).bfloat16(), device)
    bias = randn(4).to(device)
    x = torch.zeros(2, 0, device=device).bfloat16()
    assert torch.equal(matvec.multiply(nothing, 4, x, bias), bias.expand(2, 4))


def test_infinities_and_nan_come_through(device):
    weight = randn(4, 512)
    weight[1, 3], weight[2, 7] = float("inf"), float("nan")
    packed = pack(weight, device)
    y = matvec.multiply(packed, 4, torch.ones(1, 512, device=device).bfloat16()).cpu()[0]
    assert y[1] == float("inf") and y[2].isnan() and y[[0, 3]].isfinite().all()


def test_damage_is_told(device):
    rng = np.random.default_rng(3)
    weight = randn(6, 1000)
    weight.view(-1)[::50] *= 1e12
    found = 0
    for case in range(60):
        packed = pack(weight, device, chunk_log2=10)
        if case % 2:
            at = int(rng.integers(packed.coded.numel()))
            packed.coded[at] ^= 1 << int(rng.integers(8))
        else:
            records = packed.records.cpu()
            records[int(rng.integers(6)), int(rng.integers(10))] = int(
                rng.integers(-(2**31), 2**31)
            )
            packed.records.copy_(records)
        matvec.multiply(packed, 6, randn(1, 1000).to(device))
        try:
            packed.check()
        except BitstreamError as error:
            assert "chunk" in str(error)
            found += 1
    assert found > 15


def test_arguments(device):
    packed = pack(randn(4, 64), device)
    for rows, x, words in (
        (4, randn(9, 64), "1 to 8"),
        (4, randn(1, 63), "no matrix"),
        (5, randn(1, 64), "no matrix"),
        (4, randn(1, 64).float(), "expected bfloat16"),
    ):
        with pytest.raises(ValueError, match=words):
            matvec.multiply(packed, rows, x.to(device))
    with pytest.raises(ValueError, match="bias must be"):
        matvec.multiply(packed, 4, randn(1, 64).to(device), randn(3).to(device))
    head, coded = planes.encode(bytes(64), 2, BYTE_PLANES, "stored")
    other = Packed.from_host(head, coded, 32, 2, BYTE_PLANES, device)
    with pytest.raises(ValueError, match="must be bfloat16"):
        matvec.multiply(other, 4, randn(1, 8).to(device))
