"""Numbers of the picture kernel, the same on every machine: IEEE binary32, sums in order."""

from typing import Any

import numpy as np
import numpy.typing as npt

F = np.float32
Floats = npt.NDArray[np.float32]
Samples = npt.NDArray[np.uint16]
ZERO, ONE = F(0), F(1)


def total(v: Floats) -> np.float32:
    """The sum of 8 or 16 numbers: halves are added to each other until one is left."""
    while len(v) > 1:
        half = len(v) // 2
        v = v[:half] + v[half:]
    return F(v[0])


def between(v: Any, low: Any, high: Any) -> Any:
    """Clip; `low` for NaN."""
    v = np.where(v > low, v, F(low))
    return np.where(v < high, v, F(high))[()]


def exponential(v: Floats) -> Floats:
    """e^v for |v| <= 40, with a relative error of 2e-6."""
    y = v * F(1.44269504)
    whole = (y + F(12582912)) - F(12582912)  # rounds to an integer
    f = y - whole
    p = f * F(0.00133335581) + F(0.00961812911)
    for c in (0.0555041087, 0.240226507, 0.693147181, 1.0):
        p = p * f + F(c)
    return p * ((whole.astype(np.int32) + 127) << 23).view(np.float32)


def logarithm(v: Floats) -> Floats:
    """The natural logarithm of normal positive numbers, with an error of 2e-5."""
    bits = v.view(np.int32)
    exponent = ((bits >> 23) - 127).astype(np.float32)
    m = (bits & 0x7FFFFF | 0x3F800000).view(np.float32) - ONE
    p = m * F(0.0442458242) - F(0.191267088)
    p = p * m + F(0.413558483)
    p = p * m - F(0.708373129)
    p = p * m + F(1.44183600)
    return (exponent + p * m) * F(0.693147181)


def bits_of(v: np.float32) -> int:
    """The bits of a float as an integer: a logarithm in linear pieces."""
    return int(np.array(v, np.float32).view(np.int32))


def float_of(bits: int) -> np.float32:
    """The reverse of `bits_of`."""
    return F(np.array(bits, np.int32).view(np.float32)[()])


def clamped(v: int, low: int, high: int) -> int:
    """Clip an integer."""
    return max(low, min(v, high))


def fifth(v: np.float32, near: np.float32) -> int:
    """0 to 4: how far and on which side of 0."""
    far = near * F(3)
    if v < -near:
        return 0 if v < -far else 1
    return (4 if v > far else 3) if v > near else 2


def quotient(a: int, b: int) -> int:
    """Integer division towards 0."""
    return a // b if a >= 0 else -(-a // b)
