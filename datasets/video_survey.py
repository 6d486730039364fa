"""How much there is in a video file, found without decoding it."""

from __future__ import annotations

from dataclasses import dataclass, field
from fractions import Fraction
from typing import BinaryIO

import av
import av.error

from .video import VideoReader

_DAMAGE = (av.error.FFmpegError, ValueError, OSError)


@dataclass
class Survey:
    """What lies in a part of a file.

    Attributes:
        frames: of the video.
        seconds: of it.
        tracks: for each track of the reader, packets and their bytes.
    """

    frames: int = 0
    seconds: float = 0.0
    tracks: dict[int, tuple[int, int]] = field(default_factory=dict)


def survey(
    file: BinaryIO, reader: VideoReader, begin: Fraction | None, stop: Fraction | None
) -> Survey:
    """Count frames and packets, reading the file from its start to its end.

    Args:
        file: seekable.
        reader: of the same file; what it found in the header is used. It can't be read afterwards.
        begin: seconds of the file's clock; what is over by then does not count. None is the start.
        stop: what begins then or later does not count.
    """
    found = Survey()
    first: Fraction | None = None
    end = Fraction(0)
    file.seek(0)
    with av.open(file, "r", metadata_errors="replace") as container:
        packets = container.demux()
        while True:
            try:
                packet = next(packets, None)
            except _DAMAGE:  # reading says what is wrong
                break
            if packet is None:
                break
            time = packet.pts if packet.pts is not None else packet.dts
            if not packet.size or time is None or packet.time_base is None:
                continue
            shown = time * packet.time_base
            over = shown + (packet.duration or 0) * packet.time_base
            is_frame = packet.stream.index == reader.streams.stream.index
            if stop is not None and shown >= stop:
                continue
            if begin is not None and (shown < begin if is_frame else over <= begin):
                continue
            if is_frame:
                found.frames += 1
                first = shown if first is None else min(first, shown)
                end = max(end, over)
                continue
            number = reader.streams.numbers.get(packet.stream.index)
            if number is not None:
                count, size = found.tracks.get(number, (0, 0))
                found.tracks[number] = count + 1, size + packet.size
    found.seconds = float(end - first) if first is not None else 0.0
    return found
