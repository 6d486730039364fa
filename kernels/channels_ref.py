"""Elements in channels, the table row of a symbol by its channel: this module is the definition.

A block is one part or more. A part is an array [rows, groups, width] of elements of w bytes, and
a class for each of its groups * width channels: a row is one token of a key-value cache, a group
one head. Channels differ in scale and keep it from token to token, so that the class of a channel,
found once on a sample, says which table row fits its symbols.

    1. The elements of a part, in C order, are split into w planes (`planes_layouts_ref`, layout
       FLOAT or BYTE_PLANES).
    2. Plane 0 holds the symbols. In layout BYTE_PLANES each of its bytes is first rotated left
       by one bit: numbers of one magnitude and both signs become neighbours, and what occurs in
       a channel is one range.
    3. The block is the other planes of each part, one after another; then one stream of
       `rans_ref` with the symbols of all parts, where the index is the class of the channel.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from . import rans_ref
from .errors import BitstreamError
from .planes_head_ref import BYTE_PLANES
from .planes_layouts_ref import join, split
from .rans_ref import Tables

Bytes = npt.NDArray[np.uint8]
Elements = npt.NDArray[Any]
Part = tuple[Elements, Bytes]

BAD_CLASS = "a class is outside the tables, or its row is not coded"


def choose_lanes(symbols: int) -> int:
    """Lanes for so many symbols: a state is 4 bytes, and 32 of them decode fastest."""
    return 32 if symbols >= 16384 else 16 if symbols >= 8192 else 4 if symbols >= 1024 else 1


def symbols_of(elements: Elements, layout: int) -> tuple[Bytes, list[Bytes]]:
    """The symbols of elements in C order, and their other planes."""
    width = elements.dtype.itemsize
    first, *rests = split(np.ascontiguousarray(elements).view(np.uint8).reshape(-1, width), layout)
    return _rotated(first, layout, 1), rests


def _rotated(plane: Bytes, layout: int, bits: int) -> Bytes:
    if layout != BYTE_PLANES:
        return plane
    rotated: Bytes = (plane << bits | plane >> 8 - bits).astype(np.uint8)
    return rotated


def _check(tables: Tables, parts: Sequence[Part]) -> None:
    for _, classes in parts:
        if np.any(classes >= len(tables)) or not tables.lengths[classes].all():
            raise ValueError(BAD_CLASS)


def encode(tables: Tables, layout: int, parts: Sequence[Part], lanes: int | None = None) -> bytes:
    """The block of some parts; `lanes` binds the encoder only."""
    _check(tables, parts)
    symbols, rests, index = [], [], []
    for elements, classes in parts:
        plane, others = symbols_of(elements, layout)
        symbols.append(plane)
        rests += others
        index.append(np.tile(classes, len(elements)))
    flat = np.concatenate(symbols).astype(np.int16)
    stream = rans_ref.encode(tables, flat, np.concatenate(index), lanes or choose_lanes(len(flat)))
    return b"".join([*(plane.tobytes() for plane in rests), stream])


def decode(tables: Tables, layout: int, data: bytes, parts: Sequence[Part]) -> None:
    """Fill the arrays of `parts` from a block; BitstreamError where it is damaged."""
    _check(tables, parts)
    rest = sum(elements.size * (elements.dtype.itemsize - 1) for elements, _ in parts)
    if len(data) < rest:
        raise BitstreamError(f"a block of {len(data)} bytes, its plain planes take {rest}")
    decoder = rans_ref.Decoder(tables, data[rest:])
    at = 0
    for elements, classes in parts:
        n, width = elements.size, elements.dtype.itemsize
        symbols = decoder.get(np.tile(classes, len(elements)))
        if n and not 0 <= int(symbols.min()) <= int(symbols.max()) <= 255:
            raise BitstreamError("a symbol is outside a byte")
        rests = [np.frombuffer(data, np.uint8, n, at + p * n) for p in range(width - 1)]
        at += n * (width - 1)
        first = _rotated(symbols.reshape(-1).astype(np.uint8), layout, 7)
        whole = np.ascontiguousarray(join([first, *rests], n, layout))
        elements[...] = whole.view(elements.dtype).reshape(elements.shape)
    decoder.finish()
