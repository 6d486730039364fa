"""Random crops of a folder of pictures, for training."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

SUFFIXES = {".png", ".jpg", ".jpeg", ".webp", ".tif", ".tiff", ".bmp"}


def load_pictures(folders: list[Path], half: bool = True) -> list[Tensor]:
    """All pictures below `folders` as uint8 [3, H, W]; with `half`, half-size copies too.

    Raises:
        ValueError: there is no picture in the folders.
    """
    paths = sorted(p for f in folders for p in f.rglob("*") if p.suffix.lower() in SUFFIXES)
    if not paths:
        places = ", ".join(map(str, folders))
        raise ValueError(f"no pictures ({', '.join(sorted(SUFFIXES))}) below {places}")
    pictures = []
    for path in paths:
        with Image.open(path) as image:
            rgb = image.convert("RGB")
        pictures.append(_tensor(rgb))
        if half:
            size = (rgb.width // 2, rgb.height // 2)
            pictures.append(_tensor(rgb.resize(size, Image.Resampling.LANCZOS)))
    return pictures


def _tensor(image: Image.Image) -> Tensor:
    return torch.from_numpy(np.array(image)).permute(2, 0, 1).contiguous()


def crops(pictures: list[Tensor], batch: int, size: int, seed: int) -> Iterator[Tensor]:
    """Endless batches of augmented crops, float [batch, 3, size, size] in [0, 1].

    Pictures are drawn by area. Each crop is flipped and transposed at random; half of them get a
    gain and an offset, and one in ten has its colour channels permuted.
    """
    generator = np.random.default_rng(seed)
    pictures = [p for p in pictures if min(p.shape[1:]) >= size]
    if not pictures:
        raise ValueError(f"no picture is at least {size} x {size}; use a smaller crop size")
    area = np.array([p[0].numel() for p in pictures], dtype=np.float64)
    while True:
        chosen = generator.choice(len(pictures), size=batch, p=area / area.sum())
        yield torch.stack(
            [_augment(_crop(pictures[i], size, generator), generator) for i in chosen]
        )


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
