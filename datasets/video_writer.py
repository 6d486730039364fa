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
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, Self

import av
import av.error
import torch

from .video_formats import (
    ENCODERS,
    FORMATS,
    Y4M,
    Encoder,
    choose_encoder,
    encoder_options,
    pixel_formats,
    video_format,
)
from .video_frames import frame_of, pixel_format
from .video_info import FIELD_ORDERS, UNKNOWN, range_number
from .video_ticks import OPTIONS as TICK_OPTIONS
from .video_ticks import TickFile, tick_for
from .video_tracks import (
    TrackPacket,
    TrackSink,
    chapters_to_write,
    fraction,
    set_stream_tags,
    strings,
)
from .video_y4m import Y4mFile

_MILLISECOND = Fraction(1, 1000)
_FRAME_DURATION = 1 << 8  # flag of an encoder that passes durations on
_LEAST_SLICED = 16  # pixels, below which FFV1 finds no way to cut a picture into its slices
_HELD_SECONDS = 2  # that the muxer holds back a stream while others have nothing
_MOST_SCALE = (1 << 31) - 1  # of MP4's clocks
_MOST_TIME = 1 << 60  # of what clocks can count


@dataclass(frozen=True)
class WriterOptions:
    """How the picture is coded in a file.

    Attributes:
        encoder: FFmpeg's name of it; None is the format's usual one.
        quality: "lossless", or the encoder's CRF; None is lossless for FFV1, else nearly so.
        preset: of the encoder, for those that have them.
        threads: of the encoder; None leaves it to FFmpeg.
    """

    encoder: str | None = None
    quality: float | str | None = None
    preset: str | None = None
    threads: int | None = None


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
        self._target, self._options = target, options or WriterOptions()
        self._width, self._height, self._bits, self._colours = width, height, bits, colours
        self._info: Mapping[str, Any] = info or {}
        self._base = fraction(self._info.get("time_base", [1, 25]), "time_base of the video")
        self._tracks, self._tags = list(tracks), strings(tags)
        self._chapters = chapters if isinstance(chapters, list) else []
        self._shift = round(shift / self._base) * self._base  # so that frames keep their times
        self._pixels = pixel_format(bits, colours)
        self._held: list[TrackPacket] = []
        self._sinks: dict[int, TrackSink] = {}
        self._file: Any = None
        self._own: BinaryIO | None = None
        self._container: Any = None
        self._y4m: Y4mFile | None = None
        self._last: int | None = None
        self.notes: list[str] = []
        if self.format_name != Y4M:
            self._choose()

    def _choose(self) -> None:
        """The encoder, and what becomes of pictures that it doesn't take."""
        self._encoder, taken = choose_encoder(self.format_name, self._options.encoder, self._pixels)
        self._coding = encoder_options(self._encoder, self._options.quality)
        self._grey_as_colour = self._colours == 1 and not taken
        if self._grey_as_colour:
            self._pixels = pixel_format(self._bits, 3)
            self.notes.append(f"{self._encoder} has no grey; the picture gets colours, all grey")
        if self._pixels not in pixel_formats(self._encoder):
            raise ValueError(
                f"{self._encoder} takes no {self._pixels} ({self._bits} bits); write mkv, which "
                "keeps it"
            )
        even = ENCODERS.get(self._encoder, Encoder()).even
        self._padded = self._height + self._height % 2 * even, self._width + self._width % 2 * even
        if self._padded != (self._height, self._width):
            self.notes.append(
                f"{self.format_name} by {self._encoder} holds even sizes only; {self._width}x"
                f"{self._height} becomes {self._padded[1]}x{self._padded[0]}, the edge repeated; "
                "mkv keeps it"
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
        picture = frame_of(self._pictures(frame.planes), self._pixels, self._padded)
        picture.pts = frame.pts - round(self._shift / self._base)
        picture.time_base, picture.duration = self._base, frame.duration
        self._mux_video(self._stream.encode(picture))

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
        half = (self._height + 1) // 2, (self._width + 1) // 2
        shapes = [(self._height, self._width), half, half][: self._colours]
        dtype = torch.uint8 if self._bits == 8 else torch.int16
        if [(x.dtype, tuple(x.shape)) for x in frame.planes] != [(dtype, s) for s in shapes]:
            found = ", ".join(f"{x.dtype} {list(x.shape)}" for x in frame.planes)
            raise ValueError(
                f"a frame has planes {found}; the file is {self._width}x{self._height} with "
                f"{self._bits} bits and {self._colours} colours"
            )
        if abs(frame.pts) >= _MOST_TIME or not 0 <= frame.duration < _MOST_TIME:
            raise ValueError(f"a frame has pts {frame.pts} and duration {frame.duration}")
        if self._last is not None and frame.pts <= self._last:
            raise ValueError(f"a frame has pts {frame.pts} after {self._last}; they must increase")
        self._last = frame.pts

    def _pictures(self, planes: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...]:
        if not self._grey_as_colour:
            return planes
        half = (self._height + 1) // 2, (self._width + 1) // 2
        middle = torch.full(half, 1 << self._bits - 1, dtype=planes[0].dtype)
        return planes[0], middle, middle

    def _begin(self, frame: Any) -> None:
        """Write the header, with all that has come before the first frame."""
        described = {**self._info, "chapters": self._chapters}
        for name, what in self._format.lost.items():
            if described.get(name):
                self.notes.append(f"{self.format_name} can't hold {what}")
        if self.format_name == Y4M:
            self._begin_y4m(frame)
            return
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
            self._add_video()
            for n in kept:
                self._sinks[n] = TrackSink(self._container, self._tracks[n], first.get(n))
            self._container.metadata.update(self._tags)
            self._container.set_chapters(chapters_to_write(self._chapters, self._shift))
            self._container.start_encoding()
        except (av.error.FFmpegError, ValueError, RuntimeError) as error:
            raise ValueError(
                f"{self.format_name} by {self._encoder} can't hold a video of {self._width}x"
                f"{self._height} at {self._bits} bits ({_reason(error)}); mkv can"
            ) from error
        self._check_clock()
        for packet in self._held:
            self._mux_packet(packet)
        self._held.clear()

    def _begin_y4m(self, frame: Any) -> None:
        rate = self._info.get("average_rate")
        found = (
            fraction(rate, "average_rate") if rate else 1 / (max(1, frame.duration) * self._base)
        )
        size = self._width, self._height
        self._file = self._open_target()
        self._y4m = Y4mFile(self._file, size, self._bits, self._colours, self._info, found)
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

    def _add_video(self) -> None:
        rate = self._info.get("average_rate")
        stream = self._container.add_stream(
            self._encoder,
            rate=fraction(rate, "average_rate") if rate else Fraction(25),
            options=self._encoder_options(),
        )
        context = stream.codec_context
        context.width, context.height = self._padded[1], self._padded[0]
        context.pix_fmt, context.time_base = self._pixels, self._base
        context.flags |= _FRAME_DURATION
        context.thread_type = "AUTO"
        if self._options.threads is not None:
            context.thread_count = self._options.threads
        if self._encoder == "ffv1":
            context.gop_size = 1  # every frame by itself, so that any can be sought
        for name, key in (
            ("colorspace", "matrix"),
            ("color_primaries", "primaries"),
            ("color_trc", "transfer"),
        ):
            value = self._info.get(key, UNKNOWN)
            setattr(context, name, value if type(value) is int and 0 <= value < 256 else UNKNOWN)
        context.color_range = range_number(dict(self._info))
        if "sample_aspect" in self._info:
            context.sample_aspect_ratio = fraction(self._info["sample_aspect"], "sample_aspect")
        if order := FIELD_ORDERS.get(str(self._info.get("field_order"))):
            context.field_order = order
        matrix = self._info.get("display_matrix")
        if isinstance(matrix, list) and len(matrix) == 9:
            stream.set_display_matrix(matrix)
        set_stream_tags(stream, self._info)
        stream.time_base = self._base
        self._stream = stream

    def _encoder_options(self) -> dict[str, str]:
        options = dict(self._coding)
        if self._encoder == "ffv1" and min(self._padded) < _LEAST_SLICED:
            options["slices"] = "1"
        if self._options.preset is not None:
            options["preset"] = self._options.preset
        light, mastering = self._info.get("content_light"), self._info.get("mastering_display")
        if not light and not mastering:
            return options
        if self._encoder not in ("libx264", "libx265"):
            self.notes.append(f"{self._encoder} can't hold the light levels of HDR; mp4 can")
            return options
        name = self._encoder[3:] + "-params"
        parts = [options[name]] if name in options else []
        if light:
            key = "cll" if self._encoder == "libx264" else "max-cll"
            parts.append(f"{key}={int(light[0])},{int(light[1])}")
        if mastering:
            parts.append("mastering-display=" + _mastering(mastering))
        return options | {name: ":".join(parts)}

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
        if found is not None:
            self._mux(found)

    def _mux(self, packet: Any) -> None:
        if self._tick is not None:
            _to_ticks(packet, self._tick)
        try:
            self._container.mux(packet)
        except (av.error.FFmpegError, ValueError) as error:
            if isinstance(error, OSError) and not isinstance(error, av.error.FFmpegError):
                raise
            raise ValueError(
                f"{self.format_name} can't hold a packet of the stream "
                f"{packet.stream.index} ({_reason(error)})"
            ) from error

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
                self._mux_video(self._stream.encode(None))
                self._container.close()
            if self._y4m is not None:
                self._file.flush()
        finally:
            self._release()

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


def _mastering(fractions: Any) -> str:
    """SMPTE ST 2086 as x264 and x265 take it: in units of 0.00002 and of 0.0001 cd/m2."""
    values = [fraction(pair, "mastering_display") for pair in fractions]
    if len(values) != 10:
        raise ValueError(f"mastering_display has {len(values)} fractions, expected 10")
    red, green, blue, white = (
        f"({round(x * 50000)},{round(y * 50000)})"
        for x, y in zip(values[0:8:2], values[1:8:2], strict=True)
    )
    least, most = (round(v * 10000) for v in values[8:])
    return f"G{green}B{blue}R{red}WP{white}L({most},{least})"


def _unit(value: Fraction) -> str:
    return f"{value.numerator}/{value.denominator}"


def _reason(error: Exception) -> str:
    log = getattr(error, "log", None)
    text = log[2] if log else getattr(error, "strerror", None) or error
    return str(text).strip().rstrip(".").lower()
