"""The networks of a kind of frames of `video/fit`, and the iterations that fit frames with them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch

from ...kernels import fit, fit_train
from ...kernels.fit_ref import Context, Synthesis
from ..image import fit_encoder as still
from ..image import fit_parameters
from ..image.fit_encoder import Recipe, phase_at
from ..image.fit_parameters import Coded
from ..image.fit_prior import bits_of
from ..image.fit_state import Array, Networks, rates_of
from . import fit_networks
from .fit_prior import PRESETS, Prior
from .fit_state import FrameState, Grid, Plane, even_shape
from .frames import VideoFormat

_SEED_STEP, _SEED_FRAME = 0x9E3779B1, 0x85EBCA6B


class Span(NamedTuple):
    """Of a whole fit: the fraction that is done before some iterations, and theirs."""

    done: float
    part: float
    moving: float  # of the whole fit, while networks change


class Sample(NamedTuple):
    """A frame that the steps of networks are chosen by.

    Attributes:
        frame: as it stands.
        beside: the latents that the context model sees of another frame, if any.
        weight: of the frame's distortion.
    """

    frame: FrameState
    beside: list[Grid]
    weight: float


class KindFit:
    """Networks of one kind, before they are coded and after.

    Attributes:
        prior: of them.
        coded: what is coded of them, once that is settled.
    """

    def __init__(
        self,
        prior: Prior,
        format: VideoFormat,
        lmbda: float,
        recipe: Recipe,
        frames: int,
        *,
        speed: float = 1.0,
        threads: int = 1,
        start: Array | None = None,
    ):
        """Prepare for so many frames of the kind.

        Args:
            prior: of the networks.
            format: of the video.
            lmbda: as of `fit_encoder.GroupFit`.
            recipe: of the iterations.
            frames: of the kind.
            speed: of the networks, relative to the recipe's rates.
            threads: to compute with.
            start: parameters to begin with, in the place of the usual ones.
        """
        self.prior = prior
        self.coded: Coded | None = None
        self._format, self._lmbda, self._recipe = format, lmbda, recipe
        self._frames, self._threads = frames, threads
        shape, first = prior.shape, PRESETS[prior.preset].first[prior.kind]
        height, width = even_shape(format.shapes)
        net = fit_train.Net(
            0, shape.hidden, shape.width, shape.colours,
            shape.temporal, shape.extra, first, shape.colours > 1,
        )  # fmt: skip
        count = fit_networks.count(shape)
        self._trainer = fit_train.FrameTrainer(net, height, width, count, threads=threads)
        pull = still.pull_to(prior, recipe.pull / (height * width * frames))
        rates = rates_of(prior.slices, prior) * np.float32(speed)
        self._networks = Networks(
            start_of(prior) if start is None else start, rates, prior.slices, pull
        )
        self._fixed: Array | None = None

    @property
    def params(self) -> Array:
        """The parameters as they stand."""
        return self._networks.params if self._fixed is None else self._fixed

    def fit(self, sample: Sample, count: int, span: Span) -> tuple[float, float]:
        """Iterations over a frame with its prediction, which is decoded then.

        Returns:
            Bits of its latents as estimated, and the error (`fit_networks.distortion`).
        """
        frame = sample.frame
        objective = self._objective(sample.weight)
        other = frame.flat(sample.beside) if sample.beside else None
        for i in range(count):
            done = span.done + span.part * i / count
            phase = phase_at(self._recipe, done)
            seed = frame.latents.adam.steps * _SEED_STEP + (frame.slot.index + 1) * _SEED_FRAME
            values, params = frame.latents.soften(phase, seed), self.params
            got = self._trainer.step(frame.frame, values, params, objective, other)
            frame.latents.move(got.latent_grads, phase.latent_rate)
            if self._fixed is None:
                settled = phase_at(self._recipe, (1 - self._recipe.hard) * done / span.moving)
                self._networks.move(params, got.param_grads, settled)
        got = self._trainer.step(frame.frame, frame.rounded(), self.params, objective, other)
        frame.decoded = self._decode(frame, self._synthesis())
        return got.bits, got.mse

    def _objective(self, weight: float) -> fit_train.Objective:
        bits = self._format.bits
        unit = 1 / (((1 << bits) - 1) << (14 - bits))
        return still.objective_for(self._lmbda * weight)._replace(prediction_unit=unit)

    def _decode(self, frame: FrameState, synthesis: Synthesis) -> list[Plane]:
        format = self._format
        return fit.synthesise_frame(
            synthesis, frame.grids(), format.height, format.width, format.bits, frame.prediction,
            threads=self._threads,
        )  # fmt: skip

    def _synthesis(self) -> Synthesis:
        if self.coded is not None:
            return fit_parameters.synthesis(self.prior, self.coded)
        parts = fit_networks.split(torch.from_numpy(self.params), self.prior.shape)
        return Synthesis(
            *(p.numpy() for name, p in parts.items() if not name.startswith("context"))
        )

    def freeze(self, samples: Sequence[Sample]) -> None:
        """Round the networks to what is coded of them, and keep them so.

        Args:
            samples: frames that the steps are chosen by; they stand for all.
        """
        share = self._frames / len(samples)

        def context_cost(context: Context) -> float:
            return share * sum(
                bits_of(
                    *fit.frame_symbols(context, s.frame.grids(), s.beside, threads=self._threads)
                )
                for s in samples
            )

        def synthesis_cost(synthesis: Synthesis) -> float:
            return share * sum(
                self._lmbda * s.weight * s.frame.error(self._decode(s.frame, synthesis))
                for s in samples
            )

        self.coded = fit_parameters.choose(
            self.prior, self.params, context_cost, synthesis_cost, passes=1
        )
        self._fixed = fit_parameters.values(self.prior, self.coded)


def start_of(prior: Prior) -> Array:
    """The parameters that a fit begins with: the prior's context model, else the same for all."""
    params = fit_networks.initial(prior.shape, torch.Generator().manual_seed(1)).numpy()
    end = prior.slices["up"].start
    params[:end] = prior.mean[:end]
    return params
