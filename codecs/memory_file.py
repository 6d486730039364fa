"""Files in memory in which large packets are made where they stay."""

from __future__ import annotations

import io
from typing import Any

from ..kernels import memory
from .codec import Buffer


class MemoryFile(io.RawIOBase):
    """A file in a given buffer; what was made at a `place` in it is moved only where it must be.

    Args:
        view: where the file shall be; it must be large enough.
        at_start: whether the file must begin where the buffer does. If not, what comes before
            the first bulk is put right before that when its size is known.
    """

    def __init__(self, view: memoryview, at_start: bool) -> None:
        """Begin an empty file."""
        self._view = view
        self._at_start = at_start
        self._pending: list[Buffer] = []  # written, but not in the buffer yet
        self._begin: int | None = None
        self._end = 0

    def writable(self) -> bool:
        """Return True."""
        return True

    def place(self, expected: int, most: int, size: int) -> memoryview:
        """Return memory for a bulk that will be at offset `expected` of the file.

        Args:
            expected: where it stays if that is right; it is moved if not.
            most: an upper bound of that offset, which is as good before the first bulk.
            size: bytes.
        """
        if self._begin is not None:
            at = self._begin + expected
        elif self._at_start:
            at = expected
        else:
            at = most + -most % memory.LINE
        return self._view[at : at + size]

    def write(self, data: Any) -> int:
        """Append bytes."""
        at = memory.offset_in(self._view, data) if isinstance(data, memoryview) else None
        if at is None:
            self._pending.append(data)
            return len(data)
        before = sum(map(len, self._pending))
        if self._begin is None:
            self._begin = self._end = 0 if self._at_start else at - before
        # Before what comes in front of it, which may be longer than expected.
        to = self._end + before
        memory.move(self._view[to : to + len(data)], data)
        self._put_pending()
        self._end = to + len(data)
        return len(data)

    def _put_pending(self) -> None:
        for part in self._pending:
            self._view[self._end : self._end + len(part)] = part
            self._end += len(part)
        self._pending.clear()

    def used(self) -> memoryview:
        """Return the part of the buffer that is the file."""
        self._begin = self._begin or 0
        self._put_pending()
        return self._view[self._begin : self._end]
