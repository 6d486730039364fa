"""Change of sample rate by any ratio, on sounds that come in pieces.

Windowed-sinc interpolation (Smith and Gossett, "A flexible sampling-rate conversion method",
ICASSP 1984) with a Kaiser window. An output sample is always the same sum in the same order, so
the result does not depend, not even in the last bit, on how the sound was cut.
"""

from __future__ import annotations

import functools
import math

import torch
from torch import Tensor

LEAST_RATE, MOST_RATE = 1_000, 384_000  # Hz, so that filters stay small
_CROSSINGS = 16  # of the sinc to each side
_ROLLOFF = 0.94  # of the lower of both Nyquist frequencies
_BETA = 8.0  # of the window: 80 dB
_PIECE = 1 << 16  # output samples at a time
_PHASES = 1 << 10  # of the filter that are made at a time


def length(count: int, source: int, target: int) -> int:
    """Samples at `target` Hz that stand for `count` at `source` Hz."""
    return -(-count * target // source)


def reach(source: int, target: int) -> int:
    """Source samples after (and before) its place that an output sample depends on."""
    if source == target:
        return 0
    return math.ceil(_CROSSINGS * max(1.0, source / target) / _ROLLOFF)


class Resampler:
    """One sound on its way from one rate to another; output sample n is at source n * step."""

    def __init__(self, source: int, target: int, start: int = 0) -> None:
        """Begin.

        Args:
            source: Hz.
            target: Hz.
            start: number of the first source sample that will come; those before count as zeros.

        Raises:
            ValueError: a rate outside of LEAST_RATE to MOST_RATE.
        """
        for name, rate in (("source", source), ("target", target)):
            if not LEAST_RATE <= rate <= MOST_RATE:
                legal = f"{LEAST_RATE} to {MOST_RATE}"
                raise ValueError(f"{name} rate is {rate} Hz, expected {legal}")
        common = math.gcd(source, target)
        self._source, self._target = source // common, target // common
        self._reach = reach(source, target)
        self._first = start - self._reach  # number of the first sample that is kept
        self._next = length(start, self._source, self._target)  # to be made
        self._kept: Tensor | None = None

    @property
    def next(self) -> int:
        """Number of the output sample that comes next."""
        return self._next

    def push(self, x: Tensor) -> Tensor:
        """Source samples [C, n] -> all target samples [C, m] that they complete."""
        if self._source == self._target:
            self._next += x.shape[1]
            return x
        kept = x.new_zeros(len(x), self._reach) if self._kept is None else self._kept
        self._kept = torch.cat([kept, x], 1)
        return self._make(self._first + self._kept.shape[1] - self._reach)

    def finish(self, channels: int = 1) -> Tensor:
        """The target samples that the source samples after the end, zeros, complete."""
        if self._source == self._target:
            return torch.zeros(channels, 0)
        kept = torch.zeros(channels, self._reach) if self._kept is None else self._kept
        end = self._first + kept.shape[1]
        self._kept = torch.cat([kept, kept.new_zeros(len(kept), self._reach)], 1)
        return self._make(end)

    def _make(self, end: int) -> Tensor:
        """Output samples whose place is before source sample `end`."""
        assert self._kept is not None
        stop = max(self._next, length(end, self._source, self._target))
        made = [
            self._sum(start, min(start + _PIECE, stop)) for start in range(self._next, stop, _PIECE)
        ]
        self._next = stop
        unused = self._next * self._source // self._target - self._reach - self._first
        unused = min(max(0, unused), self._kept.shape[1])
        self._first += unused
        self._kept = self._kept[:, unused:].clone()
        return torch.cat(made, 1) if made else self._kept.new_zeros(len(self._kept), 0)

    def _sum(self, start: int, stop: int) -> Tensor:
        assert self._kept is not None
        place = torch.arange(start, stop) * self._source
        phase = place % self._target
        base = place // self._target - self._first - self._reach
        taps = _taps(self._source, self._target, self._reach)
        total = self._kept.new_zeros(len(self._kept), stop - start)
        # Products and sums apart, tap by tap: vectorised or not, fused or not, the same numbers.
        for i in range(len(taps)):
            total += self._kept[:, base + i] * taps[i, phase]
        return total


@functools.lru_cache(maxsize=4)
def _taps(source: int, target: int, wide: int) -> Tensor:
    """Weights of the source samples -wide to wide around each phase, float [2 wide + 1, phases]."""
    cutoff = _ROLLOFF * min(1.0, target / source)
    whole = torch.empty(2 * wide + 1, target)
    for start in range(0, target, _PHASES):
        stop = min(start + _PHASES, target)
        phase = torch.arange(start, stop, dtype=torch.float64) / target
        x = (torch.arange(-wide, wide + 1, dtype=torch.float64)[:, None] - phase) * cutoff
        window = torch.special.i0(_BETA * (1 - (x / _CROSSINGS).square()).clamp_min(0).sqrt())
        taps = torch.where(x.abs() < _CROSSINGS, torch.sinc(x) * window, torch.zeros_like(x))
        whole[:, start:stop] = taps / taps.sum(0)
    return whole
