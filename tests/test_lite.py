"""The codec video/lite: sizes, depths, rates, damage, drift, and the integers of its streams."""

import json
import os
import pickle
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import xxhash

from latentpack.codecs.codec import Packet, Rate
from latentpack.codecs.fields import Cursor
from latentpack.codecs.transforms import integer
from latentpack.codecs.video import lite, lite_stream
from latentpack.codecs.video.frames import VideoFormat, format_of, psnr_db
from latentpack.codecs.video.gop_times import read_times
from latentpack.codecs.video.lite import Lite
from latentpack.codecs.video.lite_stream import to_input, to_samples
from latentpack.kernels.errors import BitstreamError
from latentpack.scripts.golden_videos import lite_model
from latentpack.tests.lite_weights import write_weights
from latentpack.tests.test_portable_parse import NoisyDevice, fp64, int64

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    return write_weights(tmp_path_factory.mktemp("lite") / "lite.lpkw")


def clip(frames=4, height=48, width=64, bits=8, colours=3, seed=0):
    """A smooth picture that moves by (1, 2) samples a frame."""
    ground = torch.from_numpy(np.random.default_rng(seed).normal(128, 40, (1, 3, 14, 24)))
    size = (height + 4 * frames + 8, width + 4 * frames + 8)
    ground = torch.nn.functional.interpolate(ground.float(), size, mode="bicubic")[0]
    top = (1 << bits) - 1
    ground = (ground / 255).clamp(0, 1) * top
    dtype = torch.uint8 if bits == 8 else torch.int16
    planes = []
    for number, (h, w) in enumerate(VideoFormat(width, height, bits, colours).shapes):
        step = 1 if number else 2
        rows = [ground[number, i : i + h, i * step : i * step + w] for i in range(frames)]
        planes.append(torch.stack(rows).round().to(dtype))
    return tuple(planes)


def mean_psnr(a, b, bits=8):
    frames = range(len(a[0]))
    one = [psnr_db(tuple(x[i] for x in a), tuple(y[i] for y in b), bits) for i in frames]
    return sum(one) / len(one)


def coded(codec, x, quality=50):
    return codec.header(x), list(codec.encode(x, Rate(quality=quality)))


@pytest.mark.parametrize(
    ("frames", "height", "width", "bits", "colours"),
    [(4, 48, 64, 8, 3), (2, 33, 47, 10, 3), (1, 1, 1, 8, 3), (3, 40, 31, 8, 1), (2, 2, 70, 9, 1)],
)
def test_what_is_decoded(weights, frames, height, width, bits, colours):
    x = clip(frames, height, width, bits, colours)
    codec = Lite(weights, bits=bits, gop=3)
    header, packets = coded(codec, x, 90)
    assert [p.key for p in packets] == list(range(-(-frames // 3)))
    y = codec.decode(header, packets)
    assert [(a.shape, a.dtype) for a in y] == [(a.shape, a.dtype) for a in x]
    assert mean_psnr(x, y, bits) > 31


def test_planes_come_back():
    """What goes to the networks comes back, whatever its size."""
    for bits, colours in ((8, 3), (10, 3), (8, 1)):
        x = clip(1, 35, 50, bits, colours)
        planes = tuple(plane[0] for plane in x)
        format = format_of(x, "", bits)
        y, uv = to_input(planes, format)
        assert y.shape == (1, 64, 64) and uv.shape == (2, 32, 32)
        assert all(map(torch.equal, to_samples(y, uv, format), planes))


def test_positions():
    for positions in ([5], [448, 0], [0, 7, 7, 7], [9, 448, 0, 3, 3, 448]):
        data = lite_stream._put_positions(positions)
        cursor = Cursor(memoryview(data), 0)
        assert lite_stream._get_positions(cursor, len(positions)) == positions and not cursor.left
    assert lite_stream._put_positions([1, 2, 2]) == b"\1\0\5\0"
    for bad in (b"\xc1\1", b"\0\0\x82\3", b"\0\0\0\0\1"):
        with pytest.raises(BitstreamError, match="rate position"):
            lite_stream._get_positions(Cursor(memoryview(bad), 0), 3)


def test_quality_and_size(weights):
    x, codec = clip(3), Lite(weights)
    sizes, psnrs = [], []
    for quality in (10, 50, 90):
        header, packets = coded(codec, x, quality)
        sizes.append(sum(len(p.body) for p in packets))
        psnrs.append(mean_psnr(x, codec.decode(header, packets)))
    assert sizes == sorted(sizes) and psnrs == sorted(psnrs)
    packets = list(codec.encode(x, Rate(max_bytes=sizes[1] + 100), reserve=60))
    assert len(packets[0].body) < sizes[1] + 100
    (packet,) = codec.encode(x, Rate(psnr=psnrs[1]))
    assert mean_psnr(x, codec.decode(codec.header(x), [packet])) == pytest.approx(psnrs[1], abs=0.5)


def test_groups_stand_alone_and_show_frames_as_they_come(weights):
    x, codec = clip(5), Lite(weights, gop=2)
    header, packets = coded(codec, x)
    whole = list(codec.decode_frames(header, packets))
    assert [f.pts for f in whole] == list(range(5))
    part = list(codec.decode_frames(header, packets[1:], start=3))
    assert [f.pts for f in part] == [3, 4]
    for a, b in zip(part, whole[3:], strict=True):
        assert all(map(torch.equal, a.planes, b.planes))
    format = format_of(x, "")
    payload = memoryview(codec.encode_gop([tuple(p[0] for p in x)] * 3, format, 50.0).payload)
    first = next(codec.decode_gop(header, payload, format, 3))
    assert first[0].shape == (48, 64)


def test_drift(weights):
    """Over 300 frames in one group quality does not fall."""
    x = clip(4, 32, 32, seed=3)
    order = torch.tensor([0, 1, 2, 3, 2, 1] * 50)
    x = tuple(plane[order] for plane in x)
    codec = Lite(weights, gop=300)
    header, packets = coded(codec, x, 60)
    assert len(packets) == 1
    y = codec.decode(header, packets)
    late, early = (
        mean_psnr(tuple(a[part] for a in x), tuple(b[part] for b in y))
        for part in (slice(240, 300), slice(60, 120))  # behind the good first frame's influence
    )
    assert late > early - 0.3


@pytest.fixture(scope="module")
def stream(weights):
    """Header, payload and format of a group, and the integers in it."""
    x, codec = clip(4), Lite(weights)
    header, (packet,) = coded(codec, x, 60)
    _, payload = read_times(packet.body, 32)
    format = format_of(x, "")
    parsed = codec.parse(header, payload, format, 4)
    assert all(frame.integers.q.any() for frame in parsed[:2])
    assert any(frame.vectors.any() for frame in parsed[1:])
    return header, payload, format, parsed


def same(a, b):
    for one, other in zip(a, b, strict=True):
        assert one.position == other.position
        assert torch.equal(one.integers.z, other.integers.z)
        assert torch.equal(one.integers.q, other.integers.q)
        assert (one.vectors is None) == (other.vectors is None)
        assert one.vectors is None or torch.equal(one.vectors, other.vectors)


def test_the_parse_is_the_same_everywhere(weights, stream, monkeypatch):
    header, payload, format, parsed = stream
    codec = Lite(weights)
    before = torch.get_num_threads()
    try:
        for threads in (2, 1):
            torch.set_num_threads(threads)
            same(codec.parse(header, payload, format, 4), parsed)
    finally:
        torch.set_num_threads(before)
    with torch.backends.mkldnn.flags(enabled=False):
        same(codec.parse(header, payload, format, 4), parsed)
    with NoisyDevice():
        same(codec.parse(header, payload, format, 4), parsed)
    for matmul in (fp64, int64):
        monkeypatch.setattr(integer, "int_matmul", matmul)
        same(codec.parse(header, payload, format, 4), parsed)


_PARSE = """
import pickle, sys, torch
from latentpack.codecs.video.lite import Lite
path, header, payload, format = pickle.load(sys.stdin.buffer)
pickle.dump(Lite(path).parse(header, memoryview(payload), format, 4), sys.stdout.buffer)
"""


@pytest.mark.parametrize("isa", ["AVX2", "SSE41"])
def test_other_machines(weights, stream, isa):
    header, payload, format, parsed = stream
    environment = os.environ | {
        "PYTHONPATH": str(ROOT / ".import"),
        "ATEN_CPU_CAPABILITY": "avx2" if isa == "AVX2" else "default",
        "ONEDNN_MAX_CPU_ISA": isa,
        "OMP_NUM_THREADS": "1",
    }
    done = subprocess.run(
        [sys.executable, "-c", _PARSE],
        input=pickle.dumps((weights, header, bytes(payload), format)),
        env=environment,
        capture_output=True,
        check=True,
    )
    same(pickle.loads(done.stdout), parsed)


def test_damage(weights, stream):
    header, payload, format, _ = stream
    codec = Lite(weights)
    generator = np.random.default_rng(0)
    data = bytes(payload)
    for number in range(60):
        bad = bytearray(data)
        if number % 3:
            bad[generator.integers(len(bad))] ^= 1 << generator.integers(8)
        else:
            del bad[generator.integers(len(bad)) :]
        try:
            found = list(codec.decode_gop(header, memoryview(bytes(bad)), format, 4))
            assert [p[0].shape for p in found] == [(48, 64)] * 4
        except BitstreamError:
            pass
    with pytest.raises(BitstreamError, match="rate position"):
        list(codec.decode_gop(header, memoryview(b"\xff\xff" + data[2:]), format, 4))
    with pytest.raises(BitstreamError):
        list(codec.decode_gop(header, memoryview(data + b"\0\0"), format, 4))


def test_errors(weights, monkeypatch):
    monkeypatch.setattr(lite, "SHIPPED", {})
    codec = Lite(weights)
    x = clip(2)
    header, packets = coded(codec, x)
    with pytest.raises(ValueError, match="made with weights"):
        codec.decode(header | {"w": b"another!"}, packets)
    with pytest.raises(BitstreamError, match="too large"):
        codec.decode(header | {"s": [65536, 65536]}, packets)
    with pytest.raises(ValueError, match="at most"):
        codec.header(VideoFormat(65536, 4096))
    with pytest.raises(ValueError, match="quality"):
        list(codec.encode(x, Rate(quality=101)))
    with pytest.raises(BitstreamError):
        codec.decode(header, [Packet(0, b"")])


GOLDEN = sorted((Path(__file__).parent / "golden" / "video_lite").glob("*.bin"))


@pytest.mark.parametrize("path", GOLDEN, ids=lambda path: path.stem)
def test_old_streams_parse(path):
    """Integers of all kinds, by layers of integers: no training and no float has a part in it."""
    expected = json.loads(path.with_suffix(".json").read_text())
    count = len(expected["positions"])
    format = VideoFormat(96, 64)
    payload = memoryview(path.read_bytes())
    frames = list(lite_stream.parse_group(lite_model(), payload, format, count))
    assert [frame.position for frame in frames] == expected["positions"]
    for frame, digests in zip(frames, expected["digests"], strict=True):
        vectors = torch.zeros(0) if frame.vectors is None else frame.vectors
        found = [
            xxhash.xxh3_64_hexdigest(x.contiguous().numpy().tobytes())
            for x in (frame.integers.z, frame.integers.q, vectors)
        ]
        assert found == digests


def test_there_are_golden_files():
    assert len(GOLDEN) == 3
