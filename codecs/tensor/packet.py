"""The body of a tensor's packet: one list of fields, for both directions."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch

from ...kernels.errors import BitstreamError
from ..fields import Cursor, Key, get_key, get_varint, put_key, put_varint
from .dtypes import dtype_id, dtype_of

ELEMENTS, CODED, CODED_BULK, REPEAT = 0, 1, 2, 3
_KINDS = ("elements", "coded", "coded, in the bulk", "those of another tensor")
_RUNS = 0x80
MAX_RANK = 64


@dataclass(frozen=True)
class Start:
    """The start of every body: what the tensor is, and what follows.

    Attributes:
        dtype: of the tensor.
        kind: ELEMENTS (the rest of the body is the elements), CODED (varint length of the head,
            head, coded bytes), CODED_BULK (the rest is the head, the bulk is the coded bytes),
            REPEAT (the elements are those of an earlier packet; the rest is a `Repeat`).
        shape: sizes; the number of elements times the itemsize is below 2**63.
    """

    dtype: torch.dtype
    kind: int
    shape: tuple[int, ...]

    @property
    def nbytes(self) -> int:
        """Bytes of the tensor's elements."""
        return math.prod(self.shape) * self.dtype.itemsize

    def put(self) -> bytes:
        """The bytes of this start: u8 dtype, u8 kind, the shape."""
        return bytes([dtype_id(self.dtype), self.kind]) + put_shape(self.shape)

    @classmethod
    def get(cls, cursor: Cursor) -> Start:
        """Read it back; BitstreamError where a field is illegal."""
        dtype = dtype_of(cursor.take(1, "dtype")[0])
        kind = cursor.take(1, "kind")[0]
        if kind >= len(_KINDS):
            raise cursor.error("kind", f"is {kind}, expected 0 to {len(_KINDS) - 1}")
        start = cls(dtype, kind, get_shape(cursor))
        # As torch counts strides: an empty tensor's other sizes must not overflow either.
        if math.prod(max(size, 1) for size in start.shape) * dtype.itemsize >= 1 << 63:
            raise BitstreamError(f"the shape {start.shape} has over 2**63 bytes")
        return start


@dataclass(frozen=True)
class Repeat:
    """The rest of a body of kind REPEAT.

    Attributes:
        key: of an earlier packet of the same dtype and shape, which is no REPEAT.
        shared: the two were one tensor (a tied parameter), not two equal ones.
    """

    key: Key
    shared: bool

    def put(self) -> bytes:
        """The bytes: u8 shared, the key as in section 3 of FORMAT.md."""
        return bytes([self.shared]) + put_key(self.key)

    @classmethod
    def get(cls, cursor: Cursor) -> Repeat:
        """Read it back, to the end of the body."""
        shared = cursor.take(1, "shared")[0]
        if shared > 1:
            raise cursor.error("shared", f"is {shared}, expected 0 or 1")
        key = get_key(cursor)
        if key is None or cursor.left:
            raise cursor.error("key", "it must name an earlier tensor and end the body")
        return cls(key, bool(shared))


def put_shape(shape: tuple[int, ...]) -> bytes:
    """The rank, then the sizes, or runs of equal sizes where that is shorter."""
    runs: list[list[int]] = []
    for size in shape:
        if runs and runs[-1][0] == size:
            runs[-1][1] += 1
        else:
            runs.append([size, 1])
    plain = bytes([len(shape)]) + b"".join(put_varint(size) for size in shape)
    packed = bytes([len(shape) | _RUNS])
    packed += b"".join(put_varint(size) + bytes([count]) for size, count in runs)
    return min(plain, packed, key=len)


def get_shape(cursor: Cursor) -> tuple[int, ...]:
    """The shape that `put_shape` wrote."""
    rank = cursor.take(1, "rank")[0]
    runs, rank = bool(rank & _RUNS), rank & ~_RUNS
    if rank > MAX_RANK:
        raise cursor.error("rank", f"is {rank}, expected at most {MAX_RANK}")
    shape: list[int] = []
    while len(shape) < rank:
        size = get_varint(cursor, "size")
        count = cursor.take(1, "run")[0] if runs else 1
        if not 1 <= count <= rank - len(shape):
            raise cursor.error("run", f"is {count}, {rank - len(shape)} sizes are open")
        shape += [size] * count
    return tuple(shape)
