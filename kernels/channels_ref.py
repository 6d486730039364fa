"""Elements in channels, the table row of a symbol by its channel: this module is the definition.

A block is one part or more. A part is an array [rows, groups, width] of elements of w bytes with
C = groups * width channels: a row is one token of a key-value cache, a group one head. Channels
differ in scale and keep it from token to token. What is known of them is found once, on a sample:
the class of each symbol of a row, which says which table row fits it, and, in layout FLOAT, the
top of each channel, an exponent that is seldom exceeded.

    1. The elements of a part, in C order, are split into w planes (`planes_layouts_ref`, layout
       FLOAT or BYTE_PLANES). Plane 0 becomes symbols:
       BYTE_PLANES  a symbol per element: its byte rotated left by one bit. Numbers of one
                    magnitude and both signs become neighbours, and what occurs is one range.
       FLOAT        a symbol per two channels 2i and 2i + 1 of a row: with d the tops minus the
                    exponents (modulo 256; 0 for a channel C that is not there), the int16 of the
                    nibbles, low ones first, d0 & 15, d1 & 15, d0 >> 4, d1 >> 4. Two exponents
                    within 16 of their tops make one byte; all others are escapes of the tables.
    2. The block is the other planes of each part, one after another; then one stream of
       `rans_ref` with the symbols of all parts, each with the table row of its class.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from . import rans_ref
from .errors import BitstreamError
from .planes_head_ref import BYTE_PLANES, FLOAT
from .planes_layouts_ref import join, split
from .rans_ref import Tables

Bytes = npt.NDArray[np.uint8]
Elements = npt.NDArray[Any]
Symbols = npt.NDArray[np.int16]

BAD_CLASS = "a class is outside the tables, or its row is not coded"
NO_TOPS: Bytes = np.zeros(0, np.uint8)


class Part(NamedTuple):
    """An array and what is known of its channels.

    Attributes:
        elements: unsigned integers of 1, 2 or 4 bytes [rows, groups, width].
        classes: uint8, of each symbol of a row: `symbols_in(channels, layout)`.
        tops: uint8, of each channel; none in layout BYTE_PLANES.
    """

    elements: Elements
    classes: Bytes
    tops: Bytes = NO_TOPS


def symbols_in(channels: int, layout: int) -> int:
    """Symbols of a row of so many channels."""
    return (channels + 1) // 2 if layout == FLOAT else channels


def choose_lanes(parts: Sequence[Part]) -> int:
    """Lanes by the bytes of the elements: a state is 4 bytes, and 32 of them decode fastest."""
    size = sum(part.elements.nbytes for part in parts)
    return 32 if size >= 1 << 15 else 16 if size >= 1 << 14 else 4 if size >= 1 << 11 else 1


def symbols_of(elements: Elements, layout: int, tops: Bytes) -> tuple[Symbols, list[Bytes]]:
    """The symbols of elements [rows, groups, width], and their other planes."""
    rows, channels = len(elements), elements.shape[1] * elements.shape[2]
    width = elements.dtype.itemsize
    first, *rests = split(np.ascontiguousarray(elements).view(np.uint8).reshape(-1, width), layout)
    if layout == BYTE_PLANES:
        return (first << 1 | first >> 7).astype(np.uint8).astype(np.int16), rests
    distances = np.zeros((rows, 2 * symbols_in(channels, layout)), np.uint8)
    distances[:, :channels] = tops - first.reshape(rows, channels)
    return _swapped(distances.view("<u2").reshape(-1)).view(np.int16), rests


def _swapped(words: npt.NDArray[np.uint16]) -> npt.NDArray[np.uint16]:
    """Words with their two middle nibbles exchanged."""
    swapped: npt.NDArray[np.uint16] = (
        words & 0xF00F | words >> 4 & 0x00F0 | words << 4 & 0x0F00
    ).astype(np.uint16)
    return swapped


def _first_plane(symbols: Symbols, layout: int, rows: int, channels: int, tops: Bytes) -> Bytes:
    """The plane that these symbols stand for: `symbols_of` backwards."""
    if layout == BYTE_PLANES:
        if len(symbols) and not 0 <= int(symbols.min()) <= int(symbols.max()) <= 255:
            raise BitstreamError("a symbol is outside a byte")
        plane = symbols.astype(np.uint8)
        return (plane << 7 | plane >> 1).astype(np.uint8)
    distances = _swapped(symbols.view(np.uint16)).view(np.uint8)
    distances = distances.reshape(rows, 2 * symbols_in(channels, layout))[:, :channels]
    return (tops - distances).reshape(-1)


def _index(tables: Tables, parts: Sequence[Part]) -> list[Bytes]:
    """The table row of each symbol of each part."""
    for part in parts:
        if np.any(part.classes >= len(tables)) or not tables.lengths[part.classes].all():
            raise ValueError(BAD_CLASS)
    return [np.tile(part.classes, len(part.elements)) for part in parts]


def encode(tables: Tables, layout: int, parts: Sequence[Part], lanes: int | None = None) -> bytes:
    """The block of some parts; `lanes` binds the encoder only."""
    index = np.concatenate(_index(tables, parts))
    symbols, rests = [], []
    for part in parts:
        found, others = symbols_of(part.elements, layout, part.tops)
        symbols.append(found)
        rests += others
    stream = rans_ref.encode(tables, np.concatenate(symbols), index, lanes or choose_lanes(parts))
    return b"".join([*(plane.tobytes() for plane in rests), stream])


def decode(tables: Tables, layout: int, data: bytes, parts: Sequence[Part]) -> None:
    """Fill the arrays of `parts` from a block; BitstreamError where it is damaged."""
    index = _index(tables, parts)
    rest = sum(x.size * (x.dtype.itemsize - 1) for x, _, _ in parts)
    if len(data) < rest:
        raise BitstreamError(f"a block of {len(data)} bytes, its plain planes take {rest}")
    decoder = rans_ref.Decoder(tables, data[rest:])
    at = 0
    for (elements, _, tops), rows in zip(parts, index, strict=True):
        n, width = elements.size, elements.dtype.itemsize
        channels = elements.shape[1] * elements.shape[2]
        first = _first_plane(decoder.get(rows), layout, len(elements), channels, tops)
        rests = [np.frombuffer(data, np.uint8, n, at + p * n) for p in range(width - 1)]
        at += n * (width - 1)
        whole = np.ascontiguousarray(join([first, *rests], n, layout))
        elements[...] = whole.view(elements.dtype).reshape(elements.shape)
    decoder.finish()
