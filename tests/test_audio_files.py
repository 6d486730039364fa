"""Sound files of every kind: exact lengths and samples, odd and damaged files."""

import io
import wave
from pathlib import Path

import av
import numpy as np
import pytest
import torch

from latentpack.datasets.audio import open_audio, read_audio
from latentpack.datasets.audio_kinds import suffixes
from latentpack.datasets.audio_writer import write_audio

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


def write_with_clock(path, starts):
    """A file of 1 s of sound at 8 kHz for each start in seconds, which its time stamps say."""
    with av.open(str(path), "w", format="matroska") as container:
        stream = container.add_stream("pcm_s16le", rate=8000, layout="mono")
        for number, start in enumerate(starts):
            samples = np.full((1, 8000), number + 1, np.int16)
            frame = av.AudioFrame.from_ndarray(samples, format="s16", layout="mono")
            frame.sample_rate, frame.pts = 8000, round(start * 8000)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


@pytest.mark.parametrize(
    ("starts", "silence", "said"),
    [
        ((0, 1, 2), 0, None),
        ((0, 1.5, 2.5), 4000, "at 1.00 s: 0.50 s are missing and silent"),
        ((3, 4.02, 5.04), 0, None),
        ((0, 1000, 1001), 0, "at 1.00 s: the clock jumps by +999.00 s; the sound is joined"),
        ((10, 10.5, 11.5), 0, "at 1.00 s: the clock jumps by -0.50 s; the sound is joined"),
    ],
)
def test_clocks_with_gaps(tmp_path, starts, silence, said):
    with open_audio(write_with_clock(tmp_path / "a.mkv", starts)) as reader:
        x = torch.cat(list(reader.blocks(dtype=torch.int16)), dim=1)[0]
    assert [int((x == n).sum()) for n in range(4)] == [silence, 8000, 8000, 8000]
    assert reader.notes == ([] if said is None else [said])


def test_playlists_open_nothing(tmp_path):
    (tmp_path / "a.wav").write_bytes(b"no matter")
    for text in (
        "#EXTM3U\n#EXTINF:1,\na.wav\n#EXT-X-ENDLIST\n",
        "ffconcat version 1.0\nfile a.wav\n",
    ):
        (tmp_path / "list.m3u8").write_text(text)
        with pytest.raises(ValueError, match="a text file"):
            open_audio(tmp_path / "list.m3u8")


@pytest.mark.parametrize("name", ["wav", "flac", "mp3", "opus", "m4a", "wv", "aiff", "caf", "mka"])
def test_damage_never_ends_in_another_error(name):
    """Seeded mutations and cuts; what is decoded stays within reason."""
    file = io.BytesIO()
    write_audio(file, noise(2, 6000).float() / 2**17, 8000, name)
    whole = file.getvalue()
    generator = np.random.default_rng(len(name))
    for number in range(24):
        data = bytearray(whole)
        for at in generator.integers(0, len(data) if number % 2 else 200, 1 + number % 5):
            data[at] = generator.integers(256)
        if number % 4 == 0:
            data = data[: generator.integers(len(data))]
        for keep_going in (False, True):
            try:
                with open_audio(io.BytesIO(bytes(data)), keep_going=keep_going) as reader:
                    count = sum(block.shape[1] for block in reader.blocks())
            except ValueError:
                continue
            assert count < 60 * 768_000


@pytest.mark.skipif(not DATA.exists(), reason="no shared data")
def test_videos():
    folder = DATA / "video" / "container"
    with open_audio(folder / "torchcodec_nasa_13013.mp4", stream=1) as reader:
        assert (reader.sample_rate, reader.channels, reader.layout) == (16000, 2, "stereo")
        assert sum(b.shape[1] for b in reader.blocks()) == 208896
        assert reader.notes == ["sound 1 of 2 in the file", "the video is left out"]
    with pytest.raises(ValueError, match="stream is 2; it has 2 with sound"):
        open_audio(folder / "torchcodec_nasa_13013.mp4", stream=2)
    with pytest.raises(ValueError, match="no sound, but video"):
        open_audio(folder / "torchcodec_h264_10bits.mp4")
    with open_audio(folder / "moviepy_fire2.mp4") as reader:
        assert sum(b.shape[1] for b in reader.blocks()) == 115991
        assert "0.16 s are missing and silent" in reader.notes[1]
