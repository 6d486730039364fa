"""Random clips of films and of photographs in motion, for training, and fixed ones to validate on.

Clips are 4:2:0 of 8 bits and limited range, packed: uint8 [T, 6, size/2, size/2] holds the four
phases of Y (as pixel_unshuffle by 2 orders them), U and V.

Films are decoded once and kept in memory at two random sizes below their own: what one can get is
coded already, and made smaller it hides that. Where there is more than room, stretches from all
over the films are kept.
"""

from __future__ import annotations

import errno
import itertools
import math
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import av
import av.error
import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from .crops import CACHE_BYTES, Picture, PictureCache, find_pictures, read_rgb
from .synthetic_motion import moving_picture, pack, to_video

ROOM_BYTES = 3 << 29  # of decoded films
SUFFIXES = {
    ".avi", ".flv", ".m2ts", ".m4v", ".mkv", ".mov", ".mp4", ".mpeg", ".mpg", ".mxf", ".ogv",
    ".ts", ".webm", ".wmv", ".y4m",
}  # fmt: skip
_SMALLER = ((1.5, 2.0), (2.0, 2.5))  # factors of the copies of a film
_RUN = 64  # frames of a stretch where not all of a film is kept
_UNKNOWN = 2000  # frames that a film is taken to have that does not say
_STEPS, _STEP_SHARES = (1, 2, 3), (0.75, 0.17, 0.08)
_FIXED = 6  # clips of each film to validate on, about
_MIRRORED = [1, 0, 3, 2, 4, 5]  # where the phases of Y go
_TRANSPOSED = [0, 2, 1, 3, 4, 5]
Note = Callable[[str], object]
Seconds = tuple[float, float]  # from, to


@dataclass(frozen=True)
class Film:
    """A film file, its size in pixels and its length in frames and seconds, 0 where not known."""

    path: Path
    width: int
    height: int
    frames: int
    seconds: float

    @property
    def side(self) -> int:
        """The shorter side."""
        return min(self.width, self.height)


class Stretch(NamedTuple):
    """Consecutive frames: Y uint8 [N, H, W], UV uint8 [N, 2, H/2, W/2]."""

    y: Tensor
    uv: Tensor


def find_films(
    folders: Iterable[Path], smallest: int = 1, note: Note = lambda text: None
) -> list[Film]:
    """All films below `folders`, in the order of their paths; no frame is decoded.

    Args:
        folders: folders, or single files.
        smallest: films of fewer pixels to a side are left out.
        note: told about files that are no films though their names say so, and of small ones.

    Raises:
        FileNotFoundError: there is no such folder.
    """
    paths: set[Path] = set()
    for folder in folders:
        if not folder.exists():
            raise FileNotFoundError(errno.ENOENT, "no such folder", str(folder))
        files = [folder] if folder.is_file() else folder.rglob("*")
        paths |= {file for file in files if file.suffix.lower() in SUFFIXES}
    films = []
    for path in sorted(paths):
        try:
            film = _look_at(path)
        except (ValueError, OSError) as error:
            note(f"left out: {error}")
            continue
        if film.side < smallest:
            note(f"left out: {path} has {film.width} x {film.height} pixels, fewer than a crop")
        else:
            films.append(film)
    return films


def find_stills(folders: Iterable[Path], note: Note = lambda text: None) -> list[Picture]:
    """All pictures below `folders` that can be moved; none is no error."""
    try:
        return find_pictures(folders, 2, note)
    except ValueError:
        return []


def _look_at(path: Path) -> Film:
    try:
        with path.open("rb") as opened, av.open(opened, "r") as file:
            stream = file.streams.video[0]
            context = stream.codec_context
            length = stream.duration
            seconds = float(length * stream.time_base) if length and stream.time_base else 0.0
            if not seconds and file.duration:
                seconds = file.duration / 1e6
            frames = stream.frames or round(seconds * float(stream.average_rate or 0))
            return Film(path, context.width, context.height, frames, seconds)
    except (av.error.FFmpegError, IndexError) as error:
        raise ValueError(f"{path} can't be read as a film: {error}") from error


def parse_exclude(text: str) -> dict[str, list[Seconds]]:
    """What of which film shall not be used, "a.mp4:23-,b.mkv:0-12.5": {"a.mp4": [(23, inf)] ...}.

    Raises:
        ValueError: it is written otherwise.
    """
    found: dict[str, list[Seconds]] = {}
    for part in filter(None, text.split(",")):
        match = re.fullmatch(r"\s*(.+):(\d+(?:\.\d*)?)?-(\d+(?:\.\d*)?)?\s*", part)
        if not match:
            raise ValueError(f"exclude has {part!r}, expected NAME:FROM-TO in seconds")
        name, start, stop = match.groups()
        found.setdefault(name, []).append((float(start or 0), float(stop or math.inf)))
    return found


def _read(
    film: Film, sizes: Sequence[tuple[int, int]], most: int, excluded: Sequence[Seconds]
) -> list[Stretch]:
    """Up to about `most` frames of a film, at each of some sizes.

    Raises:
        ValueError: it can't be decoded.
    """
    found: list[Stretch] = []
    run: list[list[tuple[Tensor, Tensor]]] = []
    for frame in _decoded(film, most, excluded):
        if frame is not None:
            run.append([_planes(frame, *size) for size in sizes])
            continue
        for copy in zip(*run, strict=True):
            y, uv = zip(*copy, strict=True)
            found.append(Stretch(torch.stack(y), torch.stack(uv)))
        run = []
    return found


def _planes(frame: av.VideoFrame, width: int, height: int) -> tuple[Tensor, Tensor]:
    """Y [H, W] and UV [2, H/2, W/2] of a frame, made smaller."""
    x = frame.reformat(width, height, "yuv420p", interpolation="BICUBIC").to_ndarray()
    y, uv = torch.from_numpy(x[:height]), torch.from_numpy(x[height:])
    return y.clone(), uv.reshape(2, height // 2, width // 2).clone()


def _decoded(film: Film, most: int, excluded: Sequence[Seconds]) -> Iterator[av.VideoFrame | None]:
    """All frames of a film, or runs of them that lie all over it; None ends what is consecutive."""
    try:
        with film.path.open("rb") as opened, av.open(opened, "r") as file:
            stream = file.streams.video[0]
            stream.thread_type = "AUTO"
            whole = most >= film.frames or not film.seconds
            count = 1 if whole else max(1, most // _RUN)
            for number in range(count):
                if number:
                    file.seek(int(1e6 * film.seconds * number / count) + (file.start_time or 0))
                frames = itertools.islice(file.decode(stream), most if whole else _RUN)
                for frame in frames:
                    yield None if _within(frame, stream, excluded) else frame
                yield None
    except (av.error.FFmpegError, IndexError) as error:
        raise ValueError(f"{film.path} can't be decoded: {error}") from error


def _within(frame: av.VideoFrame, stream: av.VideoStream, times: Sequence[Seconds]) -> bool:
    """Whether a frame is of one of some times, which count from the start of its film."""
    if not times:
        return False
    if frame.pts is None or stream.time_base is None:
        raise ValueError("its frames have no times: nothing of it can be excluded")
    time = float((frame.pts - (stream.start_time or 0)) * stream.time_base)
    return any(start <= time < stop for start, stop in times)


class Clips(Dataset[Tensor]):
    """Augmented clips, uint8 [frames, 6, size/2, size/2], `clips[step, number]`.

    A clip is a function of the seed, the step and the number. Films are drawn by the frames that
    are kept of them. Every frame is taken, or every second or third; each clip is flipped,
    transposed and turned round in time at random, and half of them get a gain and an offset.
    """

    def __init__(
        self,
        films: Sequence[Film],
        pictures: Sequence[Picture],
        frames: int,
        size: int,
        seed: int,
        note: Note = lambda text: None,
        synthetic: float = 0.3,
        exclude: Mapping[str, Sequence[Seconds]] | None = None,
        room: int = ROOM_BYTES,
        picture_room: int = CACHE_BYTES,
    ) -> None:
        """Decode the films.

        Args:
            films: from `find_films`, at least `size` to a side.
            pictures: from `find_pictures`, for clips by `moving_picture`; any size.
            frames: of a clip.
            size: side of a clip in samples of Y, even.
            seed: of all choices.
            note: told about what can't be decoded, or is too short, which is left out.
            synthetic: share of the clips that are made from pictures, where there are both.
            exclude: what is not used, by names of files, in seconds from the start of the film.
            room: bytes of decoded films to keep.
            picture_room: bytes of decoded pictures to keep.

        Raises:
            ValueError: nothing is left.
        """
        if size % 2 or size < 2 or frames < 1:
            raise ValueError(
                f"a clip of {frames} frames of {size}: size is even, frames at least 1"
            )
        self._frames, self._size, self._seed, self._note = frames, size, seed, note
        self._stretches = _keep(films, frames, size, seed, note, exclude or {}, room)
        lengths = np.array([len(s.y) - frames + 1 for s in self._stretches], np.float64)
        self._shares = np.cumsum(lengths) / lengths.sum() if len(lengths) else lengths
        self._pictures = list(pictures) if synthetic or not self._stretches else []
        if not self._pictures and not self._stretches:
            raise ValueError(f"no film of at least {frames} frames can be used, and no picture")
        both = self._pictures and self._stretches
        self._synthetic = synthetic if both else float(bool(self._pictures))
        self._cache = PictureCache(picture_room, to_video)
        self._unreadable: set[Path] = set()

    def __getitem__(self, key: tuple[int, int]) -> Tensor:
        """The clip of a step and a number."""
        generator = np.random.default_rng((self._seed, *key))
        if generator.random() < self._synthetic:
            x = moving_picture(lambda: self._draw(generator), self._frames, self._size, generator)
        else:
            x = self._filmed(generator)
        return _augment(x, generator)

    def _filmed(self, generator: np.random.Generator) -> Tensor:
        chosen = int(np.searchsorted(self._shares, generator.random(), side="right"))
        y, uv = self._stretches[min(chosen, len(self._stretches) - 1)]
        step = int(generator.choice(_STEPS, p=_STEP_SHARES))
        step = min(step, (len(y) - 1) // max(1, self._frames - 1)) or 1
        start = generator.integers(len(y) - step * (self._frames - 1))
        top = generator.integers((y.shape[1] - self._size) // 2 + 1)
        left = generator.integers((y.shape[2] - self._size) // 2 + 1)
        return _cut(y, uv, range(start, start + step * self._frames, step), top, left, self._size)

    def _draw(self, generator: np.random.Generator) -> Tensor:
        """A picture; one that can't be decoded is left out from then on."""
        while len(self._unreadable) < len(self._pictures):
            path = self._pictures[generator.integers(len(self._pictures))].path
            if path in self._unreadable:
                continue
            try:
                return self._cache.get(path, half=False)
            except (ValueError, OSError) as error:
                self._unreadable.add(path)
                self._note(f"left out from now on: {error}")
        raise ValueError("none of the pictures can be decoded")


def _keep(
    films: Sequence[Film],
    frames: int,
    size: int,
    seed: int,
    note: Note,
    exclude: Mapping[str, Sequence[Seconds]],
    room: int,
) -> list[Stretch]:
    """Stretches of at least `frames` frames of all films, within some bytes of memory."""
    sizes = [_sizes(film, size, np.random.default_rng((seed, i))) for i, film in enumerate(films)]
    lengths = [film.frames or _UNKNOWN for film in films]
    bytes_of = [3 * sum(w * h for w, h in s) // 2 for s in sizes]
    needed = sum(n * b for n, b in zip(lengths, bytes_of, strict=True))
    share = min(1.0, room / max(1, needed))
    kept = []
    for film, length, wanted in zip(films, lengths, sizes, strict=True):
        try:
            found = _read(film, wanted, math.ceil(length * share), exclude.get(film.path.name, ()))
        except (ValueError, OSError) as error:
            note(f"left out: {error}")
            continue
        found = [s for s in found if len(s.y) >= frames]
        if not found:
            note(f"left out: {film.path} has no {frames} frames in a row")
        kept += found
    return kept


def _sizes(film: Film, size: int, generator: np.random.Generator) -> list[tuple[int, int]]:
    """Width and height, even, of the copies of a film of which clips are cut."""
    found = set()
    for low, high in _SMALLER:
        factor = min(float(generator.uniform(low, high)), film.side / size)
        w, h = (max(size, 2 * round(x / factor / 2)) for x in (film.width, film.height))
        found.add((w, h))
    return sorted(found)


def _cut(y: Tensor, uv: Tensor, frames: range, top: int, left: int, size: int) -> Tensor:
    """A clip of a stretch, uint8 packed; top and left count in samples of U and V."""
    where = slice(frames.start, frames.stop, frames.step)
    half = size // 2
    luma = y[where, 2 * top : 2 * top + size, 2 * left : 2 * left + size]
    return pack(luma, uv[where, :, top : top + half, left : left + half])


def _augment(x: Tensor, generator: np.random.Generator) -> Tensor:
    """Packed, uint8 or float, turned in space and time and changed in level -> uint8."""
    if generator.random() < 0.5:
        x = x.flip(0)
    if generator.random() < 0.5:
        x = x.flip(3)[:, _MIRRORED]
    if generator.random() < 0.5:
        x = x.transpose(2, 3)[:, _TRANSPOSED]
    if generator.random() < 0.5:
        gain = torch.full((6, 1, 1), generator.uniform(0.7, 1.1))
        gain[4:] *= generator.uniform(0.6, 1.2)
        grey = torch.tensor([16.0] * 4 + [128.0] * 2)[:, None, None]
        offset = torch.zeros(6, 1, 1)
        offset[:4] = generator.uniform(-12, 20)
        x = (x - grey) * gain + (grey + offset)
    return x.round().clamp(0, 255).byte() if x.is_floating_point() else x.contiguous()


def fixed_clips(
    films: Iterable[Film],
    pictures: Iterable[Picture],
    frames: int,
    size: int,
    note: Note = lambda text: None,
    exclude: Mapping[str, Sequence[Seconds]] | None = None,
) -> list[Tensor]:
    """Clips to validate on, uint8 [frames, 6, size/2, size/2]: always the same, not augmented.

    Of each film the middle of some frames all over it, made smaller by 2; of each picture one
    clip in motion.
    """
    clips: list[Tensor] = []
    for film in films:
        factor = max(1.0, min(2.0, film.side / size))
        smaller = [(2 * round(film.width / factor / 2), 2 * round(film.height / factor / 2))]
        try:
            found = _read(film, smaller, _FIXED * _RUN, (exclude or {}).get(film.path.name, ()))
        except (ValueError, OSError) as error:
            note(f"not validated on: {error}")
            continue
        clips += _middles([s for s in found if len(s.y) >= frames], frames, size)
    for number, picture in enumerate(pictures):
        try:
            still = to_video(read_rgb(picture.path))
        except (ValueError, OSError) as error:
            note(f"not validated on: {error}")
            continue
        clips.append(_fixed(still, frames, size, number))
    return clips


def _fixed(still: Tensor, frames: int, size: int, seed: int) -> Tensor:
    moving = moving_picture(lambda: still, frames, size, np.random.default_rng(seed))
    return moving.round().clamp(0, 255).byte()


def _middles(stretches: Sequence[Stretch], frames: int, size: int) -> Iterator[Tensor]:
    """Clips of the middle of stretches, spread over their frames."""
    total = sum(len(s.y) for s in stretches)
    for y, uv in stretches:
        count = max(1, round(_FIXED * len(y) / total))
        for i in range(count):
            start = int((len(y) - frames) * (i + 0.5) / count)
            top, left = (y.shape[1] - size) // 4, (y.shape[2] - size) // 4
            yield _cut(y, uv, range(start, start + frames), top, left, size)
