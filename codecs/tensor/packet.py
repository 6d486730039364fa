"""The body of a tensor's packet: one list of fields, for both directions."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch

from ...kernels.errors import BitstreamError
from ..fields import Cursor, get_varint, put_varint
from .dtypes import dtype_id, dtype_of

ELEMENTS, CODED, CODED_BULK = 0, 1, 2
_KINDS = ("elements", "coded", "coded, in the bulk")
_RUNS = 0x80
MAX_RANK = 64


@dataclass(frozen=True)
class Start:
    """The start of every body: what the tensor is, and what follows.

    Attributes:
        dtype: of the tensor.
        kind: ELEMENTS (the rest of the body is the elements), CODED (varint length of the head,
            head, coded bytes), CODED_BULK (the rest is the head, the bulk is the coded bytes).
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
