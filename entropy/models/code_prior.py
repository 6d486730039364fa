"""A causal prior of residual quantizers' codes: a softmax over each codebook, in integers.

What a code probably is follows from the codes of the frames before it and from those of earlier
codebooks in its own frame. Each code stands for a vector, at first that of its codebook, so that
the sum of a frame's vectors is about the quantised latent, and the sum so far what of it is known.
Dilated causal layers (van den Oord et al., "WaveNet", 2016) make a context of the frames before;
context and sum so far make features, whose products with a vector of each code are the logits.
Where features are a guess of the residual, that is the likelihood of a Gaussian around it.

`CodePrior` is trained, with the rounding in the loop; `IntegerCodePrior` codes. It runs wholly in
`kernels/codes.py`, network and coder together, since each code is needed for the next one.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...kernels import codes as kernel
from .categorical import round_ste

STEP = 1 / 64  # one unit of activations, embeddings and weights of codes
_LOGIT_STEP = 1 / 32  # of an octave
_HIGH = kernel.LIMIT * STEP
_MOST = 127 * STEP  # of an embedding or a weight of a code


@dataclass(frozen=True)
class Size:
    """Widths of the network, multiples of 16.

    Attributes:
        dim: of the codes' vectors.
        context: of what is known of earlier frames.
        hidden: units between context and features.
        features: of what is multiplied with the weights of codes.
        past: dilated layers; the context sees 2 ** past frames.
    """

    dim: int = 64
    context: int = 160
    hidden: int = 64
    features: int = 48
    past: int = 4


class DenseLayers(nn.Module):
    """Linear layers of equal shape, with the rounding of `kernels/codes_ref.py`."""

    def __init__(self, count: int, inputs: int, outputs: int, gain: float = 1.0) -> None:
        """Start with random weights of variance gain**2 / inputs."""
        super().__init__()
        self.weight = nn.Parameter(torch.randn(count, outputs, inputs) * gain * inputs**-0.5)
        self.bias = nn.Parameter(torch.zeros(count, outputs))

    def _step(self, i: int | slice) -> Tensor:
        return self.weight[i].detach().abs().amax(-1).clamp_min(1e-6) / 127

    def forward(self, i: int, x: Tensor, low: float = 0.0) -> Tensor:
        """Layer i of float [*, inputs], multiples of STEP, clamped from `low` on: [*, outputs]."""
        step = self._step(i)[:, None]
        y = F.linear(x, round_ste(self.weight[i] / step) * step, self.bias[i])
        return round_ste(y.clamp(low, _HIGH) / STEP) * STEP

    def freeze(self, frozen: IntegerDenseLayers) -> None:
        """Put the integer form of the same function, up to a rounding, into `frozen`."""
        step = self._step(slice(None)).double()
        shift = (14 - step.log2().floor()).clamp(1, 40)
        frozen.weight.copy_((self.weight / step[..., None]).round())
        frozen.bias.copy_((self.bias / (step * STEP)).round())
        frozen.multiplier.copy_((step * 2**shift).round())
        frozen.shift.copy_(shift)

    def thaw(self, frozen: IntegerDenseLayers) -> None:
        """Take the function of frozen layers."""
        step = frozen.multiplier.double() / 2.0 ** frozen.shift.double()
        self.weight.copy_(frozen.weight * step[..., None])
        self.bias.copy_(frozen.bias * step * STEP)


class IntegerDenseLayers(nn.Module):
    """The frozen form: buffers only."""

    weight: Tensor  # int8 [count, outputs, inputs]
    bias: Tensor  # int32 [count, outputs]
    multiplier: Tensor  # int32 [count, outputs]
    shift: Tensor  # int32 [count, outputs]

    def __init__(self, count: int, inputs: int, outputs: int) -> None:
        """Make empty layers; values are loaded or frozen into them."""
        super().__init__()
        weight = torch.zeros(count, outputs, inputs, dtype=torch.int8)
        self.register_buffer("weight", weight)
        for name in ("bias", "multiplier", "shift"):
            self.register_buffer(name, torch.ones(count, outputs, dtype=torch.int32))

    def arrays(self) -> kernel.Dense:
        """What the kernel takes."""
        return kernel.Dense(*(part.cpu().numpy() for part in self.buffers()))


class CodePrior(nn.Module):
    """The training form: codes to the bits that they cost."""

    def __init__(
        self, codebook_sizes: Sequence[int], size: Size | None = None, dropout: float = 0.0
    ) -> None:
        """Start with random vectors; `start` takes those of the codebooks.

        Args:
            codebook_sizes: powers of two.
            size: of the network.
            dropout: share of the context's and of the hidden units that training hides.
        """
        super().__init__()
        self.dropout = dropout
        self.codebook_sizes, self.size = tuple(codebook_sizes), size or Size()
        s, books, total = self.size, len(self.codebook_sizes), sum(codebook_sizes)
        self.embedding = nn.Parameter(torch.randn(total, s.dim) * 0.3)
        self.first = DenseLayers(1, s.dim, s.context)
        self.past = DenseLayers(s.past, 2 * s.context, s.context, 0.5)
        self.hidden = DenseLayers(books, s.context + s.dim, s.hidden)
        self.features = DenseLayers(books, s.context + s.dim + s.hidden, s.features, 0.5)
        self.weight = nn.Parameter(torch.randn(total, s.features) * 0.05)
        self.bias = nn.Parameter(torch.zeros(total))

    @torch.no_grad()
    def start(self, codebooks: Sequence[Tensor]) -> None:
        """Let vectors and weights of codes start as the vectors that codes stand for.

        Args:
            codebooks: float [K, D] each, D the same for all. The directions in which they vary most
                are kept.

        Raises:
            ValueError: their sizes are not those of this prior.
        """
        if tuple(map(len, codebooks)) != self.codebook_sizes:
            given = tuple(map(len, codebooks))
            raise ValueError(f"codebooks have {given} codes, expected {self.codebook_sizes}")
        rows = torch.cat(list(codebooks)).double()
        directions = torch.linalg.eigh(rows.t() @ rows).eigenvectors.flip(1)
        rows = (rows @ directions).float()
        first = rows[: self.codebook_sizes[0]].std().clamp_min(1e-12)
        self.embedding.zero_()
        kept = min(self.size.dim, rows.shape[1])
        self.embedding[:, :kept] = rows[:, :kept] / first * 0.5
        kept = min(self.size.features, rows.shape[1])
        sizes = list(self.codebook_sizes)
        for part, weight in zip(
            torch.split(rows, sizes), torch.split(self.weight, sizes), strict=True
        ):
            weight[:, :kept] = part[:, :kept] / part.std().clamp_min(1e-12) * 0.2

    def rate_bits(self, codes: Tensor, books: Sequence[int] | None = None) -> Tensor:
        """Estimated bits of codes, differentiable, with the rounding of the frozen form.

        Args:
            codes: int64 [B, k, T], of the first k codebooks.
            books: which to price; None: all k.

        Returns:
            float [B, len(books), T].
        """
        table = round_ste((self.embedding / STEP).clamp(-127, 127)) * STEP
        tables = torch.split(table, list(self.codebook_sizes))
        sums = [codes.new_zeros((), dtype=torch.float32)]
        for q, code in enumerate(codes.unbind(1)):
            sums.append(sums[-1] + F.embedding(code, tables[q]))
        context = self._context(sums.pop())
        bits = []
        for q in range(codes.shape[1]) if books is None else books:
            known = torch.cat((context, sums[q].expand(*context.shape[:2], self.size.dim)), -1)
            hidden = self._thinned(self.hidden(q, known))
            features = self.features(q, torch.cat((known, hidden), -1), -_HIGH)
            bits.append(self._bits(q, features, codes[:, q]))
        return torch.stack(bits, 1)

    def _context(self, frames: Tensor) -> Tensor:
        """Sums of frames [B, T, dim] -> what is known of those before each, [B, T, context]."""
        h: Tensor = self.first(0, _delayed(frames, 1))
        for i in range(self.size.past):
            seen = self._thinned(h)
            step = self.past(i, torch.cat((seen, _delayed(seen, 1 << i)), -1))
            h = (h + step).clamp(0, _HIGH)
        return h

    def _thinned(self, x: Tensor) -> Tensor:
        return F.dropout(x, self.dropout, self.training)

    def _bits(self, q: int, features: Tensor, codes: Tensor) -> Tensor:
        """Bits of the codes [B, T] of codebook q."""
        start = sum(self.codebook_sizes[:q])
        rows = slice(start, start + self.codebook_sizes[q])
        weight = round_ste((self.weight[rows] / STEP).clamp(-127, 127)) * STEP
        octaves = F.linear(features, weight, self.bias[rows])
        nats = round_ste(octaves / _LOGIT_STEP) * (_LOGIT_STEP * math.log(2))
        cost = F.cross_entropy(nats.flatten(0, 1), codes.flatten(), reduction="none")
        return cost.view(codes.shape) / math.log(2)

    def freeze(self) -> IntegerCodePrior:
        """The integer form of the same function, up to one rounding of multipliers."""
        frozen = IntegerCodePrior(self.codebook_sizes, self.size)
        with torch.no_grad():
            for name in ("embedding", "weight"):
                units = (getattr(self, name) / STEP).round().clamp(-127, 127)
                getattr(frozen, name).copy_(units)
            frozen.bias.copy_((self.bias / STEP**2).round())
            for name in _LAYERS:
                getattr(self, name).freeze(getattr(frozen, name))
        return frozen

    @torch.no_grad()
    def thaw(self, frozen: IntegerCodePrior) -> None:
        """Take the values of a frozen prior, which `freeze` turns into the same again."""
        self.embedding.copy_(frozen.embedding * STEP)
        self.weight.copy_(frozen.weight * STEP)
        self.bias.copy_(frozen.bias * STEP**2)
        for name in _LAYERS:
            getattr(self, name).thaw(getattr(frozen, name))


def _delayed(x: Tensor, frames: int) -> Tensor:
    """[B, T, C] with zeros before it: what was `frames` ago."""
    return F.pad(x, (0, 0, frames, 0))[:, : x.shape[1]]


def _forget_network(prior: nn.Module, _: object) -> None:
    prior.__dict__.pop("_network", None)


_LAYERS = ("first", "past", "hidden", "features")


class IntegerCodePrior(nn.Module):
    """The frozen form, which encoder and decoder run: buffers only. FORMAT.md, section 22."""

    embedding: Tensor  # int8 [K, dim], K the sum of the codebooks' sizes
    weight: Tensor  # int8 [K, features]
    bias: Tensor  # int32 [K]

    def __init__(self, codebook_sizes: Sequence[int], size: Size | None = None) -> None:
        """Make an empty prior; values are loaded or frozen into it."""
        super().__init__()
        self.codebook_sizes, self.size = tuple(codebook_sizes), size or Size()
        s, books, total = self.size, len(self.codebook_sizes), sum(codebook_sizes)
        self.register_buffer("embedding", torch.zeros(total, s.dim, dtype=torch.int8))
        self.first = IntegerDenseLayers(1, s.dim, s.context)
        self.past = IntegerDenseLayers(s.past, 2 * s.context, s.context)
        self.hidden = IntegerDenseLayers(books, s.context + s.dim, s.hidden)
        self.features = IntegerDenseLayers(books, s.context + s.dim + s.hidden, s.features)
        self.register_buffer("weight", torch.zeros(total, s.features, dtype=torch.int8))
        self.register_buffer("bias", torch.zeros(total, dtype=torch.int32))
        self.register_load_state_dict_post_hook(_forget_network)  # type: ignore[no-untyped-call]

    def encode(self, codes: Tensor) -> bytes:
        """The bytes of a packet's codes: no length, no checksum; nothing is kept for the next one.

        Args:
            codes: int64 [k, T], of the first k codebooks.

        Raises:
            ValueError: a wrong shape, or a code that its codebook has not.
        """
        return self._network.encode(codes.cpu().numpy())

    def decode(self, data: bytes | memoryview, k: int, frames: int) -> Tensor:
        """The mirror of `encode`: int64 [k, frames].

        Raises:
            ValueError: k is not a number of codebooks, or frames is negative.
            BitstreamError: these bytes are not those of such codes.
        """
        return torch.from_numpy(self._network.decode(data, k, frames))

    @functools.cached_property
    def _network(self) -> kernel.Network:
        """What the kernel runs, made when first asked for."""
        return kernel.Network(
            kernel.Model(
                sizes=self.codebook_sizes,
                embedding=self.embedding.cpu().numpy(),
                first=self.first.arrays(),
                past=self.past.arrays(),
                hidden=self.hidden.arrays(),
                features=self.features.arrays(),
                weight=self.weight.cpu().numpy(),
                bias=self.bias.cpu().numpy(),
            )
        )
