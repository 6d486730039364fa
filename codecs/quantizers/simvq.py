"""SimVQ: a frozen random codebook and one linear map that is learned.

Zhu et al., "Addressing Representation Collapse in Vector Quantized Models with One Linear Layer",
2024 (arXiv:2411.02038): one code that is used moves all codes, so that none stays behind.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .quantizer import Quantized, Quantizer, from_rows, nearest, straight_through, to_rows


class SimVQ(Quantizer):
    """The codes are `frozen @ linear`; `codebook_loss` moves the map, `commitment_loss` x."""

    frozen: Tensor  # float [K, dim]

    def __init__(self, dim: int, codebook_size: int) -> None:
        """Draw the codebook; the map starts as the identity."""
        super().__init__(dim, (codebook_size,))
        self.register_buffer("frozen", torch.randn(codebook_size, dim) * dim**-0.5)
        self.linear = nn.Parameter(torch.eye(dim))

    @property
    def codebook(self) -> Tensor:
        """Float [K, dim], with its gradient."""
        return self.frozen @ self.linear

    def forward(self, x: Tensor) -> Quantized:
        """See Quantizer."""
        self.check_x(x)
        with torch.autocast(x.device.type, enabled=False):
            rows, codebook = to_rows(x), self.codebook
            index = nearest(rows.detach(), codebook.detach())
            hats = codebook[index]
        losses = {
            "commitment_loss": F.mse_loss(rows, hats.detach()),
            "codebook_loss": F.mse_loss(hats, rows.detach()),
        }
        x_hat = straight_through(from_rows(rows, x), from_rows(hats, x))
        return Quantized(x_hat, from_rows(index[:, None], x), losses)

    def encode(self, x: Tensor) -> Tensor:
        """See Quantizer."""
        self.check_x(x)
        return from_rows(nearest(to_rows(x), self.codebook)[:, None], x)

    def decode(self, codes: Tensor) -> Tensor:
        """See Quantizer."""
        self.check_codes(codes)
        return from_rows(self.codebook[codes.flatten()], codes)
