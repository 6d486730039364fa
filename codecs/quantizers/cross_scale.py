"""Cross-scale residuals: each scale of a decoder is told what it lacks of the encoder's features.

Gu and Diao, "ESC: Efficient Speech Coding with Cross-Scale Residual Vector Quantized Transformers",
EMNLP 2024 (arXiv:2404.19441), with a product quantizer (`GroupedQuantizer`) at each scale.

    encoder   features 0 (coarse)       features 1                  features 2 (fine)
                  |                         |                           |
                  |                         - <---.                     - <---.
                 Q 0                       Q 1    |                    Q 2    |
                  |                         |     |                     |     |
    decoder       '---------> step 0 ------ + ----'--> step 1 --------- + ----'--> x_hat

More than the residual of one feature is built from the same parts: mean-pooled features and steps
that repeat give multi-scale RVQ (Siuzdak et al., "SNAC", 2024, arXiv:2410.14411), a
`GlobalQuantizer` as scale 0 and a step that is the identity give TiCodec.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from . import processes
from .quantizer import Parts, Quantizer, sum_losses


class QuantizedScales(NamedTuple):
    """What a training pass gives.

    Attributes:
        x_hat: what the decoder has of the finest scale, float [B, dim, *].
        codes: of each scale that was used, int64 [B, n_q, *], coarse first.
        losses: those of the quantizers, each kind averaged over the scales.
    """

    x_hat: Tensor
    codes: list[Tensor]
    losses: dict[str, Tensor]


class CrossScaleQuantizer(nn.Module):
    """A decoder of several scales with a quantizer at each; `codes` has an item for each scale.

    Codes of the first scales alone decode, too: `decode(codes[:n])`.
    """

    def __init__(
        self, scales: Sequence[Quantizer], steps: Sequence[nn.Module], dropout: float = 0.0
    ) -> None:
        """Take the quantizers and the parts of the decoder between them.

        Args:
            scales: quantizers, of the coarsest scale first, each of its scale's dim.
            steps: one fewer; step i makes of decoded features of scale i a first guess at those of
                scale i + 1, of the same shape, or one that broadcasts to it.
            dropout: share of the training batches in which only a random number of scales, 1 to all
                with equal probability, is used.

        Raises:
            ValueError: no scales, or a number of steps that does not lead from the first to the
                last.
        """
        super().__init__()
        if not scales or len(steps) != len(scales) - 1:
            raise ValueError(
                f"got {len(scales)} scales and {len(steps)} steps, expected a step between each two"
            )
        self.scales = Parts(scales)
        self.steps = nn.ModuleList(steps)
        self.dropout = dropout

    @property
    def codebook_sizes(self) -> tuple[tuple[int, ...], ...]:
        """Of each scale, how many values each of its codes can take."""
        return tuple(scale.codebook_sizes for scale in self.scales)

    def forward(self, features: Sequence[Tensor], used: int | None = None) -> QuantizedScales:
        """Quantise with gradients; in training mode codebooks may move.

        A guess counts as given where its residual is taken. The gradient of x_hat so reaches both
        the features and the decoder's steps; straight through all, what a step adds would cancel.

        Args:
            features: of each scale, coarse first, float [B, dim, *].
            used: how many scales say something, 1 to all; None draws it as `dropout` says.

        Raises:
            ValueError: features that do not fit the scales or what the steps make.
        """
        self._check(features)
        used = self._draw(features[0].device) if used is None else used
        y, codes, losses = torch.zeros(()), [], []
        for i, scale in enumerate(self.scales):
            if i < used:
                part = scale(_residual(features[i], y.detach()))
                y = y + part.x_hat
                codes.append(part.codes)
                losses.append(part.losses)
            y = self._step(i, y)
        return QuantizedScales(y, codes, sum_losses(losses))

    def encode(self, features: Sequence[Tensor]) -> list[Tensor]:
        """Features of each scale, as `forward` takes them, -> codes of each scale."""
        self._check(features)
        y, codes = torch.zeros(()), []
        for i, scale in enumerate(self.scales):
            codes.append(scale.encode(_residual(features[i], y)))
            y = self._step(i, y + scale.decode(codes[i]))
        return codes

    def decode(self, codes: Sequence[Tensor]) -> Tensor:
        """Codes of each scale, or of the first ones only, -> float [B, dim, *] of the finest scale.

        Raises:
            ValueError: codes of no scale or of more than there are, or illegal ones.
        """
        if not 1 <= len(codes) <= len(self.scales):
            raise ValueError(f"got codes of {len(codes)} scales, legal are 1 to {len(self.scales)}")
        y = torch.zeros(())
        for i, scale in enumerate(self.scales):
            if i < len(codes):
                y = y + scale.decode(codes[i])
            y = self._step(i, y)
        return y

    def _step(self, i: int, y: Tensor) -> Tensor:
        """From scale i to the next; the finest has none."""
        return self.steps[i](y) if i < len(self.steps) else y

    def _draw(self, device: torch.device) -> int:
        """The same number on all processes, or one would wait for the codes of another."""
        most = len(self.scales)
        if not self.training or not self.dropout:
            return most
        whether, which = processes.from_first(torch.rand(2, device=device)).tolist()
        return 1 + int(which * most) if whether < self.dropout else most

    def _check(self, features: Sequence[Tensor]) -> None:
        if len(features) != len(self.scales):
            raise ValueError(f"got features of {len(features)} scales of {len(self.scales)}")


def _residual(x: Tensor, guess: Tensor) -> Tensor:
    """What the guess lacks, if it broadcasts to x."""
    try:
        return x - guess.expand(x.shape)
    except RuntimeError as error:
        raise ValueError(
            f"features are {list(x.shape)}, but the scale before makes {list(guess.shape)} of them"
        ) from error
