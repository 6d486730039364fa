"""Random stretches of folders of sounds, for training, and fixed ones to validate on.

Sounds are decoded once, to one channel at one sample rate.
"""

from __future__ import annotations

import errno
import functools
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import av
import numpy as np
import torch
import torchaudio
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset

Note = Callable[[str], object]
_SUFFIXES = {".flac", ".wav", ".mp3", ".ogg", ".opus", ".m4a", ".aac", ".wma", ".aiff", ".aif"}
_SPEEDS = (0.85, 0.9, 0.95, 1.0, 1.0, 1.05, 1.1, 1.2)
_GAIN_DB = (-12.0, 6.0)
_TILT_DB = 6.0  # of random filters, at most, at each of a few frequencies
_POINTS = 6


def find_sounds(folders: Iterable[Path]) -> list[Path]:
    """All sound files below `folders`, in the order of their paths.

    Raises:
        ValueError: there is none. FileNotFoundError: there is no such folder.
    """
    found = []
    for folder in folders:
        if not folder.exists():
            raise FileNotFoundError(errno.ENOENT, "no such folder", str(folder))
        files = [folder] if folder.is_file() else folder.rglob("*")
        found += [file for file in files if file.suffix.lower() in _SUFFIXES]
    if not found:
        raise ValueError(f"no sound below {', '.join(map(str, folders))}")
    return sorted(set(found))


def read_mono(path: Path, sample_rate: int) -> Tensor:
    """A sound as one channel, float [N] in [-1, 1].

    Raises:
        ValueError: it can't be decoded.
    """
    try:
        with av.open(str(path)) as file:
            resampler = av.AudioResampler("fltp", "mono", sample_rate)
            frames = [r for f in file.decode(audio=0) for r in resampler.resample(f)]
            frames += resampler.resample(None)
            parts = [frame.to_ndarray()[0] for frame in frames]
    except (av.FFmpegError, IndexError) as error:
        raise ValueError(f"{path} can't be decoded: {error}") from error
    return torch.from_numpy(np.concatenate(parts)) if parts else torch.zeros(0)


class SoundCrops(Dataset[Tensor]):
    """Augmented stretches, float [size], `crops[step, number]`.

    A stretch is a function of the seed, the step and the number. Groups of sounds are drawn with
    equal probability, sounds of a group by length. Speed (with pitch), level and frequency response
    vary, and the sign; some stretches are laid over each other.
    """

    def __init__(
        self,
        groups: Sequence[Sequence[Path]],
        size: int,
        sample_rate: int,
        seed: int,
        note: Note,
        mix: float = 0.0,
    ) -> None:
        """Decode the sounds.

        Args:
            groups: of sounds, e.g. those of several folders.
            size: samples of a stretch.
            sample_rate: in Hz.
            seed: of all choices.
            note: told about what can't be decoded, which is left out.
            mix: share of the stretches that are two sounds at once.
        """
        self._size, self._seed, self._mix = size, seed, mix
        self._sounds: list[Tensor] = []
        shares: list[float] = []
        for group in groups:
            sounds = [x for path in group if (x := self._read(path, sample_rate, note)) is not None]
            whole = sum(map(len, sounds))
            self._sounds += sounds
            shares += [len(x) / whole for x in sounds]
        if not self._sounds:
            raise ValueError("none of the sounds can be decoded")
        self._shares = np.cumsum(shares) / sum(shares)

    def _read(self, path: Path, sample_rate: int, note: Note) -> Tensor | None:
        try:
            x = read_mono(path, sample_rate)
        except ValueError as error:
            note(f"left out: {error}")
            return None
        longest = int(self._size * max(_SPEEDS)) + 1
        x = torch.nn.functional.pad(x, (0, max(0, longest - len(x))))
        return (x.clamp(-1, 1) * 32767).round().to(torch.int16)

    def __getitem__(self, key: tuple[int, int]) -> Tensor:
        """The stretch of a step and a number."""
        generator = np.random.default_rng((self._seed, *key))
        x = self._stretch(generator)
        if self._mix and generator.random() < self._mix:
            x = x + self._stretch(generator)
        return x / max(1.0, float(x.abs().max()))

    def _stretch(self, generator: np.random.Generator) -> Tensor:
        chosen = int(np.searchsorted(self._shares, generator.random(), side="right"))
        sound = self._sounds[min(chosen, len(self._sounds) - 1)]
        speed = _SPEEDS[generator.integers(len(_SPEEDS))]
        taken = int(self._size * speed) + 1
        start = generator.integers(len(sound) - taken + 1)
        x = sound[start : start + taken].float() / 32767
        if speed != 1:
            x = _speed(x, speed)
        return _augment(x[: self._size], generator)


@functools.cache
def _resampler(speed: float) -> torchaudio.transforms.Resample:
    return torchaudio.transforms.Resample(round(100 * speed), 100, lowpass_filter_width=16)


def _speed(x: Tensor, speed: float) -> Tensor:
    y: Tensor = _resampler(speed)(x)
    return y


def _augment(x: Tensor, generator: np.random.Generator) -> Tensor:
    if generator.random() < 0.6:
        x = _filter(x, generator.uniform(-_TILT_DB, _TILT_DB, _POINTS))
    return x * float(10 ** (generator.uniform(*_GAIN_DB) / 20) * generator.choice((-1, 1)))


def _filter(x: Tensor, db: NDArray[np.float64]) -> Tensor:
    """A smooth random frequency response, zero phase, over a whole stretch."""
    spectrum = torch.fft.rfft(x)
    places = np.linspace(0, 1, len(db))
    smooth = np.interp(np.sqrt(np.linspace(0, 1, len(spectrum))), places, db)
    gain = torch.from_numpy(10 ** (smooth / 20)).float()
    filtered: Tensor = torch.fft.irfft(spectrum * gain, len(x))
    return filtered


def fixed_stretches(
    sounds: Iterable[Path], size: int, sample_rate: int, note: Note
) -> list[Tensor]:
    """The middle of each sound, float [size]."""
    stretches = []
    for path in sounds:
        try:
            x = read_mono(path, sample_rate)
        except ValueError as error:
            note(f"not validated on: {error}")
            continue
        x = torch.nn.functional.pad(x, (0, max(0, size - len(x))))
        start = (len(x) - size) // 2
        stretches.append(x[start : start + size])
    return stretches
