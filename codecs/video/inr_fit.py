"""The fit of `video/inr`: gradient descent on weights and grids for one group of pictures.

The loss is lmbda D + R in bits: D is 255^2 times the squared error of samples in 0 .. 1, summed
over the pixels of Y, with the planes weighted as `Target` says; R is what weights and grids cost.
In the first part of a run noise stands for rounding, in the last numbers are rounded.
"""

from __future__ import annotations

import math
import pickle
import time
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import xxhash
from torch import Tensor
from torch.nn import functional as F

from .inr_networks import Layout, draw, times_of
from .inr_state import State

_HARD = 0.75  # of the run is done when rounding begins
_WARM = 0.02  # of the run
_LAST_RATE = 0.02  # of the learning rate is left at the end
_WEIGHT_RATE, _SIDE_RATE, _GRID_RATE = 4e-3, 3e-2, 5e-2
_COARSER = 0.05  # weight of the pictures of other levels than the finest
_SAVE_SECONDS = 60.0
_BETAS = 0.9, 0.99

# (step, steps in all, bits per pixel and PSNR in dB as estimated from the last steps)
Progress = Callable[[int, int, float, float], None]


@dataclass(frozen=True)
class Target:
    """What to fit.

    Attributes:
        x: packed frames around 0, float32 [T, outputs, H, W], -0.5 .. 0.5.
        shares: of each channel in the error, float32 [outputs], 1 in all.
        pixels: of all frames.
    """

    x: Tensor
    shares: Tensor
    pixels: int

    def pyramid(self, levels: int) -> list[Tensor]:
        """The frames at each level, each the means of 2 x 2 of the finer one."""
        made = [self.x]
        for _ in range(levels):
            x = made[-1]
            x = F.pad(x, (0, x.shape[3] % 2, 0, x.shape[2] % 2), mode="replicate")
            made.append(F.avg_pool2d(x, 2))
        return made


@dataclass(frozen=True)
class Plan:
    """How long and how to fit.

    Attributes:
        lmbda: of the loss.
        passes: over all frames, where no time is set.
        seconds: to take instead.
        rated: whether bits count.
        checkpoint: a file that is kept up to date, and gone on from where it is there.
        progress: is told how the fit goes on.
        clock: what seconds are measured with.
    """

    lmbda: float
    passes: int
    seconds: float | None = None
    rated: bool = True
    checkpoint: Path | None = None
    progress: Progress | None = None
    clock: Callable[[], float] = time.monotonic


def optimise(
    target: Target,
    layout: Layout,
    plan: Plan,
    base: Tensor | None = None,
    start: State | None = None,
) -> State:
    """Fit the networks to a group of pictures.

    Args:
        target: the frames.
        layout: of the networks.
        plan: of the fit.
        base: float32 [layout.count], weights that the coded ones are differences from.
        start: of a fit of other frames, or of these at another lmbda, to go on from.

    Raises:
        ValueError: the checkpoint is of another fit.
    """
    state = State(layout, len(target.x), base, plan.rated)
    state.begin_grids(target.pyramid(layout.levels))
    if start is not None:
        state.go_on_from(start)
    run = _Run(state, target, plan)
    run.to_end()
    return state


class _Run:
    """A fit that is under way."""

    def __init__(self, state: State, target: Target, plan: Plan) -> None:
        self.state, self.target, self.plan = state, target, plan
        self.times = times_of(len(target.x))
        self.levels = target.pyramid(state.layout.levels)
        self.shares = target.shares[:, None, None]
        self.optimisers = _optimisers(state)
        self.steps = plan.passes * len(target.x)
        self.step, self.seconds = 0, 0.0
        self.order = torch.Generator().manual_seed(2)
        self.frames: list[int] = []
        self.recent: list[tuple[float, float]] = []
        self.half = bool(torch.cpu.get_capabilities().get("avx512_bf16"))

    def to_end(self) -> None:
        """Go through all steps that are left."""
        path = self.plan.checkpoint
        if path and path.exists():
            self._load(path)
        began = self.plan.clock() - self.seconds
        saved = self.seconds
        while (done := self._done()) < 1:
            self._advance(done)
            self.seconds = self.plan.clock() - began
            if path and self.seconds - saved > _SAVE_SECONDS:
                self._save(path)
                saved = self.seconds
        if path:
            self._save(path)

    def _done(self) -> float:
        """Share of the run."""
        if self.plan.seconds is not None:
            return self.seconds / self.plan.seconds
        return self.step / self.steps

    def _advance(self, done: float) -> None:
        rate = min(1.0, (done + 1e-3) / _WARM)
        rate *= _LAST_RATE + (1 - _LAST_RATE) * 0.5 * (1 + math.cos(math.pi * done))
        for optimiser in self.optimisers:
            for group in optimiser.param_groups:
                group["lr"] = rate * group["initial_lr"]
            optimiser.zero_grad(set_to_none=True)
        if not self.frames:
            self.frames = torch.randperm(len(self.target.x), generator=self.order).tolist()
        loss = self._loss(self.frames.pop(), done > _HARD)
        loss.backward()  # type: ignore[no-untyped-call]
        for optimiser in self.optimisers:
            optimiser.step()
        self.step += 1
        self._tell()

    def _loss(self, t: int, hard: bool) -> Tensor:
        state, pixels = self.state, self.target.pixels
        with torch.autocast("cpu", torch.bfloat16, self.half):
            drawn = state.drawn(t, self.target.x[t : t + 1], hard)
            pictures = draw(state.layout, drawn.params, drawn.grids, self.times[t : t + 1])
        errors = [
            ((picture.float() - level[t : t + 1]).square() * self.shares).mean((0, 2, 3)).sum()
            for picture, level in zip(pictures, self.levels, strict=False)
        ]
        bits = drawn.bits[0] + drawn.bits[1]
        self.recent.append((float(bits.detach()) / pixels, float(errors[0].detach())))
        error = errors[0] + _COARSER * sum(errors[1:])
        return error + bits / (self.plan.lmbda * 255**2 * pixels)

    def _tell(self) -> None:
        every = len(self.target.x)
        if self.step % every:
            return
        bits, errors = (sum(values) / len(values) for values in zip(*self.recent, strict=True))
        self.recent.clear()
        if self.plan.progress:
            steps = self.steps
            if self.plan.seconds is not None:
                steps = max(self.step, round(self.step / max(self._done(), 1e-6)))
            self.plan.progress(self.step, steps, bits, -10 * math.log10(max(errors, 1e-10)))

    def _key(self) -> str:
        """Of what the fit is."""
        digest = xxhash.xxh3_64_hexdigest(self.target.x.numpy().tobytes())
        return f"{digest} {self.state.layout} {self.plan.lmbda} {self.plan.rated} {self.steps}"

    def _parts(self) -> dict[str, Any]:
        return {
            "state": self.state.state_dict(),
            "optimisers": [optimiser.state_dict() for optimiser in self.optimisers],
            "generators": [self.order.get_state(), self.state.noise.get_state()],
            "run": [self.step, self.seconds, self.frames],
        }

    def _save(self, path: Path) -> None:
        """Write all of it, whole or not at all."""
        partial = path.with_name(path.name + ".partial")
        torch.save({"key": self._key(), **self._parts()}, partial)
        partial.replace(path)

    def _load(self, path: Path) -> None:
        if not zipfile.is_zipfile(path):
            raise ValueError(f"{path} is not a checkpoint of video/inr; name another")
        try:
            stored = torch.load(path, weights_only=True)
            if stored["key"] != self._key():
                raise ValueError(
                    f"{path} is of other frames or other settings; delete it or name another"
                )
            self.state.load_state_dict(stored["state"])
            for optimiser, values in zip(self.optimisers, stored["optimisers"], strict=True):
                optimiser.load_state_dict(values)
            for generator, value in zip(
                (self.order, self.state.noise), stored["generators"], strict=True
            ):
                generator.set_state(value)
            self.step, self.seconds, self.frames = stored["run"]
        except (OSError, KeyError, EOFError, RuntimeError, pickle.UnpicklingError) as error:
            raise ValueError(f"{path} is not a checkpoint of video/inr: {error}") from None


def _optimisers(state: State) -> list[torch.optim.Adam]:
    """One for weights, one for steps and priors, one for grids: they skip what has no gradient."""
    encoder = [] if state.encoder is None else list(state.encoder.parameters())
    side = [state.steps, state.rows, *state.gains, *state.follow, *state.grid_rows, *state.lift]
    groups = [
        ([state.weights, *encoder], _WEIGHT_RATE),
        (side, _SIDE_RATE),
        ([y for t in range(len(state.grids)) for y in state.own(t) if y.numel()], _GRID_RATE),
    ]
    made = [torch.optim.Adam(v, lr=rate, betas=_BETAS) for v, rate in groups if v]
    for optimiser in made:
        for group in optimiser.param_groups:
            group["initial_lr"] = group["lr"]
    return made
