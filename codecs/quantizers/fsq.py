"""FSQ: each channel rounded to a few levels, no codebook to collapse.

Mentzer et al., "Finite Scalar Quantization: VQ-VAE Made Simple", ICLR 2024 (arXiv:2309.15505).
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from .quantizer import Quantized, Quantizer, from_rows, to_rows


class FSQ(Quantizer):
    """x_hat lies on a grid in [-1, 1]; the code counts its points, first channel fastest.

    No losses: the squashing keeps x in range, and no code can be left behind.
    """

    levels: Tensor  # int64 [dim]
    steps: Tensor  # int64 [dim]: what one level of a channel adds to the code

    def __init__(self, levels: Sequence[int]) -> None:
        """Take the levels of each channel, each at least 2, e.g. (8, 5, 5, 5) for 1000 codes.

        Raises:
            ValueError: fewer than two levels, or more codes than an int64 counts.
        """
        size = math.prod(levels)
        if not levels or min(levels) < 2 or size >= 1 << 63:
            raise ValueError(f"levels are {tuple(levels)}: at least 2 each, 2**63 codes at most")
        super().__init__(len(levels), (size,))
        steps = [math.prod(levels[:i]) for i in range(len(levels))]
        self.register_buffer("levels", torch.tensor(levels))
        self.register_buffer("steps", torch.tensor(steps))

    def forward(self, x: Tensor) -> Quantized:
        """See Quantizer; the gradient passes the rounding straight, the squashing as it is."""
        self.check_x(x)
        bounded = self._bound(to_rows(x))
        grid = bounded + (bounded.round() - bounded).detach()
        return Quantized(from_rows(self._centre(grid), x), self._codes(grid.detach(), x), {})

    def encode(self, x: Tensor) -> Tensor:
        """See Quantizer."""
        self.check_x(x)
        return self._codes(self._bound(to_rows(x)).round(), x)

    def decode(self, codes: Tensor) -> Tensor:
        """See Quantizer."""
        self.check_codes(codes)
        grid = codes.flatten()[:, None] // self.steps % self.levels
        return from_rows(self._centre(grid.float()), codes)

    def _bound(self, rows: Tensor) -> Tensor:
        """Any number -> [0, levels - 1], so that rounding reaches all levels alike."""
        return (torch.tanh(rows) + 1) / 2 * (self.levels - 1e-3) - 0.5 + 5e-4

    def _centre(self, grid: Tensor) -> Tensor:
        return 2 * grid / (self.levels - 1) - 1

    def _codes(self, grid: Tensor, x: Tensor) -> Tensor:
        return from_rows((grid.long() * self.steps).sum(1, keepdim=True), x)
