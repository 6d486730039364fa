"""Boxes, the parts of a .lpk file: declared once, as data, for writing and for reading.

    box = type u8, varint body size, varint bulk size, body, u32 checksum,
          [zeros up to a multiple of 16, bulk]                      (if the bulk size is not 0)

FORMAT.md, section 2, is the specification.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Any, BinaryIO

import xxhash

from ..kernels.errors import BitstreamError
from . import fields
from .codec import Buffer
from .fields import Cursor

VERSION = 1
ALIGNMENT = 16  # of bulk bytes, counted from the start of the file
MAX_PARAMETER_BYTES = 1 << 16
MAX_METADATA_BYTES = 1 << 24
_HEAD = 1 + 2 * fields.MAX_VARINT_BYTES  # longest type and sizes of a box

BOXES = {
    "H": (
        ("version", fields.U8),
        ("codec_id", fields.VARINT),
        ("params", fields.map_to_end(MAX_PARAMETER_BYTES, optional=True)),
    ),
    "M": (("metadata", fields.map_to_end(MAX_METADATA_BYTES, optional=False)),),
    "P": (("key", fields.KEY), ("body", fields.REST)),
    "I": (("entries", fields.ENTRIES),),
    "E": (("index_offset", fields.OFFSET),),
}
# Which critical boxes may follow which; ancillary ones may stand anywhere between H and E
# except between I and E.
AFTER = {"H": "MPE", "M": "PE", "P": "PIE", "I": "E", "E": ""}


def checksum(data: Buffer) -> int:
    """Return the low 32 bits of XXH3-64, the checksum of boxes and of chunks inside codecs."""
    return xxhash.xxh3_64_intdigest(data) & 0xFFFFFFFF


def padding(offset: int) -> int:
    """Return how many zeros bring an offset to the next multiple of ALIGNMENT."""
    return -offset % ALIGNMENT


def put_box(kind: str, bulk_size: int = 0, **values: Any) -> bytes:
    """Return a box up to its checksum; padding and bulk come after it."""
    body = b"".join(field.put(values[name]) for name, field in BOXES[kind])
    head = kind.encode() + fields.put_varint(len(body)) + fields.put_varint(bulk_size)
    return head + body + checksum(head + body).to_bytes(4, "little")


@dataclass(frozen=True)
class Box:
    """A box that has been read and checked; `fields` is {} for ancillary ones."""

    kind: str
    offset: int
    fields: dict[str, Any]
    bulk: tuple[int, int]  # offset and size
    end: int


class Source:
    """Random access to a buffer (no copies) or to a seekable file."""

    def __init__(self, source: Buffer | BinaryIO | Any) -> None:
        """Take bytes, a buffer, or a seekable binary file."""
        if hasattr(source, "seek") and hasattr(source, "read") and not _is_buffer(source):
            self._file = source
            self.size: int = source.seek(0, os.SEEK_END)
        else:
            self._file = None
            self._view = memoryview(source).cast("B")  # type: ignore[arg-type]
            self.size = len(self._view)

    def read(self, offset: int, count: int) -> memoryview:
        """Return bytes which the caller knows to lie inside [0, size)."""
        if self._file is None:
            return self._view[offset : offset + count]
        self._file.seek(offset)
        data = self._file.read(count)
        if len(data) != count:
            raise BitstreamError(f"the file lost its bytes from {offset + len(data)} on")
        return memoryview(data)


def _is_buffer(source: object) -> bool:
    """Tell whether a source exposes its bytes; an mmap does although it can seek, too."""
    try:
        memoryview(source)  # type: ignore[arg-type]
    except TypeError:
        return False
    return True


def _compare_checksums(what: str, head: memoryview, rest: memoryview) -> None:
    """Raise unless the last 4 bytes of `rest` are the checksum of all before them."""
    digest = xxhash.xxh3_64(head)
    digest.update(rest[:-4])
    got, stated = digest.intdigest() & 0xFFFFFFFF, int.from_bytes(rest[-4:], "little")
    if got != stated:
        raise BitstreamError(f"{what}: its checksum is {got:08x}, the file says {stated:08x}")


def get_box(source: Source, offset: int) -> Box:
    """Read, check and take apart the box at an offset; its bulk is not read."""
    head = Cursor(source.read(offset, max(0, min(_HEAD, source.size - offset))), offset)
    if not head.left:
        raise BitstreamError(f"the file ends at offset {offset} without box E; it was cut")
    kind = chr(head.take(1, "box")[0])
    if not (kind.isascii() and kind.isalpha()):
        raise BitstreamError(f"box at offset {offset}: type {ord(kind):#04x} is not a letter")
    size = fields.get_varint(head, f"size of box {kind}")
    bulk_size = fields.get_varint(head, f"bulk size of box {kind}")
    body_at = offset + head.position
    after = body_at + size + 4
    bulk_at = after + (padding(after) if bulk_size else 0)
    end = bulk_at + bulk_size
    if end > source.size:
        raise BitstreamError(
            f"box {kind} at offset {offset} ends at {end} but the file at {source.size}"
        )
    rest = source.read(body_at, size + 4)
    _compare_checksums(f"box {kind} at offset {offset}", head.data[: head.position], rest)
    if any(source.read(after, bulk_at - after)):
        raise BitstreamError(f"padding at offset {after}: its bytes must be 0")
    values = _fields(kind, rest[:size], body_at, bulk_size)
    return Box(kind, offset, values, (bulk_at, bulk_size), end)


def _fields(kind: str, body: memoryview, origin: int, bulk_size: int) -> dict[str, Any]:
    """Take a body apart as BOXES declares it."""
    if kind.islower():
        return {}
    if kind not in BOXES:
        raise BitstreamError(f"box {kind!r} at offset {origin} is unknown; update latentpack")
    if bulk_size and kind != "P":
        raise BitstreamError(f"box {kind} at offset {origin}: only packets may have a bulk")
    cursor = Cursor(body, origin)
    values = {}
    for name, field in BOXES[kind]:
        values[name] = field.get(cursor)
        if name == "version" and values[name] != VERSION:
            raise BitstreamError(
                f"format version {values[name]} is unknown; this release reads version "
                f"{VERSION}; the file may need a newer latentpack"
            )
    if cursor.left:
        raise cursor.error(f"box {kind}", f"{cursor.left} bytes too many")
    return values
