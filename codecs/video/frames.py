"""What the video codecs share: frames, their format, clips of whole planes, and quality in dB."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ...kernels.errors import BitstreamError

MAX_SIDE = 1 << 16
MIN_BITS, MAX_BITS = 8, 15
MOST_PTS = 1 << 60  # so that differences of times and their differences fit into varints
_USUAL_DEEP_BITS = 10  # of a clip as int16 whose depth is not said
_LUMA_WEIGHT = 6  # of Y against U and V, as figures of video codecs have it
_MOST_DB = 100.0  # of a plane without any error

Planes = tuple[Tensor, ...]
Clip = tuple[Tensor, ...]


class Frame(NamedTuple):
    """A picture of a video and when it is shown.

    Attributes:
        planes: Y [H, W], and for colours U and V [ceil(H / 2), ceil(W / 2)]; contiguous, uint8 for
            8 bits, int16 for 9 to 15.
        pts: when it is shown, in units of the stream's time base.
        duration: for how long, 0 if that is not known.
    """

    planes: Planes
    pts: int
    duration: int


class Length(NamedTuple):
    """Of a whole video, as far as it is known before it is coded.

    Attributes:
        frames: how many.
        seconds: None where frames have no time.
    """

    frames: int
    seconds: float | None


@dataclass(frozen=True)
class VideoFormat:
    """What all frames of a video have in common.

    Attributes:
        width: of Y in pixels.
        height: of Y.
        bits: of a sample, 8 to 15.
        colours: 1 grey, 3 for 4:2:0.
    """

    width: int
    height: int
    bits: int = 8
    colours: int = 3

    def __post_init__(self) -> None:
        """Raise ValueError for what no codec takes."""
        for name, value, least, most in (
            ("width", self.width, 1, MAX_SIDE),
            ("height", self.height, 1, MAX_SIDE),
            ("bits", self.bits, MIN_BITS, MAX_BITS),
        ):
            if type(value) is not int or not least <= value <= most:
                raise ValueError(f"{name} of a video must be {least} to {most}, got {value!r}")
        if self.colours not in (1, 3):
            raise ValueError(f"a video has 1 (grey) or 3 colours (4:2:0), got {self.colours!r}")

    @property
    def dtype(self) -> torch.dtype:
        """Of the planes."""
        return torch.uint8 if self.bits == 8 else torch.int16

    @property
    def shapes(self) -> list[tuple[int, int]]:
        """Height and width of each plane."""
        half = (self.height + 1) // 2, (self.width + 1) // 2
        return [(self.height, self.width), half, half][: self.colours]

    @property
    def samples(self) -> int:
        """Of a frame, all planes together."""
        return sum(height * width for height, width in self.shapes)

    @property
    def bytes(self) -> int:
        """That a frame takes as samples of whole bytes."""
        return self.samples * (1 if self.bits == 8 else 2)

    def header(self) -> dict[str, Any]:
        """The fields of box H."""
        return {"s": [self.width, self.height], "b": self.bits, "c": self.colours}

    @staticmethod
    def parse(header: dict[str, Any]) -> VideoFormat:
        """The mirror of `header`; BitstreamError for fields that are missing or illegal."""
        size = header.get("s")
        if not isinstance(size, list) or len(size) != 2:
            raise BitstreamError(f"header field s is {size!r:.80}, expected [width, height]")
        bits, colours = header.get("b"), header.get("c")
        if type(colours) is not int or type(bits) is not int:
            raise BitstreamError(f"header fields b and c are {bits!r:.40} and {colours!r:.40}")
        try:
            return VideoFormat(size[0], size[1], bits, colours)
        except ValueError as error:
            raise BitstreamError(f"header: {error}") from None

    def check(self, planes: Sequence[Tensor], number: int, codec: str) -> None:
        """Raise ValueError, which says the frame's number, unless planes are of this format."""
        found = [(x.dtype, tuple(x.shape)) for x in planes]
        if found != [(self.dtype, shape) for shape in self.shapes]:
            raise ValueError(
                f"frame {number} has planes {_shown(found)}; {codec} began with "
                f"{_shown([(self.dtype, shape) for shape in self.shapes])}; a video can't change "
                "its size, depth or colours midway, encode the parts one by one"
            )
        if self.bits == 8:
            return
        for x in planes:
            low, high = (int(v) for v in torch.aminmax(x))
            if low < 0 or high >> self.bits:
                raise ValueError(
                    f"frame {number} has samples from {low} to {high}, outside of "
                    f"0 to {(1 << self.bits) - 1} for bits={self.bits}"
                )


def _shown(planes: Sequence[tuple[torch.dtype, tuple[int, ...]]]) -> str:
    return ", ".join(f"{str(dtype)[6:]} {list(shape)}" for dtype, shape in planes)


def format_of(clip: Any, codec: str, bits: int | None = None) -> VideoFormat:
    """The format of a clip.

    Args:
        clip: ([T, H, W],) or ([T, H, W], [T, h, w], [T, h, w]) with h = ceil(H / 2) and
            w = ceil(W / 2), T > 0, uint8 or int16.
        codec: its name, for messages.
        bits: of a sample; None is 8 for uint8 and 10 for int16.

    Raises:
        ValueError: it is no such clip.
    """
    if (
        not isinstance(clip, (tuple, list))
        or len(clip) not in (1, 3)
        or not all(isinstance(x, Tensor) and x.ndim == 3 and x.numel() for x in clip)
    ):
        raise ValueError(
            f"{codec} takes a clip as a tuple of planes, Y [T, H, W] alone or with U and V "
            f"[T, (H + 1) // 2, (W + 1) // 2], got {_kind(clip)}"
        )
    y = clip[0]
    if bits is None:
        bits = 8 if y.dtype == torch.uint8 else _USUAL_DEEP_BITS
    format = VideoFormat(y.shape[2], y.shape[1], bits, len(clip))
    wanted = [(format.dtype, (len(y), *shape)) for shape in format.shapes]
    if [(x.dtype, tuple(x.shape)) for x in clip] != wanted:
        raise ValueError(
            f"{codec} takes 8 bits as uint8 and 9 to 15 as int16, U and V of half the size; "
            f"expected {_shown(wanted)}, got {_kind(clip)}"
        )
    return format


def _kind(clip: Any) -> str:
    if isinstance(clip, (tuple, list)) and all(isinstance(x, Tensor) for x in clip):
        return _shown([(x.dtype, tuple(x.shape)) for x in clip]) or "no plane"
    return f"{clip.dtype} {list(clip.shape)}" if isinstance(clip, Tensor) else type(clip).__name__


def frames_of(clip: Clip) -> Iterator[Frame]:
    """The frames of a clip, shown one after the other for one unit of time each."""
    for pts in range(len(clip[0])):
        yield Frame(tuple(x[pts].contiguous() for x in clip), pts, 1)


def clip_of(frames: Iterable[Frame], format: VideoFormat) -> Clip:
    """Frames as a clip; their times are left out."""
    columns = [frame.planes for frame in frames]
    if not columns:
        return tuple(torch.zeros(0, *shape, dtype=format.dtype) for shape in format.shapes)
    return tuple(torch.stack(planes) for planes in zip(*columns, strict=True))


def psnr_db(a: Planes, b: Planes, bits: int) -> float:
    """Of a frame, (6 Y + U + V) / 8 over the PSNR in dB of each plane; at most 100 dB each."""
    found = [_plane_psnr(x, y, bits) for x, y in zip(a, b, strict=True)]
    if len(found) == 1:
        return found[0]
    return (_LUMA_WEIGHT * found[0] + found[1] + found[2]) / (_LUMA_WEIGHT + 2)


def _plane_psnr(a: Tensor, b: Tensor, bits: int) -> float:
    error = int((a.int() - b.int()).square().sum(dtype=torch.int64))
    if not error:
        return _MOST_DB
    return min(_MOST_DB, 10 * math.log10(((1 << bits) - 1) ** 2 * a.numel() / error))
