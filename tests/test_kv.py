"""Pages of key-value caches: every dtype and layout bit for bit, tables, access, damage."""

import os
import struct
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
import xxhash

from latentpack import BitstreamError
from latentpack.codecs.tensor.kv import (
    KVTables,
    calibrate,
    check_pages,
    decode_pages,
    encode_pages,
    page_info,
)
from latentpack.codecs.tensor.kv_tables import LAYOUTS
from latentpack.entropy.tables import TableSet

GOLDEN = Path(__file__).parent / "golden" / "kv"
DTYPES = sorted(LAYOUTS, key=str)
LAYERS, HEADS, DIM = 3, 2, 8


def cache(tokens, dtype=torch.bfloat16, layers=LAYERS, heads=HEADS, dim=DIM, seed=0):
    """Keys or values whose channels differ in scale, and keep it."""
    scales = torch.exp(
        torch.randn(layers, 1, heads, dim, generator=torch.Generator().manual_seed(7))
    )
    x = torch.randn(layers, tokens, heads, dim, generator=torch.Generator().manual_seed(seed))
    return (x * scales).to(dtype)


def pair(tokens, dtype=torch.bfloat16, seed=0):
    return cache(tokens, dtype, seed=seed), cache(tokens, dtype, seed=seed + 100)


@pytest.fixture(scope="module")
def tables():
    """Tables of each dtype."""
    return {dtype: calibrate([pair(400, dtype, seed=s) for s in (1, 2)]) for dtype in DTYPES}


def bits(x):
    return x.contiguous().view(torch.uint8)


def assert_same(decoded, expected):
    for a, b in zip(decoded, expected, strict=True):
        assert (a.dtype, a.shape) == (b.dtype, b.shape)
        assert torch.equal(bits(a), bits(b))


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("tokens", [0, 1, 15, 16, 17, 100])
@pytest.mark.parametrize("page", [1, 16, 256])
def test_round_trip(tables, dtype, tokens, page):
    k, v = pair(tokens, dtype)
    data = encode_pages(k, v, tables[dtype], page=page)
    assert_same(decode_pages(data, tables[dtype]), (k, v))
    info = page_info(data)
    assert info == check_pages(data)
    assert (info.dtype, info.shapes) == (dtype, (k.shape, v.shape))
    assert (info.page, info.pages) == (page, -(-tokens // page))
    assert info.digest == tables[dtype].digest.hex()


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_every_bit_pattern_survives(tables, dtype):
    """NaNs with payloads, infinities, denormals, -0.0."""
    patterns = torch.arange(1 << 16).to(torch.uint16) if dtype.itemsize > 1 else torch.arange(256)
    wide = patterns.to({1: torch.uint8, 2: torch.int32, 4: torch.int64}[dtype.itemsize])
    if dtype.itemsize == 4:
        wide = wide << 16 | wide ^ 0x5A5A
    narrow = {1: torch.uint8, 2: torch.uint16, 4: torch.uint32}[dtype.itemsize]
    flat = wide.to(narrow).view(dtype)
    k = flat.reshape(1, -1, HEADS, DIM)
    data = encode_pages(k, k.flip(1) if dtype.itemsize > 1 else k, tables[dtype], layer=2)
    assert torch.equal(bits(decode_pages(data, tables[dtype])[0]), bits(k))
    assert len(data) < 2 * k.nbytes * 1.01 + 500 + 8 * -(-k.shape[1] // 64)  # raw where it must be


def test_it_gets_smaller(tables):
    expected = {
        torch.bfloat16: 0.69,
        torch.float16: 0.86,
        torch.float32: 0.85,
        torch.float8_e4m3fn: 0.84,
        torch.float8_e5m2: 0.72,
    }
    for dtype in DTYPES:
        k, v = pair(2000, dtype, seed=5)
        data = encode_pages(k, v, tables[dtype], page=256)
        assert len(data) < expected[dtype] * (k.nbytes + v.nbytes), dtype


def test_what_is_known_of_channels_pays():
    """Classes of fp16, tops of bf16."""
    k, v = pair(4000, torch.float16)
    sizes = [len(encode_pages(k, v, calibrate([(k, v)], classes=n), page=256)) for n in (1, 4, 32)]
    assert sizes[1] < sizes[0] * 0.97
    assert sizes[2] < sizes[1]
    k, v = pair(4000)
    other = calibrate([(k.flip(-1), v.flip(-1))])  # of the channels in another order
    known, unknown = (len(encode_pages(k, v, t, page=256)) for t in (calibrate([(k, v)]), other))
    assert known < 0.95 * unknown


def test_layouts_of_serving_engines(tables):
    """Any strides: [heads, tokens] as in transformers, paged, interleaved k and v, 3-D."""
    bf16 = tables[torch.bfloat16]
    k, v = pair(40)
    expected = encode_pages(k, v, bf16)
    heads_first = [x.transpose(1, 2).contiguous().transpose(1, 2) for x in (k, v)]
    assert encode_pages(*heads_first, bf16) == expected
    both = torch.stack([k, v], dim=1)
    assert encode_pages(both[:, 0], both[:, 1], bf16) == expected
    channels_last = [x.permute(3, 0, 1, 2).contiguous().permute(1, 2, 3, 0) for x in (k, v)]
    assert encode_pages(*channels_last, bf16) == expected
    for x in (k, v):
        x.requires_grad_()
    assert encode_pages(k, v, bf16) == expected
    one = encode_pages(k[1], v[1], bf16, layer=1)
    assert_same(decode_pages(one, bf16), (k[1], v[1]))


def test_out(tables):
    bf16 = tables[torch.bfloat16]
    k, v = pair(50)
    data = encode_pages(k, v, bf16, page=16)
    for out in (
        (torch.zeros_like(k), torch.zeros_like(v)),
        tuple(torch.zeros(3, HEADS, 50, DIM).bfloat16().transpose(1, 2) for _ in "kv"),
        tuple(torch.zeros(DIM, 3, 50, HEADS).bfloat16().permute(1, 2, 3, 0) for _ in "kv"),
    ):
        decoded = decode_pages(data, bf16, out=out)
        assert decoded[0] is out[0]
        assert decoded[1] is out[1]
        assert_same(out, (k, v))
    assert decode_pages(data, bf16, device="meta")[0].device.type == "meta"
    for out in ((k, v[:, 1:]), (k.half(), v.half()), k):
        with pytest.raises(ValueError, match="out must be"):
            decode_pages(data, bf16, out=out)
    with pytest.raises(ValueError, match="give one of them"):
        decode_pages(data, bf16, out=(k, v), device="meta")


def test_random_access(tables):
    bf16 = tables[torch.bfloat16]
    k, v = pair(100)
    data = encode_pages(k, v, bf16, page=16)
    assert_same(decode_pages(data, bf16, layers=1), (k[1], v[1]))
    assert_same(decode_pages(data, bf16, layers=-1, pages=2), (k[2, 32:48], v[2, 32:48]))
    assert_same(decode_pages(data, bf16, pages=-1), (k[:, 96:], v[:, 96:]))
    assert_same(decode_pages(data, bf16, layers=slice(1, None)), (k[1:], v[1:]))
    rest = decode_pages(data, bf16, layers=slice(0, 2), pages=slice(5, None))
    assert_same(rest, (k[:2, 80:], v[:2, 80:]))
    none = decode_pages(data, bf16, pages=slice(3, 3))
    assert_same(none, (k[:, :0], v[:, :0]))
    for options in ({"pages": 7}, {"layers": 3}, {"pages": slice(0, 4, 2)}, {"layers": -4}):
        with pytest.raises(ValueError, match=r"there are|without step"):
            decode_pages(data, bf16, **options)
    one = encode_pages(k[0], v[0], bf16)
    with pytest.raises(ValueError, match="of one layer"):
        decode_pages(one, bf16, layers=0)


def test_only_the_wanted_blocks_are_read(tables):
    bf16 = tables[torch.bfloat16]
    k, v = pair(64)
    data = bytearray(encode_pages(k, v, bf16, page=16))
    data[-20] ^= 1  # in the last block: page 3, layer 2
    assert_same(decode_pages(data, bf16, pages=slice(0, 3)), (k[:, :48], v[:, :48]))
    assert_same(decode_pages(data, bf16, layers=0), (k[0], v[0]))
    with pytest.raises(BitstreamError, match="page 3, layer 2"):
        decode_pages(data, bf16)


def test_a_part_of_the_layers(tables):
    """What pipeline-parallel ranks hold."""
    bf16 = tables[torch.bfloat16]
    k, v = pair(30)
    data = encode_pages(k[1:], v[1:], bf16, layer=1)
    assert_same(decode_pages(data, bf16), (k[1:], v[1:]))
    assert_same(decode_pages(data, bf16, layers=0), (k[1], v[1]))
    with pytest.raises(ValueError, match="the tables have 3"):
        encode_pages(k[1:], v[1:], bf16, layer=2)


def test_fused_latents_and_unequal_heads():
    latent = cache(80, heads=1, dim=72)
    odd = latent[..., :71]
    assert torch.equal(
        decode_pages(encode_pages(odd, None, calibrate([odd])), calibrate([odd])), odd
    )
    one = calibrate([latent])
    data = encode_pages(latent, None, one)
    assert torch.equal(decode_pages(data, one), latent)
    out = torch.zeros_like(latent)
    assert decode_pages(data, one, out=out) is out
    k, v = cache(80, heads=2, dim=24), cache(80, heads=4, dim=16)
    two = calibrate([(k, v)])
    assert_same(decode_pages(encode_pages(k, v, two), two), (k, v))
    with pytest.raises(ValueError, match="v must be None"):
        encode_pages(latent, latent, one)
    with pytest.raises(ValueError, match="v must be given"):
        encode_pages(k, None, two)


def test_threads_never_change_a_byte(tables):
    bf16 = tables[torch.bfloat16]
    k, v = pair(20_000)
    data = encode_pages(k, v, bf16, threads=1)
    assert data == encode_pages(k, v, bf16, threads=5) == encode_pages(k, v, bf16)
    with ThreadPoolExecutor(4) as pool:
        for decoded in pool.map(lambda _: decode_pages(data, bf16), range(4)):
            assert_same(decoded, (k, v))
    broken = data[:-1] + bytes([data[-1] ^ 1])
    with pytest.raises(BitstreamError, match="is damaged"):
        decode_pages(broken, bf16)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
@pytest.mark.filterwarnings("ignore:.*fork")
def test_threads_after_a_fork(tables):
    bf16 = tables[torch.bfloat16]
    k, v = pair(20_000)
    data = encode_pages(k, v, bf16, threads=2)
    child = os.fork()
    if child == 0:
        os._exit(0 if encode_pages(k, v, bf16, threads=2) == data else 1)
    assert os.waitpid(child, 0)[1] == 0


def test_arguments(tables):
    bf16 = tables[torch.bfloat16]
    k, v = pair(10)
    for match, call in {
        "k is torch.float32, the tables are of torch.bfloat16": (k.float(), v.float()),
        "v is torch.float16": (k, v.half()),
        "expected .layers, tokens, 2, 8": (k[..., :4], v),
        "with the layers and tokens of k": (k, v[:, 1:]),
    }.items():
        with pytest.raises(ValueError, match=match):
            encode_pages(*call, bf16)
    for page in (0, 4097):
        with pytest.raises(ValueError, match="expected 1 to 4096"):
            encode_pages(k, v, bf16, page=page)
    with pytest.raises(ValueError, match="the tables have 3"):
        encode_pages(k, v, bf16, layer=-1)


def test_other_tables_are_refused(tables):
    k, v = pair(10)
    data = encode_pages(k, v, tables[torch.bfloat16])
    other = calibrate([pair(300, seed=9)])
    with pytest.raises(ValueError, match=f"{other.digest.hex()}") as caught:
        decode_pages(data, other)
    assert not isinstance(caught.value, BitstreamError)


def test_tables_are_kept_as_bytes(tables):
    for table in tables.values():
        data = table.to_bytes()
        again = KVTables.from_bytes(data)
        assert again == table
        assert hash(again) == hash(table)
        assert again.to_bytes() == data
        assert data[-8:] == table.digest
        assert table.digest.hex() in repr(again)
    assert len({table.digest for table in tables.values()}) == len(DTYPES)


def test_damaged_tables(tables):
    data = tables[torch.bfloat16].to_bytes()
    for size in range(0, len(data), 13):
        with pytest.raises(BitstreamError):
            KVTables.from_bytes(data[:size])
    for i in range(0, len(data)):
        with pytest.raises(BitstreamError):
            KVTables.from_bytes(data[:i] + bytes([data[i] ^ 4]) + data[i + 1 :])


def signed(body):
    return body + xxhash.xxh3_64_intdigest(body).to_bytes(8, "little")


def test_illegal_tables():
    """Fields that lie, under a digest that is right."""
    rows = TableSet.from_pmfs([np.ones(4)], [0]).to_bytes()
    start = b"\x89LKT\x01" + bytes([11, 1]) + struct.pack("<III", 1, 1, 3)
    known = bytes([0, 0]) + bytes([120, 120, 120])
    assert KVTables.from_bytes(signed(start + known + rows)).sizes == ((1, 3),)
    half = start[:5] + bytes([10]) + start[6:]
    assert KVTables.from_bytes(signed(half + bytes(3) + rows)).tops[0].shape == (1, 0)
    empty = TableSet.from_pmfs([np.ones(4), np.zeros(0)], [120, 0]).to_bytes()
    for body in (
        start + bytes([0, 1]) + known[2:] + rows,  # class 1 of one
        start + known + empty,
        start + known[:-1] + rows,
        start + bytes([0, 0, 120]) + rows,
        start,
        start[:5] + bytes([99]) + start[6:] + known + rows,
        start[:5] + bytes([6]) + start[6:] + known + rows,  # int64
        start[:6] + bytes([0]) + start[7:] + known + rows,
        start[:6] + bytes([2]) + start[7:] + known + rows,
        start[:6] + bytes([3]) + start[7:] + known + rows,
        start[:7] + struct.pack("<III", 0, 1, 3) + rows,
        start[:7] + struct.pack("<III", 2**32 - 1, 2**32 - 1, 2) + known + rows,
    ):
        with pytest.raises(BitstreamError):
            KVTables.from_bytes(signed(body))


def test_calibrate_arguments():
    k, v = pair(10)
    for match, samples in {
        "at least one token": [],
        "is torch.float64": [(k.double(), v.double())],
        "a sample has 1 tensors": [(k, v), k],
        "a sample is torch.float16": [(k, v), (k.half(), v.half())],
        "a sample is torch.bfloat16": [(k, v), (k[1:], v[1:])],
    }.items():
        with pytest.raises(ValueError, match=match):
            calibrate(samples)
    with pytest.raises(ValueError, match="at least one token"):
        calibrate([(k[:, :0], v[:, :0])])
    with pytest.raises(ValueError, match="expected 1 to 255"):
        calibrate([(k, v)], classes=256)
    assert calibrate([(k[0], v[0])]).layers == 1


def test_what_was_not_calibrated_still_codes(tables):
    """Outliers, zeros, constant pages: larger, never wrong."""
    bf16 = tables[torch.bfloat16]
    for value in (0.0, 1e30, float("nan")):
        k = torch.full((LAYERS, 20, HEADS, DIM), value).bfloat16()
        data = encode_pages(k, k, bf16)
        assert_same(decode_pages(data, bf16), (k, k))
        assert len(data) < 2 * k.nbytes + 128


def test_every_cut_and_every_bit(tables):
    bf16 = tables[torch.bfloat16]
    k, v = pair(5)
    data = encode_pages(k, v, bf16, page=4)
    for size in range(len(data)):
        for reader in (check_pages, lambda part: decode_pages(part, bf16)):
            with pytest.raises(BitstreamError):
                reader(data[:size])
    for i in range(8 * len(data)):
        broken = bytearray(data)
        broken[i // 8] ^= 1 << i % 8
        with pytest.raises(BitstreamError):
            check_pages(broken)
        with pytest.raises(ValueError):  # a flipped digest is that of other tables
            decode_pages(broken, bf16)
    with pytest.raises(BitstreamError):
        check_pages(data + bytes(16))


def head(fields, records=b"", sizes=((HEADS, DIM),) * 2):
    """A head with a right checksum."""
    data = struct.pack("<5sBBB8sIIII", *fields) + b"".join(struct.pack("<II", *s) for s in sizes)
    data += records
    data += bytes(-(len(data) + 4) % 16)
    return data + (xxhash.xxh3_64_intdigest(data) & 0xFFFFFFFF).to_bytes(4, "little")


def test_illegal_heads(tables):
    """Fields that lie, under a checksum that is right: no crash, no large allocation."""
    bf16 = tables[torch.bfloat16]
    good = [b"\x89LKV\x01", 11, 2, 1, bf16.digest, 0, 1, 0, 16]
    assert decode_pages(head(good), bf16)[0].shape == (1, 0, HEADS, DIM)
    record = struct.pack("<II", 0, 0)
    for changes, records in (
        ({0: b"\x89LKV\x02"}, b""),
        ({1: 12}, b""),
        ({1: 6}, b""),
        ({2: 3}, b""),
        ({3: 2}, b""),
        ({3: 0, 6: 2}, b""),
        ({5: 3}, b""),
        ({6: 4}, b""),
        ({7: 2**32 - 1, 8: 4096}, record),
        ({7: 4096, 8: 4096}, record),  # an empty block cannot stand for 4096 tokens
        ({7: 16}, struct.pack("<II", 2**32 - 1, 0)),
        ({8: 0}, b""),
        ({8: 4097}, b""),
    ):
        fields = list(good)
        for i, value in changes.items():
            fields[i] = value
        with pytest.raises(BitstreamError):
            decode_pages(head(fields, records), bf16)
    with pytest.raises(BitstreamError):
        decode_pages(head(good, sizes=((HEADS, DIM), (HEADS, DIM + 1))), bf16)
    with pytest.raises(BitstreamError):
        decode_pages(head(good, sizes=((2**32 - 1, 2**32 - 1), (HEADS, DIM))), bf16)


def test_blocks_that_lie(tables):
    """Random blocks under right checksums never crash."""
    bf16 = tables[torch.bfloat16]
    rng = np.random.default_rng(0)
    elements = 4 * 2 * HEADS * DIM
    for _ in range(1000):
        size = int(rng.integers(elements + 20, 2 * elements + 1))
        block = rng.integers(0, 256, size, np.uint8)
        block[elements] = rng.integers(0, 3)
        padded = block.tobytes() + bytes(-size % 16)
        record = struct.pack("<II", size, xxhash.xxh3_64_intdigest(padded) & 0xFFFFFFFF)
        fields = [b"\x89LKV\x01", 11, 2, 1, bf16.digest, 0, 1, 4, 4]
        try:
            decode_pages(head(fields, record) + padded, bf16)
        except BitstreamError:
            continue
        assert size == 2 * elements


@pytest.mark.parametrize("path", sorted(GOLDEN.glob("*.lkv")), ids=lambda path: path.stem)
def test_golden_pages(path):
    """Decoded as they were, and made again byte for byte."""
    tables = KVTables.from_bytes(path.with_suffix(".lkt").read_bytes())
    raw = torch.frombuffer(bytearray(path.with_suffix(".bin").read_bytes()), dtype=torch.uint8)
    k, v = raw.view(tables.dtype).view(2, 2, 40, 2, 8)
    data = path.read_bytes()
    assert_same(decode_pages(data, tables), (k, v))
    assert encode_pages(k, v, tables, page=16) == data


def test_there_are_golden_pages():
    assert len(list(GOLDEN.glob("*.lkv"))) == len(DTYPES)
