"""The latents of one tile to bytes and back.

`parse` is the portable half of decoding: bytes -> integers, through integers only. `values` turns
the integers into latents and may float. `choose` and `code` are the encoder's halves.
"""

import torch
from torch import Tensor

from ...entropy.coder import Decoder, Encoder
from ...kernels.errors import BitstreamError
from .light_frozen import FrozenLight
from .light_model import Z_CHANNELS, Z_LIMIT, anchor_mask, interpolate


def choose(model: FrozenLight, y: Tensor, position: int) -> tuple[Tensor, Tensor, Tensor]:
    """The integers of scaled latents, float [1, LATENTS, h, w], h and w even.

    Returns:
        z, int8 [1, Z_CHANNELS, h/2, w/2], q, int16 [1, LATENTS, h, w], and the table rows of q.

    Raises:
        ValueError: a latent is NaN or infinite.
    """
    if not y.isfinite().all():
        raise ValueError("the latents hold NaN or infinity; the weights or the input are damaged")
    z = model.h_a(y).round().clamp(-Z_LIMIT, Z_LIMIT).to(torch.int8)
    z_rows = _z_rows(model, z.shape[2], z.shape[3], position)
    z = z.masked_fill(z_rows.view(z.shape) == 0, 0)
    means = _Means(model, z, position)
    anchors = anchor_mask(y.shape[2], y.shape[3])
    rows = model.h_s(z, position)
    factor = model.dead_zone[rows.int()]
    q = _residual(y, means.of_anchors, factor)
    q = torch.where(anchors, q, _residual(y, means.of_rest(q), factor))
    return z, q.to(torch.int16), rows


def code(model: FrozenLight, z: Tensor, q: Tensor, rows: Tensor, position: int) -> bytes:
    """The stream of the integers; q is 0 where its row is not coded."""
    encoder = Encoder(model.tables)
    encoder.put(z.flatten().to(torch.int16), _z_rows(model, z.shape[2], z.shape[3], position))
    encoder.put(q.flatten(), rows.flatten())
    return encoder.finish()


def parse(model: FrozenLight, data: bytes, h: int, w: int, position: int) -> tuple[Tensor, Tensor]:
    """Read z, int8 [1, Z_CHANNELS, h/2, w/2], and q, int16 [1, LATENTS, h, w].

    Raises:
        BitstreamError: the bytes are not a stream of such latents.
    """
    decoder = Decoder(model.tables, data)
    z = decoder.get(_z_rows(model, h // 2, w // 2, position))
    if z.abs().amax() > Z_LIMIT:
        raise BitstreamError(f"side information exceeds {Z_LIMIT}; the stream is damaged")
    z = z.view(1, Z_CHANNELS, h // 2, w // 2).to(torch.int8)
    rows = model.h_s(z, position)
    q = decoder.get(rows.flatten()).view(rows.shape)
    decoder.finish()
    return z, q


def values(model: FrozenLight, z: Tensor, q: Tensor, position: int) -> Tensor:
    """y_hat in pixel units, float [1, LATENTS, h, w]."""
    means = _Means(model, z, position)
    anchors = anchor_mask(q.shape[2], q.shape[3])
    mu = torch.where(anchors, means.of_anchors, means.of_rest(q))
    return (q + mu) * interpolate(model.log_degain, torch.tensor([position / 64])).exp()


class _Means:
    """The two passes of the mean context."""

    def __init__(self, model: FrozenLight, z: Tensor, position: int) -> None:
        self.net = model.means
        self.features = self.net.features(z.float(), torch.tensor([position / 64]))
        self.of_anchors = self.net.of_anchors(self.features)

    def of_rest(self, q: Tensor) -> Tensor:
        """Means of the second pass, given the residuals of the first."""
        anchors = anchor_mask(q.shape[2], q.shape[3])
        return self.net.of_rest(self.features, torch.where(anchors, q + self.of_anchors, 0.0))


def _residual(y: Tensor, mu: Tensor, factor: Tensor) -> Tensor:
    """Rounded y - mu with the dead zone of its row; zero where the table says "not coded"."""
    return ((y - mu) * factor).round().clamp(-(2**15), 2**15 - 1)


def _z_rows(model: FrozenLight, h: int, w: int, position: int) -> Tensor:
    return model.h_s.z_rows(position).repeat_interleave(h * w)
