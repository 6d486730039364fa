"""Which model a delta was made from: found by digest among files and folders."""

from __future__ import annotations

from collections import ChainMap
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from ..codecs import api, registry
from ..codecs.container import Reader
from ..codecs.outer import is_packed
from ..codecs.tensor.digest import digest
from ..datasets.torch_checkpoints import is_checkpoint
from ..kernels.errors import BitstreamError

Tensors = Mapping[str, torch.Tensor]
DELTA = registry.codec_id("tensor/delta")


def header_of(path: Path) -> dict[str, Any] | None:
    """The parameters of a file that is a delta; None for any other."""
    if path.suffix != ".lpk":
        return None
    with path.open("rb") as file:
        reader = Reader(file)
        return reader.params if reader.codec_id == DELTA else None


def open_base(paths: Sequence[Path]) -> Tensors:
    """Open the first of these models; if it is a delta, its base is looked for among the others.

    Args:
        paths: model files, packed or not, and folders of them. A folder that comes first is one
            model in several files.

    Raises:
        ValueError: a base is not among them. BitstreamError: a file is damaged.
    """
    first = paths[0]
    if first.is_dir():
        return _union(first)
    header = header_of(first)
    return _plain(first) if header is None else _based(first, header, _Places(paths))


def find_base(path: Path, paths: Sequence[Path]) -> Tensors | None:
    """Open the model that a packed file was made from; None if that is no delta.

    Args:
        path: a packed file.
        paths: where to look: model files and folders of them. A single file that is no delta,
            or a folder of shards, is taken as it is, since every tensor is checked when it is
            used.

    Raises:
        ValueError: the base is not among them; the digests of all are named.
    """
    header = header_of(path)
    if header is None:
        return None
    if not paths:
        raise ValueError(
            f"{path} is a delta from the model with digest {_hex(header)}; name that with --base"
        )
    if len(paths) == 1 and _is_model(paths[0]):
        return open_base(paths)
    return _Places(paths).find(_hex(header), path, frozenset())


class Part(Mapping[str, torch.Tensor]):
    """Those tensors of a mapping that another one names, too: the base of a shard."""

    def __init__(self, tensors: Tensors, names: Iterable[str]) -> None:
        """Keep the mapping."""
        self._tensors = tensors
        self._names = dict.fromkeys(name for name in names if name in tensors)

    def __getitem__(self, name: str) -> torch.Tensor:
        """Return a tensor."""
        if name not in self._names:
            raise KeyError(name)
        return self._tensors[name]

    def __iter__(self) -> Iterator[str]:
        """Iterate over the names."""
        return iter(self._names)

    def __len__(self) -> int:
        """Return the number of tensors."""
        return len(self._names)


class _Places:
    """Where bases are looked for."""

    def __init__(self, paths: Sequence[Path]) -> None:
        self.folders = [path for path in paths if path.is_dir()]
        files = [f for path in paths for f in (_files(path) if path.is_dir() else [path])]
        self.deltas = {file: header for file in files if (header := header_of(file)) is not None}
        self.plain = [file for file in files if file not in self.deltas]

    def find(self, wanted: str, wanting: Path, met: frozenset[str]) -> Tensors:
        """The model with this digest; what costs least is tried first."""
        if wanted in met:
            raise BitstreamError(f"{wanting}: its base {wanted} has it as a base in turn")
        for file, header in self.deltas.items():
            if _hex(header, "self") == wanted:
                return _based(file, header, self, met | {wanted})
        found = {}
        for path in [*self.plain, *self.folders]:
            tensors = _union(path) if path.is_dir() else _plain(path)
            found[path] = digest(tensors).hex()
            if found[path] == wanted:
                return tensors
        found |= {file: _hex(header, "self") for file, header in self.deltas.items()}
        others = "; ".join(f"{path} has {has}" for path, has in found.items())
        raise ValueError(
            f"{wanting} is a delta from the model with digest {wanted}, which is not among the "
            f"bases: {others or 'there are none'}"
        )


def _based(
    path: Path, header: dict[str, Any], places: _Places, met: frozenset[str] = frozenset()
) -> Tensors:
    base = places.find(_hex(header), path, met)
    return api.open(path, base=base)  # type: ignore[return-value]


def _union(folder: Path) -> Tensors:
    """The tensors of the files of a folder that need no base."""
    files = [path for path in _files(folder) if header_of(path) is None]
    return ChainMap(*(_plain(path) for path in files[::-1]))  # type: ignore[arg-type]


def _is_model(path: Path) -> bool:
    """Whether a path is one model: a file that needs no base, or files of different tensors."""
    files = _files(path) if path.is_dir() else [path]
    if not files or any(header_of(file) is not None for file in files):
        return False
    names = [name for file in files for name in _plain(file)] if len(files) > 1 else []
    return len(set(names)) == len(names)


def _plain(path: Path) -> Tensors:
    """The tensors of a file that needs no base."""
    from .model_files import open_model

    if path.suffix == ".lpk" or (path.suffix == ".safetensors" and is_packed(path)):
        return api.open(path)  # type: ignore[return-value]
    return open_model(path).tensors


def _files(folder: Path) -> list[Path]:
    found = sorted(path for path in folder.iterdir() if path.is_file())
    return [p for p in found if p.suffix in (".lpk", ".safetensors") or is_checkpoint(p)]


def _hex(header: dict[str, Any], name: str = "base") -> str:
    value = header.get(name)
    if not isinstance(value, bytes):
        raise BitstreamError(f"the parameter {name!r} of a delta is {value!r:.40}, expected bytes")
    return value.hex()
