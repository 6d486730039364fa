"""Sound files of every kind: exact lengths and samples, odd and damaged files."""

import wave
from pathlib import Path

import pytest
import torch

from latentpack.datasets.audio import open_audio, read_audio
from latentpack.datasets.audio_kinds import suffixes

DATA = Path(__file__).parents[1].parent / "shared" / "data"


def write_wav(path, samples, rate=16000, width=2):
    """A WAV file by the standard library, of integers [C, N]."""
    with wave.open(str(path), "wb") as file:
        file.setnchannels(len(samples))
        file.setsampwidth(width)
        file.setframerate(rate)
        flat = samples.T.reshape(-1).to(torch.int32) + (128 if width == 1 else 0)
        raw = flat.view(-1, 1).view(torch.uint8)[:, :width]
        file.writeframes(raw.numpy().tobytes())
    return path


def noise(channels, length, bits=16, seed=0):
    generator = torch.Generator().manual_seed(seed)
    top = 1 << (bits - 1)
    return torch.randint(-top, top, (channels, length), generator=generator, dtype=torch.int64)


@pytest.mark.parametrize("bits", [8, 16, 24, 32])
@pytest.mark.parametrize("channels", [1, 2, 6, 8])
@pytest.mark.parametrize("length", [0, 1, 5000])
def test_integers_of_a_wav_file(tmp_path, bits, channels, length):
    x = noise(channels, length, bits)
    path = write_wav(tmp_path / "a.wav", x, 44100, bits // 8)
    with open_audio(path) as reader:
        assert (reader.sample_rate, reader.channels, reader.bits) == (44100, channels, bits)
        assert not reader.is_float
        found = torch.cat(list(reader.blocks(0.03, torch.int32)), dim=1)
    assert found.dtype == torch.int32 and torch.equal(found.long(), x)
    floats, rate = read_audio(path)
    assert rate == 44100 and torch.equal(floats, (x.double() / 2 ** (bits - 1)).float())


def test_blocks_have_the_size_asked_for(tmp_path):
    path = write_wav(tmp_path / "a.wav", noise(2, 10007), 8000)
    with open_audio(path) as reader:
        assert [b.shape[1] for b in reader.blocks(0.5)] == [4000, 4000, 2007]
        with pytest.raises(RuntimeError, match="open it again"):
            next(reader.blocks())
    with open_audio(path) as reader:
        assert [b.shape[1] for b in reader.blocks(0.5, sample_rate=16000)] == [8000, 8000, 4014]


def test_a_cut_file(tmp_path):
    path = write_wav(tmp_path / "a.wav", noise(1, 16000))
    path.write_bytes(path.read_bytes()[:20000])
    with pytest.raises(ValueError, match=r"a.wav: .*cut short"):
        read_audio(path)
    with open_audio(path, keep_going=True) as reader:
        assert sum(b.shape[1] for b in reader.blocks()) == (20000 - 44) // 2
        assert "cut short" in reader.notes[0]


def test_what_is_no_sound(tmp_path):
    path = tmp_path / "a.wav"
    for data, message in (
        (b"", "the file is empty"),
        (b"I am text", "a text file"),
        (bytes(range(256)) * 8, "no sound that can be read"),
        (b"\x89LPK\r\n\x1a\n" + bytes(99), "latentpack decode"),
    ):
        path.write_bytes(data)
        with pytest.raises(ValueError, match=message):
            open_audio(path)
    with pytest.raises(FileNotFoundError):
        open_audio(tmp_path / "none.wav")
    assert ".wav" in suffixes() and ".txt" not in suffixes()


@pytest.mark.skipif(not DATA.exists(), reason="no shared data")
def test_videos():
    folder = DATA / "video" / "container"
    with open_audio(folder / "torchcodec_nasa_13013.mp4", stream=1) as reader:
        assert (reader.sample_rate, reader.channels, reader.layout) == (16000, 2, "stereo")
        assert sum(b.shape[1] for b in reader.blocks()) == 208896
        assert reader.notes == ["sound 1 of 2 in the file"]
    with pytest.raises(ValueError, match="stream is 2; it has 2 with sound"):
        open_audio(folder / "torchcodec_nasa_13013.mp4", stream=2)
    with pytest.raises(ValueError, match="no sound, but video"):
        open_audio(folder / "torchcodec_h264_10bits.mp4")
    with open_audio(folder / "moviepy_fire2.mp4") as reader:
        assert sum(b.shape[1] for b in reader.blocks()) == 115991
        assert "0.16 s are missing and silent" in reader.notes[0]
