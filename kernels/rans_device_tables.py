"""`rans_ref.Tables` on a device, uploaded once for each."""

import weakref
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from .rans_ref import LOG_BITS, Tables, log2_table


class DeviceTables(NamedTuple):
    """`Tables` on a device, as the kernels look them up.

    Attributes:
        precision: bits of a probability.
        rows: int32 [T, 4]: offset, length, first entry, 0.
        entries: int32 [E], freq | cum << 16 of each entry of the packed rows.
        reciprocals: int32 [E], the bits of floor(2**32 / freq) as u32, 2**32 - 1 for freq 1.
        costs: int32 [E], precision - log2(freq) in units of 2**-16 bit.
        slots: uint8 or uint16 [T << precision], the entry within the row that holds a slot.
    """

    precision: int
    rows: Tensor
    entries: Tensor
    reciprocals: Tensor
    costs: Tensor
    slots: Tensor


_uploaded: weakref.WeakKeyDictionary[Tables, dict[torch.device, DeviceTables]] = (
    weakref.WeakKeyDictionary()
)


def upload(tables: Tables, device: torch.device) -> DeviceTables:
    """The tables on a device; made once for each."""
    of_device = _uploaded.setdefault(tables, {})
    if device not in of_device:
        of_device[device] = _uploaded_to(tables, device)
    return of_device[device]


def _uploaded_to(tables: Tables, device: torch.device) -> DeviceTables:
    precision, freqs = tables.precision, tables.freqs.astype(np.int64)
    rows = np.zeros((len(tables), 4), np.int32)
    rows[:, 0], rows[:, 1], rows[:, 2] = tables.offsets, tables.lengths, tables.starts
    cums = np.cumsum(freqs) - freqs
    cums &= (1 << precision) - 1  # each row adds to 2**precision
    log = log2_table((1 << precision) + 1) >> (LOG_BITS - 16)
    narrow = tables.lengths.max() <= 256
    slots = np.zeros((len(tables), 1 << precision), np.uint8 if narrow else np.uint16)
    for row in np.flatnonzero(tables.lengths):
        slots[row] = np.repeat(np.arange(tables.lengths[row]), tables.row(row))
    reciprocals = np.minimum((1 << 32) // freqs, 0xFFFFFFFF)

    def put(array: np.ndarray) -> Tensor:  # type: ignore[type-arg]
        return torch.from_numpy(array.reshape(-1)).to(device)

    return DeviceTables(
        precision,
        put(rows).view(-1, 4),
        put((freqs | cums << 16).astype(np.uint32).view(np.int32)),
        put(reciprocals.astype(np.uint32).view(np.int32)),
        put(((precision << 16) - log[freqs]).astype(np.int32)),
        put(slots),
    )
