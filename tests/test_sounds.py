"""Sounds through `latentpack encode`, `decode` and `info`: without loss, so that all is told."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from PIL import Image

from latentpack.codecs.container import Reader, Writer
from latentpack.codecs.registry import CODECS
from latentpack.datasets.audio import open_audio, read_audio
from latentpack.datasets.audio_writer import write_audio
from latentpack.scripts import jobs
from latentpack.tests.command_line import fails, run

ROOT = Path(__file__).parents[1]
LOSSLESS = ("--codec", "audio/lossless", "--effort", 0, "--threads", 1)
TAGS = {"title": "A tone", "artist": "Nobody"}


def integers(channels=2, length=30001, bits=16, seed=0):
    """A tone with noise, int32 [C, N]."""
    generator = torch.Generator().manual_seed(seed)
    tone = torch.sin(torch.arange(length) * 0.05) * 2 ** (bits - 3)
    hiss = torch.randn(channels, length, generator=generator) * 20
    return (tone + hiss).round().to(torch.int32)


def write(path, x, rate=8000, bits=16, **options):
    write_audio(path, (x << (32 - bits)), rate, bits=bits, metadata=TAGS, **options)
    return path


def read(path):
    with open_audio(path) as reader:
        return torch.cat(list(reader.blocks(dtype=torch.int32)), dim=1), reader


@pytest.fixture
def tone(tmp_path):
    return write(tmp_path / "tone.wav", integers())


@pytest.fixture
def packed(tone):
    """tone.lpk in packets of 0.5 s, beside tone.wav."""
    from latentpack.scripts import sounds

    with open_audio(tone) as reader, tone.with_suffix(".lpk").open("wb") as file:
        codec = sounds.open_codec("audio/lossless", sample_rate=8000, effort=0, seconds=0.5)
        sounds.write_sound(file, codec, reader.blocks(dtype=torch.int16), None, {"tags": TAGS})
    return tone.with_suffix(".lpk")


@pytest.mark.parametrize(
    ("name", "bits", "channels", "rate"),
    [
        ("a.wav", 16, 2, 44100),
        ("a.wav", 8, 1, 8000),
        ("a.wav", 24, 1, 192000),
        ("a.wav", 32, 3, 11025),
        ("a.flac", 24, 6, 48000),
        ("a.wv", 16, 1, 22050),
    ],
)
def test_every_sample_comes_back(tmp_path, name, bits, channels, rate):
    x = integers(channels, 3001, bits)
    source = write(tmp_path / name, x, rate, bits)
    result = run("encode", source, *LOSSLESS)
    assert result.exit_code == 0, result.output
    size = (tmp_path / "a.lpk").stat().st_size
    seconds = 3001 / rate
    line = f"{size:,} bytes, {seconds:.2f} s, {size * 8 / seconds / 1000:.2f} kbps"
    assert result.stdout == f"{source} -> {tmp_path / 'a.lpk'}: {line}\n"
    out = tmp_path / ("out" + source.suffix)
    result = run("decode", tmp_path / "a.lpk", "-o", out)
    assert result.exit_code == 0, result.output
    assert f"{seconds:.2f} s at {rate} Hz, {channels} channel" in result.stdout
    found, reader = read(out)
    assert torch.equal(found, x) and reader.bits == bits and reader.sample_rate == rate
    assert reader.metadata == TAGS


@pytest.mark.parametrize("length", [0, 1])
def test_short_sounds(tmp_path, length):
    source = write(tmp_path / "a.wav", integers(2, length))
    assert run("encode", source, *LOSSLESS).exit_code == 0
    assert run("info", tmp_path / "a.lpk").exit_code == 0
    assert run("decode", tmp_path / "a.lpk", "-o", tmp_path / "b.wav").exit_code == 0
    assert torch.equal(read(tmp_path / "b.wav")[0], integers(2, length))


def test_floats_are_rounded_and_it_is_said(tmp_path):
    write_audio(tmp_path / "a.wav", torch.rand(1, 800) - 0.5, 8000, bits=0)
    result = run("encode", tmp_path / "a.wav", *LOSSLESS)
    assert "samples in floating point are rounded to 24 bits" in result.stderr
    assert Reader((tmp_path / "a.lpk").read_bytes()).params["b"] == 24
    assert run("encode", tmp_path / "a.wav", *LOSSLESS, "-f", "--bits", 16).exit_code == 0
    assert Reader((tmp_path / "a.lpk").read_bytes()).params["b"] == 16


def test_what_was_coded_with_loss(tmp_path):
    write_audio(tmp_path / "a.mp3", integers(1) / 2**15, 8000)
    result = run("encode", tmp_path / "a.mp3", *LOSSLESS)
    assert result.exit_code == 0 and not result.stderr
    assert run("decode", tmp_path / "a.lpk").exit_code == 0
    found, rate = read_audio(tmp_path / "a.wav")
    expected, _ = read_audio(tmp_path / "a.mp3")
    assert rate == 8000 and (found - expected).abs().max() <= 2**-16


def test_formats_bits_and_the_default_name(tone, packed):
    assert "tone.wav: exists already; --force" in fails("decode", packed)
    out = tone.with_name("out.wav")
    assert run("decode", packed, "-o", out, "--bits", "float").exit_code == 0
    assert read_audio(out)[0].equal(integers().float() / 2**15)
    for name in ("out.mp3", "out.opus", "out.m4a"):
        result = run("decode", packed, "-o", tone.with_name(name))
        assert result.exit_code == 0, result.output
        found, _ = read_audio(tone.with_name(name), sample_rate=8000)
        assert found.shape == (2, 30001)
        assert (found - integers() / 2**15).square().mean().sqrt() < 0.02


@pytest.mark.parametrize(
    ("options", "first", "last"),
    [
        (("--start", "1s"), 8000, 30001),
        (("--duration", "0.3"), 0, 2400),
        (("--start", "1.2345", "--duration", "1.5s"), 9876, 21876),
        (("--start", "3.75"), 30000, 30001),
        (("--start", "0", "--duration", "1h"), 0, 30001),
        (("--start", "2h"), 30001, 30001),
    ],
)
def test_a_stretch(packed, options, first, last):
    result = run("decode", packed, "-o", packed.with_name("part.wav"), *options)
    assert result.exit_code == 0, result.output
    assert torch.equal(read(packed.with_name("part.wav"))[0], integers()[:, first:last])


def test_pipes_tell_sounds_by_their_content(tone, packed):
    result = run("encode", "-", *LOSSLESS[2:], "--codec", "audio/lossless", input=tone.read_bytes())
    assert result.exit_code == 0 and result.stdout_bytes.startswith(b"\x89LPK")
    result = run("decode", "-", "-o", "-", "--format", "flac", input=packed.read_bytes())
    assert result.exit_code == 0 and result.stdout_bytes.startswith(b"fLaC")
    (tone.with_name("back.flac")).write_bytes(result.stdout_bytes)
    assert torch.equal(read(tone.with_name("back.flac"))[0], integers())


def test_threads_reach_the_codec(tone, monkeypatch):
    from latentpack.codecs.audio import lossless

    seen = []
    monkeypatch.setattr(
        lossless, "in_order", lambda job, items, threads: seen.append(threads) or []
    )
    assert run("encode", tone, *LOSSLESS[:-1], 3).exit_code == 0
    assert run("decode", tone.with_suffix(".lpk"), "-f", "--threads", 3).exit_code == 0
    assert seen == [3, 3]


def test_folders_of_pictures_and_sounds(tmp_path, packed):
    """Names choose the kind; what is decoded gets the suffix of its kind."""
    (tmp_path / "in").mkdir()
    packed.rename(tmp_path / "in" / "tone.lpk")
    (tmp_path / "in" / "b.txt").write_text("text")
    result = run("decode", tmp_path / "in", "-o", tmp_path / "out")
    assert result.exit_code == 0 and (tmp_path / "out" / "tone.wav").exists()
    result = run("encode", tmp_path / "out", "-o", tmp_path / "again", *LOSSLESS)
    assert result.exit_code == 0 and (tmp_path / "again" / "tone.lpk").exists()


def test_pictures_and_sounds_of_one_folder_by_the_usual_codecs(tmp_path):
    """With the weights that ship."""
    folder = tmp_path / "in"
    folder.mkdir()
    write(folder / "tone.wav", integers(1, 8000), 16000)
    Image.new("RGB", (64, 64), "red").save(folder / "red.png")
    assert run("encode", folder, "-o", tmp_path / "packed").exit_code == 0
    codecs = {p.stem: Reader(p.read_bytes()).codec_id for p in (tmp_path / "packed").iterdir()}
    assert {name: CODECS[number] for name, number in codecs.items()} == {
        "tone": "audio/rvq",
        "red": "image/light",
    }
    assert run("decode", tmp_path / "packed", "-o", tmp_path / "out").exit_code == 0
    assert read(tmp_path / "out" / "tone.wav")[0].shape == (1, 8000)
    assert Image.open(tmp_path / "out" / "red.png").size == (64, 64)


def test_info(packed):
    result = run("info", packed)
    size = packed.stat().st_size
    assert result.exit_code == 0 and "audio/lossless" in result.stdout
    kbps = size * 8 / (30001 / 8000) / 1000
    for part in ("3.75 s at 8000 Hz, 2 channels", f"{kbps:.2f} kbps", "title A tone", "8, every"):
        assert part in result.stdout
    found = json.loads(run("info", "--json", packed).stdout)
    assert found["sound"] == {"channels": 2, "sample_rate": 8000, "samples": 30001}
    assert found["kbps"] == pytest.approx(kbps) and found["raw_bytes"] == 120004


def damage(packed, number):
    """Flip a bit in the middle of a packet."""
    data = bytearray(packed.read_bytes())
    entries = Reader(bytes(data))._entries()
    data[(entries[number][1] + entries[number + 1][1]) // 2] ^= 1
    packed.write_bytes(data)


def test_damage_is_an_error_or_concealed(packed, tmp_path):
    damage(packed, 2)
    out = tmp_path / "out.wav"
    assert "checksum" in fails("decode", packed, "-o", out)
    assert not out.exists() and not list(tmp_path.glob(".*"))
    result = run("decode", packed, "-o", out, "--keep-going")
    assert result.exit_code == 0 and "samples 8000 to 12000 are silence" in result.stderr
    found, _ = read(out)
    expected = integers()
    expected[:, 8000:12000] = 0
    assert torch.equal(found, expected)
    assert "DAMAGED" in run("info", packed).stdout


def test_a_file_that_was_cut(packed, tmp_path):
    data = packed.read_bytes()
    packed.write_bytes(data[: len(data) * 6 // 10])
    assert "the file" in fails("decode", packed, "-o", tmp_path / "out.wav")
    result = run("decode", packed, "-o", tmp_path / "out.wav", "--keep-going")
    assert result.exit_code == 0 and "only what is whole is decoded" in result.stderr
    found, _ = read(tmp_path / "out.wav")
    assert found.shape == (2, 16000) and torch.equal(found, integers()[:, :16000])


def test_a_damaged_source(tone):
    tone.write_bytes(tone.read_bytes()[:60000])
    assert "cut short" in fails("encode", tone, *LOSSLESS)
    assert not tone.with_suffix(".lpk").exists()
    result = run("encode", tone, *LOSSLESS, "--keep-going")
    assert result.exit_code == 0 and "cut short" in result.stderr


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["text.wav"], "text.wav: no sound but a text file"),
        (["tone.wav", "--kbps", "8"], "audio/lossless takes no kbps: its size is what it is"),
        (["tone.wav", "--bpp", "8"], "--bpp is for pictures; sounds take --kbps or --quality"),
        (["tone.wav", "--show-psnr"], "--show-psnr measures pictures"),
        (["tone.wav", "--stream", "1"], "stream is 1; it has 1 with sound"),
        (["tone.wav", "--bits", "8"], "bits is 8; tone.wav in torch.int16 takes 16 to 16"),
        (["tone.wav", "--max-error", "1"], "audio/lossless has no option 'max_error'"),
        (["none.wav"], "none.wav: no such file"),
        (["tone.wav", "-o", "tone.wav", "-f"], "would overwrite itself"),
    ],
)
def test_wrong_input_is_one_line(tone, monkeypatch, args, message):
    monkeypatch.chdir(tone.parent)
    Path("text.wav").write_text("I am text")
    before = sorted(Path().iterdir())
    assert message in fails("encode", *args, "--codec", "audio/lossless")
    assert sorted(Path().iterdir()) == before


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["-o", "a.xyz"], "no sound format '.xyz'; can be written: aac"),
        (["-o", "a.png"], "no sound format '.png'"),
        (["--format", "xyz"], "no sound format 'xyz'"),
        (["-o", "a.flac", "--bits", "32"], "bits is 32; flac takes 16, 24"),
        (["-o", "a.wav", "--start", "-1"], "'-1' is no time; write 90"),
        (["-o", "a.mp3", "--start", "9h"], "the sound has no sample, which mp3 can't say"),
        (["-o", "a.wav", "--levels", "1"], "audio/lossless has no option 'levels'"),
    ],
)
def test_wrong_input_of_decode_is_one_line(packed, monkeypatch, args, message):
    monkeypatch.chdir(packed.parent)
    before = sorted(Path().iterdir())
    assert message in fails("decode", packed.name, *args)
    assert sorted(Path().iterdir()) == before


def test_foreign_files(tmp_path):
    with (tmp_path / "a.lpk").open("wb") as file, Writer(file, 9, {"c": 0}) as writer:
        writer.close()
    assert "'r', is None" in fails("decode", tmp_path / "a.lpk", "-o", tmp_path / "a.wav")
    with (tmp_path / "b.lpk").open("wb") as file, Writer(file, 1, {}) as writer:
        writer.close()
    assert "`latentpack unpack` unpacks it" in fails("decode", tmp_path / "b.lpk")


@pytest.fixture
def speech(tmp_path, rvq_weights):
    """speech.lpk of audio/rvq at 44.1 kHz in stereo, beside speech.wav; and --weights."""
    source = write(tmp_path / "speech.wav", integers(2, 440_001), 44100)
    options = ("--weights", rvq_weights)
    result = run("encode", source, *options, "--quality", 50)
    assert result.exit_code == 0 and not result.stderr, result.output
    return source.with_suffix(".lpk"), options


def test_networks_keep_length_rate_channels_and_tags(speech):
    packed, weights = speech
    out = packed.with_name("out.flac")
    result = run("decode", packed, "-o", out, *weights)
    assert result.exit_code == 0 and "9.98 s at 44100 Hz, 2 channels" in result.stdout
    found, reader = read(out)
    assert found.shape == (2, 440_001) and reader.metadata == TAGS and reader.bits == 16
    info = run("info", packed).stdout
    assert "audio/rvq" in info and "9.98 s at 44100 Hz, 2 channels" in info


def test_a_stretch_of_networks_is_that_of_the_whole(speech):
    packed, weights = speech
    whole, part = packed.with_name("whole.wav"), packed.with_name("part.wav")
    assert run("decode", packed, "-o", whole, *weights).exit_code == 0
    options = ("--start", "6.1s", "--duration", "2s")
    assert run("decode", packed, "-o", part, *options, *weights).exit_code == 0
    first = round(6.1 * 44100)
    assert torch.equal(read(part)[0], read(whole)[0][:, first : first + 88200])


def test_a_lost_packet_of_networks_is_concealed(speech):
    packed, weights = speech
    damage(packed, 0)
    out = packed.with_name("out.wav")
    assert "checksum" in fails("decode", packed, "-o", out, *weights)
    result = run("decode", packed, "-o", out, "--keep-going", *weights)
    assert result.exit_code == 0 and "packet 0 is missing; what is lost" in result.stderr
    assert read(out)[0].shape == (2, 440_001)


def test_rates_of_sounds(tmp_path, rvq_weights):
    source = write(tmp_path / "a.wav", integers(1, 80_000), 16000)
    packed = tmp_path / "a.lpk"
    for option, value, kbps in (
        ("--kbps", 1.2, 1.2),
        ("--ratio", 256, 1),
        ("--max-bytes", 750, 1.2),
    ):
        result = run("encode", source, "-f", "--weights", rvq_weights, option, value)
        assert result.exit_code == 0, result.output
        reached = packed.stat().st_size * 8 / 5 / 1000
        assert reached <= kbps * 1.0005 or "nearest reached" in result.stderr
    result = run("encode", source, "-f", "--weights", rvq_weights, "--kbps", 500)
    assert "asked for 500.00 kbps, the nearest reached is" in result.stderr


def test_the_bar_shows_the_share_of_a_file(monkeypatch):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    with jobs._bar([jobs.Job("a.wav", "")]) as advance:
        jobs.show_share(0.25)
        advance()
    jobs.show_share(0.5)  # there is none any more


HOUR = """
import resource, sys, torch
from latentpack.datasets.audio_writer import write_audio
from latentpack.scripts import decode, encode, main

def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024

def go(*args):
    try:
        main.cli.main([str(arg) for arg in args], prog_name="latentpack")
    except SystemExit as error:
        assert not error.code, args

folder, seconds = sys.argv[1], int(sys.argv[2])
tone = (torch.sin(torch.arange(8000) * 0.3) * 9000).round().to(torch.int16)[None]
quiet = torch.zeros(1, 8000, dtype=torch.int16)
blocks = (tone if second % 60 == 0 else quiet for second in range(seconds))
write_audio(f"{folder}/long.wav", blocks, 8000)
go("encode", f"{folder}/long.wav", "--codec", "audio/lossless", "--effort", "0")
go("decode", f"{folder}/long.lpk", "-o", f"{folder}/back.wav")
print(peak())
"""


@pytest.mark.slow
def test_an_hour_takes_no_more_memory_than_minutes(tmp_path):
    """An hour is 58 MB as int16 and 115 MB as float32; 12 MB more than for minutes are allowed."""
    peaks = []
    for seconds in (300, 3600):
        done = subprocess.run(
            [sys.executable, "-c", HOUR, str(tmp_path), str(seconds)],
            capture_output=True,
            text=True,
            env={"PYTHONPATH": str(ROOT / ".import"), "OMP_NUM_THREADS": "1"},
        )
        assert done.returncode == 0, done.stderr
        peaks.append(int(done.stdout.split()[-1]))
        assert (tmp_path / "long.wav").read_bytes() == (tmp_path / "back.wav").read_bytes()
        for name in ("long.wav", "long.lpk", "back.wav"):
            (tmp_path / name).unlink()
    assert peaks[1] - peaks[0] < 12, peaks
