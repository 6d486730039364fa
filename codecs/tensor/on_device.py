"""Lossless coding of tensors that are on a GPU, there.

What the device's kernels do not take (other dtypes, contexts, very small tensors) is None: the CPU
does it. Only what leaves the device waits for it.
"""

from __future__ import annotations

import types
from typing import Any

import torch

from ...kernels import planes
from ...kernels.planes_head_ref import BYTES, FORM_PLANES
from .dtypes import Split

MIN_BYTES = 1 << 16  # below, launches cost more than a copy


def kernels_for(device: torch.device) -> types.ModuleType | None:
    """The kernels of a device; None if it has none."""
    if device.type != "cuda" or torch.version.cuda is None:
        return None
    from ...kernels import planes_cuda

    return planes_cuda


def encode(
    data: torch.Tensor, split: Split, mode: str, chunk_log2: int
) -> tuple[bytes, bytes] | None:
    """Head and coded bytes of uint8 [n * width] on a device, in the way "segments"."""
    kernels = kernels_for(data.device)
    if kernels is None or mode not in ("tight", "segments") or data.numel() < MIN_BYTES:
        return None
    if not kernels.takes(split.layout, split.width):
        return None
    if chunk_log2 not in kernels.ENCODER_LOG2:
        if chunk_log2 != planes.MAX_CHUNK_LOG2:  # asked for, not the default
            return None
        chunk_log2 = kernels.DEFAULT_LOG2
    coded: tuple[bytes, bytes] = kernels.encode(
        data, split.width, split.layout, chunk_log2
    ).to_host()
    return coded


def bring(head: Any, coded: Any, n: int, split: Split, device: torch.device) -> Any:
    """A coded array in the form that a device's kernels read; None if it has none for it."""
    kernels = kernels_for(device)
    if kernels is None or not kernels.takes(split.layout, split.width):
        return None
    return kernels.Packed.from_host(head, coded, n, split.width, split.layout, device)


def only_first_coded(packed: Any) -> bool:
    """Whether no chunk of a device's array has a stream but in plane 0; waits for the device."""
    records = packed.records.view(-1, 16)
    modes = records[:, 7::3] & 255  # of the planes after the first
    return not bool(((records[:, :1] == FORM_PLANES) & (modes == BYTES)).any())


def decode(head: Any, coded: Any, n: int, split: Split, out: torch.Tensor, first: int = 0) -> bool:
    """Decode n elements from element `first` on into uint8 `out` on a device; False if it can't.

    Args:
        head: of an array of at least first + n elements.
        coded: its coded bytes.
        n: all elements of the array.
        split: how its elements are split.
        out: uint8, contiguous, on the device: as many bytes as are wanted.
        first: the first element that is wanted.

    Raises:
        BitstreamError: the bytes are damaged where they are needed.
    """
    packed = bring(head, coded, n, split, out.device)
    if packed is None:
        return False
    kernels = kernels_for(out.device)
    assert kernels is not None  # they brought it
    wanted = out.numel() // split.width
    if wanted == n:
        kernels.decode(packed, out)
    else:
        out.copy_(kernels.decode_elements(packed, first, first + wanted))
    packed.check()
    return True
