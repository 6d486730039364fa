"""A plane of a tile, sample by sample: steps 1 and 2 of what `pixels_ref` describes."""

from typing import Any

import numpy as np

from .pixels_mix_ref import CONTEXTS, EXPERTS, Coder, Mixer, Question
from .pixels_numbers_ref import (
    ONE,
    ZERO,
    F,
    Floats,
    Samples,
    between,
    bits_of,
    clamped,
    exponential,
    fifth,
    float_of,
    quotient,
    total,
)
from .pixels_taps_ref import REACH, TAPS, Canvas, LeastSquares, Plane, Taps

BLEND, TEXTURED, MEDIAN, SIGNED = 4, 5, 6, 7  # experts after the four that predict
CLASSES = 80  # of scale, four to an octave
MATCHED = 6  # a context
WORD = 0xFFFFFFFF


class Average:
    """Averages that forget: sum / count."""

    def __init__(self, sums: Floats, count: float, most: float) -> None:
        self.sums, self.counts = sums, np.full_like(sums, count)
        self.most = most

    def get(self, index: Any) -> Any:
        """The averages at an index."""
        return self.sums[index] / self.counts[index]

    def add(self, index: Any, value: Any) -> None:
        """One more value at an index."""
        sums, counts = self.sums[index] + value, self.counts[index] + ONE
        much = counts > self.most
        self.sums[index] = np.where(much, sums * F(0.5), sums)
        self.counts[index] = np.where(much, counts * F(0.5), counts)


class Match:
    """What came after the same surroundings before: for text, icons and other repeated things.

    Attributes:
        expected: the sample after the same surroundings, or -1.
        kind: 0 where there is none, else 1 to 5 by how often in a row the match was right.
    """

    def __init__(self) -> None:
        self.last = [-1] * (1 << 16)  # number of the last sample with surroundings
        self.samples: list[int] = []
        self.source, self.right = -1, 0
        self.expected, self.kind = -1, 0

    def look_up(self, number: int, surroundings: int) -> None:
        """Before a sample: its number, and a hash of its surroundings."""
        place = (surroundings * 0x9E3779B1 & WORD) >> 16
        if not self.right:
            self.source = self.last[place]
        self.last[place] = number
        self.expected, self.kind = -1, 0
        if self.source >= 0:
            self.expected = self.samples[self.source]
            self.kind = 1 + sum(self.right >= least for least in (1, 4, 16, 64))

    def learn(self, sample: int) -> None:
        """The sample that it was."""
        self.samples.append(sample)
        self.right = self.right + 1 if sample == self.expected else 0
        self.source += 1


class PlaneCoder:
    """Codes the samples of a plane, or decodes them.

    Attributes of a pixel that its decisions are made from: `guess`, what the experts predict;
    `scale`, of their errors; `best`, the prediction; `energy`, their errors around.
    """

    def __init__(
        self, plane: Plane, canvases: list[Canvas], misses: list[Canvas], coder: Coder
    ) -> None:
        self.plane, self.canvases, self.misses, self.coder = plane, canvases, misses, coder
        self.own, self.width = canvases[-1], canvases[-1].width
        self.links, self.step = plane.links, 2 * plane.error + 1
        depth = plane.peak.bit_length()
        self.unit = F(2.0 ** (8 - depth))  # of a sample: the same contrast for all depths
        self.per_unit = ONE / self.unit
        self.top = F(plane.peak) * self.unit
        self.floor = self.unit * F(0.15)
        self.first_class = bits_of(self.floor) >> 21
        starts = [float_of((self.first_class + i) << 21) for i in range(CLASSES)]
        self.scales = Average(np.tile(np.array(starts, np.float32), (EXPERTS, 1)), 1, 400)
        self.textures = Average(np.zeros(1024, np.float32), 0.5, 100)
        self.signs = Average(np.zeros(625, np.float32), 0.5, 100)
        self.taps = Taps(canvases, plane.links)
        self.per_tap = ONE / F(len(self.taps.places))
        self.drifts = np.zeros((2, REACH), np.float32)
        self.wrong = np.zeros((self.own.height + 2, self.width + 3, EXPERTS), np.float32)
        ridge = F(4) * self.unit if self.unit < 1 else F(4)
        self.fits = [LeastSquares(self.width, 0.72, 0.8, ridge)]
        self.fits.append(LeastSquares(self.width, 0.92, 0.95, ridge))
        self.mixer = Mixer()
        self.match = Match()

    def run(self, samples: Samples) -> None:
        """Code samples [height, width], or fill them; they become what is decoded."""
        for y in range(self.own.height):
            self.own.start_row(y)
            for fit in self.fits:
                fit.start_row()
            for x in range(self.width):
                self._look(y, x)
                self._predict(y, x)
                self._set_contexts(y, x)
                samples[y, x] = self._sample(int(samples[y, x]))
                self._learn(y, x, F(int(samples[y, x])) * self.unit)
            self.own.end_row(y)

    def _look(self, y: int, x: int) -> None:
        """What is known around a pixel: earlier errors, and scales from them."""
        self.left, self.above = self.own.at(y, x - 1), self.own.at(y - 1, x)
        miss = self.misses[-1]
        self.missed = self.misses[-2].at(y, x) if self.links else ZERO
        others = (
            self.missed if self.links else miss.at(y - 1, x - 1),
            self.misses[-3].at(y, x) if self.links > 1 else miss.at(y - 1, x + 1),
        )
        e = self.wrong[y : y + 3, x : x + 4]  # two rows above, two columns left
        near = (e[2, 1] + e[1, 2]) * F(2)
        energy = (near + ((e[1, 1] + e[1, 3]) + (e[2, 0] + e[0, 2]))) * F(0.125)
        self.energy = energy * F(0.8) + abs(self.missed) * F(0.16) if self.links else energy
        classes = ((self.energy + self.floor).view(np.int32) >> 21) - self.first_class
        self.classes = np.clip(classes, 0, CLASSES - 1)
        average = self.scales.get((np.arange(EXPERTS), self.classes))
        self.scale = average * F(0.55) + self.unit * F(0.04)
        self.spread = self.scale[BLEND]
        signs = (miss.at(y, x - 1), miss.at(y - 1, x), *others)
        self.signed = [fifth(sign, self.spread * F(0.7)) for sign in signs]

    def _predict(self, y: int, x: int) -> None:
        guess = np.zeros(EXPERTS, np.float32)
        self.values = self.taps.read(y, x)
        t0, t1, t2 = self.values.reshape(3, TAPS)
        self.power = total((t0 * t0 + t1 * t1) + t2 * t2) * self.per_tap
        self.drift = []
        for i, fit in enumerate(self.fits):
            guess[i] = between(self.left + total(fit.solve(x) * t0), 0, self.top)
            w0, w1, w2 = self.drifts[i].reshape(3, TAPS)
            self.drift.append(guess[i] + total((w0 * t0 + w1 * t1) + w2 * t2))
            guess[2 + i] = between(self.drift[i], 0, self.top)
        guess[MEDIAN] = between(self._median(y, x), 0, self.top)
        trust = ONE / (self.energy * self.energy + self.unit * self.unit * F(0.1))
        t = trust * trust
        weight = (t[0] + t[1]) + (t[2] + t[3])
        blend = (t[0] * guess[0] + t[1] * guess[1]) + (t[2] * guess[2] + t[3] * guess[3])
        guess[BLEND] = self.blend = blend / weight
        self.texture = self._texture(y, x)
        west, north, other, third = self.signed
        self.sign = ((west * 5 + north) * 5 + other) * 5 + third
        texture, sign = self.textures.get(self.texture), self.signs.get(self.sign)
        guess[TEXTURED] = between(self.blend + texture, 0, self.top)
        guess[SIGNED] = between(self.blend + sign, 0, self.top)
        self.best = between(self.blend + (texture + sign) * F(0.5), 0, self.top)
        self.guess = guess

    def _median(self, y: int, x: int) -> np.float32:
        """The edge-detecting predictor of JPEG-LS, on differences to the linked plane."""
        a, b, c = self.left, self.above, self.own.at(y - 1, x - 1)
        more = ZERO
        if self.links:
            linked = self.canvases[-2]
            a, b = a - linked.at(y, x - 1), b - linked.at(y - 1, x)
            c, more = c - linked.at(y - 1, x - 1), linked.at(y, x)
        low, high = (a, b) if a < b else (b, a)
        return (low if c >= high else high if c <= low else a + b - c) + more

    def _texture(self, y: int, x: int) -> int:
        """Which neighbours are above the prediction, and the sign of the linked plane's error."""
        at, m = self.own.at, self.blend
        ww, nn = at(y, x - 2), at(y - 2, x)
        neighbours = [self.left, self.above, at(y - 1, x - 1), at(y - 1, x + 1), ww, nn]
        neighbours += [self.above * F(2) - nn, self.left * F(2) - ww]
        bits = [v > m for v in neighbours] + [self.missed > 0, self.missed < 0]
        return sum(int(bit) << i for i, bit in enumerate(bits))

    def _set_contexts(self, y: int, x: int) -> None:
        """What the decisions of a pixel have in common."""
        exact = self.best * self.per_unit
        self.centre = int(exact + F(0.5))
        quarter = clamped(int((exact - F(self.centre) + F(0.5)) * F(4)), 0, 3)
        apart = max(abs(guess - self.best) for guess in self.guess[:4])
        relative = apart / (self.spread + self.unit * F(0.05)) * F(8) + ONE
        self.agreement = clamped((bits_of(relative) >> 22) - 254, 0, 11)
        steps = self.spread * self.per_unit / F(self.step)
        self.width_log2 = 0
        while steps >= F(1.3) and self.width_log2 < 15 and 1 << self.width_log2 < steps:
            self.width_log2 += 1
        self.width_class = min(self.width_log2, 7)
        self.scale_class = scale = int(self.classes[BLEND])
        west, north, other, third = self.signed
        median = fifth(self.guess[MEDIAN] - self.best, self.spread * F(0.7))
        left, above = (fifth(v - self.best, self.spread * F(2)) for v in (self.left, self.above))
        self.contexts = [
            (scale * 4 + quarter) * 64,
            ((west * 5 + north) * 40 + (scale >> 1)) * 64,
            ((self.texture & 255) * 4 + (self.width_class >> 1)) * 64,
            ((other * 5 + third) * 40 + (scale >> 1)) * 64,
            (self.agreement * CLASSES + scale) * 64,
            (((median * 5 + left) * 5 + above) * 8 + min(scale >> 3, 7)) * 64,
            0,  # MATCHED, which depends on the decision
            self._match(y, x),
        ]

    def _match(self, y: int, x: int) -> int:
        """Contexts of exact samples: looks for a match, and returns the hash of another."""
        whole = [int(canvas.at(y, x) * self.per_unit) for canvas in self.canvases[-3:-1]]
        linked = whole[-1] if self.links else 0
        second = whole[-2] if self.links > 1 else 0
        places = ((0, -1), (-1, 0), (-1, -1), (-1, 1), (0, -2), (-2, 0))
        near = [int(self.own.at(y + down, x + right) * self.per_unit) for down, right in places]
        close = hashed(*near[:3])
        planes, far = hashed(linked, second, near[3]), hashed(near[4], near[5], 2)
        self.match.look_up(y * self.width + x, close + planes * 3 + far * 5 & WORD)
        if self.links:
            return hashed(linked, second if self.links > 1 else near[0], self.centre)
        return close + hashed(near[3], self.centre, 1) & WORD

    def _sample(self, sample: int) -> int:
        """Code a sample as steps from the centre: which side, which span of steps, where in it.

        The sample of step q is centre + q * step; it stands for all that are nearer to it than to
        others.
        """
        error, step, centre = self.plane.error, self.step, self.centre
        lowest = -((centre + error) // step)
        highest = (self.plane.peak - centre + error) // step
        want = quotient(sample - centre + (error if sample >= centre else -error), step)
        self.near_tail, self.far_tail = np.ones(EXPERTS, np.float32), np.zeros(EXPERTS, np.float32)
        up = self._ask(1, 0, 0, want >= 0) if lowest < 0 else 1
        side = 1 if up else -1
        goal, last = (want, highest) if up else (-want - 1, -lowest - 1)
        self.near_tail, self.far_tail = self._tail(side, 0), np.zeros(EXPERTS, np.float32)
        low, span, spans = 0, 1 << self.width_log2, 0
        while low + span <= last:
            node = (1 if up else 11) + min(spans, 9)
            if not self._ask(side, low + span, node, goal >= low + span):
                break
            low += span
            spans += 1
            span *= 2 if spans >= 3 else 1
        high = min(low + span, last + 1)
        depth, place = 0, 1
        while high - low > 1:
            middle = (low + high) >> 1
            node = 62
            if depth < 3:
                node = (21 if up else 41) + (min(spans, 3) * 3 - 1 if depth < 2 else 8) + place
            bit = self._ask(side, middle, node, goal >= middle)
            low, high = (middle, high) if bit else (low, middle)
            depth, place = depth + 1, place * 2 + bit
        return clamped(centre + (low if up else -low - 1) * step, 0, self.plane.peak)

    def _place(self, side: int, threshold: int) -> int:
        """Twice the place between two samples where so many steps to a side begin."""
        return 2 * (self.centre + side * threshold * self.step) - self.step

    def _tail(self, side: int, threshold: int) -> Floats:
        """The experts' probabilities of more than so many steps to a side, or of as many."""
        sharpness = ONE / self.scale
        away = (F(self._place(side, threshold)) * (self.unit * F(0.5)) - self.guess) * (
            sharpness * F(side)
        )
        return ONE / (ONE + exponential(between(away, -30, 30)))

    def _ask(self, side: int, threshold: int, node: int, answer: bool) -> int:
        """Code whether a sample is so many steps or more to a side."""
        tail = self._tail(side, threshold)
        west, north, _, _ = self.signed
        matched = self.match.kind
        outward = (2 * self.match.expected - self._place(side, threshold)) * side > 0
        slots = [slot(i, context, node) for i, context in enumerate(self.contexts)]
        slots[MATCHED] = (matched * 2 + outward) * 64 + node
        question = Question(
            outward=between(tail - self.far_tail, 0, 2) + F(1e-10),
            inward=between(self.near_tail - tail, 0, 2) + F(1e-10),
            slots=slots,
            mixers=[
                self.width_class * 64 + node,
                512 + self.scale_class * 64 + node,
                5632 + (10 + matched if matched > 1 else self.agreement) * 64 + node,
            ],
            maps=[(self.scale_class >> 1) * 64 + node, 2560 + (west * 5 + north) * 64 + node],
        )
        bit = self.mixer.code(self.coder, question, int(answer))
        if bit:
            self.near_tail = tail
        else:
            self.far_tail = tail
        return bit

    def _learn(self, y: int, x: int, value: np.float32) -> None:
        self.match.learn(int(value * self.per_unit))
        self.own.put(y, x, value)
        self.misses[-1].put(y, x, value - self.best)
        wrong = abs(self.guess - value)
        self.wrong[y + 2, x + 2] = wrong
        self.scales.add((np.arange(EXPERTS), self.classes), wrong + F(1e-6))
        self.textures.add(self.texture, value - self.blend)
        self.signs.add(self.sign, value - self.blend)
        for i, fit in enumerate(self.fits):
            fit.learn(x, self.values[:TAPS], value - self.left)
            rate = self.per_tap * F(0.02) * (value - self.drift[i]) / (ONE + self.power)
            self.drifts[i] = self.drifts[i] + self.values * rate


def hashed(a: int, b: int, c: int) -> int:
    """32 bits of three numbers."""
    return (a * 0x9E3779B1 & WORD) ^ (b * 0x85EBCA77 & WORD) ^ (c * 0xC2B2AE3D & WORD)


def slot(i: int, context: int, node: int) -> int:
    """The counter of a node; the last context is hashed, 16 nodes side by side."""
    if i < CONTEXTS - 1:
        return context + node
    mixed = (context + (node >> 4) * 0x165667B1) * 0x9E3779B1 & WORD
    return mixed >> 20 << 4 | node & 15
