"""The head of coded pages: one list of fields, for both directions (FORMAT.md, section 12.2)."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Self

import numpy as np
import numpy.typing as npt
import torch
import xxhash

from ...kernels.errors import BitstreamError
from .dtypes import IDS, dtype_of
from .kv_tables import LAYOUTS

SIGNATURE = b"\x89LKV\x01"
MAX_PAGE = 4096  # tokens
ALIGN = 16
_START = struct.Struct("<5sBBB8sIIII")
_SIZES = struct.Struct("<II")
RECORD = np.dtype([("size", "<u4"), ("checksum", "<u4")])

Records = npt.NDArray[np.void]
Buffer = bytes | bytearray | memoryview


def padded(size: int) -> int:
    """The next multiple of ALIGN."""
    return -(-size // ALIGN) * ALIGN


def checksum(data: Buffer) -> int:
    """Low 32 bits of XXH3-64."""
    return xxhash.xxh3_64_intdigest(data) & 0xFFFFFFFF


@dataclass(frozen=True)
class Head:
    """What some coded pages hold.

    Attributes:
        dtype: of the elements.
        stacked: whether the tensors have a dimension of layers.
        digest: 8 bytes, names the tables.
        first_layer: the tables' number of the first layer.
        layers: how many there are.
        tokens: of every layer.
        page: tokens of a page, 1 to MAX_PAGE; the last page may have fewer.
        sizes: (kv_heads, head_dim) of one or two tensors.
    """

    dtype: torch.dtype
    stacked: bool
    digest: bytes
    first_layer: int
    layers: int
    tokens: int
    page: int
    sizes: tuple[tuple[int, int], ...]

    @property
    def pages(self) -> int:
        """How many pages there are."""
        return -(-self.tokens // self.page)

    def tokens_of(self, page: int) -> int:
        """Tokens of one page."""
        return min(self.page, self.tokens - page * self.page)

    @property
    def token_bytes(self) -> int:
        """Bytes of the elements of one token in one layer."""
        return sum(heads * dim for heads, dim in self.sizes) * self.dtype.itemsize

    def put(self, records: Records) -> bytes:
        """The bytes of the head with the records [pages * layers] and their checksum."""
        start = _START.pack(
            SIGNATURE,
            IDS[self.dtype],
            len(self.sizes),
            self.stacked,
            self.digest,
            self.first_layer,
            self.layers,
            self.tokens,
            self.page,
        )
        data = start + b"".join(_SIZES.pack(*pair) for pair in self.sizes) + records.tobytes()
        data += bytes(padded(len(data) + 4) - len(data) - 4)
        return data + checksum(data).to_bytes(4, "little")

    @classmethod
    def get(cls, data: memoryview) -> tuple[Self, Records, int]:
        """Read a head: itself, its records, and where the blocks start.

        Raises:
            BitstreamError: it is damaged, or of another format or version.
        """
        if len(data) < _START.size:
            raise BitstreamError(f"{len(data)} bytes are too few for coded pages")
        signature, dtype, tensors, stacked, digest, *numbers = _START.unpack_from(data)
        if signature[:4] != SIGNATURE[:4]:
            raise BitstreamError(f"not coded pages: they start with {signature[:4].hex(' ')}")
        if signature != SIGNATURE:
            raise BitstreamError(
                f"coded pages of version {signature[4]}; this release reads version 1"
            )
        if tensors not in (1, 2) or stacked > 1:
            raise BitstreamError(f"{tensors} tensors, flag {stacked}: expected 1 or 2, 0 or 1")
        at = _START.size + tensors * _SIZES.size
        if len(data) < at:
            raise BitstreamError(f"coded pages end inside their sizes, at {len(data)} bytes")
        sizes = tuple(_SIZES.iter_unpack(data[_START.size : at]))
        first, layers, tokens, page = numbers
        head = cls(dtype_of(dtype), bool(stacked), digest, first, layers, tokens, page, sizes)
        head._check()
        end = padded(at + head.pages * head.layers * RECORD.itemsize + 4)
        if len(data) < end:
            raise BitstreamError(f"a head of {end} bytes, {len(data)} bytes are there")
        if checksum(data[: end - 4]) != int.from_bytes(data[end - 4 : end], "little"):
            raise BitstreamError("the head of coded pages is damaged: its checksum differs")
        return head, np.frombuffer(data, RECORD, head.pages * head.layers, at), end

    def _check(self) -> None:
        if self.dtype not in LAYOUTS:
            raise BitstreamError(f"pages of {self.dtype}, which caches are not made of")
        if not 1 <= self.page <= MAX_PAGE:
            raise BitstreamError(f"pages of {self.page} tokens, expected 1 to {MAX_PAGE}")
        if not (self.stacked or self.layers == 1):
            raise BitstreamError(f"{self.layers} layers without a dimension for them")
        if self.page * self.token_bytes >= 1 << 32 or self.token_bytes == 0:
            raise BitstreamError(f"{self.page} tokens of {self.token_bytes} bytes in a block")
