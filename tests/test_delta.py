"""tensor/delta: every dtype bit for bit, wrong bases, size, damage; the kernel and its rows."""

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
from latentpack.codecs.tensor.delta import Delta
from latentpack.codecs.tensor.digest import digest
from latentpack.codecs.tensor.dtypes import IDS, delta_field
from latentpack.kernels import delta, delta_ref, delta_tables, rans

pytestmark = pytest.mark.filterwarnings("ignore:ComplexHalf")

DTYPES = sorted(IDS, key=str)
GOLDEN = Path(__file__).parent / "golden" / "delta"
LAYOUTS = [(1, 3, 4), (2, 7, 8), (4, 23, 8), (8, 52, 11), (1, 0, 8), (4, 0, 0)]


def from_bytes(data, dtype, shape):
    if not math.prod(shape):
        return torch.empty(shape, dtype=dtype)
    return torch.frombuffer(bytearray(data), dtype=torch.uint8).view(dtype).reshape(shape)


def bits(tensor):
    plain = torch.view_as_real(tensor) if tensor.is_complex() else tensor
    integer = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}
    return plain.contiguous().view(integer[plain.dtype.itemsize]).numpy().tobytes()


def assert_same(decoded, tensor):
    assert (decoded.dtype, decoded.shape) == (tensor.dtype, tensor.shape)
    assert bits(decoded) == bits(tensor)


def round_trip(new, base, **options):
    data = latentpack.encode(new, base=base, **options)
    assert len(data) <= new.numel() * new.dtype.itemsize * 1.001 + 100
    assert_same(latentpack.decode(data, base=base), new)
    return data


def step(n, scale=1e-6, seed=0):
    """Weights before and after a step of a training."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(n, generator=generator) * 0.02
    return (x + scale * torch.randn(n, generator=generator)).bfloat16(), x.bfloat16()


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_dtypes(dtype):
    rng = np.random.default_rng(1)
    for n in (0, 1, 63, 64, 65, 20_011):
        size = n * dtype.itemsize
        base = rng.integers(0, 2 if dtype == torch.bool else 256, size, np.uint8)
        noise = rng.integers(0, 2 if dtype == torch.bool else 256, size, np.uint8)
        few = base.copy()
        few[rng.random(size) < 0.01] ^= 1
        for new in (noise, few, base):
            x, b = (from_bytes(a.tobytes(), dtype, (n,)) for a in (new, base))
            round_trip(x, b)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_all_bit_patterns_of_16_bit_floats(dtype):
    every = torch.arange(-32768, 32768, dtype=torch.int32).to(torch.int16)
    for new in (every.flip(0), every.roll(1), every ^ -32768, every):
        round_trip(new.contiguous().view(dtype), every.view(dtype))


def test_special_values():
    nan = torch.tensor([0x7FC00001, -1, 0x7F800000, 1, -(1 << 31), 0], dtype=torch.int64)
    x = nan.to(torch.int32).view(torch.float32)
    for base in (x.flip(0), torch.zeros(6), torch.full((6,), -0.0)):
        round_trip(x, base)
    round_trip(torch.tensor(-0.0), torch.tensor(0.0))


@settings(max_examples=100, deadline=None)
@given(
    dtype=st.sampled_from(DTYPES),
    shape=st.lists(st.integers(0, 9), max_size=4),
    rate=st.sampled_from([0, 0.01, 0.5, 1]),
    seed=st.integers(0, 1 << 20),
)
def test_any_tensor(dtype, shape, rate, seed):
    rng = np.random.default_rng(seed)
    top = 2 if dtype == torch.bool else 256
    base = rng.integers(0, top, math.prod(shape) * dtype.itemsize, np.uint8)
    new = np.where(rng.random(base.shape) < rate, rng.integers(0, top, base.shape, np.uint8), base)
    round_trip(*(from_bytes(a.tobytes(), dtype, shape) for a in (new, base)))


def test_new_changed_and_unchanged_tensors():
    new, base = step(5000)
    old = {"w": base, "same": torch.randn(30_000), "gone": torch.zeros(3), "n": torch.tensor(7)}
    state = {
        "w": new,
        "same": old["same"],
        "new": torch.randn(9),
        "n": torch.tensor(8),
        "reshaped": base.view(50, 100),
    }
    data = round_trip_mapping(state, old)
    unchanged = latentpack.encode(old, base=old)
    assert len(unchanged) < 250 and len(data) < 16_000
    other = {**old, "reshaped": base.view(100, 50), "w": base.float()}
    round_trip_mapping(state, other)


def round_trip_mapping(state, base):
    data = latentpack.encode(state, base=base)
    decoded = latentpack.decode(data, base=base)
    assert list(decoded) == list(state)
    for name, tensor in state.items():
        assert_same(decoded[name], tensor)
    return data


def test_a_tensor_that_does_not_gain_is_stored_without_base():
    noise = torch.randint(-32768, 32768, (9000,), dtype=torch.int16).view(torch.bfloat16)
    zeros = torch.zeros(9000, dtype=torch.bfloat16)
    assert len(latentpack.encode(zeros, base=noise)) < 150
    round_trip(zeros, noise)


def test_wrong_and_missing_bases():
    new, base = step(2000)
    data, named = latentpack.encode(new, base=base), latentpack.encode({"w": new}, base={"w": base})
    want, other = digest(base).hex(), digest(new).hex()
    with pytest.raises(ValueError, match=f"this is a delta; give the base with digest {want}"):
        latentpack.decode(data)
    with pytest.raises(ValueError, match=f"base with digest {want}, this one has {other}"):
        latentpack.decode(data, base=new)
    for wrong in (base.view(40, 50), base.float()):
        with pytest.raises(ValueError, match="the delta was made from"):
            latentpack.decode(data, base=wrong)
    with pytest.raises(ValueError, match="the base has no tensor 'w'"):
        latentpack.decode(named, base={"v": base})
    with pytest.raises(ValueError, match="base is a list"):
        latentpack.encode(new, base=[base])
    with pytest.raises(ValueError, match="needs a base"):
        latentpack.encode(new, codec="tensor/delta")
    with pytest.raises(ValueError, match="takes no rate"):
        latentpack.encode(new, base=base, rate=latentpack.Rate(bpp=1))


def test_digests_name_what_is_there():
    x = torch.randn(6, 4)
    same = {"b": x, "a": torch.zeros(2)}
    assert digest(same) == digest(dict(reversed(same.items())))
    different = [x, x.view(4, 6), x.view(torch.int32), -x, {"a": x}, {"b": x}, same, {}]
    assert len({digest(one) for one in different}) == len(different)


def test_out_may_be_the_base():
    new, base = step(100_000)
    data = latentpack.encode({"w": new}, base={"w": base})
    weights = {"w": base.clone()}
    assert latentpack.decode(data, base=weights, out=weights)["w"] is weights["w"]
    assert_same(weights["w"], new)
    strided = torch.empty(500, 200, dtype=new.dtype).t()
    shaped = latentpack.encode(new.view(200, 500), base=base.view(200, 500))
    assert latentpack.decode(shaped, base=base.view(200, 500), out=strided) is strided
    assert_same(strided.contiguous(), new.view(200, 500))


def test_chains_of_open_files(tmp_path):
    steps = [{"w": step(70_000, seed=7)[1]}]
    for i in range(3):
        moved = steps[-1]["w"].float() + 1e-6 * torch.randn(70_000)
        steps.append({"w": moved.bfloat16(), f"new{i}": torch.zeros(i)})
    latentpack.save(tmp_path / "0.lpk", steps[0])
    base = latentpack.open(tmp_path / "0.lpk")
    for i, state in enumerate(steps[1:], 1):
        latentpack.save(tmp_path / f"{i}.lpk", state, base=base)
        base = latentpack.open(tmp_path / f"{i}.lpk", base=base)
        assert base.describe("w") == {"dtype": torch.bfloat16, "shape": (70_000,)}
    assert list(base) == list(steps[-1])
    assert_same(base["w"], steps[-1]["w"])


def test_size_is_below_the_order_0_entropy():
    for scale in (1e-7, 1e-6, 5e-6):
        new, base = step(1 << 20, scale)
        d = delta_ref.distances(*(bits_of(t) for t in (new, base)), delta_ref.ULP)
        counts = np.unique(d, return_counts=True)[1]
        bound = float(-(counts * np.log2(counts / len(d))).sum()) / 8
        assert len(latentpack.encode(new, base=base)) < bound


def bits_of(tensor):
    return tensor.view(torch.int16).numpy().view(np.uint16)


def test_threads_do_not_change_a_byte():
    new, base = step(300_000, 1e-5)
    want = latentpack.encode(new, base=base, threads=1)
    assert latentpack.encode(new, base=base, threads=2) == want
    for threads in (1, 2):
        assert_same(latentpack.decode(want, base=base, threads=threads), new)


# The kernel.


def arrays(width, n, rate, rng):
    base = rng.normal(0, 1000, n).astype(np.int64).astype(f"i{width}").view(f"u{width}")
    moves = (rng.geometric(0.05, n) ** (1 if width < 4 else 4)).astype(f"u{width}")
    new = np.where(rng.random(n) < rate, base + moves, base).astype(base.dtype)
    new[n // 3 : n // 3 + 9] = rng.integers(0, 256, (9, width), np.uint8).view(base.dtype)[:, 0][
        : len(new[n // 3 : n // 3 + 9])
    ]
    return new, base


@pytest.mark.parametrize("width, shift, field_bits", LAYOUTS)
@pytest.mark.parametrize("operation", [delta.ULP, delta.DIFFERENCE, delta.XOR])
def test_backends_agree(width, shift, field_bits, operation):
    rng = np.random.default_rng(width)
    for n, rate in ((0, 1), (1, 1), (64, 0.1), (1000, 1), (5003, 0.3), (70_001, 0.001)):
        new, base = arrays(width, n, rate, rng)
        results = []
        for backend in rans.backends():
            field = (shift, field_bits)
            measured = delta.measure(new, base, width, [operation], *field, backend=backend)
            head, coded = delta.encode(measured, new, base, backend=backend)
            results.append((head, coded))
            out = np.empty_like(new)
            decoder = delta.Decoder(head, coded, n, width, *field, backend=backend)
            decoder.decode(base, out)
            assert np.array_equal(out, new)
        assert all(result == results[0] for result in results)


def test_chunks_are_decoded_alone():
    new, base = (bits_of(t) for t in step(200_000, 1e-3))
    head, coded = delta.encode(delta.measure(new, base, 2, [delta.ULP], 7, 8), new, base)
    decoder = delta.Decoder(head, coded, len(new), 2, 7, 8)
    at = slice(decoder.chunk_elements, 3 * decoder.chunk_elements)
    out = np.empty_like(new[at])
    decoder.decode(base[at], out, (1, 3))
    assert decoder.chunks == 4 and np.array_equal(out, new[at])
    with pytest.raises(ValueError, match="expected a range of 0 to 4"):
        decoder.decode(base[at], out, (1, 5))
    with pytest.raises(ValueError, match="elements, not 131072"):
        decoder.decode(base[at], out[:-1], (1, 3))


@pytest.mark.parametrize("width", [1, 2, 4, 8])
def test_tokens(width):
    rng = np.random.default_rng(2)
    ends = [1 << k for k in range(8 * width)]
    values = [v + e for v in ends for e in (-1, 0, 1)] + rng.integers(0, 1 << 62, 99).tolist()
    d = np.array([v % (1 << 8 * width) for v in values], np.uint64).astype(f"u{width}")
    t, r, low = delta_ref.tokens_of(d.view(f"i{width}"))
    assert np.abs(t).max() == delta_ref.max_token(width) <= 127
    s = delta_ref.SUB_BITS[width]
    m = ((np.abs(t).astype(object) - (r.astype(object) << s)) << r.astype(object)) | low
    assert [int(v) for v in np.where(t < 0, -m, m) % (1 << 8 * width)] == d.tolist()
    small = r + np.abs(t) < 2 << s
    assert np.array_equal(t[small], d.view(f"i{width}")[small])


def test_rows_survive_their_stored_form():
    rng = np.random.default_rng(3)
    for trial in range(60):
        counts = np.zeros(256, np.int64)
        used = rng.choice(np.arange(24, 233), rng.integers(1, 200), replace=False)
        counts[used] = rng.geometric(rng.choice([0.5, 0.01, 1e-5]), len(used))
        row, cost = delta_tables._row(counts)
        cursor = delta_tables.Cursor(delta_tables.pack(row))
        again = delta_tables.unpack(cursor, 2)
        assert (again.lo, again.q, again.numbers.tolist()) == (row.lo, row.q, row.numbers.tolist())
        assert cursor.at == len(cursor.data) and cost > 0, trial
        delta_tables.tables_of([row], trial % 2 == 0)


def test_blocks_pay_where_few_elements_changed():
    base = np.arange(1 << 20, dtype=np.uint16)
    new = base.copy()
    new[5000:5100] += 1
    measured = delta.measure(new, base, 2, [delta.ULP], 7, 8)
    head, coded = delta.encode(measured, new, base)
    assert measured.plan.blocks and len(head) + len(coded) < 200
    out = np.empty_like(new)
    delta.Decoder(head, coded, len(new), 2, 7, 8).decode(base, out)
    assert np.array_equal(out, new)


# Damage.


def outcome(body, base, bulk=b""):
    try:
        Delta(base, threads=1).decode_tensor({}, Packet(None, body, bulk))
    except ValueError:
        return False
    return True


@pytest.mark.parametrize("rate", [0, 0.01, 1])
def test_damaged_bodies_raise_value_errors_only(rate):
    new, base = arrays(2, 700, rate, np.random.default_rng(5))
    new, base = (torch.from_numpy(a.view(np.int16)).view(torch.bfloat16) for a in (new, base))
    body = Delta(base).encode_tensor(new).body
    for cut in range(len(body)):
        assert not outcome(body[:cut], base)
    assert not outcome(body + b"\0", base)
    for at in range(len(body)):
        for bit in (at % 8, (at + 3) % 8):
            broken = bytearray(body)
            broken[at] ^= 1 << bit
            outcome(bytes(broken), base)


@pytest.mark.parametrize("backend", rans.backends())
def test_damage_behind_right_checksums(backend, monkeypatch):
    monkeypatch.setattr(delta, "_checksum", lambda *_: b"good")
    rng = np.random.default_rng(6)
    for width, shift, field_bits in LAYOUTS:
        new, base = arrays(width, 900, 0.2, rng)
        measured = delta.measure(new, base, width, [delta.DIFFERENCE], shift, field_bits)
        head, coded = delta.encode(measured, new, base)
        for _ in range(12 if backend == "ref" else 400):
            parts = [bytearray(head), bytearray(coded)]
            for _ in range(rng.integers(1, 4)):
                part = parts[rng.integers(2)]
                part[rng.integers(len(part))] ^= 1 << rng.integers(8)
            try:
                layout = (900, width, shift, field_bits)
                decoder = delta.Decoder(*map(bytes, parts), *layout, backend=backend)
                decoder.decode(base, np.empty_like(base))
            except BitstreamError:
                pass


def test_damaged_files_raise_bitstream_error():
    new, base = step(1 << 17, 1e-5)
    data = latentpack.encode(new, base=base)
    rng = np.random.default_rng(3)
    for _ in range(150):
        broken = bytearray(data)
        broken[rng.integers(len(data))] ^= 1 << rng.integers(8)
        with pytest.raises(BitstreamError):
            latentpack.decode(bytes(broken), base=base)


def test_verify_needs_no_base():
    new, base = step(1 << 17, 1e-5)
    packet = Delta(base).encode_tensor(new)
    Delta().verify({}, packet)
    broken = bytearray(packet.bulk or packet.body)
    broken[-9] ^= 1
    bad = Packet(None, packet.body, bytes(broken)) if packet.bulk else Packet(None, bytes(broken))
    with pytest.raises(BitstreamError, match="fails its checksum"):
        Delta().verify({}, bad)


def test_max_bytes():
    new, base = step(4096)
    data = latentpack.encode(new, base=base)
    with pytest.raises(BitstreamError, match="the limit max_bytes is 1000"):
        latentpack.decode(data, base=base, max_bytes=1000)


@pytest.mark.parametrize("path", sorted(GOLDEN.glob("*.lpk")), ids=lambda path: path.stem)
def test_golden_files_decode_and_are_made_again(path):
    dtype = getattr(torch, path.stem)
    new, base = (
        from_bytes(GOLDEN.joinpath(f"{path.stem}-{what}.bin").read_bytes(), dtype, (3000,))
        for what in ("new", "base")
    )
    data = path.read_bytes()
    assert_same(latentpack.decode(data, base=base), new)
    assert latentpack.encode(new, base=base) == data


def test_there_are_golden_files():
    assert len(list(GOLDEN.glob("*.lpk"))) == 7


def test_every_dtype_has_a_field():
    for dtype in DTYPES:
        field = delta_field(dtype)
        assert field.shift + field.bits <= 8 * field.width
        assert dtype.itemsize % field.width == 0
