"""Model files in the safetensors format, one tensor in memory at a time."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO

import torch
from safetensors import SafetensorError, safe_open

Progress = Callable[[int, int], None]
Layout = tuple[str, torch.dtype, tuple[int, ...]]  # name, dtype, shape

# What the file calls a dtype.
DTYPES = {
    "BOOL": torch.bool,
    "U8": torch.uint8,
    "U16": torch.uint16,
    "U32": torch.uint32,
    "U64": torch.uint64,
    "I8": torch.int8,
    "I16": torch.int16,
    "I32": torch.int32,
    "I64": torch.int64,
    "F8_E4M3": torch.float8_e4m3fn,
    "F8_E4M3FNUZ": torch.float8_e4m3fnuz,
    "F8_E5M2": torch.float8_e5m2,
    "F8_E5M2FNUZ": torch.float8_e5m2fnuz,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "F32": torch.float32,
    "F64": torch.float64,
    "C64": torch.complex64,
}
NAMES = {dtype: name for name, dtype in DTYPES.items()}
_REOPEN_BYTES = 1 << 28  # pages of a mapped file count as memory until it is unmapped


class SafetensorsFile(Mapping[str, torch.Tensor]):
    """A lazy mapping over a .safetensors file: `file[name]` reads one tensor.

    Names come in the order of the data. A tensor shares the file's mapping until it is freed.

    Attributes:
        metadata: `__metadata__` in the order of the file; None when the file has none.
        size: bytes of all tensors.
    """

    def __init__(self, path: str | os.PathLike[str], progress: Progress | None = None) -> None:
        """Read the header; the library checks it.

        Args:
            path: the file.
            progress: called with (bytes done, bytes in all) when a tensor was asked for and the
                one before it is done.

        Raises:
            ValueError: this is no whole .safetensors file, or has a dtype that torch lacks.
        """
        self._path = Path(path)
        self._open()
        header = self._header()
        self.metadata: dict[str, str] | None = header.pop("__metadata__", None)
        ordered = sorted(header.items(), key=lambda item: item[1]["data_offsets"])
        self._sizes = {k: v["data_offsets"][1] - v["data_offsets"][0] for k, v in ordered}
        self.size = sum(self._sizes.values())
        self._progress = progress
        for name, entry in ordered:
            if entry["dtype"] not in DTYPES:
                raise ValueError(f"{path}: tensor {name!r} is {entry['dtype']}, which torch lacks")

    def _open(self) -> None:
        with self._path.open("rb"):  # the library's errors for missing files name no file
            pass
        try:
            self._handle: Any = safe_open(self._path, framework="pt")
        except SafetensorError as error:
            raise ValueError(f"{self._path} is not a whole .safetensors file: {error}") from None
        self._read = 0

    def _header(self) -> dict[str, Any]:
        """Return the JSON header, for the order of things; the library has checked it."""
        with self._path.open("rb") as file:
            size = int.from_bytes(file.read(8), "little")
            header: dict[str, Any] = json.loads(file.read(size))
        return header

    def __getitem__(self, name: str) -> torch.Tensor:
        """Read one tensor."""
        size = self._sizes[name]
        if self._read + size > _REOPEN_BYTES:
            self._open()
        self._read += size
        tensor: torch.Tensor = self._handle.get_tensor(name)
        return tensor

    def items(self) -> Any:
        """Return an iterable of (name, tensor), which reports progress."""
        return self._items()

    def _items(self) -> Iterator[tuple[str, torch.Tensor]]:
        done = 0
        for name, size in self._sizes.items():
            yield name, self[name]
            done += size
            if self._progress:
                self._progress(done, self.size)

    def __iter__(self) -> Iterator[str]:
        """Iterate over the names in the order of the data."""
        return iter(self._sizes)

    def __len__(self) -> int:
        """Return the number of tensors."""
        return len(self._sizes)

    def __contains__(self, name: object) -> bool:
        """Tell whether there is a tensor of this name, without reading it."""
        return name in self._sizes


def write_safetensors(
    file: BinaryIO,
    layout: Iterable[Layout],
    tensors: Iterable[torch.Tensor | Iterable[torch.Tensor]],
    metadata: Mapping[str, str] | None = None,
) -> None:
    """Write a .safetensors file from a stream of tensors; none is held.

    Bytes are those of the safetensors library wherever it would keep this order of tensors.

    Args:
        file: written to from its position on; needs no seek.
        layout: name, dtype and shape of every tensor.
        tensors: the tensors in the order of `layout`, on any device; or for each its rows, in
            blocks.
        metadata: str to str; None writes none.

    Raises:
        ValueError: a dtype has no name in this format, or a tensor is not as its layout says.
    """
    layout = list(layout)
    header: dict[str, Any] = {} if metadata is None else {"__metadata__": dict(metadata)}
    offset = 0
    for name, dtype, shape in layout:
        if dtype not in NAMES:
            raise ValueError(f"tensor {name!r} is {dtype}, which .safetensors files can't hold")
        end = offset + dtype.itemsize * torch.Size(shape).numel()
        header[name] = {"dtype": NAMES[dtype], "shape": shape, "data_offsets": [offset, end]}
        offset = end
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)
    file.write(len(text).to_bytes(8, "little") + text)
    for (name, dtype, shape), tensor in zip(layout, tensors, strict=True):
        rows = 0
        for block in [tensor] if isinstance(tensor, torch.Tensor) else tensor:
            if block.dtype != dtype or tuple(block.shape)[1:] != tuple(shape)[1:]:
                raise ValueError(f"tensor {name!r} is {block.dtype} {tuple(block.shape)}")
            rows += block.shape[0] if block.ndim else 1
            file.write(_raw(block))
        if rows != (shape[0] if len(shape) else 1):
            raise ValueError(f"tensor {name!r} has {rows} rows, its shape is {tuple(shape)}")


def _raw(tensor: torch.Tensor) -> memoryview:
    """Return the elements in memory order, without a copy where there is no need of one."""
    flat = tensor.detach().cpu().contiguous().resolve_conj().resolve_neg().reshape(-1)
    return flat.view(torch.uint8).numpy().data if flat.numel() else memoryview(b"")
