"""Packed weights into models: an existing module, or one of a Hugging Face configuration."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import nn

from .. import api

Slot = tuple[nn.Module, str]


def load_into(
    module: nn.Module, path: str | os.PathLike[str], strict: bool = True, **options: Any
) -> tuple[list[str], list[str]]:
    """Decode the tensors of a file or folder straight into a module's parameters and buffers.

    Parameters on the CPU are decoded in place, so there is no second copy of the model; those on
    the meta device are replaced by new ones. Tied parameters stay tied, and one of their names in
    the file is enough.

    Args:
        module: of the same names, shapes and dtypes as the file.
        path: as for `latentpack.open`.
        strict: raise if the file lacks a name of the module, or has another.
        options: of the codec, e.g. threads=1.

    Returns:
        Names that the file lacks, and names that the module lacks.

    Raises:
        ValueError: names (if strict), shapes or dtypes differ; all of them are listed, and
            nothing has been changed.
        BitstreamError: the file is damaged; parameters may have been changed.
    """
    slots = dict(_slots(module))
    with api.open(path, **options) as packed:
        own = {name: _tensor(slot) for name, slot in slots.items()}
        known = {id(own[str(key)]) for key in packed if str(key) in own}
        missing = [name for name, tensor in own.items() if id(tensor) not in known]
        unexpected = [str(key) for key in packed if str(key) not in own]
        problems = [f"the file lacks {name!r}" for name in missing if strict]
        problems += [f"the module lacks {name!r}" for name in unexpected if strict]
        for key in packed:
            if str(key) in own:
                problems += _differences(str(key), packed.describe(key), own[str(key)])
        if problems:
            raise ValueError(f"{path} does not fit the module: {'; '.join(problems)}")
        filled: dict[int, torch.Tensor] = {}
        for key in packed:
            tensor = own.get(str(key))
            if tensor is not None and id(tensor) not in filled:
                filled[id(tensor)] = _fill(packed, key, tensor)
    for name, slot in slots.items():
        if own[name].is_meta and id(own[name]) in filled:
            _put(slot, filled[id(own[name])])
    return missing, unexpected


def load_pretrained(folder: str | os.PathLike[str], **options: Any) -> Any:
    """Load a model of the transformers library from a folder that `latentpack pack` made.

    The folder holds config.json beside the packed files; nothing is fetched from anywhere.

    Args:
        folder: the packed folder.
        options: of the model class's `from_pretrained`, e.g. dtype=torch.float32.

    Raises:
        RuntimeError: transformers is not installed.
        ValueError: the configuration names no model class.
    """
    try:
        import transformers  # type: ignore[import-not-found,unused-ignore]
    except ImportError as error:
        raise RuntimeError(
            f"load_pretrained needs transformers ({error}); pip install latentpack[transformers]"
        ) from error
    config = transformers.AutoConfig.from_pretrained(Path(folder), local_files_only=True)
    for name in config.architectures or ():
        if model_class := getattr(transformers, name, None):
            break
    else:
        raise ValueError(
            f"{folder}: config.json names {config.architectures} as architectures, none of which "
            "this version of transformers has"
        )
    with api.open(folder) as packed:
        state = {str(key): packed[key] for key in packed}
    return model_class.from_pretrained(None, config=config, state_dict=state, **options)


def _slots(module: nn.Module) -> Iterator[tuple[str, Slot]]:
    """Where each name of the state dict lives; names of tied parameters come all."""
    names = set(module.state_dict(keep_vars=True))
    for prefix, owner in module.named_modules(remove_duplicate=False):
        for kind in (owner._parameters, owner._buffers):
            for name in kind:
                full = f"{prefix}.{name}" if prefix else name
                if full in names:
                    yield full, (owner, name)


def _tensor(slot: Slot) -> torch.Tensor:
    found: torch.Tensor = getattr(*slot)
    return found


def _differences(name: str, about: dict[str, Any], own: torch.Tensor) -> list[str]:
    shape, dtype = tuple(about["shape"]), about["dtype"]
    found = []
    if shape != tuple(own.shape):
        found.append(f"{name!r} is {shape} in the file and {tuple(own.shape)} in the module")
    if dtype != own.dtype:
        found.append(
            f"{name!r} is {dtype} in the file and {own.dtype} in the module (.to({dtype}))"
        )
    return found


def _fill(packed: Any, key: Any, own: torch.Tensor) -> torch.Tensor:
    """Decode into the module's memory; on the meta device, into new memory."""
    if own.is_meta:
        new: torch.Tensor = packed[key]
        return nn.Parameter(new, own.requires_grad) if isinstance(own, nn.Parameter) else new
    with torch.no_grad():
        packed.get_into(key, own.detach())
    return own


def _put(slot: Slot, tensor: torch.Tensor) -> None:
    owner, name = slot
    if isinstance(tensor, nn.Parameter):
        owner._parameters[name] = tensor
    else:
        owner._buffers[name] = tensor
