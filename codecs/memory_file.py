"""Files in memory in which large packets are made where they stay."""

from __future__ import annotations

import io
from collections.abc import Callable
from typing import Any

from ..kernels import memory
from .codec import Buffer


class MemoryFile(io.RawIOBase):
    """A file in memory; what was made at a `place` in it is moved only where it must be.

    Args:
        make: makes the memory where the file shall be, when the first place in it is asked for.
        at_start: whether the file must begin where the buffer does. If not, what comes before
            the first bulk is put right before that when its size is known.
    """

    def __init__(self, make: Callable[[], memoryview], at_start: bool) -> None:
        """Begin an empty file."""
        self._make = make
        self._view: memoryview | None = None
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
        view = self._in_memory()
        if self._begin is not None:
            at = self._begin + expected
        elif self._at_start:
            at = expected
        else:
            at = most + -most % memory.LINE
        return view[at : at + size]

    def _in_memory(self) -> memoryview:
        if self._view is None:
            self._view = self._make()
        return self._view

    def write(self, data: Any) -> int:
        """Append bytes."""
        view, at = self._view, None
        if view is not None and isinstance(data, memoryview):
            at = memory.offset_in(view, data)
        if view is None or at is None:
            self._pending.append(data)
            return len(data)
        before = sum(map(len, self._pending))
        if self._begin is None:
            self._begin = self._end = 0 if self._at_start else at - before
        # Before what comes in front of it, which may be longer than expected.
        to = self._end + before
        memory.move(view[to : to + len(data)], data)
        self._put_pending(view)
        self._end = to + len(data)
        return len(data)

    def _put_pending(self, view: memoryview) -> None:
        for part in self._pending:
            view[self._end : self._end + len(part)] = part
            self._end += len(part)
        self._pending.clear()

    def parts(self) -> list[Buffer] | None:
        """Return the file in parts, if no place was asked for."""
        return self._pending if self._view is None else None

    def used(self) -> memoryview:
        """Return the memory that is the file."""
        view = self._in_memory()
        self._begin = self._begin or 0
        self._put_pending(view)
        return view[self._begin : self._end]
