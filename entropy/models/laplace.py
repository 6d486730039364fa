"""Laplace tables by scale and by the fraction of the mean, for symbols around a rounded mean.

A mean is kept in sixteenths: m + f / 16 with f in -8 .. 7. The symbol is y - m, or m - y where f is
negative, so that nine fractions are enough. Row 9 r + |f| is the Laplace distribution of scale
2**(r / 3 - 4), three rows to an octave, around |f| / 16.
"""

import math

import numpy as np
import numpy.typing as npt

from ..tables import TableSet

SCALES = 28
FRACTIONS = 9
_TAIL = 2.0**-13  # at most this probability on each side is left to the escape
_LOW, _HIGH = -126, 127  # of the values of a row, so that all lie within 255 of each other


def freeze() -> TableSet:
    """The tables, 12 bits. To be called once and kept in a file: other machines round otherwise."""
    rows = [
        _row(2.0 ** (r / 3 - 4), f / 16, _LOW, _HIGH)
        for r in range(SCALES)
        for f in range(FRACTIONS)
    ]
    return TableSet.from_pmfs([pmf for _, pmf in rows], [low for low, _ in rows])


def _row(scale: float, mean: float, low: int, high: int) -> tuple[int, npt.NDArray[np.float64]]:
    """The first value, and the probabilities of values with that of all others behind them."""

    def above(x: float) -> float:  # P(y > x)
        tail = 0.5 * math.exp(-abs(x - mean) / scale)
        return tail if x > mean else 1 - tail

    while low < -1 and 1 - above(low + 0.5) < _TAIL:
        low += 1
    while high > 1 and above(high - 0.5) < _TAIL:
        high -= 1
    inner = [above(v - 0.5) - above(v + 0.5) for v in range(low, high + 1)]
    return low, np.array([*inner, 1 - above(low - 0.5) + above(high + 0.5)])
