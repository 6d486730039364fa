"""video/fit: what is fitted decodes to just that, everywhere, and damage is told."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from latentpack.codecs.codec import Packet, Rate
from latentpack.codecs.container import Reader
from latentpack.codecs.image import fit_parameters
from latentpack.codecs.video import fit_encoder, fit_order, fit_prior, fit_stream
from latentpack.codecs.video.fit import Fit
from latentpack.codecs.video.fit_order import INTRA, LEAF, REFERENCE, slots
from latentpack.codecs.video.frames import VideoFormat, frames_of
from latentpack.codecs.video.gop_times import read_times
from latentpack.kernels import fit_train, rans
from latentpack.kernels.errors import BitstreamError

GOLDEN = Path(__file__).parent / "golden" / "video_fit"
pytestmark = pytest.mark.skipif(not fit_train.available(), reason="the extension is not built")


def moving(count, width, height, bits=8, colours=3):
    """A pattern that moves by a few samples from frame to frame."""
    most = (1 << bits) - 1
    planes = []
    for number in range(colours):
        h, w = (height, width) if number == 0 else ((height + 1) // 2, (width + 1) // 2)
        scale = 1 if number == 0 else 2
        y, x = np.mgrid[:h, :w] * scale
        frames = [
            0.5 + 0.3 * np.sin((x + 3 * t) / (6 + number)) * np.cos((y - t) / 9)
            for t in range(count)
        ]
        stack = np.rint(np.stack(frames) * most)
        planes.append(torch.from_numpy(stack.astype(np.uint8 if bits == 8 else np.int16)))
    return tuple(planes)


def coded(x, rate=None, **options):
    codec = Fit(effort=0, threads=1, **options)
    return codec, codec.header(x), list(codec.encode(x, rate or Rate(quality=50)))


def psnr(a, b, bits=8):
    error = sum(float((x.float() - y.float()).square().mean()) for x, y in zip(a, b, strict=True))
    return 10 * np.log10(((1 << bits) - 1) ** 2 * len(a) / error)


def test_the_order_of_frames():
    assert [(s.index, s.kind, s.level, s.references) for s in slots([4, 1])] == [
        (0, INTRA, 0, ()),
        (4, REFERENCE, 1, (0,)),
        (2, REFERENCE, 2, (0, 4)),
        (1, LEAF, 3, (0, 2)),
        (3, LEAF, 3, (2, 4)),
        (5, REFERENCE, 1, (4, 0)),
    ]


@pytest.mark.parametrize("count", [1, 2, 3, 9, 32, 100])
@pytest.mark.parametrize("segment", [1, 3, 8, 64])
def test_every_order_is_one(count, segment):
    lengths = fit_order.usual(count, segment)
    order = slots(lengths)
    assert sorted(slot.index for slot in order) == list(range(count))
    assert max(lengths, default=1) <= segment and sum(lengths) == count - 1
    seen, uses = set(), fit_order.last_uses(order)
    for position, slot in enumerate(order):
        assert set(slot.references) <= seen
        assert all(uses[index] >= position for index in (slot.index, *slot.references))
        seen.add(slot.index)
    made_of = {index for slot in order for index in slot.references}
    assert all((slot.kind == LEAF) <= (slot.index not in made_of) for slot in order)


@pytest.mark.parametrize(
    ("count", "width", "height", "bits", "colours"),
    [(1, 1, 1, 8, 3), (2, 5, 3, 10, 3), (6, 33, 21, 8, 3), (5, 24, 40, 10, 1), (3, 17, 9, 8, 1)],
)
def test_decoding_gives_what_the_encoder_saw(count, width, height, bits, colours, monkeypatch):
    groups = []
    real = fit_encoder.GroupFit.run

    def run(group, *args):
        groups.append(group)
        return real(group, *args)

    monkeypatch.setattr(fit_encoder.GroupFit, "run", run)
    x = moving(count, width, height, bits, colours)
    codec, header, packets = coded(x, segment=4)
    found = codec.decode(header, packets)
    for frame in groups[0].frames:
        for plane, decoded in zip(found, frame.decoded, strict=True):
            assert torch.equal(plane[frame.slot.index], torch.from_numpy(decoded))


def test_a_picture_is_like_the_original():
    x = moving(9, 64, 48)
    codec, header, packets = coded(x, Rate(quality=70))
    found = codec.decode(header, packets)
    flat = [plane.float().mean().expand_as(plane) for plane in x]
    assert psnr(x, found) > 6 + psnr(x, flat)
    small, *_ = coded(x, Rate(quality=10))[2]
    assert len(small.body) < len(packets[0].body)


def test_every_backend_and_any_threads_decode_the_same(monkeypatch):
    x = moving(3, 20, 14)
    codec, header, packets = coded(x, segment=2)
    wanted = codec.decode(header, packets)
    three = Fit(threads=3).decode(header, packets)
    assert all(torch.equal(a, b) for a, b in zip(wanted, three, strict=True))
    pick = rans.pick
    for backend in rans.backends():
        monkeypatch.setattr(rans, "pick", lambda given, b=backend: pick(given or b))
        found = codec.decode(header, packets)
        assert all(torch.equal(a, b) for a, b in zip(wanted, found, strict=True))


def test_groups_stand_alone_and_frames_come_one_by_one():
    x = moving(7, 24, 16)
    codec, header, packets = coded(x, gop=4, low_delay=True)
    assert [packet.key for packet in packets] == [0, 1]
    whole = codec.decode(header, packets)
    late = list(codec.decode_frames(header, packets[1:]))
    assert torch.equal(late[0].planes[0], whole[0][4]) and len(late) == 3
    format, most = VideoFormat(24, 16), header["g"]
    times, payload = read_times(packets[0].body, most)
    found = codec.decode_gop(header, payload, format, len(times.pts))
    assert torch.equal(next(found)[0], whole[0][0])


def test_a_size_is_met():
    x = moving(5, 64, 48)
    codec = Fit(effort=0, threads=1)
    packets = list(codec.encode(x, Rate(max_bytes=1500)))
    assert sum(len(packet.body) for packet in packets) < 1500


def test_what_a_packet_is():
    x = moving(4, 24, 16)
    codec, header, packets = coded(x)
    found = codec.describe(header, packets[0])
    assert found["frames"] == 4 and found["preset"] == "default"
    parts = found["network_bytes"] + found["motion_bytes"] + found["latent_bytes"]
    assert 0 < parts < found["bytes"]


def test_progress_is_told():
    calls = []
    coded(moving(3, 16, 16), progress=lambda *values: calls.append(values))
    shares = [share for share, _, _ in calls]
    assert shares == sorted(shares) and shares[-1] == pytest.approx(1)
    assert all(np.isfinite(call).all() for call in calls)


def test_illegal_options():
    for options in ({"preset": "huge"}, {"effort": 10}, {"segment": 0}, {"gop": 0}):
        with pytest.raises(ValueError, match=next(iter(options))):
            Fit(**options)
    with pytest.raises(ValueError, match="quality must be 0 to 100"):
        list(Fit(effort=0).encode(moving(1, 8, 8), Rate(quality=101)))


def test_another_prior_is_told():
    x = moving(2, 16, 16)
    codec, header, packets = coded(x)
    with pytest.raises(ValueError, match="made with weights 0000000000000000"):
        codec.decode(header | {"w": bytes(8)}, packets)
    with pytest.raises(BitstreamError, match="field w"):
        codec.decode(header | {"w": 3}, packets)


def test_damage_is_told_or_gives_frames():
    x = moving(5, 24, 18)
    codec, header, packets = coded(x, segment=4)
    body = packets[0].body
    shapes = [tuple(plane.shape) for plane in x]
    random = np.random.default_rng(1)
    for case in range(300):
        damaged = bytearray(body)
        if case < len(body) and case % 3 == 0:
            damaged = damaged[: random.integers(len(body))]
        else:
            for _ in range(random.integers(1, 4)):
                damaged[random.integers(len(damaged))] ^= 1 << random.integers(8)
        try:
            found = codec.decode(header, [Packet(0, bytes(damaged))])
        except BitstreamError:
            continue
        assert [tuple(plane.shape)[1:] for plane in found] == [shape[1:] for shape in shapes]


@pytest.mark.parametrize(
    ("head", "message"),
    [
        (b"\x03\x50\x04\x01", "preset 3"),
        (b"\xfd\x50\x04\x01", "no prior 63"),
        (b"\x01\x50\x00\x01", "0 frames"),
        (b"\x01\x50\x04\x00", "0 of 4 frames"),
        (b"\x01\x50\x05\x01", "1 of 5 frames"),
        (b"\x01\x50\x02\x03", "3 of 2 frames"),
        (b"\x01\x50\x04", "segments"),
        (b"\x01\x50\x04\x01\x7f\x01", "motion"),
        (b"\x01", "head"),
    ],
)
def test_illegal_heads(head, message):
    with pytest.raises(BitstreamError, match=message):
        fit_stream.Opened(fit_prior.load(), memoryview(head), VideoFormat(8, 8), 5)


def test_lengths_of_segments_take_few_bytes():
    lengths = [8] * 300 + [7]
    data = fit_stream.put_lengths(lengths)
    assert data == bytes([8, 255, 8, 45, 7, 1])


def test_networks_are_read_as_they_were_written():
    x = moving(4, 24, 16)
    _, header, packets = coded(x, segment=3)
    payload = read_times(packets[0].body, header["g"])[1]
    opened = fit_stream.Opened(fit_prior.load(), payload, VideoFormat(24, 16), 4)
    pictures = list(opened.pictures())
    group = fit_stream.Group(opened.priors, opened.position, [3], opened.coded, pictures)
    assert fit_stream.write(group) == bytes(payload)
    values = fit_parameters.values(opened.priors[0], opened.coded[0])
    assert np.abs(values - opened.priors[0].mean).max() < 5


def test_a_clip_of_frames_is_coded_the_same():
    x = moving(3, 16, 12)
    codec, _, packets = coded(x)
    again = list(codec.encode_frames(frames_of(x), VideoFormat(16, 12), Rate(quality=50)))
    assert [p.body for p in again] == [p.body for p in packets]


@pytest.mark.parametrize("path", sorted(GOLDEN.glob("*.lpk")), ids=lambda path: path.stem)
@pytest.mark.parametrize("backend", [None, "ref"])
def test_golden_files_decode_as_ever(path, backend, monkeypatch):
    pick = rans.pick
    monkeypatch.setattr(rans, "pick", lambda given: pick(given or backend))
    reader = Reader(path.read_bytes())
    frames = list(Fit(threads=1).decode_frames(reader.params, reader.packets()))
    wanted = json.loads(path.with_suffix(".json").read_text())
    assert [[plane.ravel().tolist() for plane in frame.planes] for frame in frames] == wanted


def test_there_are_golden_files():
    assert len(list(GOLDEN.glob("*.lpk"))) == 3
