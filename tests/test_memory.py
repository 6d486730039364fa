"""Large blocks of memory: the same results with and without large pages."""

import numpy as np

from latentpack.kernels import memory


def test_join_equals_bytes_join():
    large = np.random.default_rng(1).integers(0, 256, memory.LARGE, np.uint8)
    for parts in ([], [b""], [b"ab", bytearray(b"c"), memoryview(b"d")]):
        assert memory.join(parts) == b"".join(parts)
    parts = [b"start", large.data, memoryview(b"0123")[1:], b""]
    assert memory.join(parts) == b"".join(parts)


def test_room_is_writable_and_as_large_as_asked():
    for size in (0, 1, memory.LARGE + 5):
        room = memory.room(size)
        assert room.nbytes == size
        if size:
            room[-1] = 7
            assert room[-1] == 7
