"""Files and folders of tensors, opened for random access."""

from __future__ import annotations

import contextlib
import math
import mmap
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..kernels.errors import BitstreamError
from . import registry
from .codec import Packet
from .container import Reader
from .fields import Key
from .outer import OuterReader

if TYPE_CHECKING:
    import torch

_KEPT_BYTES = 1 << 26  # of a mapped file, once they have been read
_BLOCK_BYTES = 1 << 26


class TensorFile(Mapping[Key, "torch.Tensor"]):
    """A lazy mapping of names to tensors over a memory-mapped file.

    A tensor that was saved without a name has the key None. The file must not change while it is
    open.

    Attributes:
        metadata: what was given to `save`.
    """

    def __init__(self, path: Path, device: Any, recover: bool, options: dict[str, Any]) -> None:
        """Map the file; see `open`."""
        self._path = path
        self._map: mmap.mmap | None = None
        with path.open("rb") as file:
            if os.fstat(file.fileno()).st_size:  # an empty file can't be mapped
                self._map = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        with _naming(path):
            view = memoryview(self._map or b"")
            outer = len(view) >= 8 and bytes(view[8:9]) == b"{"
            reader = OuterReader(view) if outer else Reader(view, recover)
            name = registry.codec_name(reader.codec_id)
            self._names = dict.fromkeys(reader.keys())
        if not name.startswith("tensor/"):
            raise ValueError(f"{path} holds {name}, no tensors; use latentpack.decode")
        self._codec = registry.make(reader.codec_id, device, options)
        self._reader: Reader | OuterReader | None = reader
        self._read = 0
        self.metadata = reader.metadata

    def __getitem__(self, key: Any) -> torch.Tensor:
        """Read and decode one tensor, f[name], or some rows of it, f[name, 3:7]."""
        if isinstance(key, tuple):
            return _sliced(self, *key)
        return self._decode(key)

    def get_into(self, key: Key, out: torch.Tensor) -> torch.Tensor:
        """Decode one tensor into `out`, of its dtype and shape, and return that."""
        return self._decode(key, out)

    def _decode(self, key: Key, out: torch.Tensor | None = None) -> torch.Tensor:
        packets = self._packets(key)
        into: Any = {}
        if out is not None:
            into = {"out": out if key is None else {packet.key: out for packet in packets}}
        with _naming(self._path):
            decoded = self._codec.decode(self._open_reader().params, packets, **into)
        self._forget(sum(len(packet.bulk) for packet in packets))
        tensor: torch.Tensor = decoded if key is None else decoded[key]
        return tensor

    def _packets(self, key: Key) -> list[Packet]:
        """The packet of a tensor, after the one that has its elements if that is another."""
        reader = self._open_reader()
        with _naming(self._path):
            packet = reader.read(key)
            needed = self._codec.needs(packet)
            return [packet] if needed is None else [reader.read(needed), packet]

    def rows(self, key: Key, start: int, stop: int) -> torch.Tensor:
        """Decode rows `start` to `stop` - 1 of a tensor's first dimension.

        Only the chunks that hold them are read, checked and decoded.

        Args:
            key: name of the tensor.
            start: the first row, 0 or more.
            stop: the row after the last, at most as many as there are.

        Raises:
            BitstreamError: what holds the rows is damaged.
            ValueError: there are no such rows, or the tensor has no dimensions.
        """
        packet = self._packets(key)[0]
        if not hasattr(self._codec, "decode_rows"):
            raise ValueError(f"{self._codec.name} has no access to rows; read the whole tensor")
        with _naming(self._path):
            rows: torch.Tensor = self._codec.decode_rows(packet, start, stop)
        total = self._codec.describe(self._open_reader().params, packet)["shape"][0]
        self._forget(len(packet.bulk) * (stop - start) // max(total, 1))
        return rows

    def blocks(self, key: Key, limit: int = _BLOCK_BYTES) -> Iterator[torch.Tensor]:
        """Yield a tensor in blocks of rows of about `limit` bytes; whole if it has no rows."""
        about = self.describe(key)
        shape, itemsize = about["shape"], about["dtype"].itemsize
        size = math.prod(shape) * itemsize
        if size <= limit or len(shape) == 0 or not hasattr(self._codec, "decode_rows"):
            yield self[key]
            return
        step = max(1, limit // (size // shape[0]))
        for start in range(0, shape[0], step):
            yield self.rows(key, start, min(start + step, shape[0]))

    def _forget(self, size: int) -> None:
        """Give pages of the mapping back: they count as this process's memory until then."""
        self._read += size
        if self._read > _KEPT_BYTES and self._map is not None and hasattr(mmap, "MADV_DONTNEED"):
            self._map.madvise(mmap.MADV_DONTNEED)
            self._read = 0

    def describe(self, key: Key) -> dict[str, Any]:
        """Say dtype and shape of a tensor without decoding it."""
        reader = self._open_reader()
        with _naming(self._path):
            return self._codec.describe(reader.params, reader.read(key))

    def __iter__(self) -> Iterator[Key]:
        """Iterate over the names in file order."""
        return iter(self._names)

    def __len__(self) -> int:
        """Return the number of tensors."""
        return len(self._names)

    def __contains__(self, key: object) -> bool:
        """Tell whether there is a tensor of this name, without decoding it."""
        return key in self._names

    def __repr__(self) -> str:
        """Show the path."""
        return f"<latentpack.open({str(self._path)!r})>"

    def _open_reader(self) -> Reader | OuterReader:
        if self._reader is None:
            raise RuntimeError(f"{self._path} is closed; open it again")
        return self._reader

    def close(self) -> None:
        """Release the file."""
        self._reader = None
        if self._map is not None:
            with contextlib.suppress(BufferError):  # a view is alive: freed with the last one
                self._map.close()

    def __enter__(self) -> TensorFile:
        """Return self."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close the file."""
        self.close()


class TensorFolder(Mapping[Key, "torch.Tensor"]):
    """The tensors of all files in a folder, as one lazy mapping: the shards of a model.

    Attributes:
        files: the files that hold tensors, by name.
    """

    def __init__(self, path: Path, device: Any, recover: bool, options: dict[str, Any]) -> None:
        """Open every .lpk and packed .safetensors file of the folder; see `open`."""
        self._path = path
        found = sorted(p for p in path.iterdir() if p.suffix in (".lpk", ".safetensors"))
        if not found:
            raise ValueError(f"{path} has no .lpk and no .safetensors file")
        self.files = {p.name: TensorFile(p, device, recover, options) for p in found}
        self._home: dict[Key, TensorFile] = {}
        for name, file in self.files.items():
            for key in file:
                if key in self._home:
                    raise ValueError(f"{path / name} holds {key!r}, as another file here does")
                self._home[key] = file

    def __getitem__(self, key: Any) -> torch.Tensor:
        """Read and decode one tensor, or some rows of it; see `TensorFile`."""
        if isinstance(key, tuple):
            return _sliced(self, *key)
        return self._home[key][key]

    def get_into(self, key: Key, out: torch.Tensor) -> torch.Tensor:
        """Decode one tensor into `out`; see `TensorFile`."""
        return self._home[key].get_into(key, out)

    def rows(self, key: Key, start: int, stop: int) -> torch.Tensor:
        """Decode some rows of a tensor; see `TensorFile`."""
        return self._home[key].rows(key, start, stop)

    def describe(self, key: Key) -> dict[str, Any]:
        """Say dtype and shape of a tensor without decoding it."""
        return self._home[key].describe(key)

    def __iter__(self) -> Iterator[Key]:
        """Iterate over the names, file by file."""
        return iter(self._home)

    def __len__(self) -> int:
        """Return the number of tensors."""
        return len(self._home)

    def __repr__(self) -> str:
        """Show the path."""
        return f"<latentpack.open({str(self._path)!r})>"

    def close(self) -> None:
        """Release the files."""
        for file in self.files.values():
            file.close()

    def __enter__(self) -> TensorFolder:
        """Return self."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close the files."""
        self.close()


def _sliced(packed: TensorFile | TensorFolder, name: Key, rows: slice) -> torch.Tensor:
    """Decode the rows of a slice in steps of 1; ValueError for anything else."""
    shape = packed.describe(name)["shape"]
    if not isinstance(rows, slice) or rows.step not in (None, 1) or not shape:
        raise ValueError(f"{rows!r} of {name!r}, of shape {shape}; give rows as in f[name, 3:7]")
    start, stop, _ = rows.indices(shape[0])
    return packed.rows(name, start, max(start, stop))


@contextlib.contextmanager
def _naming(path: Path) -> Iterator[None]:
    """Put the file's name before what is wrong with its bytes."""
    try:
        yield
    except BitstreamError as error:
        raise BitstreamError(f"{path}: {error}") from None
