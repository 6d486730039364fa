"""`image/compressai`: models of CompressAI, the user's own, through latentpack's coder.

    x -> padded to whole cells -> the model's own networks -> symbols, rows -> one rANS stream
                                                                (its own frozen tables)

Models: `compressai_model.py`; autoregressive ones in wavefront order: `compressai_wavefront.py`.
The parse runs through networks in floating point, so a file decodes where these give the same
scales, to half a step of the model's table: the tier is "local". A check of each slice says so
before any symbol of it is used, or at its end where scales depend on its own symbols.

Bitstream of a picture (one packet without a key), with the numbers K of slices and S of streams
that follow from the model:

    size        meaning
    1           shift of the scales, 0 to 15: see `compressai_session.py`
    4 each      K checks of the scales
    1-9 each    S varints: bytes of the streams
    ...         S streams
    rest        with alpha only: a lossless WebP picture (grey) of the alpha

Parameters in the header: "s" = [width, height, channels], "w" = digest of weights and tables
(8 bytes), and with K > 0 "local" = what floating point ran on (text).
"""

from __future__ import annotations

import functools
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...kernels.errors import BitstreamError
from ..codec import Codec, Packet, Rate
from ..fields import Cursor, get_varint, put_varint
from . import light_alpha, picture
from .compressai_checkpoint import load_checkpoint
from .compressai_model import Bridge
from .compressai_session import CHECK_BYTES, SHIFTS, platform

_MAX_SIDE = 1 << 16
_MAX_PIXELS = 1 << 28
_MAX_ALPHA_SIDE = 16383  # of WebP


class CompressAI(Codec):
    """Pictures, uint8 [C, H, W]: 1 grey, 2 grey + alpha, 3 RGB, 4 RGB + alpha (alpha lossless).

    Takes no Rate: a checkpoint has one rate.
    """

    name = "image/compressai"

    def __init__(
        self, weights: str | Path | nn.Module | None = None, architecture: str | None = None
    ) -> None:
        """Take a model.

        Args:
            weights: a model, of which a frozen copy is made; or a checkpoint file, see
                `compressai_checkpoint.load_checkpoint`.
            architecture: of the file, a name of CompressAI's registry; None finds it by itself.

        Raises:
            ValueError: no model was given, or it is of no kind that is known here.
        """
        if weights is None:
            raise ValueError(
                "image/compressai has no weights of its own; name a checkpoint of a CompressAI "
                "model with --weights"
            )
        if isinstance(weights, nn.Module):
            self._bridge = Bridge(weights)
        else:
            path = Path(weights)
            self._bridge = _load(path, architecture, path.stat().st_mtime_ns)

    def header(self, signal: Tensor) -> dict[str, Any]:
        """See Codec."""
        channels, height, width = _check(signal)
        header = {"s": [width, height, channels], "w": self._bridge.digest}
        return header | ({"local": platform()} if self._bridge.slices else {})

    def encode(
        self, signal: Tensor, rate: Rate | None = None, reserve: int = 0
    ) -> Iterator[Packet]:
        """See Codec."""
        _check(signal)
        if rate is not None:
            raise ValueError(
                f"image/compressai takes no {rate.name}: a checkpoint has one rate; take another "
                "checkpoint"
            )
        return iter([self._encode(signal)])

    def _encode(self, x: Tensor) -> Packet:
        colour, alpha = picture.split_alpha(x)
        shift, checks, streams = self._bridge.encode(_padded(colour, self._bridge.cell))
        sizes = [put_varint(len(stream)) for stream in streams]
        body = b"".join([bytes([shift]), *checks, *sizes, *streams])
        if alpha is not None:
            body += light_alpha.encode(alpha)
        return Packet(None, body)

    def decode(self, header: dict[str, Any], packets: Iterable[Packet]) -> Tensor:
        """See Codec.

        Raises:
            ValueError: the stream was made with another model, or where floating point gives
                other results.
        """
        width, height, channels = _parse_header(header)
        if header.get("w") != self._bridge.digest:
            wanted = header.get("w")
            shown = wanted.hex() if isinstance(wanted, bytes) else repr(wanted)
            raise ValueError(
                f"the stream was made with model {shown}, this one is {self._bridge.digest.hex()}; "
                "name the right checkpoint with --weights"
            )
        found = list(packets)
        if len(found) != 1 or found[0].key is not None:
            raise BitstreamError(f"{len(found)} packets, expected one without a key")
        cell = self._bridge.cell
        cursor = Cursor(memoryview(found[0].body), 0)
        shift = cursor.take(1, "shift")[0]
        if shift >= SHIFTS:
            raise BitstreamError(f"shift of the scales is {shift}, legal are 0 to {SHIFTS - 1}")
        checks = [bytes(cursor.take(CHECK_BYTES, "check")) for _ in range(self._bridge.slices)]
        sizes = [get_varint(cursor, "size of a stream") for _ in range(self._bridge.streams)]
        streams = [bytes(cursor.take(size, "stream")) for size in sizes]
        rest = bytes(cursor.take(cursor.left, "alpha"))
        if rest and channels in (1, 3):
            raise BitstreamError(f"{len(rest)} bytes after the streams, expected none")
        whole = height + -height % cell, width + -width % cell
        x_hat = self._bridge.decode(shift, checks, streams, *whole, str(header.get("local")))
        x_hat = x_hat[0, :, :height, :width]
        colour = x_hat.mean(0, keepdim=True) if channels < 3 else x_hat
        out = (colour * 255).round().clamp(0, 255).to(torch.uint8)
        if channels in (2, 4):
            out = torch.cat([out, light_alpha.decode(rest, height, width)[None]])
        return out


CODEC = CompressAI


@functools.lru_cache(maxsize=2)
def _load(path: Path, architecture: str | None, changed: int) -> Bridge:
    return Bridge(load_checkpoint(path, architecture))


def _padded(x: Tensor, cell: int) -> Tensor:
    """uint8 [1 or 3, H, W] -> float [1, 3, H', W'], whole cells, the border repeated."""
    height, width = x.shape[1:]
    pad = (0, -width % cell, 0, -height % cell)
    return F.pad(x.float()[None].expand(-1, 3, -1, -1) / 255, pad, mode="replicate")


def _check(x: Tensor) -> tuple[int, int, int]:
    channels, height, width = picture.check(x, CompressAI.name)
    if height * width > _MAX_PIXELS or max(height, width) > _MAX_SIDE:
        raise ValueError(
            f"{CompressAI.name} takes at most {_MAX_PIXELS} pixels and {_MAX_SIDE} to a side, got "
            f"{width}x{height}; cut the picture"
        )
    if channels in (2, 4) and max(height, width) > _MAX_ALPHA_SIDE:
        raise ValueError(
            f"alpha is limited to {_MAX_ALPHA_SIDE} pixels to a side, got {width}x{height}; cut "
            "the picture, or leave alpha out"
        )
    return channels, height, width


def _parse_header(header: dict[str, Any]) -> tuple[int, int, int]:
    width, height, channels = picture.parse_size(header)
    if width * height > _MAX_PIXELS or max(width, height) > _MAX_SIDE:
        raise BitstreamError(
            f"header field s is {[width, height, channels]}, legal are at most {_MAX_PIXELS} "
            f"pixels and {_MAX_SIDE} to a side"
        )
    return width, height, channels
