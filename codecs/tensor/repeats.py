"""Tensors of a mapping that are there twice: shared parameters, and equal ones."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from typing import Any

import torch
import xxhash

MIN_BYTES = 64  # below, saying which tensor it is takes as much
_SAMPLE = 256

Name = str | int


class Repeats:
    """Finds for each tensor an earlier one with the same elements.

    Args:
        get: gives an earlier tensor again; only equal-looking ones are asked for.
    """

    def __init__(self, get: Callable[[Any], torch.Tensor]) -> None:
        """Remember nothing yet."""
        self._get = get
        self._seen: dict[Hashable, Name] = {}

    def find(self, name: Name, tensor: torch.Tensor) -> tuple[Name, bool] | None:
        """Name of an earlier tensor with these very bits, and whether it is the same memory."""
        if tensor.numel() * tensor.element_size() < MIN_BYTES:
            return None
        for key in (_place(tensor), _look(tensor)):
            earlier = self._seen.get(key) if key is not None else None
            if earlier is None:
                continue
            other = self._get(earlier)
            if _place(other) == _place(tensor):
                return earlier, True
            if _same_bits(other, tensor):
                return earlier, False
        for key in (_place(tensor), _look(tensor)):
            if key is not None:
                self._seen[key] = name
        return None


def _place(tensor: torch.Tensor) -> Hashable:
    return tensor.device, tensor.data_ptr(), tensor.dtype, tensor.shape, tensor.stride()


def _plain(tensor: torch.Tensor) -> bool:
    flipped = tensor.is_conj() or tensor.is_neg()
    return tensor.device.type == "cpu" and tensor.is_contiguous() and not flipped


def _bytes(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.detach().reshape(-1).view(torch.uint8)


def _look(tensor: torch.Tensor) -> Hashable:
    """Some of the bytes; None where that would take a copy of all."""
    if not _plain(tensor):
        return None
    data = _bytes(tensor).numpy().data
    middle = len(data) // 2
    digest = xxhash.xxh3_64(data[:_SAMPLE])
    digest.update(data[middle : middle + _SAMPLE])
    digest.update(data[-_SAMPLE:])
    return tensor.dtype, tensor.shape, digest.intdigest()


def _same_bits(a: torch.Tensor, b: torch.Tensor) -> bool:
    if (a.dtype, a.shape) != (b.dtype, b.shape) or not (_plain(a) and _plain(b)):
        return False
    return torch.equal(_bytes(a), _bytes(b))
