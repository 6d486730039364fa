"""How good decoded video is: figures of every frame, and of a clip while its frames come.

Conventions: PSNR has the peak of the bit depth and is taken frame by frame; a clip's PSNR is the
mean of its frames', as x264 and HM report it, not the PSNR of the mean error. YUV is
(6 Y + U + V) / 8 in dB, the common figure for 4:2:0. RGB is made with the clip's own matrix and
range, chroma repeated to the size of luma, in floating point without rounding or clipping, so that
it tells of the codec and not of a conversion. Frames are tuples of planes, Y [H, W] or Y, U and V
at 4:2:0, uint8 or, above 8 bits, int16.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from .metrics import PSNR_OF_EQUALS_DB, ms_ssim

# Weights of red and blue in luma, by the number of the matrix in H.273, table 4.
_KR_KB = {
    1: (0.2126, 0.0722),  # BT.709
    4: (0.30, 0.11),  # FCC
    5: (0.299, 0.114),  # BT.601, 625 lines
    6: (0.299, 0.114),  # BT.601, 525 lines
    7: (0.212, 0.087),  # SMPTE 240M
    9: (0.2627, 0.0593),  # BT.2020
    10: (0.2627, 0.0593),  # BT.2020 constant luminance, as if it were not
}
_USUAL_MATRIX = 1  # where a clip does not say, or says what has no weights

Planes = Sequence[Tensor]


@dataclass(frozen=True)
class Colours:
    """How a clip's samples mean colours.

    Attributes:
        bits: of a sample.
        matrix: H.273 number; 2 is unknown, and counts as BT.709.
        full_range: samples use all codes, not 16 to 235 (of 8 bits).
    """

    bits: int = 8
    matrix: int = 2
    full_range: bool = False

    @property
    def peak(self) -> int:
        """The largest sample."""
        return int(2**self.bits - 1)


@dataclass(frozen=True)
class FrameQuality:
    """One frame; dB, 100 where nothing differs. Grey has neither U, V nor RGB, and YUV is Y.

    Attributes:
        change: PSNR of the change of luma since the frame before, against the change of the
            original's: low where a codec flickers or smears. None of the first frame.
        ms_ssim: of luma, 0 to 1; None where it is not measured or a side is below 161 pixels.
    """

    psnr_y: float
    psnr_u: float | None
    psnr_v: float | None
    psnr_yuv: float
    psnr_rgb: float | None
    change: float | None
    ms_ssim: float | None


@dataclass(frozen=True)
class ClipQuality:
    """Means over the frames of a clip, and how quality goes over time.

    Attributes:
        frames: how many.
        psnr_y_min: of the worst frame.
        change: mean of the frames' that have one.
        drift_db: how much `psnr_yuv` moves from start to end, by a straight line through all
            frames; negative where quality falls over time. None below three frames.
        yuv_by_frame: psnr_yuv of each.
    """

    frames: int
    psnr_y: float
    psnr_u: float | None
    psnr_v: float | None
    psnr_yuv: float
    psnr_rgb: float | None
    psnr_y_min: float
    change: float | None
    drift_db: float | None
    ms_ssim: float | None
    yuv_by_frame: list[float]


class Meter:
    """Collects figures frame by frame; holds two frames, however long the clip is.

    >>> meter = Meter(Colours())
    >>> meter.add([torch.zeros(2, 2).byte()], [torch.full((2, 2), 16).byte()]).psnr_y
    24.048...

    Args:
        colours: of the clip.
        ms_ssim: measure it, which takes longer than all else.
    """

    def __init__(self, colours: Colours, ms_ssim: bool = True) -> None:
        self._colours = colours
        self._ms_ssim = ms_ssim
        self._error_before: Tensor | None = None
        self._found: list[FrameQuality] = []

    def add(self, x: Planes, x_hat: Planes) -> FrameQuality:
        """Measure the next frame.

        Args:
            x: planes of the original.
            x_hat: planes of what was decoded.

        Raises:
            ValueError: they differ in number, size or type.
        """
        _check(x, x_hat)
        errors = [b.int() - a.int() for a, b in zip(x, x_hat, strict=True)]
        peak = self._colours.peak
        psnrs = [_psnr(_mean_square(error), peak) for error in errors]
        before, self._error_before = self._error_before, errors[0]
        found = FrameQuality(
            psnrs[0],
            psnrs[1] if len(psnrs) == 3 else None,
            psnrs[2] if len(psnrs) == 3 else None,
            (6 * psnrs[0] + psnrs[1] + psnrs[2]) / 8 if len(psnrs) == 3 else psnrs[0],
            psnr_rgb(errors, self._colours) if len(psnrs) == 3 else None,
            # The error of a change is the change of the error.
            None if before is None else _psnr(_mean_square(errors[0] - before), peak),
            ms_ssim(x[0][None], x_hat[0][None], peak) if self._ms_ssim else None,
        )
        self._found.append(found)
        return found

    def clip(self) -> ClipQuality:
        """The figures of all frames so far.

        Raises:
            ValueError: there was no frame.
        """
        if not self._found:
            raise ValueError("a clip needs a frame to have a quality; there was none")
        by_frame = [frame.psnr_yuv for frame in self._found]
        return ClipQuality(
            len(self._found),
            self._mean("psnr_y") or 0.0,
            self._mean("psnr_u"),
            self._mean("psnr_v"),
            self._mean("psnr_yuv") or 0.0,
            self._mean("psnr_rgb"),
            min(frame.psnr_y for frame in self._found),
            self._mean("change"),
            drift_db(by_frame),
            self._mean("ms_ssim"),
            by_frame,
        )

    def _mean(self, name: str) -> float | None:
        return mean([getattr(frame, name) for frame in self._found])


def mean(values: Sequence[float | None]) -> float | None:
    """Of those that are there; None where none is."""
    known = [value for value in values if value is not None]
    return math.fsum(known) / len(known) if known else None


def _check(x: Planes, x_hat: Planes) -> None:
    shapes = [[list(plane.shape) for plane in planes] for planes in (x, x_hat)]
    if shapes[0] != shapes[1] or len(x) not in (1, 3):
        raise ValueError(f"frames must have the same 1 or 3 planes, got {shapes[0]}, {shapes[1]}")
    kinds = {plane.dtype for planes in (x, x_hat) for plane in planes}
    if len(kinds) > 1:
        raise ValueError(f"the planes of both frames must be of one type, got {kinds}")


def _mean_square(error: Tensor) -> float:
    return int(error.square().sum(dtype=torch.int64)) / error.numel()


def _psnr(mean_square: float, peak: float) -> float:
    if mean_square <= 0:
        return PSNR_OF_EQUALS_DB
    return min(PSNR_OF_EQUALS_DB, 10 * math.log10(peak**2 / mean_square))


def psnr_rgb(errors: Sequence[Tensor], colours: Colours) -> float:
    """PSNR of RGB from the errors of Y, U and V, int [H, W], [h, w], [h, w].

    The conversion is linear, so the error of a colour is the same sum of the planes' errors, and
    its mean square needs their mean products only.
    """
    y, u, v = (error.double() for error in errors)
    rows, columns = y.shape
    u, v = (_repeat(plane, rows, columns) for plane in (u, v))
    products = torch.stack([y, u, v]).flatten(1)
    products = products @ products.T / (rows * columns)
    matrix = _to_rgb(colours)
    return _psnr(float((matrix @ products @ matrix.T).diagonal().mean()), 1.0)


def _repeat(plane: Tensor, rows: int, columns: int) -> Tensor:
    """Chroma at the size of luma."""
    wide = plane.repeat_interleave(2, 1)[:, :columns]
    return wide.repeat_interleave(2, 0)[:rows]


def _to_rgb(colours: Colours) -> Tensor:
    """Float64 [3, 3]: R, G and B in 0..1 of a unit of Y, U and V."""
    kr, kb = _KR_KB.get(colours.matrix, _KR_KB[_USUAL_MATRIX])
    kg = 1 - kr - kb
    matrix = torch.tensor(
        [
            [1, 0, 2 - 2 * kr],
            [1, -kb * (2 - 2 * kb) / kg, -kr * (2 - 2 * kr) / kg],
            [1, 2 - 2 * kb, 0],
        ],
        dtype=torch.float64,
    )
    scale = 2 ** (colours.bits - 8)
    luma, chroma = (colours.peak,) * 2 if colours.full_range else (219 * scale, 224 * scale)
    return matrix / torch.tensor([luma, chroma, chroma], dtype=torch.float64)


def drift_db(by_frame: Sequence[float]) -> float | None:
    """How much a figure moves from first to last frame, by the line of least squares.

    >>> drift_db([40.0, 39.5, 39.0])
    -1.0
    """
    count = len(by_frame)
    if count < 3:
        return None
    middle, level = (count - 1) / 2, math.fsum(by_frame) / count
    rise = math.fsum((i - middle) * (value - level) for i, value in enumerate(by_frame))
    return rise / math.fsum((i - middle) ** 2 for i in range(count)) * (count - 1)
