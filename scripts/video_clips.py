"""Parts of video files as they are measured and compared: some frames, at a size of their own."""

from __future__ import annotations

import functools
import time
from collections.abc import Iterable, Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any, Generic, TypeVar

import av
import torch
from torch import Tensor

from latentpack.codecs.video.frames import Frame, Length, VideoFormat
from latentpack.datasets.video_metrics import Colours
from latentpack.datasets.video_peers import Shape

_Item = TypeVar("_Item")
_DEEP_BITS = 10  # what deeper samples are reduced to
_FULL_RANGE = 2  # FFmpeg's number


def suffixes() -> set[str]:
    """Of the files that are taken from folders."""
    return {f".{name}" for name in "mkv mp4 mov m4v webm avi y4m ts mts m2ts".split()}


class Clip:
    """Some frames of a video file, read anew each time, so that memory does not grow with them.

    Samples are those of the file where it is 4:2:0 or grey with 8 or 10 bits and its own size;
    all else is converted by swscale.

    Args:
        path: the file.
        most: frames; None is all.
        start: seconds that are left out before.
        size: (width, height) to scale to, with swscale's bicubic filter.

    Raises:
        ValueError: there is no video in it, or none from `start` on.
    """

    def __init__(
        self,
        path: Path,
        most: int | None = None,
        start: float = 0.0,
        size: tuple[int, int] | None = None,
    ) -> None:
        self.path, self._most, self._start, self._size = path, most, start, size
        for frame in self._decoded():
            bits, colours = _kept(frame.format)
            width, height = size or (frame.width, frame.height)
            self.format = VideoFormat(width, height, bits, colours)
            full = frame.color_range == _FULL_RANGE or frame.format.name.startswith("yuvj")
            self.colours = Colours(bits, frame.colorspace, full)
            break
        else:
            after = f" from second {start:g} on" if start else ""
            raise ValueError(f"{path}: there is no video{after}")

    def _decoded(self) -> Iterator[av.VideoFrame]:
        with av.open(self.path) as container:
            if not container.streams.video:
                return
            stream = container.streams.video[0]
            stream.thread_count = 1
            if stream.time_base is None:
                raise ValueError(f"{self.path}: the video has no time base")
            self.time_base = stream.time_base
            self.frame_rate = stream.average_rate or Fraction(25)
            shown = 0
            for frame in container.decode(stream):
                if frame.pts is None or frame.pts * self.time_base < self._start:
                    continue
                yield frame
                shown += 1
                if shown == self._most:
                    return

    def __iter__(self) -> Iterator[Frame]:
        """The frames, from the start."""
        for frame in self._decoded():
            yield Frame(_planes(frame, self.format), frame.pts or 0, frame.duration or 0)

    @functools.cached_property
    def length(self) -> Length:
        """How many frames there are, and the seconds that they take."""
        times = [(frame.pts or 0, frame.duration or 0) for frame in self._decoded()]
        end = max(pts + duration for pts, duration in times)
        units = end - min(pts for pts, _ in times)
        if not times[-1][1]:  # the last frame is as long as the others
            units += round(1 / (self.frame_rate * self.time_base))
        return Length(len(times), float(units * self.time_base))

    @property
    def pixels(self) -> int:
        """Of a frame."""
        return self.format.width * self.format.height

    def shape(self, gop: int) -> Shape:
        """What peers are told."""
        size = self.format.width, self.format.height
        return Shape(*size, self.format.bits, self.time_base, self.frame_rate, gop)

    def like(self, planes: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        """A decoded frame without the colours that a peer adds to grey."""
        return planes[: self.format.colours]


class Untimed(Generic[_Item]):
    """Passes items on and keeps the CPU seconds that it takes to make them.

    Args:
        items: made when they are asked for.
    """

    def __init__(self, items: Iterable[_Item]) -> None:
        self._items = items
        self.seconds = 0.0

    def __iter__(self) -> Iterator[_Item]:
        items = iter(self._items)
        while True:
            began = time.process_time()
            try:
                item = next(items)
            except StopIteration:
                return
            finally:
                self.seconds += time.process_time() - began
            yield item


def _kept(format: Any) -> tuple[int, int]:
    """Bits and colours that codecs are given of a pixel format."""
    depth = max(component.bits for component in format.components)
    grey = len(format.components) == 1 and not format.is_rgb
    return 8 if depth <= 8 else _DEEP_BITS, 1 if grey else 3


def _planes(frame: av.VideoFrame, format: VideoFormat) -> tuple[Tensor, ...]:
    deep = "" if format.bits == 8 else f"{format.bits}le"
    names = [f"gray{deep}"] if format.colours == 1 else [f"yuv420p{deep}", "yuvj420p"]
    name = frame.format.name
    if name not in names or (frame.width, frame.height) != (format.width, format.height):
        wanted = name if name in names else names[0]
        frame = frame.reformat(format.width, format.height, wanted, interpolation="BICUBIC")
    kind = torch.uint8 if format.bits == 8 else torch.int16
    planes = []
    for plane, (rows, columns) in zip(frame.planes, format.shapes, strict=True):
        lines = torch.frombuffer(bytearray(plane), dtype=kind).view(plane.height, -1)
        planes.append(lines[:rows, :columns].contiguous())
    return tuple(planes)
