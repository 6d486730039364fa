"""tensor/lossless: every dtype and shape bit for bit, size bound, damage, options."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import latentpack
from latentpack import BitstreamError
from latentpack.codecs.codec import Packet
from latentpack.codecs.tensor.dtypes import DTYPES, IDS
from latentpack.codecs.tensor.lossless import Lossless
from latentpack.kernels import memory, planes

pytestmark = pytest.mark.filterwarnings("ignore:ComplexHalf")

ALL = sorted({value for value in vars(torch).values() if isinstance(value, torch.dtype)}, key=str)
QUANTISED = {torch.quint8, torch.qint8, torch.qint32, torch.quint4x2, torch.quint2x4}
SUPPORTED = [dtype for dtype in ALL if dtype not in QUANTISED]
GOLDEN = Path(__file__).parent / "golden" / "tensor"
FLOAT16S = (torch.float16, torch.bfloat16)


def from_bytes(data, dtype, shape):
    """A tensor of these bytes; not every dtype can be made in another way."""
    if not math.prod(shape):
        return torch.empty(shape, dtype=dtype)
    return torch.frombuffer(bytearray(data), dtype=torch.uint8).view(dtype).reshape(shape)


def bits(tensor):
    """The bytes of a tensor's elements."""
    plain = tensor.detach().resolve_neg()
    if plain.is_complex():
        plain = torch.view_as_real(plain.resolve_conj().reshape(-1))
    integer = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}
    return plain.view(integer[plain.dtype.itemsize]).reshape(-1).numpy().tobytes()


def assert_same(decoded, tensor):
    assert (decoded.dtype, decoded.shape) == (tensor.dtype, tensor.shape)
    assert bits(decoded) == bits(tensor)


def round_trip(tensor, **options):
    data = latentpack.encode(tensor, **options)
    size = tensor.numel() * tensor.dtype.itemsize
    assert len(data) <= size * 1.001 + 64
    assert_same(latentpack.decode(data), tensor)
    return data


def test_every_dtype_of_torch_has_an_id():
    assert set(SUPPORTED) <= set(IDS)
    assert len(set(DTYPES)) == len(set(DTYPES.values())) == 41


@pytest.mark.parametrize("dtype", sorted(QUANTISED, key=str), ids=str)
def test_quantised_tensors_are_refused(dtype):
    with pytest.raises(ValueError, match="quantised tensors can as int_repr"):
        latentpack.encode(torch.empty(4, dtype=dtype))


@pytest.mark.parametrize("dtype", SUPPORTED, ids=str)
@pytest.mark.parametrize("mode", ["fast", "tight", "small", "segments"])
def test_dtypes(dtype, mode):
    rng = np.random.default_rng(1)
    for n in (0, 1, 2, 63, 64, 65, 4097, 20_011):
        size = n * dtype.itemsize
        noise = rng.integers(0, 256, size, np.uint8)
        values = rng.normal(0, 9, size).astype(np.int8).view(np.uint8)
        for data in (noise, values, np.zeros(size, np.uint8)):
            if dtype == torch.bool:
                data = data & 1
            round_trip(from_bytes(data.tobytes(), dtype, (n,)), mode=mode)


@pytest.mark.parametrize("dtype", FLOAT16S, ids=str)
@pytest.mark.parametrize("mode", ["fast", "tight", "small", "segments"])
def test_all_bit_patterns_of_16_bit_floats(dtype, mode):
    every = torch.arange(-32768, 32768, dtype=torch.int32).to(torch.int16)
    round_trip(every.view(dtype), mode=mode)
    # Among ordinary values, where they are escapes.
    mixed = (torch.randn(1 << 20) * 0.02).to(dtype).view(torch.int16)
    mixed[::16] = every
    round_trip(mixed.view(dtype), mode=mode)


@pytest.mark.parametrize(
    "shape",
    [(), (0,), (1,), (3, 0, 5), (1,) * 64, (2, 3, 5, 7), (1, 1, 70_000), (7,) * 5, (2,) * 16],
    ids=str,
)
def test_shapes(shape):
    for dtype in (torch.bfloat16, torch.float32, torch.uint8, torch.complex128):
        data = np.random.default_rng(2).integers(0, 256, math.prod(shape) * dtype.itemsize)
        round_trip(from_bytes(data.astype(np.uint8).tobytes(), dtype, shape))


@settings(max_examples=150, deadline=None)
@given(
    dtype=st.sampled_from(SUPPORTED),
    shape=st.lists(st.integers(0, 9), max_size=4),
    mode=st.sampled_from(["fast", "tight", "small", "segments"]),
    chunk=st.sampled_from([64, 128, 65536]),
    data=st.data(),
)
def test_any_tensor(dtype, shape, mode, chunk, data):
    size = math.prod(shape) * dtype.itemsize
    alphabet = data.draw(st.lists(st.integers(0, 255), min_size=1, max_size=4))
    if dtype == torch.bool:
        alphabet = [value & 1 for value in alphabet]
    seed = data.draw(st.integers(0, 1 << 20))
    content = np.random.default_rng(seed).choice(np.array(alphabet, np.uint8), size)
    round_trip(from_bytes(content.tobytes(), dtype, shape), mode=mode, chunk=chunk)


def test_strides_and_views():
    x = torch.randn(40, 60)
    for tensor in (
        x.t(),
        x[3:30:2, 1::7],
        x[:, 5].expand(4, 40),
        torch.zeros(1).expand(300, 300),
        x.flip(0),
        x.requires_grad_(),
        torch.nn.Parameter(x.detach().bfloat16()),
        torch.randn(5, 6, 4, 4).to(memory_format=torch.channels_last),
        torch.randn(9, dtype=torch.complex64).conj(),
        torch.randn(9, dtype=torch.complex64).conj().imag,
        torch._neg_view(torch.randn(9)),
    ):
        round_trip(tensor)
    assert not latentpack.decode(latentpack.encode(x)).requires_grad


def test_special_values():
    nan = torch.tensor([0x7FC00001, -1, 0x7F800000, 1, -(1 << 31)], dtype=torch.int64)
    x = nan.to(torch.int32).view(torch.float32)
    for dtype_view in (x, x.to(torch.float64), x.repeat(5000), torch.tensor(-0.0)):
        round_trip(dtype_view)


def test_sparse_and_meta_are_refused():
    with pytest.raises(ValueError, match="make it dense first"):
        latentpack.encode(torch.eye(3).to_sparse())
    with pytest.raises(ValueError, match="make it dense first"):
        latentpack.encode(torch.empty(3, device="meta"))
    with pytest.raises(ValueError, match=r"expected a torch.Tensor, got list"):
        latentpack.encode([1, 2])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"mode": "best"}, "mode is 'best'"),
        ({"chunk": 100}, "chunk is 100"),
        ({"threads": 0}, "threads is 0"),
        ({"rate": latentpack.Rate(bpp=1)}, "takes no rate"),
    ],
)
def test_wrong_options(options, message):
    with pytest.raises(ValueError, match=message):
        latentpack.encode(torch.zeros(3), **options)


def test_mappings_keep_names_and_order():
    state = {"b.weight": torch.randn(300, 7), "a": torch.arange(3), "": torch.tensor(True)}
    decoded = latentpack.decode(latentpack.encode(state))
    assert list(decoded) == list(state)
    for name, tensor in state.items():
        assert_same(decoded[name], tensor)


def test_threads_do_not_change_a_byte():
    x = (torch.randn(400_000) * 0.1).bfloat16()
    want = latentpack.encode(x, threads=1, chunk=4096)
    assert latentpack.encode(x, threads=2, chunk=4096) == want
    assert latentpack.encode(x, chunk=4096) == want
    for threads in (1, 2, None):
        assert torch.equal(latentpack.decode(want, threads=threads), x)


def test_out_is_filled():
    x = torch.randn(500, 30).bfloat16()
    data = latentpack.encode(x)
    plain, strided = torch.empty_like(x), torch.empty(30, 500, dtype=x.dtype).t()
    for out in (plain, strided):
        assert latentpack.decode(data, out=out) is out
        assert torch.equal(out, x)
    for wrong in (torch.empty(500, 31), torch.empty(500, 30), [1]):
        with pytest.raises(ValueError, match="out must be a"):
            latentpack.decode(data, out=wrong)
    named = {"w": torch.empty_like(x)}
    assert torch.equal(latentpack.decode(latentpack.encode({"w": x}), out=named)["w"], x)
    assert torch.equal(named["w"], x)


def test_ratios():
    x = torch.randn(1 << 20) * 0.02
    bf16 = x.bfloat16()
    counts = torch.bincount((bf16.view(torch.int16).int() >> 7) & 255).double()
    p = counts[counts > 0] / len(bf16)
    bound = (8 - float((p * p.log2()).sum())) / 16
    assert len(latentpack.encode(bf16)) / bf16.nbytes <= bound * 1.005
    assert len(latentpack.encode(bf16, mode="small")) / bf16.nbytes <= bound
    assert len(latentpack.encode(bf16, mode="fast")) / bf16.nbytes <= 0.752
    for tensor, ratio in (
        (x, 0.835),
        (x.half(), 0.848),
        ((x * 8).to(torch.float8_e4m3fn), 0.83),
        ((x * 8).to(torch.float8_e5m2), 0.70),
        (bf16.float(), 0.34),
    ):
        assert len(latentpack.encode(tensor)) / tensor.nbytes <= ratio, tensor.dtype


MIXED = {
    "large": (torch.randn(300_000) * 0.02).bfloat16(),
    "noise": torch.randint(0, 256, (100_000,), dtype=torch.uint8),
    "small": torch.randn(7, 5),
    "constant": torch.ones(400_000, dtype=torch.float64),
    "values": torch.randn(200_003).half(),
    "complex": torch.randn(100_000, dtype=torch.complex64),
}


@pytest.mark.parametrize("mode", ["fast", "tight", "small", "segments"])
def test_out_holds_the_same_bytes(mode):
    for x in (MIXED, *MIXED.values(), {}, torch.zeros(0)):
        data = latentpack.encode(x, mode=mode, metadata={"a": 1}, chunk=16384)
        size = latentpack.max_size(x, mode=mode, metadata={"a": 1}, chunk=16384)
        out = np.full(size + 3, 0xAA, np.uint8)
        for room in (out, memoryview(out)[3:]):
            made = latentpack.encode(x, mode=mode, metadata={"a": 1}, chunk=16384, out=room)
            assert isinstance(made, memoryview) and made == data
        made.release()


@pytest.mark.parametrize("mode", ["fast", "tight"])
def test_large_results_are_the_same(mode, monkeypatch):
    want = [latentpack.encode(x, mode=mode, chunk=16384) for x in (MIXED, *MIXED.values())]
    monkeypatch.setattr(memory, "KEPT", 0)  # as if all were large
    assert [latentpack.encode(x, mode=mode, chunk=16384) for x in (MIXED, *MIXED.values())] == want


def test_out_must_be_large_enough_and_writable():
    x = MIXED["large"]
    size = latentpack.max_size(x)
    with pytest.raises(ValueError, match=f"out has {size - 1} bytes, expected {size} or more"):
        latentpack.encode(x, out=bytearray(size - 1))
    with pytest.raises(ValueError, match="cannot be written to"):
        latentpack.encode(x, out=bytes(size))
    with pytest.raises(ValueError, match="image/light knows no bound"):
        latentpack.max_size(torch.zeros(3, 8, 8, dtype=torch.uint8), "image/light")


def test_files_hold_the_same_bytes(tmp_path):
    latentpack.save(tmp_path / "x.lpk", MIXED)
    assert (tmp_path / "x.lpk").read_bytes() == latentpack.encode(MIXED)


@settings(max_examples=60, deadline=None)
@given(
    layout_width=st.sampled_from([(1, 2), (1, 4), (2, 1), (0, 1), (0, 2), (0, 3), (0, 8)]),
    n=st.integers(0, 3000),
    mode=st.sampled_from(["fast", "tight", "small", "segments", "stored"]),
    chunk_log2=st.integers(6, 12),
    seed=st.integers(0, 1 << 20),
)
def test_heads_are_never_larger_than_their_bound(layout_width, n, mode, chunk_log2, seed):
    layout, width = layout_width
    rng = np.random.default_rng(seed)
    data = rng.normal(0, rng.integers(1, 60), n * width).astype(np.int8).tobytes()
    head, coded = planes.encode(data, width, layout, mode, chunk_log2=chunk_log2)
    likely, most = planes.head_sizes(n, width, layout, mode, chunk_log2)
    assert len(head) <= most and likely <= most
    assert len(coded) <= len(data)


def packet_of(tensor, **options):
    return next(Lossless(**options).encode(tensor))


def outcome(body, bulk=b""):
    try:
        return Lossless(threads=1, max_bytes=1 << 24).decode_tensor(Packet(None, body, bulk))
    except BitstreamError:
        return None


@pytest.mark.parametrize(
    "tensor",
    [
        torch.randn(1000).bfloat16(),
        torch.randn(300),
        torch.tensor(2.5),
        torch.zeros(70, 3, dtype=torch.int64),
    ],
    ids=["bf16", "fp32", "scalar", "constant"],
)
def test_damaged_bodies_raise_bitstream_error_only(tensor):
    body = packet_of(tensor, chunk=512).body
    for cut in range(len(body)):
        assert outcome(body[:cut]) is None
    assert outcome(body + b"\0") is None
    for at in range(len(body)):
        broken = bytearray(body)
        broken[at] ^= 1 << at % 8
        outcome(bytes(broken))


def test_damaged_files_raise_bitstream_error():
    data = latentpack.encode((torch.randn(1 << 17) * 0.02).bfloat16())
    rng = np.random.default_rng(3)
    for _ in range(200):
        broken = bytearray(data)
        broken[rng.integers(len(data))] ^= 1 << rng.integers(8)
        with pytest.raises(BitstreamError):
            latentpack.decode(bytes(broken))


def test_random_bodies():
    rng = np.random.default_rng(4)
    for _ in range(3000):
        body = rng.integers(0, 256, rng.integers(0, 60), np.uint8).tobytes()
        outcome(body)
        outcome(bytes([11, 1, 1, 64, 10, 16]) + body)


def test_a_small_packet_cannot_ask_for_a_lot_of_memory():
    # 2**40 elements of a bfloat16 tensor, but one chunk record.
    size = bytes([0x80] * 5 + [0x20])
    for rest in (b"", bytes([16, 0, 0, 1, 0, 0]), bytes([16, 0, 0]) + bytes([1, 0, 0]) * 10):
        assert outcome_unbounded(bytes([11, 1, 1]) + size + bytes([len(rest)]) + rest) is None
        assert outcome_unbounded(bytes([11, 0, 1]) + size + rest) is None


def outcome_unbounded(body):
    try:
        return Lossless().decode_tensor(Packet(None, body))
    except BitstreamError:
        return None


def test_max_bytes():
    data = latentpack.encode(torch.zeros(1 << 20))
    assert len(data) < 200
    with pytest.raises(BitstreamError, match="the limit max_bytes is 1000"):
        latentpack.decode(data, max_bytes=1000)
    assert latentpack.decode(data, max_bytes=1 << 22).numel() == 1 << 20


def test_describe_reads_no_bulk():
    x = torch.randn(1 << 17)
    packet = packet_of(x)
    assert len(packet.bulk) > 1 << 16
    described = Lossless().describe({}, Packet(None, packet.body))
    assert described == {"dtype": torch.float32, "shape": (1 << 17,)}


@pytest.mark.parametrize("path", sorted(GOLDEN.glob("*.lpk")), ids=lambda path: path.name)
def test_golden_files_decode_and_are_made_again(path):
    name, mode = path.stem.split("-")
    dtype = getattr(torch, name)
    x = from_bytes(GOLDEN.joinpath(f"{name}.bin").read_bytes(), dtype, (50, 100))
    data = path.read_bytes()
    assert_same(latentpack.decode(data), x)
    assert latentpack.encode(x, mode=mode, chunk=4096) == data


def test_there_are_golden_files():
    assert len(list(GOLDEN.glob("*.lpk"))) == 28
