"""Codes of a residual quantizer by beam search.

Greedy choice takes the nearest code in each stage, though another may leave a residual that the
next stages hit better. The search keeps the best few rows of codes from stage to stage, the
M-algorithm (Anderson and Mohan, "Sequential coding algorithms", IEEE Trans. Commun. 1984), for RVQ
as in Babenko and Lempitsky, "Additive Quantization for Extreme Vector Compression", CVPR 2014.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def search(codebooks: Sequence[Tensor], x: Tensor, beam: int) -> Tensor:
    """Codes of vectors, for every number of stages at once.

    Args:
        codebooks: of the stages, float [K, D] each.
        x: float [N, D].
        beam: rows of codes that are kept; 1 is the greedy choice.

    Returns:
        A tree, int16 [2, stages, beam, N]: the code of each kept row in each stage, best row first,
        and which row of the stage before it follows. `trace` reads it.
    """
    count = len(x)
    codes = x.new_zeros(len(codebooks), beam, count, dtype=torch.int16)
    parents = torch.zeros_like(codes)
    rest = x[:, None]  # [N, rows, D]
    for stage, codebook in enumerate(codebooks):
        score = codebook.square().sum(1) - 2 * (rest.flatten(0, 1) @ codebook.t())
        score = score.view(count, -1, len(codebook)) + rest.square().sum(2, keepdim=True)
        kept = min(beam, score.shape[1] * len(codebook))
        best = _smallest(score.flatten(1), kept)
        parent, code = best // len(codebook), best % len(codebook)
        rest = rest.gather(1, parent[..., None].expand(-1, -1, x.shape[1])) - codebook[code]
        codes[stage, :kept], parents[stage, :kept] = code.t().short(), parent.t().short()
    return torch.stack([codes, parents])


def _smallest(score: Tensor, count: int) -> Tensor:
    """Where the smallest so many of each row are, in order: int64 [N, count]."""
    if count == 1:
        return score.argmin(1, keepdim=True)
    return score.topk(count, 1, largest=False).indices


def trace(tree: Tensor, stages: int) -> Tensor:
    """The best codes with so many stages, int64 [stages, N]."""
    codes, parents = tree.long()
    row = torch.zeros_like(codes[0, :1])
    found = []
    for stage in reversed(range(stages)):
        found.append(codes[stage].gather(0, row)[0])
        row = parents[stage].gather(0, row)
    return torch.stack(found[::-1])


def vectors(codebooks: Sequence[Tensor], codes: Tensor) -> Tensor:
    """Codes int64 [stages, N] -> sums of their vectors, float [D, N].

    Added stage by stage, so that a sum does not depend on what stands beside it.
    """
    total = torch.zeros(codes.shape[1], codebooks[0].shape[1])
    for codebook, index in zip(codebooks, codes, strict=False):
        total = total + codebook[index]
    return total.t()
