"""The packets of a track that is copied beside the picture, as bytes (FORMAT.md, section 23).

A part holds packets of one track that follow each other, about those of the time of a GoP. What
says when they are shown takes two bytes to a packet and less: columns of numbers that hardly
change, packed by zlib. The packets' own bytes follow as they are.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Iterator, Sequence
from itertools import islice
from typing import NamedTuple

from ...kernels.errors import BitstreamError
from ..fields import Cursor, get_signed, get_varint, put_signed, put_varint

MOST_PACKETS = 1 << 12  # of a part
MOST_TRACKS = 1 << 8
_MOST_TIME = 1 << 60  # so that differences of times and their differences fit into varints
_MOST_NUMBERS = 1 << 20  # bytes of a part's numbers and side data
_KEY, _NO_PTS, _NO_DTS = 1, 2, 4  # flags
_PART = re.compile(r"t(0|[1-9]\d{0,2})/(0|[1-9]\d{0,9})")


class TrackPacket(NamedTuple):
    """A piece of a track, as its source has it.

    Attributes:
        track: its number in the list of tracks.
        data: the bytes.
        pts: when it is shown, in units of the track's time base; None where that isn't said.
        dts: when it is decoded.
        duration: 0 if that is not known.
        key: whether decoding can begin here.
        side: what the container says besides: FFmpeg's name of the kind, and the bytes.
    """

    track: int
    data: bytes
    pts: int | None
    dts: int | None
    duration: int
    key: bool
    side: tuple[tuple[str, bytes], ...] = ()


def part_key(track: int, part: int) -> str:
    """The key of the packet that holds a part of a track; both count from 0."""
    if not 0 <= track < MOST_TRACKS:
        raise ValueError(f"track is {track}; a file holds {MOST_TRACKS} at most")
    return f"t{track}/{part}"


def track_of(key: str | int | None) -> int | None:
    """The track of which a packet of the file holds a part, None if it is none of a track."""
    found = _PART.fullmatch(key) if isinstance(key, str) else None
    return int(found[1]) if found and int(found[1]) < MOST_TRACKS else None


def put_part(packets: Sequence[TrackPacket]) -> bytes:
    """Packets of one track, 1 to MOST_PACKETS of them, in the order they are decoded.

    Raises:
        ValueError: there are too many, or a time or the side data is too large.
    """
    if not 1 <= len(packets) <= MOST_PACKETS:
        raise ValueError(f"a part holds 1 to {MOST_PACKETS} packets, got {len(packets)}")
    numbers = b"".join(map(put_signed, _columns(packets))) + b"".join(map(_put_side, packets))
    if len(numbers) > _MOST_NUMBERS:
        raise ValueError(
            f"{len(packets)} packets have {len(numbers)} bytes of times and side data; a part "
            f"holds {_MOST_NUMBERS}, take fewer"
        )
    packed = zlib.compress(numbers, 9)
    head = put_varint(len(packets)) + put_varint(len(packed)) + packed
    return b"".join([head, *(packet.data for packet in packets)])


def get_part(body: bytes | memoryview, track: int) -> list[TrackPacket]:
    """The mirror of `put_part`.

    Raises:
        BitstreamError: the bytes are not what `put_part` writes.
    """
    cursor = Cursor(memoryview(body), 0)
    count = get_varint(cursor, "count of packets")
    if not 1 <= count <= MOST_PACKETS:
        raise cursor.error("count of packets", f"it is {count}, expected 1 to {MOST_PACKETS}")
    numbers = Cursor(memoryview(_unpacked(cursor)), 0)
    if numbers.left < 6 * count:
        raise cursor.error("count of packets", f"it is {count}, more than there are numbers for")
    flags, steps, offsets, durations, sizes, sides = (
        [get_signed(numbers, "number of a packet") for _ in range(count)] for _ in range(6)
    )
    packets, clock = [], 0
    for i in range(count):
        clock += steps[i]
        times = _times(cursor, flags[i], clock, offsets[i], durations[i])
        if sizes[i] < 0:
            raise cursor.error("size of a packet", f"it is {sizes[i]}")
        side = tuple(_get_side(numbers, sides[i]))
        data = bytes(cursor.take(sizes[i], "packet of a track"))
        packets.append(TrackPacket(track, data, *times, side))
    if cursor.left or numbers.left:
        raise cursor.error("part of a track", f"{cursor.left + numbers.left} bytes are left over")
    return packets


def head_of(body: bytes | memoryview) -> bytes:
    """A part without the packets' own bytes; BitstreamError if it is none."""
    cursor = Cursor(memoryview(body), 0)
    get_varint(cursor, "count of packets")
    cursor.take(get_varint(cursor, "size of the times"), "times of packets")
    return bytes(cursor.data[: cursor.position])


def data_of(head: bytes, packets: Iterator[bytes]) -> bytes:
    """The bytes that belong behind a head: of as many packets as it has; missing ones are left out.

    Raises:
        BitstreamError: it is no head.
    """
    count = get_varint(Cursor(memoryview(head), 0), "count of packets")
    if count > MOST_PACKETS:
        raise BitstreamError(f"a part of a track has {count} packets, at most {MOST_PACKETS}")
    return b"".join(islice(packets, count))


def _columns(packets: Sequence[TrackPacket]) -> Iterator[int]:
    """Flags; steps of the clock; pts against it; durations; sizes; counts of side data."""
    clocks: list[int] = []
    for packet in packets:
        for time in (packet.pts, packet.dts, packet.duration):
            if time is not None and abs(time) >= _MOST_TIME:
                raise ValueError(f"a packet of track {packet.track} has the time {time}")
        time = packet.pts if packet.dts is None else packet.dts
        clocks.append(time if time is not None else (clocks[-1] if clocks else 0))
    for packet in packets:
        yield (_KEY * packet.key + _NO_PTS * (packet.pts is None) + _NO_DTS * (packet.dts is None))
    yield from (now - before for now, before in zip(clocks, [0, *clocks], strict=False))
    for packet, clock in zip(packets, clocks, strict=True):
        yield 0 if packet.pts is None else packet.pts - clock
    yield from (packet.duration for packet in packets)
    yield from (len(packet.data) for packet in packets)
    yield from (len(packet.side) for packet in packets)


def _times(
    cursor: Cursor, flags: int, clock: int, offset: int, duration: int
) -> tuple[int | None, int | None, int, bool]:
    if not 0 <= flags < 8:
        raise cursor.error("flags of a packet", f"they are {flags}, expected 0 to 7")
    if max(abs(clock), abs(clock + offset), abs(duration)) >= _MOST_TIME:
        raise cursor.error("times of a packet", f"{clock}, {clock + offset}, {duration}")
    return (
        None if flags & _NO_PTS else clock + offset,
        None if flags & _NO_DTS else clock,
        duration,
        bool(flags & _KEY),
    )


def _put_side(packet: TrackPacket) -> bytes:
    out = bytearray()
    for name, data in packet.side:
        text = name.encode()
        out += put_varint(len(text)) + text + put_varint(len(data)) + data
    return bytes(out)


def _get_side(cursor: Cursor, count: int) -> Iterator[tuple[str, bytes]]:
    if not 0 <= count <= cursor.left:
        raise cursor.error("side data", f"a packet states {count} of them")
    for _ in range(count):
        text = bytes(cursor.take(get_varint(cursor, "size of a name"), "name of side data"))
        size = get_varint(cursor, "size of side data")
        try:
            yield text.decode(), bytes(cursor.take(size, "side data"))
        except UnicodeDecodeError:
            raise cursor.error("name of side data", f"{text!r:.40} is no text") from None


def _unpacked(cursor: Cursor) -> bytes:
    packed = cursor.take(get_varint(cursor, "size of the times"), "times of packets")
    unpack = zlib.decompressobj()
    try:
        data = unpack.decompress(packed, _MOST_NUMBERS)
    except zlib.error as error:
        raise cursor.error("times of packets", str(error)) from None
    if not unpack.eof or unpack.unused_data:
        raise cursor.error("times of packets", "they do not end where they should")
    return data
