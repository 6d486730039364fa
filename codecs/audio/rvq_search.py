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

_CUT = 16  # pieces of a row of scores


class Searcher:
    """Finds the codes of vectors."""

    def __init__(self, codebooks: Sequence[Tensor]) -> None:
        """Take the codebooks of the stages, float [K, D] each."""
        self._codebooks = codebooks
        # (r, 1, |r|^2) times (-2 c, |c|^2, 1) is |r - c|^2: one product, and no pass over it after.
        parts = [
            (-2 * c, c.square().sum(1, keepdim=True), c.new_ones(len(c), 1)) for c in codebooks
        ]
        self._tables = [torch.cat(part, 1).t().contiguous() for part in parts]

    def find(self, x: Tensor, stages: int, beam: int) -> Tensor:
        """Codes of vectors, for every number of stages up to one.

        Args:
            x: float [N, D].
            stages: at most.
            beam: rows of codes that are kept; 1 is the greedy choice.

        Returns:
            A tree, int16 [2, stages, beam, N]: the code of each kept row in each stage, best row
            first, and which row of the stage before it follows. `trace` reads it.
        """
        count, dim = x.shape
        tree = torch.zeros(2, stages, beam, count, dtype=torch.int16)
        items = torch.arange(count)[:, None]
        rest = x[:, None]  # [N, rows, D]
        error = x.square().sum(1, keepdim=True)  # [N, rows]
        for stage, codebook in enumerate(self._codebooks[:stages]):
            rows, size = rest.shape[1], len(codebook)
            known = torch.cat([rest, torch.ones_like(error)[..., None], error[..., None]], 2)
            score = known.view(-1, dim + 2) @ self._tables[stage]
            score = score.view(count, rows * size)
            best = _smallest(score, min(beam, rows * size))
            error = score.gather(1, best)
            parent = best // size
            code = best - parent * size
            rest = rest[items, parent] - codebook[code]
            tree[0, stage, : best.shape[1]] = code.t()
            tree[1, stage, : best.shape[1]] = parent.t()
        return tree


def _smallest(score: Tensor, count: int) -> Tensor:
    """Where the smallest so many of each row are, in order: float [N, W] -> int64 [N, count].

    They are in the `count` columns that have the smallest minima when a row is cut into _CUT pieces
    that lie below each other: two short searches instead of a long one.
    """
    if count == 1:
        return score.argmin(1, keepdim=True)
    width = score.shape[1] // _CUT
    if width < count or score.shape[1] % _CUT:
        return score.topk(count, 1, largest=False).indices
    pieces = score.view(len(score), _CUT, width)
    columns = pieces.amin(1).topk(count, 1, largest=False).indices
    likely = pieces.gather(2, columns[:, None].expand(-1, _CUT, -1)).flatten(1)
    best = likely.topk(count, 1, largest=False).indices
    return best // count * width + columns.gather(1, best % count)


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
