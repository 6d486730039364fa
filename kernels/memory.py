"""Large blocks of fresh memory, on large pages where the system has them.

The first touch of a small page of 4 KiB costs the system about as long as coding 4 KiB does
several times over; a page of 2 MiB costs it once.
"""

import importlib
import types

import numpy as np

Buffer = bytes | bytearray | memoryview
LARGE = 4 << 20  # bytes; below, it makes no difference


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
