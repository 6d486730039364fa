"""Writing sound: every format gives back the length and the tags, lossless ones the samples."""

import io

import pytest
import torch

from latentpack.datasets.audio import open_audio
from latentpack.datasets.audio_writer import FORMATS, AudioWriter, audio_format, write_audio

LOSSLESS = {"wav": (8, 16, 24, 32), "flac": (16, 24), "aiff": (24,), "wv": (16, 32), "caf": (24,)}
TAGS = {"title": "Tést", "artist": "somebody"}


def tones(channels, length, rate):
    t = torch.arange(length) / rate
    return torch.stack([torch.sin(2 * torch.pi * 300 * (c + 1) * t) / 2 for c in range(channels)])


def integers(bits, channels=2, length=5003):
    generator = torch.Generator().manual_seed(bits)
    top = 1 << (bits - 1)
    return torch.randint(-top, top, (channels, length), generator=generator).to(torch.int32)


def read(source, **options):
    with open_audio(source) as reader:
        return torch.cat(list(reader.blocks(**options)), dim=1), reader


@pytest.mark.parametrize("name", sorted(FORMATS))
def test_floats_in_every_format(tmp_path, name):
    x = tones(2, 10007, 16000)
    path = tmp_path / f"a.{name}"
    assert write_audio(path, x.split(1000, dim=1), 16000, metadata=TAGS) == []
    found, reader = read(path, sample_rate=16000)
    if name == "aac":  # a raw stream says nothing of what the encoder put before and behind
        assert found.shape[1] > 10007
        return
    assert found.shape == x.shape and reader.metadata == TAGS
    error = (found - x)[:, 1000:-1000].square().mean().sqrt()
    assert error < (2**-16 if FORMATS[name].codecs else 0.02)


@pytest.mark.parametrize(
    ("name", "bits"),
    [(name, bits) for name, known in LOSSLESS.items() for bits in known],
)
def test_integers_come_back(tmp_path, name, bits):
    x = integers(bits)
    with AudioWriter(tmp_path / f"a.{name}", 44100, 2, bits=bits) as writer:
        for block in x.split(999, dim=1):
            writer.write(block, bits)
    assert not writer.notes
    found, reader = read(tmp_path / f"a.{name}", dtype=torch.int32)
    assert reader.bits == bits and torch.equal(found, x)


@pytest.mark.parametrize("channels", [1, 3, 6, 8, 12])
@pytest.mark.parametrize("name", ["wav", "flac", "opus", "m4a", "mp3", "aiff"])
def test_channels(channels, name):
    file = io.BytesIO()
    x = tones(channels, 3000, 48000)
    most = {"mp3": 2, "flac": 8, "opus": 8, "m4a": 8}.get(name, 99)
    if channels > most:
        with pytest.raises(ValueError, match=rf"{name} with {channels} channels .*; wav can"):
            write_audio(file, x, 48000, name)
        return
    write_audio(file, x, 48000, name)
    file.seek(0)
    assert read(file)[0].shape == x.shape


@pytest.mark.parametrize("name", ["wav", "flac", "mp3", "opus", "m4a"])
def test_short_sounds(tmp_path, name):
    path = tmp_path / f"a.{name}"
    write_audio(path, torch.full((1, 2000), 0.25), 48000)
    assert read(path)[0].shape == (1, 2000)
    empty = torch.zeros(1, 0)
    if not FORMATS[name].codecs:
        with pytest.raises(ValueError, match="no sample, which"):
            write_audio(path, empty, 48000)
        return
    for x in (empty, torch.full((1, 1), 0.25)):
        write_audio(path, x, 48000)
        assert torch.equal(read(path)[0], x)


def test_a_rate_that_the_format_lacks(tmp_path):
    x = tones(1, 22050, 22050)
    notes = write_audio(tmp_path / "a.opus", x, 22050)
    assert notes == ["opus is written at 24000 Hz instead of 22050 Hz"]
    found, _ = read(tmp_path / "a.opus", sample_rate=22050)
    assert abs(found.shape[1] - 22050) <= 1


def test_what_does_not_fit_is_said(tmp_path):
    path = tmp_path / "a.wav"
    assert write_audio(path, torch.full((1, 10), 1.5), 8000) == [
        "10 samples were louder than full scale and are clipped"
    ]
    assert read(path, dtype=torch.int16)[0].unique().tolist() == [32767]
    assert write_audio(path, torch.full((1, 10), 1.5), 8000, bits=0) == []
    assert read(path)[0].unique().tolist() == [1.5]
    assert write_audio(tmp_path / "a.flac", integers(32), 8000) == [
        "flac is written with 24 of 32 bits"
    ]


def test_a_pipe_gets_everything_at_the_end():
    class Pipe(io.BytesIO):
        def seekable(self):
            return False

    pipe, file = Pipe(), io.BytesIO()
    for target in (pipe, file):
        write_audio(target, tones(1, 9000, 8000), 8000, "m4a")
    assert pipe.getvalue() == file.getvalue()


def test_wrong_arguments(tmp_path):
    assert audio_format(".AIF") == "aiff"
    with pytest.raises(ValueError, match="no sound format 'xyz'; can be written: aac"):
        audio_format("xyz")
    with pytest.raises(ValueError, match="bits is 32; flac takes 16, 24"):
        AudioWriter(tmp_path / "a.flac", 8000, 1, bits=32)
    with pytest.raises(ValueError, match=r"a block is \[2, 5\], expected \[1, n\]"):
        AudioWriter(tmp_path / "a.wav", 8000, 1).write(torch.zeros(2, 5))
    with pytest.raises(ValueError, match="NaN or infinity"):
        write_audio(tmp_path / "a.wav", torch.tensor([[float("nan")]]), 8000)
    with pytest.raises(ValueError, match="give an empty one"):
        write_audio(tmp_path / "b.wav", [], 8000)
