"""Large blocks of fresh memory, on large pages where the system has them.

The first touch of a small page of 4 KiB costs the system about as long as coding 4 KiB does
several times over; a page of 2 MiB costs it once.
"""

import functools
import importlib
import threading
import types

import numpy as np

Buffer = bytes | bytearray | memoryview
LARGE = 4 << 20  # bytes; below, it makes no difference
LINE = 64  # bytes of a cache line
KEPT = 16 << 20  # bytes that may wait for their next use, per thread

_spare = threading.local()


@functools.cache
def _compiled() -> types.ModuleType | None:
    try:
        return importlib.import_module("._cpp", __package__)
    except ImportError:
        return None


def prefer_large_pages(buffer: memoryview) -> None:
    """Advise the system before a new buffer is touched. Harmless, whatever it is."""
    cpp = _compiled() if buffer.nbytes >= LARGE else None
    if cpp is not None:
        cpp.memory_prefer_large_pages(buffer)


def room(size: int) -> memoryview:
    """New writable memory of so many bytes, with any content."""
    buffer = np.empty(size, np.uint8).data
    prefer_large_pages(buffer)
    return buffer


def join(parts: list[Buffer]) -> bytes:
    """The parts one after another, as `b"".join`."""
    cpp = _compiled()
    if cpp is None or sum(len(part) for part in parts) < LARGE:
        return b"".join(parts)
    joined: bytes = cpp.memory_join(parts)
    return joined


def _address(buffer: Buffer) -> int:
    address: int = np.frombuffer(buffer, np.uint8).__array_interface__["data"][0]
    return address


def offset_in(view: memoryview, part: Buffer) -> int | None:
    """Where in `view` the memory of `part` begins; None if it is other memory."""
    offset = _address(part) - _address(view)
    return offset if 0 <= offset <= len(view) - len(part) else None


def move(to: memoryview, data: Buffer) -> None:
    """Copy bytes, which may overlap with where they go, unless they are there already."""
    if not len(data) or _address(to) != _address(data):
        to[:] = data


class NewBytes:
    """Bytes that are written before they become `bytes`.

    Small ones are made in memory that waits for its thread's next use, and copied: new memory
    costs more than that.

    Attributes:
        view: the memory to write to; nobody may use it after `finish`.
    """

    def __init__(self, size: int) -> None:
        """Reserve up to `size` bytes; of many, what is not written to costs nothing."""
        cpp = _compiled() if size > KEPT else None
        self._token: object = None
        if cpp is not None:
            self._token, self.view = cpp.memory_new_bytes(size)
            return
        kept: memoryview | None = getattr(_spare, "view", None)
        if kept is None or len(kept) < size:
            kept = room(size)
        _spare.view = None  # nobody else takes it meanwhile
        self.view = kept

    def finish(self, used: int) -> bytes:
        """Return the first `used` bytes."""
        if self._token is not None:
            return _finish(self._token, used)
        copied = bytes(self.view[:used])
        if len(self.view) <= KEPT:
            _spare.view = self.view
        return copied


def _finish(token: object, used: int) -> bytes:
    cpp = _compiled()
    assert cpp is not None  # it made the token
    made: bytes = cpp.memory_finish_bytes(token, used)
    return made
