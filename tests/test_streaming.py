"""Writer and Reader at work: what they refuse, and how much they hold and read."""

import io
import tracemalloc

import pytest

from latentpack.codecs.codec import Packet
from latentpack.codecs.container import Reader, Writer
from latentpack.kernels.errors import BitstreamError


def write(packets):
    file = io.BytesIO()
    with Writer(file, 1, {}) as writer:
        for packet in packets:
            writer.write(packet)
    return file.getvalue()


def peak_of(action):
    """The memory that an action takes, in bytes."""
    tracemalloc.start()
    try:
        action()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def test_writer_rejects():
    writer = Writer(io.BytesIO(), 1, {})
    writer.write(Packet("a", b""))
    with pytest.raises(ValueError, match="'a' is already in the file"):
        writer.write(Packet("a", b""))
    with pytest.raises(ValueError, match="must be str, int or None"):
        writer.write(Packet(1.5, b""))
    with pytest.raises(ValueError, match="may take 4096 bytes here"):
        writer.write(Packet("a" * 5000, b""))
    writer.close()
    with pytest.raises(RuntimeError, match="closed"):
        writer.write(Packet("b", b""))
    for params in ({"a": (1,)}, {1: 1}, None, {"a": b"x" * (1 << 16)}):
        file = io.BytesIO()
        with pytest.raises(ValueError):
            Writer(file, 1, params)
        assert not file.getvalue()


def test_writer_leaves_a_file_without_end_after_an_exception():
    file = io.BytesIO()
    with pytest.raises(ZeroDivisionError), Writer(file, 1, {}) as writer:
        writer.write(Packet(None, b"abc"))
        raise ZeroDivisionError
    packets = Reader(file.getvalue()).packets()
    assert next(packets) == Packet(None, b"abc")
    with pytest.raises(BitstreamError, match="without box E"):
        next(packets)


def test_writer_needs_no_seek_and_little_memory():
    class Sink(io.RawIOBase):
        written = 0

        def writable(self):
            return True

        def write(self, data):
            self.written += len(data)
            return len(data)

    sink, bulk = Sink(), bytes(1 << 20)

    def run():
        with Writer(sink, 1, {}) as writer:
            for i in range(64):
                writer.write(Packet(i, b"x", bulk))

    assert peak_of(run) < 200_000
    assert sink.written > 64 << 20


def test_reader_of_a_file_holds_one_packet(tmp_path):
    path = tmp_path / "x.lpk"
    with path.open("wb") as file, Writer(file, 1, {}) as writer:
        for i in range(32):
            writer.write(Packet(i, b"x", bytes(1 << 20)))
    with path.open("rb") as file:
        assert peak_of(lambda: sum(1 for _ in Reader(file).packets())) < 3 << 20


def test_reading_one_packet_leaves_the_rest_alone(tmp_path):
    class Counting(io.BytesIO):
        count = 0

        def read(self, size=-1):
            data = super().read(size)
            self.count += len(data)
            return data

    file = Counting(write([Packet(i, b"x", bytes(1 << 16)) for i in range(50)]))
    reader = Reader(file)
    assert len(reader.read(31).bulk) == 1 << 16
    assert file.count < (1 << 16) + 1000


def test_missing_and_unnamed_keys():
    two = Reader(write([Packet("a", b"hi"), Packet(7, b"!")]))
    with pytest.raises(KeyError, match="no packet has the key 'b'"):
        two.read("b")
    with pytest.raises(KeyError, match="no packet has the key None"):
        two.read(None)
    unnamed = Reader(write([Packet(None, b"1"), Packet(None, b"2")]))
    assert unnamed.keys() == [None, None]
    with pytest.raises(KeyError, match="several packets have no key"):
        unnamed.read(None)
