"""Read the video of any file that FFmpeg opens, frame by frame, with all that is beside it.

    with open_video("clip.mp4") as reader:
        for item in reader.items():
            ...  # VideoFrame, or a TrackPacket of a sound, of subtitles, ...

Frames are 4:2:0 or grey as they are coded, never by way of RGB. Memory does not grow with the
length of a file.
"""

from __future__ import annotations

import errno
from collections.abc import Callable, Iterator
from fractions import Fraction
from itertools import chain
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple, NoReturn, Self

import av
import av.error
from av.stream import Discard, Disposition
from torch import Tensor

from . import video_tracks
from .audio_kinds import explain
from .video_frames import Layout, layout_of, planes_of
from .video_info import describe_video
from .video_order import TrackQueue
from .video_source import readable_source
from .video_tracks import TrackPacket

_DAMAGE = (av.error.FFmpegError, ValueError, OSError)
_MOST_NOTES = 10
_MOST_PIXELS = 1 << 28  # of a frame, before FFmpeg takes memory for it
_MISSING_SHARE, _MISSING_SECONDS = 0.01, 1.0  # of the stated duration, from which a file is cut
_FIRST_STEP_BACK = Fraction(1)  # seconds from where a seek starts anew that came out too late
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
    """

    def __init__(
        self, file: BinaryIO, name: str, stream: int | None, keep_going: bool, threads: int | None
    ) -> None:
        """Read headers and the first frame; for the arguments see `open_video`."""
        self._name, self._keep_going = name, keep_going
        self.notes: list[str] = []
        self._read = False
        self._source, self._own = readable_source(file)
        try:
            self._container = self._open(file)
            try:
                self._stream = self._choose(stream)
                self._decoder(threads)
                self._choose_tracks()
                self._first = self._read_first()
                self._describe()
            except BaseException:
                self._container.close()
                raise
        except BaseException:
            self._close_source()
            raise

    def _open(self, file: BinaryIO) -> Any:
        try:
            return av.open(
                self._source,
                "r",
                metadata_errors="replace",
                io_open=_refuse,
                options={"max_pixels": str(_MOST_PIXELS)},
            )
        except _DAMAGE as error:
            _raise_if_of_the_disk(error)
            reason = f"no video that can be read ({_reason(error)}), or damaged"
            self._fail(explain(reason, file, "video"))

    def _choose(self, number: int | None) -> Any:
        found = [s for s in self._container.streams.video if not _is_still(s)]
        if not found:
            kinds = ", ".join(sorted({s.type for s in self._container.streams})) or "nothing"
            self._fail(f"it holds no video, but {kinds.replace('video', 'a cover picture')}")
        if number is None:
            chosen = max(found, key=_rank)
        elif 0 <= number < len(found):
            chosen = found[number]
        else:
            self._fail(f"stream is {number}; it has {len(found)} videos, 0 is the first")
        if chosen.codec_context is None:
            self._fail("its video is of a kind that can't be decoded")
        if len(found) > 1:
            self._note(
                f"video {found.index(chosen)} of {len(found)} in the file; others are tracks"
            )
        return chosen

    def _decoder(self, threads: int | None) -> None:
        context = self._stream.codec_context
        context.thread_type = "AUTO"
        if threads is not None:
            context.thread_count = threads
        # Else FFmpeg hides damage, and says so nowhere.
        options = {} if self._keep_going else {"err_detect": "explode"}
        context.options = {"max_pixels": str(_MOST_PIXELS), **options}

    def _choose_tracks(self) -> None:
        """Number the other streams that are copied, by their index in the file."""
        self.tracks: list[dict[str, Any]] = []
        self._numbers: dict[int, int] = {}
        self._attached: list[TrackPacket] = []
        for stream in self._container.streams:
            if stream.index == self._stream.index:
                continue
            try:
                track = video_tracks.describe(stream)
            except ValueError as error:
                self._note(f"stream {stream.index}: {error}")
                stream.discard = Discard.all
                continue
            number = len(self.tracks)
            self.tracks.append(track)
            self._numbers[stream.index] = number
            if stream.type == "attachment":
                self._attached.append(video_tracks.packets_of(stream, number))

    def _read_first(self) -> Any:
        """The first frame; packets that come before it are kept."""
        self._damage_time = Fraction(0)
        self._events = self._decode(None)
        self._before: list[TrackPacket] = []
        for event in self._events:
            if not isinstance(event, TrackPacket):
                return event
            self._before.append(event)
        self._fail("its video has no frame that can be decoded")

    def _describe(self) -> None:
        frame, stream = self._first, self._stream
        self.time_base: Fraction = stream.time_base
        self._layout: Layout = layout_of(frame.format)
        self.width, self.height = frame.width, frame.height
        self.bits, self.colours = self._layout.bits, self._layout.colours
        self.info = describe_video(frame, stream, self._layout)
        self._pts = _Pts(self.time_base, stream, self._note)
        self._first_pts = self._pts.of(frame)
        self.start = self._first_pts * self.time_base
        self.seconds = self._stated_seconds()
        self.frames_stated: int | None = stream.frames or None
        self.tags = video_tracks.kept_tags(self._container.metadata)
        self.chapters = video_tracks.kept_chapters(self._container.chapters())
        if self._layout.loss:
            self._note(self._layout.loss)
        if "field_order" in self.info:
            self._note("it is interlaced; frames hold both fields, and are coded as they are")

    def _stated_seconds(self) -> float | None:
        if self._stream.duration:
            return float(self._stream.duration * self.time_base)
        duration = self._container.duration
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
            raise RuntimeError(f"{self._name} has been read; open it again")
        self._read = True
        begin = None if start is None or start <= 0 else self.start + _exact(start)
        stop = None if end is None else self.start + _exact(end)
        queue = TrackQueue([Fraction(*track["time_base"]) for track in self.tracks], begin, stop)
        still = [packet for packet in self._before if _is_picture(self.tracks[packet.track])]
        yield from self._attached
        yield from still
        shown: VideoFrame | None = None
        for item in self._timed(self._from(begin), queue, begin, stop):
            if isinstance(item, VideoFrame):
                shown = item
            yield item
        if shown is None:
            self._fail("no frame is shown in the time asked for")
        if stop is None:
            self._check_duration(shown)

    def _from(self, begin: Fraction | None) -> Iterator[Any]:
        """Events from a time on, or from before it."""
        found = self._sought(begin) if begin is not None and self._source.seekable() else None
        if found is not None:
            self._pts.restart()
            return found
        before = [p for p in self._before if not _is_picture(self.tracks[p.track])]
        return chain(before, [self._first], self._events)

    def _sought(self, begin: Fraction) -> Iterator[Any] | None:
        """Events from before a time on; None where the file can't be read but from its begin."""
        step = Fraction(0)
        while begin - step > self.start:
            try:
                offset = int((begin - step) / self.time_base)
                self._container.seek(offset, stream=self._stream, backward=True)
            except av.error.FFmpegError:
                break
            events, ahead = self._decode(begin), []
            for event in events:
                ahead.append(event)
                if not isinstance(event, TrackPacket):
                    # Frames that a decoder leaves out after a seek are shown before its first.
                    if event.pts is not None and event.pts * self.time_base <= begin:
                        return chain(ahead, events)
                    break
            step = max(_FIRST_STEP_BACK, 4 * step)
        try:
            first = self._stream.start_time
            offset = self._first_pts if first is None else min(first, self._first_pts)
            self._container.seek(offset, stream=self._stream, backward=True)
        except av.error.FFmpegError:
            return None
        return self._decode(begin)

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
            self._fail(
                f"at {self._at(frame)} it changes from {self.width}x{self.height} to "
                f"{frame.width}x{frame.height}; split it there"
            )
        if frame.format.name == self._layout.source:
            return
        layout = layout_of(frame.format)
        if (layout.bits, layout.colours) != (self.bits, self.colours):
            self._fail(
                f"at {self._at(frame)} it changes from {self._layout.source} to {layout.source}; "
                "split it there"
            )
        self._layout = layout
        if layout.loss:
            self._note(layout.loss)

    def _at(self, frame: Any) -> str:
        return "an unknown time" if frame.pts is None else self._seconds(frame.pts * self.time_base)

    def _seconds(self, time: Fraction) -> str:
        return f"{float(time - getattr(self, 'start', 0)):.2f} s"

    def _decode(self, begin: Fraction | None) -> Iterator[Any]:
        """Frames of PyAV and packets of tracks, in the order of the file."""
        index, started = self._stream.index, False
        lost = 0
        for packet in self._demux():
            if packet.stream.index != index:
                number = self._numbers.get(packet.stream.index)
                if number is not None and packet.size:
                    yield video_tracks.packet_of(packet, number)
                continue
            time = packet.pts if packet.pts is not None else packet.dts
            if time is not None:
                self._damage_time = time * self._stream.time_base
            if not packet.size and time is not None:
                continue  # AVI's sign that the frame before stays, not the end of the stream
            try:
                frames = packet.decode()
            except EOFError:
                return
            except _DAMAGE as error:
                # What lies before the first key frame refers to pictures that aren't there.
                if not started or (begin is not None and self._damage_time < begin):
                    lost += 1
                    continue
                self._damaged(f"a frame can't be decoded without damage ({_reason(error)})")
                continue
            for frame in frames:
                if not started:
                    started = True
                    if lost and begin is None:
                        self._note(f"the first {lost} frames can't be decoded and are left out")
                if frame.is_corrupt and (begin is None or self._damage_time >= begin):
                    self._damaged("a frame is damaged")
                yield frame

    def _demux(self) -> Iterator[Any]:
        packets = self._container.demux()
        while True:
            try:
                packet = next(packets)
            except StopIteration:
                return
            except _DAMAGE as error:
                _raise_if_of_the_disk(error)
                self._damaged(f"damaged or cut short ({_reason(error)})")
                return
            if packet.is_corrupt:
                self._damaged("cut short, its last part is not whole")
            yield packet

    def _check_duration(self, last: VideoFrame) -> None:
        """Formats that state their length tell when the end is missing."""
        if not self._container.format.name.startswith(_TIMED_KINDS) or not self.seconds:
            return
        read = float((last.pts + last.duration) * self.time_base - self.start)
        missing = self.seconds - read
        if self._stream.duration and missing > max(_MISSING_SECONDS, _MISSING_SHARE * self.seconds):
            self._damage_time = last.pts * self.time_base
            self._damaged(f"it says {self.seconds:.2f} s and ends after {read:.2f} s: cut short")

    def _damaged(self, text: str) -> None:
        where = f"at {self._seconds(self._damage_time)}: "
        if not self._keep_going:
            self._fail(f"{where}{text}; get the file again, or keep going to take what is left")
        self._note(where + text)

    def _note(self, text: str) -> None:
        """Note what happened; a file can be damaged in thousands of places."""
        if len(self.notes) < _MOST_NOTES and text not in self.notes:
            self.notes.append(text)

    def _fail(self, text: str) -> NoReturn:
        raise ValueError(f"{self._name}: {text}")

    def _close_source(self) -> None:
        if self._own:
            self._source.close()

    def close(self) -> None:
        """Close the file's container; a file object stays open."""
        self._container.close()
        self._close_source()

    def __enter__(self) -> Self:
        """Return self."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close."""
        self.close()


class _Pts:
    """Times of frames as the file has them; where it has none, or they go back, they are made."""

    def __init__(self, time_base: Fraction, stream: Any, note: Callable[[str], None]) -> None:
        rate = stream.average_rate or stream.guessed_rate or Fraction(25)
        self._usual = max(1, round(1 / rate / time_base)) if rate > 0 else 1
        self._seconds, self._note = time_base, note
        self._last: int | None = None
        self._step = 0

    def of(self, frame: Any) -> int:
        pts: int | None = frame.pts if frame.pts is not None else frame.dts
        last, step = self._last, self._step or self._usual
        self._step = frame.duration or 0
        if pts is None or (last is not None and pts <= last):
            if pts is None or last is None:
                self._note("frames have no time; they get that of the frame rate")
            else:
                self._note(
                    f"at {float(last * self._seconds):.2f} s of the file's clock frames have no "
                    "later time than those before; they get that of the frame rate"
                )
            pts = 0 if last is None else last + step
        self._last = pts
        return pts

    def restart(self) -> None:
        self._last, self._step = None, 0


def _exact(seconds: Fraction | float) -> Fraction:
    """What was meant by a time in binary: 0.16 is 4/25, so that a frame of that time is met."""
    return seconds if isinstance(seconds, Fraction) else Fraction(repr(float(seconds)))


def _is_still(stream: Any) -> bool:
    return bool(stream.disposition & (Disposition.attached_pic | Disposition.timed_thumbnails))


def _rank(stream: Any) -> tuple[bool, int, int]:
    context = stream.codec_context
    pixels = context.width * context.height if context is not None else -1
    return bool(stream.disposition & Disposition.default), pixels, -stream.index


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


def _refuse(url: str, flags: int, options: dict[str, Any]) -> NoReturn:
    """Playlists and the like may not open files or addresses that nobody has named."""
    raise ValueError(f"it refers to {url!r}, which is not opened")


def _raise_if_of_the_disk(error: Exception) -> None:
    """Damaged files make FFmpeg seek to places that are none; other errors of files are real."""
    if isinstance(error, av.error.FFmpegError) or not isinstance(error, OSError):
        return
    if error.errno != errno.EINVAL:
        raise error


def _reason(error: Exception) -> str:
    return str(getattr(error, "strerror", None) or error).lower()
