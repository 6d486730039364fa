"""Video files are written so that what was read comes back; what a format can't hold is said."""

import io
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest
import torch

from latentpack.datasets.video import VideoFrame, open_video
from latentpack.datasets.video_formats import FORMATS, encoder_options, video_format
from latentpack.datasets.video_ticks import tick_for
from latentpack.datasets.video_tracks import TrackPacket, TrackSink, chapters_to_write
from latentpack.datasets.video_writer import VideoWriter, WriterOptions

from . import video_samples as samples
from .video_samples import CLIPS, CONTAINER, Pipe, frames, open_av, read, sound, write

_VFR = [0, 9000, 18000, 27000, 34199, 42297, 51304, 60311, 90000, 180001, 900000]


@pytest.mark.parametrize("piped", [False, True])
@pytest.mark.parametrize(
    ("format", "base", "times"),
    [
        ("mkv", (1, 90000), _VFR),
        ("mp4", (1, 90000), _VFR),
        ("mov", (1, 90000), _VFR),
        ("mkv", (1001, 30000), list(range(12))),
        ("mp4", (1001, 30000), list(range(12))),
        ("mkv", (1, 1000000), [0, 1, 2, 1000, 33333, 5000000, 3600000000]),
        ("mp4", (1, 12800), [700, 1212, 1300, 5000]),
        ("webm", (1, 90000), _VFR),
    ],
)
def test_times_are_exact(format: str, base: tuple[int, int], times: list[int], piped: bool) -> None:
    made = frames(len(times), 32, 32, pts=times)
    target = Pipe() if piped else io.BytesIO()
    data, writer = write(made, format, target, info={"time_base": list(base)})
    assert writer.notes == []
    reader, shown, _ = read(data)
    assert samples.times(shown, reader, Fraction(*base)) == times
    assert all(
        abs(f.pts * reader.time_base - t * Fraction(*base)) * 2 <= reader.time_base
        for f, t in zip(shown, times, strict=True)
    )


def test_matroska_says_its_ticks() -> None:
    """A duration, a chapter and a place to seek are where they are in any program."""
    chapters = [{"start": 500, "end": 1500, "time_base": [1, 1000], "tags": {"title": "two"}}]
    made = frames(9, 32, 32, pts=[i * 45001 for i in range(9)])
    data, _ = write(made, "mkv", info={"time_base": [1, 90000]}, chapters=chapters)
    with open_av(io.BytesIO(data)) as container:
        stream = container.streams.video[0]
        assert stream.time_base == Fraction(1, 100000)
        assert abs(container.duration / 1e6 - 4.5) < 0.001
        assert stream.metadata["DURATION"].startswith("00:00:04.5")
        container.seek(int(Fraction(5, 2) / stream.time_base), stream=stream)
        first = next(p for p in container.demux(stream) if p.size)
        assert first.pts == 200004
    reader = read(data)[0]
    found = [(c["start"] * Fraction(*c["time_base"]), c["tags"]) for c in reader.chapters]
    assert found == [(Fraction(1, 2), {"title": "two"})]


def test_ticks() -> None:
    second = Fraction(1)
    for base, tick in (((1, 25), 1000), ((1, 90000), 100000), ((1, 12800), 100000)):
        assert tick_for([Fraction(*base), second]) == Fraction(1, tick)
    assert tick_for([Fraction(1, 48000), Fraction(1, 25)]) == Fraction(1, 100000)
    assert tick_for([Fraction(1, 10**9)]) == Fraction(1, 10**6)


def test_times_finer_than_ticks_are_noted() -> None:
    _, writer = write(frames(2), "mkv", info={"time_base": [1, 10**9]})
    assert writer.notes == [
        "mkv has times in units of 1/1000000 s, where the video has 1/1000000000 s; they are "
        "rounded"
    ]


@pytest.mark.parametrize("format", ["mkv", "mp4", "y4m", "webm"])
@pytest.mark.parametrize("piped", [False, True])
@pytest.mark.parametrize(("bits", "colours"), [(8, 3), (10, 3), (8, 1), (10, 1)])
def test_samples_without_loss(format: str, piped: bool, bits: int, colours: int) -> None:
    if format == "webm" and bits == 10:
        pytest.skip("no encoder of 10 bits without loss")
    made = frames(4, 66, 34, bits, colours)
    quality = None if format == "y4m" else "lossless"
    data, writer = write(made, format, Pipe() if piped else io.BytesIO(), quality, bits=bits)
    reader, shown, _ = read(data)
    if format in ("mp4", "webm") and colours == 1:  # FFmpeg decodes H.264's grey in colours, too
        note = "libvpx-vp9 has no grey; the picture gets colours, all grey"
        assert writer.notes == ([note] if format == "webm" else [])
        assert all(bool((p == 1 << bits - 1).all()) for f in shown for p in f.planes[1:])
        shown = [f._replace(planes=f.planes[:1]) for f in shown]
    else:
        assert (reader.bits, reader.colours) == (bits, colours)
    assert samples.same_planes(shown, made)


@pytest.mark.parametrize("size", [(33, 17), (1, 1), (1, 6)])
def test_odd_sizes(size: tuple[int, int]) -> None:
    made = frames(3, *size)
    for format in ("mkv", "y4m"):
        data, writer = write(made, format)
        assert samples.same_planes(read(data)[1], made)
        assert writer.notes == []
    data, writer = write(made, "mp4", quality="lossless")
    assert "even sizes only" in writer.notes[0]
    _, shown, _ = read(data)
    assert torch.equal(shown[2].planes[0][: size[1], : size[0]], made[2].planes[0])
    assert torch.equal(shown[2].planes[1][: (size[1] + 1) // 2], made[2].planes[1])


def test_what_y4m_cannot_hold() -> None:
    with pytest.raises(ValueError, match=r"frame 2 is shown .* write mkv or mp4, which keep times"):
        write(frames(4, pts=[0, 1, 9, 10]), "y4m", info={"average_rate": [25, 1]})
    track, packets = sound(3)
    _, writer = write([*packets, *frames(2)], "y4m", tracks=[track], info={"display_matrix": [1]})
    assert writer.notes == [
        "y4m can't hold the rotation",
        "y4m can't hold track 0 (audio); it is dropped",
    ]


def test_y4m_of_milliseconds_has_the_rate() -> None:
    times = [0, 33, 67, 100, 133, 167]
    info = {"time_base": [1, 1000], "average_rate": [30, 1], "sample_aspect": [4, 3]}
    data, _ = write(frames(6, pts=times), "y4m", info=info | {"range": "full"})
    line = data[: data.index(b"\n")]
    assert line == b"YUV4MPEG2 W64 H48 F30:1 Ip A4:3 C420mpeg2 XCOLORRANGE=FULL"
    reader, shown, _ = read(data)
    assert reader.info["range"] == "full"
    assert [f.pts for f in shown] == list(range(6))


@pytest.mark.parametrize("format", ["mkv", "mp4", "mov"])
@pytest.mark.parametrize("codec", ["aac", "ac3"])
def test_sound_is_copied(format: str, codec: str) -> None:
    if (format, codec) == ("mov", "ac3"):
        pytest.skip("one of the two is enough")
    track, packets = sound(30, codec)
    data, writer = write([*packets, *frames(16)], format, tracks=[track])
    reader, shown, found = read(data)
    early = Fraction(0)
    if format == "mkv" and packets[0].pts < 0:
        early = Fraction(-1, 25)  # 1024 samples, in whole frames
    assert writer.notes == (["mkv begins at 0; all times are 0.0400 s later"] if early else [])
    assert [p.data for p in found] == [p.data for p in packets]
    base, own = Fraction(*track["time_base"]), Fraction(*reader.tracks[0]["time_base"])
    assert [round((p.pts * own + early) / base) for p in found] == [p.pts for p in packets]
    assert next(f.pts * reader.time_base + early for f in shown) == 0
    same = ("codec", "sample_rate", "layout", "type")
    assert [reader.tracks[0][k] for k in same] == [track[k] for k in same]
    assert reader.tracks[0].get("extradata") == track.get("extradata")
    assert reader.tracks[0]["tags"]["language"] == "fra"
    if format != "mkv" and codec == "aac":
        assert [p.side for p in found] == [p.side for p in packets]
    with open_av(io.BytesIO(data)) as container:
        assert sum(f.samples for f in container.decode(audio=0)) >= 28 * 1024


@pytest.mark.parametrize("format", ["mkv", "mp4", "ts"])
def test_heads_of_aac_packets_are_taken_off(format: str) -> None:
    """As it comes from MPEG-TS, which has them; then it goes into MPEG-TS again."""
    track, packets = sound(20)
    made = frames(10)
    stream, _ = write([*packets, *made], "ts", tracks=[track])
    source, shown, found = read(stream)
    assert "extradata" not in source.tracks[0]
    assert found[0].data[0] == 0xFF
    data, writer = write([*found, *shown], format, tracks=source.tracks, info=source.info)
    assert not any("dropped" in note for note in writer.notes)
    again = [p.data for p in read(data)[2]]
    wanted = [p.data for p in (found if format == "ts" else packets)]
    assert again == wanted
    with open_av(io.BytesIO(data)) as container:
        assert sum(f.samples for f in container.decode(audio=0)) >= 18 * 1024


def test_subtitles_change_their_form_and_nothing_else() -> None:
    text = {"type": "subtitle", "codec": "mov_text", "time_base": [1, 1000]}
    words = TrackPacket(0, b"\0\x05Hallo", 40, 40, 80, True)
    plain = text | {"codec": "subrip"}
    for track, packet, format, codec, data in (
        (text, words, "mkv", "subrip", b"Hallo"),
        (plain, words._replace(data=b"Hallo"), "mp4", "mov_text", b"\0\x05Hallo"),
        (plain, words._replace(data=b"Hallo"), "mkv", "subrip", b"Hallo"),
    ):
        written, writer = write([packet, *frames(5)], format, tracks=[track])
        assert writer.notes == []
        reader, _, found = read(written)
        assert reader.tracks[0]["codec"] == codec
        assert (data, 80) in [
            (p.data, round(p.duration * 1000 * Fraction(*reader.tracks[0]["time_base"])))
            for p in found
        ]


def test_attachments() -> None:
    font = {
        "type": "attachment", "time_base": [1, 1000],
        "tags": {"filename": "a.ttf", "mimetype": "font/ttf"},
    }  # fmt: skip
    packet = TrackPacket(0, bytes(range(256)) * 20, None, None, 0, True)
    data, writer = write([packet, *frames(2)], "mkv", tracks=[font])
    assert writer.notes == []
    reader, _, found = read(data)
    assert [p.data for p in found] == [packet.data]
    assert reader.tracks[0]["tags"]["filename"] == "a.ttf"
    _, writer = write([packet, *frames(2)], "mp4", tracks=[font])
    assert "can't hold track 0 (attachment)" in writer.notes[0]


def test_what_a_format_cannot_hold_is_dropped_and_noted() -> None:
    track, packets = sound(5)
    data, writer = write([*packets, *frames(2)], "webm", tracks=[track])
    assert writer.notes == [
        "webm can't hold track 0 (audio aac): the container holds no aac; it is dropped"
    ]
    assert read(data)[0].tracks == []


def test_tags_and_shift() -> None:
    track, packets = sound(60)
    chapters = [
        {"start": 0, "end": 1, "time_base": [1, 10], "tags": {}},
        {"start": 1, "end": 9, "time_base": [1, 10], "tags": {"title": "b"}},
    ]
    made = frames(10, pts=list(range(5, 15)))
    late = [p for p in packets if p.pts >= 9600]
    data, writer = write(
        [*late, *made], "mp4", tracks=[track], chapters=chapters, shift=Fraction(1, 5),
        tags={"title": "T"},
    )  # fmt: skip
    assert writer.notes == []
    reader, shown, found = read(data)
    assert samples.times(shown, reader, Fraction(1, 25)) == list(range(10))
    assert found[0].pts == late[0].pts - 9600
    assert reader.tags["title"] == "T"
    units = [Fraction(*c["time_base"]) for c in reader.chapters]
    spans = [(c["start"] * u, c["end"] * u) for c, u in zip(reader.chapters, units, strict=True)]
    assert spans == [(0, Fraction(7, 10))]


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"width": 65}, "the file is 65x48"),
        ({"colours": 1}, "1 colours"),
        ({"bits": 10}, "10 bits"),
    ],
)
def test_frames_of_another_format(change: dict[str, Any], text: str) -> None:
    shape: dict[str, Any] = {"width": 64, "height": 48, "bits": 8, "colours": 3} | change
    writer = VideoWriter(io.BytesIO(), "mkv", **shape)
    with pytest.raises(ValueError, match=text):
        writer.write(frames(1)[0])


def test_what_cannot_be_written(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no video format 'xyz'; can be written: mkv, mov, mp4"):
        VideoWriter(io.BytesIO(), "xyz", 64, 48)
    with pytest.raises(ValueError, match="no video format given"):
        VideoWriter(io.BytesIO(), None, 64, 48)
    with pytest.raises(ValueError, match="libx264 takes no yuv420p9le"):
        VideoWriter(io.BytesIO(), "mp4", 64, 48, bits=9)
    with pytest.raises(ValueError, match="bits is 11"):
        VideoWriter(io.BytesIO(), "mkv", 64, 48, bits=11)
    with pytest.raises(ValueError, match="without nothing"):
        VideoWriter(io.BytesIO(), "mp4", 64, 48, options=WriterOptions("nothing"))
    with pytest.raises(ValueError, match="no lossless mode"):
        encoder_options("libsvtav1", "lossless")
    with pytest.raises(ValueError, match="has no frame"):
        VideoWriter(tmp_path / "a.mkv", None, 8, 8).close()
    writer = VideoWriter(io.BytesIO(), "mkv", 64, 48)
    writer.write(frames(1)[0])
    with pytest.raises(ValueError, match="must increase"):
        writer.write(frames(1)[0])
    with pytest.raises(ValueError, match="of track 0; there are 0"):
        writer.write_packet(TrackPacket(0, b"", 0, 0, 0, True))


@pytest.mark.parametrize(
    "track",
    [
        {},
        {"type": "audio", "codec": "aac"},
        {"type": "audio", "codec": "no such", "time_base": [1, 9]},
        {"type": "audio", "codec": "h264", "time_base": [1, 9]},
        {"type": "audio", "codec": "aac", "time_base": [1, 0], "sample_rate": 9, "layout": "mono"},
        {"type": "audio", "codec": "aac", "time_base": [1, 9], "sample_rate": -1, "layout": "mono"},
        {"type": "audio", "codec": "aac", "time_base": [1, 9], "sample_rate": 1 << 40},
        {"type": "audio", "codec": "aac", "time_base": [1, 9], "sample_rate": 9, "layout": "x"},
        {"type": "video", "codec": "h264", "time_base": [1, 9], "width": 0, "height": 9},
        {"type": "attachment"},
        {"type": ["audio"], "codec": {}},
    ],
)
def test_hostile_descriptions_are_dropped(track: dict[str, Any]) -> None:
    data, writer = write(frames(2), "mp4", tracks=[track])
    assert "is dropped" in writer.notes[0]
    assert len(read(data)[1]) == 2


def test_hostile_metadata() -> None:
    for name, value in (
        ("time_base", [1, -25]), ("time_base", "x"), ("average_rate", [0, 0]),
        ("sample_aspect", [1]),
    ):  # fmt: skip
        with pytest.raises(ValueError, match=name):
            write(frames(2), "mkv", info={name: value})
    odd = {"matrix": "x", "primaries": 10**9, "range": 7, "display_matrix": [1, 2], "tags": 3}
    assert len(read(write(frames(2), "mkv", info=odd, tags=5, chapters="x")[0])[1]) == 2
    for chapter in (3, {"time_base": [1, 2]}, {"time_base": [1, 2], "start": 1 << 90, "end": 3}):
        with pytest.raises(ValueError, match="chapter"):
            chapters_to_write([chapter], Fraction(0))


def test_a_sink_takes_any_side_data() -> None:
    track, packets = sound(3)
    with open_av(io.BytesIO(), "w", format="mp4") as container:
        sink = TrackSink(container, track, packets[0])
        side = (("no such kind", b"1"), ("skip_samples", b"12"), ("display_matrix", b""))
        packet = sink.packet(packets[0]._replace(side=side), Fraction(0))
    assert packet is not None
    assert [(s.data_type, bytes(s)) for s in packet.iter_sidedata()] == [("skip_samples", b"12")]


def test_packets_that_no_file_holds_are_left_out() -> None:
    track, packets = sound(6)
    wrong = packets[2]._replace(pts=packets[0].pts, dts=packets[0].dts)
    data, writer = write([*packets[:4], wrong, *packets[4:], *frames(2)], "mp4", tracks=[track])
    assert len(writer.notes) == 1
    assert writer.notes[0].startswith("a packet of track 0 is left out: mp4 can't hold it")
    assert [p.data for p in read(data)[2]] == [p.data for p in packets]


def test_names_of_formats() -> None:
    assert [video_format(n) for n in (".MKV", "m4v", "mp4", ".mts")] == ["mkv", "mp4", "mp4", "ts"]
    assert set(FORMATS) == {"mkv", "webm", "mp4", "mov", "ts", "y4m"}


@pytest.mark.parametrize("format", ["mkv", "mp4"])
@pytest.mark.parametrize("name", CLIPS)
def test_real_files_come_back(name: str, format: str) -> None:
    """Times, packets, colours, rotation: as in the source, of the first second."""
    path = CONTAINER / name
    if not path.exists():
        pytest.skip(f"{path} is not here")
    with open_video(path) as source:
        items = list(source.items(0, 0.5))
    data, writer = write(
        items, format, info=source.info, tracks=source.tracks, chapters=source.chapters,
        tags=source.tags,
    )  # fmt: skip
    reader, shown, found = read(data, stream=0)
    late = -writer._shift
    assert writer.notes == (
        [f"mkv begins at 0; all times are {float(late):.4f} s later"] if late else []
    )
    made = [i for i in items if isinstance(i, VideoFrame)]
    times = [round((f.pts * reader.time_base - late) / source.time_base) for f in shown]
    assert times == [f.pts for f in made]
    if format == "mkv":
        assert samples.same_planes(shown, made)
    same = ("matrix", "primaries", "transfer", "display_matrix", "sample_aspect")
    assert {k: reader.info.get(k) for k in same} == {k: source.info.get(k) for k in same}
    assert reader.info.get("range", "limited") == source.info.get("range", "limited")
    for number, track in enumerate(source.tracks):
        assert reader.tracks[number]["type"] == track["type"]
        if track["type"] == "subtitle":
            continue
        base = Fraction(*track["time_base"])
        own = Fraction(*reader.tracks[number]["time_base"])
        before = [i for i in items if isinstance(i, TrackPacket) and i.track == number]
        after = [p for p in found if p.track == number]
        assert [p.data for p in after] == [p.data for p in before]
        times = [round((p.pts * own - late) / base) for p in after]
        assert times == [p.pts for p in before]
