"""Probabilities of the decisions of a motion field: counters in contexts, mixed; integers only.

Each decision has three contexts, whose counters hold the probability of a 1 in 2**-16. Their
logarithmic odds, in 256ths, are weighted by a mixer of the kind of the decision; the counters and
the weights then learn from the decision.
"""

from typing import NamedTuple

from .pixels_mix_ref import Coder

# 65536 / (1 + exp(-x)) for x = -8, -7.5 .. 8: between them it is linear.
_LOGISTIC = (
    22, 36, 60, 98, 162, 267, 439, 721, 1179, 1921, 3108, 4971, 7812, 11969, 17625, 24743, 32768,
    40793, 47911, 53567, 57724, 60565, 62428, 63615, 64357, 64815, 65097, 65269, 65374, 65438,
    65476, 65500, 65514,
)  # fmt: skip
MOST_ODDS = 2047
MOST_COUNT = 60
INPUTS = 3
FIRST_WEIGHT = 20000  # of 65536


def probability(odds: int) -> int:
    """2**16 times the probability of logarithmic odds in 256ths, within +-MOST_ODDS."""
    at, part = divmod(odds + 2048, 128)
    return _LOGISTIC[at] + ((_LOGISTIC[at + 1] - _LOGISTIC[at]) * part >> 7)


def _inverse() -> list[int]:
    odds, found = -MOST_ODDS, []
    for i in range(4096):
        while odds < MOST_ODDS and probability(odds) < 16 * i + 8:
            odds += 1
        found.append(odds)
    return found


_ODDS = _inverse()  # of probabilities in 2**-12
_RATES = [131072 // (2 * n + 3) for n in range(MOST_COUNT + 1)]


class Kind(NamedTuple):
    """A kind of decision: its mixers, and how many values its three contexts have."""

    mixers: int
    contexts: tuple[int, int, int]


KINDS = {
    "split": Kind(5, (5 * 9, 5 * 9, 5 * 16)),
    "merge": Kind(5, (5 * 6, 5 * 9, 5 * 12)),
    "index": Kind(4, (4 * 36, 4 * 35, 4 * 20)),
    "mode": Kind(2, (2 * 16, 2 * 20, 2 * 5)),
    "zero": Kind(3, (3 * 6, 3 * 10, 3 * 12)),
    "exponent": Kind(2, (2 * 10 * 6, 2 * 10 * 5, 2 * 10 * 7)),
    "mantissa": Kind(2, (2 * 16, 2 * 16 * 2, 2)),
}
SLOTS = sum(sum(kind.contexts) for kind in KINDS.values())
MIXERS = sum(kind.mixers for kind in KINDS.values())


def _starts() -> tuple[dict[str, tuple[int, int, int]], dict[str, int]]:
    """Where the counters and the mixers of each kind begin."""
    slot, mixer, slots, mixers = 0, 0, {}, {}
    for name, kind in KINDS.items():
        a, b, c = kind.contexts
        slots[name], mixers[name] = (slot, slot + a, slot + a + b), mixer
        slot += a + b + c
        mixer += kind.mixers
    return slots, mixers


_SLOTS, _MIXERS = _starts()


class Model:
    """What decisions are coded with."""

    def __init__(self, coder: Coder) -> None:
        self.coder = coder
        self.p = [1 << 15] * SLOTS
        self.counts = [0] * SLOTS
        self.weights = [[FIRST_WEIGHT] * INPUTS for _ in range(MIXERS)]

    def code(self, name: str, mixer: int, contexts: tuple[int, int, int], bit: int = 0) -> int:
        """Take a decision, or return it."""
        slots = [first + context for first, context in zip(_SLOTS[name], contexts, strict=True)]
        weights = self.weights[_MIXERS[name] + mixer]
        odds = [_ODDS[self.p[slot] >> 4] for slot in slots]
        total = sum(w * x for w, x in zip(weights, odds, strict=True)) >> 16
        p = probability(min(max(total, -MOST_ODDS), MOST_ODDS))
        bit = self.coder.code(bit, p)
        left = 65535 * bit - p
        for i, x in enumerate(odds):
            weights[i] += (x * left + (1 << 13)) >> 14
        for slot in slots:
            self.p[slot] += (65535 * bit - self.p[slot]) * _RATES[self.counts[slot]] >> 16
            self.counts[slot] = min(self.counts[slot] + 1, MOST_COUNT)
        return bit

    def even(self, bit: int = 0) -> int:
        """A decision that is as likely as not."""
        return self.coder.code(bit, 1 << 15)
