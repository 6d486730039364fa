"""The CUDA kernels of the plane coder: the same bytes as the reference, from a CPU that runs them.

Where there is a GPU the same tests run there, too: `pytest -m gpu`.
"""

import numpy as np
import pytest
import torch

import latentpack
from latentpack.codecs.tensor import on_device
from latentpack.codecs.tensor.dtypes import split_of
from latentpack.kernels import cuda, planes, planes_cuda, planes_ref
from latentpack.kernels.errors import BitstreamError
from latentpack.kernels.planes_head_ref import BYTE_PLANES, FLOAT, NIBBLES
from latentpack.tests import cuda_on_cpu

SHAPES = list(planes_cuda.SHAPES)
GPU = pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device")


@pytest.fixture(params=["cpu", pytest.param("cuda", marks=[pytest.mark.gpu, GPU])])
def device(request, monkeypatch):
    """A real device, or the CPU in its place."""
    if request.param == "cpu":
        monkeypatch.setattr(cuda, "load", lambda name, device: cuda_on_cpu.load(name))
    return request.param


def array(n, layout, width, kind, seed=1):
    """Bytes of n elements of one of several kinds."""
    with np.errstate(all="ignore"):
        return _array(n, layout, width, kind, seed)


def _array(n, layout, width, kind, seed):
    rng = np.random.default_rng(seed)
    values = (rng.normal(size=n) * 0.02).astype(np.float32)
    if kind == "wild":  # exponents of every size, NaN, infinities
        values = rng.integers(0, 1 << 32, n, dtype=np.uint32).view(np.float32)
    if kind == "escapes":
        values[rng.random(n) < 0.2] *= 1e20
    if kind == "constant":
        values[:] = 1.5
    if kind == "short":  # float32 that was bfloat16: planes 2 and 3 are zero
        values = (values.view(np.uint32) & 0xFFFF0000).view(np.float32)
    if kind == "half constant":
        values[: n // 2] = -0.0
    if width == 4:
        return values.tobytes()
    if width == 2:
        return values.astype(np.float16).tobytes() if layout == BYTE_PLANES else _upper(values)
    if layout == NIBBLES:
        return (values.view(np.uint32) >> 20).astype(np.uint8).tobytes()
    return np.clip(values * 900, -128, 127).astype(np.int8).tobytes()


def _upper(values):
    return (values.view(np.uint32) >> 16).astype(np.uint16).tobytes()


def on(device, data):
    return torch.from_numpy(np.frombuffer(data, np.uint8).copy()).to(device)


def encoded(device, data, width, layout, chunk_log2=12):
    packed = planes_cuda.encode(on(device, data), width, layout, chunk_log2)
    return packed, packed.to_host()


KINDS = ["normal", "wild", "escapes", "constant", "short", "half constant"]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("layout", "width"), SHAPES)
def test_bytes_are_those_of_the_reference(device, layout, width, kind):
    data = array(9001, layout, width, kind)
    packed, (head, coded) = encoded(device, data, width, layout)
    want = planes_ref.encode(data, width, layout, planes_ref.SEGMENTS, 12)
    assert head == want[0] and coded == want[1]
    out = planes_cuda.decode(packed)
    packed.check()
    assert out.cpu().numpy().tobytes() == data


@pytest.mark.parametrize("n", [0, 1, 2, 31, 33, 127, 129, 4095, 4096, 4097, 8191, 12289])
@pytest.mark.parametrize(("layout", "width"), SHAPES)
def test_sizes(device, layout, width, n):
    data = array(n, layout, width, "normal")
    packed, (head, coded) = encoded(device, data, width, layout)
    want_head, want = planes.encode(data, width, layout, "segments", chunk_log2=12)
    assert head == want_head and coded == bytes(want)
    assert planes_cuda.decode(packed).cpu().numpy().tobytes() == data
    packed.check()


@pytest.mark.parametrize("chunk_log2", [13, 14])
def test_segments_and_larger_chunks(device, chunk_log2):
    """Two segments of different scales: each has its window and its table."""
    parts = [array(1 << 18, FLOAT, 2, "normal", 1), array(40_000, FLOAT, 2, "escapes", 2)]
    data = b"".join(parts)
    _, (head, coded) = encoded(device, data, 2, FLOAT, chunk_log2)
    want_head, want = planes.encode(data, 2, FLOAT, "segments", chunk_log2=chunk_log2)
    assert head == want_head and coded == bytes(want) and head[1] == 2


@pytest.mark.parametrize("order", ["up", "down"])
def test_no_order_of_the_threads_changes_a_byte(monkeypatch, order):
    monkeypatch.setattr(cuda, "load", lambda name, device: cuda_on_cpu.load(name))
    for name in ("planes_tables.cu", "planes_encode.cu", "planes_decode.cu"):
        monkeypatch.setattr(cuda_on_cpu.load(name), "order", order)
    data = array(10_000, FLOAT, 2, "escapes")
    packed, (head, coded) = encoded("cpu", data, 2, FLOAT)
    assert (head, coded) == planes_ref.encode(data, 2, FLOAT, planes_ref.SEGMENTS, 12)
    assert planes_cuda.decode(packed).numpy().tobytes() == data


@pytest.mark.parametrize("mode", ["tight", "fast", "segments", "stored"])
@pytest.mark.parametrize(("layout", "width"), SHAPES)
def test_files_of_the_cpu_are_decoded(device, layout, width, mode):
    data = b"".join(array(3000, layout, width, kind) for kind in ("normal", "escapes", "constant"))
    for chunk_log2 in (6, 10, 16):
        head, coded = planes.encode(data, width, layout, mode, chunk_log2=chunk_log2)
        packed = planes_cuda.Packed.from_host(head, coded, 9000, width, layout, device)
        assert packed is not None
        out = planes_cuda.decode(packed)
        packed.check()
        assert out.cpu().numpy().tobytes() == data
        assert packed.to_host() == (head, bytes(coded))


def test_what_only_the_cpu_decodes(device):
    data = array(5000, FLOAT, 2, "normal")
    head, coded = planes.encode(data, 2, FLOAT, "small", chunk_log2=12)
    assert planes_cuda.Packed.from_host(head, coded, 5000, 2, FLOAT, device) is None
    with pytest.raises(ValueError, match="no CUDA kernels"):
        planes_cuda.Packed.empty(5, 8, BYTE_PLANES, device=device)


def test_ranges(device):
    data = array(20_000, FLOAT, 4, "normal")
    packed, _ = encoded(device, data, 4, FLOAT)
    for first, last in ((0, 0), (0, 1), (2, 4), (4, 5), (0, 5)):
        out = planes_cuda.decode(packed, chunks=(first, last))
        assert out.cpu().numpy().tobytes() == data[first * 16384 : last * 16384]
    for start, stop in ((0, 0), (0, 1), (4095, 4097), (19_999, 20_000), (7, 13_000)):
        out = planes_cuda.decode_elements(packed, start, stop)
        assert out.cpu().numpy().tobytes() == data[4 * start : 4 * stop]
    with pytest.raises(ValueError, match="range of 0 to 5"):
        planes_cuda.decode(packed, chunks=(3, 6))


def test_many_arrays_in_one_launch(device):
    sizes = [5000, 0, 1, 70_000, 4096]
    datas = [array(n, FLOAT, 2, "escapes", seed=n) for n in sizes]
    arrays = [on(device, data) for data in datas]
    packs = [planes_cuda.Packed.empty(n, 2, FLOAT, 12, device) for n in sizes]
    workspace = torch.empty(planes_cuda.workspace_size(packs), dtype=torch.int64, device=device)
    encoding = planes_cuda.Encoding(arrays, packs, workspace)
    for _ in range(2):  # again into the same room
        encoding.run()
    for pack, data in zip(packs, datas, strict=True):
        want_head, want = planes.encode(data, 2, FLOAT, "segments", chunk_log2=12)
        assert pack.to_host() == (want_head, bytes(want))
    outs = [torch.zeros_like(array) for array in arrays]
    planes_cuda.Decoding(packs, outs).run()
    for pack, out, data in zip(packs, outs, datas, strict=True):
        pack.check()
        assert out.cpu().numpy().tobytes() == data


@pytest.mark.parametrize(("layout", "width"), SHAPES)
def test_damage_is_found_and_reads_nothing_outside(device, layout, width):
    rng = np.random.default_rng(7)
    data = array(3000, layout, width, "escapes")
    for mode in ("tight", "fast"):
        head, coded = planes.encode(data, width, layout, mode, chunk_log2=10)
        for case in range(40):
            packed = planes_cuda.Packed.from_host(head, coded, 3000, width, layout, device)
            if case % 2 and packed.coded.numel():
                at = int(rng.integers(packed.coded.numel()))
                packed.coded[at] ^= 1 << int(rng.integers(8))
            else:  # records that no head says, as if the host had not checked them
                records = packed.records.cpu()
                word = int(rng.integers(records.numel()))
                records.view(-1)[word] = int(rng.integers(-(2**31), 2**31))
                packed.records.copy_(records)
            room = torch.full((len(data) + 64,), 0xA5, dtype=torch.uint8, device=device)
            out = room[: len(data)]
            planes_cuda.Decoding([packed], [out]).run(checksum=bool(case % 3))
            assert bool((room[len(data) :] == 0xA5).all())
            try:
                packed.check()
                met = False
            except BitstreamError as error:
                assert "chunk" in str(error)
                met = True
            assert met or case % 3 == 0 or case % 2 == 0 or out.cpu().numpy().tobytes() == data


@pytest.fixture
def gpu(device, monkeypatch):
    """The device as torch names it: where it is the CPU, tensors there count as on a GPU."""
    if device == "cpu":
        monkeypatch.setattr(on_device, "kernels_for", lambda device: planes_cuda)
    return device


DTYPES = [torch.bfloat16, torch.float32, torch.float16, torch.float8_e4m3fn, torch.int8]


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_codec_uses_the_kernels(gpu, dtype):
    x = (torch.randn(300, 301, generator=torch.Generator().manual_seed(3)) * 5).to(dtype).to(gpu)
    split = split_of(dtype)
    flat = x.reshape(-1).view(torch.uint8)
    head, coded = on_device.encode(flat, split, "tight", 16)
    want = latentpack.encode(x.cpu(), mode="segments", chunk=8192)
    assert bytes(coded) in want and bytes(head) in want
    n = flat.numel() // split.width
    out = torch.zeros_like(flat)
    assert on_device.decode(head, coded, n, split, out)
    assert torch.equal(out, flat)
    part = torch.zeros(100 * split.width, dtype=torch.uint8, device=gpu)
    assert on_device.decode(head, coded, n, split, part, first=8150)
    assert torch.equal(part, flat[8150 * split.width :][: 100 * split.width])
    assert on_device.encode(flat, split, "small", 16) is None
    broken = bytearray(coded)
    broken[99] ^= 1
    with pytest.raises(BitstreamError, match="chunk 0"):
        on_device.decode(head, broken, n, split, out)


@pytest.mark.gpu
@GPU
def test_the_public_functions_on_a_device():
    x = torch.randn(1000, 1000, device="cuda").bfloat16()
    data = latentpack.encode(x)
    assert torch.equal(latentpack.decode(data, device="cuda"), x)
    assert torch.equal(latentpack.decode(data), x.cpu())
    out = torch.zeros_like(x)
    assert latentpack.decode(data, out=out) is out and torch.equal(out, x)
    assert torch.equal(latentpack.decode(latentpack.encode(x.cpu()), device="cuda"), x)


def test_arguments(device):
    x = on(device, bytes(64))
    with pytest.raises(ValueError, match="12 to 14"):
        planes_cuda.encode(x, 2, FLOAT, 16)
    packed = planes_cuda.encode(x, 2, FLOAT)
    with pytest.raises(ValueError, match=r"expected contiguous uint8 \[64\]"):
        planes_cuda.Decoding([packed], [x[:32]])
    with pytest.raises(ValueError, match="elements 3 to 99"):
        planes_cuda.decode_elements(packed, 3, 99)
    assert packed.trimmed().coded.numel() <= packed.coded.numel()
