"""`image/lossless`: pictures of 8 or 16 bits without loss, or with a bounded error.

Nothing is trained and no weights are needed: encoder and decoder learn alike from what is already
coded, see `kernels/pixels_ref.py` (with its papers). Per tile:

    samples -> few colours?  -- yes -> colours sorted by brightness -> one plane of numbers -.
                   '-- no -> planes G, R, B, A; each with few values -> numbers of values ---+
                                                                                             v
                                   bytes <- arithmetic coder <- mixture of experts <- predictors

Bitstream of a tile (packet key = tile number, row by row; none if there is one tile):

    offset  size  meaning
    0       1     kind: 0 raw, 1 planes, 2 colours
    1       4     low half of XXH3-64 of the tile's samples [channels, height, width], u8 or u16
    5       ...   by kind, see `lossless_tiles.py`

Parameters in the header: "s" = [width, height, channels], "b" = bits of a sample (8 or 16), "e" =
the largest error (only where it is not 0). Rows and columns of tiles divide the picture evenly, so
that no tile is longer than TILE; nothing crosses a tile, so they are coded in threads.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ...kernels import pixels
from ...kernels.errors import BitstreamError
from ..codec import Codec, Packet, Rate
from ..threads import in_order
from . import lossless_tiles, picture
from .lossless_tiles import Samples

TILE = 1024  # pixels
_DTYPES = {torch.uint8: 8, torch.uint16: 16}

Box = tuple[slice, slice]


@dataclass(frozen=True)
class Grid:
    """Where the tiles of a picture lie."""

    width: int
    height: int

    @property
    def columns(self) -> int:
        """Tiles to a row."""
        return -(-self.width // TILE)

    def __len__(self) -> int:
        """Count the tiles."""
        return self.columns * -(-self.height // TILE)

    def box(self, number: int) -> Box:
        """Rows and columns of a tile."""
        row, column = divmod(number, self.columns)
        return _part(self.height, row), _part(self.width, column)


def _part(length: int, number: int) -> slice:
    count = -(-length // TILE)
    return slice(number * length // count, (number + 1) * length // count)


class Lossless(Codec):
    """Pictures, uint8 or uint16 [C, H, W]: 1 grey, 2 grey + alpha, 3 RGB, 4 RGB + alpha.

    Takes no rate: the size is what it is. Alpha is always without loss.
    """

    name = "image/lossless"
    deep = True

    def __init__(self, max_error: int = 0, threads: int | None = None) -> None:
        """Set the options.

        Args:
            max_error: no decoded sample differs more from its original; 0 is lossless. With 1 or 2
                a photograph of 8 bits takes some 40 to 60 % less.
            threads: tiles at once; None = one per core.
        """
        if not 0 <= max_error <= pixels.MAX_ERROR:
            raise ValueError(f"max_error must be 0 to {pixels.MAX_ERROR}, got {max_error}")
        if threads is not None and threads < 1:
            raise ValueError(f"threads must be 1 or more, or None for all cores; got {threads}")
        self.max_error = max_error
        self.threads = threads or os.cpu_count() or 1

    def header(self, signal: Tensor) -> dict[str, Any]:
        """See Codec."""
        bits = _check(signal)
        channels, height, width = signal.shape
        error = {"e": self.max_error} if self.max_error else {}
        return {"s": [width, height, channels], "b": bits} | error

    def encode(
        self, signal: Tensor, rate: Rate | None = None, reserve: int = 0
    ) -> Iterator[Packet]:
        """See Codec."""
        _check(signal)
        if rate is not None:
            raise ValueError(
                f"image/lossless takes no rate, got {rate}; leave it out, or allow an error with "
                "--max-error"
            )
        grid = Grid(signal.shape[2], signal.shape[1])
        samples = signal.cpu().numpy()

        def job(number: int) -> Packet:
            tile = np.ascontiguousarray(samples[:, *grid.box(number)])
            body = lossless_tiles.encode(tile, self.max_error)
            return Packet(number if len(grid) > 1 else None, body)

        return in_order(job, range(len(grid)), self.threads)

    def decode(self, header: dict[str, Any], packets: Iterable[Packet]) -> Tensor:
        """See Codec. Holds some tiles beside the picture."""
        grid, channels, dtype, error = _parse_header(header)

        def job(numbered: tuple[int, Packet]) -> Samples:
            number, packet = numbered
            if packet.key != (number if len(grid) > 1 else None) or number >= len(grid):
                raise BitstreamError(f"tile {packet.key!r} is out of order or outside the picture")
            rows, columns = grid.box(number)
            shape = (channels, rows.stop - rows.start, columns.stop - columns.start)
            return lossless_tiles.decode(packet.body, shape, dtype, error)

        out: NDArray[Any] | None = None
        done = 0
        for tile in in_order(job, enumerate(packets), self.threads):
            if out is None:  # allocated once a tile has proved to be one
                out = _empty((channels, grid.height, grid.width), dtype)
            out[:, *grid.box(done)] = tile
            done += 1
        if out is None or done < len(grid):
            raise BitstreamError(f"the picture has {len(grid)} tiles, {done} are there")
        return torch.from_numpy(out)


CODEC = Lossless


def _check(x: Tensor) -> int:
    """The bits of a sample."""
    if x.dtype not in _DTYPES or x.ndim != 3 or x.shape[0] not in (1, 2, 3, 4) or not x.numel():
        raise ValueError(
            "image/lossless takes a picture as uint8 or uint16 [1 to 4, height, width], got "
            f"{x.dtype} {list(x.shape)}"
        )
    if max(x.shape[1:]) > picture.MAX_SIDE:
        raise ValueError(
            f"a side of the picture has {max(x.shape[1:])} pixels, most {picture.MAX_SIDE}"
        )
    return _DTYPES[x.dtype]


def _parse_header(header: dict[str, Any]) -> tuple[Grid, int, type[Any], int]:
    width, height, channels = picture.parse_size(header)
    bits, error = header.get("b"), header.get("e", 0)
    if bits not in (8, 16) or type(error) is not int or not 0 <= error <= pixels.MAX_ERROR:
        raise BitstreamError(f"header fields b, e are {bits!r}, {error!r}")
    return Grid(width, height), channels, np.uint8 if bits == 8 else np.uint16, error


def _empty(shape: tuple[int, int, int], dtype: type[Any]) -> NDArray[Any]:
    try:
        return np.empty(shape, dtype)
    except (MemoryError, ValueError):
        raise BitstreamError(f"a picture of {shape} does not fit into memory") from None
