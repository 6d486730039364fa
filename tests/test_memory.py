"""Large blocks of memory: the same results with and without large pages."""

import numpy as np
import pytest

from latentpack.kernels import memory


def test_join_equals_bytes_join():
    large = np.random.default_rng(1).integers(0, 256, memory.LARGE, np.uint8)
    for parts in ([], [b""], [b"ab", bytearray(b"c"), memoryview(b"d")]):
        assert memory.join(parts) == b"".join(parts)
    parts = [b"start", large.data, memoryview(b"0123")[1:], b""]
    assert memory.join(parts) == b"".join(parts)


def test_new_bytes():
    for size, used in ((0, 0), (10, 3), (memory.KEPT, memory.KEPT), (memory.KEPT + 99, 77)):
        new = memory.NewBytes(size)
        new.view[:used] = bytes(i % 251 for i in range(used))
        made = new.finish(used)
        assert type(made) is bytes
        assert made == bytes(i % 251 for i in range(used))
        assert hash(made) == hash(bytes(bytearray(made)))


def test_new_bytes_are_finished_once():
    if not memory._compiled():
        pytest.skip("without a compiler they are copied")
    new = memory.NewBytes(memory.KEPT + 1)
    with pytest.raises(ValueError, match="not so many"):
        new.finish(memory.KEPT + 2)
    new.finish(5)
    with pytest.raises(ValueError, match="finished already"):
        new.finish(5)


def test_small_new_bytes_do_not_share_their_memory():
    first, second = memory.NewBytes(100), memory.NewBytes(100)
    first.view[:5], second.view[:5] = b"first", b"other"
    assert (first.finish(5), second.finish(5)) == (b"first", b"other")


def test_where_memory_lies():
    block = memoryview(bytearray(range(200)))
    assert memory.offset_in(block, block[7:100]) == 7
    assert memory.offset_in(block[8:], block[7:100]) is None
    assert memory.offset_in(block[:99], block[7:100]) is None
    memory.move(block[5:105], block[0:100])
    assert bytes(block) == bytes([*range(5), *range(100), *range(105, 200)])


def test_room_is_writable_and_as_large_as_asked():
    for size in (0, 1, memory.LARGE + 5):
        room = memory.room(size)
        assert room.nbytes == size
        if size:
            room[-1] = 7
            assert room[-1] == 7
