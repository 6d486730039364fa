"""Matroska with a unit of time that is fine enough for the times of a video.

FFmpeg writes milliseconds, always. Here it is given times in finer ticks as if they were
milliseconds, and the file's header is changed to say what they are.
"""

from __future__ import annotations

import re
from fractions import Fraction
from typing import BinaryIO

_NANOSECONDS = 10**9
_MILLISECOND = 10**6
_TICKS = (_MILLISECOND, 100_000, 10_000, 1000)  # nanoseconds; below that, programs refuse files
_SCALE = b"\x2a\xd7\xb1\x83"  # TimestampScale of three bytes
_DURATION = re.compile(rb"(?<=\x44\x87[\x80-\xff])(\d\d):(\d\d):(\d\d\.\d{9})")  # of a TagString
OPTIONS = {"write_crc32": "0"}  # of what is changed here they would be wrong


def tick_for(time_bases: list[Fraction]) -> Fraction:
    """The longest tick in seconds in which times of all these bases can be told from each other."""
    finest = min(time_bases) * _NANOSECONDS
    return Fraction(next((t for t in _TICKS if t <= finest), _TICKS[-1]), _NANOSECONDS)


class TickFile:
    """A file to which FFmpeg writes Matroska in ticks, taking them for milliseconds."""

    def __init__(self, file: BinaryIO, tick: Fraction) -> None:
        """Write to `file`; `tick` is in seconds, one of those of `tick_for`."""
        self._file, self._tick = file, int(tick * _NANOSECONDS)
        self._seekable = file.seekable()
        self._start = self._position = file.tell() if self._seekable else 0
        self._header = 0

    def seekable(self) -> bool:
        """Whether the file is."""
        return self._seekable

    def tell(self) -> int:
        """Where the next byte goes."""
        return self._position

    def seek(self, offset: int, whence: int = 0) -> int:
        """Go elsewhere."""
        self._position = self._file.seek(offset, whence)
        return self._position

    def write(self, data: bytes) -> int:
        """Write, and change what stands in the header, which is the first piece written."""
        size = len(data)
        if self._position == self._start:
            self._header = max(self._header, self._start + size)
        if self._position < self._header:
            data = self._changed(data)
        self._file.write(data)
        self._position += size
        return size

    def _changed(self, data: bytes) -> bytes:
        found = _SCALE + _MILLISECOND.to_bytes(3, "big")
        data = data.replace(found, _SCALE + self._tick.to_bytes(3, "big"))
        return _DURATION.sub(self._duration, data)

    def _duration(self, found: re.Match[bytes]) -> bytes:
        stated = [Fraction(text.decode()) for text in found.groups()]
        taken = 3600 * stated[0] + 60 * stated[1] + stated[2]
        seconds, rest = divmod(
            round(taken * self._tick / _MILLISECOND * _NANOSECONDS), _NANOSECONDS
        )
        minutes, seconds = divmod(seconds, 60)
        return b"%02d:%02d:%02d.%09d" % (*divmod(minutes, 60), seconds, rest)
