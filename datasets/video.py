"""Read the video of any file that FFmpeg opens, frame by frame, with all that is beside it.

    with open_video("clip.mp4") as reader:
        for item in reader.items():
            ...  # VideoFrame, or a TrackPacket of a sound, of subtitles, ...

Frames are 4:2:0 or grey as they are coded, never by way of RGB. Memory does not grow with the
length of a file.
"""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction
from itertools import chain
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple, Self

from torch import Tensor

from . import video_tracks
from .video_findings import Findings
from .video_frames import Layout, layout_of, planes_of
from .video_info import describe_video
from .video_order import TrackQueue
from .video_streams import VideoStreams
from .video_times import FrameTimes
from .video_tracks import TrackPacket

_MISSING_SHARE, _MISSING_SECONDS = 0.01, 1.0  # of the stated duration, from which a file is cut
_SLACK = Fraction(3)  # seconds by which files put a sound behind the picture of its time
_TIMED_KINDS = ("mov", "matroska")  # formats that state their duration


class VideoFrame(NamedTuple):
    """A picture of a video and when it is shown.

    Attributes:
        planes: Y [H, W], and for colours U and V [ceil(H / 2), ceil(W / 2)]; contiguous, uint8 for
            8 bits, int16 for 9 and 10. They may share FFmpeg's memory: don't write to them.
        pts: when it is shown, in units of the stream's time base.
        duration: until the next one is shown; of the last what the file says, 0 for nothing.
    """

    planes: tuple[Tensor, ...]
    pts: int
    duration: int


class VideoReader:
    """One video of an open file and the tracks beside it; see `open_video`, which makes it.

    Attributes:
        width, height: in pixels.
        bits: of a sample, 8 to 10.
        colours: 1 grey, 3 for 4:2:0.
        time_base: seconds of a unit of the frames' times.
        info: what else there is to know of the picture, as it is stored; see `describe_video`.
        tracks: descriptions of the other streams, as `video_tracks` has them.
        chapters: start, end, time base and tags of each.
        tags: of the file.
        start: seconds of the file's clock at which the first frame is shown.
        seconds: what the file says of its duration; None if nothing.
        frames_stated: how many frames the file says that it has; None if nothing.
        notes: what was converted, left out or repaired, in words; grows while frames are read.
        streams: of the file.
    """

    def __init__(
        self, file: BinaryIO, name: str, stream: int | None, keep_going: bool, threads: int | None
    ) -> None:
        """Read headers and the first frame; for the arguments see `open_video`."""
        self._found = Findings(name, keep_going)
        self.notes = self._found.notes
        self._read = False
        self.streams = VideoStreams(file, stream, self._found, threads)
        try:
            self._events = self.streams.events()
            self._before: list[TrackPacket] = []
            self._first = self._read_first()
            self._describe()
        except BaseException:
            self.streams.close()
            raise

    def _read_first(self) -> Any:
        """The first frame; packets that come before it are kept."""
        for event in self._events:
            if not isinstance(event, TrackPacket):
                return event
            self._before.append(event)
        self._found.fail("its video has no frame that can be decoded")

    def _describe(self) -> None:
        frame, stream = self._first, self.streams.stream
        container = self.streams.container
        self.tracks = self.streams.tracks
        self.time_base: Fraction = stream.time_base
        self._layout: Layout = layout_of(frame.format)
        self.width, self.height = frame.width, frame.height
        self.bits, self.colours = self._layout.bits, self._layout.colours
        self.info = describe_video(frame, stream, self._layout)
        self._pts = FrameTimes(stream, self._found.note)
        self._first_pts = self._pts.of(frame)
        self.start = self._found.start = self._first_pts * self.time_base
        self.seconds = self._stated_seconds()
        self.frames_stated: int | None = stream.frames or None
        self.tags = video_tracks.kept_tags(container.metadata)
        self.chapters = video_tracks.kept_chapters(container.chapters())
        if self._layout.loss:
            self._found.note(self._layout.loss)
        if "field_order" in self.info:
            self._found.note("it is interlaced; frames hold both fields, and are coded as they are")

    def _stated_seconds(self) -> float | None:
        if self.streams.stream.duration:
            return float(self.streams.stream.duration * self.time_base)
        duration = self.streams.container.duration
        return duration / 1e6 if duration is not None and duration > 0 else None

    def frames(
        self, start: Fraction | float | None = None, end: Fraction | float | None = None
    ) -> Iterator[VideoFrame]:
        """Yield the frames alone; for the arguments see `items`."""
        for item in self.items(start, end):
            if isinstance(item, VideoFrame):
                yield item

    def items(
        self, start: Fraction | float | None = None, end: Fraction | float | None = None
    ) -> Iterator[VideoFrame | TrackPacket]:
        """Yield frames in the order shown, and between them the packets of tracks, once.

        A packet comes before the first frame that is later. Attached files and pictures come first.

        Args:
            start: seconds from the first frame; what is shown before is left out. Times stay those
                of the file.
            end: seconds; what is shown at this time or later is left out.

        Raises:
            ValueError: the file is damaged, or frames change their size or kind of samples.
            RuntimeError: the frames were read before; open the file again.
        """
        if self._read:
            raise RuntimeError("the video has been read; open the file again")
        self._read = True
        begin = None if start is None or start <= 0 else self.start + _exact(start)
        stop = None if end is None else self.start + _exact(end)
        queue = TrackQueue([Fraction(*track["time_base"]) for track in self.tracks], begin, stop)
        still = [packet for packet in self._before if _is_picture(self.tracks[packet.track])]
        yield from self.streams.attached
        yield from still
        shown: VideoFrame | None = None
        for item in self._timed(self._from(begin), queue, begin, stop):
            if isinstance(item, VideoFrame):
                shown = item
            yield item
        if shown is None:
            self._found.fail("no frame is shown in the time asked for")
        if stop is None:
            self._check_duration(shown)

    def _from(self, begin: Fraction | None) -> Iterator[Any]:
        """Events from a time on, or from before it."""
        found = None if begin is None else self.streams.sought(begin, self._first_pts)
        if found is not None:
            self._pts.restart()
            return found
        before = [p for p in self._before if not _is_picture(self.tracks[p.track])]
        return chain(before, [self._first], self._events)

    def _timed(
        self,
        events: Iterator[Any],
        queue: TrackQueue,
        begin: Fraction | None,
        stop: Fraction | None,
    ) -> Iterator[VideoFrame | TrackPacket]:
        """Frames within the time asked for, with durations; packets by way of the queue."""
        held: tuple[Any, int] | None = None
        over = False
        for event in events:
            if isinstance(event, TrackPacket):
                queue.put(event)
                yield from queue.overflow()
                if over and queue.past(_SLACK):
                    break
                continue
            if over:
                continue
            self._check(event)
            pts = self._first_pts if event is self._first else self._pts.of(event)
            time = pts * self.time_base
            if held is not None:
                yield from queue.until(held[1] * self.time_base)
                yield self._frame(*held, pts - held[1])
                held = None
            if stop is not None and time >= stop:
                over = True
                if not self.tracks or queue.past(_SLACK):
                    break
            elif begin is None or time >= begin:
                held = event, pts
        if held is not None:
            yield from queue.until(held[1] * self.time_base)
            yield self._frame(*held, held[0].duration or 0)
        yield from queue.rest()

    def _frame(self, frame: Any, pts: int, duration: int) -> VideoFrame:
        return VideoFrame(planes_of(frame, self._layout), pts, duration)

    def _check(self, frame: Any) -> None:
        if (frame.width, frame.height) != (self.width, self.height):
            self._found.fail(
                f"at {self._at(frame)} it changes from {self.width}x{self.height} to "
                f"{frame.width}x{frame.height}; split it there"
            )
        if frame.format.name == self._layout.source:
            return
        layout = layout_of(frame.format)
        if (layout.bits, layout.colours) != (self.bits, self.colours):
            self._found.fail(
                f"at {self._at(frame)} it changes from {self._layout.source} to {layout.source}; "
                "split it there"
            )
        self._layout = layout
        if layout.loss:
            self._found.note(layout.loss)

    def _at(self, frame: Any) -> str:
        return (
            "an unknown time"
            if frame.pts is None
            else self._found.seconds(frame.pts * self.time_base)
        )

    def _check_duration(self, last: VideoFrame) -> None:
        """Formats that state their length tell when the end is missing."""
        if not self.streams.container.format.name.startswith(_TIMED_KINDS) or not self.seconds:
            return
        read = float((last.pts + last.duration) * self.time_base - self.start)
        missing = self.seconds - read
        if self.streams.stream.duration and missing > max(
            _MISSING_SECONDS, _MISSING_SHARE * self.seconds
        ):
            self._found.time = last.pts * self.time_base
            self._found.damaged(
                f"it says {self.seconds:.2f} s and ends after {read:.2f} s: cut short"
            )

    def close(self) -> None:
        """Close the file's container; a file object stays open."""
        self.streams.close()

    def __enter__(self) -> Self:
        """Return self."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close."""
        self.close()


def _exact(seconds: Fraction | float) -> Fraction:
    """What was meant by a time in binary: 0.16 is 4/25, so that a frame of that time is met."""
    return seconds if isinstance(seconds, Fraction) else Fraction(repr(float(seconds)))


def _is_picture(track: dict[str, Any]) -> bool:
    return "attached_pic" in track.get("disposition", ())


class _OwningReader(VideoReader):
    """Closes the file that was opened for it, too."""

    def __init__(
        self, path: Path, stream: int | None, keep_going: bool, threads: int | None
    ) -> None:
        self._file = path.open("rb")
        try:
            super().__init__(self._file, str(path), stream, keep_going, threads)
        except BaseException:
            self._file.close()
            raise

    def close(self) -> None:
        super().close()
        self._file.close()


def open_video(
    source: str | Path | BinaryIO,
    stream: int | None = None,
    keep_going: bool = False,
    threads: int | None = None,
) -> VideoReader:
    """Open a file to read its video.

    Args:
        source: a path, or a binary file object, which needn't be seekable.
        stream: which of the file's videos, from 0; None is the one with most pixels among those
            shown by default. The others are tracks.
        keep_going: of a damaged file take what can be decoded; what was wrong stands in `notes`.
            Otherwise it is an error.
        threads: of FFmpeg's decoder; None leaves it to FFmpeg.

    Raises:
        ValueError: this is no file with video, or damaged.
        OSError: it can't be read.
    """
    if isinstance(source, (str, Path)):
        return _OwningReader(Path(source), stream, keep_going, threads)
    name = getattr(source, "name", None)
    called = name if isinstance(name, str) and name else "the video"
    return VideoReader(source, called, stream, keep_going, threads)
