"""The token prior of `image/tokens`: what a code probably is, given the codes around it.

Each level is parsed in four passes over a lattice, (even, even), (odd, odd), (even, odd), (odd,
even) rows and columns (He et al., "Checkerboard Context Model", CVPR 2021, twice over). A position
sees the codes of the lower levels around it, and those of its own level from earlier passes. Every
code stands for a small int8 vector; three integer convolutions make features of them, and a binary
tree of integer decisions (`entropy/models/categorical.py`) makes tables of the features. No float
comes near the parse. Tiles know nothing of each other here.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import torch
from torch import Tensor, nn

from ...entropy.coder import Decoder, Encoder
from ...entropy.models.categorical import IntegerTreeHead, TreeHead
from ..transforms.integer import ACTIVATION_STEP, IntegerConv2d, QuantConv2d, round_ste

EMBEDDING = 16  # channels of a code
FEATURES = 64
PASSES = ((0, 0), (1, 1), (0, 1), (1, 0))  # row and column, modulo 2
_KNOWN = 16  # what an int8 plane says where a code is known: 1 in units of ACTIVATION_STEP


def inputs_of(level: int) -> int:
    """Channels that the network of a level sees: its own and lower codes, and which are known."""
    return EMBEDDING * (level + 1) + 1


def pass_numbers(h: int, w: int) -> Tensor:
    """In which pass each position is parsed, int64 [h, w]."""
    numbers = torch.empty(h, w, dtype=torch.int64)
    for number, (row, column) in enumerate(PASSES):
        numbers[row::2, column::2] = number
    return numbers


class PriorLevel(nn.Module):
    """The training form of one level: its codes' vectors, three layers and the tree."""

    def __init__(self, level: int, codebook_size: int) -> None:
        """Start with every code equally probable."""
        super().__init__()
        self.embedding = nn.Parameter(torch.randn(codebook_size, EMBEDDING))
        self.first = QuantConv2d(inputs_of(level), FEATURES, 3, True, ACTIVATION_STEP)
        self.second = QuantConv2d(FEATURES, FEATURES, 3, True, ACTIVATION_STEP)
        self.third = QuantConv2d(FEATURES, FEATURES, 1, True, ACTIVATION_STEP)
        self.head = TreeHead(codebook_size, FEATURES)

    def embed(self, codes: Tensor) -> Tensor:
        """int64 [B, h, w] -> float [B, EMBEDDING, h, w], multiples of ACTIVATION_STEP."""
        table = round_ste((self.embedding / ACTIVATION_STEP).clamp(-127, 127)) * ACTIVATION_STEP
        return table[codes].movedim(-1, 1)

    def features(self, planes: Tensor) -> Tensor:
        """Float [B, inputs, h, w] -> [B, h, w, FEATURES]."""
        return self.third(self.second(self.first(planes))).movedim(1, -1)  # type: ignore[no-any-return]

    def freeze(self, frozen: IntegerPriorLevel) -> None:
        """Put the integer form of the same function, up to a rounding, into `frozen`."""
        table = (self.embedding.detach() / ACTIVATION_STEP).round().clamp(-127, 127)
        frozen.embedding.copy_(table.to(torch.int8))
        frozen.first.load_state_dict(self.first.freeze().state_dict())
        frozen.second.load_state_dict(self.second.freeze().state_dict())
        frozen.third.load_state_dict(self.third.freeze().state_dict())
        frozen.head.load_state_dict(self.head.freeze().state_dict())

    def thaw(self, frozen: IntegerPriorLevel) -> None:
        """Take the values of a frozen level, which `freeze` turns into the same again."""
        self.embedding.data.copy_(frozen.embedding * ACTIVATION_STEP)
        self.first.thaw(frozen.first)
        self.second.thaw(frozen.second)
        self.third.thaw(frozen.third)
        self.head.thaw(frozen.head)


class IntegerPriorLevel(nn.Module):
    """The frozen form of one level."""

    embedding: Tensor  # int8 [K, EMBEDDING]

    def __init__(self, level: int, codebook_size: int) -> None:
        """Make empty layers."""
        super().__init__()
        table = torch.zeros(codebook_size, EMBEDDING, dtype=torch.int8)
        self.register_buffer("embedding", table)
        self.first = IntegerConv2d(inputs_of(level), FEATURES, 3, relu=True)
        self.second = IntegerConv2d(FEATURES, FEATURES, 3, relu=True)
        self.third = IntegerConv2d(FEATURES, FEATURES, 1, relu=True)
        self.head = IntegerTreeHead(codebook_size, FEATURES)

    def features(self, lower: list[Tensor], own: Tensor, known: Tensor) -> Tensor:
        """What to predict codes from, int8 [h, w, FEATURES].

        Args:
            lower: vectors of lower levels, int8 [1, EMBEDDING, h, w] each.
            own: codes of this level, int64 [h, w]; those that are not known are not looked at.
            known: bool [h, w].
        """
        vectors = self.embedding[own].movedim(-1, 0) * known
        planes = (*lower, vectors[None], known[None, None].to(torch.int8) * _KNOWN)
        features: Tensor = self.third(self.second(self.first(torch.cat(planes, 1))))
        return features[0].movedim(0, -1)


class TokenPrior(nn.Module):
    """The training form: codes to the bits they cost, with the rounding of the frozen one."""

    def __init__(self, codebook_sizes: Sequence[int]) -> None:
        """Make the levels; level 0 has half the resolution of the others."""
        super().__init__()
        self.codebook_sizes = tuple(codebook_sizes)
        self.levels = nn.ModuleList(PriorLevel(*pair) for pair in enumerate(codebook_sizes))

    def level(self, number: int) -> PriorLevel:
        """One level."""
        return cast(PriorLevel, self.levels[number])

    def rate_bits(self, codes: Sequence[Tensor], level: int, number: Tensor) -> Tensor:
        """Estimated bits of the codes of one pass of a level, all items together [N].

        Args:
            codes: of all levels, int64 [B, h, w] each (h and w halved for level 0).
            level: which to price.
            number: pass of each item, int64 [B].
        """
        own, model = codes[level], self.level(level)
        passes = pass_numbers(*own.shape[1:]).to(own.device)
        known = (passes < number[:, None, None]).float()[:, None]
        lower = [_to_grid(self.level(i).embed(codes[i]), i, level) for i in range(level)]
        features = model.features(torch.cat((*lower, model.embed(own) * known, known), 1))
        here = passes == number[:, None, None]
        return model.head.rate_bits(features[here], own[here])

    def freeze(self) -> IntegerTokenPrior:
        """The integer form of the same function, up to one rounding of its multipliers."""
        frozen = IntegerTokenPrior(self.codebook_sizes)
        for i in range(len(self.levels)):
            self.level(i).freeze(frozen.level(i))
        return frozen

    def thaw(self, frozen: IntegerTokenPrior) -> None:
        """Take the values of a frozen prior, which `freeze` turns into the same again."""
        for i in range(len(self.levels)):
            self.level(i).thaw(frozen.level(i))


class IntegerTokenPrior(nn.Module):
    """The frozen form, which encoder and decoder run."""

    def __init__(self, codebook_sizes: Sequence[int]) -> None:
        """Make empty levels."""
        super().__init__()
        self.codebook_sizes = tuple(codebook_sizes)
        self.levels = nn.ModuleList(IntegerPriorLevel(*pair) for pair in enumerate(codebook_sizes))

    def level(self, number: int) -> IntegerPriorLevel:
        """One level."""
        return cast(IntegerPriorLevel, self.levels[number])

    def put(self, encoder: Encoder, codes: Sequence[Tensor]) -> None:
        """Code the last of these levels, given those before it, int64 [h, w] each."""
        own, model = codes[-1], self.level(len(codes) - 1)
        passes, lower = pass_numbers(*own.shape), self._lower(codes[:-1])
        for number in range(len(PASSES)):
            here = passes == number
            features = model.features(lower, own, passes < number)
            model.head.put(encoder, features[here], own[here])

    def get(self, decoder: Decoder, lower: Sequence[Tensor], shape: tuple[int, int]) -> Tensor:
        """The mirror of `put`: the next level, int64 `shape`, given those before it.

        Raises:
            BitstreamError: the bytes are not a stream of such codes.
        """
        own, model = torch.zeros(shape, dtype=torch.int64), self.level(len(lower))
        passes, vectors = pass_numbers(*shape), self._lower(lower)
        for number in range(len(PASSES)):
            here = passes == number
            features = model.features(vectors, own, passes < number)
            own[here] = model.head.get(decoder, features[here])
        return own

    def _lower(self, codes: Sequence[Tensor]) -> list[Tensor]:
        """Vectors of lower levels at the positions of the next, int8 [1, EMBEDDING, h, w]."""
        return [
            _to_grid(self.level(i).embedding[part].movedim(-1, 0)[None], i, len(codes))
            for i, part in enumerate(codes)
        ]


def _to_grid(vectors: Tensor, level: int, of: int) -> Tensor:
    """[B, C, h, w] of a level at the positions of level `of`: those of level 0 are repeated."""
    if level == 0 and of > 0:
        return vectors.repeat_interleave(2, 2).repeat_interleave(2, 3)
    return vectors
