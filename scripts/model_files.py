"""Model files to packed files and back, without loss and one tensor in memory at a time."""

import os
from collections.abc import Callable
from typing import Any

import torch

from ..codecs import api
from ..codecs.container import create
from ..datasets.safetensors_files import SafetensorsFile, write_safetensors
from ..kernels.errors import BitstreamError

Path = str | os.PathLike[str]
Progress = Callable[[int, int], None]


def pack(
    src: Path,
    dst: Path,
    mode: str | None = None,
    threads: int | None = None,
    force: bool = False,
    progress: Progress | None = None,
) -> None:
    """Pack a .safetensors file into a .lpk file.

    Args:
        src: the model file; order of the tensors and metadata are kept.
        dst: the new file; "-" is standard output.
        mode: "fast", "tight" or "small"; None is the codec's default.
        threads: of the codec; None is its default. Never changes a byte.
        force: replace a file that exists.
        progress: called with (bytes of tensors done, bytes of all).

    Raises:
        ValueError: src is no whole .safetensors file.
        FileExistsError: something is at `dst`, and not `force`.
    """
    source = SafetensorsFile(src, progress)
    metadata = None
    if source.metadata is not None:  # as pairs: CBOR sorts the keys of a map
        metadata = {"safetensors": [list(pair) for pair in source.metadata.items()]}
    options = _given(mode=mode, threads=threads)
    api.save(dst, source, metadata=metadata, force=force, **options)


def unpack(
    src: Path,
    dst: Path,
    threads: int | None = None,
    force: bool = False,
    progress: Progress | None = None,
) -> None:
    """Turn what `pack` wrote back into a .safetensors file.

    The bytes are those of the file that was packed if it was written by the safetensors library.

    Args:
        src: the .lpk file.
        dst: the new file; "-" is standard output.
        threads: of the codec; None is its default.
        force: replace a file that exists.
        progress: called with (bytes of tensors done, bytes of all).

    Raises:
        BitstreamError: src is damaged.
        ValueError: src holds no tensors, or such that .safetensors files can't hold.
        FileExistsError: something is at `dst`, and not `force`.
    """
    with api.open(src, **_given(threads=threads)) as packed:
        layout = [_layout(packed, name) for name in packed]
        sizes = [dtype.itemsize * torch.Size(shape).numel() for _, dtype, shape in layout]
        done = _Count(sum(sizes), progress)
        tensors = (done.after(packed[key], size) for key, size in zip(packed, sizes, strict=True))
        with create(dst, force) as file:
            write_safetensors(file, layout, tensors, _metadata(packed.metadata))


def verify(src: Path, packed_path: Path) -> None:
    """Raise RuntimeError unless a packed file gives back every tensor of `src` bit for bit."""
    source = SafetensorsFile(src)
    with api.open(packed_path) as packed:
        if list(packed) != list(source):
            raise RuntimeError(f"{packed_path} has other tensors than {src}; pack it again")
        for name, x in source.items():
            y = packed[name]
            if (y.dtype, y.shape) != (x.dtype, x.shape) or not torch.equal(_bits(y), _bits(x)):
                raise RuntimeError(f"{packed_path}: {name!r} is not as in {src}; keep {src}")


class _Count:
    """Reports how many bytes are done when the next tensor is asked for, or none is left."""

    def __init__(self, total: int, progress: Progress | None) -> None:
        self.done = 0
        self.total = total
        self.progress = progress

    def after(self, tensor: torch.Tensor, size: int) -> torch.Tensor:
        self.done += size
        if self.progress:
            self.progress(self.done, self.total)
        return tensor


def _given(**options: Any) -> dict[str, Any]:
    return {name: value for name, value in options.items() if value is not None}


def _layout(packed: api.TensorFile, key: Any) -> tuple[str, torch.dtype, tuple[int, ...]]:
    what = packed.describe(key)
    return "tensor" if key is None else str(key), what["dtype"], what["shape"]


def _metadata(metadata: dict[str, Any]) -> dict[str, str] | None:
    pairs = metadata.get("safetensors")
    if pairs is None:
        return None
    try:
        return {str(key): str(value) for key, value in pairs}
    except (TypeError, ValueError):
        raise BitstreamError(f"metadata: 'safetensors' holds no pairs: {pairs!r:.60}") from None


def _bits(x: torch.Tensor) -> torch.Tensor:
    return x.contiguous().reshape(-1).view(torch.uint8)
