"""Fitting of `video/fit`: gradient descent on the latents of a group of pictures and its networks.

Motion is looked for once, between the frames themselves. Then the frames are visited in rounds, in
coding order. A visit makes a frame's prediction again from its references as they stand, goes on
with its latents and with the networks of its kind for some iterations (as
`codecs/image/fit_encoder.py` does), and decodes it for those that follow. Before the last round the
networks are rounded to what is coded of them, and stay; in it each frame is finished on references
that are just what a decoder has.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from ...kernels import motion
from ..image.fit_encoder import Recipe
from ..image.fit_state import Array
from ..image.fit_stream import position_of
from . import fit_order
from .fit_kinds import KindFit, Sample, Span
from .fit_order import Slot
from .fit_prior import PRESETS, Prior
from .fit_state import FrameState, Plane, even_shape
from .fit_stream import Beside, Group, Picture
from .frames import VideoFormat

# (share that is done; of the frames of this round: mean bits as estimated, PSNR in dB)
Progress = Callable[[float, float, float], None]


@dataclass(frozen=True)
class Plan:
    """What the quality of a fit depends on besides its length.

    Attributes:
        recipe: of the iterations, over all rounds.
        rounds: visits of each frame, the last one included.
        first: the fraction of iterations in the first round.
        last: in the last one.
        weights: of distortion, by the level of a frame: others are made from it.
        shares: of the iterations, by level.
        speeds: of the networks, by kind: those of predicted frames see many of them.
        samples: frames of a kind that the steps of networks are chosen by.
    """

    recipe: Recipe = field(default_factory=Recipe)
    rounds: int = 12
    first: float = 0.2
    last: float = 0.2
    weights: tuple[float, ...] = (3.0, 2.0, 1.4, 1.1, 1.0, 0.9)
    shares: tuple[float, ...] = (3.0, 1.6, 1.2, 1.0, 0.8, 0.7)
    speeds: tuple[float, ...] = (1.0, 0.1, 0.1)
    samples: int = 6

    def weight(self, slot: Slot) -> float:
        """Of a frame's distortion."""
        return self.weights[min(slot.level, len(self.weights) - 1)]

    def share(self, slot: Slot) -> float:
        """Of a frame's iterations."""
        return self.shares[min(slot.level, len(self.shares) - 1)]


PLAN = Plan()


class GroupFit:
    """A group of pictures being fitted."""

    def __init__(
        self,
        gop: Sequence[Sequence[Plane]],
        format: VideoFormat,
        lengths: list[int],
        priors: Sequence[Prior],
        lmbda: float,
        *,
        plan: Plan = PLAN,
        threads: int = 1,
        start: dict[int, Array] | None = None,
    ):
        """Begin with latents of zeros.

        Args:
            gop: the planes of each frame, in the order shown.
            format: of them.
            lengths: of the segments (`fit_order`).
            priors: of the networks of each kind.
            lmbda: of bits + lmbda * squared error, in 8 bits.
            plan: how to fit.
            threads: to compute with.
            start: parameters by kind to begin with; None is the usual ones.
        """
        self.format, self.lengths, self.priors, self.lmbda = format, lengths, priors, lmbda
        self.plan = plan
        self.order = fit_order.slots(lengths)
        preset = PRESETS[priors[0].preset]
        self.frames = [
            FrameState(
                slot, gop[slot.index], format.bits, preset.first[slot.kind], plan.recipe.damping
            )
            for slot in self.order
        ]
        self._shown = {frame.slot.index: frame for frame in self.frames}
        self._kinds: dict[int, KindFit] = {}
        for kind in sorted({slot.kind for slot in self.order}):
            self._kinds[kind] = KindFit(
                priors[kind], format, lmbda, plan.recipe,
                sum(slot.kind == kind for slot in self.order),
                speed=plan.speeds[kind], threads=threads, start=start.get(kind) if start else None,
            )  # fmt: skip

    @property
    def params(self) -> dict[int, Array]:
        """The parameters of the kinds that there are, as they stand."""
        return {kind: fit.params for kind, fit in self._kinds.items()}

    def run(self, steps: float, progress: Progress | None = None) -> Group:
        """Fit for so many iterations of a frame, in the mean, and return what is coded."""
        plan, done = self.plan, 0.0
        one = steps * len(self.order) / sum(plan.share(slot) for slot in self.order)
        middle = (1 - plan.first - plan.last) / max(1, plan.rounds - 2)
        for number in range(plan.rounds - 1):
            span = Span(done, middle if number else plan.first, 1 - plan.last)
            self._round(one, span, progress)
            done += span.part
        self._freeze()
        self._round(one, Span(done, 1 - done, 1 - plan.last), progress)
        pictures = [Picture(frame.field, frame.grids()) for frame in self.frames]
        coded = {kind: fit.coded for kind, fit in self._kinds.items() if fit.coded is not None}
        return Group(self.priors, position_of(self.lmbda), self.lengths, coded, pictures)

    def _round(self, one: float, span: Span, progress: Progress | None) -> None:
        beside, bits, error = Beside(even_shape(self.format.shapes)), 0.0, 0.0
        for number, frame in enumerate(self.frames, 1):
            self._predict(frame)
            count = max(1, round(one * self.plan.share(frame.slot) * span.part))
            got = self._kinds[frame.slot.kind].fit(self._sample(frame, beside), count, span)
            beside.put(frame.slot, frame.grids())
            bits, error = bits + got[0], error + got[1]
            if progress:
                share = span.done + span.part * number / len(self.frames)
                progress(share, bits / number, -10 * math.log10(max(error / number, 1e-10)))

    def _sample(self, frame: FrameState, beside: Beside) -> Sample:
        return Sample(frame, beside.grids(frame.slot), self.plan.weight(frame.slot))

    def _freeze(self) -> None:
        beside = Beside(even_shape(self.format.shapes))
        samples: dict[int, list[Sample]] = {kind: [] for kind in self._kinds}
        for frame in self.frames:
            samples[frame.slot.kind].append(self._sample(frame, beside))
            beside.put(frame.slot, frame.grids())
        for kind, found in samples.items():
            every = -(-len(found) // self.plan.samples)
            self._kinds[kind].freeze(found[::every])

    def _predict(self, frame: FrameState) -> None:
        references = [self._shown[index] for index in frame.slot.references]
        if not references:
            return
        if frame.field is None:
            # In references that are not decoded as well as they will be it would be misled.
            luma = [r.planes[0] for r in references]
            weight = self.plan.weight(frame.slot)
            frame.field = motion.search(
                frame.planes[0], luma, self.lmbda * weight, bits=self.format.bits
            )
        decoded = [r.decoded for r in references]
        frame.predict(motion.warp(decoded, frame.field, self.format.bits))
