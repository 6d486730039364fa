"""Clips and tensors as the packed frames that the networks of `video/inr` draw, and back."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from ...kernels.errors import BitstreamError
from .frames import Planes, VideoFormat
from .inr_fit import Target

MOST_CHANNELS = 4  # of a tensor
_LUMA_WEIGHT = 6  # of Y against U and V
_DTYPES = {"uint8": torch.uint8, "float32": torch.float32}


@dataclass(frozen=True)
class TensorFormat(VideoFormat):
    """Of a tensor [T, C, H, W]: C planes of one size.

    Attributes:
        sort: of numbers, "uint8" or "float32" (0 .. 1).
    """

    sort: str = "uint8"

    def __post_init__(self) -> None:
        """Raise ValueError for what the codec does not take."""
        VideoFormat(self.width, self.height)
        if not 1 <= self.colours <= MOST_CHANNELS or self.sort not in _DTYPES:
            legal = f"1 to {MOST_CHANNELS} channels of {' or '.join(_DTYPES)}"
            raise ValueError(f"video/inr takes {legal}, got {self.colours} of {self.sort}")

    @property
    def dtype(self) -> torch.dtype:
        """Of the planes."""
        return _DTYPES[self.sort]

    @property
    def shapes(self) -> list[tuple[int, int]]:
        """Height and width of each plane."""
        return [(self.height, self.width)] * self.colours

    @property
    def bytes(self) -> int:
        """That a frame takes."""
        return self.samples * self.dtype.itemsize

    def header(self) -> dict[str, Any]:
        """The fields of box H."""
        return {**super().header(), "t": self.sort}


def tensor_format(x: Tensor) -> TensorFormat:
    """The format of a tensor; ValueError unless it is [T, C, H, W] of a kind that is taken."""
    if x.ndim != 4 or not x.numel():
        raise ValueError(f"video/inr takes a tensor [T, C, H, W], got {list(x.shape)}")
    format = TensorFormat(x.shape[3], x.shape[2], 8, x.shape[1], str(x.dtype).split(".")[1])
    if x.is_floating_point() and not bool(((x >= 0) & (x <= 1)).all()):
        raise ValueError("video/inr takes floats of 0 to 1; scale them, and leave out NaN")
    return format


def parse_format(header: dict[str, Any]) -> VideoFormat:
    """The format of a file's frames; BitstreamError for fields that are missing or illegal."""
    if "t" not in header:
        return VideoFormat.parse(header)
    size, channels = header.get("s"), header.get("c")
    if not isinstance(size, list) or len(size) != 2 or type(channels) is not int:
        raise BitstreamError(f"header fields s and c are {size!r:.80} and {channels!r:.40}")
    try:
        return TensorFormat(size[0], size[1], 8, channels, str(header["t"])[:40])
    except ValueError as error:
        raise BitstreamError(f"header: {error}") from None


def outputs_of(format: VideoFormat) -> int:
    """Channels of a packed frame."""
    return 4 * format.colours if isinstance(format, TensorFormat) else 3 + format.colours


def packed_size(format: VideoFormat) -> tuple[int, int]:
    """Height and width of a packed frame."""
    return (format.height + 1) // 2, (format.width + 1) // 2


def pack(gop: list[Planes], format: VideoFormat) -> Target:
    """Frames as what networks are fitted to."""
    peak = _peak(format)
    parts: list[Tensor] = []
    shares: list[float] = []
    for planes in zip(*gop, strict=True):
        x = torch.stack(planes)[:, None].float() / peak - 0.5
        if parts and not isinstance(format, TensorFormat):
            parts.append(x)
            shares.append(1.0)
            continue
        x = F.pad(x, (0, x.shape[3] % 2, 0, x.shape[2] % 2), mode="replicate")
        parts.append(F.pixel_unshuffle(x, 2))
        weight = _LUMA_WEIGHT if not isinstance(format, TensorFormat) else 1.0
        shares += [weight / 4] * 4
    x = torch.cat(parts, 1).contiguous()
    pixels = len(gop) * format.height * format.width
    share = torch.tensor(shares)
    return Target(x, share / share.sum(), pixels)


def unpack(x: Tensor, format: VideoFormat, level: int = 0) -> Planes:
    """The planes of a packed frame [outputs, H, W], at 1 / 2^level of the size."""
    x = (x + 0.5).clamp(0, 1)
    height, width = -(-format.height // 2**level), -(-format.width // 2**level)
    planes = []
    at = 0
    for number in range(format.colours):
        if number == 0 or isinstance(format, TensorFormat):
            plane = F.pixel_shuffle(x[at : at + 4], 2)[0, :height, :width]
            at += 4
        else:
            plane = x[at]
            at += 1
        if format.dtype.is_floating_point:
            planes.append(plane.contiguous())
        else:
            planes.append((plane * _peak(format)).round().to(format.dtype).contiguous())
    return tuple(planes)


def _peak(format: VideoFormat) -> float:
    return 1.0 if format.dtype.is_floating_point else float((1 << format.bits) - 1)
