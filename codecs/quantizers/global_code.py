"""One code for a whole item: what does not change from place to place is said once.

Ren et al., "Fewer-token Neural Speech Codec with Time-invariant Codes" (TiCodec), ICASSP 2024
(arXiv:2310.00014): the mean over time of an utterance's features holds the voice and the room;
quantised, it costs a few bytes to the utterance and takes that off the codes of every frame.

    x [B, dim, *] -> mean over * -> inner -> codes [B, n_q, 1, ...], x_hat [B, dim, 1, ...]

As the first scale of a `CrossScaleQuantizer`, followed by any quantizer of what the mean leaves
over, this is the codec of the paper. The code is known only once the item has ended, so that such
a codec does not stream.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from .quantizer import Quantized, Quantizer


class GlobalQuantizer(Quantizer):
    """x_hat and codes have one place on each axis of `*`: add x_hat to the item by broadcasting.

    `consistency_loss` is one minus the cosine between the means of an item's two halves (along its
    last axis), as the paper asks of two segments of an utterance; the first has no gradient.
    """

    def __init__(self, inner: Quantizer) -> None:
        """Take the quantizer of the mean."""
        super().__init__(inner.dim, inner.codebook_sizes)
        self.inner = inner

    def forward(self, x: Tensor) -> Quantized:
        """See Quantizer; each place gets its share of the gradient of x_hat."""
        self.check_x(x)
        part = self.inner(_mean(x))
        if x.ndim == 2 or x.shape[-1] < 2:
            return part  # type: ignore[no-any-return]
        half = x.shape[-1] // 2
        first, second = (_mean(side).flatten(1).float() for side in (x[..., :half], x[..., half:]))
        loss = 1 - F.cosine_similarity(first.detach(), second).mean()
        return Quantized(part.x_hat, part.codes, {**part.losses, "consistency_loss": loss})

    def encode(self, x: Tensor) -> Tensor:
        """Float [B, dim, *] -> int64 [B, n_q, 1, ...]."""
        self.check_x(x)
        return self.inner.encode(_mean(x))

    def decode(self, codes: Tensor) -> Tensor:
        """int64 [B, n_q, 1, ...] -> float [B, dim, 1, ...]."""
        return self.inner.decode(codes)


def _mean(x: Tensor) -> Tensor:
    """Over all axes behind the channels, which stay as axes of one place.

    Raises:
        ValueError: there is nothing to take the mean of.
    """
    if 0 in x.shape[2:]:
        raise ValueError(f"x is {list(x.shape)}: an empty item has no mean")
    return x.mean(tuple(range(2, x.ndim)), keepdim=True) if x.ndim > 2 else x
