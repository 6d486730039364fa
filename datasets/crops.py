"""Random crops of folders of pictures, for training, and fixed ones to validate on.

Pictures are decoded when a crop of them is asked for, and kept as long as there is room.
"""

from __future__ import annotations

import errno
from collections import OrderedDict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset

from .images import read_image, suffixes, to_picture

CACHE_BYTES = 1 << 30
Note = Callable[[str], object]
Source = TypeVar("Source")


@dataclass(frozen=True)
class Picture:
    """A picture file and its size before any turn that EXIF asks for."""

    path: Path
    width: int
    height: int

    @property
    def side(self) -> int:
        """The shorter side."""
        return min(self.width, self.height)


def find_pictures(
    folders: Iterable[Path], smallest: int = 1, note: Note = lambda text: None
) -> list[Picture]:
    """All pictures below `folders`, in the order of their paths; no sample is decoded.

    Args:
        folders: folders, or single files.
        smallest: pictures of fewer pixels to a side are left out.
        note: told about files that are no pictures though their names say so, and of small ones.

    Raises:
        ValueError: there is no picture, or none that is large enough.
        FileNotFoundError: there is no such folder.
    """
    folders = list(folders)
    known = suffixes()
    found = []
    for path in sorted({file for folder in folders for file in _files(folder)}):
        if path.suffix.lower() not in known:
            continue
        try:
            with Image.open(path) as image:
                found.append(Picture(path, *image.size))
        except Exception as error:  # Pillow's readers raise almost anything on damaged files
            note(f"{path} is left out, it can't be read: {error}")
    places = ", ".join(map(str, folders))
    if not found:
        raise ValueError(f"no picture that can be read below {places}")
    pictures = [p for p in found if p.side >= smallest]
    if not pictures:
        raise ValueError(
            f"no picture below {places} is at least {smallest} x {smallest}; the largest crop "
            f"that fits is {max(p.side for p in found)}"
        )
    if small := [p for p in found if p.side < smallest]:
        more = f" and {len(small) - 1} more" if small[1:] else ""
        note(f"{small[0].path}{more}: left out, smaller than a crop of {smallest}")
    return pictures


def _files(folder: Path) -> Iterable[Path]:
    if not folder.exists():
        raise FileNotFoundError(errno.ENOENT, "no such folder", str(folder))
    if folder.is_file():
        return [folder]
    return (
        path
        for path in folder.rglob("*")
        if path.is_file() and not any(p.startswith(".") for p in path.relative_to(folder).parts)
    )


def hold_out(
    pictures: Sequence[Source], share: float, most: int, seed: int
) -> tuple[list[Source], list[Source]]:
    """Split sources at random: those to train on, and a share to validate on, at most `most`.

    One picture at least is left to train on, and from two on one is held out.
    """
    count = min(most, len(pictures) - 1, max(1, round(share * len(pictures)))) if share else 0
    order = np.random.default_rng(seed).permutation(len(pictures))
    held = set(order[:count].tolist())
    kept = [p for i, p in enumerate(pictures) if i not in held]
    return kept, [pictures[i] for i in sorted(held)]


class PictureCache:
    """Decoded pictures, uint8 [3, H, W], those used last within a number of bytes."""

    def __init__(
        self, room: int = CACHE_BYTES, prepare: Callable[[Tensor], Tensor] = lambda x: x
    ) -> None:
        """Keep at most `room` bytes, and one picture in any case, each as `prepare` makes it."""
        self._room, self._used, self._prepare = room, 0, prepare
        self._kept: OrderedDict[tuple[Path, bool], Tensor] = OrderedDict()

    def get(self, path: Path, half: bool) -> Tensor:
        """The picture, or its half-size copy; ValueError or OSError where it can't be read."""
        key = (path, half)
        if key in self._kept:
            self._kept.move_to_end(key)
            return self._kept[key]
        x = _halve(self.get(path, False)) if half else self._prepare(read_rgb(path))
        self._kept[key] = x
        self._used += x.numel()
        while self._used > self._room and len(self._kept) > 1:
            self._used -= self._kept.popitem(last=False)[1].numel()
        return x


def read_rgb(path: Path) -> Tensor:
    """A picture of any kind as uint8 [3, H, W], alpha left out; ValueError, OSError: unreadable."""
    x = read_image(path)[0]
    return (x[:1] if len(x) < 3 else x[:3]).expand(3, -1, -1).contiguous()


def _halve(x: Tensor) -> Tensor:
    size = (x.shape[2] // 2, x.shape[1] // 2)
    small = to_picture(x).resize(size, Image.Resampling.LANCZOS)
    return torch.from_numpy(np.array(small)).permute(2, 0, 1).contiguous()


class Crops(Dataset[Tensor]):
    """Augmented crops, float [3, size, size] in [0, 1], `crops[step, number]`.

    A crop is a function of the seed, the step and the number, so that any process can make any of
    them, at any time. Pictures and their half-size copies are drawn by area. Each crop is flipped
    and transposed at random; half of them get a gain and an offset, and one in ten has its colour
    channels permuted.
    """

    def __init__(
        self,
        pictures: Sequence[Picture],
        size: int,
        seed: int,
        note: Note = lambda text: None,
        room: int = CACHE_BYTES,
    ) -> None:
        """Prepare to choose.

        Args:
            pictures: from `find_pictures`, at least `size` to a side.
            size: side of a crop in pixels.
            seed: of all choices.
            note: told about pictures that can't be decoded: others are taken instead.
            room: bytes of decoded pictures to keep.
        """
        self._choices = [
            (p, half) for p in pictures for half in (False, True) if p.side >> half >= size
        ]
        area = np.array([(p.width >> h) * (p.height >> h) for p, h in self._choices], np.float64)
        self._shares = np.cumsum(area / area.sum())
        self._size, self._seed, self._note = size, seed, note
        self._cache = PictureCache(room)
        self._unreadable: set[Path] = set()

    def __getitem__(self, key: tuple[int, int]) -> Tensor:
        """The crop of a step and a number."""
        generator = np.random.default_rng((self._seed, *key))
        return _augment(_crop(self._draw(generator), self._size, generator), generator)

    def _draw(self, generator: np.random.Generator) -> Tensor:
        """A picture; one that can't be decoded is left out from then on."""
        while len(self._unreadable) < len({p.path for p, _ in self._choices}):
            chosen = int(np.searchsorted(self._shares, generator.random(), side="right"))
            picture, half = self._choices[min(chosen, len(self._choices) - 1)]
            if picture.path in self._unreadable:
                continue
            try:
                return self._cache.get(picture.path, half)
            except (ValueError, OSError) as error:
                self._unreadable.add(picture.path)
                self._note(f"left out from now on: {error}")
        raise ValueError("none of the pictures can be decoded")


def fixed_crops(
    pictures: Iterable[Picture], size: int, note: Note = lambda text: None
) -> list[Tensor]:
    """The middle of each picture, float [3, size, size] in [0, 1]."""
    crops = []
    for picture in pictures:
        try:
            x = read_rgb(picture.path)
        except (ValueError, OSError) as error:
            note(f"not validated on: {error}")
            continue
        top, left = (x.shape[1] - size) // 2, (x.shape[2] - size) // 2
        crops.append(x[:, top : top + size, left : left + size].float() / 255)
    return crops


def _crop(picture: Tensor, size: int, generator: np.random.Generator) -> Tensor:
    top = generator.integers(picture.shape[1] - size + 1)
    left = generator.integers(picture.shape[2] - size + 1)
    return picture[:, top : top + size, left : left + size].float() / 255


def _augment(x: Tensor, generator: np.random.Generator) -> Tensor:
    if generator.random() < 0.5:
        x = x.flip(2)
    if generator.random() < 0.5:
        x = x.transpose(1, 2)
    if generator.random() < 0.5:
        x = x * generator.uniform(0.7, 1.1) + generator.uniform(-0.1, 0.1)
    if generator.random() < 0.1:
        x = x[torch.from_numpy(generator.permutation(3))]
    return x.clamp(0, 1)
