"""What the backends of `rans_device` share: what is coded, and sizes of what they write."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor

STATE = 36  # int64 of a stream: 32 states, then these
LANES, NEXT, WORDS, STATUS = 32, 33, 34, 35
WORD_ROOM = 3  # words that a symbol can take: (16 + 1) + (16 + 1) + 6 + 2 bits
STREAM_ROOM = 64  # words


class Source(NamedTuple):
    """What is coded, flat: symbols with rows, or y (less means) with rows or scales."""

    rows: Tensor | None
    symbols: Tensor | None = None
    y: Tensor | None = None
    means: Tensor | None = None
    scales: Tensor | None = None
    boundaries: Tensor | None = None
    y_hat: Tensor | None = None

    @property
    def first(self) -> Tensor:
        """An array that is there."""
        return self.symbols if self.symbols is not None else _there(self.y)


def _there(array: Tensor | None) -> Tensor:
    if array is None:
        raise RuntimeError("there is nothing to code")
    return array
