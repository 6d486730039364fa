"""PyTorch checkpoints: loaded without running code, and taken apart into tensors and the rest.

>>> import torch
>>> tensors, tree = take_apart({"model": {"w": torch.ones(2)}, "step": 7})
>>> list(tensors)
['model/w']
>>> put_together(tree, tensors)["step"]
7
"""

from __future__ import annotations

import base64
import os
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch

SUFFIXES = (".pt", ".pth", ".bin", ".ckpt")
_PLAIN = (type(None), bool, int, float, str)
_MAX_DEPTH = 64

Tree = list[Any]


def load_checkpoint(path: str | os.PathLike[str]) -> Any:
    """Load a checkpoint with PyTorch's safe loader: no code of the file is run.

    Raises:
        ValueError: it is no checkpoint, or holds more than tensors and plain values.
    """
    try:
        try:
            return torch.load(path, map_location="cpu", weights_only=True, mmap=True)
        except RuntimeError:  # files of PyTorch before 1.6 can't be mapped
            return torch.load(path, map_location="cpu", weights_only=True)
    except UnpicklingError as error:
        first = str(error).strip().splitlines()[0]
        raise ValueError(
            f"{path}: PyTorch's safe loader refuses it ({first[:160]}); save a plain state dict "
            "with torch.save(model.state_dict(), ...) or a .safetensors file"
        ) from None
    except (RuntimeError, EOFError, ValueError) as error:
        first = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise ValueError(f"{path} is no PyTorch checkpoint: {first[:160]}") from None


def take_apart(value: Any) -> tuple[dict[str, torch.Tensor], Tree]:
    """Split a checkpoint into named tensors and a tree of JSON values that tells where they go.

    A tensor's name is the keys on its way, joined by "/"; those of a state dict stay as they are.

    Raises:
        ValueError: something is no tensor, plain value, list, tuple or dict of such.
    """
    tensors: dict[str, torch.Tensor] = {}
    return tensors, _take(value, "", tensors, 0)


def _take(value: Any, path: str, tensors: dict[str, torch.Tensor], depth: int) -> Tree:
    if depth > _MAX_DEPTH:
        raise ValueError(f"{path!r} lies deeper than {_MAX_DEPTH} levels")
    if isinstance(value, torch.Tensor):
        name = path or "tensor"
        while name in tensors:
            name += "_"
        tensors[name] = value.detach()
        kind = "parameter" if isinstance(value, torch.nn.Parameter) else "tensor"
        return [kind, name, value.requires_grad, _stride(value)]
    if type(value) in _PLAIN:
        return ["plain", str(value) if type(value) is int else value, type(value) is int]
    if isinstance(value, bytes):
        return ["bytes", base64.b64encode(value).decode()]
    if isinstance(value, complex):
        return ["complex", value.real, value.imag]
    if isinstance(value, (torch.dtype, torch.device)):
        return ["torch", type(value).__name__, str(value).removeprefix("torch.")]
    join = f"{path}/" if path else ""
    if type(value) in (dict, OrderedDict):
        items = [
            [_take(key, "", {}, depth + 1), _take(item, f"{join}{key}", tensors, depth + 1)]
            for key, item in value.items()
        ]
        return [type(value).__name__, items]
    if type(value) in (list, tuple, torch.Size, set):
        items = [_take(item, f"{join}{i}", tensors, depth + 1) for i, item in enumerate(value)]
        return [type(value).__name__, items]
    raise ValueError(f"{path!r} is a {type(value).__name__}; only tensors and plain values pack")


def _stride(tensor: torch.Tensor) -> list[int] | None:
    """Strides of a tensor that is dense but in another order than C, None of the others."""
    stride = tensor.stride()
    return list(stride) if not tensor.is_contiguous() and _dense(tensor.shape, stride) else None


def _dense(shape: Sequence[int], stride: Sequence[int]) -> bool:
    """Whether the elements fill their memory, in any order of the dimensions."""
    order = sorted((s, n) for n, s in zip(shape, stride, strict=True) if n != 1)
    expected = 1
    for step, size in order:
        if step != expected:
            return False
        expected *= size
    return expected > 0


def put_together(tree: Tree, tensors: Mapping[str, torch.Tensor]) -> Any:
    """Build the checkpoint that `take_apart` split; entries whose tensor is missing are left out.

    Raises:
        ValueError: the tree is not one that `take_apart` made.
    """
    try:
        return _put(tree, tensors)
    except (TypeError, IndexError, KeyError, AttributeError, RecursionError) as error:
        raise ValueError(f"the checkpoint's structure is damaged: {error!r:.100}") from None


class _Missing:
    """Stands for a tensor that is not there."""


def _put(tree: Tree, tensors: Mapping[str, torch.Tensor]) -> Any:
    kind, rest = tree[0], tree[1:]
    if kind in ("tensor", "parameter"):
        name, requires_grad, stride = rest
        return _tensor(kind, name, requires_grad, stride, tensors)
    if kind == "plain":
        return int(rest[0]) if rest[1] else rest[0]
    if kind == "bytes":
        return base64.b64decode(rest[0])
    if kind == "complex":
        return complex(*rest)
    if kind == "torch":
        return torch.device(rest[1]) if rest[0] == "device" else _dtype(rest[1])
    if kind in ("dict", "OrderedDict"):
        pairs = [(_put(k, tensors), _put(v, tensors)) for k, v in rest[0]]
        kept = [(k, v) for k, v in pairs if v is not _Missing]
        return OrderedDict(kept) if kind == "OrderedDict" else dict(kept)
    make = {"list": list, "tuple": tuple, "Size": torch.Size, "set": set}[kind]
    items = (_put(item, tensors) for item in rest[0])
    return make(None if item is _Missing else item for item in items)


def _dtype(name: str) -> torch.dtype:
    found = getattr(torch, name)
    if not isinstance(found, torch.dtype):
        raise ValueError(f"torch.{name} is no dtype")
    return found


def _tensor(
    kind: str,
    name: str,
    requires_grad: bool,
    stride: list[int] | None,
    tensors: Mapping[str, torch.Tensor],
) -> Any:
    if name not in tensors:
        return _Missing
    found = tensors[name]
    if stride is not None:
        if not _dense(found.shape, stride):
            raise ValueError(f"strides {stride} do not fit {name!r} of shape {tuple(found.shape)}")
        found = torch.empty_strided(found.shape, stride, dtype=found.dtype).copy_(found)
    if kind == "parameter":
        return torch.nn.Parameter(found, requires_grad)
    return found.requires_grad_(requires_grad) if requires_grad else found


def is_checkpoint(path: str | os.PathLike[str]) -> bool:
    """Tell by its name whether a file is a PyTorch checkpoint."""
    return Path(path).suffix in SUFFIXES
