"""Change the sample rate of a signal block by block: no delay, an exact length, bounded memory.

A windowed sinc whose taps are evaluated for each phase between two samples (Smith and Gossett, "A
flexible sampling-rate conversion method", ICASSP 1984): sample j of the result is the signal at
time j / target_rate, whatever the ratio of the rates and however the signal is cut into blocks.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator

import torch
from torch import Tensor

MIN_RATE, MAX_RATE = 1_000, 768_000  # Hz; within them the tables of taps stay small
# Half the length of the filter in zero crossings, the place of its edge (of the lower Nyquist
# frequency) and the Kaiser window's beta: flat to 0.89, 90 dB down from 1.01 on.
_ZEROS, _EDGE, _BETA = 48, 0.95, 9.0
_ELEMENTS = 1 << 21  # samples times taps at once


class Resampler:
    """Takes blocks of a signal in order and gives those of the resampled one.

    >>> resampler = Resampler(44100, 16000)
    >>> parts = [resampler.push(torch.zeros(2, 1000)) for _ in range(3)] + [resampler.finish()]
    >>> sum(part.shape[1] for part in parts)
    1089

    Args:
        source_rate: Hz, of what is pushed.
        target_rate: Hz, of what is given.

    Raises:
        ValueError: a rate is not within MIN_RATE and MAX_RATE.
    """

    def __init__(self, source_rate: int, target_rate: int) -> None:
        """See the class."""
        for rate in (source_rate, target_rate):
            if not MIN_RATE <= rate <= MAX_RATE:
                raise ValueError(
                    f"a sample rate is {rate} Hz, expected {MIN_RATE} to {MAX_RATE} to resample"
                )
        divisor = math.gcd(source_rate, target_rate)
        self._up, self._down = target_rate // divisor, source_rate // divisor
        self._half = math.ceil(_ZEROS / (_EDGE * min(1.0, self._up / self._down)))
        self._taps = None if self._up == self._down else self._table()  # [phase, tap]
        self._kept: Tensor | None = None  # what outputs to come may need
        self._first = 1 - self._half  # place in the source of the first sample kept
        self._seen = self._given = 0

    def push(self, x: Tensor) -> Tensor:
        """Take the next block, float [C, n]; returns what it completes, [C, m]."""
        if self._kept is None:
            self._kept = x.new_zeros(len(x), self._half - 1)
        self._seen += x.shape[1]
        if self._taps is None:
            self._given += x.shape[1]
            return x
        return self._take(x, None)

    def finish(self, length: int | None = None) -> Tensor:
        """Return the rest.

        Args:
            length: samples of the result in all; None is as many as lie before the end of the
                source. On the way back from another rate this is the length that was there first.

        Raises:
            ValueError: `length` is not within a sample of the source of its duration.
        """
        exact = self._seen * self._up / self._down
        total = -(-self._seen * self._up // self._down) if length is None else length
        if abs(total - exact) > max(1.0, self._up / self._down) or total < self._given:
            raise ValueError(
                f"length is {length}; {self._seen} samples become about {exact:.1f} at this rate"
            )
        if self._kept is None:
            return torch.zeros(0, 0)
        silence = self._kept.new_zeros(len(self._kept), 2 * self._half + 2)
        missing = total - self._given
        return silence[:, :missing] if self._taps is None else self._take(silence, missing)

    def _take(self, x: Tensor, count: int | None) -> Tensor:
        """Append to what is kept; give `count` samples, or all whose taps are there."""
        assert self._kept is not None and self._taps is not None
        kept = torch.cat((self._kept, x), dim=1)
        if count is None:  # sample j ends at the source's place floor(j * down / up) + half
            places = self._first + kept.shape[1] - self._half
            count = max(0, -(-places * self._up // self._down) - self._given)
        step = max(1, _ELEMENTS // self._taps.shape[1])
        parts = [
            self._convolve(kept, self._given + at, min(step, count - at))
            for at in range(0, count, step)
        ]
        self._given += count
        needed = self._given * self._down // self._up - self._half + 1
        drop = min(max(0, needed - self._first), kept.shape[1])
        self._kept, self._first = kept[:, drop:].clone(), self._first + drop
        return torch.cat(parts, dim=1) if parts else kept[:, :0]

    def _convolve(self, kept: Tensor, first: int, count: int) -> Tensor:
        """Samples `first` to `first + count` of the result."""
        assert self._taps is not None
        at = torch.arange(first, first + count) * self._down
        starts = at // self._up - self._half + 1 - self._first
        taps = self._taps[at % self._up].to(kept.dtype)
        windows = kept.unfold(1, taps.shape[1], 1)
        return torch.stack([(channel[starts] * taps).sum(1) for channel in windows])

    def _table(self) -> Tensor:
        """The taps of every phase, each row for the samples from 1 - half to half around it."""
        edge = _EDGE * min(1.0, self._up / self._down)
        places = torch.arange(1 - self._half, self._half + 1)
        table = torch.empty(self._up, 2 * self._half)
        beta = torch.tensor(_BETA, dtype=torch.float64)
        for phase in range(0, self._up, 4096):
            shift = torch.arange(phase, min(phase + 4096, self._up), dtype=torch.float64)
            t = places - shift[:, None] / self._up
            inside = (1 - (t / self._half) ** 2).clamp(min=0)
            row = torch.sinc(edge * t) * torch.special.i0(beta * inside.sqrt())
            table[phase : phase + len(row)] = row / row.sum(1, keepdim=True)
        return table


def resample_blocks(
    blocks: Iterable[Tensor], source_rate: int, target_rate: int, length: int | None = None
) -> Iterator[Tensor]:
    """Resample the blocks of a signal, float [C, n]; arguments and errors as of Resampler."""
    resampler = Resampler(source_rate, target_rate)
    for block in blocks:
        yield resampler.push(block)
    rest = resampler.finish(length)
    if len(rest):  # else there was no block, and the number of channels is unknown
        yield rest


def resample(x: Tensor, source_rate: int, target_rate: int, length: int | None = None) -> Tensor:
    """Resample a whole signal, float [C, N]; gives ceil(N * target_rate / source_rate) samples.

    >>> x = torch.rand(1, 1001)
    >>> resample(resample(x, 48000, 16000), 16000, 48000, length=1001).shape[1]
    1001
    """
    return torch.cat(list(resample_blocks([x], source_rate, target_rate, length)), dim=1)
