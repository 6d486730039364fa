"""How good a reconstruction is, and how much smaller one codec's files are than another's.

Conventions: pictures are uint8 [C, H, W]; PSNR has the peak 255 (65535 for
uint16) and its mean over pictures is the mean of the pictures' PSNR, not the PSNR of their mean
error; rates are whole files.
"""

import math
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

Curve = NDArray[np.float64]
PSNR_OF_EQUALS_DB = 100.0
_STRIP_ROWS = 256
_MS_SSIM_LEAST_SIDE = 161  # five scales of an 11-tap window


def psnr_db(x: Tensor, x_hat: Tensor) -> float:
    """Peak signal-to-noise ratio over all samples; 100 dB where nothing differs.

    >>> psnr_db(torch.zeros(3, 2, 2, dtype=torch.uint8), torch.full((3, 2, 2), 16).byte())
    24.048...
    """
    if x.shape != x_hat.shape:
        raise ValueError(f"pictures differ in shape, {list(x.shape)} and {list(x_hat.shape)}")
    squares = 0.0
    for top in range(0, x.shape[1], _STRIP_ROWS):  # so that large pictures need little memory
        strip, strip_hat = (y[:, top : top + _STRIP_ROWS].float() for y in (x, x_hat))
        squares += (strip - strip_hat).square().sum(dtype=torch.float64).item()
    if squares == 0:
        return PSNR_OF_EQUALS_DB
    peak = 65535 if x.dtype == torch.uint16 else 255
    return min(PSNR_OF_EQUALS_DB, 10 * math.log10(peak**2 * x.numel() / squares))


def ms_ssim(x: Tensor, x_hat: Tensor, peak: int = 255) -> float | None:
    """Multi-scale structural similarity, 0 to 1; None for pictures below 161 pixels a side."""
    if min(x.shape[1:]) < _MS_SSIM_LEAST_SIDE:
        return None
    import pytorch_msssim

    pair = (x.float().unsqueeze(0), x_hat.float().unsqueeze(0))
    return float(pytorch_msssim.ms_ssim(*pair, data_range=peak))


def bd_rate_percent(
    anchor: Sequence[tuple[float, float]], tested: Sequence[tuple[float, float]]
) -> float:
    """Bjontegaard's delta rate: how much larger the tested files are at equal quality.

    Piecewise cubic Hermite interpolation of log rate over quality, averaged over the qualities
    that both curves reach (G. Bjontegaard, VCEG-M33, with the interpolation of HM's reports).

    Args:
        anchor: (rate, quality) of each point, at least two.
        tested: the same of the other codec.

    Returns:
        Percent; negative where the tested codec is better. NaN without a common quality.

    >>> round(bd_rate_percent([(1, 30), (2, 33)], [(0.5, 30), (1, 33)]), 6)
    -50.0
    """
    curves = [_rising(anchor), _rising(tested)]
    low = max(qualities[0] for qualities, _ in curves)
    high = min(qualities[-1] for qualities, _ in curves)
    if low >= high:
        return math.nan
    from scipy.interpolate import PchipInterpolator

    areas = [PchipInterpolator(*curve).integrate(low, high) for curve in curves]
    return float(math.exp((areas[1] - areas[0]) / (high - low)) - 1) * 100


def _rising(points: Sequence[tuple[float, float]]) -> tuple[Curve, Curve]:
    """Qualities in rising order, and log rates; of equal qualities the cheaper point."""
    best: dict[float, float] = {}
    for rate, quality in points:
        best[quality] = min(rate, best.get(quality, math.inf))
    if len(best) < 2:
        raise ValueError(f"a curve needs two points of different quality, got {len(best)}")
    qualities = np.array(sorted(best))
    return qualities, np.log([best[quality] for quality in qualities])
