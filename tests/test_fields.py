"""The fields of boxes against bytes made by hand from codecs/FORMAT.md."""

import struct

import pytest

from latentpack.codecs import fields
from latentpack.kernels.errors import BitstreamError


@pytest.mark.parametrize(
    "value, coded",
    [
        (0, "00"),
        (1, "01"),
        (127, "7f"),
        (128, "80 01"),
        (300, "ac 02"),
        (16384, "80 80 01"),
        (2**63 - 1, "ff ff ff ff ff ff ff ff 7f"),
    ],
)
def test_varint(value, coded):
    data = bytes.fromhex(coded)
    assert fields.put_varint(value) == data
    cursor = fields.Cursor(memoryview(data + b"z"), 0)
    assert fields.get_varint(cursor) == value
    assert cursor.left == 1


@pytest.mark.parametrize(
    "coded, message",
    [
        ("80 00", "longer than it needs"),
        ("ac 82 00", "longer than it needs"),
        ("80", "needs 1 bytes but 0"),
        ("", "needs 1 bytes but 0"),
        ("ff ff ff ff ff ff ff ff ff 01", "longer than 9 bytes"),
    ],
)
def test_bad_varint(coded, message):
    with pytest.raises(BitstreamError, match=message):
        fields.get_varint(fields.Cursor(memoryview(bytes.fromhex(coded)), 0))


def test_varint_range():
    for value in (-1, 2**63):
        with pytest.raises(ValueError, match="0 to 2"):
            fields.put_varint(value)


@pytest.mark.parametrize(
    "value, coded",
    [
        (None, "f6"),
        (True, "f5"),
        (False, "f4"),
        (23, "17"),
        (24, "18 18"),
        (-500, "39 01 f3"),
        (2**64 - 1, "1b ff ff ff ff ff ff ff ff"),
        (-(2**64), "3b ff ff ff ff ff ff ff ff"),
        (1.5, "f9 3e 00"),
        (0.1, "fb 3f b9 99 99 99 99 99 9a"),
        (float("inf"), "f9 7c 00"),
        (b"\xff", "41 ff"),
        ("é", "62 c3 a9"),
        ([1, []], "82 01 80"),
        ({"b": 1, "aa": {}}, "a2 61 62 01 62 61 61 a0"),
    ],
)
def test_cbor(value, coded):
    data = bytes.fromhex(coded)
    assert fields.put_cbor(value, 1000) == data
    assert fields.get_cbor(memoryview(data), 0, "map") == value


def test_cbor_nan_has_one_spelling():
    assert fields.put_cbor(float("nan"), 9) == bytes.fromhex("f9 7e 00")
    assert fields.get_cbor(memoryview(bytes.fromhex("f9 7e 00")), 0, "x") != 0
    with pytest.raises(BitstreamError, match="deterministic"):
        fields.get_cbor(memoryview(bytes.fromhex("f9 7e 01")), 0, "x")


BAD_CBOR = {
    "": "needs 1 bytes",
    "18 17": "deterministic",  # 23 in two bytes
    "1b 00 00 00 00 00 00 00 01": "deterministic",
    "fb 3f f8 00 00 00 00 00 00": "deterministic",  # 1.5 in eight bytes
    "a2 61 62 01 61 61 02": "deterministic",  # keys out of order
    "a2 61 61 01 61 61 02": "deterministic",  # key repeated
    "a1 01 02": "not a text string",
    "a1 41 61 02": "not a text string",
    "81": "states 1 items, 0 bytes",
    "9b ff ff ff ff ff ff ff ff": "states 18446744073709551615 items",
    "ba ff ff ff ff 00": "states 4294967295 items",
    "5a 7f ff ff ff 00": "needs 2147483647 bytes but 1",
    "7b ff ff ff ff ff ff ff ff": "needs 18446744073709551615 bytes",
    "62 61": "needs 2 bytes but 1",
    "61 ff": "text",  # not UTF-8
    "63 ed a0 80": "text",  # a surrogate
    "9f 01 ff": "0x9f is not allowed",  # indefinite length
    "bf ff": "0xbf is not allowed",
    "7f 61 61 ff": "0x7f is not allowed",
    "c2 41 01": "0xc2 is not allowed",  # tags: big integer, date, shared value
    "c0 60": "0xc0 is not allowed",
    "d8 1c 80": "0xd8 is not allowed",
    "f7": "0xf7 is not allowed",  # undefined
    "e0": "0xe0 is not allowed",  # simple values
    "f8 20": "0xf8 is not allowed",
    "ff": "0xff is not allowed",
    "1c": "0x1c is not allowed",
    "01 01": "1 bytes follow",
    "81 " * 16 + "81 80": "or 16 levels",
}


@pytest.mark.parametrize("coded", BAD_CBOR)
def test_bad_cbor(coded):
    with pytest.raises(BitstreamError, match=BAD_CBOR[coded]):
        fields.get_cbor(memoryview(bytes.fromhex(coded)), 0, "map")


def test_cbor_items_are_bounded():
    data = b"\x9a" + struct.pack(">I", 1 << 21) + bytes(1 << 21)
    with pytest.raises(BitstreamError, match="over 1048576 items"):
        fields.get_cbor(memoryview(data), 0, "map")


@pytest.mark.parametrize(
    "value", [(1, 2), {1: 2}, {1, 2}, 2**64, object(), "\ud800", 1j, {"a": {b"b": 1}}]
)
def test_cbor_rejects_what_the_format_does_not_have(value):
    with pytest.raises(ValueError):
        fields.put_cbor(value, 1000)


def test_cbor_rejects_what_is_too_deep_or_too_large():
    nested = []
    for _ in range(17):
        nested = [nested]
    with pytest.raises(ValueError, match="16 deep"):
        fields.put_cbor(nested, 1000)
    with pytest.raises(ValueError, match="may take 10 bytes here, got 12"):
        fields.put_cbor("x" * 11, 10)
