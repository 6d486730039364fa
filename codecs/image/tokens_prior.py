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


class TokenPrior(nn.Module):
    """The training form: codes to the bits they cost, with the rounding of the frozen one."""

    def __init__(self, codebook_sizes: Sequence[int]) -> None:
        """Make a network for each level; level 0 has half the resolution of the others."""
        super().__init__()
        self.codebook_sizes = tuple(codebook_sizes)
        self.embeddings = nn.ParameterList(
            nn.Parameter(torch.randn(size, EMBEDDING)) for size in codebook_sizes
        )
        step = ACTIVATION_STEP
        self.nets = nn.ModuleList(
            nn.Sequential(
                QuantConv2d(inputs_of(level), FEATURES, 3, True, step),
                QuantConv2d(FEATURES, FEATURES, 3, True, step),
                QuantConv2d(FEATURES, FEATURES, 1, True, step),
            )
            for level in range(len(codebook_sizes))
        )
        self.heads = nn.ModuleList(TreeHead(size, FEATURES) for size in codebook_sizes)

    def rate_bits(self, levels: Sequence[Tensor], level: int, number: Tensor) -> Tensor:
        """Estimated bits of the codes of one pass of a level, all items together [N].

        Args:
            levels: codes of all levels, int64 [B, h, w] each (h and w halved for level 0).
            level: which to price.
            number: pass of each item, int64 [B].
        """
        own = levels[level]
        passes = pass_numbers(*own.shape[1:]).to(own.device)
        known = (passes < number[:, None, None]).float()[:, None]
        embedded = [self._embed(levels[i], i, level) for i in range(level + 1)]
        embedded[level] = embedded[level] * known
        features = self.nets[level](torch.cat((*embedded, known), 1))
        here = passes == number[:, None, None]
        head = self.heads[level]
        assert isinstance(head, TreeHead)
        return head.rate_bits(features.movedim(1, -1)[here], own[here])

    def _embed(self, codes: Tensor, level: int, of: int) -> Tensor:
        table = self.embeddings[level] / ACTIVATION_STEP
        vectors = (round_ste(table.clamp(-127, 127)) * ACTIVATION_STEP)[codes].movedim(-1, 1)
        return _to_grid(vectors, level, of)

    def freeze(self) -> IntegerTokenPrior:
        """The integer form of the same function, up to one rounding of its multipliers."""
        frozen = IntegerTokenPrior(self.codebook_sizes)
        for level, net in enumerate(self.nets):
            table = (self.embeddings[level].detach() / ACTIVATION_STEP).round().clamp(-127, 127)
            frozen.embedding(level).copy_(table.to(torch.int8))
            layers = nn.ModuleList(layer.freeze() for layer in net)  # type: ignore[union-attr, operator]
            frozen.nets[level].load_state_dict(layers.state_dict())
            head = self.heads[level].freeze()  # type: ignore[operator, union-attr]
            frozen.heads[level].load_state_dict(head.state_dict())
        return frozen

    def thaw(self, frozen: IntegerTokenPrior) -> None:
        """Take the values of a frozen prior, which `freeze` turns into the same again."""
        for level, net in enumerate(self.nets):
            self.embeddings[level].data.copy_(frozen.embedding(level) * ACTIVATION_STEP)
            for layer, integer in zip(net, frozen.nets[level], strict=True):  # type: ignore[arg-type]
                layer.thaw(integer)
            self.heads[level].thaw(frozen.heads[level])  # type: ignore[operator, union-attr]


class IntegerTokenPrior(nn.Module):
    """The frozen form, which encoder and decoder run."""

    def __init__(self, codebook_sizes: Sequence[int]) -> None:
        """Make empty networks."""
        super().__init__()
        self.codebook_sizes = tuple(codebook_sizes)
        for level, size in enumerate(codebook_sizes):
            self.register_buffer(
                f"embedding_{level}", torch.zeros(size, EMBEDDING, dtype=torch.int8)
            )
        self.nets = nn.ModuleList(
            nn.Sequential(
                IntegerConv2d(inputs_of(level), FEATURES, 3, relu=True),
                IntegerConv2d(FEATURES, FEATURES, 3, relu=True),
                IntegerConv2d(FEATURES, FEATURES, 1, relu=True),
            )
            for level in range(len(codebook_sizes))
        )
        self.heads = nn.ModuleList(IntegerTreeHead(size, FEATURES) for size in codebook_sizes)

    def embedding(self, level: int) -> Tensor:
        """Vectors of the codes of a level, int8 [K, EMBEDDING]."""
        table: Tensor = getattr(self, f"embedding_{level}")
        return table

    def put(self, encoder: Encoder, levels: Sequence[Tensor]) -> None:
        """Code the last of these levels, given those before it, int64 [h, w] each."""
        own, level = levels[-1], len(levels) - 1
        passes, lower = pass_numbers(*own.shape), self._planes(levels[:-1], level)
        for number in range(len(PASSES)):
            here = passes == number
            features = self._features(level, lower, own, passes < number)
            self._head(level).put(encoder, features[here], own[here])

    def get(self, decoder: Decoder, levels: Sequence[Tensor], shape: tuple[int, int]) -> Tensor:
        """The mirror of `put`: the next level, int64 `shape`, given those before it.

        Raises:
            BitstreamError: the bytes are not a stream of such codes.
        """
        level = len(levels)
        own = torch.zeros(shape, dtype=torch.int64)
        passes, lower = pass_numbers(*shape), self._planes(levels, level)
        for number in range(len(PASSES)):
            features = self._features(level, lower, own, passes < number)
            here = passes == number
            own[here] = self._head(level).get(decoder, features[here])
        return own

    def _head(self, level: int) -> IntegerTreeHead:
        head = self.heads[level]
        assert isinstance(head, IntegerTreeHead)
        return head

    def _planes(self, levels: Sequence[Tensor], of: int) -> list[Tensor]:
        """Vectors of lower levels at the positions of level `of`, int8 [1, EMBEDDING, h, w]."""
        return [
            _to_grid(self.embedding(i)[codes].movedim(-1, 0)[None], i, of)
            for i, codes in enumerate(levels)
        ]

    def _features(self, level: int, lower: list[Tensor], own: Tensor, known: Tensor) -> Tensor:
        """int8 [h, w, FEATURES]; codes of positions that are not known are not looked at."""
        vectors = self.embedding(level)[own].movedim(-1, 0) * known
        planes = (*lower, vectors[None], known[None, None].to(torch.int8) * _KNOWN)
        features: Tensor = self.nets[level](torch.cat(planes, 1))
        return features[0].movedim(0, -1)


def _to_grid(vectors: Tensor, level: int, of: int) -> Tensor:
    """[B, C, h, w] of a level at the positions of level `of`: those of level 0 are repeated."""
    if level == 0 and of > 0:
        return vectors.repeat_interleave(2, 2).repeat_interleave(2, 3)
    return vectors
