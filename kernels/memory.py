"""Large blocks of fresh memory, on large pages where the system has them.

The first touch of a small page of 4 KiB costs the system about as long as coding 4 KiB does
several times over; a page of 2 MiB costs it once.
"""

import importlib
import types
from collections.abc import Callable

import numpy as np

Buffer = bytes | bytearray | memoryview
LARGE = 4 << 20  # bytes; below, it makes no difference
LINE = 64  # bytes of a cache line


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
    if len(data) < LINE or _address(to) != _address(data):
        to[:] = data


class NewBytes:
    """Bytes that are written before they become `bytes`.

    Attributes:
        view: the memory to write to; nobody may use it after `finish`.
    """

    def __init__(self, size: int) -> None:
        """Reserve up to `size` bytes; what is not written to costs nothing."""
        cpp = _compiled() if size >= LARGE else None
        self._finish: Callable[[int], bytes]
        if cpp is None:
            self.view = room(size)
            self._finish = lambda used: bytes(self.view[:used])
        else:
            token, self.view = cpp.memory_new_bytes(size)
            self._finish = lambda used: cpp.memory_finish_bytes(token, used)

    def finish(self, used: int) -> bytes:
        """Return the first `used` bytes."""
        return self._finish(used)
