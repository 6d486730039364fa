"""Categorical entropy model for codes: a binary tree of integer decisions.

A code of K = 2 ** b values is b decisions from the root of a balanced tree to a leaf, highest bit
first (Morin and Bengio, "Hierarchical Probabilistic Neural Network Language Model", 2005). Node n
(heap order: the root is 1, the children of n are 2 n and 2 n + 1) has weights w[n] and a bias; with
the features h of a position, its logit w[n] . h + bias[n] says how probable bit 1 is. In the stream
all of it is integers: the logit picks one of `ROWS` frozen tables, so that the parse is the same on
every machine, and the coder is the one of all other models. A softmax over K values would have to
turn K floats into one table for each symbol on the decoder.

`tree_order` sorts a codebook so that similar codes share their leading bits.
"""

from __future__ import annotations

import math

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...kernels.errors import BitstreamError
from ..coder import Decoder, Encoder
from ..tables import TableSet

FEATURE_STEP = 1 / 16  # value of one unit of the int8 features
WEIGHT_STEP = 1 / 32  # value of one unit of the int8 weights
ROWS = 255
MIDDLE = 127  # the row of probability one half
_SHIFT = 5  # units of a product, FEATURE_STEP * WEIGHT_STEP, to a row: a row is 1/16 of a nat
ROW_STEP = FEATURE_STEP * WEIGHT_STEP * 2**_SHIFT
_PRECISION = 16


def freeze() -> TableSet:
    """The integer tables of one decision, row r for the logit (r - MIDDLE) * ROW_STEP.

    To be called when a model is frozen and kept with its weights, never at load. An escape, which
    no encoder writes, takes 2**-16 of each row.
    """
    rows = (np.arange(ROWS) - MIDDLE) * ROW_STEP
    return TableSet.binary(1 / (1 + np.exp(-rows)), _PRECISION)


def tree_order(codebook: Tensor) -> Tensor:
    """The order in which the codes of a balanced tree follow each other.

    Each node halves its codes along the direction in which they vary most.

    Args:
        codebook: float [K, D], K a power of two.

    Returns:
        int64 [K]: `codebook[order]` is sorted.
    """
    _bits_of(len(codebook))
    groups = [torch.arange(len(codebook), device=codebook.device)]
    while len(groups[0]) > 1:
        groups = [half for group in groups for half in _halves(codebook, group)]
    return torch.cat(groups)


def _halves(codebook: Tensor, group: Tensor) -> tuple[Tensor, Tensor]:
    rows = codebook[group].double()
    rows = rows - rows.mean(0)
    direction = torch.linalg.eigh(rows.t() @ rows).eigenvectors[:, -1]
    order = group[(rows @ direction).argsort()]
    return order[: len(order) // 2], order[len(order) // 2 :]


def _bits_of(codebook_size: int) -> int:
    bits = codebook_size.bit_length() - 1
    if codebook_size < 2 or codebook_size != 1 << bits:
        raise ValueError(f"codebook size is {codebook_size}, expected a power of two, 2 or more")
    return bits


def _path(codes: Tensor, bits: int) -> tuple[Tensor, Tensor]:
    """int64 [N] -> nodes and decisions on the way to each code, both int64 [N, bits]."""
    shifts = torch.arange(bits, 0, -1, device=codes.device)
    leaf = codes[:, None] + (1 << bits)
    return leaf >> shifts, leaf >> (shifts - 1) & 1


class TreeHead(nn.Module):
    """The training form: features to the bits that codes cost, with the rounding of the frozen one.

    Attributes:
        weight: float [K, features]; row 0 is not used.
        bias: float [K].
    """

    def __init__(self, codebook_size: int, features: int) -> None:
        """Start with every code equally probable.

        Raises:
            ValueError: the codebook size is not a power of two.
        """
        super().__init__()
        self.bits = _bits_of(codebook_size)
        self.weight = nn.Parameter(torch.zeros(codebook_size, features))
        self.bias = nn.Parameter(torch.zeros(codebook_size))

    def rate_bits(self, features: Tensor, codes: Tensor) -> Tensor:
        """Estimated bits of each code, differentiable in features and weights.

        Args:
            features: float [N, features], multiples of FEATURE_STEP in [0, 127 FEATURE_STEP].
            codes: int64 [N].
        """
        nodes, decisions = _path(codes, self.bits)
        step = WEIGHT_STEP
        weight = round_ste(self.weight.clamp(-127 * step, 127 * step) / step) * step
        logits = torch.einsum("nh,nbh->nb", features, weight[nodes]) + self.bias[nodes]
        rows = round_ste((logits / ROW_STEP).clamp(-MIDDLE, MIDDLE))
        return F.softplus((1 - 2 * decisions) * rows * ROW_STEP).sum(1) / math.log(2)

    def freeze(self) -> IntegerTreeHead:
        """The integer form of the same function."""
        frozen = IntegerTreeHead(1 << self.bits, self.weight.shape[1])
        weight = (self.weight.detach() / WEIGHT_STEP).round().clamp(-127, 127)
        frozen.weight.copy_(weight.to(torch.int8))
        frozen.bias.copy_((self.bias.detach() / (FEATURE_STEP * WEIGHT_STEP)).round())
        return frozen

    @torch.no_grad()
    def thaw(self, frozen: IntegerTreeHead) -> None:
        """Take the values of a frozen head."""
        self.weight.copy_(frozen.weight * WEIGHT_STEP)
        self.bias.copy_(frozen.bias * (FEATURE_STEP * WEIGHT_STEP))


def round_ste(x: Tensor) -> Tensor:
    """Round to nearest; the gradient passes straight through."""
    return x + (x.round() - x).detach()


class IntegerTreeHead(nn.Module):
    """The frozen form: int8 features to rows of the tables, and codes to a stream and back."""

    weight: Tensor  # int8 [K, features]
    bias: Tensor  # int32 [K], units of FEATURE_STEP * WEIGHT_STEP

    def __init__(self, codebook_size: int, features: int) -> None:
        """Make an empty head; values are loaded or frozen into it."""
        super().__init__()
        self.bits = _bits_of(codebook_size)
        weight = torch.zeros(codebook_size, features, dtype=torch.int8)
        self.register_buffer("weight", weight)
        self.register_buffer("bias", torch.zeros(codebook_size, dtype=torch.int32))

    def rows(self, features: Tensor, nodes: Tensor) -> Tensor:
        """The table of a decision.

        Args:
            features: int8 [N, features].
            nodes: int64 [N] or [N, b].

        Returns:
            uint8, the shape of `nodes`.
        """
        given = features.int() if nodes.ndim == 1 else features.int()[:, None]
        logit = (self.weight[nodes].int() * given).sum(-1) + self.bias[nodes]
        row = MIDDLE + ((logit + (1 << _SHIFT - 1)) >> _SHIFT)
        return row.clamp(0, ROWS - 1).to(torch.uint8)

    def put(self, encoder: Encoder, features: Tensor, codes: Tensor) -> None:
        """Code int64 [N] with int8 features [N, features]: all first bits, then all second ..."""
        nodes, decisions = _path(codes, self.bits)
        rows = self.rows(features, nodes)
        encoder.put(decisions.t().flatten().to(torch.int16), rows.t().flatten())

    def get(self, decoder: Decoder, features: Tensor) -> Tensor:
        """The mirror of `put`: int64 [N].

        Raises:
            BitstreamError: the stream holds something that is no bit, or ends.
        """
        node = torch.ones(len(features), dtype=torch.int64)
        for _ in range(self.bits):
            decision = decoder.get(self.rows(features, node)).to(torch.int64)
            if len(decision) and not 0 <= int(decision.min()) <= int(decision.max()) <= 1:
                raise BitstreamError("a decision is neither 0 nor 1; the stream is damaged")
            node = 2 * node + decision
        return node - (1 << self.bits)
