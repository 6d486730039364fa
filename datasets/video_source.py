"""Files that can't seek, such as pipes, for FFmpeg: most are read on the way, some are kept."""

from __future__ import annotations

import io
import shutil
import tempfile
from typing import BinaryIO, cast

_HEAD = 8  # bytes of a box of MP4 and MOV: its size, its kind
_KINDS = {b"ftyp", b"moov", b"mdat", b"free", b"skip", b"wide", b"pnot", b"uuid", b"meta"}
_MOST_AHEAD = 1 << 20  # bytes that are read to find out in which order the boxes come
_PIECE = 1 << 20


class _Replayed(io.RawIOBase):
    """Bytes that were read already, and then the rest of their file."""

    def __init__(self, head: bytes, file: BinaryIO) -> None:
        self._head, self._file = memoryview(head), file

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1) -> bytes:
        if not self._head:
            return self._file.read(size)
        found = bytes(self._head[:size] if size >= 0 else self._head)
        self._head = self._head[len(found) :]
        return found


def readable_source(file: BinaryIO) -> tuple[BinaryIO, bool]:
    """A file as FFmpeg can read it, and whether it is a new one, to be closed by the caller.

    MP4 and MOV whose index stands behind the frames are copied to a temporary file when they come
    through a pipe; everything else is read as it comes.
    """
    if file.seekable():
        return file, False
    head, behind = _look_ahead(file)
    if not behind:
        return cast(BinaryIO, _Replayed(head, file)), True
    kept = tempfile.TemporaryFile()
    try:
        kept.write(head)
        shutil.copyfileobj(file, kept, _PIECE)
        kept.seek(0)
    except BaseException:
        kept.close()
        raise
    return cast(BinaryIO, kept), True


def _look_ahead(file: BinaryIO) -> tuple[bytes, bool]:
    """The bytes read, and whether they are of an MP4 or MOV whose index is behind the frames."""
    head, position = bytearray(), 0
    while True:
        head += file.read(max(0, position + 2 * _HEAD - len(head)))
        box = bytes(head[position : position + 2 * _HEAD])
        if len(box) < _HEAD or box[4:8] not in _KINDS:
            return bytes(head), False
        if box[4:8] in (b"moov", b"mdat"):
            return bytes(head), box[4:8] == b"mdat"
        size = int.from_bytes(box[:4], "big")
        if size == 1:
            size = int.from_bytes(box[_HEAD:], "big")
        position += size
        if size < _HEAD or position > _MOST_AHEAD:
            return bytes(head), True
