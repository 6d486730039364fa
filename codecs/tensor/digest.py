"""Digests that name tensors and models: what a delta says about its base."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
import xxhash

from ..fields import Key, put_key
from .dtypes import dtype_id
from .lossless import _elements
from .packet import put_shape

Tensors = torch.Tensor | Mapping[str, torch.Tensor]


def tensor_digest(tensor: torch.Tensor) -> bytes:
    """8 bytes: XXH3-64, big-endian, of dtype id, shape and elements as they are stored."""
    state = xxhash.xxh3_64(bytes([dtype_id(tensor.dtype)]) + put_shape(tuple(tensor.shape)))
    state.update(_elements(tensor))
    return state.digest()


def join_digests(digests: Mapping[Key, bytes]) -> bytes:
    """The digest of a model from those of its tensors, whatever their order."""
    state = xxhash.xxh3_64()
    for entry in sorted(put_key(name) + digest for name, digest in digests.items()):
        state.update(entry)
    return state.digest()


def digest(x: Tensors) -> bytes:
    """8 bytes that name a tensor, or a model: equal for the same names, dtypes, shapes and bits."""
    tensors: Mapping[Any, torch.Tensor] = x if isinstance(x, Mapping) else {None: x}
    # Not `items`, by which mappings report how far the coding is.
    return join_digests({name: tensor_digest(tensors[name]) for name in tensors})
