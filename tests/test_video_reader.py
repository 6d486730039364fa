"""Video files are read as they are: samples, times, tracks; and what is wrong is said."""

import io
import itertools
import random
import resource
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
import torch

from latentpack.datasets.video import VideoFrame, open_video
from latentpack.datasets.video_frames import frame_of, layout_of, planes_of
from latentpack.datasets.video_order import TrackQueue
from latentpack.datasets.video_tracks import TrackPacket

from . import video_samples as samples
from .video_samples import (
    CLIPS,
    CONTAINER,
    Pipe,
    encoded,
    frames,
    open_av,
    plane_bytes,
    read,
    sound,
    write,
)


@pytest.mark.parametrize("size", [(64, 48), (33, 17), (1, 1), (2, 1)])
@pytest.mark.parametrize(("bits", "colours"), [(8, 3), (10, 3), (9, 3), (8, 1), (10, 1)])
def test_samples_are_those_of_the_file(size: tuple[int, int], bits: int, colours: int) -> None:
    made = frames(3, *size, bits, colours)
    reader, shown, _ = read(write(made, "mkv", bits=bits)[0])
    assert (reader.width, reader.height, reader.bits, reader.colours) == (*size, bits, colours)
    assert samples.same_planes(shown, made)
    assert all(plane.is_contiguous() for frame in shown for plane in frame.planes)
    assert reader.notes == []


@pytest.mark.parametrize(
    ("pixels", "bits", "colours", "note"),
    [
        ("yuv444p", 8, 3, "yuv444p becomes 4:2:0 at 8 bits"),
        ("yuv422p10le", 10, 3, "yuv422p10le becomes 4:2:0 at 10 bits"),
        ("yuv420p12le", 10, 3, "yuv420p12le becomes 4:2:0 at 10 bits"),
        ("gray16le", 10, 1, "gray16le becomes grey at 10 bits"),
        ("bgr0", 8, 3, "bgr0 becomes 4:2:0 at 8 bits"),
        ("gbrp10le", 10, 3, "gbrp10le becomes 4:2:0 at 10 bits"),
        ("yuva420p", 8, 3, "yuva420p becomes 4:2:0 at 8 bits, without its transparency"),
    ],
)
def test_other_samples_are_converted(pixels: str, bits: int, colours: int, note: str) -> None:
    reader, shown, _ = read(encoded("matroska", "ffv1", 2, pixels))
    assert (reader.bits, reader.colours) == (bits, colours)
    assert reader.notes == [note]
    assert len(shown) == 2
    if pixels in ("bgr0", "gbrp10le"):
        assert reader.info["range"] == "limited"
        assert reader.info["matrix"] == 6  # H.273: of a picture as small as of old TV


@pytest.mark.parametrize("pixels", ["nv12", "nv21", "p010le", "p010be", "yuv420p10be"])
def test_the_same_samples_in_another_order_stay(pixels: str) -> None:
    bits = 8 if pixels.startswith("nv") else 10
    made = samples.planes(5, 14, 10, bits)
    frame = frame_of(made, "yuv420p" if bits == 8 else "yuv420p10le").reformat(format=pixels)
    layout = layout_of(frame.format)
    assert not layout.loss
    assert all(map(torch.equal, planes_of(frame, layout), made))


def test_white_black_and_red_of_rgb() -> None:
    """The numbers of BT.601 and BT.709 for limited range."""
    for height, red in ((16, (81, 90, 240)), (720, (63, 102, 240))):
        x = np.zeros((height, 48, 3), np.uint8)
        x[:, :16], x[:, 32:, 0] = 255, 255
        frame = av.VideoFrame.from_ndarray(x, "rgb24")
        y, u, v = planes_of(frame, layout_of(frame.format))
        assert [int(p) for p in y[3, [3, 20]]] == [235, 16]
        found = int(y[3, 40]), int(u[3, 20]), int(v[3, 20])
        assert max(abs(a - b) for a, b in zip(found, red, strict=True)) <= 1


def test_full_range_stays_full() -> None:
    for pixels in ("yuvj420p", "yuvj444p"):
        frame = av.VideoFrame(16, 16, pixels)
        for plane in frame.planes:
            plane_bytes(plane)[:] = 255
        assert all(int(p.max()) == 255 for p in planes_of(frame, layout_of(frame.format)))


def test_times_of_b_frames_and_of_a_variable_rate() -> None:
    times = [0, 3003, 6006, 7000, 7001, 20000, 90000, 90001]
    data = write(frames(8, pts=times), "mp4", info={"time_base": [1, 30000]})[0]
    reader, shown, _ = read(data)
    assert samples.times(shown, reader, Fraction(1, 30000)) == times
    durations = [round(f.duration * reader.time_base * 30000) for f in shown]
    assert durations[:-1] == [b - a for a, b in itertools.pairwise(times)]


@pytest.mark.parametrize("format", ["matroska", "mp4"])
def test_a_part_begins_and_ends_at_the_frame_asked_for(format: str) -> None:
    """With key frames far apart and B frames between, and groups that are not closed."""
    options = {"g": "20", "bf": "3", "x264-params": "open-gop=1:scenecut=0"}
    data = encoded(format, "libx264", 100, options=options)
    whole = read(data)[1]
    for start, end in ((0, 4), (0.04, 0.08), (0.8, 0.84), (1.0, 2.2), (1.58, 99), (3.92, None)):
        part = read(data, start=start, end=end)[1]
        assert part == [f for f in part if f.pts >= 0]
        reader = open_video(io.BytesIO(data))
        seconds = [(f.pts - whole[0].pts) * reader.time_base for f in whole]
        wanted = [
            f
            for f, s in zip(whole, seconds, strict=True)
            if Fraction(str(start)) <= s and (end is None or s < Fraction(str(end)))
        ]
        reader.close()
        assert [f.pts for f in part] == [f.pts for f in wanted]
        assert samples.same_planes(part, wanted)


def test_a_part_without_frames() -> None:
    with pytest.raises(ValueError, match="no frame is shown in the time asked for"):
        read(write(frames(5), "mkv")[0], start=50)


def test_frames_without_times_get_them() -> None:
    data = encoded("h264", "libx264", 6, options={"bf": "0"})
    _, shown, _ = read(data)
    steps = {b.pts - a.pts for a, b in itertools.pairwise(shown)}
    assert len(shown) == 6
    assert len(steps) == 1


def test_times_that_go_back_are_noted() -> None:
    data = bytearray(write(frames(6, 16, 16), "mkv")[0])
    fourth = data.index(b"\x81\0\x78\x80")  # track 1, 120 ms after the cluster, key frame
    data[fourth + 2] = 40
    reader, shown, _ = read(bytes(data))
    assert [f.pts for f in shown] == [0, 40, 80, 120, 160, 200]
    assert any("no later time" in note for note in reader.notes)


def test_what_is_known_of_the_picture() -> None:
    info: dict[str, Any] = {
        "time_base": [1, 25],
        "average_rate": [25, 1],
        "matrix": 9,
        "primaries": 9,
        "transfer": 16,
        "range": "limited",
        "sample_aspect": [4, 3],
        "display_matrix": [0, 65536, 0, -65536, 0, 0, 0, 0, 1 << 30],
        "content_light": [1000, 400],
        "mastering_display": [
            [34000, 50000], [16000, 50000], [13250, 50000], [34500, 50000], [7500, 50000],
            [3000, 50000], [15635, 50000], [16450, 50000], [50, 10000], [10000000, 10000],
        ],
        "disposition": ["default"],
        "tags": {"language": "deu"},
    }  # fmt: skip
    found = read(write(frames(4, bits=10), "mp4", info=info)[0])[0].info
    kept = {name: found[name] for name in info if name not in ("time_base", "tags")}
    assert kept == {name: info[name] for name in info if name not in ("time_base", "tags")}
    assert found["tags"]["language"] == "deu"
    assert found["codec"] == "h264"


def test_interlaced_frames_are_carried_and_noted() -> None:
    options = {"flags": "+ildct+ilme", "x264-params": "tff=1"}
    reader = read(encoded("matroska", "libx264", 4, options=options))[0]
    assert reader.info["field_order"] == "tt"
    assert any("interlaced" in note for note in reader.notes)


def test_packets_of_tracks_come_before_the_frames_of_their_time() -> None:
    track, packets = sound(90)
    data, _ = write([*packets, *frames(40)], "mkv", tracks=[track])
    with open_video(io.BytesIO(data)) as reader:
        items = list(reader.items())
        base = Fraction(*reader.tracks[0]["time_base"])
    last = Fraction(-1)
    late = 0
    for item in items:
        if isinstance(item, VideoFrame):
            last = item.pts * reader.time_base
        else:
            late += item.pts is not None and item.pts * base < last
    assert late == 0
    assert [i.data for i in items if isinstance(i, TrackPacket)] == [p.data for p in packets]


def test_a_part_of_a_track() -> None:
    track, packets = sound(90)
    data, _ = write([*packets, *frames(40)], "mkv", tracks=[track])
    reader, _, found = read(data, start=0.5, end=1.0)
    base = Fraction(*reader.tracks[0]["time_base"])
    begin, stop = reader.start + Fraction(1, 2), reader.start + 1
    assert all(p.pts * base < stop and (p.pts + p.duration) * base > begin for p in found)
    assert 22 <= len(found) <= 26
    data_of = [p.data for p in packets]
    at = data_of.index(found[0].data)
    assert [p.data for p in found] == data_of[at : at + len(found)]


def test_the_queue_lets_go_of_what_is_too_much() -> None:
    queue = TrackQueue([Fraction(1, 10), Fraction(1, 10)], None, None)
    for i in range(70):
        queue.put(TrackPacket(i % 2, bytes(1 << 20), i, i, 1, True))
    out = list(queue.overflow())
    assert [p.pts for p in out] == list(range(len(out)))
    assert 70 - len(out) == 32
    assert [p.pts for p in queue.until(Fraction(5))] == list(range(len(out), 51))
    assert [p.pts for p in queue.rest()] == list(range(51, 70))


def test_two_videos_and_a_cover() -> None:
    small, large = encoded("mp4", "libx264", 4, size=(32, 32)), encoded("mp4", "libx264", 6)
    with open_video(io.BytesIO(small)) as other:
        pass
    extra = _copied(small, 0)
    reader, shown, _ = read(large)
    cover = {
        "type": "video", "codec": "mjpeg", "time_base": [1, 90000], "width": 16, "height": 16,
        "pixel_format": "yuvj420p", "disposition": ["attached_pic"],
    }  # fmt: skip
    picture = TrackPacket(1, _jpeg(), 0, 0, 0, True)
    tracks = [extra[0], cover]
    data, writer = write([picture, *extra[1], *shown], "mp4", tracks=tracks, info=reader.info)
    assert writer.notes == []
    found, frames_found, packets = read(data)
    assert (found.width, found.height, len(frames_found)) == (64, 48, 6)
    kinds = [(t["codec"], "attached_pic" in t.get("disposition", [])) for t in found.tracks]
    assert kinds == [("h264", False), ("mjpeg", True)]
    assert [p.data for p in packets if p.track == 1] == [picture.data]
    assert [p.data for p in packets if p.track == 0] == [p.data for p in extra[1]]
    second, shown, _ = read(data, stream=1)
    assert (second.width, second.height) == (32, 32) == (other.width, other.height)
    assert len(shown) == 4
    with pytest.raises(ValueError, match="stream is 2; it has 2 videos"):
        read(data, stream=2)


def _copied(data: bytes, number: int) -> tuple[dict[str, Any], list[TrackPacket]]:
    from latentpack.datasets.video_tracks import describe, packet_of

    with open_av(io.BytesIO(data)) as container:
        track = describe(container.streams[0])
        return track, [packet_of(p, number) for p in container.demux() if p.size]


def _jpeg() -> bytes:
    context: Any = av.CodecContext.create("mjpeg", "w")
    context.width, context.height, context.pix_fmt = 16, 16, "yuvj420p"
    context.time_base = Fraction(1, 25)
    frame = frame_of(samples.planes(1, 16, 16), "yuvj420p")
    frame.pts = 0
    return b"".join(bytes(p) for p in [*context.encode(frame), *context.encode(None)])


@pytest.mark.parametrize("format", ["mkv", "mp4", "y4m"])
def test_pipes(format: str) -> None:
    made = frames(8, 34, 18)
    data, _ = write(made, format, quality=None if format == "y4m" else "lossless")
    with open_video(Pipe(data)) as reader:
        assert samples.same_planes(list(reader.frames()), made)
    with open_video(Pipe(data)) as reader:
        assert samples.same_planes(list(reader.frames(0.16)), made[4:])


def test_what_is_no_video(tmp_path: Path) -> None:
    for data, text in (
        (b"", "empty"),
        (b"hello, this is text\n" * 20, "no video but a text file"),
        (b"\x89LPK" + bytes(range(99)), "latentpack decode"),
        (bytes(range(256)) * 40, "no video that can be read"),
    ):
        with pytest.raises(ValueError, match=text):
            open_video(io.BytesIO(data))
    path = tmp_path / "sound.mka"
    track, packets = sound(5)
    with open_av(str(path), "w") as container:
        from latentpack.datasets.video_tracks import TrackSink

        sink = TrackSink(container, track, packets[0])
        for packet in packets:
            container.mux(sink.packet(packet, Fraction(0)))
    with pytest.raises(ValueError, match="it holds no video, but audio"):
        open_video(path)
    with pytest.raises(FileNotFoundError):
        open_video(tmp_path / "none.mp4")


def test_read_once() -> None:
    with open_video(io.BytesIO(write(frames(2), "mkv")[0])) as reader:
        list(reader.frames())
        with pytest.raises(RuntimeError, match="open the file again"):
            next(reader.frames())


def test_frames_that_change_their_size() -> None:
    parts = [encoded("h264", "libx264", 4, size=size) for size in ((64, 48), (32, 32))]
    with pytest.raises(ValueError, match=r"changes from 64x48 to 32x32; split it there"):
        read(b"".join(parts))


def test_damage_is_an_error_with_its_time_or_a_note() -> None:
    data = bytearray(encoded("matroska", "libx264", 50, options={"g": "10", "bf": "0"}))
    with open_av(io.BytesIO(bytes(data))) as container:
        packet = [p for p in container.demux() if p.size][26]
        at = bytes(data).index(bytes(packet))
    data[at : at + 4] = b"\x7f\xff\xff\xff"  # the size of a part of the frame
    with pytest.raises(ValueError, match=r"at 1\.\d\d s: .*keep going to take what is left"):
        read(bytes(data))
    reader, shown, _ = read(bytes(data), keep_going=True)
    assert len(shown) == 49
    assert [note[:3] for note in reader.notes] == ["at "]


@pytest.mark.parametrize("format", ["matroska", "mp4", "mpegts"])
def test_cut_files(format: str) -> None:
    """Never anything but frames or a ValueError, wherever it is cut."""
    data = encoded(format, "libx264", 20)
    for size in range(0, len(data), max(1, len(data) // 25)):
        try:
            _, shown, _ = read(data[:size], keep_going=True)
            assert len(shown) <= 20
        except ValueError:
            pass
    if format == "mp4":
        made = frames(40)
        fragments = write(made, "mp4", Pipe(), info={"time_base": [1, 2]})[0]
        with pytest.raises(ValueError, match=r"cut short|damage|no video"):
            read(fragments[: len(fragments) // 2])


def test_garbage_is_no_crash() -> None:
    random.seed(5)
    whole = {f: encoded(f, "libx264", 6) for f in ("matroska", "mp4", "mpegts")}
    for round_ in range(60):
        data = bytearray(whole[("matroska", "mp4", "mpegts")[round_ % 3]])
        for _ in range(random.choice((1, 5, 50))):
            data[random.randrange(len(data))] = random.randrange(256)
        try:
            read(bytes(data), keep_going=bool(round_ % 2))
        except ValueError:
            pass


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="memory is read from /proc")
def test_memory_does_not_grow_with_the_length() -> None:
    """All 400 frames at once would take 180 MiB."""
    data = _long(400)
    before = most = _resident()
    with open_video(io.BytesIO(data), threads=1) as reader:
        for count, _ in enumerate(reader.items(), 1):
            most = max(most, _resident()) if count % 50 == 0 else most
    assert count == 3 * 400
    assert most - before < 40 << 20


def _resident() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()


def _long(count: int) -> bytes:
    """Frames of 640x480 that are cheap to code, and packets of a sound of raw samples."""
    track = {
        "type": "audio", "codec": "pcm_s16le", "time_base": [1, 8000], "sample_rate": 8000,
        "layout": "mono",
    }  # fmt: skip
    grey = tuple(torch.full(s, 90, dtype=torch.uint8) for s in ((480, 640), (240, 320), (240, 320)))
    items: list[Any] = []
    for i in range(count):
        items += [
            TrackPacket(0, bytes(320), 320 * i + 160 * k, 320 * i + 160 * k, 160, True)
            for k in (0, 1)
        ]
        items.append(VideoFrame(grey, i, 1))
    return write(items, "mkv", tracks=[track])[0]


@pytest.mark.parametrize("name", CLIPS)
def test_real_files(name: str) -> None:
    """Against FFmpeg's own order of frames and packets."""
    path = CONTAINER / name
    if not path.exists():
        pytest.skip(f"{path} is not here")
    with open_av(str(path)) as container:
        reader = open_video(path)
        index = next(
            s.index
            for s in container.streams.video
            if (s.codec_context.width, s.codec_context.height) == (reader.width, reader.height)
        )
        pts = [f.pts for f in container.decode(container.streams[index])]
    with open_av(str(path)) as container:
        others = [bytes(p) for p in container.demux() if p.size and p.stream.index != index]
    with reader:
        items = list(reader.items())
    assert [i.pts for i in items if isinstance(i, VideoFrame)] == pts
    assert sorted(i.data for i in items if isinstance(i, TrackPacket)) == sorted(others)
    assert reader.frames_stated == len(pts)
