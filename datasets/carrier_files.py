"""MP4 files whose first track is samples of another format, beside sounds that any player plays."""

from __future__ import annotations

import io
from collections.abc import Iterator, Mapping, Sequence
from fractions import Fraction
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, NoReturn, Self

import av
import av.error
from av.stream import Discard

from .video_tracks import TrackPacket, TrackSink

_CODEC, _NAME = "bin_data", "latentpack"  # of the track with the samples
_CARRIED = "audio"  # tracks that players play without a picture
_KEPT = ("aac", "mp3", "ac3", "opus", "alac", "flac")  # that FFmpeg puts into MP4 as they are
_DAMAGE = (av.error.FFmpegError, ValueError, OSError)
_HELD_MICROSECONDS = "2000000"  # that the muxer holds back a stream while others have nothing


class CarrierWriter:
    """Writes such a file.

    Attributes:
        carried: numbers of the tracks that it holds, in its order.
    """

    def __init__(self, file: BinaryIO, base: Fraction, tracks: Sequence[Mapping[str, Any]]) -> None:
        """Begin a file.

        Args:
            file: seekable.
            base: seconds of a unit of the samples' times.
            tracks: descriptions; those that MP4 holds get tracks of their own.
        """
        self.carried = [n for n, track in enumerate(tracks) if _plays(track)]
        options = {"max_interleave_delta": _HELD_MICROSECONDS}
        self._container: Any = av.open(file, "w", format="mp4", container_options=options)
        self._stream = self._container.add_data_stream(_CODEC)
        self._stream.time_base, self._base = base, base
        self._stream.metadata["handler_name"] = _NAME
        self._sinks = {n: TrackSink(self._container, tracks[n], None) for n in self.carried}

    def write(self, sample: bytes, pts: int) -> None:
        """Append a sample that belongs to a time, which is not before that of the last one."""
        packet = av.Packet(sample)
        packet.pts = packet.dts = pts
        packet.duration = 1  # without any, readers leave out the last one
        packet.time_base, packet.stream = self._base, self._stream
        self._container.mux(packet)

    def write_packet(self, packet: TrackPacket) -> None:
        """Append a packet of a carried track."""
        self._container.mux(self._sinks[packet.track].packet(packet, Fraction(0)))

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
            self._container.close()


def _plays(track: Mapping[str, Any]) -> bool:
    """Whether MP4 holds a track and a player plays it."""
    if track.get("type") != _CARRIED or track.get("codec") not in _KEPT:
        return False
    if track["codec"] == "aac" and "extradata" not in track:
        return False  # of a stream with a head to each packet, which MP4 has not
    try:
        with av.open(io.BytesIO(), "w", format="mp4") as probe:
            TrackSink(probe, track, None)
            probe.start_encoding()
    except _DAMAGE:
        return False
    return True


class CarrierReader:
    """Reads such a file; each of its tracks is read by itself, and from its start."""

    def __init__(self, path: Path) -> None:
        """Look into a file.

        Raises:
            ValueError: it is no such file.
        """
        self._path = path
        with path.open("rb") as file, self._open(file) as container:
            streams = list(container.streams)
            ours = [stream.index for stream in streams if _is_ours(stream)]
            kinds = [stream.type for stream in streams]
        if not ours:
            found = ", ".join(kinds) or "nothing"
            raise ValueError(f"{path}: it holds no video of latentpack, but {found}")
        self._samples = ours[0]
        self._tracks = [index for index, kind in enumerate(kinds) if kind == _CARRIED]

    def samples(self) -> Iterator[bytes]:
        """Yield the samples."""
        return self._packets(self._samples)

    def packets(self, number: int) -> Iterator[bytes]:
        """Yield the packets of a carried track, numbered from 0; none if there is no such track."""
        return self._packets(self._tracks[number]) if number < len(self._tracks) else iter(())

    def _open(self, file: BinaryIO) -> Any:
        try:
            return av.open(file, "r", format="mp4", metadata_errors="replace", io_open=_refuse)
        except _DAMAGE as error:
            raise ValueError(f"{self._path}: it is no MP4 file, or damaged ({error})") from None

    def _packets(self, index: int) -> Iterator[bytes]:
        with self._path.open("rb") as file, self._open(file) as container:
            for stream in container.streams:
                if stream.index != index:
                    stream.discard = Discard.all
            packets = container.demux(container.streams[index])
            while True:
                try:
                    packet = next(packets, None)
                except _DAMAGE as error:
                    raise ValueError(f"{self._path}: damaged or cut short ({error})") from None
                if packet is None:
                    return
                if packet.size:
                    yield bytes(packet)


def _refuse(*_: object) -> NoReturn:
    raise ValueError("it refers to another file, which is not opened")


def _is_ours(stream: Any) -> bool:
    return bool(
        stream.type == "data"
        and stream.name == _CODEC
        and stream.metadata.get("handler_name") == _NAME
    )
