"""The kinds of fields that boxes are made of (FORMAT.md, section 3), each in both directions."""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import cbor2

from ..kernels.errors import BitstreamError

MAX_DEPTH = 16  # lists and maps inside each other
MAX_ITEMS = 1 << 20  # values in one CBOR item, so that decoding takes a bounded memory
MAX_KEY_BYTES = 4096  # one packet's key as CBOR
MAX_VARINT_BYTES = 9  # below 2**63: no sum of two offsets leaves 64 bits

Key = str | int | None


class Cursor:
    """Reads fields off a view; knows where in the file it stands, for messages."""

    def __init__(self, data: memoryview, origin: int) -> None:
        """Start at data[0], which is byte `origin` of the file."""
        self.data = data
        self.origin = origin
        self.position = 0

    @property
    def left(self) -> int:
        """Bytes not read yet."""
        return len(self.data) - self.position

    def take(self, count: int, what: str) -> memoryview:
        """Return the next bytes, or raise when there are fewer."""
        if count > self.left:
            raise self.error(what, f"needs {count} bytes but {self.left} are left")
        self.position += count
        return self.data[self.position - count : self.position]

    def error(self, what: str, problem: str) -> BitstreamError:
        """Make an error that says where the cursor stands."""
        return BitstreamError(f"{what} at offset {self.origin + self.position}: {problem}")


def put_varint(value: int) -> bytes:
    """Code 0 <= value < 2**63 as LEB128: 7 bits per byte, low ones first, in the fewest bytes."""
    if 0 <= value < 128:  # nearly all are
        return value.to_bytes(1, "little")
    if not 0 <= value < 1 << 7 * MAX_VARINT_BYTES:
        raise ValueError(f"a varint holds 0 to 2**63 - 1, got {value}")
    out = bytearray()
    while value > 127:
        out.append(value & 127 | 128)
        value >>= 7
    out.append(value)
    return bytes(out)


def get_varint(cursor: Cursor, what: str = "varint") -> int:
    """Read a varint; longer than needed is an error, so every value has one spelling."""
    value = 0
    for i in range(MAX_VARINT_BYTES):
        byte = cursor.take(1, what)[0]
        value |= (byte & 127) << 7 * i
        if byte < 128:
            if byte == 0 and i > 0:
                raise cursor.error(what, "the varint is longer than it needs to be")
            return value
    raise cursor.error(what, f"the varint is longer than {MAX_VARINT_BYTES} bytes")


def put_signed(value: int) -> bytes:
    """Code an integer as the varint 2 v, or -2 v - 1 if it is negative (zigzag)."""
    return put_varint(2 * value if value >= 0 else -2 * value - 1)


def get_signed(cursor: Cursor, what: str = "varint") -> int:
    """The mirror of `put_signed`."""
    value = get_varint(cursor, what)
    return ~(value >> 1) if value & 1 else value >> 1


def put_cbor(value: Any, limit: int) -> bytes:
    """Code str, int, bytes, bool, None, float, lists and str-keyed maps as deterministic CBOR."""
    if (count := _count(value, 0)) > MAX_ITEMS:
        raise ValueError(f"a value may hold {MAX_ITEMS} items, got {count}")
    data: bytes = cbor2.dumps(value, canonical=True)
    if len(data) > limit:
        raise ValueError(f"a value may take {limit} bytes here, got {len(data)}")
    return data


def _count(value: Any, depth: int) -> int:
    """Return how many items a value holds; raise on types the format doesn't have."""
    if depth > MAX_DEPTH:
        raise ValueError(f"lists and maps may be nested {MAX_DEPTH} deep")
    if isinstance(value, dict):
        if wrong := [key for key in value if not isinstance(key, str)]:
            raise ValueError(f"keys of maps must be str, got {wrong[0]!r}")
        return 1 + len(value) + sum(_count(item, depth + 1) for item in value.values())
    if isinstance(value, list):
        return 1 + sum(_count(item, depth + 1) for item in value)
    if isinstance(value, int) and not -(1 << 64) <= value < 1 << 64:
        raise ValueError(f"integers must lie in [-2**64, 2**64), got {value}")
    if value is not None and not isinstance(value, (str, bytes, int, float)):
        raise ValueError(
            f"a {type(value).__name__} can't be stored; use str, int, float, bool, None, bytes, "
            "list or dict"
        )
    return 1


def get_cbor(data: memoryview, origin: int, what: str) -> Any:
    """Decode one CBOR item that fills `data`; only what `put_cbor` writes is legal."""
    cursor = Cursor(data, origin)
    _skip(cursor, what, 0, [0])
    if cursor.left:
        raise cursor.error(what, f"{cursor.left} bytes follow the CBOR item")
    try:
        value = cbor2.loads(bytes(data))
        same = cbor2.dumps(value, canonical=True) == data
    except (cbor2.CBORDecodeError, ValueError) as error:
        raise BitstreamError(f"{what} at offset {origin}: {error}") from None
    if not same:  # long heads, long floats, unsorted or repeated keys
        raise BitstreamError(f"{what} at offset {origin}: CBOR is not in its deterministic form")
    return value


def _skip(cursor: Cursor, what: str, depth: int, seen: list[int]) -> int:
    """Walk over one item, so that no hostile length or depth reaches the library.

    Returns the item's major type.
    """
    seen[0] += 1
    if seen[0] > MAX_ITEMS or depth > MAX_DEPTH:
        raise cursor.error(what, f"CBOR has over {MAX_ITEMS} items or {MAX_DEPTH} levels")
    head = cursor.take(1, what)[0]
    major, count = head >> 5, head & 31
    if major == 6 or (major == 7 and count not in (20, 21, 22, 25, 26, 27)) or count > 27:
        raise cursor.error(what, f"CBOR head {head:#04x} is not allowed")
    if count > 23:
        count = int.from_bytes(cursor.take(1 << count - 24, what), "big")
    if major in (2, 3):
        cursor.take(count, what)
    elif major in (4, 5):
        if count > cursor.left:
            raise cursor.error(what, f"CBOR states {count} items, {cursor.left} bytes are left")
        for _ in range(count):
            if major == 5 and _skip(cursor, what, depth + 1, seen) != 3:
                raise cursor.error(what, "a key of a CBOR map is not a text string")
            _skip(cursor, what, depth + 1, seen)
    return major


def put_key(key: Key) -> bytes:
    """Code a packet's key: varint length, then CBOR; length 0 stands for None."""
    if key is None:
        return b"\0"
    if isinstance(key, bool) or not isinstance(key, (str, int)):
        raise ValueError(f"a packet's key must be str, int or None, got {key!r}")
    data = put_cbor(key, MAX_KEY_BYTES)
    return put_varint(len(data)) + data


def get_key(cursor: Cursor) -> Key:
    """Read a packet's key."""
    size = get_varint(cursor, "key length")
    if size == 0:
        return None
    if size > MAX_KEY_BYTES:
        raise cursor.error("key", f"it states {size} bytes; at most {MAX_KEY_BYTES} are allowed")
    data = cursor.take(size, "key")
    key = get_cbor(data, cursor.origin + cursor.position - size, "key")
    if isinstance(key, bool) or not isinstance(key, (str, int)):
        raise cursor.error("key", "it is neither text nor an integer")
    return key


@dataclass(frozen=True)
class Kind:
    """How one field is written and read."""

    put: Callable[[Any], bytes]
    get: Callable[[Cursor], Any]


def map_to_end(limit: int, optional: bool) -> Kind:
    """Return a CBOR map that ends with its box; `optional` writes {} as nothing at all."""

    def put(value: dict[str, Any]) -> bytes:
        if not isinstance(value, dict):
            raise ValueError(f"parameters and metadata must be a dict, got {value!r}")
        return put_cbor(value, limit) if value or not optional else b""

    def get(cursor: Cursor) -> dict[str, Any]:
        if cursor.left > limit:
            raise cursor.error("map", f"it takes {cursor.left} bytes; {limit} are allowed")
        if optional and not cursor.left:
            return {}
        origin = cursor.origin + cursor.position
        value = get_cbor(cursor.take(cursor.left, "map"), origin, "map")
        if not isinstance(value, dict) or (optional and not value):
            raise BitstreamError(f"map at offset {origin}: got {str(value)[:40]!r}")
        return value

    return Kind(put, get)


def _put_entries(entries: Iterable[tuple[Key, int]]) -> bytes:
    out, last = bytearray(), 0
    for key, offset in entries:
        out += put_key(key) + put_varint(offset - last)
        last = offset
    return bytes(out)


def _get_entries(cursor: Cursor) -> list[tuple[Key, int]]:
    entries: list[tuple[Key, int]] = []
    last = 0
    while cursor.left:
        key = get_key(cursor)
        step = get_varint(cursor, "index distance")
        if step == 0:
            raise cursor.error("index distance", "two packets can't start at the same offset")
        last += step
        entries.append((key, last))
    return entries


def _put_offset(offset: int | None) -> bytes:
    return b"" if offset is None else struct.pack("<Q", offset)


def _get_offset(cursor: Cursor) -> int | None:
    if not cursor.left:
        return None
    offset: int = struct.unpack("<Q", cursor.take(8, "index offset"))[0]
    return offset


U8 = Kind(lambda value: struct.pack("<B", value), lambda cursor: cursor.take(1, "byte")[0])
VARINT = Kind(put_varint, get_varint)
KEY = Kind(put_key, get_key)
REST = Kind(bytes, lambda cursor: bytes(cursor.take(cursor.left, "payload")))
ENTRIES = Kind(_put_entries, _get_entries)
OFFSET = Kind(_put_offset, _get_offset)
