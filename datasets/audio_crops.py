"""Random stretches of folders of sounds, for training, and fixed ones to validate on.

Sounds are decoded once, to one channel at one sample rate, and kept as 16-bit integers: in memory
as long as there is room, and then in a file that is gone with the process.
"""

from __future__ import annotations

import errno
import functools
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

import av
import av.error
import numpy as np
import torch
import torchaudio
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset

from .audio_kinds import suffixes
from .audio_samples import settle_layout

ROOM_BYTES = 2 << 30  # of decoded sounds in memory
Note = Callable[[str], object]
_PEAK = 32767
_SPEEDS = (0.85, 0.9, 0.95, 1.0, 1.0, 1.05, 1.1, 1.2)
_GAIN_DB = (-12.0, 6.0)
_TILT_DB = 6.0  # of random filters, at most, at each of a few frequencies
_POINTS = 6


def find_sounds(folders: Iterable[Path]) -> list[Path]:
    """All sound files below `folders`, in the order of their paths.

    Raises:
        ValueError: there is none. FileNotFoundError: there is no such folder.
    """
    found, known = [], suffixes()
    for folder in folders:
        if not folder.exists():
            raise FileNotFoundError(errno.ENOENT, "no such folder", str(folder))
        files = [folder] if folder.is_file() else folder.rglob("*")
        found += [file for file in files if file.suffix.lower() in known]
    if not found:
        raise ValueError(f"no sound below {', '.join(map(str, folders))}")
    return sorted(set(found))


def read_mono(path: Path, sample_rate: int) -> Tensor:
    """A sound as one channel, float [N] in [-1, 1].

    Raises:
        ValueError: it can't be decoded, or holds NaN or infinity.
    """
    parts = list(_pieces(path, sample_rate))
    return torch.from_numpy(np.concatenate(parts)) if parts else torch.zeros(0)


def _pieces(path: Path, sample_rate: int) -> Iterator[NDArray[np.float32]]:
    """`read_mono` piece by piece."""
    try:
        with path.open("rb") as opened, av.open(opened, "r") as file:
            stream = file.streams.audio[0]
            settle_layout(stream.codec_context)
            resampler = av.AudioResampler("fltp", "mono", sample_rate)
            for frame in file.decode(stream):
                yield from (_finite(path, part) for part in resampler.resample(frame))
            yield from (_finite(path, part) for part in resampler.resample(None))
    except (av.error.FFmpegError, IndexError) as error:
        raise ValueError(f"{path} can't be decoded: {error}") from error


def _finite(path: Path, frame: av.AudioFrame) -> NDArray[np.float32]:
    samples: NDArray[np.float32] = frame.to_ndarray()[0]
    if not np.isfinite(samples).all():
        raise ValueError(f"{path} can't be used: it holds NaN or infinity")
    return samples


class _Kept:
    """Decoded sounds, int16, one behind another, in memory or on the disk."""

    def __init__(self, room: int) -> None:
        self._room = room
        self._sounds: list[Tensor] = []
        self._file = tempfile.TemporaryFile()
        self._places: list[tuple[int, int]] = []  # of those on the disk: first sample, length

    def add(self, x: Tensor) -> None:
        """Keep a sound."""
        self._room -= 2 * len(x)
        if self._room >= 0:
            self._sounds.append(x)
            return
        self._places.append((self._file.tell() // 2, len(x)))
        self._file.write(x.numpy().tobytes())
        self._sounds.append(x[:0])

    def finish(self) -> list[Tensor]:
        """All sounds in order; those on the disk are read when they are looked at."""
        if not self._places:
            return self._sounds
        self._file.flush()
        # Mode "c", of which nothing is ever written: torch takes no arrays that are read-only.
        whole = torch.from_numpy(np.memmap(self._file, np.int16, "c"))
        on_disk = iter([whole[start : start + length] for start, length in self._places])
        return [x if len(x) else next(on_disk) for x in self._sounds]


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
        room: int = ROOM_BYTES,
    ) -> None:
        """Decode the sounds.

        Args:
            groups: of sounds, e.g. those of several folders.
            size: samples of a stretch.
            sample_rate: in Hz.
            seed: of all choices.
            note: told about what can't be decoded, or is empty, which is left out.
            mix: share of the stretches that are two sounds at once.
            room: bytes of decoded sounds in memory; the others go to a temporary file.

        Raises:
            ValueError: no sound is left.
        """
        self._size, self._seed, self._mix = size, seed, mix
        kept = _Kept(room)
        shares: list[float] = []
        for group in groups:
            lengths = [
                length for path in group if (length := self._keep(path, sample_rate, note, kept))
            ]
            shares += [length / sum(lengths) for length in lengths]
        if not shares:
            raise ValueError("none of the sounds can be decoded")
        self._sounds = kept.finish()
        self._shares = np.cumsum(shares) / sum(shares)

    def _keep(self, path: Path, sample_rate: int, note: Note, kept: _Kept) -> int:
        """Decode a sound; returns its length, at least that of the longest stretch; 0 is none."""
        try:
            pieces = [_to_int16(piece) for piece in _pieces(path, sample_rate)]
        except (ValueError, OSError) as error:
            note(f"left out: {error}")
            return 0
        x = torch.cat(pieces) if pieces else torch.zeros(0, dtype=torch.int16)
        if not len(x):
            note(f"left out: {path} is empty")
            return 0
        longest = int(self._size * max(_SPEEDS)) + 1
        x = torch.nn.functional.pad(x, (0, max(0, longest - len(x))))
        kept.add(x)
        return len(x)

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
        x = sound[start : start + taken].float() / _PEAK
        if speed != 1:
            x = _speed(x, speed)
        return _augment(x[: self._size], generator)


def _to_int16(samples: NDArray[np.float32]) -> Tensor:
    return (torch.from_numpy(samples).clamp(-1, 1) * _PEAK).round().to(torch.int16)


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
        except (ValueError, OSError) as error:
            note(f"not validated on: {error}")
            continue
        x = torch.nn.functional.pad(x, (0, max(0, size - len(x))))
        start = (len(x) - size) // 2
        stretches.append(x[start : start + size])
    return stretches
