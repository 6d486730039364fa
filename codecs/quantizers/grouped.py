"""Groups of channels, each with its own quantizer.

Product quantization (Jegou et al., 2011); with `ResidualQuantizer` groups this is the
group-residual VQ of Yang et al., "HiFi-Codec", 2023 (arXiv:2305.02765).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from .quantizer import Parts, Quantized, Quantizer, sum_losses


class GroupedQuantizer(Quantizer):
    """Channels are cut into runs as wide as the groups; codes of the groups follow each other."""

    def __init__(self, groups: Sequence[Quantizer]) -> None:
        """Take the groups' quantizers."""
        sizes = sum((group.codebook_sizes for group in groups), ())
        super().__init__(sum(group.dim for group in groups), sizes)
        self.groups = Parts(groups)
        self._dims = [group.dim for group in groups]
        self._codes = [group.n_q for group in groups]

    def forward(self, x: Tensor) -> Quantized:
        """See Quantizer."""
        self.check_x(x)
        pairs = zip(self.groups, torch.split(x, self._dims, 1), strict=True)
        parts = [group(part) for group, part in pairs]
        x_hat = torch.cat([p.x_hat for p in parts], 1)
        codes = torch.cat([p.codes for p in parts], 1)
        return Quantized(x_hat, codes, sum_losses([p.losses for p in parts]))

    def encode(self, x: Tensor) -> Tensor:
        """See Quantizer."""
        self.check_x(x)
        pairs = zip(self.groups, torch.split(x, self._dims, 1), strict=True)
        return torch.cat([group.encode(part) for group, part in pairs], 1)

    def decode(self, codes: Tensor) -> Tensor:
        """See Quantizer."""
        self.check_codes(codes)
        pairs = zip(self.groups, torch.split(codes, self._codes, 1), strict=True)
        return torch.cat([group.decode(part) for group, part in pairs], 1)
