"""A packed matrix times a few vectors on a CUDA device, without unpacking it in memory.

    y[b] = W x[b] + bias        W [rows, columns] bfloat16, packed; x [b, columns]; b 1 to 8

Two launches. `multiply`: a warp for each chunk decodes it in registers and multiplies; the sums of
a row within a chunk, float32, go to a workspace [chunks, rows of a chunk, b]. `finish`: adds the
sums of each row in the order of the chunks, and the bias, and rounds to bfloat16. The result does
not depend on the order in which blocks run. Nothing waits for the device.

`multiply_ref` is the definition up to the order of the sums: decode, multiply in float32.
"""

from __future__ import annotations

import ctypes
from typing import Any

import torch

from . import cuda
from .planes_cuda import SLOTS_BYTES, Packed, _Tensor, decode
from .planes_head_ref import FLOAT

MAX_BATCH = 8
_WARP_BYTES = 2 * 512 + 512 + 1024 // 8  # kWarpBytes of matvec.cu
_BATCHES = (1, 2, 4, 8)


class _Product(ctypes.Structure):
    """`Product` of matvec.cu."""

    _fields_ = [
        ("x", ctypes.c_void_p),
        ("partials", ctypes.c_void_p),
        ("columns", ctypes.c_uint64),
        ("rows_of_chunk", ctypes.c_uint32),
        ("batch", ctypes.c_uint32),
    ]


def multiply(
    packed: Packed, rows: int, x: torch.Tensor, bias: torch.Tensor | None = None
) -> torch.Tensor:
    """Multiply a packed matrix with up to 8 vectors.

    Args:
        packed: bfloat16 [rows, columns]. Chunks whose sign and mantissa are entropy-coded, too,
            are not taken: `packed.check()` then tells of a record that does not fit. The encoder
            of `planes_cuda` and mode "segments" make none.
        rows: of the matrix.
        x: bfloat16 [b, columns], contiguous, on the same device, b 1 to 8.
        bias: bfloat16 [rows] on the same device.

    Returns:
        bfloat16 [b, rows]. Damage is left in `packed.error`; `packed.check()` asks and waits.

    Raises:
        ValueError: the arguments do not fit.
    """
    columns = _columns(packed, rows, x, bias)
    batch, device = len(x), packed.coded.device
    y = torch.empty((batch, rows), dtype=torch.bfloat16, device=device)
    if packed.n == 0:
        return y.zero_() if bias is None else y.copy_(bias)
    slots = next(b for b in _BATCHES if b >= batch)
    rows_of_chunk = ((1 << packed.chunk_log2) - 1) // columns + 2
    partials = torch.empty(
        packed.chunks * rows_of_chunk * slots, dtype=torch.float32, device=device
    )
    x = x if x.data_ptr() % 16 == 0 else x.clone()  # read 16 bytes at a time
    product = _Product(x.data_ptr(), partials.data_ptr(), columns, rows_of_chunk, batch)
    module = cuda.load("matvec.cu", device)
    warps = 8 if packed.chunks >= 8 * module.multiprocessors else 4
    module.launch(
        f"matvec_multiply_{slots}",
        -(-packed.chunks // warps),
        32 * warps,
        [_described(packed), product],
        shared=SLOTS_BYTES + warps * _WARP_BYTES,
    )
    finish: list[Any] = [product, ctypes.c_uint32(slots), ctypes.c_uint64(rows)]
    finish += [ctypes.c_uint64(packed.chunk_log2), bias, y]
    module.launch("matvec_finish", -(-rows * batch // 128), 128, finish)
    return y


def multiply_ref(
    packed: Packed, rows: int, x: torch.Tensor, bias: torch.Tensor | None = None
) -> torch.Tensor:
    """The same by decoding the matrix to memory; see `multiply`."""
    _columns(packed, rows, x, bias)
    weight = decode(packed).view(torch.bfloat16).view(rows, -1).float()
    y = x.float() @ weight.t()
    return (y if bias is None else y + bias.float()).bfloat16()


def _columns(packed: Packed, rows: int, x: torch.Tensor, bias: torch.Tensor | None) -> int:
    if (packed.layout, packed.width) != (FLOAT, 2):
        raise ValueError("the matrix must be bfloat16: layout FLOAT, 2 bytes")
    if x.ndim != 2 or not 1 <= len(x) <= MAX_BATCH or not x.is_contiguous():
        raise ValueError(f"x must be contiguous [1 to {MAX_BATCH}, columns], got {tuple(x.shape)}")
    if x.dtype != torch.bfloat16 or x.device != packed.coded.device:
        raise ValueError(f"x is {x.dtype} on {x.device}, expected bfloat16 beside the matrix")
    columns = x.shape[1]
    if rows < 0 or rows * columns != packed.n:
        raise ValueError(f"{packed.n} elements are no matrix [{rows}, {columns}]")
    if bias is not None and (bias.dtype, bias.shape) != (torch.bfloat16, (rows,)):
        raise ValueError(f"bias must be bfloat16 [{rows}], got {bias.dtype} {tuple(bias.shape)}")
    return columns


def _described(packed: Packed) -> _Tensor:
    return _Tensor(
        coded=packed.coded.data_ptr(),
        records=packed.records.data_ptr(),
        tables=packed.tables.data_ptr(),
        used=packed.used.data_ptr(),
        error=packed.error.data_ptr(),
        n=packed.n,
        chunk_log2=packed.chunk_log2,
        table_count=len(packed.tables),
        last_chunk=packed.chunks,
    )
