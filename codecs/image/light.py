"""`image/light`: a variable-rate feed-forward picture codec for CPUs.

Networks: `light_model.py` (drawing and papers). Encoder side per tile:

    pixels + halo -> g_a -> gain -> y -> h_a -> z -> coder
                                    |            '-> h_s (integers) -> rows, z -> means
                                    '-> round(y - mu) = q -> coder with rows

Bitstream of a tile (packet key = tile number, row by row):

    offset  size  meaning
    0       2     rate position, u16 little-endian, 0 to 448 (64 to a level)
    2       1-3   varint: length n of the coded latents
    ...     n     one rANS stream: z in (channel, row, column) order, then q likewise
    ...     rest  with alpha only: a lossless WebP picture (grey) of the tile's alpha

Parameters in the header: "s" = [width, height, channels], "w" = digest of the weights (8 bytes).
A tile is 1024 x 1024 pixels; tiles share pixels with their neighbours through the halo of g_a and
latents through the halo of g_s, so there are no seams; entropy parameters never cross a tile.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ...kernels.errors import BitstreamError
from .. import weight_files
from ..codec import Codec, Packet, Rate
from ..rate_control import find_position
from . import light_alpha, light_latents, picture
from .light_frozen import DEFAULT, POSITIONS, SHIPPED, FrozenLight, load_weights
from .light_model import interpolate
from .light_refine import ITERATIONS, RING, Scene, refine
from .picture import Box, Grid

TILE = 1024  # pixels; a multiple of CELL
CELL = 32  # pixels to a side of one z
_HALO_A = 64  # pixels: g_a sees eight 3x3 at 1/8 scale beyond its block
_AIMS = 4  # how often a target is aimed at where refinement shifts what is reached
_NEAR, _NEAR_DB = 0.01, 0.02  # where it is met: log bytes, dB
_HALO_S = 5  # latents: g_s sees one 3x3 at 1/16 and seven at 1/8 scale, 16 + 56 = 72 pixels


@dataclass(frozen=True)
class Tile:
    """A tile between parsing and synthesis: y_hat [1, LATENTS, h, w], and what else it says."""

    y_hat: Tensor
    position: int
    alpha: bytes


class Light(Codec):
    """Pictures, uint8 [C, H, W]: 1 grey, 2 grey + alpha, 3 RGB, 4 RGB + alpha (alpha lossless).

    Takes Rate quality (0 to 100), bpp, ratio, max_bytes and psnr; without a rate quality 50. With
    effort above 0 the encoder refines what the networks give for this very picture
    (`light_refine.py`); 0 is the default because each step beyond costs some decodings.
    """

    name = "image/light"

    def __init__(
        self,
        weights: str | Path | None = None,
        effort: int = 0,
        progress: Callable[[int, int], object] = lambda step, total: None,
    ) -> None:
        """Use shipped weights, by their name in `SHIPPED`, or a weights file.

        A stream made with any of the shipped weights is decoded whatever is given here.

        Args:
            weights: None is the default of `SHIPPED`.
            effort: 0 to 9.
            progress: of the refinement: called with the iterations that are done and all of them,
                over the tiles of a picture.
        """
        if effort not in range(len(ITERATIONS)):
            raise ValueError(f"effort is {effort!r}, expected 0 to {len(ITERATIONS) - 1}")
        self.effort, self.progress = effort, progress
        self.path = SHIPPED.get(str(weights), Path(weights)) if weights else DEFAULT

    @property
    def model(self) -> FrozenLight:
        """The networks, loaded at first use."""
        return load_weights(self.path)

    def header(self, signal: Tensor) -> dict[str, Any]:
        """See Codec."""
        channels, height, width = picture.check(signal, self.name)
        return {"s": [width, height, channels], "w": self.model.digest}

    def encode(
        self, signal: Tensor, rate: Rate | None = None, reserve: int = 0
    ) -> Iterator[Packet]:
        """See Codec; a target is met by bisection over the rate position."""
        picture.check(signal, self.name)
        if self.effort and self.model.distortion != "mse":
            raise ValueError(
                f"effort {self.effort} lowers the MSE, {self.path.name} is for "
                f"{self.model.distortion}; leave effort at 0 with these weights"
            )
        rate = rate or Rate(quality=50)
        if rate.name == "quality":
            if rate.value > 100:
                raise ValueError(f"quality must be 0 to 100, got {rate.value}")
            return self._packets(signal, round(rate.value / 100 * POSITIONS), self.effort)
        return self._search(signal, rate, reserve)

    def _search(self, x: Tensor, rate: Rate, reserve: int) -> Iterator[Packet]:
        """Meet a target: bisection without refinement, whose effect is then allowed for."""
        psnr = rate.name == "psnr"
        target = rate.value if psnr else picture.target_bytes(x, rate, self.name)
        ceiling = rate.name == "max_bytes"

        def measure(packets: Iterable[Packet]) -> float:
            """What counts, on a scale on which refinement moves all positions alike."""
            if psnr:
                return self._psnr(x, packets)
            size = picture.file_size([len(p.body) for p in packets], reserve)
            return math.log(size)

        wanted = aim = target if psnr else math.log(target)
        kept: list[Packet] | None = None  # the last that keep to a ceiling
        for _ in range(_AIMS if self.effort else 1):
            position = find_position(
                lambda p: measure(self._packets(x, p, 0)), POSITIONS, aim, ceiling
            )
            if position is None:
                smallest = picture.file_size([len(p.body) for p in self._packets(x, 0, 0)], reserve)
                raise ValueError(
                    f"max_bytes {rate.value:.0f} is out of reach: the smallest file of this "
                    f"picture takes {smallest} bytes; make the picture smaller"
                )
            if not self.effort:
                return self._packets(x, position, 0)
            packets = list(self._packets(x, position, self.effort))
            missed = measure(packets) - wanted
            if not (ceiling and missed > 0):
                kept = packets
                if abs(missed) < (_NEAR_DB if psnr else _NEAR):
                    break
            aim -= missed
        return iter(kept) if kept else Light(self.path)._search(x, rate, reserve)

    def _packets(self, x: Tensor, position: int, effort: int) -> Iterator[Packet]:
        count = len(_grid(x))
        total = count * ITERATIONS[effort]
        done = itertools.count(1)

        def tell() -> None:
            self.progress(next(done), total)

        for number in range(count):
            yield self._encode_tile(x, number, position, effort, tell)

    def _psnr(self, x: Tensor, packets: Iterable[Packet]) -> float:
        decoded = picture.split_alpha(self.decode(self.header(x), packets))[0]
        mse = (decoded.float() - picture.split_alpha(x)[0].float()).square().mean().item()
        return 10 * math.log10(255**2 / max(mse, 1e-4))

    @torch.inference_mode()
    def _encode_tile(
        self, x: Tensor, number: int, position: int, effort: int, progress: Callable[[], object]
    ) -> Packet:
        colour, alpha = picture.split_alpha(x)
        grid = _grid(x)
        box = top, left, height, width = grid.box(number)
        y = self.analyse(colour, box, position)
        z, q, rows = light_latents.choose(self.model, y, position)
        if effort:
            scene = self._scene(colour, box, position)
            z, q, rows = refine(self.model, scene, z, q, ITERATIONS[effort], progress)
        coded = light_latents.code(self.model, z, q, rows, position)
        body = position.to_bytes(2, "little") + picture.varint(len(coded)) + coded
        if alpha is not None:
            body += light_alpha.encode(alpha[top : top + height, left : left + width])
        return Packet(number if len(grid) > 1 else None, body)

    def _scene(self, x: Tensor, box: Box, position: int) -> Scene:
        """A tile with what its neighbours' latents will be but for their rounding."""
        top, left, height, width = box
        above, before = min(top, RING * 16), min(left, RING * 16)
        below = min(x.shape[1], top + height + RING * 16)
        behind = min(x.shape[2], left + width + RING * 16)
        wide = (top - above, left - before, below - top + above, behind - left + before)
        t = torch.tensor([position / 64])
        around = self.analyse(x, wide, position) * interpolate(self.model.log_degain, t).exp()
        inside = (
            slice(above // 16, above // 16 + _latents(height)),
            slice(before // 16, before // 16 + _latents(width)),
        )
        pixels = x[None, :, top : top + height, left : left + width].float() / 255
        return Scene(pixels, around, inside, position)

    def analyse(self, x: Tensor, box: Box, position: int) -> Tensor:
        """Scaled latents [1, LATENTS, h, w] of a tile, as if the picture were transformed whole."""
        top, left, height, width = box
        above, before = min(top, _HALO_A), min(left, _HALO_A)
        rows = slice(top - above, min(x.shape[1], top + height + _HALO_A))
        columns = slice(left - before, min(x.shape[2], left + width + _HALO_A))
        part = x[:, rows, columns].float()[None].expand(-1, 3, -1, -1) / 255
        pad = (0, -part.shape[3] % CELL, 0, -part.shape[2] % CELL)
        t = torch.tensor([position / 64])
        y: Tensor = self.model.g_a(F.pad(part, pad, mode="replicate") - 0.5, t)
        y = y * interpolate(self.model.log_gain, t).exp()
        h, w = _latents(height), _latents(width)
        return y[:, :, above // 16 : above // 16 + h, before // 16 : before // 16 + w]

    @torch.inference_mode()
    def decode(self, header: dict[str, Any], packets: Iterable[Packet]) -> Tensor:
        """See Codec. Holds the latents of three rows of tiles, whatever the picture's size.

        Raises:
            ValueError: the stream was made with other weights.
        """
        width, height, channels = picture.parse_size(header)
        grid = Grid(width, height, TILE)
        model = self._model_of(header)
        tiles: dict[int, Tile] = {}
        out: Tensor | None = None
        done = 0  # rows of tiles
        for packet in packets:
            number = 0 if packet.key is None else packet.key
            if number != len(tiles) + max(0, done - 1) * grid.columns or number >= len(grid):
                raise BitstreamError(f"tile {number!r} is out of order or outside the picture")
            tiles[number] = _decode_tile(model, grid.box(number), packet.body, channels)
            if out is None:  # allocated once a tile has proved to be one
                out = picture.blank(channels, grid.height, grid.width)
            complete = (number + 1) // grid.columns  # rows that are there
            ready = complete if complete == grid.rows else complete - 1
            while done < ready:
                _paint_row(model, grid, tiles, done, out)
                done += 1
                for old in range((done - 2) * grid.columns, (done - 1) * grid.columns):
                    tiles.pop(old, None)
        if out is None or done < grid.rows:
            raise BitstreamError(f"the picture has {grid.rows} rows of tiles, {done} are complete")
        return out

    def _model_of(self, header: dict[str, Any]) -> FrozenLight:
        """The networks that a stream was made with: ours, or shipped ones."""
        path = weight_files.file_of(header.get("w"), self.path, self.model.digest, SHIPPED.values())
        return self.model if path == self.path else load_weights(path)


CODEC = Light


def _grid(x: Tensor) -> Grid:
    return Grid(x.shape[2], x.shape[1], TILE)


def _latents(pixels: int) -> int:
    """Latents along a side of so many pixels: whole cells of z."""
    return math.ceil(pixels / CELL) * 2


def _decode_tile(model: FrozenLight, box: Box, body: bytes, channels: int) -> Tile:
    position = int.from_bytes(body[:2], "little")
    if len(body) < 3 or position > POSITIONS:
        raise BitstreamError(f"tile has rate position {position}, legal are 0 to {POSITIONS}")
    length, start = picture.read_varint(body, 2)
    if length > len(body) - start:
        raise BitstreamError(f"tile states {length} bytes of latents, {len(body) - start} are left")
    alpha = body[start + length :]
    if alpha and channels in (1, 3):
        raise BitstreamError(f"tile has {len(alpha)} bytes after its latents, expected none")
    coded = body[start : start + length]
    z, q = light_latents.parse(model, coded, _latents(box[2]), _latents(box[3]), position)
    return Tile(light_latents.values(model, z, q, position), position, alpha)


def _paint_row(
    model: FrozenLight, grid: Grid, tiles: dict[int, Tile], row: int, out: Tensor
) -> None:
    """Synthesise a row of tiles into the picture, uint8 [C, H, W]."""
    colours = 1 if out.shape[0] < 3 else 3
    for number in range(row * grid.columns, (row + 1) * grid.columns):
        top, left, height, width = grid.box(number)
        target = out[:, top : top + height, left : left + width]
        pixels = _synthesise(model, grid, tiles, number)[:, :height, :width]
        target[:colours] = (pixels.mean(0, True) if colours == 1 else pixels).round()
        if out.shape[0] in (2, 4):
            target[-1] = light_alpha.decode(tiles[number].alpha, height, width)


def _synthesise(model: FrozenLight, grid: Grid, tiles: dict[int, Tile], number: int) -> Tensor:
    """Pixels [3, 16 h, 16 w] of a tile in 0..255, with the latents of its neighbours around it."""
    row, column = divmod(number, grid.columns)
    rows = [r for r in (row - 1, row, row + 1) if 0 <= r < grid.rows]
    columns = [c for c in (column - 1, column, column + 1) if 0 <= c < grid.columns]
    field = torch.cat(
        [torch.cat([tiles[r * grid.columns + c].y_hat for c in columns], 3) for r in rows], 2
    )
    tile = tiles[number]
    h, w = tile.y_hat.shape[2:]
    top = TILE // 16 if row else 0
    left = TILE // 16 if column else 0
    above, before = min(top, _HALO_S), min(left, _HALO_S)
    part = field[:, :, top - above : top + h + _HALO_S, left - before : left + w + _HALO_S]
    x_hat: Tensor = model.g_s(part, torch.tensor([tile.position / 64]))
    x_hat = x_hat[0, :, above * 16 : (above + h) * 16, before * 16 : (before + w) * 16]
    return ((x_hat + 0.5) * 255).clamp(0, 255)
