"""What every video codec is made of: closed groups of pictures (GoPs), each a packet by itself.

    frames -> GoPs of at most `gop` frames -> one packet each: times of the frames, payload

A packet's key is the number of its GoP, so a time is found through the index. FORMAT.md, section
23, has the bytes. Memory grows with a GoP, never with the length of a video.
"""

from __future__ import annotations

import warnings
from abc import abstractmethod
from collections.abc import Callable, Iterable, Iterator
from fractions import Fraction
from typing import Any, ClassVar, NamedTuple

from ...kernels.errors import BitstreamError
from ..codec import Codec, DamageWarning, Packet, Rate
from . import gop_rate
from .frames import (
    Clip,
    Frame,
    Length,
    Planes,
    VideoFormat,
    clip_of,
    format_of,
    frames_of,
    psnr_db,
)
from .gop_rate import Coded, Span
from .gop_times import MOST_FRAMES, Times, put_times, read_times

__all__ = ["Coded", "GopCodec", "describe_gop", "find_gop", "parse_header"]

_PSNR = "psnr"


class _Gop(NamedTuple):
    """Frames that are coded together.

    Attributes:
        number: of the GoP.
        frames: of it.
        next_pts: of the first frame behind it, None if there is none.
    """

    number: int
    frames: list[Frame]
    next_pts: int | None


class GopCodec(Codec):
    """Videos frame by frame, and clips of whole planes (frames.py says what both are).

    A codec gives `encode_gop` and `decode_gop`, and with `header_fields` what its header says
    besides; it may set `usual_gop`, `most_gop`, `depths` and `snap`.
    """

    usual_gop: ClassVar[int] = 32
    most_gop: ClassVar[int] = MOST_FRAMES
    depths: ClassVar[range] = range(8, 11)  # bits of a sample

    def __init__(
        self,
        gop: int | None = None,
        bits: int | None = None,
        frame_rate: float | Fraction | None = None,
        keep_going: bool = False,
    ) -> None:
        """Set the options that all have.

        Args:
            gop: the most frames of a GoP; None is the codec's usual number.
            bits: of the samples of clips in int16; None is 10.
            frame_rate: of clips, for a rate in kbps.
            keep_going: decode what is whole of a damaged video, with a DamageWarning for each GoP
                that is not.
        """
        if gop is not None and (type(gop) is not int or not 1 <= gop <= self.most_gop):
            raise ValueError(f"gop must be 1 to {self.most_gop} frames, got {gop!r}")
        if frame_rate is not None and not frame_rate > 0:
            raise ValueError(f"frame_rate must be above 0, got {frame_rate!r}")
        self.gop = gop or self.usual_gop
        self.bits, self.keep_going = bits, keep_going
        self.frame_rate = None if frame_rate is None else Fraction(frame_rate)

    @abstractmethod
    def encode_gop(
        self,
        gop: list[Planes],
        format: VideoFormat,
        quality: float,
        before: Coded | None = None,
        near: Coded | None = None,
    ) -> Coded:
        """Code the frames of a GoP, which is decoded without any other.

        Args:
            gop: the planes of each frame, checked to be of the format.
            format: of the video.
            quality: 0 to 100, one that `snap` gives. What it does to the size should be near
                log(bytes) = a + b * quality.
            before: what the GoP before became, for codecs that go on from its `kept`.
            near: what this GoP became in a try at another quality.

        Returns:
            The payload, of 1 byte or more; its PSNR, if that is known anyhow.
        """

    @abstractmethod
    def decode_gop(
        self, header: dict[str, Any], payload: memoryview, format: VideoFormat, count: int
    ) -> Iterator[Planes]:
        """Yield the planes of `count` frames in the order shown, each as soon as it is there.

        Raises:
            BitstreamError: the payload, or what `header_fields` gave, is damaged.
        """

    def header_fields(self, format: VideoFormat) -> dict[str, Any]:
        """What box H says besides the format and the length of GoPs."""
        return {}

    def snap(self, quality: float) -> float:
        """The nearest quality among those that make a difference."""
        return quality

    @classmethod
    def read_format(cls, header: dict[str, Any]) -> VideoFormat:
        """The format of the frames of a file; BitstreamError if it is illegal."""
        return VideoFormat.parse(header)

    def header(self, signal: Clip | VideoFormat) -> dict[str, Any]:
        """See Codec. The signal is a clip, or the format of frames that are to come."""
        if not isinstance(signal, VideoFormat):
            signal = format_of(signal, self.name, self.bits)
        self._check_format(signal)
        return {**signal.header(), "g": self.gop, **self.header_fields(signal)}

    def _check_format(self, format: VideoFormat) -> None:
        if format.bits not in self.depths:
            raise ValueError(
                f"{self.name} takes {self.depths[0]} to {self.depths[-1]} bits to a sample, got "
                f"{format.bits}"
            )

    def encode(self, signal: Clip, rate: Rate | None = None, reserve: int = 0) -> Iterator[Packet]:
        """See Codec. The signal is a clip; its frames get the times 0, 1, 2, ..."""
        format = format_of(signal, self.name, self.bits)
        count, step = len(signal[0]), self.frame_rate and 1 / self.frame_rate
        length = Length(count, None if step is None else float(count * step))
        return self.encode_frames(frames_of(signal), format, rate, reserve, step, length)

    def encode_frames(
        self,
        frames: Iterable[Frame],
        format: VideoFormat,
        rate: Rate | None = None,
        reserve: int = 0,
        time_base: Fraction | None = None,
        length: Length | None = None,
    ) -> Iterator[Packet]:
        """Yield the packets of a video whose frames come one by one.

        Args:
            frames: in the order shown.
            format: of all of them.
            rate: quality, bpp, kbps, ratio, max_bytes or psnr; None is quality 50. bpp and kbps
                are of the whole file, psnr is the mean of `psnr_db` over the frames. Sizes are met
                over several GoPs.
            reserve: bytes of the file with an empty packet, and of all that is beside the picture.
            time_base: seconds of a unit of the frames' times, for kbps.
            length: of the video; needed for max_bytes, and good for every other size.

        Raises:
            ValueError: a frame is not of the format; the rate can't be met or needs more to be
                known.
        """
        self._check_format(format)
        control = gop_rate.control(rate, format, reserve, length, self.name, self.snap)
        measured = rate is not None and rate.name == _PSNR
        return self._packets(frames, format, control, time_base, measured)

    def _packets(
        self,
        frames: Iterable[Frame],
        format: VideoFormat,
        control: gop_rate.Constant | gop_rate.Psnr | gop_rate.Size,
        time_base: Fraction | None,
        measured: bool,
    ) -> Iterator[Packet]:
        before: Coded | None = None
        for gop in self._gops(frames, format):
            times = Times([f.pts for f in gop.frames], [f.duration for f in gop.frames])
            head = put_times(times)
            planes = [frame.planes for frame in gop.frames]

            def attempt(
                quality: float,
                near: Coded | None,
                planes: list[Planes] = planes,
                before: Coded | None = before,
            ) -> Coded:
                coded = self.encode_gop(planes, format, quality, before, near)
                return self._measured(coded, planes, format) if measured else coded

            end = times.end if gop.next_pts is None else gop.next_pts
            seconds = None if time_base is None else float((end - times.pts[0]) * time_base)
            span = Span(gop.number, len(planes), seconds, gop.next_pts is None)
            before = control.code(span, attempt, len(head))
            yield Packet(gop.number, head + before.payload)

    def _gops(self, frames: Iterable[Frame], format: VideoFormat) -> Iterator[_Gop]:
        held: list[Frame] = []
        number = 0
        for index, frame in enumerate(frames):
            format.check(frame.planes, index, self.name)
            if len(held) == self.gop:
                yield _Gop(number, held, frame.pts)
                held, number = [], number + 1
            held.append(Frame(*frame))
        if held:
            yield _Gop(number, held, None)

    def _measured(self, coded: Coded, planes: list[Planes], format: VideoFormat) -> Coded:
        """With its PSNR: of codecs that do not say it, what decoding gives."""
        if coded.psnr is not None:
            return coded
        payload = memoryview(coded.payload)
        found = self.decode_gop(self.header(format), payload, format, len(planes))
        total = sum(psnr_db(a, b, format.bits) for a, b in zip(planes, found, strict=True))
        return Coded(coded.payload, total / len(planes), coded.kept)

    def decode(self, header: dict[str, Any], packets: Iterable[Packet]) -> Any:
        """See Codec. Returns a clip."""
        return clip_of(self.decode_frames(header, packets), VideoFormat.parse(header))

    def decode_frames(
        self,
        header: dict[str, Any],
        packets: Iterable[Packet],
        start: int | None = None,
        stop: int | None = None,
    ) -> Iterator[Frame]:
        """Yield the frames of packets, each as soon as it is decoded.

        Args:
            header: of the file.
            packets: in file order; they may begin with any GoP. Those of tracks are skipped.
            start: frames shown before are left out, and GoPs that end before are not decoded.
            stop: frames shown at this time or later are left out. Times are in units of the time
                base.

        Raises:
            BitstreamError: header or packets are damaged, or a GoP is missing.
        """
        format, most = parse_header(header, self.read_format)
        number: int | None = None
        for packet in packets:
            if isinstance(packet.key, str):
                continue
            number = self._checked_number(packet.key, number)
            try:
                times, payload = read_times(packet.body, most)
                if start is not None and max(times.pts) < start:
                    continue
                if stop is not None and min(times.pts) >= stop:
                    return
                for frame in self._frames(header, payload, format, times):
                    if (start is None or frame.pts >= start) and (stop is None or frame.pts < stop):
                        yield frame
            except BitstreamError as error:
                self._damage(f"group of pictures {number}: {error}")

    def _frames(
        self, header: dict[str, Any], payload: memoryview, format: VideoFormat, times: Times
    ) -> Iterator[Frame]:
        count = len(times.pts)
        found = self.decode_gop(header, payload, format, count)
        yield from (Frame(*parts) for parts in zip(found, *times, strict=True))

    def _checked_number(self, key: str | int | None, last: int | None) -> int:
        """The number of a GoP that follows another, or any."""
        if not isinstance(key, int) or key < 0 or (last is not None and key <= last):
            raise BitstreamError(f"a packet has the key {key!r}, not the number of the next GoP")
        if last is not None and key != last + 1:
            self._damage(f"groups of pictures {last + 1} to {key - 1} are missing")
        return key

    def _damage(self, text: str) -> None:
        if not self.keep_going:
            raise BitstreamError(text)
        warnings.warn(text, DamageWarning, stacklevel=4)

    def describe(self, header: dict[str, Any], packet: Packet) -> dict[str, Any]:
        """See Codec: how many frames a GoP has, and the times of the first and of its end."""
        return {} if isinstance(packet.key, str) else describe_gop(header, packet)

    def verify(self, header: dict[str, Any], packet: Packet) -> None:
        """See Codec."""
        for _ in self.decode_frames(header, [packet]):
            pass


def parse_header(
    header: dict[str, Any], read: Callable[[dict[str, Any]], VideoFormat] = VideoFormat.parse
) -> tuple[VideoFormat, int]:
    """The format of the frames and the most of them in a GoP; BitstreamError if illegal."""
    return read(header), _most_frames(header)


def _most_frames(header: dict[str, Any]) -> int:
    most = header.get("g")
    if type(most) is not int or not 1 <= most <= MOST_FRAMES:
        raise BitstreamError(f"header field g is {most!r:.40}, expected 1 to {MOST_FRAMES}")
    return most


def describe_gop(header: dict[str, Any], packet: Packet) -> dict[str, int]:
    """Frames, times of the first and of the end, and payload's bytes of a GoP of any codec."""
    times, payload = read_times(packet.body, _most_frames(header))
    return {
        "frames": len(times.pts),
        "start": times.pts[0],
        "end": times.end,
        "bytes": len(payload),
    }


def find_gop(header: dict[str, Any], read: Callable[[int], Packet], count: int, pts: int) -> int:
    """The number of the GoP in which a time lies: of the last that begins at or before it.

    Reads about log2(count) packets and decodes none.

    Args:
        header: of the file.
        read: gives the packet of a number, as `Reader.read` does.
        count: of GoPs, numbered from 0.
        pts: in units of the time base.

    Raises:
        BitstreamError: header or a packet is damaged.
    """
    most = _most_frames(header)
    low, high = 0, max(1, count)
    while high - low > 1:
        middle = (low + high) // 2
        first = read_times(read(middle).body, most)[0].pts[0]
        low, high = (middle, high) if first <= pts else (low, middle)
    return low
