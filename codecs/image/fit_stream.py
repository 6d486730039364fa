"""A tile of `image/fit` as bytes, and back to pixels.

offset  size  meaning
0       1     preset (low 2 bits) and rate of the prior (high 6 bits)
1       1     bit k: grid k is coded, otherwise it is zeros; bit 7 is 0
2       1     p: the trade-off lmbda 2**(p / 16 - 15) that it was fitted for; not needed to decode
..      1-4   with alpha only: varint, length n of the stream
..      n     one rANS stream: the networks (`fit_parameters`), then the grids (`kernels.fit_ref`)
..      rest  with alpha only: a lossless WebP picture (grey) of the tile's alpha
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from ...kernels import fit, rans
from ...kernels.errors import BitstreamError
from ...kernels.fit_ref import GRIDS, Grid
from . import fit_parameters, picture
from .fit_networks import PRESETS
from .fit_parameters import Coded
from .fit_prior import Prior, PriorFile, bits_of, tables

_HEAD = 3
_NAMES = {preset.number: name for name, preset in PRESETS.items()}
_OCTAVE = 16  # positions of lmbda to one
_LOWEST = -15  # log2 of lmbda at position 0

Pixels = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class Tile:
    """What a tile says.

    Attributes:
        prior: of the networks.
        position: of lmbda.
        coded: the networks.
        grids: int16, finest first.
    """

    prior: Prior
    position: int
    coded: Coded
    grids: list[Grid]

    def pixels(self, threads: int = 1) -> Pixels:
        """uint8 [colours, height, width]."""
        net = fit_parameters.synthesis(self.prior, self.coded)
        return fit.synthesise(net, self.grids, threads=threads)


def position_of(lmbda: float) -> int:
    """The nearest position of a trade-off."""
    return round(min(255, max(0, _OCTAVE * (math.log2(lmbda) - _LOWEST))))


def lmbda_of(position: int) -> float:
    """The trade-off of a position: R + lmbda D, with D the mean squared error in 0 .. 255."""
    return float(2 ** (position / _OCTAVE + _LOWEST))


def write(tile: Tile, alpha: bytes | None, threads: int = 1) -> bytes:
    """The bytes of a tile."""
    networks, rows = fit_parameters.symbols(tile.prior, tile.coded)
    context = fit_parameters.context(tile.prior, tile.coded)
    latents, index = fit.symbols(context, tile.grids, threads=threads)
    joined = np.concatenate([networks, latents]), np.concatenate([rows, index])
    stream = rans.encode(tables(), *joined)
    mask = sum(1 << k for k, grid in enumerate(tile.grids) if grid.any())
    preset = PRESETS[tile.prior.preset].number
    head = bytes([preset | tile.prior.rate << 2, mask, tile.position])
    return head + stream if alpha is None else head + picture.varint(len(stream)) + stream + alpha


class Opened(NamedTuple):
    """A tile whose networks have been read, with what is left of its stream."""

    prior: Prior
    position: int
    coded: Coded
    mask: list[bool]  # of the grids that are coded
    decoder: rans.Decoder
    alpha: bytes


def open_tile(priors: PriorFile, body: bytes, channels: int) -> Opened:
    """Read a tile up to its grids.

    Raises:
        BitstreamError: the bytes are damaged.
    """
    prior, position, stream, alpha = _split(priors, body, channels)
    decoder = rans.Decoder(tables(), stream)
    coded = fit_parameters.parse(prior, decoder.get)
    mask = [bool(body[1] >> k & 1) for k in range(GRIDS)]
    return Opened(prior, position, coded, mask, decoder, alpha)


def read(
    priors: PriorFile, body: bytes, channels: int, height: int, width: int
) -> tuple[Tile, bytes]:
    """The mirror of `write`: the tile, and its alpha.

    Raises:
        BitstreamError: the bytes are damaged.
    """
    prior, position, coded, mask, decoder, alpha = open_tile(priors, body, channels)
    context = fit_parameters.context(prior, coded)
    grids = fit.decode(context, decoder, height, width, mask)
    decoder.finish()
    return Tile(prior, position, coded, grids), alpha


def _split(priors: PriorFile, body: bytes, channels: int) -> tuple[Prior, int, bytes, bytes]:
    """Prior, position of lmbda, stream and alpha of a tile."""
    if len(body) < _HEAD:
        raise BitstreamError(f"a tile has {len(body)} bytes, expected at least {_HEAD}")
    preset, rate = _NAMES[body[0] & 3], body[0] >> 2
    colours = 1 if channels < 3 else 3
    if (preset, colours, rate) not in priors or body[1] >= 1 << GRIDS:
        raise BitstreamError(
            f"tile starts with {body[:2].hex()}: {priors.path.name} has no prior {rate} of preset "
            f"{preset}, or there are more than {GRIDS} grids"
        )
    stream, alpha = body[_HEAD:], b""
    if channels in (2, 4):
        length, start = picture.read_varint(body, _HEAD)
        if length > len(body) - start:
            raise BitstreamError(
                f"tile states a stream of {length} bytes, {len(body) - start} left"
            )
        stream, alpha = body[start : start + length], body[start + length :]
    return priors.at(preset, colours, rate), body[2], stream, alpha


def describe(priors: PriorFile, body: bytes, channels: int) -> dict[str, Any]:
    """What a tile is, without its grids.

    Returns:
        preset, lmbda, and the bytes of networks, latents and alpha.
    """
    prior, position, stream, alpha = _split(priors, body, channels)
    coded = open_tile(priors, body, channels).coded
    networks = round(bits_of(*fit_parameters.symbols(prior, coded)) / 8)
    return {
        "preset": prior.preset,
        "lmbda": lmbda_of(position),
        "network_bytes": networks,
        "latent_bytes": len(stream) - networks,
        "alpha_bytes": len(alpha),
    }
