"""Orthonormal opponent-colour block DCT as one matrix: where a linear transform starts."""

import math

import torch
from torch import Tensor


def opponent_matrix() -> Tensor:
    """Orthonormal RGB -> (luma, red-blue, green-magenta), float32 [3, 3]."""
    return torch.tensor(
        [
            [1 / math.sqrt(3), 1 / math.sqrt(3), 1 / math.sqrt(3)],
            [1 / math.sqrt(2), 0.0, -1 / math.sqrt(2)],
            [-1 / math.sqrt(6), 2 / math.sqrt(6), -1 / math.sqrt(6)],
        ]
    )


def dct_matrix(size: int) -> Tensor:
    """Orthonormal DCT-II (Ahmed, Natarajan and Rao, 1974), float32 [frequency, sample]."""
    n = torch.arange(size, dtype=torch.float64)
    basis = torch.cos(math.pi / size * (n[None, :] + 0.5) * n[:, None]) * math.sqrt(2 / size)
    basis[0] /= math.sqrt(2)
    return basis.float()


def opponent_dct(
    size: int, keep: tuple[int, int, int], skip: tuple[int, int, int] = (0, 0, 0)
) -> Tensor:
    """The block transform of `size` x `size` RGB pixels that keeps the lowest frequencies.

    Args:
        size: side of a block in pixels.
        keep: how many coefficients to keep of luma and of the two chroma channels, lowest
            frequency (u + v, then u) first.
        skip: how many of these to leave out at the low end.

    Returns:
        float32 [sum(keep) - sum(skip), 3 * size * size] with orthonormal rows; columns are ordered
        as `pixel_unshuffle` lays a block out: channel, row, column.
    """
    basis = dct_matrix(size)
    order = sorted(range(size * size), key=lambda i: (i // size + i % size, i // size))
    blocks = torch.einsum("ui,vj->uvij", basis, basis).reshape(size * size, size * size)[order]
    colour = opponent_matrix()
    rows = [
        torch.einsum("r,kp->krp", colour[channel], blocks[first:last]).flatten(1)
        for channel, (first, last) in enumerate(zip(skip, keep, strict=True))
    ]
    return torch.cat(rows)
