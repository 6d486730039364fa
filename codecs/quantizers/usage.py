"""How well codebooks are used: share of codes in use, and perplexity."""

from collections.abc import Sequence

import torch
from torch import Tensor


def count_codes(codes: Tensor, codebook_sizes: Sequence[int]) -> list[Tensor]:
    """How often each code occurs.

    Args:
        codes: int64 [B, n_q, *].
        codebook_sizes: of each of the n_q codes.

    Returns:
        For each of the n_q codes the counts, int64 [codebook_size]. Counts of several batches
        may be added.
    """
    return [
        torch.bincount(codes[:, i].flatten(), minlength=size)
        for i, size in enumerate(codebook_sizes)
    ]


def usage(counts: Tensor) -> float:
    """The share of codes that occur at all, 0 to 1."""
    return float((counts > 0).double().mean())


def perplexity(counts: Tensor) -> float:
    """2 ** entropy of the codes: how many equally frequent codes would be as informative.

    >>> perplexity(torch.tensor([5, 5, 5, 5]))
    4.0
    """
    return float(2 ** entropy_bits(counts))


def entropy_bits(counts: Tensor) -> float:
    """Entropy of the codes' frequencies in bits to a code; 0 without codes."""
    p = counts.double() / counts.sum().clamp_min(1)
    return float(-(p * p.clamp_min(1e-300).log2()).sum())
