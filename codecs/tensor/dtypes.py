"""Tensor dtypes in the bitstream: their ids, and how their elements are split into planes."""

from __future__ import annotations

from typing import NamedTuple

import torch

from ...kernels.delta import DIFFERENCE, ULP, XOR
from ...kernels.errors import BitstreamError
from ...kernels.planes import BYTE_PLANES, FLOAT, NIBBLES

# Part of the format (FORMAT.md, section 10): append only. An id is a name in torch.
DTYPES = {
    1: "bool",
    2: "uint8",
    3: "int8",
    4: "int16",
    5: "int32",
    6: "int64",
    7: "uint16",
    8: "uint32",
    9: "uint64",
    10: "float16",
    11: "bfloat16",
    12: "float32",
    13: "float64",
    14: "complex32",
    15: "complex64",
    16: "complex128",
    17: "float8_e4m3fn",
    18: "float8_e5m2",
    19: "float8_e4m3fnuz",
    20: "float8_e5m2fnuz",
    21: "float8_e8m0fnu",
    22: "float4_e2m1fn_x2",
    **{22 + bits: f"uint{bits}" for bits in range(1, 8)},
    **{29 + bits: f"int{bits}" for bits in range(1, 8)},
    37: "bits8",
    38: "bits16",
    39: "bits1x8",
    40: "bits2x4",
    41: "bits4x2",
}
IDS = {getattr(torch, name): number for number, name in DTYPES.items() if hasattr(torch, name)}

# Layout and bytes of what is split; the other dtypes are byte planes of whole elements.
# Complex elements are two of their parts.
_SPLIT = {
    "bfloat16": (FLOAT, 2),
    "float32": (FLOAT, 4),
    "complex64": (FLOAT, 4),
    "complex32": (BYTE_PLANES, 2),
    "complex128": (BYTE_PLANES, 8),
    "float8_e4m3fn": (NIBBLES, 1),
    "float8_e4m3fnuz": (NIBBLES, 1),
}


class Split(NamedTuple):
    """How bytes of a dtype are coded: layout and width as in `kernels.planes`."""

    layout: int
    width: int


class DeltaField(NamedTuple):
    """How deltas of a dtype are coded: as in `kernels.delta.measure`."""

    width: int
    shift: int
    bits: int
    operations: tuple[int, ...]


# Width, where the exponent begins, and its bits.
_EXPONENTS = {
    "float16": (2, 10, 5),
    "complex32": (2, 10, 5),
    "bfloat16": (2, 7, 8),
    "float32": (4, 23, 8),
    "complex64": (4, 23, 8),
    "float64": (8, 52, 11),
    "complex128": (8, 52, 11),
    "float8_e4m3fn": (1, 3, 4),
    "float8_e4m3fnuz": (1, 3, 4),
    "float8_e5m2": (1, 2, 5),
    "float8_e5m2fnuz": (1, 2, 5),
}


def dtype_id(dtype: torch.dtype) -> int:
    """The id of a dtype; ValueError for quantised ones and those of other releases."""
    if dtype not in IDS:
        raise ValueError(
            f"dtype {dtype} cannot be coded; quantised tensors can as int_repr() and their scales"
        )
    return IDS[dtype]


def dtype_of(number: int) -> torch.dtype:
    """The dtype of an id that was read."""
    name = DTYPES.get(number, "")
    dtype = getattr(torch, name, None) if name else None
    if not isinstance(dtype, torch.dtype):
        known = f"{name}, which this torch does not have" if name else "unknown"
        raise BitstreamError(f"dtype id {number} is {known}; a newer release may read it")
    return dtype


def split_of(dtype: torch.dtype) -> Split:
    """How the elements of a dtype are split into planes."""
    name = str(dtype).removeprefix("torch.")
    return Split(*_SPLIT.get(name, (BYTE_PLANES, dtype.itemsize)))


def delta_field(dtype: torch.dtype) -> DeltaField:
    """How deltas of a dtype are coded: floats by their exponent, others by bytes or alike."""
    name = str(dtype).removeprefix("torch.")
    if name in _EXPONENTS:
        return DeltaField(*_EXPONENTS[name], (ULP,))
    width = dtype.itemsize
    return DeltaField(width, 0, 8 if width == 1 else 0, (DIFFERENCE, XOR))
