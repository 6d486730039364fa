"""The only reader and writer of .lpk files; FORMAT.md is the specification.

    file = signature, box H, [box M], box P ..., [box I], box E      (a-z boxes in between)

`boxes.BOXES` declares what the boxes hold, once, for both directions.
"""

from __future__ import annotations

import contextlib
import io
from collections.abc import Iterable, Iterator
from typing import Any, BinaryIO

from ..kernels import memory
from ..kernels.errors import BitstreamError
from .boxes import AFTER, ALIGNMENT, VERSION, Box, Source, checksum, get_box, padding, put_box
from .codec import Bound, Buffer, Packet
from .fields import Key, put_key, put_varint
from .output import create

__all__ = ["Reader", "Writer", "checksum", "create", "empty_size", "most_bytes", "packet_size"]

SIGNATURE = b"\x89LPK\r\n\x1a\n"
_TAIL = 15  # box E with an offset; 7 without


class Writer:
    """Writes boxes to a binary file as packets come; holds only the index in memory.

    Use as a context manager, or call `close` to finish the file: after an exception it is left
    without box E, and readers treat it as cut short.

    Attributes:
        offset: bytes written so far.
    """

    def __init__(
        self,
        file: BinaryIO,
        codec_id: int,
        params: dict[str, Any],
        metadata: dict[str, Any] | None = None,
    ) -> None:
        """Write signature, header and metadata; the file's position counts as offset 0.

        Raises:
            ValueError: params or metadata hold something that the format has no place for.
        """
        start = SIGNATURE + put_box("H", version=VERSION, codec_id=codec_id, params=params)
        if metadata:
            start += put_box("M", metadata=metadata)
        self._file = file
        self._entries: list[tuple[Key, int]] = []
        self._keys: set[Key] = set()
        self._open = True
        self._spare = memoryview(b"")
        file.write(start)
        self.offset = len(start)

    def place(self, bound: Bound, expected: int) -> memoryview:
        """Return memory for the bulk of the next packet, if possible where it will be in the file.

        Args:
            bound: of the packet.
            expected: the most likely size of its body.
        """
        if not hasattr(self._file, "place"):
            # A file takes its bytes before the next packet asks: one piece does for all.
            if len(self._spare) < bound.bulk:
                self._spare = memory.room(bound.bulk)
            return self._spare[: bound.bulk]
        before = self.offset + _head_size(bound.key, expected, bound.bulk)
        most = self.offset + _head_size(bound.key, bound.body, bound.bulk)
        room: memoryview = self._file.place(
            before + padding(before), most + padding(most), bound.bulk
        )
        return room

    def write(self, packet: Packet) -> None:
        """Append a packet."""
        if not self._open:
            raise RuntimeError("the writer is closed; make a new one")
        if packet.key is not None and packet.key in self._keys:
            raise ValueError(f"a packet with key {packet.key!r} is already in the file")
        bulk = memoryview(packet.bulk) if len(packet.bulk) else memoryview(b"")
        bulk = bulk.cast("B")
        box = put_box("P", len(bulk), key=packet.key, body=packet.body)
        self._entries.append((packet.key, self.offset))
        self._keys.add(packet.key)
        if len(bulk):
            box += bytes(padding(self.offset + len(box)))
        self._file.write(box)
        self._file.write(bulk)
        self.offset += len(box) + len(bulk)

    def close(self) -> None:
        """Write the index, if there is more than one packet, and the end box."""
        if not self._open:
            return
        self._open = False
        end = put_box("E", index_offset=None)
        if len(self._entries) >= 2:
            index = put_box("I", entries=self._entries)
            end = index + put_box("E", index_offset=self.offset)
        self._file.write(end)
        self.offset += len(end)

    def __enter__(self) -> Writer:
        """Return self."""
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        """Finish the file, unless an exception is on its way."""
        if kind is None:
            self.close()


def empty_size(codec_id: int, params: dict[str, Any], metadata: dict[str, Any] | None) -> int:
    """Bytes of a file with one empty, unnamed packet: what is left of a size that was asked for."""
    file = io.BytesIO()
    with Writer(file, codec_id, params, metadata) as writer:
        writer.write(Packet(None, b""))
    return file.tell()


def packet_size(key: Key, body: int) -> int:
    """Bytes that a packet without a bulk and its entry in the index take at most."""
    name = len(put_key(key))
    box = 1 + len(put_varint(name + body)) + 1 + name + body + 4
    return box + name + len(put_varint(box))


def _head_size(key: Key, body: int, bulk: int) -> int:
    """Bytes of a box P, with a body and for a bulk of these sizes."""
    empty = len(put_box("P", bulk, key=key, body=b""))
    before = empty - 6 - len(put_varint(bulk))  # of the box's own body: one byte says its size
    return empty + body + len(put_varint(before + body)) - 1


def most_bytes(
    codec_id: int,
    params: dict[str, Any],
    metadata: dict[str, Any] | None,
    bounds: Iterable[Bound],
) -> int:
    """The most bytes that a file with such packets can take, wherever in memory it starts."""
    size = empty_size(codec_id, params, metadata) + memory.LINE
    for bound in bounds:
        entry = len(put_box("I", entries=[(bound.key, 1 << 62)]))
        size += _head_size(bound.key, bound.body, bound.bulk) + ALIGNMENT + bound.bulk + entry
    return size


class Reader:
    """Reads a .lpk file from a bytes-like object (bulks are views of it) or a seekable file.

    Attributes:
        codec_id: which codec wrote the packets (see registry.py; any number is accepted here).
        params: the codec's header.
        metadata: what box M holds, {} without one.
    """

    def __init__(self, source: Buffer | BinaryIO, recover: bool = False) -> None:
        """Read the header.

        Args:
            source: bytes, bytearray, memoryview, mmap, or a seekable binary file.
            recover: where the index is missing or damaged, look for whole packets instead of
                raising BitstreamError.

        Raises:
            BitstreamError: this is no .lpk file, or one of another version, or damaged.
        """
        self._source = Source(source)
        self._recover = recover
        self._found: list[tuple[Key, int]] | None = None
        self._offsets: dict[Key, int] = {}
        self._check_signature()
        box = get_box(self._source, len(SIGNATURE))
        if box.kind != "H":
            raise BitstreamError(f"box H must come first, got {box.kind!r}")
        self.codec_id: int = box.fields["codec_id"]
        self.params: dict[str, Any] = box.fields["params"]
        self.metadata: dict[str, Any] = {}
        self._start = box.end
        try:
            self._read_metadata()
        except BitstreamError:
            if not recover:
                raise

    def _check_signature(self) -> None:
        start = bytes(self._source.read(0, min(len(SIGNATURE), self._source.size)))
        if start == SIGNATURE:
            return
        if len(start) < len(SIGNATURE) and SIGNATURE.startswith(start):
            raise BitstreamError(f"the file ends at offset {len(start)}, inside its signature")
        if start[1:4] == SIGNATURE[1:4]:
            raise BitstreamError(
                f"the signature is damaged: {start.hex(' ')}; was the file sent in text mode?"
            )
        raise BitstreamError(f"not a .lpk file: it starts with {start.hex(' ')}")

    def _read_metadata(self) -> None:
        """Look for box M, which stands before all packets."""
        offset = self._start
        while offset < self._source.size and self._source.read(offset, 1)[0] != ord("P"):
            box = get_box(self._source, offset)
            offset = box.end
            if not box.kind.islower():
                self.metadata = box.fields.get("metadata", {})
                return

    def _walk(self) -> Iterator[Box]:
        """Yield the known boxes after H in file order; check their order, keys and the end."""
        offset, last = self._start, "H"
        while last != "E":
            box = get_box(self._source, offset)
            offset = box.end
            if box.kind.islower() and last != "I":
                continue
            if box.kind not in AFTER[last]:
                raise BitstreamError(f"box {box.kind} at {box.offset} can't follow box {last}")
            last = box.kind
            yield box
        if offset != self._source.size:
            raise BitstreamError(f"{self._source.size - offset} bytes follow the end at {offset}")

    def packets(self) -> Iterator[Packet]:
        """Yield the packets in file order, one in memory at a time.

        Raises:
            BitstreamError: after the last whole packet, when the rest is damaged or cut.
        """
        seen: list[tuple[Key, int]] = []
        keys: set[Key] = set()
        index: Box | None = None
        for box in self._walk():
            if box.kind == "P":
                key = box.fields["key"]
                if key is not None and key in keys:
                    raise BitstreamError(f"key {key!r} at offset {box.offset} is there twice")
                keys.add(key)
                seen.append((key, box.offset))
                yield self._packet(box)
            elif box.kind == "I":
                index = box
            elif box.kind == "E":
                self._check_end(box, index, seen)

    def _check_end(self, end: Box, index: Box | None, seen: list[tuple[Key, int]]) -> None:
        """Compare the index with the packets that are there."""
        stated = None if index is None else index.offset
        if end.fields["index_offset"] != stated or (index is None) != (len(seen) < 2):
            raise BitstreamError(
                f"box E at {end.offset} says index at {end.fields['index_offset']}, found "
                f"{stated} and {len(seen)} packets"
            )
        if index is not None and index.fields["entries"] != seen:
            raise BitstreamError(f"index at offset {index.offset} does not list what is there")

    def _packet(self, box: Box) -> Packet:
        bulk = self._source.read(*box.bulk) if box.bulk[1] else b""
        return Packet(box.fields["key"], box.fields["body"], bulk)

    def keys(self) -> list[Key]:
        """Return the packets' keys in file order, None for each that has none."""
        return [key for key, _ in self._entries()]

    def read(self, key: Key) -> Packet:
        """Read one packet; of the others no byte is touched.

        Raises:
            KeyError: there is no packet, or more than one, with this key.
            BitstreamError: the packet or the index is damaged.
        """
        entries = self._entries()
        if key is None and self.keys().count(None) > 1:
            raise KeyError("several packets have no key; read them with packets()")
        if key not in self._offsets:
            raise KeyError(f"no packet has the key {key!r}; there are {len(entries)} others")
        box = get_box(self._source, self._offsets[key])
        if box.kind != "P" or box.fields["key"] != key:
            raise BitstreamError(f"the index says {key!r} is at {box.offset}; it is not")
        return self._packet(box)

    def _entries(self) -> list[tuple[Key, int]]:
        """Return key and offset of every packet, from the index or by scanning."""
        if self._found is None:
            try:
                self._found = self._read_index()
            except BitstreamError:
                if not self._recover:
                    raise
                self._found = self._scan()
            self._offsets = dict(self._found)
        return self._found

    def _read_index(self) -> list[tuple[Key, int]]:
        end = self._end_box()
        at = end.fields["index_offset"]
        if at is None:
            found = [(box.fields["key"], box.offset) for box in self._walk() if box.kind == "P"]
            if len(found) > 1:
                raise BitstreamError(f"{len(found)} packets need an index; there is none")
            return found
        if not self._start <= at < end.offset:
            raise BitstreamError(f"index offset {at} is not inside the file")
        index = get_box(self._source, at)
        entries: list[tuple[Key, int]] = index.fields.get("entries", [])
        named = [key for key, _ in entries if key is not None]
        if index.kind != "I" or index.end != end.offset or len(entries) < 2:
            raise BitstreamError(f"there is no whole index at offset {at}")
        if len(set(named)) != len(named):
            raise BitstreamError(f"index at offset {at}: a key is there twice")
        if entries[0][1] < self._start or entries[-1][1] >= at:
            raise BitstreamError(f"index at offset {at}: it points outside of the packets")
        return entries

    def _end_box(self) -> Box:
        """Find box E from the end of the file: 15 bytes with an index offset, 7 without."""
        size = self._source.size
        for length in (_TAIL, _TAIL - 8):
            if size - length >= self._start:
                with contextlib.suppress(BitstreamError):
                    box = get_box(self._source, size - length)
                    if box.kind == "E" and box.end == size:
                        return box
        raise BitstreamError(
            "the file has no end: it was cut short, or bytes were added; its whole packets can "
            "still be read with recover=True"
        )

    def _scan(self) -> list[tuple[Key, int]]:
        """List the whole packets before the first damage; of repeated keys the first counts."""
        found: list[tuple[Key, int]] = []
        keys: set[Key] = set()
        with contextlib.suppress(BitstreamError):
            for box in self._walk():
                key = box.fields.get("key")
                if box.kind == "P" and (key is None or key not in keys):
                    found.append((key, box.offset))
                    keys.add(key)
        return found
