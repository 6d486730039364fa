"""Packed tensors inside of a valid .safetensors file, for tools that carry, shard and show those.

Each tensor of the file is of dtype U8 and one dimension, has the name of the tensor that it packs,
and holds a packet of codec "tensor/lossless":

    ========  =====  ==================================================================
    field     bytes  meaning
    ========  =====  ==================================================================
    size      4      bytes of the body, little-endian
    checksum  4      low half of XXH3-64 (seed 0) of the name in UTF-8, size and body
    body      size   the packet's body (FORMAT.md, section 10)
    bulk      rest   the packet's bulk
    ========  =====  ==================================================================

`__metadata__` has the entry "latentpack": a JSON object with `version` (1), `codec`, `pairs`, which
tells whether the .safetensors file that was packed had metadata (its entries stand beside this
one), `more`, an object of what else is known of it, and `check`, a checksum of all of these.
FORMAT.md, section 14, is the full description.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, BinaryIO

import xxhash

from ..kernels.errors import BitstreamError
from . import registry
from .codec import Packet
from .fields import Key

ENTRY = "latentpack"
VERSION = 1
_HEAD = 8
_MAX_HEADER = 100_000_000  # the library's limit
_LONGEST = 10**19  # as long as any offset is


def is_packed(path: Path) -> bool:
    """Tell whether a whole .safetensors file is of this kind."""
    with path.open("rb") as file:
        size = int.from_bytes(file.read(_HEAD), "little")
        text = file.read(min(size, _MAX_HEADER))
    try:
        return ENTRY in json.loads(text).get("__metadata__", {})
    except (ValueError, AttributeError, TypeError, RecursionError):
        return False


class OuterReader:
    """Reads packets from such a file, as `container.Reader` does from a .lpk file.

    Attributes:
        codec_id: of the packets.
        params: {}, as the codec's.
        metadata: what `more` holds, and "safetensors", the pairs of metadata of the file that was
            packed, if it had any.
    """

    params: dict[str, Any]

    def __init__(self, view: memoryview) -> None:
        """Read the header.

        Args:
            view: the whole file.

        Raises:
            BitstreamError: this is no such file, or its header is damaged.
        """
        self._view = view
        header = _header(view)
        pairs = header.pop("__metadata__", {})
        about = _about(pairs)
        self.codec_id = _codec_id(about)
        self.params = {}
        kept = [[key, value] for key, value in pairs.items() if key != ENTRY]
        self.metadata: dict[str, Any] = dict(about["more"])
        if about["pairs"] or kept:
            self.metadata["safetensors"] = kept
        start = _HEAD + int.from_bytes(view[:_HEAD], "little")
        ordered = sorted(header.items(), key=lambda item: item[1]["data_offsets"])
        self._places: dict[Key, tuple[int, int]] = {}
        for name, entry in ordered:
            first, last = entry["data_offsets"]
            if entry.get("dtype") != "U8" or entry.get("shape") != [last - first]:
                raise BitstreamError(f"{name!r} is no packed tensor, which are U8 of one dimension")
            self._places[name] = start + first, start + last

    def packets(self) -> Iterator[Packet]:
        """Yield the packets in the order of the data, one in memory at a time."""
        for key in self._places:
            yield self.read(key)

    def keys(self) -> list[Key]:
        """Return the names in the order of the data."""
        return list(self._places)

    def read(self, key: Key) -> Packet:
        """Read one packet; BitstreamError where its body is damaged, KeyError without it."""
        if key not in self._places:
            raise KeyError(f"no packet has the key {key!r}; there are {len(self._places)} others")
        first, last = self._places[key]
        data = self._view[first:last]
        size = int.from_bytes(data[:4], "little")
        if len(data) < _HEAD or size > len(data) - _HEAD:
            raise BitstreamError(f"{key!r} has {len(data)} bytes, too few for its body of {size}")
        body = data[_HEAD : _HEAD + size]
        stated = int.from_bytes(data[4:8], "little")
        if (got := _checksum(str(key), data[:4], body)) != stated:
            raise BitstreamError(f"{key!r}: its checksum is {got:08x}, the file says {stated:08x}")
        return Packet(key, bytes(body), data[_HEAD + size :])


def write_outer(
    file: BinaryIO,
    packets: Iterable[Packet],
    names: Sequence[str],
    metadata: dict[str, Any],
) -> None:
    """Write such a file, one packet in memory at a time.

    Args:
        file: seekable; the header is written last.
        packets: of codec tensor/lossless.
        names: their keys, in order.
        metadata: JSON values; "safetensors", if there, is pairs of str for `__metadata__`.

    Raises:
        ValueError: the metadata has an entry "latentpack" already, or the header is too large.
    """
    if any(key == ENTRY for key, _ in metadata.get("safetensors", ())):
        raise ValueError(f"the metadata has an entry {ENTRY!r}: the file is packed already")
    base = file.tell()
    widest = dict.fromkeys(names, (_LONGEST, _LONGEST))
    room = len(_text(widest, metadata))
    room += -room % 8
    if room > _MAX_HEADER:
        raise ValueError(f"the header takes {room} bytes, .safetensors allows {_MAX_HEADER}")
    file.write(room.to_bytes(_HEAD, "little") + b" " * room)
    places, at = {}, 0
    for packet in packets:
        size = len(packet.body).to_bytes(4, "little")
        check = _checksum(str(packet.key), size, packet.body).to_bytes(4, "little")
        for part in (size, check, packet.body, packet.bulk):
            file.write(part)
        end = at + _HEAD + len(packet.body) + len(packet.bulk)
        places[str(packet.key)] = (at, end)
        at = end
    file.seek(base + _HEAD)
    file.write(_text(places, metadata).ljust(room))
    file.seek(0, 2)


def _text(places: dict[str, tuple[int, int]], metadata: dict[str, Any]) -> bytes:
    more = {key: value for key, value in metadata.items() if key != "safetensors"}
    about: dict[str, Any] = {"version": VERSION, "codec": "tensor/lossless"}
    about |= {"pairs": "safetensors" in metadata, "more": more}
    pairs = dict(metadata.get("safetensors", ()))
    about["check"] = _check(about, pairs)
    header: dict[str, Any] = {"__metadata__": {ENTRY: json.dumps(about), **pairs}}
    for name, (first, last) in places.items():
        header[name] = {"dtype": "U8", "shape": [last - first], "data_offsets": [first, last]}
        if last == _LONGEST:
            header[name]["shape"] = [last]
    return json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()


def _checksum(name: str, size: bytes | memoryview, body: bytes | memoryview) -> int:
    digest = xxhash.xxh3_64(name.encode())
    digest.update(size)
    digest.update(body)
    return digest.intdigest() & 0xFFFFFFFF


def _check(about: dict[str, Any], pairs: dict[str, str]) -> int:
    """Checksum of what `__metadata__` says: `about` but its `check`, and the entries beside it."""
    said = {key: value for key, value in about.items() if key != "check"}
    others = {key: value for key, value in pairs.items() if key != ENTRY}
    text = json.dumps([said, others], sort_keys=True).encode()
    return xxhash.xxh3_64_intdigest(text) & 0xFFFFFFFF


def _header(view: memoryview) -> dict[str, Any]:
    """The JSON header of a whole file: names, and data that lie one after another to its end."""
    size = int.from_bytes(view[:_HEAD], "little") if len(view) >= _HEAD else _MAX_HEADER
    if size > min(_MAX_HEADER, len(view) - _HEAD):
        raise BitstreamError(f"this .safetensors file of {len(view)} bytes is cut in its header")
    try:
        header: dict[str, Any] = json.loads(bytes(view[_HEAD : _HEAD + size]))
        pairs = header.get("__metadata__", {})
        if not all(isinstance(value, str) for value in pairs.values()):
            raise ValueError("a value of its metadata is no string")
        places = [entry["data_offsets"] for name, entry in header.items() if name != "__metadata__"]
        last = 0
        for first, end in sorted(places):
            if first != last or type(end) is not int or end < first:
                raise ValueError(f"data lie at {first} to {end}, expected them from {last} on")
            last = end
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise BitstreamError(f"the .safetensors header is damaged: {error}") from None
    there = len(view) - _HEAD - size
    if last != there:
        raise BitstreamError(
            f"the .safetensors header tells of {last} bytes of data, {there} are there: "
            "the file is cut or damaged"
        )
    return header


def _about(pairs: dict[str, str]) -> dict[str, Any]:
    if ENTRY not in pairs:
        raise BitstreamError(
            "this .safetensors file is not packed; latentpack pack packs it, and the safetensors "
            "library reads it"
        )
    try:
        about = json.loads(pairs[ENTRY])
    except (ValueError, RecursionError):
        about = None
    sound = isinstance(about, dict) and about.get("version") == VERSION
    if not sound or not isinstance(about.get("more"), dict) or "pairs" not in about:
        raise BitstreamError(
            f"the entry {ENTRY!r} is {pairs[ENTRY]!r:.60}, expected JSON of version {VERSION}; "
            "the file may need a newer latentpack"
        )
    found: dict[str, Any] = about
    if found.get("check") != (got := _check(found, pairs)):
        raise BitstreamError(
            f"the metadata have checksum {got}, the file says {found.get('check')}"
        )
    return found


def _codec_id(about: dict[str, Any]) -> int:
    codec = str(about.get("codec"))
    if codec not in registry.CODECS.values():
        raise BitstreamError(f"codec {codec!r:.60} of the packed tensors is unknown")
    return registry.codec_id(codec)
