"""A quantizer in a space of few channels, between two linear maps.

Factorised codes (Yu et al., "Vector-quantized Image Modeling with Improved VQGAN", ICLR 2022, and
Kumar et al., "High-Fidelity Audio Compression with Improved RVQGAN", 2023); around one
`VectorQuantizer` of many codes it is the single large codebook of Ji et al., "WavTokenizer", 2024;
around `FSQ` or `LFQ` it is what gives them their few channels.
"""

from __future__ import annotations

from torch import Tensor, nn

from .quantizer import Quantized, Quantizer, from_rows, to_rows


class ProjectedQuantizer(Quantizer):
    """x_hat = out(inner(into(x))); the losses are those of the inner quantizer."""

    def __init__(self, dim: int, inner: Quantizer) -> None:
        """Make the maps [dim -> inner.dim -> dim]; `out` starts as the transpose of `into`."""
        super().__init__(dim, inner.codebook_sizes)
        self.inner = inner
        self.into = nn.Linear(dim, inner.dim)
        self.out = nn.Linear(inner.dim, dim)
        nn.init.orthogonal_(self.into.weight)
        self.out.weight.data.copy_(self.into.weight.data.t())
        nn.init.zeros_(self.into.bias)
        nn.init.zeros_(self.out.bias)

    def forward(self, x: Tensor) -> Quantized:
        """See Quantizer."""
        self.check_x(x)
        part = self.inner(_map(self.into, x))
        return Quantized(_map(self.out, part.x_hat), part.codes, part.losses)

    def encode(self, x: Tensor) -> Tensor:
        """See Quantizer."""
        self.check_x(x)
        return self.inner.encode(_map(self.into, x))

    def decode(self, codes: Tensor) -> Tensor:
        """See Quantizer."""
        return _map(self.out, self.inner.decode(codes))


def _map(linear: nn.Linear, x: Tensor) -> Tensor:
    return from_rows(linear(to_rows(x)), x)
