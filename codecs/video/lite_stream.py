"""Groups of pictures of `video/lite` as bytes, and frames as what the networks take.

Integers first: `parse_group` runs no float network, so a whole group can be parsed ahead of its
pictures, on any machine to the same integers.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ...entropy.coder import Decoder
from ...kernels import motion
from ..fields import Cursor, get_signed, get_varint, put_signed, put_varint
from ..image.light_frozen import POSITIONS
from .frames import Planes, VideoFormat
from .lite_blocks import LATENTS
from .lite_frames import Integers, parse_inter, parse_intra
from .lite_frozen import FrozenLite

SIDE = 32  # luma samples to a side of one z
BLOCK = 16  # of one vector of latents
_POSITION_BYTES = 2
_GREY = 128 / 255  # U and V of frames without colours


class Parsed(NamedTuple):
    """What the stream says of a frame.

    Attributes:
        position: of the rate.
        vectors: the field, int16 [1, h, w, 2]; None for a frame that stands alone.
        integers: of latents and side information.
    """

    position: int
    vectors: Tensor | None
    integers: Integers


def padded(format: VideoFormat) -> tuple[int, int]:
    """Height and width of luma as the networks see it: whole cells."""
    return -(-format.height // SIDE) * SIDE, -(-format.width // SIDE) * SIDE


def to_input(planes: Planes, format: VideoFormat) -> tuple[Tensor, Tensor]:
    """A frame with its last rows and columns repeated, in [0, 1]: Y [1, H, W], UV [2, H/2, W/2]."""
    height, width = padded(format)
    unit = 1 / ((1 << format.bits) - 1)
    y = _repeated(planes[0], height, width) * unit
    if len(planes) == 1:
        return y, torch.full((2, height // 2, width // 2), _GREY)
    uv = [_repeated(plane, height // 2, width // 2) for plane in planes[1:]]
    return y, torch.cat(uv) * unit


def _repeated(plane: Tensor, height: int, width: int) -> Tensor:
    """[H, W] -> float [1, height, width]."""
    right, below = width - plane.shape[1], height - plane.shape[0]
    return F.pad(plane.float()[None], (0, right, 0, below), "replicate")


def to_samples(y: Tensor, uv: Tensor, format: VideoFormat) -> Planes:
    """The mirror of `to_input`, for samples within [0, 1]."""
    top = (1 << format.bits) - 1
    cut = [x[:h, :w] for x, (h, w) in zip((y[0], *uv), format.shapes, strict=False)]
    return tuple((x * top).round().to(format.dtype).contiguous() for x in cut)


def put_group(positions: Sequence[int], fields: Sequence[bytes], stream: bytes) -> bytes:
    """Put together what is known of a group.

    Args:
        positions: of the rate, of each frame.
        fields: of the frames but the first.
        stream: of all integers.
    """
    coded = b"".join(put_varint(len(field)) + field for field in fields)
    return _put_positions(positions) + coded + stream


def _put_positions(positions: Sequence[int]) -> bytes:
    first, *others = positions
    head = first.to_bytes(_POSITION_BYTES, "little")
    if not others:
        return head
    alike = len(set(others)) == 1
    head += (2 * others[0] + alike).to_bytes(_POSITION_BYTES, "little")
    if alike:
        return head
    steps = (b - a for a, b in itertools.pairwise(others))
    return head + b"".join(put_signed(step) for step in steps)


def _get_positions(cursor: Cursor, count: int) -> list[int]:
    """The mirror of `_put_positions`."""
    positions = [_legal(cursor, _get_u16(cursor))]
    if count == 1:
        return positions
    second = _get_u16(cursor)
    positions.append(_legal(cursor, second >> 1))
    if second & 1:
        return positions + [positions[1]] * (count - 2)
    for _ in range(count - 2):
        positions.append(_legal(cursor, positions[-1] + get_signed(cursor, "rate position")))
    return positions


def _get_u16(cursor: Cursor) -> int:
    return int.from_bytes(cursor.take(_POSITION_BYTES, "rate position"), "little")


def _legal(cursor: Cursor, position: int) -> int:
    if not 0 <= position <= POSITIONS:
        raise cursor.error("rate position", f"it is {position}, legal are 0 to {POSITIONS}")
    return position


@torch.inference_mode()
def parse_group(
    model: FrozenLite, payload: memoryview, format: VideoFormat, count: int
) -> Iterator[Parsed]:
    """Yield what a payload says of `count` frames, each as soon as it is parsed.

    Raises:
        BitstreamError: the payload is not one of a group of so many frames.
    """
    cursor = Cursor(payload, 0)
    positions = _get_positions(cursor, count)
    fields = [cursor.take(get_varint(cursor, "length of a field"), "field") for _ in positions[1:]]
    decoder = Decoder(model.tables, bytes(cursor.take(cursor.left, "latents")))
    height, width = padded(format)
    h, w = height // BLOCK, width // BLOCK
    integers = parse_intra(model, decoder, h, w, positions[0])
    yield Parsed(positions[0], None, integers)
    last = torch.zeros(1, LATENTS, h, w, dtype=torch.int16)
    before: motion.Field | None = None
    for position, data in zip(positions[1:], fields, strict=True):
        before = motion.decode(data, height, width, before=before)
        vectors = torch.from_numpy(np.ascontiguousarray(before.vectors))[None]
        integers = parse_inter(model, decoder, last, vectors, position)
        last = integers.q
        yield Parsed(position, vectors, integers)
    decoder.finish()
