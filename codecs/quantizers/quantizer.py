"""The interface of every vector quantizer: vectors in, codes out, and back; they compose.

    x [B, dim, *] -> encode -> codes int64 [B, n_q, *] -> decode -> x_hat [B, dim, *]

`*` is any number of axes (time, rows and columns, none). A quantizer may hold others: a residual
of anything, groups of anything, a projection around anything.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor, nn


class Quantized(NamedTuple):
    """What a training pass gives.

    Attributes:
        x_hat: float [B, dim, *]; the gradient reaches x, as if nothing had been quantised unless
            the class says otherwise.
        codes: int64 [B, n_q, *].
        losses: scalars to be weighted and added by the caller: "commitment_loss" pulls x to its
            code, "codebook_loss" the code to x, "entropy_loss" makes codes sure and all used.
    """

    x_hat: Tensor
    codes: Tensor
    losses: dict[str, Tensor]


class Quantizer(nn.Module, ABC):
    """See the module.

    Attributes:
        dim: channels of x.
        codebook_sizes: how many values each of the n_q codes can take.
    """

    def __init__(self, dim: int, codebook_sizes: tuple[int, ...]) -> None:
        """Note the sizes.

        Raises:
            ValueError: one of them is not positive.
        """
        super().__init__()
        if dim < 1 or not codebook_sizes or min(codebook_sizes) < 1:
            raise ValueError(f"dim {dim} and codebook sizes {codebook_sizes} must be at least 1")
        self.dim = dim
        self.codebook_sizes = codebook_sizes

    @property
    def n_q(self) -> int:
        """Codes to a vector."""
        return len(self.codebook_sizes)

    @property
    def codebook_size(self) -> int:
        """Values that a code can take; the most where the codes differ in that."""
        return max(self.codebook_sizes)

    @abstractmethod
    def forward(self, x: Tensor) -> Quantized:
        """Quantise float [B, dim, *] with gradients; in training mode codebooks may move."""

    @abstractmethod
    def encode(self, x: Tensor) -> Tensor:
        """Float [B, dim, *] -> int64 [B, n_q, *]; changes nothing."""

    @abstractmethod
    def decode(self, codes: Tensor) -> Tensor:
        """int64 [B, n_q, *] -> float [B, dim, *].

        Raises:
            ValueError: another number of codes, or a code outside its codebook.
        """

    def check_codes(self, codes: Tensor) -> None:
        """Raise ValueError unless codes are int64 [B, n_q, *], each inside its codebook."""
        if codes.dtype != torch.int64 or codes.ndim < 2 or codes.shape[1] != self.n_q:
            raise ValueError(
                f"codes are {codes.dtype} {list(codes.shape)}, expected int64 [B, {self.n_q}, ...]"
            )
        for i, size in enumerate(self.codebook_sizes):
            part = codes[:, i]
            if part.numel() and not 0 <= int(part.min()) <= int(part.max()) < size:
                raise ValueError(
                    f"code {i} runs from {int(part.min())} to {int(part.max())}, legal are 0 to "
                    f"{size - 1}"
                )

    def check_x(self, x: Tensor) -> None:
        """Raise ValueError unless x is [B, dim, *]."""
        if x.ndim < 2 or x.shape[1] != self.dim:
            raise ValueError(f"x is {list(x.shape)}, expected [B, {self.dim}, ...]")


def to_rows(x: Tensor) -> Tensor:
    """[B, D, *] -> float32 [N, D], N = B times the product of *."""
    return x.movedim(1, -1).reshape(-1, x.shape[1]).float()


def from_rows(rows: Tensor, like: Tensor) -> Tensor:
    """[N, D] -> [B, D, *] with the other axes of `like`."""
    shape = (like.shape[0], *like.shape[2:], rows.shape[1])
    return rows.view(shape).movedim(-1, 1)


def straight_through(x: Tensor, x_hat: Tensor) -> Tensor:
    """x_hat, with the gradient going to x (Bengio et al., arXiv:1308.3432)."""
    return x + (x_hat - x).detach()


def nearest(rows: Tensor, codebook: Tensor) -> Tensor:
    """The nearest code of each vector: float [N, D], [K, D] -> int64 [N]; first of equals."""
    with torch.autocast(rows.device.type, enabled=False):
        score = codebook.square().sum(1) - 2 * rows @ codebook.t()
    return score.argmin(1)


class Parts(nn.ModuleList):
    """Quantizers inside a quantizer, with their type."""

    def __iter__(self) -> Iterator[Quantizer]:
        """Go through them."""
        return super().__iter__()  # type: ignore[return-value]


def sum_losses(parts: list[dict[str, Tensor]]) -> dict[str, Tensor]:
    """The losses of several quantizers, each kind averaged over those that have it."""
    names = dict.fromkeys(name for part in parts for name in part)
    return {n: torch.stack([part[n] for part in parts if n in part]).mean() for n in names}
