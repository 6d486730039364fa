"""The probability of a decision about a sample."""

from typing import NamedTuple

import numpy as np

from .pixels_mix_ref import Coder, counted_on
from .pixels_numbers_ref import ONE, F, Floats, between, clamped, exponential, logarithm, total

EXPERTS = 8
CONTEXTS = 4
NODES = 32  # of the tree of decisions
MAP_BINS = 17


class Question(NamedTuple):
    """What a decision is made from.

    Attributes:
        outward: probability of a 1 by each expert, not normalised.
        inward: the same of a 0.
        slots: of the counters.
        mixers: sets of weights.
        map: set of the final correction.
    """

    outward: Floats
    inward: Floats
    slots: list[int]
    mixers: list[int]
    map: int


class Mixer:
    """The experts' estimates and counters in contexts, mixed in the logistic domain."""

    def __init__(self) -> None:
        first = [F(0.15)] * EXPERTS + [F(0.03)] * CONTEXTS + [F(0)] * 4
        self.weights = np.tile(np.array(first, np.float32), (2, 16 * NODES, 1))
        self.seen = np.zeros((2, 16 * NODES), np.int64)
        # A counter is a probability of 22 bits and how often it was used, 10 bits.
        self.counters = np.full((CONTEXTS, 64 * NODES), 1 << 31, np.uint32)
        start = ONE / (ONE + exponential(F(8) - np.arange(MAP_BINS, dtype=np.float32)))
        self.maps = np.tile(start, (16 * NODES, 1))
        steps = np.arange(256, dtype=np.float32)
        self.rates = F(0.004) + F(0.02) / (ONE + F(0.05) * steps)
        middles = np.arange(4096, dtype=np.float32) + F(0.5)
        self.logits = logarithm(middles) - logarithm(F(4096) - middles)

    def code(self, coder: Coder, question: Question, bit: int) -> int:
        """Code a bit with a probability from all of this, then learn from it."""
        direct = logarithm(question.outward) - logarithm(question.inward)
        counters = self.counters[np.arange(CONTEXTS), question.slots]
        counted = self.logits[counters >> np.uint32(20)]
        none = np.zeros(4, np.float32)
        inputs = np.concatenate([between(direct, -12, 12), counted, none])
        sets = list(enumerate(question.mixers))
        dots = [between(total(self.weights[i, m] * inputs), -14, 14) for i, m in sets]
        mean = (dots[0] + dots[1]) * F(0.5)
        p = ONE / (ONE + exponential(-np.array([*dots, mean], np.float32)))

        place = between(mean, F(-7.99), F(7.99)) + F(8)
        b = int(place)
        part = place - F(b)
        rest = ONE - part
        map_ = self.maps[question.map]
        mixed = (p[2] + (map_[b] * rest + map_[b + 1] * part)) * F(0.5)
        bit = coder.code(bit, clamped(int(mixed * F(65536)), 1, 65535))

        truth = F(bit)
        for i, m in sets:
            step = (truth - p[i]) * self.rates[self.seen[i, m]]
            self.seen[i, m] = min(self.seen[i, m] + 1, 255)
            self.weights[i, m] = self.weights[i, m] + inputs * step
        for context, slot in enumerate(question.slots):
            self.counters[context, slot] = counted_on(int(self.counters[context, slot]), bit)
        map_[b] = map_[b] + (truth - map_[b]) * (rest * F(0.02))
        map_[b + 1] = map_[b + 1] + (truth - map_[b + 1]) * (part * F(0.02))
        return bit
