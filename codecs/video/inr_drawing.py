"""Frames from the integers of a group of pictures of `video/inr`."""

from __future__ import annotations

import torch
from torch import Tensor

from .inr_networks import Layout, draw, times_of
from .inr_stream import Grids, by_name, step_of


class Drawing:
    """A group of pictures that has been parsed: any frame of it can be drawn."""

    def __init__(self, layout: Layout, weights: Tensor, grids: Grids) -> None:
        """Take weights, float32 [layout.count], and grids."""
        self._layout, self._params = layout, by_name(layout, weights)
        self._grids = grids.frames
        self._gains = [torch.from_numpy(step_of(k))[:, None, None] for k in grids.gains]

    @torch.no_grad()
    def frame(self, t: int, level: int = 0) -> Tensor:
        """Frame t, packed, float32 [outputs, H, W] around 0, at 1 / 2^level of the size."""
        values = zip(self._grids[t], self._gains, strict=True)
        grids = [(torch.from_numpy(v).float() * gain)[None] for v, gain in values]
        time = times_of(len(self._grids))[t : t + 1]
        return draw(self._layout, self._params, grids, time, level)[0][0]
