"""Videos on the command line, by a codec that is there for tests only."""

import json
import warnings
from fractions import Fraction

import numpy as np
import pytest

from latentpack.codecs.container import Reader
from latentpack.tests.command_line import fails, run
from latentpack.tests.films import film, frames_in, packets_in, register, samples_in, tone

CODEC = ("--codec", "video/shallow", "-q", "100")


@pytest.fixture(autouse=True)
def shallow(monkeypatch):
    register(monkeypatch)


def same_frames(a, b):
    return [t for t, _ in a] == [t for t, _ in b] and all(
        np.array_equal(x, y) for (_, x), (_, y) in zip(a, b, strict=True)
    )


def test_a_film_comes_back(tmp_path):
    source = film(tmp_path / "a.mkv", sounds=2)
    result = run("encode", source, *CODEC)
    assert result.exit_code == 0, result.stderr
    assert "32x24, 25 frames, 1.00 s" in result.stdout
    result = run("decode", tmp_path / "a.lpk", "-o", tmp_path / "b.mkv")
    assert result.exit_code == 0, result.stderr
    assert same_frames(frames_in(source), frames_in(tmp_path / "b.mkv"))
    assert packets_in(source) == packets_in(tmp_path / "b.mkv")


def test_times_and_offsets_are_kept(tmp_path):
    times = [0, 37, 90, 91, 250, 251, 400]
    source = film(tmp_path / "a.mkv", times=times, offset=0.25, seconds=0.5)
    assert run("encode", source, *CODEC).exit_code == 0
    assert run("decode", tmp_path / "a.lpk", "-o", tmp_path / "b.mkv").exit_code == 0
    assert [round(t * 1000) for t, _ in frames_in(tmp_path / "b.mkv")] == times
    found, start = samples_in(tmp_path / "b.mkv")
    assert abs(start - 0.25) < 1e-3
    assert np.array_equal(found, samples_in(source)[0])


def test_a_part_is_encoded(tmp_path):
    source = film(tmp_path / "a.mkv", count=50)
    result = run("encode", source, *CODEC, "--start", "0.4", "--end", "1.2s")
    assert result.exit_code == 0, result.stderr
    assert "20 frames, 0.80 s" in result.stdout
    run("decode", tmp_path / "a.lpk", "-o", tmp_path / "b.mkv")
    found = frames_in(tmp_path / "b.mkv")
    assert [round(t * 25) for t, _ in found] == list(range(20))  # a part begins at 0
    assert np.array_equal(found[0][1], frames_in(source)[10][1])
    assert abs(len(samples_in(tmp_path / "b.mkv")[0][0]) / 8000 - 0.8) < 0.2


def test_a_part_is_decoded(tmp_path):
    source = film(tmp_path / "a.mkv", count=50)
    run("encode", source, *CODEC)
    lpk, out = tmp_path / "a.lpk", tmp_path / "b.mkv"
    for how in (("--end", "1.2"), ("--duration", "0.8s")):
        result = run("decode", lpk, "-o", out, "--start", "0.4", *how, "-f")
        assert result.exit_code == 0, result.stderr
        found = frames_in(out)
        assert same_frames([(t + Fraction(2, 5), x) for t, x in found], frames_in(source)[10:30])
        assert samples_in(out)[1] <= 0.01


def test_only_the_gops_of_a_part_are_read(tmp_path, monkeypatch):
    source = film(tmp_path / "a.mkv", count=80)
    run("encode", source, *CODEC)
    read = []
    whole = Reader.read
    monkeypatch.setattr(Reader, "read", lambda self, key: read.append(key) or whole(self, key))
    run("decode", tmp_path / "a.lpk", "-o", tmp_path / "b.mkv", "--start", "1.6", "--end", "2s")
    gops = [key for key in read if isinstance(key, int)]
    assert len(gops) < 12  # of 20: a search, and the three that are decoded
    assert {10, 11, 12} <= set(gops)


@pytest.mark.parametrize("suffix", [".mkv", ".mp4"])
def test_sounds_are_coded(tmp_path, suffix):
    source = film(tmp_path / "a.mkv", count=50, offset=0.25, sounds=2)
    result = run("encode", source, *CODEC, "--audio", "audio/lossless")
    assert result.exit_code == 0, result.stderr
    out = tmp_path / f"b{suffix}"
    result = run("decode", tmp_path / "a.lpk", "-o", out)
    assert result.exit_code == 0, result.stderr
    for number in range(2):
        found, start = samples_in(out, number)
        wanted = tone(16000, hz=440 + 110 * number)
        if suffix == ".mkv":
            assert start == Fraction(1, 4)
            assert np.array_equal(found, wanted)
        else:  # AAC, which starts before the sound
            assert alike(found, start, wanted) > 0.98


def alike(found, start, wanted, at=4000, length=4000):
    """How much a sound is like another, which begins at 0.25 s."""
    offset = round((0.25 - float(start)) * 8000)
    part = found[0, at + offset : at + offset + length].astype(float)
    return np.corrcoef(part, wanted[0, at : at + length])[0, 1]


def test_sounds_are_coded_with_loss(tmp_path):
    source = film(tmp_path / "a.mkv", count=8, offset=0.25, seconds=1.0)
    result = run("encode", source, *CODEC, "--audio", "code", "--audio-kbps", "6")
    assert result.exit_code == 0, result.stderr
    assert (tmp_path / "a.lpk").stat().st_size < 4000
    result = run("decode", tmp_path / "a.lpk", "-o", tmp_path / "b.mkv")
    assert result.exit_code == 0, result.stderr
    found, start = samples_in(tmp_path / "b.mkv")
    assert start == Fraction(1, 4) and found.shape == (1, 8000)
    assert alike(found, start, tone(8000), 2000) > 0.5


def test_a_part_of_coded_sounds(tmp_path):
    source = film(tmp_path / "a.mkv", count=50)
    run("encode", source, *CODEC, "--audio", "audio/lossless", "--start", "0.4")
    run("decode", tmp_path / "a.lpk", "-o", tmp_path / "b.mkv", "--start", "0.4", "--end", "0.8")
    found, start = samples_in(tmp_path / "b.mkv")
    assert start == 0
    assert np.array_equal(found, tone(16000)[:, 6400:9600])


def test_sounds_are_dropped(tmp_path):
    source = film(tmp_path / "a.mkv")
    run("encode", source, *CODEC, "--audio", "drop")
    run("decode", tmp_path / "a.lpk", "-o", tmp_path / "b.mkv")
    assert packets_in(tmp_path / "b.mkv") == []
    assert len(frames_in(tmp_path / "b.mkv")) == 25


def test_through_pipes(tmp_path):
    source = film(tmp_path / "a.mkv")
    packed = run("encode", "-", "-o", "-", *CODEC, input=source.read_bytes())
    assert packed.exit_code == 0, packed.stderr
    found = run("decode", "-", "-o", "-", "--format", "y4m", input=packed.stdout_bytes)
    assert found.exit_code == 0, found.stderr
    assert "the picture only" in found.stderr
    assert found.stdout_bytes.startswith(b"YUV4MPEG2 W32 H24 F25:1")
    assert same_frames(frames_in(found.stdout_bytes), frames_in(source))
    again = run("encode", "-", "-o", tmp_path / "c.lpk", *CODEC, input=found.stdout_bytes)
    assert again.exit_code == 0, again.stderr
    through = run("decode", tmp_path / "c.lpk", "-o", "-", "--format", "mkv")
    assert same_frames(frames_in(through.stdout_bytes), frames_in(source))


def test_odd_sizes(tmp_path):
    source = film(tmp_path / "a.mkv", count=5, size=(33, 21), sounds=0)
    run("encode", source, *CODEC)
    run("decode", tmp_path / "a.lpk", "-o", tmp_path / "b.mkv")
    assert same_frames(frames_in(source), frames_in(tmp_path / "b.mkv"))
    result = run("decode", tmp_path / "a.lpk", "-o", tmp_path / "b.mp4")
    assert "even sizes only" in result.stderr


def test_sizes_are_met(tmp_path):
    source = film(tmp_path / "a.mkv", count=50)
    beside = sum(len(data) for _, _, data in packets_in(source))
    lpk = tmp_path / "a.lpk"
    for kbps in (150, 250):
        result = run("encode", source, "--codec", "video/shallow", "--kbps", kbps, "-f")
        assert result.exit_code == 0, result.stderr
        assert lpk.stat().st_size < kbps * 250 * 1.05 and lpk.stat().st_size > beside
    result = run("encode", source, "--codec", "video/shallow", "--max-bytes", beside + 6000, "-f")
    assert result.exit_code == 0, result.stderr
    assert lpk.stat().st_size <= beside + 6000
    text = fails("encode", source, "--codec", "video/shallow", "--max-bytes", beside, "-f")
    assert "out of reach" in text
    assert lpk.stat().st_size <= beside + 6000  # what was there is still there


def test_kinds_of_files(tmp_path, monkeypatch):
    """A film is a video; a codec of sounds takes its sound; without a picture it is a sound."""
    from latentpack.scripts import media, video_files

    monkeypatch.setattr(video_files, "USUAL_CODEC", "video/shallow")
    source = film(tmp_path / "a.mkv")
    assert "32x24" in run("encode", source).stdout
    result = run("encode", source, "-o", tmp_path / "s.lpk", "--codec", "audio/lossless")
    assert result.exit_code == 0, result.stderr
    assert Reader((tmp_path / "s.lpk").read_bytes()).codec_id == 9
    source.rename(tmp_path / "unknown")
    assert "32x24" in run("encode", tmp_path / "unknown", "-o", tmp_path / "u.lpk").stdout
    import av

    with av.open(str(tmp_path / "sound.mp4"), "w") as container:
        stream = container.add_stream("aac", rate=8000, layout="mono")
        frame = av.AudioFrame.from_ndarray(tone(8000), "s16", "mono")
        frame.sample_rate = 8000
        container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    result = run("encode", tmp_path / "sound.mp4", "--codec", "audio/lossless", "--start", "1s")
    assert result.exit_code == 2 and "--start has no meaning" in result.stderr
    with (tmp_path / "sound.mp4").open("rb") as file:
        assert media.kind_of("sound.mp4", file, None) == media.SOUND


def test_a_file_that_was_cut(tmp_path):
    source = film(tmp_path / "a.mkv", count=40, sounds=0)
    run("encode", source, *CODEC)
    data = (tmp_path / "a.lpk").read_bytes()
    cut = tmp_path / "cut.lpk"
    cut.write_bytes(data[: len(data) * 2 // 3])
    out = tmp_path / "b.mkv"
    fails("decode", cut, "-o", out)
    assert not out.exists()
    result = run("decode", cut, "-o", out, "--keep-going")
    assert result.exit_code == 0, result.stderr
    assert "only what is whole is decoded" in result.stderr
    found = frames_in(out)
    assert 20 <= len(found) < 40
    assert same_frames(found, frames_in(source)[: len(found)])


def test_a_damaged_packet(tmp_path):
    source = film(tmp_path / "a.mkv", count=40)
    run("encode", source, *CODEC)
    data = bytearray((tmp_path / "a.lpk").read_bytes())
    reader = Reader(bytes(data))
    body = reader.read(4).body
    data[bytes(data).index(body) + len(body) // 2] ^= 1
    (tmp_path / "bad.lpk").write_bytes(data)
    fails("decode", tmp_path / "bad.lpk", "-o", tmp_path / "b.mkv")
    result = run("decode", tmp_path / "bad.lpk", "-o", tmp_path / "b.mkv", "--keep-going")
    assert result.exit_code == 0, result.stderr
    assert "packet 4" in result.stderr
    found = frames_in(tmp_path / "b.mkv")
    assert same_frames(found, frames_in(source)[:16] + frames_in(source)[20:])
    result = run("info", tmp_path / "bad.lpk")
    assert result.exit_code == 2 and "36 frames in 9 GoPs" in result.stdout


@pytest.mark.parametrize("at", range(0, 100, 7))
def test_damage_ends_in_one_line(tmp_path, at):
    """Bits flipped anywhere end with a line, or with a file."""
    source = film(tmp_path / "a.mkv", count=9, size=(8, 8))
    run("encode", source, *CODEC, "--audio", "audio/lossless")
    data = bytearray((tmp_path / "a.lpk").read_bytes())
    data[len(data) * at // 100] ^= 16
    (tmp_path / "bad.lpk").write_bytes(data)
    fails("decode", tmp_path / "bad.lpk", "-o", tmp_path / "b.mkv")
    with warnings.catch_warnings(action="ignore"):
        result = run("decode", tmp_path / "bad.lpk", "-o", tmp_path / "c.mkv", "--keep-going")
    assert result.exit_code in (0, 2)


def test_info(tmp_path):
    source = film(tmp_path / "a.mkv", sounds=2)
    run("encode", source, *CODEC, "--gop", 10)
    found = json.loads(run("info", tmp_path / "a.lpk", "--json").stdout)
    video = found["video"]
    assert (video["frames"], video["gops"], video["gop"]) == (25, 3, 10)
    assert found["seconds"] == 1.0 and found["whole"]
    assert video["picture_bytes"] + video["track_bytes"] < found["bytes"]
    text = run("info", tmp_path / "a.lpk").stdout
    assert "32x24, 8 bits, 4:2:0, 25 frames in 3 GoPs of at most 10, 1.00 s, 25.00 fps" in text
    assert text.count("audio, pcm_s16le, 8000 Hz") == 2


def test_what_is_refused(tmp_path):
    source = film(tmp_path / "a.mkv")
    for options, text in (
        (("--end", "1s", "--start", "1s"), "not behind --start"),
        (("--audio", "mp3"), "copy, drop, code"),
        (("--audio", "audio/none"), "unknown"),
        (("--start", "9s"), "no frame is shown"),
        (("--stream", "3"), "it has 1 videos"),
        (("--show-psnr",), "evaluate video"),
        (("--effort", "3"), "no option 'effort'"),
    ):
        assert text in fails("encode", source, *CODEC, *options)
    assert not (tmp_path / "a.lpk").exists()
    run("encode", source, *CODEC)
    lpk, out = tmp_path / "a.lpk", tmp_path / "b.mkv"
    for options, text in (
        (("--start", "2s"), "no frame is shown"),
        (("--end", "1s", "--duration", "1s"), "exclude each other"),
        (("--bits", "16"), "--bits has no meaning"),
        (("--crf", "high"), "no number"),
        (("--encoder", "none"), "without none"),
        (("--format", "exe"), "exe"),
    ):
        assert text in fails("decode", lpk, "-o", out, *options)
    assert not out.exists()
    text = tmp_path / "text.mp4"
    text.write_text("no film")
    assert "text file" in fails("encode", text, *CODEC)
