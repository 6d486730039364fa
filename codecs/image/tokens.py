"""`image/tokens`: pictures as few codes, from 0.01 bits per pixel, for files and for generators.

Networks: `tokens_model.py` (drawing and papers); what the codes cost: `tokens_prior.py`.

    pixels -> levels of codes -> one rANS stream for each level and tile, with the prior
                                 level 0, 1/32, 4096 codes: 0.012 bits per pixel before the prior
                                 levels 1 to 3, 1/16, 1024 codes each: 0.039 each

A packet is one level of one tile; its key is level * tiles + tile. All tiles of level 0 come first,
so the file may end after any level: the rate chooses how many levels are written, and a file that
was cut decodes to the levels that are whole (`keep_going`).

Bitstream of a packet:

    size  meaning
    rest  one rANS stream: the level's codes in four passes, the bits of a pass from high to low

and, for level 0 of pictures with alpha:

    1-4   varint: length n of the stream
    n     the stream
    rest  a lossless WebP picture (grey) of the tile's alpha

Parameters in the header: "s" = [width, height, channels], "w" = digest of the weights (8 bytes).
"""

from __future__ import annotations

import itertools
import math
import warnings
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ...entropy.coder import Decoder, Encoder
from ...kernels.errors import BitstreamError
from ..codec import Codec, DamageWarning, Packet, Rate
from ..fields import Cursor, get_varint, put_varint
from ..quantizers.usage import count_codes, perplexity
from ..rate_control import find_position
from . import light_alpha, tokens_pictures
from .picture import Box, Grid, blank, check, file_size, parse_size, split_alpha, target_bytes
from .tokens_frozen import SHIPPED, FrozenTokens, load_weights
from .tokens_pictures import analyse, synthesise, tile_shape


class Tokens(Codec):
    """Pictures, uint8 [C, H, W]: 1 grey, 2 grey + alpha, 3 RGB, 4 RGB + alpha (alpha lossless).

    Takes Rate quality (0 to 100: a quarter of the scale for each level), bpp, ratio, max_bytes and
    psnr; without a rate all levels. There are only as many rates as levels: the nearest is taken.
    `encode_tokens` and `decode_tokens` give the codes themselves.
    """

    name = "image/tokens"

    def __init__(
        self,
        weights: str | Path | None = None,
        levels: int | None = None,
        keep_going: bool = False,
    ) -> None:
        """Choose weights and levels.

        Args:
            weights: a weights file; None is the shipped one.
            levels: the most levels to encode or to decode; None is all.
            keep_going: decode what is whole of a damaged or cut file, with a warning that says
                how much that is (DamageWarning).

        Raises:
            ValueError: levels is not positive.
        """
        if levels is not None and levels < 1:
            raise ValueError(f"levels is {levels}, expected 1 or more")
        self.path = Path(weights) if weights else SHIPPED
        self.levels, self.keep_going = levels, keep_going

    @property
    def model(self) -> FrozenTokens:
        """The networks, loaded at first use."""
        return load_weights(self.path)

    @property
    def codebook_sizes(self) -> tuple[int, ...]:
        """How many codes each level chooses from."""
        return self.model.networks.codebook_sizes

    @torch.inference_mode()
    def encode_tokens(self, x: Tensor) -> list[Tensor]:
        """A batch of pictures as codes.

        Args:
            x: RGB as uint8 or float in [0, 1], [B, 3, H, W], any size.

        Returns:
            Codes at 1/32, int64 [B, 1, ceil(H / 32), ceil(W / 32)], each below codebook_sizes[0],
            and codes at 1/16, [B, n_q, 2 ceil(H / 32), 2 ceil(W / 32)], code q below
            codebook_sizes[1 + q]. The leading bits of a code say the most: codes with a common
            prefix stand for similar vectors.

        Raises:
            ValueError: x is something else.
        """
        if x.ndim != 4 or x.shape[1] != 3 or not x.numel():
            raise ValueError(f"x is {x.dtype} {list(x.shape)}, expected [B, 3, H, W]")
        if x.dtype != torch.uint8 and not x.is_floating_point():
            raise ValueError(f"x is {x.dtype}, expected uint8, or floats in [0, 1]")
        return analyse(self.model, x)

    @torch.inference_mode()
    def decode_tokens(self, codes: Sequence[Tensor], size: tuple[int, int] | None = None) -> Tensor:
        """The mirror of `encode_tokens`.

        Args:
            codes: as `encode_tokens` gives them. The second may hold fewer codes, int64
                [B, 0 to n_q, h, w]: the first levels.
            size: height and width, to cut off what `encode_tokens` has added; None keeps it.

        Returns:
            RGB, float [B, 3, H, W] in [0, 1].

        Raises:
            ValueError: the codes have wrong shapes, or are not in their codebooks.
        """
        coarse, fine = codes
        h, w = coarse.shape[2:]
        if fine.shape[2:] != (2 * h, 2 * w) or fine.shape[1] >= len(self.codebook_sizes):
            raise ValueError(
                f"codes are {list(coarse.shape)} and {list(fine.shape)}, expected [B, 1, h, w] and "
                f"[B, 0 to {len(self.codebook_sizes) - 1}, 2 h, 2 w]"
            )
        x_hat = torch.empty(len(coarse), 3, 32 * h, 32 * w)
        for top, left, block in synthesise(self.model, coarse, fine):
            x_hat[:, :, top : top + block.shape[2], left : left + block.shape[3]] = block
        return x_hat if size is None else x_hat[:, :, : size[0], : size[1]]

    def header(self, signal: Tensor) -> dict[str, Any]:
        """See Codec."""
        channels, height, width = check(signal, self.name)
        return {"s": [width, height, channels], "w": self.model.digest}

    def encode(
        self, signal: Tensor, rate: Rate | None = None, reserve: int = 0
    ) -> Iterator[Packet]:
        """See Codec; the rate chooses how many levels are written."""
        check(signal, self.name)
        if rate and rate.name not in ("quality", "psnr"):
            target_bytes(signal, rate, self.name)  # refuses what is no size
        levels = self._code(signal)
        return itertools.chain(*levels[: self._depth(signal, levels, rate, reserve)])

    @torch.inference_mode()
    def _code(self, x: Tensor) -> list[list[Packet]]:
        """The packets of all tiles for each level."""
        colour, alpha = split_alpha(x)
        grid = Grid(x.shape[2], x.shape[1], tokens_pictures.TILE)
        whole = analyse(self.model, colour[None])
        most = min(self.levels or len(self.codebook_sizes), len(self.codebook_sizes))
        levels: list[list[Packet]] = [[] for _ in range(most)]
        for tile in range(len(grid)):
            box = grid.box(tile)
            codes = _of_tile(whole, box)
            for level in range(most):
                encoder = Encoder(self.model.tables)
                self.model.prior.put(encoder, codes[: level + 1])
                body = encoder.finish()
                if level == 0 and alpha is not None:
                    top, left, height, width = box
                    plane = alpha[top : top + height, left : left + width]
                    body = put_varint(len(body)) + body + light_alpha.encode(plane)
                levels[level].append(Packet(level * len(grid) + tile, body))
        return levels

    def _depth(self, x: Tensor, levels: list[list[Packet]], rate: Rate | None, reserve: int) -> int:
        """How many levels a rate asks for."""
        if rate is None:
            return len(levels)
        if rate.name == "quality":
            if rate.value > 100:
                raise ValueError(f"quality must be 0 to 100, got {rate.value}")
            return min(len(levels), 1 + int(rate.value / 100 * len(self.codebook_sizes)))

        def kept(position: int) -> Iterator[Packet]:
            return itertools.chain(*levels[: position + 1])

        def size(position: int) -> int:
            return file_size([len(p.body) for p in kept(position)], reserve)

        def quality(position: int) -> float:
            return self._psnr(x, kept(position))

        if rate.name == "psnr":
            found = find_position(quality, len(levels) - 1, rate.value)
        else:
            ceiling = rate.name == "max_bytes"
            found = find_position(size, len(levels) - 1, target_bytes(x, rate, self.name), ceiling)
        if found is None:
            raise ValueError(
                f"max_bytes {rate.value:.0f} is out of reach: the smallest file of this picture "
                f"takes up to {size(0)} bytes; make the picture smaller"
            )
        return found + 1

    def _psnr(self, x: Tensor, packets: Iterable[Packet]) -> float:
        decoded = self.decode(self.header(x), packets)
        mse = (split_alpha(decoded)[0].float() - split_alpha(x)[0].float()).square().mean().item()
        return 10 * math.log10(255**2 / max(mse, 1e-4))

    @torch.inference_mode()
    def decode(self, header: dict[str, Any], packets: Iterable[Packet]) -> Tensor:
        """See Codec.

        Raises:
            ValueError: the stream was made with other weights.
        """
        grid, channels = _parse_header(header)
        self._check_weights(header)
        levels, alphas = self._parse(grid, channels in (2, 4), packets)
        coarse, *fine = [_assemble(level, grid) for level in levels]
        h, w = coarse.shape
        stacked = torch.stack(fine) if fine else torch.zeros(0, 2 * h, 2 * w, dtype=torch.int64)
        out = blank(channels, grid.height, grid.width)
        colours = 1 if channels < 3 else 3
        for top, left, block in synthesise(self.model, coarse[None, None], stacked[None]):
            target = out[:colours, top : top + block.shape[2], left : left + block.shape[3]]
            pixels = 255 * block[0, :, : target.shape[1], : target.shape[2]]
            target.copy_((pixels.mean(0, True) if colours == 1 else pixels).round())
        for tile, alpha in enumerate(alphas):
            top, left, height, width = grid.box(tile)
            plane = light_alpha.decode(alpha, height, width)
            out[-1, top : top + height, left : left + width] = plane
        return out

    def parse(self, header: dict[str, Any], packets: Iterable[Packet]) -> list[Tensor]:
        """The codes in a file, int64 [h, w] for each level; needs no float arithmetic.

        Raises:
            BitstreamError: as `decode`. ValueError: the stream was made with other weights.
        """
        grid, channels = _parse_header(header)
        self._check_weights(header)
        levels, _ = self._parse(grid, channels in (2, 4), packets)
        return [_assemble(level, grid) for level in levels]

    def levels_in(self, header: dict[str, Any], packets: Iterable[Packet]) -> list[dict[str, Any]]:
        """What a file holds of each level: its codes, what they take, how the codebook is used.

        Raises:
            BitstreamError: as `decode`. ValueError: the stream was made with other weights.
        """
        bodies: list[int] = []

        def counted() -> Iterator[Packet]:
            for packet in packets:
                bodies.append(len(packet.body))
                yield packet

        levels = self.parse(header, counted())
        tiles = len(_parse_header(header)[0])
        found = []
        for i, codes in enumerate(levels):
            (counts,) = count_codes(codes[None, None], self.codebook_sizes[i : i + 1])
            size = sum(bodies[i * tiles : (i + 1) * tiles])
            found.append(
                {
                    "codes": list(codes.shape),
                    "codebook_size": self.codebook_sizes[i],
                    "bytes": size,
                    "bits_per_code": 8 * size / codes.numel(),
                    "used": int((counts > 0).sum()),
                    "perplexity": perplexity(counts),
                }
            )
        return found

    def _parse(
        self, grid: Grid, has_alpha: bool, packets: Iterable[Packet]
    ) -> tuple[list[list[Tensor]], list[bytes]]:
        """Codes of the tiles for each level that is whole, and the tiles' alpha."""
        most = min(self.levels or len(self.codebook_sizes), len(self.codebook_sizes))
        levels: list[list[Tensor]] = []
        alphas: list[bytes] = []
        try:
            for number, packet in enumerate(packets):
                level, tile = divmod(number, len(grid))
                if packet.key != number or level >= len(self.codebook_sizes):
                    raise BitstreamError(f"packet {packet.key!r} is out of order or of no level")
                if level >= most:
                    continue
                body = packet.body
                if level == 0 and has_alpha:
                    cursor = Cursor(memoryview(body), 0)
                    body = bytes(cursor.take(get_varint(cursor, "length of codes"), "codes"))
                    alphas.append(bytes(cursor.take(cursor.left, "alpha")))
                if tile == 0:
                    levels.append([])
                lower = [known[tile] for known in levels[:-1]]
                levels[-1].append(_parse_tile(self.model, body, lower, grid.box(tile)))
        except BitstreamError as error:
            whole = [level for level in levels if len(level) == len(grid)]
            if not self.keep_going or not whole:
                raise
            text = f"{error}; {len(whole)} levels are whole"
            warnings.warn(text, DamageWarning, stacklevel=2)
            return whole, alphas
        if not levels or len(levels[-1]) < len(grid):
            found = sum(map(len, levels))
            raise BitstreamError(
                f"the picture has {len(grid)} tiles in each level, {found} packets end inside one"
            )
        return levels, alphas

    def _check_weights(self, header: dict[str, Any]) -> None:
        wanted = header.get("w")
        if wanted != self.model.digest:
            shown = wanted.hex() if isinstance(wanted, bytes) else repr(wanted)
            raise ValueError(
                f"the stream was made with weights {shown}, {self.path.name} is "
                f"{self.model.digest.hex()}; name the right file with --weights"
            )


CODEC = Tokens


def _parse_header(header: dict[str, Any]) -> tuple[Grid, int]:
    width, height, channels = parse_size(header)
    return Grid(width, height, tokens_pictures.TILE), channels


def _of_tile(whole: list[Tensor], box: Box) -> list[Tensor]:
    """The codes of a tile, int64 [h, w] for each level, of those of a picture."""
    h, w = tile_shape(box)
    i, j = box[0] // 32, box[1] // 32
    coarse = whole[0][0, 0, i : i + h, j : j + w]
    fine = whole[1][0, :, 2 * i : 2 * (i + h), 2 * j : 2 * (j + w)]
    return [coarse, *fine]


def _parse_tile(model: FrozenTokens, body: bytes, lower: list[Tensor], box: Box) -> Tensor:
    h, w = tile_shape(box)
    decoder = Decoder(model.tables, body)
    codes = model.prior.get(decoder, lower, (2 * h, 2 * w) if lower else (h, w))
    decoder.finish()
    return codes


def _assemble(tiles: list[Tensor], grid: Grid) -> Tensor:
    """Codes of tiles -> codes of the picture."""
    rows = [tiles[r : r + grid.columns] for r in range(0, len(grid), grid.columns)]
    return torch.cat([torch.cat(row, 1) for row in rows])
