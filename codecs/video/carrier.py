"""A .lpk file of a video as samples of another container, such as MP4 (FORMAT.md, section 23.4).

The first sample lists the tracks that the other container holds, so that any player plays them, and
has the start of the .lpk file: its signature and boxes H and M. Each other one holds a group of
pictures and the parts of tracks before it; of the tracks listed only what is said of their packets.
"""

from __future__ import annotations

import io
import struct
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

from ...kernels.errors import BitstreamError
from ..boxes import checksum
from ..codec import Packet
from ..container import Reader, Writer
from ..fields import Cursor, Key, get_key, get_varint, put_key, put_varint
from .tracks import MOST_TRACKS, data_of, head_of

_WHOLE, _HEAD = 0, 1  # forms of a piece


class Piece(NamedTuple):
    """A packet of the .lpk file within a sample.

    Attributes:
        key: of the packet.
        body: of it; of a part whose packets are elsewhere its head.
        check: checksum of the whole body, None where it is here.
    """

    key: Key
    body: bytes
    check: int | None


def put_start(reader: Reader, carried: Sequence[int]) -> bytes:
    """The first sample; `carried` are the tracks that the container holds, in its order."""
    file = io.BytesIO()
    Writer(file, reader.codec_id, reader.params, reader.metadata)
    return b"".join(map(put_varint, [len(carried), *carried])) + file.getvalue()


def get_start(sample: bytes) -> tuple[Reader, list[int]]:
    """The mirror of `put_start`; BitstreamError for what it does not write."""
    cursor = Cursor(memoryview(sample), 0)
    count = get_varint(cursor, "count of carried tracks")
    if count > MOST_TRACKS:
        raise cursor.error("count of carried tracks", f"it is {count}, at most {MOST_TRACKS}")
    carried = [get_varint(cursor, "carried track") for _ in range(count)]
    return Reader(sample[cursor.position :], recover=True), carried


def piece_of(packet: Packet, elsewhere: bool) -> Piece:
    """A packet as a piece; `elsewhere`: it is a part whose packets the container holds."""
    if len(packet.bulk):
        raise ValueError(f"packet {packet.key!r} has bulk, which packets of videos don't have")
    if not elsewhere:
        return Piece(packet.key, packet.body, None)
    return Piece(packet.key, head_of(packet.body), checksum(packet.body))


def put_sample(pieces: Iterable[Piece]) -> bytes:
    """Pieces as a sample."""
    out = bytearray()
    for key, body, check in pieces:
        form = _WHOLE if check is None else _HEAD
        out += put_key(key) + put_varint(form) + put_varint(len(body)) + body
        if check is not None:
            out += struct.pack("<I", check)
    return bytes(out)


def get_sample(sample: bytes) -> Iterator[Piece]:
    """The mirror of `put_sample`; BitstreamError for what it does not write."""
    cursor = Cursor(memoryview(sample), 0)
    while cursor.left:
        key = get_key(cursor)
        form = get_varint(cursor, "form of a piece")
        if form not in (_WHOLE, _HEAD):
            raise cursor.error("form of a piece", f"it is {form}, expected 0 or 1")
        body = bytes(cursor.take(get_varint(cursor, "size of a piece"), "piece"))
        check = None
        if form == _HEAD:
            check = struct.unpack("<I", cursor.take(4, "checksum of a part"))[0]
        yield Piece(key, body, check)


def packet_of(piece: Piece, elsewhere: Iterator[bytes]) -> Packet:
    """The packet of a piece; `elsewhere` gives the packets of its track that are still to come.

    Raises:
        BitstreamError: they are not those that belong to it.
    """
    if piece.check is None:
        return Packet(piece.key, piece.body)
    body = piece.body + data_of(piece.body, elsewhere)
    if checksum(body) != piece.check:
        raise BitstreamError(
            f"packets of {piece.key!r} are not those that were stored: a program has changed the "
            "tracks of the file"
        )
    return Packet(piece.key, body)
