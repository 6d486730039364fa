"""Groups of pictures: what all video codecs share."""

import io
import warnings
import zlib
from fractions import Fraction

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from latentpack.codecs.codec import DamageWarning, Packet, Rate
from latentpack.codecs.container import Reader, Writer, empty_size, packet_size
from latentpack.codecs.fields import Cursor, put_varint
from latentpack.codecs.video.frames import (
    Frame,
    Length,
    VideoFormat,
    clip_of,
    format_of,
    frames_of,
    psnr_db,
)
from latentpack.codecs.video.gop_times import Times, get_times, put_times
from latentpack.codecs.video.gops import find_gop
from latentpack.kernels.errors import BitstreamError
from latentpack.tests.video_double import Shallow, clip, renamed, same, shifted

FORMAT = VideoFormat(33, 21)


def packets_of(x, codec=None, rate=None, **more):
    codec = codec or Shallow()
    return codec.header(x), list(codec.encode(x, rate or Rate(quality=100), **more))


@pytest.mark.parametrize("bits", [8, 10])
@pytest.mark.parametrize("colours", [1, 3])
@pytest.mark.parametrize(("count", "width", "height"), [(1, 1, 1), (4, 8, 8), (9, 33, 21)])
def test_a_clip_comes_back(bits, colours, count, width, height):
    x = clip(count, width, height, bits, colours)
    header, packets = packets_of(x)
    assert [packet.key for packet in packets] == list(range((count + 3) // 4))
    assert header == {"s": [width, height], "b": bits, "c": colours, "g": 4}
    assert same(Shallow().decode(header, packets), x)


def test_frames_keep_their_times():
    frames = list(frames_of(clip(6)))
    pts, durations = [-9000, 0, 8099, 16000, 25007, 40000], [9000, 0, 7901, 9007, 14993, 1]
    frames = shifted(frames, pts, durations)
    packets = list(Shallow().encode_frames(frames, FORMAT, Rate(quality=100)))
    found = list(Shallow().decode_frames(Shallow().header(FORMAT), packets))
    assert [(f.pts, f.duration) for f in found] == list(zip(pts, durations, strict=True))
    assert all(same(a.planes, b.planes) for a, b in zip(found, frames, strict=True))


@given(
    st.lists(
        st.tuples(st.integers(-(2**60) + 1, 2**60 - 1), st.integers(0, 2**60 - 1)),
        min_size=1,
        max_size=9,
    )
)
def test_any_times_come_back(pairs):
    times = Times([p for p, _ in pairs], [d for _, d in pairs])
    cursor = Cursor(memoryview(put_times(times)), 0)
    assert get_times(cursor, 9) == times
    assert not cursor.left


def test_even_times_take_three_varints():
    assert put_times(Times([0, 512, 1024], [512] * 3)) == bytes([3 << 2, 0, 0x80, 8])
    assert put_times(Times([-1, 1], [0, 0])) == bytes([2 << 2 | 1, 1, 4])
    assert put_times(Times([5], [0])) == bytes([1 << 2 | 1, 10, 0])
    hundred = Times([round(i * 1000 / 24) for i in range(128)], [41] * 128)
    assert len(put_times(hundred)) < 60


@pytest.mark.parametrize(
    ("body", "what"),
    [
        (b"", "count of frames"),
        (bytes([0, 0, 0]), "it is 0, expected 1 to 4"),
        (bytes([5 << 2, 0, 2]), "it is 5, expected 1 to 4"),
        (bytes([1 << 2 | 3, 0, 2]), "form of the times"),
        (bytes([1 << 2, 0]), "step of the pts"),
        (bytes([1 << 2, 0, 1]), "duration"),
        (bytes([1 << 2]) + b"\xff" * 8 + b"\x7f\0", "pts"),
        (bytes([2 << 2 | 2, 0, 3, 1, 2, 3]), "times"),
        (bytes([2 << 2 | 2, 0, 60, 1]), "times"),
    ],
)
def test_illegal_times(body, what):
    with pytest.raises(BitstreamError, match=what):
        get_times(Cursor(memoryview(body), 0), 4)


def test_times_that_inflate_are_refused():
    bomb = zlib.compress(bytes(100_000))
    body = bytes([2 << 2 | 2, 0]) + put_varint(len(bomb)) + bomb
    with pytest.raises(BitstreamError, match="do not end where they should"):
        get_times(Cursor(memoryview(body), 0), 4)


def test_times_out_of_range_are_refused_when_coding():
    with pytest.raises(ValueError, match="below 2\\*\\*60"):
        put_times(Times([1 << 60], [0]))
    with pytest.raises(ValueError, match="below 2\\*\\*60"):
        put_times(Times([0], [-1]))


def test_a_part_by_whole_gops():
    x = clip(10)
    frames = shifted(frames_of(x), [i * 40 for i in range(10)], [40] * 10)
    codec = Shallow()
    header = codec.header(FORMAT)
    packets = list(codec.encode_frames(frames, FORMAT, Rate(quality=100)))
    found = list(codec.decode_frames(header, packets, 130, 320))
    assert [f.pts for f in found] == [160, 200, 240, 280]
    assert [f.pts for f in codec.decode_frames(header, packets[2:])] == [320, 360]
    assert list(codec.decode_frames(header, packets, 1000)) == []

    broken = Packet(0, packets[0].body[:4])  # not decoded, so that its damage is not met
    assert len(list(codec.decode_frames(header, [broken, *packets[1:]], 160))) == 6

    def read(number):
        return packets[number]

    assert [find_gop(header, read, 3, t) for t in (-1, 0, 159, 160, 319, 320, 9999)] == [
        0, 0, 0, 1, 1, 2, 2,
    ]  # fmt: skip
    assert find_gop(header, read, 1, 500) == 0


def test_frames_are_decoded_one_by_one():
    """A frame is given out before the rest of its GoP is decoded, and no GoP is read ahead."""
    header, packets = packets_of(clip(8))
    read = []

    def reading():
        for packet in packets:
            read.append(packet.key)
            yield packet

    frames = Shallow().decode_frames(header, reading())
    next(frames)
    assert read == [0]


def test_the_encoder_holds_one_gop():
    taken = []

    def frames():
        for i in range(12):
            taken.append(i)
            yield Frame(tuple(x[i] for x in x_hat), i, 1)

    x_hat = clip(12)
    packets = Shallow().encode_frames(frames(), FORMAT)
    next(packets)
    assert len(taken) == 5  # four of a GoP, and one to know that it is not the last


def test_a_frame_of_another_size_is_named():
    frames = [*frames_of(clip(5)), *frames_of(clip(1, 32, 21))]
    with pytest.raises(ValueError, match="frame 5 has planes uint8 \\[21, 32\\]"):
        list(Shallow().encode_frames(frames, FORMAT))
    with pytest.raises(ValueError, match="frame 1 has planes int16"):
        list(Shallow().encode_frames([*frames_of(clip(1)), *frames_of(clip(1, bits=10))], FORMAT))
    deep = VideoFormat(33, 21, 10)
    frame = Frame(tuple(x[0] * 4 for x in clip(1, bits=10)), 0, 1)
    with pytest.raises(ValueError, match=r"frame 0 has samples from .* outside of 0 to 1023"):
        list(Shallow().encode_frames([frame], deep))


@pytest.mark.parametrize(
    ("x", "what"),
    [
        (torch.zeros(3, 4, 4, dtype=torch.uint8), "a tuple of planes"),
        ((), "no plane"),
        ((torch.zeros(0, 4, 4, dtype=torch.uint8),), "uint8 \\[0, 4, 4\\]"),
        ((torch.zeros(2, 4, 4),), "expected uint8|expected int16"),
        (tuple(torch.zeros(2, 4, 4, dtype=torch.uint8) for _ in range(3)), "of half the size"),
        ("film.mp4", "got str"),
    ],
)
def test_what_is_no_clip(x, what):
    with pytest.raises(ValueError, match=what):
        Shallow().header(x)


def test_depth_of_clips():
    assert format_of(clip(1, bits=8), "c").bits == 8
    assert format_of(clip(1, bits=10), "c").bits == 10
    assert Shallow(bits=9).header(clip(1, bits=9))["b"] == 9
    with pytest.raises(ValueError, match="takes 8 to 10 bits"):
        Shallow(bits=12).header(clip(1, bits=12))


@pytest.mark.parametrize("options", [{"gop": 0}, {"gop": 1 << 17}, {"gop": 2.0}, {"frame_rate": 0}])
def test_options_are_checked(options):
    with pytest.raises(ValueError, match=next(iter(options))):
        Shallow(**options)


@pytest.mark.parametrize(
    "field",
    [
        {"s": [0, 4]}, {"s": [4]}, {"s": None}, {"s": [4.0, 4]}, {"s": [1 << 17, 4]}, {"b": 7},
        {"b": 16}, {"b": True}, {"b": None}, {"c": 2}, {"c": "3"}, {"g": 0}, {"g": None},
        {"g": 1 << 17},
    ],
)  # fmt: skip
def test_illegal_headers(field):
    header, packets = packets_of(clip(2))
    with pytest.raises(BitstreamError):
        Shallow().decode({**header, **field}, packets)


def test_packets_of_tracks_are_skipped():
    x = clip(8)
    header, packets = packets_of(x)
    mixed = [Packet("t0/0", b"?"), packets[0], Packet("t0/1", b""), packets[1]]
    codec = Shallow()
    assert same(codec.decode(header, mixed), x)
    assert codec.describe(header, mixed[0]) == {}
    codec.verify(header, mixed[0])


def test_order_of_packets():
    header, packets = packets_of(clip(12))
    for wrong in (
        [packets[0], packets[2]],
        [packets[1], packets[0]],
        [renamed(packets[0], None)],
        [renamed(packets[0], -1)],
    ):
        with pytest.raises(BitstreamError):
            Shallow().decode(header, wrong)


def test_keep_going_leaves_out_what_is_damaged():
    x = clip(16)
    header, packets = packets_of(x)
    cut = Packet(1, packets[1].body[:-30])
    codec = Shallow(keep_going=True)
    with pytest.warns(DamageWarning) as caught:
        found = list(codec.decode_frames(header, [packets[0], cut, packets[3]]))
    texts = [str(warning.message) for warning in caught]
    assert texts[0].startswith("group of pictures 1:")
    assert texts[1] == "groups of pictures 2 to 2 are missing"
    pts = [frame.pts for frame in found]
    assert pts[:4] == [0, 1, 2, 3] and pts[-4:] == [12, 13, 14, 15]  # and what GoP 1 began with
    with pytest.raises(BitstreamError, match="group of pictures 1:"):
        Shallow().decode(header, [packets[0], cut])


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_damaged_packets_raise_bitstream_errors(data):
    header, packets = packets_of(clip(3))
    body = bytearray(packets[0].body)
    for _ in range(data.draw(st.integers(1, 3))):
        body[data.draw(st.integers(0, len(body) - 1))] ^= data.draw(st.integers(1, 255))
    body = bytes(body[: data.draw(st.integers(0, len(body)))])
    try:
        found = Shallow().decode(header, [Packet(0, body)])
        Shallow().describe(header, Packet(0, body))
    except BitstreamError:
        return
    assert len(found) == 3


def test_describe_and_verify():
    header, packets = packets_of(clip(6))
    codec = Shallow()
    said = codec.describe(header, packets[1])
    assert said == {"frames": 2, "start": 4, "end": 6, "bytes": len(packets[1].body) - 3}
    codec.verify(header, packets[1])
    with pytest.raises(BitstreamError):
        codec.verify(header, Packet(1, packets[1].body[:-9]))


def test_through_files():
    x = clip(7, bits=10)
    codec = Shallow()
    file = io.BytesIO()
    with Writer(file, 200, codec.header(x)) as writer:
        for packet in codec.encode(x, Rate(quality=100)):
            writer.write(packet)
    reader = Reader(file)
    assert same(codec.decode(reader.params, reader.packets()), x)
    assert same(codec.decode(reader.params, [reader.read(1)]), tuple(p[4:] for p in x))


def size_of(header, packets):
    return (
        empty_size(200, header, None)
        - 8
        + 17
        + sum(packet_size(packet.key, len(packet.body)) for packet in packets)
    )


def whole_size(header, packets):
    file = io.BytesIO()
    with Writer(file, 200, header) as writer:
        for packet in packets:
            writer.write(packet)
    return file.tell()


def test_quality_is_the_codecs_position():
    codec = Shallow()
    list(codec.encode(clip(9), Rate(quality=30)))
    assert codec.tries == [(30, None, None), (30, 30, None), (30, 30, None)]
    codec = Shallow()
    list(codec.encode(clip(3)))
    assert codec.tries[0][0] == 50
    with pytest.raises(ValueError, match="0 to 100"):
        codec.encode(clip(1), Rate(quality=101))


@pytest.mark.parametrize("count", [3, 24])
def test_a_size_is_met(count):
    x = clip(count, 64, 48)
    for rate in (Rate(bpp=3.0), Rate(ratio=4.0), Rate(kbps=250.0), Rate(max_bytes=count * 1200)):
        codec = Shallow(frame_rate=25)
        header = codec.header(x)
        packets = list(codec.encode(x, rate, empty_size(200, header, None)))
        asked = {
            "bpp": 3 * count * 64 * 48 / 8,
            "ratio": count * 64 * 48 * 1.5 / 4,
            "kbps": 250 * 125 * count / 25,
            "max_bytes": count * 1200,
        }[rate.name]
        size = whole_size(header, packets)
        assert 0.9 * asked <= size <= 1.1 * asked, rate
        if rate.name == "max_bytes":
            assert size <= asked
        tries_of_first = sum(1 for _, before, _ in codec.tries if before is None)
        if rate.name != "max_bytes":
            assert len(codec.tries) - tries_of_first == len(packets) - 1  # the others once


def test_a_further_try_goes_on_from_one_near_it():
    codec = Shallow()
    list(codec.encode(clip(4, 64, 48), Rate(bpp=3.0)))
    assert any(near is not None for _, _, near in codec.tries[1:])
    assert len({quality for quality, _, _ in codec.tries}) == len(codec.tries)


def test_qualities_are_snapped():
    class Coarse(Shallow):
        def snap(self, quality):
            return round(quality / 5) * 5.0

    codec = Coarse()
    list(codec.encode(clip(16, 64, 48), Rate(bpp=3.0)))
    assert all(quality % 5 == 0 for quality, _, _ in codec.tries)


def test_the_bound_holds_for_a_video_that_grows_harder():
    """The end takes far more bytes than the beginning lets one expect."""
    easy, hard = clip(20, 64, 48), clip(20, 64, 48, seed=1)
    noise = torch.randint(0, 256, hard[0].shape, generator=torch.Generator().manual_seed(1))
    x = tuple(
        torch.cat([a // 32 * 32, noise.to(torch.uint8)[:, : b.shape[1], : b.shape[2]]])
        for a, b in zip(easy, hard, strict=True)
    )
    codec = Shallow()
    header = codec.header(x)
    packets = list(codec.encode(x, Rate(max_bytes=40_000), empty_size(200, header, None)))
    assert whole_size(header, packets) <= 40_000
    assert len(codec.decode(header, packets)[0]) == 40


def test_sizes_out_of_reach():
    x = clip(8)
    for rate in (Rate(max_bytes=30), Rate(max_bytes=150)):
        with pytest.raises(ValueError, match="out of reach"):
            list(Shallow().encode(x, rate, 40))
    with pytest.raises(ValueError, match="kbps needs frames with times"):
        list(Shallow().encode(x, Rate(kbps=100)))
    with pytest.raises(ValueError, match="needs the length"):
        Shallow().encode_frames(frames_of(x), FORMAT, Rate(max_bytes=4000))


@pytest.mark.parametrize("count", [4, 24])
def test_a_psnr_is_met(count):
    x = clip(count, 64, 48)
    codec = Shallow()
    found = codec.decode(codec.header(x), codec.encode(x, Rate(psnr=38.0)))
    pairs = zip(frames_of(x), frames_of(found), strict=True)
    reached = sum(psnr_db(a.planes, b.planes, 8) for a, b in pairs) / count
    assert abs(reached - 38.0) < 1.5  # the double has steps of integers


def test_a_stream_of_unknown_length_keeps_its_pace():
    x = clip(40, 64, 48)
    frames = shifted(frames_of(x), [i * 512 for i in range(40)], [512] * 40)
    codec = Shallow()
    packets = list(
        codec.encode_frames(
            iter(frames), VideoFormat(64, 48), Rate(kbps=300), 60, Fraction(1, 12800)
        )
    )
    size = sum(len(packet.body) for packet in packets)
    assert abs(size - 300 * 125 * 40 / 25) < 0.12 * size


def test_what_lies_beside_the_picture_is_counted():
    x = clip(24, 64, 48)
    frames, length = list(frames_of(x)), Length(24, None)
    codec = Shallow()
    header = codec.header(VideoFormat(64, 48))
    beside = empty_size(200, header, None) + 9000
    packets = codec.encode_frames(
        frames, VideoFormat(64, 48), Rate(max_bytes=30_000), beside, None, length
    )
    assert 19_000 < size_of(header, list(packets)) <= 21_000


def test_psnr_is_of_planes():
    a = tuple(x[0] for x in clip(1))
    assert psnr_db(a, a, 8) == 100
    off = tuple(x ^ 1 for x in a)
    assert abs(psnr_db(a, off, 8) - 48.13) < 0.01
    assert abs(psnr_db(a[:1], off[:1], 8) - 48.13) < 0.01


def test_no_frames():
    assert list(Shallow().encode_frames([], FORMAT)) == []
    assert [tuple(x.shape) for x in clip_of([], FORMAT)] == [(0, 21, 33), (0, 11, 17), (0, 11, 17)]


def test_warnings_are_errors_otherwise():
    header, packets = packets_of(clip(8))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert len(Shallow().decode(header, packets)[0]) == 8
