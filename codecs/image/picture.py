"""What the picture codecs share: the signal and its header, tiles, sizes asked for, varints."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ...kernels.errors import BitstreamError
from ..codec import Rate

PACKET_OVERHEAD = 14  # bytes at most that the container spends on a packet and its index entry
MAX_SIDE = 1 << 24

Box = tuple[int, int, int, int]  # top, left, height, width in pixels


@dataclass(frozen=True)
class Grid:
    """Where the tiles of a picture lie: squares of `side` pixels, smaller at the far edges."""

    width: int
    height: int
    side: int

    @property
    def columns(self) -> int:
        """Tiles to a row."""
        return math.ceil(self.width / self.side)

    @property
    def rows(self) -> int:
        """Rows of tiles."""
        return math.ceil(self.height / self.side)

    def __len__(self) -> int:
        """Count the tiles."""
        return self.columns * self.rows

    def box(self, number: int) -> Box:
        """Pixels of a tile."""
        top, left = number // self.columns * self.side, number % self.columns * self.side
        return top, left, min(self.side, self.height - top), min(self.side, self.width - left)


def check(x: Tensor, codec: str) -> tuple[int, int, int]:
    """Channels, height and width of a picture; ValueError unless it is one."""
    if x.dtype != torch.uint8 or x.ndim != 3 or x.shape[0] not in (1, 2, 3, 4) or not x.numel():
        raise ValueError(
            f"{codec} takes a picture as uint8 [1 to 4, height, width], got {x.dtype} "
            f"{list(x.shape)}"
        )
    return x.shape[0], x.shape[1], x.shape[2]


def split_alpha(x: Tensor) -> tuple[Tensor, Tensor | None]:
    """Colour channels and alpha."""
    return (x[:-1], x[-1]) if x.shape[0] in (2, 4) else (x, None)


def parse_size(header: dict[str, Any]) -> tuple[int, int, int]:
    """Width, height and channels of the header's field "s"."""
    size = header.get("s")
    if (
        not isinstance(size, list)
        or len(size) != 3
        or not all(type(n) is int for n in size)
        or not (0 < size[0] <= MAX_SIDE and 0 < size[1] <= MAX_SIDE and 1 <= size[2] <= 4)
    ):
        raise BitstreamError(f"header field s is {size!r}, expected [width, height, channels]")
    return size[0], size[1], size[2]


def blank(channels: int, height: int, width: int) -> Tensor:
    """Memory for a decoded picture, uint8 [channels, height, width].

    Raises:
        BitstreamError: there is not so much memory; a damaged header may claim any size.
    """
    try:
        return torch.empty(channels, height, width, dtype=torch.uint8)
    except (RuntimeError, MemoryError):  # RuntimeError is torch's for memory
        raise BitstreamError(
            f"header field s says {width} x {height} pixels of {channels} channels, which do not "
            "fit into memory"
        ) from None


def target_bytes(x: Tensor, rate: Rate, codec: str) -> float:
    """The size of a file that a rate asks for; ValueError for a kind that the codec lacks."""
    if rate.name == "max_bytes":
        return rate.value
    if rate.name == "bpp":
        return rate.value * x.shape[1] * x.shape[2] / 8
    if rate.name == "ratio":
        return x.numel() / rate.value
    raise ValueError(f"{codec} takes quality, bpp, ratio, max_bytes or psnr, not {rate.name}")


def file_size(bodies: list[int], reserve: int) -> int:
    """The size of a file with packets of so many bytes, at most."""
    return reserve + sum(bodies) + 2 + PACKET_OVERHEAD * (len(bodies) - 1)


def varint(value: int) -> bytes:
    """A number below 2^28, 7 bits to a byte, low ones first."""
    out = bytearray()
    while value > 127:
        out.append(value & 127 | 128)
        value >>= 7
    return bytes((*out, value))


def read_varint(data: bytes, start: int) -> tuple[int, int]:
    """The mirror of `varint`: the value, and where it ends."""
    value = 0
    for i, byte in enumerate(data[start : start + 4]):
        value |= (byte & 127) << 7 * i
        if byte < 128:
            return value, start + i + 1
    raise BitstreamError("tile ends inside the length of its latents")
