"""Videos in .mp4 files: what is taken out is what was put in, and the sounds play as they are."""

import io
import random
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest

from latentpack.codecs import registry
from latentpack.codecs.codec import Packet
from latentpack.codecs.container import Reader, Writer
from latentpack.codecs.video import carrier
from latentpack.codecs.video.gop_times import Times, put_times
from latentpack.codecs.video.tracks import part_key, put_part
from latentpack.kernels.errors import BitstreamError

from .command_line import fails, run
from .video_samples import open_av, sound


def _film(sounds: int = 2, base: tuple[int, int] = (1, 90000)) -> bytes:
    """A .lpk file of a video of 4 s, two sounds, subtitles that no MP4 holds, a part at the end."""
    random.seed(3)
    made = [sound(190, codec) for codec in ("aac", "ac3")[:sounds]]
    text = {"type": "subtitle", "codec": "hdmv_pgs_subtitle", "time_base": [1, 1000]}
    tracks = [made[0][0], text, *(track for track, _ in made[1:])] if made else [text]
    info = {"video": {"time_base": list(base)}, "tracks": tracks}
    file = io.BytesIO()
    header = {"s": [32, 32], "b": 8, "c": 3, "g": 25}
    with Writer(file, registry.codec_id("video/lite"), header, info) as writer:
        for gop in range(4):
            for number, (_, packets) in zip((0, 2), made, strict=False):
                part = [p._replace(track=number) for p in packets[47 * gop : 47 * (gop + 1)]]
                writer.write(Packet(part_key(number, gop), put_part(part)))
            pts = [90000 * gop + 3600 * i + i % 2 for i in range(25)]
            body = put_times(Times(pts, [3600] * 25)) + random.randbytes(random.randrange(1, 9999))
            writer.write(Packet(gop, body))
        for number, (_, packets) in zip((0, 2), made, strict=False):
            rest = [p._replace(track=number) for p in packets[188:]]
            writer.write(Packet(part_key(number, 4), put_part(rest)))
    return file.getvalue()


@pytest.mark.parametrize("sounds", [0, 1, 2])
def test_there_and_back(tmp_path: Path, sounds: int) -> None:
    film, movie, again = (tmp_path / name for name in ("a.lpk", "a.mp4", "b.lpk"))
    film.write_bytes(_film(sounds))
    done = run("carry", film)
    assert f"{sounds} of {sounds + 1} tracks playable" in done.stdout
    run("carry", movie, "-o", again)
    assert again.read_bytes() == film.read_bytes()
    assert movie.stat().st_size < film.stat().st_size + 9000


def test_any_player_hears_the_sounds(tmp_path: Path) -> None:
    film, movie = tmp_path / "a.lpk", tmp_path / "a.mp4"
    film.write_bytes(_film())
    run("carry", film, "-o", movie)
    with open_av(str(movie)) as container:
        assert [s.type for s in container.streams] == ["data", "audio", "audio"]
        assert [s.language for s in container.streams.audio] == ["fra", "fra"]
        assert sum(f.samples for f in container.decode(audio=0)) >= 188 * 1024
    with open_av(str(movie)) as container:
        samples = [p for p in container.demux(container.streams[0]) if p.size]
        times = [p.pts * container.streams[0].time_base for p in samples]
        assert times == [0, 0, 1, 2, 3, 4]
        stream = container.streams[0]
        container.seek(int(Fraction(5, 2) / stream.time_base), stream=stream)
        found = next(p for p in container.demux(stream) if p.size)
        assert [piece.key for piece in carrier.get_sample(bytes(found))][-1] == 2
    with open_av(str(movie)) as container:
        packets = [bytes(p) for p in container.demux(audio=0) if p.size]
    assert packets == [p.data for p in sound(190)[1]]


def test_what_is_no_carrier(tmp_path: Path) -> None:
    film, movie, other = (tmp_path / name for name in ("a.lpk", "a.mp4", "c.mp4"))
    film.write_bytes(_film(1))
    run("carry", film)
    assert "is a .lpk file already" in fails("carry", film, "-o", tmp_path / "b.lpk")
    assert "exists" in fails("carry", film, "-o", movie)
    other.write_bytes(b"no film at all")
    assert "no MP4 file, or damaged" in fails("carry", other)
    track, packets = sound(5)
    from latentpack.datasets.video_tracks import TrackSink

    with open_av(str(other), "w") as container:
        sink = TrackSink(container, track, packets[0])
        for packet in packets:
            container.mux(sink.packet(packet, Fraction(0)))
    assert "holds no video of latentpack, but audio" in fails("carry", other)
    assert not (tmp_path / "c.lpk").exists()
    with Writer(file := io.BytesIO(), registry.codec_id("tensor/lossless"), {}):
        pass
    film.write_bytes(file.getvalue())
    assert "it holds tensor/lossless" in fails("carry", film, "-o", tmp_path / "d.mp4")


def test_sounds_that_were_changed_are_noticed(tmp_path: Path) -> None:
    film, movie, other = (tmp_path / name for name in ("a.lpk", "a.mp4", "c.mp4"))
    film.write_bytes(_film(1))
    run("carry", film)
    data = movie.read_bytes()
    victim = sound(190)[1][60].data
    place = data.index(victim)
    other.write_bytes(data[: place + 9] + bytes([data[place + 9] ^ 1]) + data[place + 10 :])
    assert "has changed the tracks of the file" in fails("carry", other)


def test_cut_and_damaged_files_are_refused_or_whole(tmp_path: Path) -> None:
    film, movie, other = (tmp_path / name for name in ("a.lpk", "a.mp4", "c.mp4"))
    film.write_bytes(_film(1))
    run("carry", film)
    data = movie.read_bytes()
    random.seed(4)
    for i in range(12):
        changed = bytearray(data)
        changed[random.randrange(len(data))] ^= 1 << i % 8
        other.write_bytes(bytes(changed) if i % 3 else data[: len(data) * i // 12])
        done = run("carry", other, "--force")
        assert done.exit_code in (0, 2)


def test_samples() -> None:
    packets = [Packet("x", b"abc"), Packet(7, b""), Packet(part_key(0, 1), _part())]
    pieces = [carrier.piece_of(p, i == 2) for i, p in enumerate(packets)]
    sample = carrier.put_sample(pieces)
    found = list(carrier.get_sample(sample))
    assert found == pieces
    assert [carrier.packet_of(p, iter([b"12", b"345"])) for p in found] == packets
    with pytest.raises(BitstreamError, match="has changed the tracks"):
        carrier.packet_of(found[2], iter([b"12"]))
    with pytest.raises(ValueError, match="has bulk"):
        carrier.piece_of(Packet(1, b"", b"x"), False)
    for size in range(1, len(sample)):
        try:
            assert len(list(carrier.get_sample(sample[:size]))) < 3
        except BitstreamError:
            pass
    with pytest.raises(BitstreamError, match="form of a piece"):
        list(carrier.get_sample(b"\0\x05\0"))
    for start in (b"", b"\xff\xff\x03", b"\1", b"\0no lpk file at all"):
        with pytest.raises(BitstreamError):
            carrier.get_start(start)


def _part() -> bytes:
    from latentpack.codecs.video.tracks import TrackPacket

    return put_part([TrackPacket(0, data, 0, 0, 0, True) for data in (b"12", b"345")])


def test_the_start_of_a_file() -> None:
    reader = Reader(_film(0))
    found, carried = carrier.get_start(carrier.put_start(reader, [0, 2]))
    assert carried == [0, 2]
    known: Any = (found.codec_id, found.params, found.metadata)
    assert known == (reader.codec_id, reader.params, reader.metadata)
