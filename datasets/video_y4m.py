"""Write YUV4MPEG2 files: a line about the video, and its frames one after the other."""

from __future__ import annotations

from fractions import Fraction
from typing import BinaryIO

from torch import Tensor

from .video_encoder import Picture

_JITTER = Fraction(1, 2)  # of the time of a frame, up to which its own time may differ


class Y4mFile:
    """A file, or a pipe, that gets frames."""

    def __init__(self, file: BinaryIO, picture: Picture, rate: Fraction) -> None:
        """Write the first line; `rate` is that of the frames."""
        info, bits = picture.info, picture.bits
        self._file, self._rate, self._frames = file, rate, 0
        self._start: Fraction | None = None
        aspect = info.get("sample_aspect") or [1, 1]
        deep = f"{'p' if picture.colours == 3 else ''}{bits}" if bits > 8 else ""
        name = f"420{deep or 'mpeg2'}" if picture.colours == 3 else f"mono{deep}"
        order = {"tt": "t", "tb": "t", "bb": "b", "bt": "b"}.get(str(info.get("field_order")), "p")
        extra = {"full": " XCOLORRANGE=FULL", "limited": " XCOLORRANGE=LIMITED"}
        line = (
            f"YUV4MPEG2 W{picture.width} H{picture.height} F{rate.numerator}:{rate.denominator} "
            f"I{order} A{aspect[0]}:{aspect[1]} C{name}{extra.get(str(info.get('range')), '')}\n"
        )
        file.write(line.encode())

    def write(self, planes: tuple[Tensor, ...], time: Fraction) -> None:
        """Append a frame that is shown at a time in seconds.

        Raises:
            ValueError: it isn't that of the frame rate.
        """
        if self._start is None:
            self._start = time
        off = (time - self._start) * self._rate - self._frames
        if not abs(off) < _JITTER:
            raise ValueError(
                f"frame {self._frames} is shown {float(time - self._start):.4f} s after the first, "
                f"which y4m can't say: it has one frame rate, here {float(self._rate):.4g} Hz; "
                "write mkv or mp4, which keep times"
            )
        self._file.write(b"FRAME\n")
        for plane in planes:
            self._file.write(plane.contiguous().numpy().tobytes())
        self._frames += 1
