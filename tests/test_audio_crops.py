"""Stretches of sounds to train on: a function of step and number, from files of every kind."""

import numpy as np
import pytest
import torch

from latentpack.datasets import audio_crops
from latentpack.datasets.audio_crops import SoundCrops, find_sounds, fixed_stretches, read_mono
from latentpack.datasets.audio_writer import write_audio

SIZE, RATE = 800, 8000


def silent(text):
    raise AssertionError(text)


@pytest.fixture
def folder(tmp_path):
    """Tones of 0.3 to 1 s: formats, rates and channels differ."""
    for number, (name, rate, channels, seconds) in enumerate(
        [("a.wav", 8000, 1, 1.0), ("b/c.flac", 44100, 2, 0.5), ("d.mp3", 16000, 1, 0.3),
         ("e.opus", 48000, 6, 0.3)]
    ):  # fmt: skip
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        t = torch.arange(round(rate * seconds)) / rate
        tone = torch.sin(2 * torch.pi * 300 * (number + 1) * t)[None] / 4
        write_audio(path, tone.expand(channels, -1), rate)
    (tmp_path / "text.txt").write_text("no sound")
    return tmp_path


def crops(folder, **options):
    return SoundCrops(
        [find_sounds([folder])], SIZE, RATE, 5, options.pop("note", silent), **options
    )


def test_a_stretch_is_a_function_of_step_and_number(folder):
    assert [p.name for p in find_sounds([folder])] == ["a.wav", "c.flac", "d.mp3", "e.opus"]
    first, second = crops(folder), crops(folder)
    keys = [(step, number) for step in range(4) for number in range(4)]
    made = [first[key] for key in keys]
    assert all(x.shape == (SIZE,) and x.dtype == torch.float32 for x in made)
    assert all(
        torch.equal(second[key], x) for key, x in reversed(list(zip(keys, made, strict=True)))
    )
    assert len({tuple(x.tolist()) for x in made}) == len(made)
    assert max(float(x.abs().max()) for x in made) <= 1


def test_what_is_on_the_disk_gives_the_same(folder):
    for room in (0, 2 * 8000, 2 * 12000):
        kept, memory = crops(folder, room=room, mix=0.5), crops(folder, mix=0.5)
        for number in range(12):
            assert torch.equal(kept[0, number], memory[0, number])


def test_read_mono(folder):
    tone = torch.sin(2 * torch.pi * 600 * torch.arange(4000) / RATE) / 4
    tone *= 2**0.5  # two channels that are alike: FFmpeg adds them at 3 dB less each
    found = read_mono(folder / "b/c.flac", RATE)
    assert abs(len(found) - 4000) <= 1
    assert (found[100:3900] - tone[100:3900]).abs().max() < 0.01
    assert len(read_mono(folder / "e.opus", RATE)) == pytest.approx(2400, abs=1)


def test_groups_are_drawn_alike_and_sounds_by_length(tmp_path, monkeypatch):
    """Constants say which sound a stretch is from."""
    monkeypatch.setattr(audio_crops, "_augment", lambda x, generator: x)
    for name, level, length in (("a", 0.1, 3000), ("b", 0.2, 9000), ("c", 0.4, 2000)):
        write_audio(tmp_path / f"{name}.wav", torch.full((1, length), level), RATE)
    groups = [[tmp_path / "a.wav", tmp_path / "b.wav"], [tmp_path / "c.wav"]]
    made = SoundCrops(groups, SIZE, RATE, 0, silent)
    levels = np.array([float(made[step, 0][400]) for step in range(400)])
    shares = [float((abs(levels - level) < 0.01).mean()) for level in (0.1, 0.2, 0.4)]
    assert shares == pytest.approx([0.125, 0.375, 0.5], abs=0.07)


def test_what_can_not_be_used_is_named_and_left_out(folder):
    (folder / "text.wav").write_text("text")
    write_audio(folder / "empty.wav", torch.zeros(1, 0), RATE)
    with (folder / "nan.wav").open("wb") as file:
        write_audio(file, torch.zeros(1, 2000), RATE, "wav", bits=0)
    data = bytearray((folder / "nan.wav").read_bytes())
    data[-400:-396] = np.float32("nan").tobytes()
    (folder / "nan.wav").write_bytes(data)
    notes = []
    found = crops(folder, note=notes.append)
    assert [name in note for name, note in zip(("empty", "nan", "text"), notes, strict=True)] == [
        True
    ] * 3
    clean = [p for p in find_sounds([folder]) if p.stem not in ("empty", "nan", "text")]
    assert torch.equal(found[0, 0], SoundCrops([clean], SIZE, RATE, 5, silent)[0, 0])
    with pytest.raises(ValueError, match="none of the sounds can be decoded"):
        SoundCrops([[folder / "text.wav"]], SIZE, RATE, 5, notes.append)


def test_short_sounds_end_in_silence(tmp_path):
    write_audio(tmp_path / "a.wav", torch.full((1, 10), 0.5), RATE)
    assert crops(tmp_path)[0, 0].shape == (SIZE,)
    (stretch,) = fixed_stretches([tmp_path / "a.wav"], SIZE, RATE, silent)
    assert stretch.shape == (SIZE,) and int((stretch > 0.4).sum()) == 10


def test_missing_folders(tmp_path):
    with pytest.raises(FileNotFoundError):
        find_sounds([tmp_path / "none"])
    with pytest.raises(ValueError, match="no sound below"):
        find_sounds([tmp_path])
