"""The public functions: a signal to bytes or a file, and back.

>>> import latentpack, torch
>>> x = torch.arange(6, dtype=torch.bfloat16)
>>> torch.equal(latentpack.decode(latentpack.encode(x)), x)
True
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, cast, overload

from ..kernels import memory
from ..kernels.errors import BitstreamError
from . import registry
from .codec import Buffer, Codec, Rate
from .container import Reader, Writer, create, empty_size, most_bytes
from .memory_file import MemoryFile
from .tensor_files import TensorFile, TensorFolder

if TYPE_CHECKING:
    import torch


@overload
def encode(
    x: torch.Tensor | Mapping[str, torch.Tensor],
    codec: str | None = None,
    rate: Rate | None = None,
    metadata: dict[str, Any] | None = None,
    out: None = None,
    **options: Any,
) -> bytes: ...
@overload
def encode(
    x: torch.Tensor | Mapping[str, torch.Tensor],
    codec: str | None = None,
    rate: Rate | None = None,
    metadata: dict[str, Any] | None = None,
    *,
    out: Any,
    **options: Any,
) -> memoryview: ...
def encode(
    x: torch.Tensor | Mapping[str, torch.Tensor],
    codec: str | None = None,
    rate: Rate | None = None,
    metadata: dict[str, Any] | None = None,
    out: Any = None,
    **options: Any,
) -> bytes | memoryview:
    """Turn a signal into the bytes of a .lpk file.

    Args:
        x: what the codec takes: any tensor, or a mapping of names to tensors, for
            "tensor/lossless"; uint8 [C, H, W] for "image/light".
        codec: name in the table of registry.py; None is "tensor/delta" with `base=`, the old
            tensors, and else "tensor/lossless".
        rate: the size or quality asked for; None is the codec's default. Lossless codecs take
            none.
        metadata: str keys, CBOR values; comes back as `open(path).metadata`.
        out: a writable, contiguous buffer (bytearray, memoryview, NumPy array, mmap) of at
            least `max_size` bytes to code into. Memory that has been used before is much faster
            than new memory.
        options: of the codec, e.g. mode="tight" or threads=1.

    Returns:
        The file. With `out`, the part of it that holds the file, which need not be its first.

    Raises:
        ValueError: the codec is unknown, or does not take this signal, rate or option; `out` is
            too small.
    """
    number, coder = _coder(codec, options)
    if out is None:
        return _new_bytes(number, coder, x, rate, metadata)
    most = _most_bytes(number, coder, x, metadata)
    view = memoryview(out).cast("B")
    if view.readonly or len(view) < most:
        what = "cannot be written to" if view.readonly else f"has {len(view)} bytes"
        raise ValueError(f"out {what}, expected {most} or more writable ones; see max_size")
    memory.prefer_large_pages(view)  # where it has not been used yet
    file = MemoryFile(lambda: view, at_start=False)
    _write(cast(BinaryIO, file), number, coder, x, rate, metadata)
    return file.used()


def max_size(
    x: torch.Tensor | Mapping[str, torch.Tensor],
    codec: str | None = None,
    metadata: dict[str, Any] | None = None,
    **options: Any,
) -> int:
    """Return how many bytes `encode` needs for its `out`, whatever the values in `x`.

    Args:
        x: the signal, or one of the same shapes and dtypes; no value is read.
        codec: as for `encode`, also the other arguments.
        metadata: goes into the file.
        options: of the codec.

    Raises:
        ValueError: the codec knows no bound.
    """
    number, coder = _coder(codec, options)
    return _most_bytes(number, coder, x, metadata)


def decode(
    data: Buffer | BinaryIO, out: Any = None, device: Any = None, **options: Any
) -> torch.Tensor | dict[str, torch.Tensor]:
    """Turn the bytes of a .lpk file back into the signal.

    Args:
        data: a bytes-like object or a seekable binary file.
        out: a tensor, or a mapping of tensors, of the right dtypes and shapes; it is filled and
            returned.
        device: where the result shall be, e.g. "cuda"; None is the CPU.
        options: of the codec, e.g. threads=1, or for "tensor/delta" base=, the tensors it was
            encoded with.

    Returns:
        A tensor, or for a mapping a dict in the order in which it was written.

    Raises:
        BitstreamError: the data is damaged, or needs a newer release.
        ValueError: `out` does not fit.
    """
    reader = Reader(data)
    codec = registry.make(reader.codec_id, device, options)
    packets = reader.packets()
    if out is None or "out" not in registry.parameters(type(codec).decode):
        x = codec.decode(reader.params, packets)
    else:
        x = codec.decode(reader.params, packets, out=out)  # type: ignore[call-arg]
    if next(packets, None) is not None:  # also reads on to the end, which may be missing
        raise BitstreamError(f"{codec.name} found more packets than its signal has")
    return x if out is None or x is out else _fill(out, x)  # type: ignore[no-any-return]


def save(
    path: str | os.PathLike[str],
    x: torch.Tensor | Mapping[str, torch.Tensor],
    codec: str | None = None,
    rate: Rate | None = None,
    metadata: dict[str, Any] | None = None,
    force: bool = False,
    **options: Any,
) -> None:
    """Encode a signal into a file, which appears at `path` when it is complete.

    Args:
        path: the new file; "-" is standard output.
        x: see `encode`, also for the other arguments.
        codec: name of the codec.
        rate: the size or quality asked for.
        metadata: goes into the file.
        force: replace a file that exists.
        options: of the codec.

    Raises:
        FileExistsError: something is at `path`, and not `force`.
        ValueError: as `encode`.
    """
    number, coder = _coder(codec, options)
    with create(path, force) as file:
        _write(file, number, coder, x, rate, metadata)


def open(
    path: str | os.PathLike[str], device: Any = None, recover: bool = False, **options: Any
) -> TensorFile | TensorFolder:
    """Open a file of tensors, or a folder of such files, for random access.

    >>> with latentpack.open("model.lpk") as f:  # doctest: +SKIP
    ...     weight = f["layers.3.weight"]  # reads and decodes this tensor only
    ...     few = f.rows("embedding.weight", 100, 108)  # only the chunks with these rows

    Args:
        path: a .lpk file of a tensor codec, a packed .safetensors file (FORMAT.md, section 14),
            or a folder of them, the shards of one model.
        device: where the tensors shall be; None is the CPU.
        recover: when a .lpk file was cut short, offer the tensors that are whole.
        options: of the codec, e.g. threads=1, or base=, which may be another open file.

    Raises:
        BitstreamError: this is no whole file of one of these kinds.
        ValueError: it holds no tensors; two files of a folder hold one of the same name.
    """
    where = Path(path)
    make = TensorFolder if where.is_dir() else TensorFile
    return make(where, device, recover, options)


def _coder(codec: str | None, options: dict[str, Any]) -> tuple[int, Codec]:
    """The number of a codec, and the codec."""
    if codec is None:
        codec = "tensor/lossless" if options.get("base") is None else "tensor/delta"
    number = registry.codec_id(codec)
    return number, registry.make(number, None, options)


def _new_bytes(
    number: int, coder: Codec, x: Any, rate: Rate | None, metadata: dict[str, Any] | None
) -> bytes:
    """Encode to new bytes; what is large is made in them."""
    new: list[memory.NewBytes] = []

    def make() -> memoryview:
        new.append(memory.NewBytes(_most_bytes(number, coder, x, metadata)))
        view: memoryview = new[0].view
        return view

    file = MemoryFile(make, at_start=True)
    _write(cast(BinaryIO, file), number, coder, x, rate, metadata)
    parts = file.parts()
    return new[0].finish(len(file.used())) if parts is None else memory.join(parts)


def _most_bytes(number: int, coder: Codec, x: Any, metadata: dict[str, Any] | None) -> int:
    bounds = getattr(coder, "bounds", None)
    if bounds is None:
        raise ValueError(f"{coder.name} knows no bound of its size; encode without `out`")
    return most_bytes(number, coder.header(x), metadata, bounds(x))


def _write(
    file: BinaryIO,
    number: int,
    coder: Codec,
    x: Any,
    rate: Rate | None,
    metadata: dict[str, Any] | None,
) -> None:
    header = coder.header(x)
    # Only a rate can ask for the size of the whole file.
    reserve = 0 if rate is None else empty_size(number, header, metadata)
    with Writer(file, number, header, metadata) as writer:
        options: dict[str, Any] = {"place": writer.place} if hasattr(coder, "bounds") else {}
        for packet in coder.encode(x, rate, reserve, **options):
            writer.write(packet)


def _fill(out: Any, x: Any) -> Any:
    """Copy into the caller's tensors what a codec has not decoded there already."""
    if isinstance(x, dict):
        if not isinstance(out, Mapping) or set(out) != set(x):
            raise ValueError(f"out must be a mapping with the keys {sorted(x)}")
        for name, tensor in x.items():
            _fill(out[name], tensor)
        return out
    if getattr(out, "shape", None) != x.shape or out.dtype != x.dtype:
        raise ValueError(f"out must be a {x.dtype} tensor of shape {tuple(x.shape)}")
    return out if out is x else out.copy_(x)
