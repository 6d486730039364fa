"""Open a video file: choose its streams, decode one of them, hand on the packets of the others."""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction
from itertools import chain
from typing import Any, BinaryIO, NoReturn

import av
import av.error
from av.stream import Discard, Disposition

from . import video_tracks
from .audio_kinds import explain
from .ffmpeg_errors import raise_if_of_the_disk, reason_of
from .video_findings import Findings
from .video_source import readable_source
from .video_tracks import TrackPacket

_DAMAGE = (av.error.FFmpegError, ValueError, OSError)
_MOST_PIXELS = 1 << 28  # of a frame, before FFmpeg takes memory for it
_FIRST_STEP_BACK = Fraction(1)  # seconds from where a seek starts anew that came out too late


class VideoStreams:
    """The streams of an open file.

    Attributes:
        container: of PyAV.
        stream: that is decoded.
        tracks: descriptions of the others.
        numbers: of the tracks, by the index of their stream in the file.
        attached: attached files, each as a packet.
    """

    def __init__(
        self, file: BinaryIO, stream: int | None, findings: Findings, threads: int | None
    ) -> None:
        """Read the headers.

        Args:
            file: of any kind.
            stream: which video, from 0; None chooses.
            findings: gets what is noteworthy.
            threads: of the decoder; None leaves it to FFmpeg.

        Raises:
            ValueError: there is no such video.
        """
        self._found = findings
        self._source, self._own = readable_source(file)
        try:
            self.container = self._open(file)
            try:
                self.stream = self._choose(stream)
                self._set_decoder(threads)
                self._choose_tracks()
            except BaseException:
                self.container.close()
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
            raise_if_of_the_disk(error)
            reason = f"no video that can be read ({reason_of(error)}), or damaged"
            self._found.fail(explain(reason, file, "video"))

    def _choose(self, number: int | None) -> Any:
        found = [s for s in self.container.streams.video if not _is_still(s)]
        if not found:
            kinds = ", ".join(sorted({s.type for s in self.container.streams})) or "nothing"
            self._found.fail(f"it holds no video, but {kinds.replace('video', 'a cover picture')}")
        if number is None:
            chosen = max(found, key=_rank)
        elif 0 <= number < len(found):
            chosen = found[number]
        else:
            self._found.fail(f"stream is {number}; it has {len(found)} videos, 0 is the first")
        if chosen.codec_context is None:
            self._found.fail("its video is of a kind that can't be decoded")
        if len(found) > 1:
            self._found.note(
                f"video {found.index(chosen)} of {len(found)} in the file; others are tracks"
            )
        return chosen

    def _set_decoder(self, threads: int | None) -> None:
        context = self.stream.codec_context
        context.thread_type = "AUTO"
        if threads is not None:
            context.thread_count = threads
        # Else FFmpeg hides damage, and says so nowhere.
        options = {} if self._found.keep_going else {"err_detect": "explode"}
        context.options = {"max_pixels": str(_MOST_PIXELS), **options}

    def _choose_tracks(self) -> None:
        """Number the other streams that are copied, by their index in the file."""
        self.tracks: list[dict[str, Any]] = []
        self.numbers: dict[int, int] = {}
        self.attached: list[TrackPacket] = []
        for stream in self.container.streams:
            if stream.index == self.stream.index:
                continue
            try:
                track = video_tracks.describe(stream)
            except ValueError as error:
                self._found.note(f"stream {stream.index}: {error}")
                stream.discard = Discard.all
                continue
            number = len(self.tracks)
            self.tracks.append(track)
            self.numbers[stream.index] = number
            if stream.type == "attachment":
                self.attached.append(video_tracks.packets_of(stream, number))

    def sought(self, begin: Fraction, first_pts: int) -> Iterator[Any] | None:
        """Events from before a time on; None where the file can't be read but from its begin.

        Args:
            begin: seconds of the file's clock.
            first_pts: of the first frame, in units of the stream's time base.
        """
        if not self._source.seekable():
            return None
        base = self.stream.time_base
        step = Fraction(0)
        while begin - step > first_pts * base:
            try:
                offset = int((begin - step) / base)
                self.container.seek(offset, stream=self.stream, backward=True)
            except av.error.FFmpegError:
                break
            events, ahead = self.events(begin), []
            for event in events:
                ahead.append(event)
                if not isinstance(event, TrackPacket):
                    # Frames that a decoder leaves out after a seek are shown before its first.
                    if event.pts is not None and event.pts * base <= begin:
                        return chain(ahead, events)
                    break
            step = max(_FIRST_STEP_BACK, 4 * step)
        try:
            first = self.stream.start_time
            offset = first_pts if first is None else min(first, first_pts)
            self.container.seek(offset, stream=self.stream, backward=True)
        except av.error.FFmpegError:
            return None
        return self.events(begin)

    def events(self, begin: Fraction | None = None) -> Iterator[Any]:
        """Yield frames of PyAV and packets of tracks, in the order of the file.

        Args:
            begin: seconds of the file's clock; what is damaged before does not matter.

        Raises:
            ValueError: the file is damaged.
        """
        index, started = self.stream.index, False
        lost = 0
        for packet in self._demux():
            if packet.stream.index != index:
                number = self.numbers.get(packet.stream.index)
                if number is not None and packet.size:
                    yield video_tracks.packet_of(packet, number)
                continue
            time = packet.pts if packet.pts is not None else packet.dts
            if time is not None:
                self._found.time = time * self.stream.time_base
            if not packet.size and time is not None:
                continue  # AVI's sign that the frame before stays, not the end of the stream
            try:
                frames = packet.decode()
            except EOFError:
                return
            except _DAMAGE as error:
                # What lies before the first key frame refers to pictures that aren't there.
                if not started or (begin is not None and self._found.time < begin):
                    lost += 1
                    continue
                self._found.damaged(f"a frame can't be decoded without damage ({reason_of(error)})")
                continue
            for frame in frames:
                if not started:
                    started = True
                    if lost and begin is None:
                        self._found.note(
                            f"the first {lost} frames can't be decoded and are left out"
                        )
                if frame.is_corrupt and (begin is None or self._found.time >= begin):
                    self._found.damaged("a frame is damaged")
                yield frame

    def _demux(self) -> Iterator[Any]:
        packets = self.container.demux()
        while True:
            try:
                packet = next(packets)
            except StopIteration:
                return
            except _DAMAGE as error:
                raise_if_of_the_disk(error)
                self._found.damaged(f"damaged or cut short ({reason_of(error)})")
                return
            if packet.is_corrupt:
                self._found.damaged("cut short, its last part is not whole")
            yield packet

    def close(self) -> None:
        """Close the file's container; a file object stays open."""
        self.container.close()
        self._close_source()

    def _close_source(self) -> None:
        if self._own:
            self._source.close()


def _is_still(stream: Any) -> bool:
    return bool(stream.disposition & (Disposition.attached_pic | Disposition.timed_thumbnails))


def _rank(stream: Any) -> tuple[bool, int, int]:
    context = stream.codec_context
    pixels = context.width * context.height if context is not None else -1
    return bool(stream.disposition & Disposition.default), pixels, -stream.index


def _refuse(url: str, flags: int, options: dict[str, Any]) -> NoReturn:
    """Playlists and the like may not open files or addresses that nobody has named."""
    raise ValueError(f"it refers to {url!r}, which is not opened")
