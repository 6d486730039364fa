"""The probability of a decision, and the arithmetic coder that takes it."""

from typing import NamedTuple, Protocol

import numpy as np

from .pixels_numbers_ref import ONE, F, Floats, between, clamped, exponential, logarithm, total

EXPERTS = 8
CONTEXTS = 8
SLOTS = 1 << 16  # counters of a context
MOST_COUNT = 250
MAP_BINS = 17
MIXER_SETS = 512 + 5120 + 1024
MAP_SETS = 2560 + 1600


class Coder(Protocol):
    """What a plane is coded with."""

    decodes: bool

    def code(self, bit: int, p: int) -> int:
        """Take a bit that is 1 with probability p / 2**16, or return it."""


class Encoder:
    """A binary arithmetic coder without carries.

    The interval [low, high] of 32 bits is split in two, and its leading bytes leave when they are
    settled.
    """

    decodes = False

    def __init__(self) -> None:
        self.low, self.high = 0, 0xFFFFFFFF
        self.out = bytearray()

    def code(self, bit: int, p: int) -> int:
        """See Coder."""
        middle = self.low + ((self.high - self.low) * p >> 16)
        if bit:
            self.high = middle
        else:
            self.low = middle + 1
        while not (self.low ^ self.high) >> 24:
            self.out.append(self.high >> 24)
            self.low = self.low << 8 & 0xFFFFFFFF
            self.high = (self.high << 8 | 0xFF) & 0xFFFFFFFF
        return bit

    def finish(self) -> bytes:
        """The fewest bytes that, with zeros after them, lie in the interval."""
        for count in range(5):
            unit = 1 << (32 - 8 * count)
            value = -(-self.low // unit) * unit
            if value <= self.high:
                self.out += value.to_bytes(4, "big")[:count]
                break
        return bytes(self.out.rstrip(b"\0"))


class Decoder:
    """The mirror of `Encoder`; zeros follow the bytes."""

    decodes = True

    def __init__(self, data: bytes) -> None:
        self.low, self.high = 0, 0xFFFFFFFF
        self.data, self.at, self.value = data, 0, 0
        for _ in range(4):
            self._next()

    def _next(self) -> None:
        byte = self.data[self.at] if self.at < len(self.data) else 0
        self.value = (self.value << 8 | byte) & 0xFFFFFFFF
        self.at += 1

    def code(self, bit: int, p: int) -> int:
        """See Coder."""
        middle = self.low + ((self.high - self.low) * p >> 16)
        bit = int(self.value <= middle)
        if bit:
            self.high = middle
        else:
            self.low = middle + 1
        while not (self.low ^ self.high) >> 24:
            self.low = self.low << 8 & 0xFFFFFFFF
            self.high = (self.high << 8 | 0xFF) & 0xFFFFFFFF
            self._next()
        return bit


class Question(NamedTuple):
    """What a decision is made from.

    Attributes:
        outward: probability of a 1 by each expert, not normalised.
        inward: the same of a 0.
        slots: of the counters.
        mixers: sets of weights.
        maps: sets of the final correction.
    """

    outward: Floats
    inward: Floats
    slots: list[int]
    mixers: list[int]
    maps: list[int]


class Mixer:
    """The probability of a decision."""

    def __init__(self) -> None:
        first = [F(0.2)] * EXPERTS + [F(0.06)] * CONTEXTS
        self.weights = np.tile(np.array(first, np.float32), (MIXER_SETS, 1))
        self.seen = [0] * MIXER_SETS
        # A counter is a probability of 22 bits and how often it was used, 10 bits.
        self.counters = np.full((CONTEXTS, SLOTS), 1 << 31, np.uint32)
        start = ONE / (ONE + exponential(F(8) - np.arange(MAP_BINS, dtype=np.float32)))
        self.maps = np.tile(start, (MAP_SETS, 1))
        steps = np.arange(256, dtype=np.float32)
        self.rates = F(0.003) + F(0.02) / (ONE + F(0.05) * steps)

    def code(self, coder: Coder, question: Question, bit: int) -> int:
        """Code a bit with a probability from all of this, then learn from it."""
        direct = logarithm(question.outward) - logarithm(question.inward)
        counters = self.counters[np.arange(CONTEXTS), question.slots]
        ones = (counters >> np.uint32(10)).astype(np.float32) + F(0.5)
        counted = logarithm(ones) - logarithm(F(4194304) - ones)
        inputs = np.concatenate([between(direct, -12, 12), counted])
        dots = [between(total(self.weights[m] * inputs), -14, 14) for m in question.mixers]
        mean = ((dots[0] + dots[1]) + dots[2]) * F(0.33333334)
        p = ONE / (ONE + exponential(-np.array([*dots, mean], np.float32)))

        place = between(mean, F(-7.99), F(7.99)) + F(8)
        b = int(place)
        part = place - F(b)
        rest = ONE - part
        maps = [self.maps[m] for m in question.maps]
        first, second = (m[b] * rest + m[b + 1] * part for m in maps)
        mixed = p[3] * F(0.5) + (first + second) * F(0.25)
        bit = coder.code(bit, clamped(int(mixed * F(65536)), 1, 65535))

        truth = F(bit)
        for m, estimate in zip(question.mixers, p, strict=False):
            step = (truth - estimate) * self.rates[self.seen[m]]
            self.seen[m] = min(self.seen[m] + 1, 255)
            self.weights[m] = self.weights[m] + inputs * step
        for context, slot in enumerate(question.slots):
            self.counters[context, slot] = counted_on(int(self.counters[context, slot]), bit)
        for m in maps:
            m[b] = m[b] + (truth - m[b]) * (rest * F(0.02))
            m[b + 1] = m[b + 1] + (truth - m[b + 1]) * (part * F(0.02))
        return bit


def counted_on(counter: int, bit: int) -> int:
    """A counter after one more bit."""
    p, count = counter >> 10, counter & 1023
    goal = 4194303 if bit else 0
    p += (goal - p) * (655360 // (10 * count + 16)) >> 16
    return p << 10 | min(count + 1, MOST_COUNT)
