"""What a fit of `video/inr` changes, what it would cost in bits, and the integers it becomes."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor, nn

from ...entropy.models.laplace import SCALES
from . import inr_grids
from .inr_grids import CLASSES, Array
from .inr_networks import Encoder, Layout, Parameters, double, initial
from .inr_stream import by_name

_LOG2 = math.log(2)
_ROWS_PER_OCTAVE = 3  # of the Laplace tables, the first of which has the scale 2^-4
_FIRST_SCALE = -4.0
_FIRST_STEPS = 8  # of a tensor's mean magnitude; the fit finds better ones
_LEAST_MEAN = 0.02
_FIRST_GAIN = 0.25
_FIRST_UNITS = 40.0  # of the grids for samples of 0 to 1
_FIRST_ROW = 9.0  # Laplace of scale 1/2
_FIRST_FOLLOW = 0.7
_LIFT_OF_CLASS = 1.5


class Drawn(NamedTuple):
    """What a step of the fit draws frames from.

    Attributes:
        params: the weights by name.
        grids: of each level, [1, C, H, W].
        bits: of all weights, and of all grids by what this frame's cost.
    """

    params: Parameters
    grids: list[Tensor]
    bits: tuple[Tensor, Tensor]


def laplace_bits(x: Tensor, row: Tensor) -> Tensor:
    """Bits of integers, also with noise, in the Laplace tables; differentiable.

    Args:
        x: distances from the mean, any shape.
        row: of the tables without fractions, a real number, broadcastable.
    """
    inverse = torch.exp((-_FIRST_SCALE - row / _ROWS_PER_OCTAVE) * _LOG2)
    near = (0.5 - x.abs()) * inverse
    # Beyond 1/2 there is one tail of the distribution, otherwise the mass on both sides of 0.
    beyond = -near.clamp(max=0.0) - torch.log(-torch.expm1(-inverse)) + _LOG2
    inside = near.clamp(min=0.0)
    within = -torch.log1p(-0.5 * (torch.exp(-inside) + torch.exp(inside - inverse)) + 1e-9)
    return torch.where(near < 0, beyond, within) / _LOG2


class State(nn.Module):
    """Weights and grids of real numbers with their steps and priors."""

    def __init__(self, layout: Layout, frames: int, base: Tensor | None, rated: bool) -> None:
        """Begin a fit.

        Args:
            layout: of the networks.
            frames: of the group of pictures.
            base: weights, float32 [layout.count], that the coded ones are differences from.
            rated: whether bits count in the fit; otherwise steps are chosen after it.
        """
        super().__init__()
        self.layout, self.frames, self.base, self.rated = layout, frames, base, rated
        start = initial(layout, torch.Generator().manual_seed(0))
        self.sizes = [x.numel() for x in start.values()]
        mean = torch.stack([x.abs().mean() for x in start.values()]).clamp(min=_LEAST_MEAN)
        flat = torch.cat([x.reshape(-1) for x in start.values()])
        self.weights = nn.Parameter(flat if base is None else base.clone())
        self.steps = nn.Parameter(torch.log2(mean / _FIRST_STEPS))
        self.rows = nn.Parameter(
            torch.full_like(mean, (math.log2(_FIRST_STEPS) - _FIRST_SCALE) * _ROWS_PER_OCTAVE)
        )
        self.encoder = Encoder(layout) if layout.arch == "hnerv" else None
        own = [] if self.encoder else range(frames)
        self.grids = nn.ModuleList(
            nn.ParameterList(torch.zeros(c, *size) for c, size in self._levels()) for _ in own
        )
        self.gains = _per_channel(layout, math.log2(_FIRST_GAIN) if rated else 0.0)
        self.follow = _per_channel(layout, _FIRST_FOLLOW)
        self.grid_rows = _per_channel(layout, _FIRST_ROW)
        lift = _LIFT_OF_CLASS * torch.arange(CLASSES).repeat(2, 1)
        self.lift = nn.ParameterList(lift.clone() for _ in layout.grids)
        self._segment = torch.repeat_interleave(torch.arange(len(mean)), torch.tensor(self.sizes))
        self.noise = torch.Generator().manual_seed(1)

    def _levels(self) -> list[tuple[int, tuple[int, int]]]:
        return list(zip(self.layout.grids, self.layout.sizes, strict=True))

    def drawn(self, t: int, x: Tensor, hard: bool) -> Drawn:
        """What frame t is drawn from, with noise or rounding in the place of the integers.

        Args:
            t: the frame.
            x: it, packed, [1, outputs, H, W].
            hard: round, with the gradient of no rounding, rather than add noise.
        """
        nothing = torch.zeros(())
        if not self.rated:
            grids = self.plain_grids(t, x)
            return Drawn(by_name(self.layout, self.weights), grids, (nothing, nothing))
        steps = torch.exp2(self.steps)[self._segment]
        away = self.weights if self.base is None else self.weights - self.base
        units = self._rounded(away / steps, hard)
        weights = units * steps if self.base is None else self.base + units * steps
        bits = laplace_bits(units, self.rows[self._segment]).sum()
        if self.encoder:
            values = [self._rounded(v, hard) for v in self.plain_grids(t, x)]
            rate = laplace_bits(values[-1], self.grid_rows[-1]).sum()
        else:
            values, rate = self._own_grids(t, hard)
        scaled = [v * torch.exp2(gain) for v, gain in zip(values, self.gains, strict=True)]
        return Drawn(by_name(self.layout, weights), scaled, (bits, rate * self.frames))

    def _rounded(self, x: Tensor, hard: bool) -> Tensor:
        if hard:
            return x + (torch.round(x) - x).detach()
        return x + torch.rand(x.shape, generator=self.noise) - 0.5

    def own(self, t: int) -> list[nn.Parameter]:
        """The grids of frame t where each frame has its own."""
        return list(self.grids[t].parameters())

    def plain_grids(self, t: int, x: Tensor) -> list[Tensor]:
        """The grids of frame t, [1, C, H, W] of each level, in steps and not rounded."""
        if self.encoder is None:
            return [y[None] for y in self.own(t)]
        grids = [torch.zeros(1, 0, *size) for size in self.layout.sizes]
        grids[-1] = self.encoder(x).float()
        return grids

    def _own_grids(self, t: int, hard: bool) -> tuple[list[Tensor], Tensor]:
        """The grids of a frame, and half of its bits and of those of the next, which follow it."""
        values = [self._rounded(y, hard) if y.numel() else y for y in self.own(t)]
        whole = {n: self._whole(n) for n in range(t - 2, t + 2)}
        misses = {n: self._misses(whole[n], whole[n - 1]) for n in range(t - 1, t + 2)}
        rate = 0.5 * self._rate(misses[t - 1], misses[t], values, whole[t - 1])
        if whole[t + 1]:
            rate = rate + 0.5 * self._rate(misses[t], misses[t + 1], whole[t + 1], values)
        return [v[None] for v in values], rate

    def _whole(self, t: int) -> list[Tensor]:
        """The grids of a frame as integers; none before the first frame and behind the last."""
        if not 0 <= t < self.frames:
            return []
        return [torch.round(y.detach()) for y in self.own(t)]

    def _misses(self, values: list[Tensor], before: list[Tensor]) -> list[Array | None]:
        """How far the values of each level are from what is expected, over the channels."""
        made: list[Array | None] = [None] * len(self.layout.grids)
        for level, y in enumerate(values):
            if len(y):
                follow = self.follow[level].detach()
                mean = torch.round(follow * before[level]) if before else torch.zeros(())
                made[level] = (y - mean).abs().sum(0).int().numpy()
        return made

    def _rate(
        self,
        around: list[Array | None],
        here: list[Array | None],
        values: list[Tensor],
        before: list[Tensor],
    ) -> Tensor:
        """Bits of a frame's grids, given the misses of the frame before and its own."""
        bits = torch.zeros(())
        for level, y in enumerate(values):
            if not len(y):
                continue
            above = here[level + 1] if level + 1 < len(here) else None
            classes = inr_grids.classes_of(around[level], above, self.layout.sizes[level])
            ones = nn.functional.one_hot(torch.from_numpy(classes).long().flatten(), CLASSES)
            lift = (ones.float() @ self.lift[level][1 if before else 0]).view(y.shape[1:])
            off = y - self.follow[level] * before[level] if before else y
            row = (self.grid_rows[level] + lift).clamp(0, SCALES - 1)
            bits = bits + laplace_bits(off, row).sum()
        return bits

    @torch.no_grad()
    def begin_grids(self, pyramid: list[Tensor]) -> None:
        """Put into the grids what is new of the frames at each level, so that it is not learned.

        Args:
            pyramid: packed frames of each level, [T, outputs, H, W].
        """
        units = _FIRST_UNITS if self.rated else _FIRST_UNITS * _FIRST_GAIN
        for level, x in enumerate(pyramid):
            new = x
            if level + 1 < len(pyramid):
                new = x - double(pyramid[level + 1], self.layout.sizes[level])
            planes = torch.cat([new[:, :4].mean(1, keepdim=True), new[:, 4:]], 1)
            for t in range(len(self.grids)):
                own = self.own(t)
                count = min(len(own[level]), planes.shape[1])
                own[level][:count] = units * planes[t, :count]

    def go_on_from(self, other: State) -> None:
        """Begin with the weights of another fit, and with its grids if it is of as many frames."""
        with torch.no_grad():
            mine, found = dict(self.named_parameters()), dict(other.named_parameters())
            grids = self.frames == other.frames
            for name, value in mine.items():
                if name in found and (grids or not name.startswith("grids.")):
                    value.copy_(found[name])


def _per_channel(layout: Layout, value: float) -> nn.ParameterList:
    return nn.ParameterList(torch.full((c, 1, 1), value) for c in layout.grids)
