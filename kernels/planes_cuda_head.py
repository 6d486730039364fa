"""Heads of coded arrays as the arrays that the CUDA kernels read, and back."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from .planes_head_ref import (
    CONST,
    CONTEXT,
    FIELDS,
    FORM_BYTES,
    FORM_CONST,
    FORM_PLANES,
    parse,
    plane_count,
)
from .planes_tables_ref import PRECISION, Table, pack_table

MAX_PLANES = 4

# `Record` of planes.cuh. The value of a constant chunk takes the place of the first two planes'.
RECORD = np.dtype(
    [
        ("form", "<u4"),
        ("checksum", "<u4"),
        ("start", "<u8"),
        ("planes", [("coding", "<u4"), ("patches", "<u4"), ("size", "<u4")], MAX_PLANES),
    ]
)

Tables = npt.NDArray[np.uint16]
Records = npt.NDArray[np.int32]


def records_of(
    head: bytes, coded_bytes: int, n: int, width: int, layout: int
) -> tuple[Tables, Records] | None:
    """Tables uint16 [T, 256] and records int32 [chunks, 16] of a head.

    None where a chunk needs contexts, byte planes of another layout, or a table of not 12 bits:
    the device has no kernels for those.

    Raises:
        BitstreamError: the head is damaged.
    """
    tables, _, chunks = parse(head, coded_bytes, n, width, layout)
    if any(table.precision != PRECISION for table in tables):
        return None
    records = np.zeros(len(chunks), RECORD)
    for record, chunk in zip(records, chunks, strict=True):
        if chunk.form == FORM_BYTES or any(p.mode == CONTEXT for p in chunk.planes):
            return None
        record["form"], record["checksum"], record["start"] = (
            chunk.form,
            chunk.checksum,
            chunk.start,
        )
        if chunk.form == FORM_CONST:
            value = np.frombuffer(chunk.value.ljust(12, b"\0"), "<u4")
            record["planes"][0] = tuple(value)
        for p, plane in enumerate(chunk.planes):
            argument = plane.value if plane.mode == CONST else plane.top
            coding = plane.mode | argument << 8 | plane.table << 16
            record["planes"][p] = (coding, plane.patches, plane.size)
    freqs = np.array([table.freqs for table in tables], np.uint16).reshape(-1, 256)
    return freqs, records.view(np.int32).reshape(len(chunks), RECORD.itemsize // 4)


def head_of(chunk_log2: int, tables: Tables, records: Records, width: int, layout: int) -> bytes:
    """The head of tables and records, as `planes_ref.encode` writes it."""
    stored = b"".join(pack_table(Table(freqs, PRECISION)) for freqs in tables)
    start = bytes([chunk_log2, len(tables)]) + stored + bytes([0])
    if not len(records):
        return start
    fields, there = _fields(records.view(RECORD).reshape(-1), width, layout)
    return start + fields[there].tobytes()


def _fields(
    records: npt.NDArray[Any], width: int, layout: int
) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.bool_]]:
    """All fields that a record can have, uint8 [chunks, bytes], and which of them it has."""
    form = records["form"]
    coded = form == FORM_PLANES
    columns = [form.astype(np.uint8)[:, None], _bytes(records["checksum"])]
    there = [np.ones((len(form), 1), bool), np.repeat(form[:, None] != FORM_CONST, 4, 1)]
    value = _bytes(records["planes"]["coding"][:, 0])[:, :width]
    columns.append(value)
    there.append(np.repeat(form[:, None] == FORM_CONST, width, 1))
    for p in range(plane_count(layout, width)):
        plane = records["planes"][:, p]
        mode, argument, table = (plane["coding"] >> shift & 255 for shift in (0, 8, 16))
        columns += [c.astype(np.uint8)[:, None] for c in (mode, argument, table)]
        columns += [_bytes(plane["patches"])[:, :2], _bytes(plane["size"])]
        for field, size in (
            ("mode", 1),
            ("argument", 1),
            ("table", 1),
            ("patches", 2),
            ("size", 4),
        ):
            has = [m for m in FIELDS if field in _names(m)]
            there.append(np.repeat((coded & np.isin(mode, has))[:, None], size, 1))
    return np.concatenate(columns, 1), np.concatenate(there, 1)


def _names(mode: int) -> set[str]:
    """The fields of a mode's record, `value` and `top` as the one argument."""
    return {"mode"} | {"argument" if f in ("value", "top") else f for f in FIELDS[mode]}


def _bytes(values: npt.NDArray[Any]) -> npt.NDArray[np.uint8]:
    """Little-endian bytes, uint8 [n, 4], of uint32 [n]."""
    return np.ascontiguousarray(values, "<u4").view(np.uint8).reshape(-1, 4)
