"""Elements to byte planes and back, exponents to nibbles and back; `planes_ref` says how."""

from typing import Any

import numpy as np
import numpy.typing as npt

from .planes_head_ref import BYTE_PLANES, FLOAT

Bytes = npt.NDArray[np.uint8]


def split(chunk: Bytes, layout: int) -> list[Bytes]:
    """The planes of a chunk uint8 [n, w]."""
    n, width = chunk.shape
    if layout == BYTE_PLANES:
        return [chunk[:, width - 1 - p].copy() for p in range(width)]
    if layout == FLOAT:
        high, low = chunk[:, -1], chunk[:, -2]
        exponents, rests = high << 1 | low >> 7, high & 128 | low & 127
        lower = [chunk[:, width - 1 - p].copy() for p in range(2, width)]
        return [exponents.astype(np.uint8), rests.astype(np.uint8), *lower]
    b = np.zeros(n + n % 2, np.uint8)
    b[:n] = chunk[:, 0]
    return [_pairs(b >> 3 & 15), _pairs(b >> 4 & 8 | b & 7)]


def _pairs(nibbles: npt.NDArray[Any]) -> Bytes:
    pairs: Bytes = (nibbles[::2] | nibbles[1::2] << 4).astype(np.uint8)
    return pairs


def _nibbles(pairs: Bytes, count: int) -> Bytes:
    both: Bytes = np.stack([pairs & 15, pairs >> 4], axis=1).astype(np.uint8)
    return both.reshape(-1)[:count]


def join(planes: list[Bytes], n: int, layout: int) -> Bytes:
    """The chunk uint8 [n, w] of these planes: `split` backwards."""
    if layout == BYTE_PLANES:
        return np.stack(planes[::-1], axis=1)
    if layout == FLOAT:
        exponents, rests = planes[:2]
        low, high = exponents << 7 | rests & 127, exponents >> 1 | rests & 128
        return np.stack([*planes[:1:-1], low, high], axis=1)
    exponents, rests = (_nibbles(plane, n) for plane in planes)
    return ((rests & 8) << 4 | exponents << 3 | rests & 7).astype(np.uint8)[:, None]


def best_top(counts: npt.NDArray[np.int64]) -> int:
    """The top of the window of exponents top - 14 to top that holds the most of these counts.

    Exponent 0, which needs no window, does not count; of equals the lowest is taken.
    """
    counts = counts.copy()
    counts[0] = 0
    ends = np.concatenate([[0], np.cumsum(counts)])
    inside = [int(ends[top + 1] - ends[max(0, top - 14)]) for top in range(256)]
    return int(np.argmax(inside))


def to_nibbles(exponents: Bytes, top: int) -> Bytes:
    """Window nibbles of these exponents, two to a byte."""
    distance = np.uint8(top) - exponents
    nibbles = np.where((distance < 15) & (exponents > 0), distance, 15).astype(np.uint8)
    return _pairs(np.concatenate([nibbles, np.zeros(len(nibbles) % 2, np.uint8)]))


def from_nibbles(pairs: Bytes, m: int, top: int) -> Bytes:
    """Exponents of m window nibbles."""
    nibbles = _nibbles(pairs, m)
    return np.where(nibbles < 15, np.uint8(top) - nibbles, 0).astype(np.uint8)
