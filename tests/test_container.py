"""The .lpk container against bytes made by hand from codecs/FORMAT.md."""

import io
import random
import re
import struct
import tracemalloc
from pathlib import Path

import pytest
import xxhash
from hypothesis import given
from hypothesis import strategies as st

from latentpack.codecs import fields
from latentpack.codecs.codec import Packet
from latentpack.codecs.container import Reader, Writer
from latentpack.kernels.errors import BitstreamError

# One packet without a name: codec 2, no parameters, body "abc".
ONE = bytes.fromhex(
    "89 4c 50 4b 0d 0a 1a 0a"
    "48 02 00 01 02 3e 31 02 23"
    "50 04 00 00 61 62 63 3f ea 35 2e"
    "45 00 00 a4 00 3a 7f"
)
# Two packets: codec 1, parameters {"w": 300}, metadata {"t": "x"}; packet "a" with body "hi" and
# bulk ff 00 fe after one byte of padding; packet 7 with body "!"; index; end.
TWO = bytes.fromhex(
    "89 4c 50 4b 0d 0a 1a 0a"
    "48 08 00 01 01 a1 61 77 19 01 2c d2 5e 18 96"
    "4d 05 00 a1 61 74 61 78 46 58 66 99"
    "50 05 03 02 61 61 68 69 e2 4c ff 88 00 ff 00 fe"
    "50 03 00 01 07 21 d1 0d 84 c1"
    "49 07 00 02 61 61 23 01 07 10 6a 5b 9d ab"
    "45 08 00 3d 00 00 00 00 00 00 00 f7 ad a6 73"
)
TWO_PACKETS = [Packet("a", b"hi", b"\xff\x00\xfe"), Packet(7, b"!")]
TWO_BULK = range(48, 51)
EMPTY_END = "45 00 00 a4 00 3a 7f"
SIGNATURE = ONE[:8]


def box(start, body=b""):
    """A box without bulk from its type (and sizes) and body, both as bytes or hex."""
    start = bytes.fromhex(start) if isinstance(start, str) else start
    body = bytes.fromhex(body) if isinstance(body, str) else body
    if len(start) == 1:
        start += bytes([len(body), 0])
    digest = xxhash.xxh3_64_intdigest(start + body) & 0xFFFFFFFF
    return start + body + struct.pack("<I", digest)


HEADER = box(b"H", "01 01")
END = bytes.fromhex(EMPTY_END)


def write(packets, codec_id=1, params=None, metadata=None):
    file = io.BytesIO()
    with Writer(file, codec_id, params or {}, metadata) as writer:
        for packet in packets:
            writer.write(packet)
    return file.getvalue()


def read_all(data):
    """Read everything that a file has, through both ways of access."""
    reader = Reader(data)
    packets = list(reader.packets())
    for packet in packets:
        if packet.key is not None or len(packets) == 1:
            assert reader.read(packet.key) == packet
    return reader.params, reader.metadata, packets


def rejects(data, message):
    with pytest.raises(BitstreamError, match=message):
        read_all(data)


@pytest.mark.parametrize("wrap", [bytes, bytearray, memoryview, io.BytesIO])
def test_read_one(wrap):
    reader = Reader(wrap(ONE))
    assert (reader.codec_id, reader.params, reader.metadata) == (2, {}, {})
    assert list(reader.packets()) == [Packet(None, b"abc")]
    assert reader.keys() == [None]
    assert reader.read(None).body == b"abc"


def test_write_one():
    assert write([Packet(None, b"abc")], codec_id=2) == ONE
    assert len(ONE) - 3 <= 42


@pytest.mark.parametrize("wrap", [bytes, bytearray, memoryview, io.BytesIO])
def test_read_two(wrap):
    reader = Reader(wrap(TWO))
    assert (reader.codec_id, reader.params, reader.metadata) == (1, {"w": 300}, {"t": "x"})
    assert list(reader.packets()) == TWO_PACKETS
    assert reader.keys() == ["a", 7]
    assert [reader.read(7), reader.read("a")] == TWO_PACKETS[::-1]


def test_write_two():
    assert write(TWO_PACKETS, 1, {"w": 300}, {"t": "x"}) == TWO


def test_examples_of_the_specification():
    text = (Path(__file__).parents[1] / "codecs" / "FORMAT.md").read_text()
    lines = re.findall(r"^    +((?:[0-9A-F]{2}(?: +|$))+)", text, re.MULTILINE)
    assert bytes.fromhex("".join(lines)) == ONE + TWO


def golden(name):
    return (Path(__file__).parent / "golden" / "container" / name).read_bytes()


def test_golden_files_decode_forever():
    params, metadata, packets = read_all(golden("many.lpk"))
    assert params == {"w": 300, "flag": True}
    assert metadata == {
        "icc": bytes(20),
        "notes": ["é"],
        "dpi": 72.5,
        "none": None,
        "deep": {"a": [-1]},
    }
    assert packets == [
        Packet(f"layer.{i}", bytes([i]) * i, bytes(range(i, 3 * i))) for i in range(20)
    ]
    assert read_all(golden("unnamed.lpk")) == ({}, {}, [Packet(None, b"abc")])
    assert read_all(golden("none.lpk")) == ({}, {}, [])
    numbers = Reader(golden("numbers.lpk"))
    assert numbers.keys() == [0, -1, 2**64 - 1, -(2**64)]


def test_no_packets():
    assert write([]) == SIGNATURE + HEADER + END
    assert read_all(SIGNATURE + HEADER + END) == ({}, {}, [])
    assert Reader(SIGNATURE + HEADER + END).keys() == []


def test_bulk_is_a_view_at_a_multiple_of_16():
    data = write([Packet("x", b"1", b"5" * 5), Packet("y", b"22", b"7" * 31)])
    packet = Reader(data).read("y")
    assert isinstance(packet.bulk, memoryview) and packet.bulk.obj is data
    assert data.index(b"7" * 31) % 16 == 0
    assert data.index(b"5" * 5) % 16 == 0


@pytest.mark.parametrize("size", [100, 16_500, 1 << 20])
def test_overhead_of_one_unnamed_packet(size):
    assert len(write([Packet(None, bytes(size))])) - size <= 42


NAMED = box(b"P", "02 61 61 ff")
UNNAMED = box(b"P", "00 ff")
BAD_FILES = {
    "not_lpk": (b"PK\x03\x04 something else", "not a .lpk file: it starts with 50 4b"),
    "empty": (b"", "inside its signature"),
    "part_of_signature": (SIGNATURE[:5], "offset 5, inside its signature"),
    "text_mode": (ONE.replace(b"\r\n", b"\n"), "sent in text mode"),
    "no_header": (SIGNATURE + UNNAMED + END, "box H must come first, got 'P'"),
    "unknown_version": (SIGNATURE + box(b"H", "02 01") + END, "format version 2 is unknown"),
    "empty_header": (SIGNATURE + box(b"H", "") + END, "needs 1 bytes but 0"),
    "no_codec": (SIGNATURE + box(b"H", "01") + END, "varint at offset 12: needs 1"),
    "empty_params": (SIGNATURE + box(b"H", "01 01 a0") + END, "map at offset 13"),
    "params_no_map": (SIGNATURE + box(b"H", "01 01 80") + END, "map at offset 13"),
    "two_headers": (SIGNATURE + HEADER * 2 + END, "box H at 17 can't follow box H"),
    "late_metadata": (
        SIGNATURE + HEADER + UNNAMED + box(b"M", "a1 61 61 01") + END,
        "box M at .* can't follow box P",
    ),
    "two_metadata": (
        SIGNATURE + HEADER + 2 * box(b"M", "a1 61 61 01") + END,
        "box M at .* can't follow box M",
    ),
    "type_no_letter": (SIGNATURE + HEADER + box(b"1") + END, "type 0x31 is not a letter"),
    "type_not_ascii": (SIGNATURE + HEADER + box(b"\xe9") + END, "type 0xe9 is not a letter"),
    "unknown_critical": (SIGNATURE + HEADER + box(b"Z", "00") + END, "box 'Z' .* is unknown"),
    "long_varint": (
        SIGNATURE + HEADER + box("50 82 00 00", "00 ff") + END,
        "size of box P .* longer than it needs",
    ),
    "bulk_in_header": (
        SIGNATURE + box("48 02 01", "01 01") + bytes(16) + END,
        "only packets may have a bulk",
    ),
    "key_length": (SIGNATURE + HEADER + box(b"P", "05 61 61") + END, "key at .*needs 5 bytes"),
    "key_too_long": (
        SIGNATURE + HEADER + box(b"P", "81 20" + "00" * 30) + END,
        "states 4097 bytes; at most 4096",
    ),
    "key_type": (SIGNATURE + HEADER + box(b"P", "01 f5") + END, "neither text nor an integer"),
    "key_null": (SIGNATURE + HEADER + box(b"P", "01 f6") + END, "neither text nor an integer"),
    "key_two_items": (SIGNATURE + HEADER + box(b"P", "02 01 01") + END, "1 bytes follow"),
    "key_spelling": (SIGNATURE + HEADER + box(b"P", "02 18 05") + END, "deterministic"),
    "key_twice": (SIGNATURE + HEADER + NAMED * 2 + END, "key 'a' at .* is there twice"),
    "no_index": (SIGNATURE + HEADER + UNNAMED * 2 + END, "and 2 packets"),
    "no_end": (SIGNATURE + HEADER + UNNAMED, "without box E"),
    "end_size": (SIGNATURE + HEADER + box(b"E", "00 00"), "index offset at .*needs 8 bytes"),
    "end_too_long": (SIGNATURE + HEADER + box(b"E", "00" * 9), "1 bytes too many"),
    "end_lies": (SIGNATURE + HEADER + box(b"E", "11" + "00" * 7), "says index at 17, found None"),
    "two_ends": (SIGNATURE + HEADER + END * 2, "7 bytes follow the end"),
    "trailing": (ONE + b"\0", "1 bytes follow the end at 35"),
    "padding": (TWO[:47] + b"\1" + TWO[48:], "padding at offset 47"),
    "checksum": (ONE[:24] + b"d" + ONE[25:], "its checksum is"),
}


@pytest.mark.parametrize("name", BAD_FILES)
def test_bad_file(name):
    rejects(*BAD_FILES[name])


def two_with_index(index, end=None):
    """Two packets at offsets 17 and 26 (9 bytes each), then an index at 35."""
    second = box(b"P", "01 07")
    assert len(SIGNATURE + HEADER) == 17 and len(UNNAMED) == len(second) == 9
    start = SIGNATURE + HEADER + UNNAMED + second + box(b"I", index)
    return start + box(b"E", "23 00 00 00 00 00 00 00" if end is None else end)


def test_index_by_hand():
    assert read_all(two_with_index("00 11 01 07 09"))[2] == [Packet(None, b"\xff"), Packet(7, b"")]


BAD_INDEXES = {
    "00 11": "does not list what is there",
    "00 11 01 07 08": "does not list",
    "00 11 01 08 09": "does not list",
    "00 11 01 07 09 01 08 09": "does not list",
    "00 11 01 07 00": "same offset",
    "00 11 01 07": "index distance at offset 42: needs 1 bytes",
    "": "does not list",
}


@pytest.mark.parametrize("index", BAD_INDEXES)
def test_bad_index(index):
    rejects(two_with_index(index), BAD_INDEXES[index])


@pytest.mark.parametrize("end", ["22" + "00" * 7, "24" + "00" * 7, "ff" * 8, "11" + "00" * 7, ""])
def test_bad_index_offset(end):
    data = two_with_index("00 11 01 07 09", end)
    rejects(data, "says index at")
    with pytest.raises(BitstreamError):
        Reader(data).keys()


@pytest.mark.parametrize("index", ["00 05 01 07 09", "00 11 01 07 20", "01 07 11 01 07 09"])
def test_random_access_checks_the_index(index):
    with pytest.raises(BitstreamError, match=r"outside of the packets|twice"):
        Reader(two_with_index(index)).keys()


def test_random_access_checks_what_it_finds():
    reader = Reader(two_with_index("01 07 11 00 09"))
    with pytest.raises(BitstreamError, match="says 7 is at 17; it is not"):
        reader.read(7)


def test_unknown_boxes_that_may_be_skipped():
    note = box(b"n", b"anything at all")
    with_bulk = box("71 01 05", "00") + bytes(-(17 + len(note) + 8) % 16) + b"bulk!"
    data = SIGNATURE + HEADER + note + with_bulk + UNNAMED + note + END
    assert read_all(data)[2] == [Packet(None, b"\xff")]
    metadata = SIGNATURE + HEADER + note + box(b"M", "a1 61 61 01") + note + UNNAMED + END
    assert read_all(metadata)[1] == {"a": 1}
    index = two_with_index("00 11 01 07 09")
    rejects(index[:-15] + note + index[-15:], "box n at .* can't follow box I")


def bounded(action, limit=300_000):
    """Run an action that raises BitstreamError or succeeds; it may not take much memory."""
    tracemalloc.start()
    try:
        return action()
    except BitstreamError:
        return None
    finally:
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert peak < limit


@pytest.mark.parametrize("wrap", [bytes, io.BytesIO])
@pytest.mark.parametrize("data", [ONE, TWO])
def test_truncation_at_every_offset(data, wrap):
    for size in range(len(data)):
        cut = wrap(data[:size])
        assert bounded(lambda cut=cut: read_all(cut)) is None
        assert bounded(lambda cut=cut: Reader(cut).keys()) is None


@pytest.mark.parametrize("data", [ONE, TWO])
def test_flip_of_every_bit(data):
    expected = read_all(data)
    for i in range(len(data)):
        for bit in range(8):
            damaged = bytearray(data)
            damaged[i] ^= 1 << bit
            result = bounded(lambda damaged=damaged: read_all(damaged))
            if data is TWO and i in TWO_BULK:  # the codec's business
                assert result[2][0].bulk != expected[2][0].bulk
            else:
                assert result is None


@pytest.mark.parametrize("data", [ONE, TWO])
def test_random_access_to_damaged_files(data):
    """What random access returns is right, whatever was damaged elsewhere in the file."""
    expected = {packet.key: packet for packet in read_all(data)[2]}
    for i in set(range(len(data))) - set(TWO_BULK):
        damaged = bytearray(data)
        damaged[i] ^= 0xFF
        for key, packet in expected.items():
            result = bounded(lambda damaged=damaged, key=key: Reader(damaged).read(key))
            assert result in (None, packet)


def whole_packets(data):
    found = []
    with pytest.raises(BitstreamError):
        for packet in Reader(data).packets():
            found.append(packet)
    return found


def test_a_cut_file_gives_its_whole_packets():
    for size in range(35, len(TWO)):
        expected = TWO_PACKETS[: (size >= 51) + (size >= 61)]
        assert whole_packets(TWO[:size]) == expected
        reader = Reader(TWO[:size], recover=True)
        assert [reader.read(key) for key in reader.keys()] == expected
        assert reader.metadata == {"t": "x"}


def test_recover_reads_around_a_damaged_packet():
    damaged = bytearray(TWO)
    damaged[40] ^= 1
    for recover in (False, True):
        reader = Reader(damaged, recover=recover)
        assert reader.keys() == ["a", 7]
        assert reader.read(7) == TWO_PACKETS[1]
        with pytest.raises(BitstreamError, match="box P at offset 35"):
            reader.read("a")


def test_thirty_bytes_that_state_gigabytes():
    sizes = fields.put_varint(3 << 30)
    for start in (b"P" + sizes + b"\0", b"P\1" + sizes, b"n" + sizes * 2, b"M" + sizes + b"\0"):
        data = SIGNATURE + HEADER + start
        assert len(data) <= 30
        assert bounded(lambda data=data: read_all(data)) is None
        assert bounded(lambda data=data: Reader(io.BytesIO(data)).keys()) is None


def test_random_bytes():
    rng = random.Random(1)
    for start in (b"", SIGNATURE, SIGNATURE + HEADER, SIGNATURE + HEADER + UNNAMED):
        for _ in range(300):
            data = start + rng.randbytes(rng.randrange(1, 60))
            assert bounded(lambda data=data: read_all(data)) is None


KEYS = st.none() | st.text(max_size=8) | st.integers(-(2**64), 2**64 - 1)
PACKETS = st.lists(
    st.builds(Packet, KEYS, st.binary(max_size=200), st.binary(max_size=100)),
    max_size=6,
    unique_by=lambda packet: (packet.key is None and object()) or packet.key,
)


@given(PACKETS, st.dictionaries(st.text(max_size=3), st.floats(allow_nan=False), max_size=3))
def test_round_trip(packets, params):
    data = write(packets, params=params)
    assert Reader(data).params == params
    assert list(Reader(io.BytesIO(data)).packets()) == packets
    assert read_all(data)[2] == packets
