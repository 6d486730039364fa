"""Coding of the networks of `image/fit` as integers around a prior, and the choice of steps.

A slice of parameters has a step 2**-q and a shift of its scales; a parameter is
`prior's mean + delta * step`, exactly, in units of 2**-12 (context model) or 2**-16. In the stream:

    q - prior's q of each slice, then the shift of each slice, in row STEP_ROW
    delta of each parameter, in the row of its scale: 9 clamp(scale - 48 + 3 q + shift, 0, 27)
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from ...entropy.models.laplace import FRACTIONS, SCALES
from ...kernels.errors import BitstreamError
from ...kernels.fit import Context, Synthesis
from .fit_prior import Integers, Prior, bits_of, most_of, unit_of

Symbols = npt.NDArray[np.int16]
Rows = npt.NDArray[np.uint8]

STEP_ROW = 9 * FRACTIONS  # Laplace of scale 1/2
_SCALE_OFFSET = 48  # of the prior's scales (60) less that of the tables' (12)
MOST_SHIFT = SCALES
_CONTEXT = len(Context._fields)  # the first slices are the context model's
_DEAD_ZONES = (0.0, 0.12, 0.24)  # what is taken from a delta before it is rounded
_COARSEST = 2  # q


@dataclass(frozen=True)
class Coded:
    """Networks as they are coded.

    Attributes:
        q: of each slice.
        shift: of each slice.
        delta: of each parameter.
    """

    q: Integers
    shift: Integers
    delta: Integers


def _rows(prior: Prior, coded: Coded) -> Rows:
    sizes = [s.size for s in prior.slices.values()]
    move = np.repeat(3 * coded.q + coded.shift, sizes)
    row = (prior.scale - _SCALE_OFFSET + move).clip(0, SCALES - 1)
    return (FRACTIONS * row).astype(np.uint8)


def symbols(prior: Prior, coded: Coded) -> tuple[Symbols, Rows]:
    """What is written of the networks: symbols, and their rows of the tables."""
    steps = np.concatenate([coded.q - prior.q, coded.shift])
    rows = np.full(len(steps), STEP_ROW, np.uint8)
    values = np.concatenate([steps, coded.delta]).astype(np.int16)
    return values, np.concatenate([rows, _rows(prior, coded)])


def parse(prior: Prior, get: Callable[[Rows], Symbols]) -> Coded:
    """The mirror of `symbols`.

    Args:
        prior: that the networks were coded with.
        get: gives the next symbols of rows of the tables.

    Raises:
        BitstreamError: a step, a shift or a parameter is illegal.
    """
    count = len(prior.slices)
    steps = get(np.full(2 * count, STEP_ROW, np.uint8)).astype(np.int64)
    coded = Coded(prior.q + steps[:count], steps[count:], np.zeros(0, np.int64))
    for name, q, shift in zip(prior.slices, coded.q, coded.shift, strict=True):
        if not (0 <= q <= unit_of(name) and abs(shift) <= MOST_SHIFT):
            raise BitstreamError(
                f"{name} has step 2**-{q} and shift {shift}, legal are 0 to {unit_of(name)} and "
                f"+-{MOST_SHIFT}"
            )
    coded = replace(coded, delta=get(_rows(prior, coded)).astype(np.int64))
    for i, name in enumerate(prior.slices):
        if np.any(abs(_values(prior, coded, i)) > most_of(name)):
            raise BitstreamError(f"{name} has a value beyond {most_of(name)}")
    return coded


def _values(prior: Prior, coded: Coded, i: int) -> Integers:
    """The parameters of slice i in its unit."""
    name = list(prior.slices)[i]
    at = prior.slices[name]
    moved: Integers = coded.delta[at.start : at.stop] << (unit_of(name) - coded.q[i])
    return prior.means(name) + moved


def context(prior: Prior, coded: Coded) -> Context:
    """The context model."""
    shapes = [s.shape for s in prior.slices.values()][:_CONTEXT]
    arrays = [_values(prior, coded, i).astype(np.int32) for i in range(_CONTEXT)]
    return Context(*(a.reshape(shape) for a, shape in zip(arrays, shapes, strict=True)))


def synthesis(prior: Prior, coded: Coded) -> Synthesis:
    """Upsampling and synthesis; their integers have at most 24 bits, so float32 is exact."""
    shapes = [s.shape for s in prior.slices.values()][_CONTEXT:]
    values = [_values(prior, coded, i) for i in range(_CONTEXT, len(prior.slices))]
    arrays = [np.ldexp(v.astype(np.float32), -16) for v in values]
    return Synthesis(*(a.reshape(shape) for a, shape in zip(arrays, shapes, strict=True)))


def values(prior: Prior, coded: Coded) -> npt.NDArray[np.float32]:
    """All parameters, as `fit_networks.layout` has them."""
    parts = [
        np.ldexp(_values(prior, coded, i).astype(np.float32), -unit_of(name))
        for i, name in enumerate(prior.slices)
    ]
    return np.concatenate(parts)


def bits(prior: Prior, coded: Coded) -> float:
    """What the networks take in the stream."""
    return bits_of(*symbols(prior, coded))


class _Chooser:
    """Steps of the slices, one after another, by the sum of bits and distortion."""

    def __init__(
        self, prior: Prior, parameters: npt.NDArray[np.float32],
        context_cost: Callable[[Context], float], synthesis_cost: Callable[[Synthesis], float],
    ) -> None:  # fmt: skip
        self.prior, self.parameters = prior, parameters.astype(np.float64)
        self.costs = context_cost, synthesis_cost
        self.names = list(prior.slices)
        count = len(self.names)
        self.coded = Coded(prior.q.copy(), np.zeros(count, np.int64), 0 * prior.scale)
        for i in range(count):
            self.coded = self.with_slice(i, int(prior.q[i]), 0.0)

    def with_slice(self, i: int, q: int, dead_zone: float) -> Coded:
        """The networks with slice i in other steps."""
        name = self.names[i]
        at, unit, most = self.prior.slices[name], unit_of(name), most_of(name)
        means = self.prior.means(name)
        away = self.parameters[at.start : at.stop] - np.ldexp(means.astype(np.float64), -unit)
        scaled = np.ldexp(away, q)
        delta = np.sign(scaled) * np.floor(np.maximum(abs(scaled) + 0.5 - dead_zone, 0))
        step = 1 << (unit - q)
        legal = delta.clip(-((most + means) // step), (most - means) // step).clip(-32768, 32767)
        coded = Coded(self.coded.q.copy(), self.coded.shift.copy(), self.coded.delta.copy())
        coded.q[i] = q
        coded.delta[at.start : at.stop] = legal.astype(np.int64)
        coded.shift[i] = self._best_shift(coded, i)
        return coded

    def _best_shift(self, coded: Coded, i: int) -> int:
        at = self.prior.slices[self.names[i]]
        delta = coded.delta[at.start : at.stop].astype(np.int16)
        scale = self.prior.scale[at.start : at.stop] - _SCALE_OFFSET + 3 * coded.q[i]

        def cost(shift: int) -> float:
            rows = (FRACTIONS * (scale + shift).clip(0, SCALES - 1)).astype(np.uint8)
            return bits_of(delta, rows) + bits_of(np.int16(shift), np.uint8(STEP_ROW))

        return min(range(-9, 10), key=cost)

    def cost(self, i: int, coded: Coded) -> float:
        """Of everything that slice i bears on."""
        total = bits(self.prior, coded)
        if i < _CONTEXT:
            return total + self.costs[0](context(self.prior, coded))
        return total + self.costs[1](synthesis(self.prior, coded))

    def improve(self, i: int) -> None:
        """Try other steps of slice i, as long as they help, then wider dead zones."""
        best = self.cost(i, self.coded)
        q, unit = int(self.coded.q[i]), unit_of(self.names[i])
        for move in (-1, 1):
            while _COARSEST <= q + move <= unit:
                trial = self.with_slice(i, q + move, 0.0)
                if (cost := self.cost(i, trial)) >= best:
                    break
                best, self.coded, q = cost, trial, q + move
        for dead_zone in _DEAD_ZONES[1:]:
            trial = self.with_slice(i, q, dead_zone)
            if (cost := self.cost(i, trial)) < best:
                best, self.coded = cost, trial


def choose(
    prior: Prior,
    parameters: npt.NDArray[np.float32],
    context_cost: Callable[[Context], float],
    synthesis_cost: Callable[[Synthesis], float],
    passes: int = 3,
) -> Coded:
    """Quantise networks where it costs least.

    Args:
        prior: to code them with.
        parameters: float32 [parameters].
        context_cost: the bits of the latents with a context model.
        synthesis_cost: the distortion with a synthesis, in bits: lmbda times pixels times the mean
            squared error of samples in 0 .. 255.
        passes: over the slices, each in the light of the others' steps; a pass asks for about a
            hundred costs.
    """
    chooser = _Chooser(prior, parameters, context_cost, synthesis_cost)
    for _ in range(passes):
        before = chooser.coded
        for i in range(len(chooser.names)):
            chooser.improve(i)
        if chooser.coded is before:
            break
    return chooser.coded
