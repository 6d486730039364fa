"""Fitting of `image/fit`: gradient descent on the latents and networks of one picture.

The objective is bits / pixels + lmbda * 255^2 * mse. Rounding is replaced by soft rounding with
noise (Agustsson and Theis 2020, arXiv:2006.09952), which both harden until the last phase rounds
(C3, Kim et al. 2024, arXiv:2312.02753). All that changes in time is a function of the fraction
that is done, so a run can be as long as a number of steps or of seconds.
"""

from __future__ import annotations

import math
import os
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ...kernels import fit_train
from . import fit_networks as networks
from .fit_networks import PRESETS, Preset
from .fit_prior import Prior
from .fit_state import Engine, Phase, Pull, State, rates_of

Progress = Callable[[int, int, float, float], object]
Array = NDArray[np.float32]

STEPS = (100, 200, 400, 800, 1500, 2500, 4000, 7000, 12_000, 20_000)  # by effort
LEAST_STEPS = 60  # however short the time
CHECKPOINT_SECONDS = 20.0
_REPORT_SECONDS = 0.5


@dataclass(frozen=True)
class Recipe:
    """What the quality of a fit depends on besides its length; pairs are first and last values.

    Attributes:
        latent_rate: of Adam on the latents, in steps of the quantiser.
        damping: what Adam adds to the root of a latent's second moment, relative to the root mean
            square of its grid: latents without much to say stay where they are.
        network_rate: of SOAP on the parameters' matrices.
        vector_rate: of Adam on the other parameters.
        pull: the weight of the bits of parameters; more than 1, as steps are finer at the optimum
            than the prior's scales tell.
        warm: the fraction of steps over which the rate of the parameters rises from 0: latents
            that are still far from where they go would lead them astray.
        floor: the fraction of the rates that they fall to, as a cosine.
        temperature: of the soft rounding.
        noise: standard deviation.
        hard: the fraction of steps that round, at the end.
        hard_rate: the rates there, as a fraction, before they fall to 0.
    """

    latent_rate: float = 0.2
    damping: float = 1.0
    network_rate: float = 0.07
    vector_rate: float = 0.02
    pull: float = 3.0
    warm: float = 0.15
    floor: float = 0.05
    temperature: tuple[float, float] = (0.35, 0.08)
    noise: tuple[float, float] = (0.32, 0.18)
    hard: float = 0.03
    hard_rate: float = 0.02


RECIPE = Recipe()


@dataclass
class Fitted:
    """A fit: what is coded, and what going on from it takes.

    Attributes:
        grids: int16 latents [rows, columns], finest first.
        parameters: float32 [count], in the order of `fit_networks.layout`.
        latents: float32, the latents of all grids before rounding.
        bits: of the grids, as the context model estimates them.
        mse: of the picture in 0..1, before pixels are rounded and clamped.
    """

    grids: list[Tensor]
    parameters: Tensor
    latents: Tensor
    bits: float
    mse: float


class TorchEngine:
    """The iteration by torch's automatic differentiation, on any of its devices."""

    def __init__(self, preset: Preset, picture: Tensor, device: torch.device | str):
        """Prepare for float32 `picture` [C, H, W], 0..1."""
        self._preset = preset
        self._picture = picture.to(device)
        self._shapes = networks.grid_shapes(*picture.shape[1:])

    def step(self, latents: Array, params: Array, objective: fit_train.Objective) -> fit_train.Step:
        """The same as `fit_train.Trainer.step`."""
        colours, height, width = self._picture.shape
        flat = torch.from_numpy(latents).to(self._picture.device).requires_grad_()
        vector = torch.from_numpy(params).to(self._picture.device).requires_grad_()
        grids = _split(flat, self._shapes)
        p = networks.split(vector, self._preset, colours)
        bits = networks.rate_bits(p, grids, self._preset.taps)
        x_hat = networks.synthesise(p, networks.upsample(p, grids))
        mse = (x_hat - self._picture).square().mean()
        (bits / (height * width) + objective.weight * mse).backward()  # type: ignore[no-untyped-call]
        assert flat.grad is not None and vector.grad is not None
        grads = flat.grad.cpu().numpy(), vector.grad.cpu().numpy()
        return fit_train.Step(bits.item(), mse.item(), *grads)


def _split(latents: Tensor, shapes: list[tuple[int, int]]) -> list[Tensor]:
    parts = torch.split(latents, [rows * columns for rows, columns in shapes])
    return [part.view(shape) for part, shape in zip(parts, shapes, strict=True)]


def engine_for(
    preset: Preset, picture: Tensor, threads: int | None = None, device: str | None = None
) -> Engine:
    """The compiled iteration, or torch's where that can't be had or another device is asked for."""
    if device not in (None, "cpu") or not fit_train.available():
        return TorchEngine(preset, picture, device or "cpu")
    net = fit_train.Net(preset.taps, preset.hidden, preset.width, picture.shape[0])
    count = networks.count(preset, picture.shape[0])
    threads = threads or len(os.sched_getaffinity(0))
    return fit_train.Trainer(net, picture.numpy(), count, threads=min(threads, 64))


def start_of(preset: Preset, colours: int, prior: Prior | None = None) -> Tensor:
    """The parameters that a fit begins with, float32 [count].

    The context model is the prior's, which was learned over photographs. Upsampling and synthesis
    are the same random ones for every picture: a mean of such networks is worse than none.
    """
    params = networks.initial(preset, colours, torch.Generator().manual_seed(1))
    if prior is not None:
        for name, piece in networks.layout(preset, colours).items():
            if name.startswith("context"):
                part = slice(piece.start, piece.stop)
                params[part] = torch.from_numpy(prior.mean[part])
    return params


def objective_for(lmbda: float) -> fit_train.Objective:
    """What `fit_train` minimises at this lmbda."""
    return fit_train.Objective(
        lmbda * 255**2,
        networks.B_MIN,
        networks.B_STEP,
        networks.SCALES,
        networks.LATENT_UNIT,
    )


def phase_at(recipe: Recipe, fraction: float) -> Phase:
    """Settings at a fraction from 0 to 1; temperature 0 is rounding."""
    soft = 1 - recipe.hard
    if fraction >= soft:
        left = (1 - fraction) / max(recipe.hard, 1e-9)
        rate = recipe.hard_rate * max(left, 0.02)
        return Phase(
            recipe.latent_rate * rate,
            recipe.network_rate * rate,
            recipe.vector_rate * rate,
            0.0,
            0.0,
        )
    t = fraction / soft
    wave = recipe.floor + (1 - recipe.floor) * 0.5 * (1 + math.cos(math.pi * t))
    warm = min(1.0, (fraction + 1e-4) / max(recipe.warm, 1e-9))
    return Phase(
        recipe.latent_rate * wave,
        recipe.network_rate * wave * warm,
        recipe.vector_rate * wave * warm,
        recipe.temperature[0] + (recipe.temperature[1] - recipe.temperature[0]) * t,
        recipe.noise[0] + (recipe.noise[1] - recipe.noise[0]) * t,
    )


def optimise(
    x: Tensor,
    preset: str,
    lmbda: float,
    mean: Tensor,
    *,
    prior: Prior | None = None,
    effort: int = 5,
    time_budget: float | None = None,
    start: Fitted | None = None,
    checkpoint: Path | None = None,
    progress: Progress | None = None,
    threads: int | None = None,
    device: str | None = None,
    steps: int | None = None,
    recipe: Recipe = RECIPE,
) -> Fitted:
    """Fit latents and networks to a picture.

    Args:
        x: uint8 [C, H, W], C = 1 or 3.
        preset: name of a row of `fit_networks.PRESETS`.
        lmbda: weight of 255^2 * mse against bits per pixel.
        mean: float32 [count], the parameters to start from.
        prior: that the networks will be coded with: they stay near it where nothing is lost.
        effort: 0 to 9: `STEPS` iterations.
        time_budget: seconds for all iterations, instead of a number of them; `LEAST_STEPS` are
            done however short it is, with a warning.
        start: go on from this fit, e.g. of another lmbda, with a quarter of the steps.
        checkpoint: file to save the state to now and then, and to go on from if it exists. With a
            number of steps, going on ends with exactly what the unbroken run ends with.
        progress: called with step, total (an estimate with a time budget), bpp and PSNR in dB.
        threads: of the compiled iteration; None = one for each core.
        device: of torch; None = the compiled iteration on the CPU.
        steps: the number of iterations, instead of the effort's.
        recipe: rates and schedules.

    Raises:
        ValueError: `checkpoint` is of another picture or other settings.
    """
    picture = x.to(torch.float32) / 255
    engine = engine_for(PRESETS[preset], picture, threads, device)
    state = _begin(x, PRESETS[preset], start, mean, recipe, prior)
    total = steps or STEPS[effort] // (4 if start else 1)
    key = _key(x, preset, lmbda, mean, total if time_budget is None else -1, start is not None)
    if checkpoint is not None and checkpoint.exists():
        state.load(checkpoint, key)
    clock = _Clock(state.seconds, total, time_budget)
    watch = _Watch(clock, x[0].numel(), progress, checkpoint, key)
    objective = objective_for(lmbda)
    skipped = 0.35 if start else 0.0  # a fit that goes on leaves out the softest part
    while (fraction := clock.fraction(state.step)) < 1:
        phase = phase_at(recipe, skipped + (1 - skipped) * fraction)
        watch.tell(state, *state.advance(engine, objective, phase))
    clock.warn(state.step)
    fitted = _finish(state, engine, objective, networks.grid_shapes(*x.shape[1:]))
    watch.report(state.step, state.step, fitted.bits, fitted.mse)
    return fitted


def _begin(
    x: Tensor,
    preset: Preset,
    start: Fitted | None,
    params: Tensor,
    recipe: Recipe,
    prior: Prior | None,
) -> State:
    sizes = [rows * columns for rows, columns in networks.grid_shapes(*x.shape[1:])]
    latents = np.zeros(sum(sizes), np.float32)
    if start:
        latents, params = start.latents.numpy().copy(), start.parameters
    pull = pull_to(prior, recipe.pull / x[0].numel()) if prior else None
    rates = rates_of(networks.layout(preset, x.shape[0]), prior)
    vector = params.numpy().astype(np.float32)
    return State(latents, vector, rates, preset, x.shape[0], sizes, recipe.damping, pull)


def pull_to(prior: Prior, strength: float) -> Pull:
    """Laplace distributions around the prior's means cost 1 / (ln 2 scale) bits for a unit."""
    scale = np.exp2((prior.scale - 60) / 3)
    weight = strength / (math.log(2) * scale)
    return Pull(prior.mean, weight.astype(np.float32), (0.1 * scale).astype(np.float32))


def _finish(
    state: State,
    engine: Engine,
    objective: fit_train.Objective,
    shapes: list[tuple[int, int]],
) -> Fitted:
    values = np.clip(np.rint(state.latents), -networks.LIMIT, networks.LIMIT)
    last = engine.step(values, state.params, objective)
    grids = [grid.to(torch.int16) for grid in _split(torch.from_numpy(values), shapes)]
    return Fitted(
        grids,
        torch.from_numpy(state.params),
        torch.from_numpy(state.latents),
        last.bits,
        last.mse,
    )


class _Clock:
    """The fraction of a run that is done, by steps or by seconds."""

    def __init__(self, seconds: float, total: int, budget: float | None):
        self._began = time.monotonic() - seconds
        self._total, self._budget = total, budget

    def seconds(self) -> float:
        return time.monotonic() - self._began

    def fraction(self, step: int) -> float:
        if self._budget is None:
            return step / self._total
        spent = self.seconds() / self._budget if self._budget > 0 else 1.0
        return min(spent, step / LEAST_STEPS)

    def total(self, step: int) -> int:
        done = self.fraction(step)
        return self._total if self._budget is None else max(step, round(step / max(done, 1e-6)))

    def warn(self, steps: int) -> None:
        if self._budget is not None and steps <= LEAST_STEPS:
            warnings.warn(
                f"a time budget of {self._budget:g} s is too short: {LEAST_STEPS} steps, the "
                f"fewest that make a picture, took {self.seconds():.0f} s; allow ten times that",
                stacklevel=3,
            )


class _Watch:
    """Reports and checkpoints of a run, every now and then."""

    def __init__(
        self,
        clock: _Clock,
        pixels: int,
        progress: Progress | None,
        checkpoint: Path | None,
        key: str,
    ):
        self._clock, self._pixels, self._progress = clock, pixels, progress
        self._checkpoint, self._key = checkpoint, key
        self._saved = self._reported = time.monotonic()

    def tell(self, state: State, bits: float, mse: float) -> None:
        now = time.monotonic()
        if now - self._reported > _REPORT_SECONDS:
            self._reported = now
            self.report(state.step, self._clock.total(state.step), bits, mse)
        if self._checkpoint and now - self._saved > CHECKPOINT_SECONDS:
            self._saved, state.seconds = now, self._clock.seconds()
            state.save(self._checkpoint, self._key)

    def report(self, step: int, total: int, bits: float, mse: float) -> None:
        if self._progress:
            psnr = -10 * math.log10(max(mse, 1e-10))
            self._progress(step, total, bits / self._pixels, psnr)


def _key(x: Tensor, preset: str, lmbda: float, mean: Tensor, total: int, going_on: bool) -> str:
    """What a checkpoint must be of."""
    import xxhash

    digest = xxhash.xxh3_64()
    digest.update(x.contiguous().numpy().data)
    digest.update(mean.contiguous().numpy().data)
    return f"{preset} {lmbda!r} {total} {going_on} {tuple(x.shape)} {digest.hexdigest()}"
