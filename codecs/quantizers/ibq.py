"""IBQ: the gradient goes through the index, to all codes at once.

Shi et al., "Scalable Image Tokenization with Index Backpropagation Quantization", 2024
(arXiv:2412.02692): the code is the argmax of x . codebook; its one-hot vector takes the gradient of
the softmax, so that every code moves with every vector.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .lfq import entropy_loss
from .quantizer import Quantized, Quantizer, from_rows, to_rows


class IBQ(Quantizer):
    """x_hat = one_hot(argmax(x . codebook)) @ codebook; memory grows with N times K in training."""

    def __init__(self, dim: int, codebook_size: int) -> None:
        """Draw the codebook."""
        super().__init__(dim, (codebook_size,))
        self.codebook = nn.Parameter(torch.randn(codebook_size, dim) * dim**-0.5)

    def forward(self, x: Tensor) -> Quantized:
        """See Quantizer; the gradient of x_hat reaches x through the softmax."""
        self.check_x(x)
        with torch.autocast(x.device.type, enabled=False):
            rows = to_rows(x)
            logits = rows @ self.codebook.t()
            index = logits.argmax(1)
            soft = logits.softmax(1)
            hard = F.one_hot(index, self.codebook_size) + soft - soft.detach()
            hats = hard @ self.codebook
        fixed = self.codebook[index]
        losses = {
            "commitment_loss": F.mse_loss(rows, fixed.detach()),
            "codebook_loss": F.mse_loss(hats, rows.detach()),
            "entropy_loss": entropy_loss(logits[None]),
        }
        return Quantized(from_rows(hats, x), from_rows(index[:, None], x), losses)

    def encode(self, x: Tensor) -> Tensor:
        """See Quantizer."""
        self.check_x(x)
        return from_rows((to_rows(x) @ self.codebook.t()).argmax(1)[:, None], x)

    def decode(self, codes: Tensor) -> Tensor:
        """See Quantizer."""
        self.check_codes(codes)
        return from_rows(self.codebook[codes.flatten()], codes)
