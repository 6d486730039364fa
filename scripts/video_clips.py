"""Parts of video files as they are measured and compared: some frames, at a size of their own."""

from __future__ import annotations

import functools
import itertools
import time
from collections.abc import Iterable, Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any, Generic, TypeVar

from torch import Tensor

from latentpack.codecs.video.frames import Frame, Length, VideoFormat
from latentpack.datasets.video import VideoFrame, VideoReader, open_video
from latentpack.datasets.video_frames import frame_of, layout_of, pixel_format, planes_of
from latentpack.datasets.video_info import UNKNOWN
from latentpack.datasets.video_metrics import Colours
from latentpack.datasets.video_peers import Shape

_Item = TypeVar("_Item")
_USUAL_RATE = Fraction(25)  # frames a second, where a file says nothing


class Clip:
    """Some frames of a video file, read anew each time, so that memory does not grow with them.

    Attributes:
        path: the file.
        format: of the frames.
        time_base: seconds of a unit of their times.
        frame_rate: frames a second, about.
        colours: what samples mean.
        info: what the file says of the picture; see `datasets.video_info`.

    Args:
        path: the file.
        most: frames; None is all.
        start: seconds that are left out before.
        size: (width, height) to scale to, by swscale's bicubic filter.

    Raises:
        ValueError: there is no video in it that can be read.
    """

    def __init__(
        self,
        path: Path,
        most: int | None = None,
        start: float = 0.0,
        size: tuple[int, int] | None = None,
    ) -> None:
        self.path, self._most, self._start, self._size = path, most, Fraction(str(start)), size
        with self._open() as reader:
            width, height = size or (reader.width, reader.height)
            self.format = VideoFormat(width, height, reader.bits, reader.colours)
            self.time_base, self.info = reader.time_base, reader.info
        rate = self.info.get("average_rate")
        self.frame_rate = Fraction(*rate) if rate else _USUAL_RATE
        full = self.info.get("range") == "full"
        self.colours = Colours(self.format.bits, self.info.get("matrix", UNKNOWN), full)

    def _open(self) -> VideoReader:
        return open_video(self.path, threads=1)

    def _read(self) -> Iterator[VideoFrame]:
        with self._open() as reader:
            yield from itertools.islice(reader.frames(self._start), self._most)

    def __iter__(self) -> Iterator[Frame]:
        """The frames, from the start."""
        for frame in self._read():
            planes = frame.planes if self._size is None else _scaled(frame.planes, self.format)
            yield Frame(planes, frame.pts, frame.duration)

    @functools.cached_property
    def length(self) -> Length:
        """How many frames there are, and the seconds that they take."""
        times = [(frame.pts, frame.duration) for frame in self._read()]
        usual = round(1 / (self.frame_rate * self.time_base))  # of a last frame that says nothing
        end = max(pts + (duration or usual) for pts, duration in times)
        return Length(len(times), float((end - times[0][0]) * self.time_base))

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


def _scaled(planes: tuple[Tensor, ...], format: VideoFormat) -> tuple[Tensor, ...]:
    name = pixel_format(format.bits, format.colours)
    frame: Any = frame_of(planes, name)
    frame = frame.reformat(format.width, format.height, name, interpolation="BICUBIC")
    return planes_of(frame, layout_of(frame.format))
