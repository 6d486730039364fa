"""LFQ: one bit to each channel, no codebook.

Yu et al., "Language Model Beats Diffusion: Tokenizer is Key to Visual Generation", ICLR 2024
(arXiv:2310.05737): the code is the number whose bits are the signs of x.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from .quantizer import Quantized, Quantizer, from_rows, straight_through, to_rows


class LFQ(Quantizer):
    """x_hat is -1 or 1 in each of `dim` channels; 2 ** dim codes.

    `entropy_loss` wants each bit sure and all of them balanced; it takes the bits as independent,
    which a quantizer of many bits has to do.
    """

    def __init__(self, dim: int) -> None:
        """Take the number of bits, at most 62."""
        if not 1 <= dim <= 62:
            raise ValueError(f"dim is {dim}, legal are 1 to 62: a code is an int64")
        super().__init__(dim, (1 << dim,))

    def forward(self, x: Tensor) -> Quantized:
        """See Quantizer."""
        self.check_x(x)
        hats = torch.where(x > 0, 1.0, -1.0).to(x)
        logits = torch.stack((2 * to_rows(x).t(), -2 * to_rows(x).t()), 2)  # [dim, N, 2]
        losses = {
            "commitment_loss": F.mse_loss(x, hats),
            "entropy_loss": entropy_loss(logits),
        }
        return Quantized(straight_through(x, hats), self.encode(x), losses)

    def encode(self, x: Tensor) -> Tensor:
        """See Quantizer."""
        self.check_x(x)
        bits = (to_rows(x) > 0).long() << torch.arange(self.dim, device=x.device)
        return from_rows(bits.sum(1, keepdim=True), x)

    def decode(self, codes: Tensor) -> Tensor:
        """See Quantizer."""
        self.check_codes(codes)
        bits = codes.flatten()[:, None] >> torch.arange(self.dim, device=codes.device) & 1
        return from_rows((2 * bits - 1).float(), codes)


def entropy_loss(logits: Tensor) -> Tensor:
    """Mean entropy of each choice minus entropy of the mean choice, in nats.

    Args:
        logits: float [independent choices, N, options]; summed over the first axis.
    """
    log_p = logits.log_softmax(2)
    each = -(log_p.exp() * log_p).sum(2).mean(1)
    mean = log_p.exp().mean(1)
    together = -torch.special.xlogy(mean, mean).sum(1)
    loss: Tensor = (each - together).sum()
    return loss
