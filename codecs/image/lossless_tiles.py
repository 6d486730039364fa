"""A tile of `image/lossless`: which planes are coded, and what goes before their bytes.

After kind and checksum:

    kind       size  meaning
    0 raw      rest  the samples [channels, height, width], u8 or u16 little-endian
    1 planes   1     1 if there are lists of values, else 0
               v     only with lists: varint, their coded length n
               n     only with lists: deflated (zlib): per plane a varint, how many values it has,
                     0 = no list; then each value less the one before less 1, as varints
               rest  the planes in the order G, R, B, A or grey, A (`kernels/pixels_ref.py`); a
                     plane with one value is not coded, one with a list as numbers in its list
    2 colours  v     varint, the length n of the colours
               n     deflated: varint, how many; then their samples [colours, channels]
               rest  one plane of numbers of colours; nothing if there is one colour

A colour plane is linked with the colour planes coded before it, alpha with none.
"""

from __future__ import annotations

import zlib
from typing import Any

import numpy as np
import xxhash
from numpy.typing import NDArray

from ...kernels import pixels
from ...kernels.errors import BitstreamError
from ...kernels.pixels import Plane

RAW, PLANES, COLOURS = 0, 1, 2
MOST_COLOURS = 256
_HEAD = 5
_ORDERS = {1: (0,), 2: (0, 1), 3: (1, 0, 2), 4: (1, 0, 2, 3)}  # of planes, by channels
_VARINT_BYTES = 4

Samples = NDArray[Any]  # uint8 or uint16 [channels, height, width]
Shape = tuple[int, int, int]
Values = NDArray[np.int64]


def encode(tile: Samples, max_error: int) -> bytes:
    """The body of a tile's packet."""
    kind, coded, decoded = _smallest(tile, max_error)
    return bytes([kind]) + _checksum(decoded) + coded


def decode(body: bytes, shape: Shape, dtype: type[Any], max_error: int) -> Samples:
    """The mirror of `encode`.

    Raises:
        BitstreamError: the body is damaged, or was made by a machine that computes otherwise.
    """
    if len(body) < _HEAD or body[0] > COLOURS:
        kind = body[0] if body else None
        raise BitstreamError(f"a tile of {len(body)} bytes has kind {kind}, legal are 0 to 2")
    read = (_read_raw, _read_planes, _read_colours)[body[0]]
    tile = read(memoryview(body)[_HEAD:], shape, dtype, max_error)
    if _checksum(tile) != body[1:_HEAD]:
        raise BitstreamError("a tile's samples do not have the checksum that it states")
    return tile


def _checksum(tile: Samples) -> bytes:
    little = np.ascontiguousarray(tile, tile.dtype.newbyteorder("<"))
    return (xxhash.xxh3_64_intdigest(little.data) & 0xFFFFFFFF).to_bytes(4, "little")


def _smallest(tile: Samples, max_error: int) -> tuple[int, bytes, Samples]:
    """Kind, bytes after the head, and what is decoded."""
    colours = _colours(tile)
    if colours is not None:
        kind, (coded, decoded) = COLOURS, (_write_colours(tile, colours), tile)
    else:
        kind, (coded, decoded) = PLANES, _write_planes(tile, max_error)
    if len(coded) < tile.nbytes:
        return kind, coded, decoded
    return RAW, tile.astype(tile.dtype.newbyteorder("<")).tobytes(), tile


def _read_raw(coded: memoryview, shape: Shape, dtype: type[Any], max_error: int) -> Samples:
    little = np.dtype(dtype).newbyteorder("<")
    if len(coded) != np.prod(shape) * little.itemsize:
        raise BitstreamError(f"a raw tile {shape} has {len(coded)} bytes of samples")
    return np.frombuffer(coded, little).reshape(shape).astype(dtype)


# Planes.


def _write_planes(tile: Samples, max_error: int) -> tuple[bytes, Samples]:
    peak = int(np.iinfo(tile.dtype).max)
    errors = [0 if alpha else max_error for alpha in _alphas(len(tile))]
    lists = [
        _values(tile[channel], error)
        for channel, error in zip(_ORDERS[len(tile)], errors, strict=True)
    ]
    planes, coded = _planes(lists, errors, peak), b""
    numbers = np.zeros((len(planes), *tile.shape[1:]), np.uint16)
    told = [i for i, values in enumerate(lists) if values is None or len(values) > 1]
    for plane, i in enumerate(told):
        numbers[plane] = _numbered(tile[_ORDERS[len(tile)][i]], lists[i])
    if planes:
        coded = pixels.encode(numbers, planes)
    shape = (len(tile), tile.shape[1], tile.shape[2])
    decoded = _assemble(numbers, lists, shape, tile.dtype.type) if max_error else tile
    return _write_lists(lists) + coded, decoded


def _read_planes(coded: memoryview, shape: Shape, dtype: type[Any], max_error: int) -> Samples:
    peak = int(np.iinfo(dtype).max)
    lists, start = _read_lists(coded, shape[0], peak)
    errors = [0 if alpha else max_error for alpha in _alphas(shape[0])]
    planes = _planes(lists, errors, peak)
    numbers = np.zeros((0, *shape[1:]), np.uint16)
    if planes:
        numbers = pixels.decode(coded[start:], planes, *shape[1:])
    return _assemble(numbers, lists, shape, dtype)


def _alphas(channels: int) -> list[bool]:
    """Which planes are alpha, in the order of coding."""
    return [False] * (channels - 1) + [channels in (2, 4)] if channels > 1 else [False]


def _planes(lists: list[Values | None], errors: list[int], peak: int) -> list[Plane]:
    """How the planes are coded that are coded."""
    planes: list[Plane] = []
    for values, error, alpha in zip(lists, errors, _alphas(len(lists)), strict=True):
        if values is None:
            planes.append(Plane(peak, error, 0 if alpha else len(planes)))
        elif len(values) > 1:
            planes.append(Plane(len(values) - 1, 0, 0 if alpha else len(planes)))
    return planes


def _assemble(
    numbers: NDArray[np.uint16], lists: list[Values | None], shape: Shape, dtype: type[Any]
) -> Samples:
    tile = np.empty(shape, dtype)
    rest = iter(numbers)
    for channel, values in zip(_ORDERS[shape[0]], lists, strict=True):
        if values is None:
            tile[channel] = next(rest)
        else:
            tile[channel] = values[next(rest)] if len(values) > 1 else values[0]
    return tile


def _values(plane: Samples, error: int) -> Values | None:
    """The values of a plane where telling them pays; one value always does."""
    counts = np.bincount(plane.reshape(-1), minlength=2)
    values = np.flatnonzero(counts)
    if len(values) == 1:
        return values
    span = int(values[-1] - values[0]) + 1
    if error or 2 * len(values) > span:
        return None
    saved_bits = plane.size * np.log2(span / len(values))
    return values if 8 * len(_deflated(_gaps(values))) < saved_bits / 4 else None


def _numbered(plane: Samples, values: Values | None) -> Samples:
    if values is None:
        return plane
    numbers = np.zeros(int(values[-1]) + 1, np.uint16)
    numbers[values] = np.arange(len(values))
    return numbers[plane]


def _gaps(values: Values) -> bytes:
    return b"".join(_varint(int(gap)) for gap in np.diff(values, prepend=-1) - 1)


def _write_lists(lists: list[Values | None]) -> bytes:
    if all(values is None for values in lists):
        return b"\0"
    plain = b"".join(
        b"\0" if values is None else _varint(len(values)) + _gaps(values) for values in lists
    )
    deflated = _deflated(plain)
    return b"\1" + _varint(len(deflated)) + deflated


def _read_lists(coded: memoryview, channels: int, peak: int) -> tuple[list[Values | None], int]:
    """The lists, and where the planes start."""
    if not len(coded) or coded[0] > 1:
        raise BitstreamError("a tile does not say whether it has lists of values")
    if not coded[0]:
        return [None] * channels, 1
    plain, start = _inflated(coded, 1, channels * (peak + 2) * _VARINT_BYTES)
    at, lists = 0, list[Values | None]()
    for _ in range(channels):
        count, at = _read_varint(plain, at)
        if count > peak + 1:
            raise BitstreamError(f"a list has {count} values, most are {peak + 1}")
        gaps = np.empty(count, np.int64)
        for i in range(count):
            gaps[i], at = _read_varint(plain, at)
        values = np.cumsum(gaps + 1) - 1
        if count and values[-1] > peak:
            raise BitstreamError(f"a list has a value {values[-1]}, the largest is {peak}")
        lists.append(values if count else None)
    if at != len(plain):
        raise BitstreamError(f"{len(plain) - at} bytes follow the lists of values")
    return lists, start


# Colours.


def _keys(tile: Samples) -> NDArray[np.uint64]:
    """One number per pixel and colour; brightness first, so that they are in a useful order."""
    wide = tile.astype(np.uint64)
    weights = (1,) if len(tile) < 3 else (2, 4, 1)
    bright = sum(plane * np.uint64(w) for plane, w in zip(wide, weights, strict=False))
    return np.asarray(bright, np.uint64)


def _colours(tile: Samples) -> Samples | None:
    """The colours [count, channels] of a tile that has few; None if it has many."""
    channels, height, width = tile.shape
    if channels == 1:
        return None
    packed = np.zeros((height, width), np.uint64)
    for plane in tile:
        packed = packed << np.uint64(16) | plane.astype(np.uint64)
    few = min(MOST_COLOURS, max(1, height * width // 16))
    if len(np.unique(packed[:: max(1, height // 16)])) > few:
        return None
    found = np.unique(packed)
    if len(found) > few:
        return None
    shifts = np.arange(channels - 1, -1, -1, dtype=np.uint64) * np.uint64(16)
    colours = (found[:, None] >> shifts & np.uint64(0xFFFF)).astype(tile.dtype)
    order = np.argsort(_keys(colours.T), kind="stable")
    return np.ascontiguousarray(colours[order])


def _write_colours(tile: Samples, colours: Samples) -> bytes:
    little = colours.astype(colours.dtype.newbyteorder("<"))
    deflated = _deflated(_varint(len(colours)) + little.tobytes())
    coded = _varint(len(deflated)) + deflated
    if len(colours) == 1:
        return coded
    numbers = np.zeros(tile.shape[1:], np.uint16)
    for number, colour in enumerate(colours):
        numbers[np.all(tile == colour[:, None, None], axis=0)] = number
    return coded + pixels.encode(numbers[None], [Plane(len(colours) - 1, 0, 0)])


def _read_colours(coded: memoryview, shape: Shape, dtype: type[Any], max_error: int) -> Samples:
    little = np.dtype(dtype).newbyteorder("<")
    channels, height, width = shape
    most = _VARINT_BYTES + MOST_COLOURS * channels * little.itemsize
    plain, start = _inflated(coded, 0, most)
    count, at = _read_varint(plain, 0)
    if not 1 <= count <= MOST_COLOURS or len(plain) - at != count * channels * little.itemsize:
        raise BitstreamError(f"{len(plain) - at} bytes do not hold {count} colours")
    colours = np.frombuffer(plain, little, offset=at).reshape(count, channels).astype(dtype)
    numbers = np.zeros((1, height, width), np.uint16)
    if count > 1:
        numbers = pixels.decode(coded[start:], [Plane(count - 1, 0, 0)], height, width)
    return np.ascontiguousarray(colours[numbers[0]].transpose(2, 0, 1))


# Small things.


def _deflated(plain: bytes) -> bytes:
    return zlib.compress(plain, 9)


def _inflated(coded: memoryview, at: int, most: int) -> tuple[bytes, int]:
    """What was deflated after its length at an offset, and the offset after it."""
    size, at = _read_varint(coded, at)
    if size > len(coded) - at:
        raise BitstreamError(f"a tile states {size} bytes, {len(coded) - at} are left")
    inflater = zlib.decompressobj()
    try:
        plain = inflater.decompress(coded[at : at + size], most)
    except zlib.error as error:
        raise BitstreamError(f"a tile's list is damaged: {error}") from None
    if not inflater.eof or inflater.unused_data:
        raise BitstreamError("a tile's list is cut short, too long, or followed by other bytes")
    return plain, at + size


def _varint(value: int) -> bytes:
    out = bytearray()
    while value > 127:
        out.append(value & 127 | 128)
        value >>= 7
    return bytes((*out, value))


def _read_varint(data: bytes | memoryview, start: int) -> tuple[int, int]:
    value = 0
    for i, byte in enumerate(data[start : start + _VARINT_BYTES]):
        value |= (byte & 127) << 7 * i
        if byte < 128:
            return value, start + i + 1
    raise BitstreamError("a number in a tile is cut short or too long")
