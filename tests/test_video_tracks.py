"""Packets of tracks as bytes: they come back as they were, take little room, survive damage."""

import random
import zlib

import pytest

from latentpack.codecs.fields import put_varint
from latentpack.codecs.video.tracks import (
    MOST_PACKETS,
    MOST_TRACKS,
    TrackPacket,
    get_part,
    part_key,
    put_part,
    track_of,
)
from latentpack.kernels.errors import BitstreamError

_PRIMING = (("skip_samples", bytes([0, 4, 0, 0, 0, 0, 0, 0, 0, 0])),)


def _sound(count: int, start: int = -1024) -> list[TrackPacket]:
    random.seed(count)
    sizes = [random.randrange(300, 400) for _ in range(count)]
    return [
        TrackPacket(
            2, random.randbytes(size), start + i * 1024, start + i * 1024, 1024, True,
            _PRIMING if i == 0 else (),
        )
        for i, size in enumerate(sizes)
    ]  # fmt: skip


def _pictures() -> list[TrackPacket]:
    """With B frames, unknown times, empty data and several side data."""
    random.seed(7)
    order = [0, 3, 1, 2, 6, 4, 5]
    packets = [
        TrackPacket(0, random.randbytes(9 * i), 1001 * p, 1001 * (i - 2), 0, i == 0)
        for i, p in enumerate(order)
    ]
    packets[3] = packets[3]._replace(pts=None)
    packets[4] = packets[4]._replace(dts=None)
    packets[5] = packets[5]._replace(pts=None, dts=None, side=(("a", b""), ("ä", b"\0" * 300)))
    return packets


@pytest.mark.parametrize("packets", [_sound(1), _sound(50), _pictures()], ids=["1", "50", "b"])
def test_packets_come_back(packets: list[TrackPacket]) -> None:
    assert get_part(put_part(packets), packets[0].track) == packets


def test_literal_bytes() -> None:
    numbers = bytes([2, 14, 3, 20, 4, 0])  # key, clock 7, pts 5, duration 10, two bytes, no side
    packed = zlib.compress(numbers, 9)
    body = put_varint(1) + put_varint(len(packed)) + packed + b"ab"
    packet = TrackPacket(9, b"ab", 5, 7, 10, True)
    assert put_part([packet]) == body
    assert get_part(body, 9) == [packet]


def test_sound_costs_two_bytes_to_a_packet() -> None:
    packets = _sound(94)  # two seconds at 48 kHz
    assert len(put_part(packets)) - sum(len(p.data) for p in packets) <= 2.5 * len(packets)


def test_keys() -> None:
    assert part_key(0, 0) == "t0/0"
    assert part_key(17, 123) == "t17/123"
    assert track_of("t17/123") == 17
    for key in (None, 3, "t", "t1", "t01/0", "t1/00", "t999/0", "t1/1 ", "x1/1", "t-1/0"):
        assert track_of(key) is None
    with pytest.raises(ValueError, match="256 at most"):
        part_key(MOST_TRACKS, 0)


def test_what_a_part_cannot_hold() -> None:
    with pytest.raises(ValueError, match="1 to 4096 packets, got 0"):
        put_part([])
    packet = TrackPacket(0, b"", 0, 0, 0, True)
    with pytest.raises(ValueError, match="got 4097"):
        put_part([packet] * (MOST_PACKETS + 1))
    assert len(get_part(put_part([packet] * MOST_PACKETS), 0)) == MOST_PACKETS
    with pytest.raises(ValueError, match="has the time"):
        put_part([packet._replace(pts=1 << 60)])
    with pytest.raises(ValueError, match="take fewer"):
        put_part([packet._replace(side=(("x", bytes(1 << 20)),))])


@pytest.mark.parametrize(
    ("body", "problem"),
    [
        (b"", "count of packets"),
        (put_varint(0), "expected 1 to 4096"),
        (put_varint(1 << 40), "expected 1 to 4096"),
        (put_varint(1) + put_varint(9), "needs 9 bytes"),
        (put_varint(1) + put_varint(4) + b"abcd", "times of packets"),
    ],
)
def test_illegal_parts(body: bytes, problem: str) -> None:
    with pytest.raises(BitstreamError, match=problem):
        get_part(body, 0)


@pytest.mark.parametrize(
    ("numbers", "problem"),
    [
        (bytes([2, 0, 0, 0, 0]), "more than there are numbers"),
        (bytes([16, 0, 0, 0, 0, 0]), "flags"),
        (bytes([2, 0, 0, 0, 1, 0]), "size of a packet"),
        (bytes([2, 0, 0, 0, 2, 0]), "needs 1 bytes"),
        (bytes([2, 0, 0, 0, 0, 2]), "side data"),
        (bytes([2, 0, 0, 0, 0, 2, 1, 255, 0]), "is no text"),
        (bytes([2, 0, 0, 0, 0, 0, 7]), "left over"),
        (bytes([2]) + put_varint(1 << 62) + bytes(4), "times of a packet"),
        (bytes(1 << 21), "do not end"),
    ],
)
def test_illegal_numbers(numbers: bytes, problem: str) -> None:
    packed = zlib.compress(numbers)
    with pytest.raises(BitstreamError, match=problem):
        get_part(put_varint(1) + put_varint(len(packed)) + packed, 0)


def test_damage_is_an_error_or_another_part() -> None:
    """Cut at every byte, and one byte changed: never anything else than BitstreamError."""
    body = put_part(_pictures())
    for size in range(len(body)):
        with pytest.raises(BitstreamError):
            get_part(body[:size], 0)
    random.seed(1)
    for _ in range(3000):
        changed = bytearray(body)
        for _ in range(random.randrange(1, 4)):
            changed[random.randrange(len(changed))] = random.randrange(256)
        try:
            get_part(bytes(changed), 0)
        except BitstreamError:
            pass


def test_damaged_numbers_are_an_error_or_another_part() -> None:
    """Behind zlib's checksum too."""
    packets = _pictures()
    body = put_part(packets)
    plain = zlib.decompress(body[3 if body[1] & 128 else 2 :])
    data = b"".join(p.data for p in packets)
    random.seed(2)
    for _ in range(3000):
        numbers = bytearray(plain)
        for _ in range(random.randrange(1, 4)):
            numbers[random.randrange(len(numbers))] = random.randrange(256)
        packed = zlib.compress(bytes(numbers), 1)
        try:
            get_part(put_varint(len(packets)) + put_varint(len(packed)) + packed + data, 0)
        except BitstreamError:
            pass
