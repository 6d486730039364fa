"""The head of an array coded by byte planes: constants, and the records as data.

`planes_ref` describes the bytes.
"""

from dataclasses import dataclass

from .errors import BitstreamError
from .planes_context_ref import ABOVE, MAX_SETS, ContextSet, unpack_set
from .planes_tables_ref import MAX_TABLES, Table, unpack_table

BYTE_PLANES, FLOAT, NIBBLES = 0, 1, 2
FORM_RAW, FORM_CONST, FORM_PLANES, FORM_BYTES = 0, 1, 2, 3
RAW, CONST, BYTES, PAIR, WINDOW, CONTEXT = 0, 1, 2, 3, 4, 5
MIN_CHUNK_LOG2, MAX_CHUNK_LOG2 = 6, 16
ALIGN = 16

# The fields of a plane's record after its mode, with their bytes.
FIELDS: dict[int, dict[str, int]] = {
    RAW: {},
    CONST: {"value": 1},
    BYTES: {"table": 1, "patches": 2, "size": 4},
    PAIR: {"top": 1, "table": 1, "patches": 2, "size": 4},
    WINDOW: {"top": 1, "patches": 2},
    CONTEXT: {"table": 1, "size": 4},
}


def plane_count(layout: int, width: int) -> int:
    """Planes of a layout; raises ValueError where the width does not fit it."""
    if layout == FLOAT and width in (2, 4):
        return width
    if layout == NIBBLES and width == 1:
        return 2
    if layout == BYTE_PLANES and 1 <= width <= 8:
        return width
    raise ValueError(f"layout {layout} does not take elements of {width} bytes")


class Cursor:
    """Reads forward through bytes, BitstreamError at the end."""

    def __init__(self, data: bytes, at: int = 0) -> None:
        self.data = data
        self.at = at

    def take(self, count: int) -> bytes:
        """The next `count` bytes."""
        if count > len(self.data) - self.at:
            raise BitstreamError(
                f"{count} bytes expected at offset {self.at}, {len(self.data) - self.at} are left"
            )
        self.at += count
        return self.data[self.at - count : self.at]

    def integer(self, size: int) -> int:
        """The next little-endian integer."""
        return int.from_bytes(self.take(size), "little")

    def finish(self, what: str) -> None:
        """Raise BitstreamError unless everything has been read."""
        if self.at != len(self.data):
            raise BitstreamError(f"{len(self.data) - self.at} bytes too many after {what}")


@dataclass
class PlaneRecord:
    """How a plane is coded; `size` counts the bytes of its stream."""

    mode: int
    value: int = 0
    top: int = 0
    table: int = 0
    patches: int = 0
    size: int = 0


@dataclass
class ChunkRecord:
    """How a chunk is coded, its elements, and where its bytes are."""

    form: int
    n: int
    value: bytes = b""
    checksum: int = 0
    planes: tuple[PlaneRecord, ...] = ()
    start: int = 0
    size: int = 0


def parse(
    head: bytes, coded_bytes: int, n: int, width: int, layout: int
) -> tuple[list[Table], list[ContextSet], list[ChunkRecord]]:
    """Tables and records of a head, checked against the number of elements and coded bytes."""
    plane_count(layout, width)
    cursor = Cursor(head)
    chunk_log2 = cursor.integer(1)
    if not MIN_CHUNK_LOG2 <= chunk_log2 <= MAX_CHUNK_LOG2:
        raise BitstreamError(f"chunk size 2**{chunk_log2}, expected 2**6 to 2**16")
    tables: list[Table] = []
    sets: list[ContextSet] = []
    if (stored := cursor.integer(1)) > MAX_TABLES:
        raise BitstreamError(f"{stored} tables, expected at most {MAX_TABLES}")
    for _ in range(stored):
        table, cursor.at = unpack_table(head, cursor.at)
        tables.append(table)
    if (stored := cursor.integer(1)) > MAX_SETS:
        raise BitstreamError(f"{stored} sets of contexts, expected at most {MAX_SETS}")
    for _ in range(stored):
        contexts, cursor.at = unpack_set(head, cursor.at)
        sets.append(contexts)
    records: list[ChunkRecord] = []
    start = 0
    for first in range(0, n, 1 << chunk_log2):
        elements = min(1 << chunk_log2, n - first)
        record = _record(cursor, elements, width, layout, len(tables), sets)
        record.start = start
        if first + elements < n:
            record.size += -record.size % ALIGN
        start += record.size
        if start > coded_bytes:
            raise BitstreamError(f"the chunks need {start} bytes or more, {coded_bytes} are there")
        records.append(record)
    cursor.finish("the chunk records")
    if start != coded_bytes:
        raise BitstreamError(f"{coded_bytes} coded bytes, the chunks take {start}")
    return tables, sets, records


def _record(
    cursor: Cursor, n: int, width: int, layout: int, tables: int, sets: list[ContextSet]
) -> ChunkRecord:
    form = cursor.integer(1)
    if form == FORM_CONST:
        return ChunkRecord(form, n, value=cursor.take(width))
    if form > FORM_BYTES:
        raise BitstreamError(f"chunk form {form} at head byte {cursor.at - 1} is unknown")
    checksum = cursor.integer(4)
    if form == FORM_RAW:
        return ChunkRecord(form, n, checksum=checksum, size=n * width)
    if form == FORM_BYTES:
        layout = BYTE_PLANES
    count = plane_count(layout, width)
    planes = tuple(_plane(cursor, p, layout, tables, sets) for p in range(count))
    m = (n + 1) // 2 if layout == NIBBLES else n
    fixed = {RAW: m, WINDOW: (m + 1) // 2}
    sizes = (fixed.get(plane.mode, 0) for plane in planes)
    size = sum(s + -s % ALIGN for s in sizes) + sum(p.size + 3 * p.patches for p in planes)
    return ChunkRecord(form, n, checksum=checksum, planes=planes, size=size)


def _plane(cursor: Cursor, p: int, layout: int, tables: int, sets: list[ContextSet]) -> PlaneRecord:
    mode = cursor.integer(1)
    if mode not in FIELDS or (mode in (PAIR, WINDOW) and (layout != FLOAT or p > 0)):
        raise BitstreamError(f"mode {mode} of plane {p} at head byte {cursor.at - 1} is unknown")
    record = PlaneRecord(mode, **{f: cursor.integer(size) for f, size in FIELDS[mode].items()})
    if mode in (BYTES, PAIR) and record.table >= tables:
        raise BitstreamError(f"table {record.table} of plane {p}, there are {tables}")
    if mode == CONTEXT:
        if record.table >= len(sets):
            raise BitstreamError(f"contexts {record.table} of plane {p}, there are {len(sets)}")
        if p == 0 and sets[record.table].source == ABOVE:
            raise BitstreamError("the contexts of plane 0 are those of a plane before it")
    return record
