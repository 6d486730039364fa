"""When frames are shown, where a file does not say it, or says it wrong."""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from typing import Any


class FrameTimes:
    """Times of frames as the file has them; where it has none, or they go back, they are made."""

    def __init__(self, stream: Any, note: Callable[[str], None]) -> None:
        """Begin; `note` is told what had to be made."""
        time_base: Fraction = stream.time_base
        rate = stream.average_rate or stream.guessed_rate or Fraction(25)
        self._usual = max(1, round(1 / rate / time_base)) if rate > 0 else 1
        self._seconds, self._note = time_base, note
        self._last: int | None = None
        self._step = 0

    def of(self, frame: Any) -> int:
        """The pts of the next frame."""
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
        """Go on from another place."""
        self._last, self._step = None, 0
