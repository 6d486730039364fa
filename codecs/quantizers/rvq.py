"""RVQ: each stage quantises what the stages before it left over.

Juang and Gray, "Multiple stage vector quantization for speech coding", 1982; in codecs Zeghidour et
al., "SoundStream", 2021 (arXiv:2107.03312), whose quantizer dropout makes one model serve many
rates. A stage may be any quantizer. With a `GroupedQuantizer` as the first stage, each of whose
groups sees a part of the channels, this is the masked-channel RVQ of Ji et al., "Language-Codec",
2024.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from .quantizer import Parts, Quantized, Quantizer, sum_losses


class ResidualQuantizer(Quantizer):
    """x_hat is the sum of the stages' x_hat; codes of the stages follow each other.

    Codes of the first stages alone decode, too: `decode(codes[:, :n])`.
    """

    def __init__(self, stages: Sequence[Quantizer], dropout: float = 0.0) -> None:
        """Take the stages.

        Args:
            stages: quantizers of the same dim, first to last.
            dropout: share of the items of a training batch for which only a random number of
                stages, 1 to all with equal probability, goes into x_hat.

        Raises:
            ValueError: no stages, or stages of different dim.
        """
        if len({stage.dim for stage in stages}) != 1:
            raise ValueError(f"stages have dims {[s.dim for s in stages]}, expected one dim")
        super().__init__(stages[0].dim, sum((s.codebook_sizes for s in stages), ()))
        self.stages = Parts(stages)
        self.dropout = dropout

    def forward(self, x: Tensor, used: Tensor | None = None) -> Quantized:
        """See Quantizer.

        Args:
            x: float [B, dim, *].
            used: how many stages go into x_hat for each item, int64 [B]; None draws them as
                `dropout` says. All stages are trained on the residual of all before them, and
                `codes` holds the codes of all.
        """
        self.check_x(x)
        used = self._draw(x) if used is None else used
        residual, x_hat = x, torch.zeros_like(x)
        codes, losses = [], []
        for i, stage in enumerate(self.stages):
            part = stage(residual)
            x_hat = x_hat + part.x_hat * (used > i).view(-1, *[1] * (x.ndim - 1))
            residual = residual - part.x_hat
            codes.append(part.codes)
            losses.append(part.losses)
        summed = sum_losses(losses)
        if "commitment_loss" in summed:
            # Behind a stage that passes its gradient straight through, the residual has none: the
            # losses of later stages end there, so that x is pulled to the sum here.
            whole = F.mse_loss(x.float(), x_hat.detach().float())
            summed["commitment_loss"] = summed["commitment_loss"] + whole
        return Quantized(x_hat, torch.cat(codes, 1), summed)

    def _draw(self, x: Tensor) -> Tensor:
        every = torch.full((len(x),), len(self.stages), device=x.device)
        if not self.training or not self.dropout:
            return every
        few = torch.randint(1, len(self.stages) + 1, (len(x),), device=x.device)
        return torch.where(torch.rand(len(x), device=x.device) < self.dropout, few, every)

    def encode(self, x: Tensor) -> Tensor:
        """See Quantizer: greedy, each stage takes its nearest code."""
        self.check_x(x)
        codes = []
        for stage in self.stages:
            codes.append(stage.encode(x))
            x = x - stage.decode(codes[-1])
        return torch.cat(codes, 1)

    def decode(self, codes: Tensor) -> Tensor:
        """See Quantizer; `codes` may end behind any stage."""
        parts, start = [], 0
        for stage in self.stages:
            if start < codes.shape[1]:
                parts.append(stage.decode(codes[:, start : start + stage.n_q]))
                start += stage.n_q
        if not parts or start != codes.shape[1]:
            ends = list(itertools.accumulate(s.n_q for s in self.stages))
            raise ValueError(f"got {codes.shape[1]} codes to a vector; stages end at {ends}")
        return torch.stack(parts).sum(0)
