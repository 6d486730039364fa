"""Write video files of many formats, frame by frame, with the tracks that are beside the picture.

    with VideoWriter("out.mkv", None, 640, 360, info=reader.info, tracks=reader.tracks) as writer:
        for item in reader.items():
            writer.write(item) if isinstance(item, VideoFrame) else writer.write_packet(item)

Matroska is written without loss (FFV1). Times are kept exactly; what a format can't hold is an
error or a note, never silence.
"""

from __future__ import annotations

import io
import math
from collections.abc import Mapping, Sequence
from fractions import Fraction
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, Self

import av
import av.error

from .video_encoder import Picture, PictureEncoder, WriterOptions
from .video_formats import FORMATS, Y4M, video_format
from .video_ticks import OPTIONS as TICK_OPTIONS
from .video_ticks import TickFile, tick_for
from .video_tracks import TrackPacket, TrackSink, chapters_to_write, fraction, strings
from .video_y4m import Y4mFile

__all__ = ["VideoWriter", "WriterOptions", "video_format"]

_MOST_NOTES = 20
_MILLISECOND = Fraction(1, 1000)
_HELD_SECONDS = 2  # that the muxer holds back a stream while others have nothing
_MOST_SCALE = (1 << 31) - 1  # of MP4's clocks
_MOST_TIME = 1 << 60  # of what clocks can count


class VideoWriter:
    """Writes a file from its frames and from packets of tracks.

    Attributes:
        notes: what the format could not hold, in words; whole when the file is closed.
    """

    def __init__(
        self,
        target: str | Path | BinaryIO,
        format: str | None,
        width: int,
        height: int,
        bits: int = 8,
        colours: int = 3,
        info: Mapping[str, Any] | None = None,
        tracks: Sequence[Mapping[str, Any]] = (),
        chapters: Any = None,
        tags: Any = None,
        options: WriterOptions | None = None,
        shift: Fraction | float = 0,
    ) -> None:
        """Begin a file; nothing is written before the first frame.

        Args:
            target: a path, which is overwritten, or a binary file object, which needn't be
                seekable.
            format: a key of FORMATS, or a suffix; None is the path's.
            width: in pixels.
            height: in pixels.
            bits: of a sample.
            colours: 1 grey, 3 for 4:2:0.
            info: of the picture, as `video_info.describe_video` has it; its time_base is that of
                the frames, and 1/25 s if there is none.
            tracks: descriptions of tracks, whose packets name them by their place in this list.
            chapters: as a reader has them.
            tags: of the file.
            options: how the picture is coded.
            shift: seconds that are taken from all times, where a part of a video is written; the
                nearest multiple of the frames' time base.

        Raises:
            ValueError: the format is unknown or can't hold the picture.
        """
        path = target if isinstance(target, (str, Path)) else getattr(target, "name", "")
        self.format_name = video_format(format or Path(str(path)).suffix)
        self._format = FORMATS[self.format_name]
        self._target = target
        self._picture = Picture(width, height, bits, colours, info or {})
        self._base = fraction(
            self._picture.info.get("time_base", [1, 25]), "time_base of the video"
        )
        self._tracks, self._tags = list(tracks), strings(tags)
        self._chapters = chapters if isinstance(chapters, list) else []
        self._shift = round(shift / self._base) * self._base  # so that frames keep their times
        self._held: list[TrackPacket] = []
        self._sinks: dict[int, TrackSink] = {}
        self._file: Any = None
        self._own: BinaryIO | None = None
        self._container: Any = None
        self._y4m: Y4mFile | None = None
        self._last: int | None = None
        self.notes: list[str] = []
        if self.format_name != Y4M:
            self._encoder = PictureEncoder(
                self.format_name, self._picture, options or WriterOptions()
            )

    def write(self, frame: Any) -> None:
        """Append a frame: planes, pts and duration, as `video.VideoFrame` has them.

        Raises:
            ValueError: its planes are of another size or depth, it is not later than the one
                before, or the format can't hold it.
        """
        self._check(frame)
        if self._container is None and self._y4m is None:
            self._begin(frame)
        if self._y4m is not None:
            self._y4m.write(frame.planes, frame.pts * self._base)
            return
        self._mux_video(self._encoder.encode(frame, int(self._shift / self._base)))

    def write_packet(self, packet: TrackPacket) -> None:
        """Append a packet of a track; those of a time come before the frames of that time.

        Raises:
            ValueError: there is no such track.
        """
        if not 0 <= packet.track < len(self._tracks):
            raise ValueError(f"a packet is of track {packet.track}; there are {len(self._tracks)}")
        if self._y4m is not None:
            return
        if self._container is None:
            self._held.append(packet)
            return
        self._mux_packet(packet)

    def _check(self, frame: Any) -> None:
        self._picture.check(frame.planes)
        if abs(frame.pts) >= _MOST_TIME or not 0 <= frame.duration < _MOST_TIME:
            raise ValueError(f"a frame has pts {frame.pts} and duration {frame.duration}")
        if self._last is not None and frame.pts <= self._last:
            raise ValueError(f"a frame has pts {frame.pts} after {self._last}; they must increase")
        self._last = frame.pts

    def _begin(self, frame: Any) -> None:
        """Write the header, with all that has come before the first frame."""
        described = {**self._picture.info, "chapters": self._chapters}
        for name, what in self._format.lost.items():
            if described.get(name):
                self.notes.append(f"{self.format_name} can't hold {what}")
        if self.format_name == Y4M:
            self._begin_y4m(frame)
            return
        self.notes += self._encoder.notes
        first = {packet.track: packet for packet in reversed(self._held)}
        kept = [n for n in range(len(self._tracks)) if self._can_hold(n, first.get(n))]
        self._start_at(frame, set(kept))
        self._file = self._open_target()
        bases = [self._base]
        for n in kept:
            if self._tracks[n].get("type") in ("audio", "video"):
                bases.append(fraction(self._tracks[n].get("time_base"), "time_base"))
        self._tick = tick_for(bases) if self.format_name in ("mkv", "webm") else None
        if self._tick is not None and self._tick != _MILLISECOND:
            self._file = TickFile(self._file, self._tick)
        try:
            self._container = av.open(
                self._file,
                "w",
                format=self._format.muxer,
                container_options=self._muxer_options(bases),
            )
            self._stream = self._encoder.add_to(self._container, self._base)
            for n in kept:
                self._sinks[n] = TrackSink(self._container, self._tracks[n], first.get(n))
            self._container.metadata.update(self._tags)
            self._container.set_chapters(chapters_to_write(self._chapters, self._shift))
            self._container.start_encoding()
        except (av.error.FFmpegError, ValueError, RuntimeError) as error:
            raise ValueError(
                f"{self.format_name} by {self._encoder.name} can't hold this video "
                f"({_reason(error)}); mkv can"
            ) from error
        self._check_clock()
        for packet in self._held:
            self._mux_packet(packet)
        self._held.clear()

    def _begin_y4m(self, frame: Any) -> None:
        rate = self._picture.info.get("average_rate")
        found = (
            fraction(rate, "average_rate") if rate else 1 / (max(1, frame.duration) * self._base)
        )
        self._file = self._open_target()
        self._y4m = Y4mFile(self._file, self._picture, found)
        for number, track in enumerate(self._tracks):
            what = str(track.get("type"))
            self.notes.append(f"y4m can't hold track {number} ({what}); it is dropped")
        self._held.clear()

    def _start_at(self, frame: Any, kept: set[int]) -> None:
        """Shift times that would be below 0, where the format has none."""
        times = [frame.pts * self._base]
        if not self._format.negative:
            for packet in self._held:
                time = packet.dts if packet.dts is not None else packet.pts
                if time is not None and packet.track in kept:
                    base = self._tracks[packet.track].get("time_base")
                    times.append(time * fraction(base, "time_base"))
        early = min(times) - self._shift
        if early < 0:
            late = -(early // self._base) * self._base
            self.notes.append(
                f"{self.format_name} begins at 0; all times are {float(late):.4f} s later"
            )
            self._shift -= late

    def _can_hold(self, number: int, first: TrackPacket | None) -> bool:
        """Whether the format takes a track, by a header with it alone; else it is noted."""
        track = self._tracks[number]
        try:
            with av.open(io.BytesIO(), "w", format=self._format.muxer) as probe:
                TrackSink(probe, track, first)
                probe.start_encoding()
        except (av.error.FFmpegError, ValueError, RuntimeError) as error:
            what = " ".join(str(track.get(name)) for name in ("type", "codec") if track.get(name))
            self.notes.append(
                f"{self.format_name} can't hold track {number} ({what}): {_reason(error)}; it is "
                "dropped"
            )
            return False
        return True

    def _open_target(self) -> BinaryIO:
        if isinstance(self._target, (str, Path)):
            self._own = Path(self._target).open("w+b")
            return self._own
        return self._target

    def _muxer_options(self, bases: list[Fraction]) -> dict[str, str]:
        options = {} if self._file.seekable() else dict(self._format.piped)
        held = _HELD_SECONDS
        if isinstance(self._file, TickFile):
            options |= TICK_OPTIONS
            held = round(held * _MILLISECOND / (self._tick or _MILLISECOND))
        if self._format.muxer in ("mp4", "mov"):
            scale = math.lcm(*(base.denominator for base in bases))
            if scale > _MOST_SCALE:
                scale = self._base.denominator
            options["movie_timescale"] = str(min(scale, _MOST_SCALE))
        return options | {"max_interleave_delta": str(held * 1_000_000)}

    def _check_clock(self) -> None:
        """Say where the file's unit of time can't tell times apart."""
        unit = self._tick or self._stream.time_base
        if unit > self._base:
            self.notes.append(
                f"{self.format_name} has times in units of {_unit(unit)} s, where the video has "
                f"{_unit(self._base)} s; they are rounded"
            )

    def _mux_video(self, packets: Any) -> None:
        for packet in packets:
            self._mux(packet)

    def _mux_packet(self, packet: TrackPacket) -> None:
        sink = self._sinks.get(packet.track)
        found = sink.packet(packet, self._shift) if sink is not None else None
        if found is None:
            return
        try:
            self._mux(found)
        except ValueError as error:
            text = f"a packet of track {packet.track} is left out: {error}"
            if len(self.notes) < _MOST_NOTES:
                self.notes.append(text)

    def _mux(self, packet: Any) -> None:
        if self._tick is not None:
            _to_ticks(packet, self._tick)
        try:
            self._container.mux(packet)
        except (av.error.FFmpegError, ValueError) as error:
            raise ValueError(f"{self.format_name} can't hold it ({_reason(error)})") from error

    def close(self) -> None:
        """Finish the file.

        Raises:
            ValueError: there was no frame.
            OSError: the disk is full, or the like.
        """
        try:
            if self._container is None and self._y4m is None:
                raise ValueError("the video has no frame, which no video file can say")
            if self._container is not None:
                self._mux_video(self._encoder.encode(None))
                self._end()
            if self._y4m is not None:
                self._file.flush()
        finally:
            self._release()

    def _end(self) -> None:
        try:
            self._container.close()
        except av.error.FFmpegError as error:
            raise ValueError(
                f"{self.format_name} can't be finished ({_reason(error)}); mkv may hold it"
            ) from error

    def _release(self) -> None:
        if self._own is not None:
            self._own.close()

    def __enter__(self) -> Self:
        """Return self."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Finish the file, unless an exception is on its way."""
        if kind is None:
            self.close()
        else:
            self._release()


def _to_ticks(packet: Any, tick: Fraction) -> None:
    """Give a packet's times in ticks, which FFmpeg takes for milliseconds."""
    base = packet.time_base / tick
    pts, dts = packet.pts, packet.dts
    packet.time_base = _MILLISECOND
    packet.pts = None if pts is None else round(pts * base)
    packet.dts = None if dts is None else round(dts * base)
    packet.duration = round((packet.duration or 0) * base)


def _unit(value: Fraction) -> str:
    return f"{value.numerator}/{value.denominator}"


def _reason(error: Exception) -> str:
    log = getattr(error, "log", None)
    text = log[2] if log else getattr(error, "strerror", None) or error
    return str(text).strip().rstrip(".").lower()
