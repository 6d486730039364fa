"""A channel of a sound, sample by sample: filters predict, a mixture decides, everything learns."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from .pixels_mix_ref import Coder
from .pixels_numbers_ref import ONE, F, Floats, between, bits_of, clamped, exponential, float_of
from .sounds_filters_ref import Doubles, Gradient, LeastSquares, double_between
from .sounds_mixer_ref import EXPERTS, NODES, Mixer, Question

WIDE, TIGHT, MIX = 32, 16, 8  # taps
WIDE_OTHER, TIGHT_OTHER = 8, 4  # those of a partner
CLASSES = 160  # of scale, four to an octave
FIRST_CLASS = 480  # 2 ** -7
UNARY = 9  # spans that are told apart
MOST_SEEN = 4096
RATES = np.array([0.2, 0.05, 0.012, 0.05, 0.02, 0.02, 0.03, 0.2], np.float32)

Samples = npt.NDArray[np.int32]


class Channel(NamedTuple):
    """What may be in a channel.

    Attributes:
        low: the least sample that is legal.
        high: the largest.
        partner: number of another channel that it is predicted from, or its own.
    """

    low: int
    high: int
    partner: int


class Effort(NamedTuple):
    """How much is computed.

    Attributes:
        wide_every: samples between solutions of the wide least squares.
        tight_every: of the tight ones.
        mix_every: of those that mix.
        stages: lengths and rates of the gradient filters.
    """

    wide_every: int
    tight_every: int
    mix_every: int
    stages: tuple[tuple[int, float], ...]


EFFORTS = (
    Effort(32, 16, 16, ((32, 0.03),)),
    Effort(16, 8, 8, ((1024, 0.01), (128, 0.03), (32, 0.04), (16, 0.05))),
    Effort(4, 1, 1, ((2048, 0.007), (512, 0.015), (128, 0.03), (32, 0.04), (16, 0.05))),
)


def sign(v: Any) -> int:
    """-1, 0 or 1."""
    return int(v > 0) - int(v < 0)


def fifth(v: np.float32) -> int:
    """0 to 4: how far and on which side of 0."""
    if v < 0:
        return 0 if v < F(-2.2) else 1 if v < F(-0.7) else 2
    return 4 if v > F(2.2) else 3 if v > F(0.7) else 2


class ChannelCoder:
    """Everything that is learned about a channel."""

    def __init__(self, channel: Channel, partner_first: bool, effort: Effort) -> None:
        """Start.

        Args:
            channel: its range.
            partner_first: whether the partner's sample of the same time is coded before.
            effort: one of EFFORTS.
        """
        self.low, self.high = channel.low, channel.high
        self.partner: ChannelCoder | None = None  # set by who has made all
        self.partner_first = partner_first
        self.history = np.zeros(WIDE)  # the newest first
        wide, tight, mix = effort[:3]
        self.wide = LeastSquares(WIDE, wide, wide, 0.998)
        self.tight = LeastSquares(TIGHT, tight, (tight + 1) // 2, 0.98)
        self.mix = LeastSquares(MIX, mix, mix, 0.998)
        self.stages = [Gradient(*stage) for stage in effort.stages]
        self.shares = [ONE] * len(self.stages)
        self.mixer = Mixer()
        self.energy = np.full(EXPERTS, 10, np.float32)
        lows = [F(4) * float_of(i + FIRST_CLASS << 21) for i in range(CLASSES)]
        self.sums = np.tile(np.array(lows, np.float32), (EXPERTS, 1))
        self.counts = np.full((EXPERTS, CLASSES), 4, np.float32)
        self.seen = 0
        self.missed = self.missed_before = F(0)

    def code(self, coder: Coder, sample: int) -> int:
        """Code a sample, or return it."""
        self._predict()
        self._set_contexts()
        sample = self._sample(coder, sample)
        self._learn(sample)
        return sample

    def _predict(self) -> None:
        low, high = float(self.low), float(self.high)
        self.wide_taps = self._gather(WIDE, WIDE_OTHER)
        self.tight_taps = self._gather(TIGHT, TIGHT_OTHER)
        self.first = double_between(self.wide.predict(self.wide_taps), low, high)
        tight = double_between(self.tight.predict(self.tight_taps), low, high)
        everything = final = self.first
        second = 0.0
        self.mix_taps = np.zeros(MIX)
        self.mix_taps[0] = tight - self.first
        for i, (stage, share) in enumerate(zip(self.stages, self.shares, strict=True)):
            self.mix_taps[i + 1] = stage.predicted
            everything = everything + float(stage.predicted)
            final = final + float(share * stage.predicted)
            if i == 0:
                second = everything
        self.final = double_between(final, low, high)
        mixed = double_between(self.first + self.mix.predict(self.mix_taps), low, high)
        self.centre = math.floor(self.final)
        second = double_between(second, low, high)
        everything = double_between(everything, low, high)
        guesses = [*[self.final] * 3, mixed, self.first, second, everything, tight]
        self.guess = (np.array(guesses) - float(self.centre)).astype(np.float32)

    def _gather(self, taps: int, others: int) -> Doubles:
        """The latest samples of this channel, then those of its partner."""
        if self.partner is None:
            return self.history[:taps].copy()
        return np.concatenate([self.history[: taps - others], self.partner.history[:others]])

    def _set_contexts(self) -> None:
        exponents = [bits_of(energy + F(0.02)) >> 21 for energy in self.energy]
        classes = [clamped(exponent - FIRST_CLASS, 0, CLASSES - 1) for exponent in exponents]
        self.used = (np.arange(EXPERTS), np.array(classes))
        scale = self.sums[self.used] / self.counts[self.used] * F(0.6) + F(0.03)
        self.sharpness = ONE / scale
        spread = scale[1]
        self.width_log2 = 0
        if spread >= F(1.3):
            while self.width_log2 < 28 and F(1 << self.width_log2) < spread:
                self.width_log2 += 1
        rising = clamped(classes[0] - classes[2] + 8, 0, 15)
        quarter = clamped(int(self.guess[0] * F(4)), 0, 3)
        apart = np.abs(self.guess[4:] - self.guess[0]).max()
        relative = apart / (spread + F(0.05)) * F(8) + ONE
        agreement = clamped((bits_of(relative) >> 22) - 254, 0, 11)
        other = self.partner.missed if self.partner and self.partner_first else F(0)
        contexts = (
            classes[1] % 64,
            rising * 4 + quarter,
            fifth(self.missed) * 5 + fifth(self.missed_before),
            fifth(other) * 12 + agreement,
        )
        self.contexts = [context * NODES for context in contexts]
        self.mixers = [rising * NODES, agreement * NODES]

    def _sample(self, coder: Coder, sample: int) -> int:
        """Tell a sample from the centre: on which side, in which span, where in it."""
        centre = self.centre
        self.near_tail, self.far_tail = np.ones(EXPERTS, np.float32), np.zeros(EXPERTS, np.float32)
        up = bool(self._ask(coder, 1, 0, 0, int(sample > centre)))
        side = 1 if up else -1
        goal = sample - centre - 1 if up else centre - sample
        last = self.high - centre - 1 if up else centre - self.low
        self.near_tail, self.far_tail = self._tail(side, 0), np.zeros(EXPERTS, np.float32)
        low, span, spans = 0, 1 << self.width_log2, 0
        while low + span <= last:
            node = 1 + min(spans, UNARY)
            if not self._ask(coder, side, low + span, node, int(goal >= low + span)):
                break
            low += span
            spans += 1
            if spans >= 3:
                span *= 2
        high = low + span if low + span <= last else last + 1
        depth, place = 0, 1
        while high - low > 1:
            middle = low + high >> 1
            bit = int(goal >= middle)
            if depth < 2:
                bit = self._ask(coder, side, middle, 11 + min(spans, 3) * 4 + place, bit)
            else:
                bit = coder.code(bit, 32768)
            low, high = (middle, high) if bit else (low, middle)
            depth, place = depth + 1, place * 2 + bit
        return clamped(centre + 1 + low if up else centre - low, self.low, self.high)

    def _tail(self, side: int, threshold: int) -> Floats:
        """The experts' probabilities of more than so many samples to a side."""
        place = F(0.5) + F(side) * F(threshold)
        away = (place - self.guess) * F(side) * self.sharpness
        tails: Floats = ONE / (ONE + exponential(between(away, -40, 40)))
        return tails

    def _ask(self, coder: Coder, side: int, threshold: int, node: int, bit: int) -> int:
        """Whether it goes on beyond a threshold."""
        here = self._tail(side, threshold)
        question = Question(
            np.maximum(here - self.far_tail, F(0)) + F(1e-20),
            np.maximum(self.near_tail - here, F(0)) + F(1e-20),
            [context + node for context in self.contexts],
            [mixer + node for mixer in self.mixers],
            self.mixers[0] + node,
        )
        bit = self.mixer.code(coder, question, bit)
        if bit:
            self.near_tail = here
        else:
            self.far_tail = here
        return bit

    def _learn(self, sample: int) -> None:
        value = float(sample)
        wrongs = np.abs(self.guess - F(sample - self.centre))
        self.seen = min(self.seen + 1, MOST_SEEN)
        rates = np.maximum(RATES, ONE / F(self.seen))
        self.energy = self.energy + (wrongs - self.energy) * rates
        self._learn_scales(wrongs)
        missed = value - self.final
        self.missed_before = self.missed
        self.missed = F(missed) * self.sharpness[1]
        given = F(value - self.first)
        for i, stage in enumerate(self.stages):
            way = sign(missed) * sign(stage.predicted)
            self.shares[i] = self.shares[i] + F(way) * F(0.002)
            error = given - stage.predicted
            stage.learn(error, given)
            given = error
        self.mix.learn(self.mix_taps, value - self.first)
        self.wide.learn(self.wide_taps, value)
        self.tight.learn(self.tight_taps, value)
        self.history = np.concatenate([[value], self.history[:-1]])

    def _learn_scales(self, wrongs: Floats) -> None:
        """Averages of the experts' errors by class, which forget."""
        sums, counts = self.sums[self.used] + wrongs, self.counts[self.used] + ONE
        full = counts > F(400)
        self.sums[self.used] = np.where(full, sums * F(0.5), sums)
        self.counts[self.used] = np.where(full, counts * F(0.5), counts)
