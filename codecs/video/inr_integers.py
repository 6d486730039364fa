"""The end of a fit of `video/inr`: its weights and grids as the integers of a file."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from ...entropy.models.laplace import FRACTIONS, SCALES
from ..image.fit_prior import bits_of
from .inr_grids import CLASSES, LIMIT, Array, Expectation
from .inr_state import State
from .inr_stream import MOST_FOLLOW, MOST_LIFT, MOST_WEIGHT, Grids, Networks, number_of, step_of

_POST_STEPS = 255  # of a range, where steps are chosen after the fit


def networks(state: State) -> Networks:
    """The weights; each tensor in the row of the tables where it costs least."""
    away = state.weights if state.base is None else state.weights - state.base
    tensors = torch.split(away.detach(), state.sizes)
    if state.rated:
        steps = number_of(torch.exp2(state.steps.detach()).numpy())
    else:
        steps = number_of([float(x.max() - x.min()) / _POST_STEPS for x in tensors])
    values = [_whole(x, k, MOST_WEIGHT) for x, k in zip(tensors, steps, strict=True)]
    rows = np.array([_cheapest_row(x) for x in values], np.int32)
    return Networks(steps, rows, np.concatenate(values))


def _whole(x: Tensor, k: int | Array, most: int) -> Array:
    whole: Array = np.rint(x.numpy() / step_of(k)).clip(-most, most).astype(np.int32)
    return whole


def _cheapest_row(values: Array) -> int:
    costs = [bits_of(values, np.full(values.shape, FRACTIONS * r)) for r in range(SCALES)]
    return int(np.argmin(costs))


@torch.no_grad()
def grids(state: State, x: Tensor) -> Grids:
    """The grids of all frames.

    Args:
        state: of a fit.
        x: its packed frames [T, outputs, H, W]; an encoder makes embeddings of them.
    """
    levels = range(len(state.layout.grids))
    frames = [state.plain_grids(t, x[t : t + 1]) for t in range(len(x))]
    values = [torch.cat([frame[level] for frame in frames]) for level in levels]
    if state.rated:
        gains = [number_of(torch.exp2(gain).numpy().ravel()) for gain in state.gains]
    else:
        gains = [number_of(_span(y) / _POST_STEPS) for y in values]
        steps = [torch.from_numpy(step_of(k))[:, None, None] for k in gains]
        values = [y / step for y, step in zip(values, steps, strict=True)]
    whole = [y.round().clamp(-LIMIT, LIMIT).int().numpy() for y in values]
    learned = state.rated and state.encoder is None
    expectations = [
        _learned(state, level) if learned else _independent(whole[level]) for level in levels
    ]
    return Grids(gains, expectations, [[y[t] for y in whole] for t in range(len(x))])


def _span(y: Tensor) -> npt.NDArray[np.float32]:
    """Of each channel of [T, C, H, W]."""
    span: npt.NDArray[np.float32] = (y.amax((0, 2, 3)) - y.amin((0, 2, 3))).numpy()
    return span


def _independent(values: Array) -> Expectation:
    """Of grids [T, C, H, W] that follow nothing."""
    channels = range(values.shape[1])
    rows = np.array([_cheapest_row(values[:, c]) for c in channels], np.int32)
    return Expectation(np.zeros_like(rows), rows, np.zeros((2, CLASSES), np.int32))


def _learned(state: State, level: int) -> Expectation:
    follow = _clipped(16 * state.follow[level], 0, MOST_FOLLOW).ravel()
    row = _clipped(state.grid_rows[level], 0, SCALES - 1).ravel()
    return Expectation(follow, row, _clipped(state.lift[level], -MOST_LIFT, MOST_LIFT))


def _clipped(x: Tensor, least: int, most: int) -> Array:
    whole: Array = torch.round(x).clamp(least, most).int().numpy()
    return whole
