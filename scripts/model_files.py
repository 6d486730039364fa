"""Model files to packed files and back, without loss and one tensor in memory at a time."""

import json
import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from ..codecs import api, registry
from ..codecs.container import create
from ..codecs.outer import write_outer
from ..codecs.tensor_files import TensorFile
from ..datasets.safetensors_files import SafetensorsFile, write_safetensors
from ..datasets.torch_checkpoints import (
    is_checkpoint,
    load_checkpoint,
    put_together,
    take_apart,
)
from ..kernels.errors import BitstreamError

PathLike = str | os.PathLike[str]
Progress = Callable[[int, int], None]
FORMS = ("lpk", "safetensors")


@dataclass(frozen=True)
class Model:
    """A model file that was opened: its tensors, and what else is needed to make it again."""

    tensors: Mapping[str, torch.Tensor]
    metadata: dict[str, Any]


class Reporting(Mapping[str, torch.Tensor]):
    """Tensors whose `items` reports (bytes done, bytes of all)."""

    def __init__(self, tensors: dict[str, torch.Tensor], progress: Progress | None) -> None:
        """Keep both."""
        self._tensors = tensors
        self._progress = progress

    def __getitem__(self, name: str) -> torch.Tensor:
        """Return a tensor."""
        return self._tensors[name]

    def __iter__(self) -> Iterator[str]:
        """Iterate over the names."""
        return iter(self._tensors)

    def __len__(self) -> int:
        """Return the number of tensors."""
        return len(self._tensors)

    def items(self) -> Any:
        """Return an iterable of (name, tensor), which reports progress."""
        done, total = 0, sum(tensor.nbytes for tensor in self._tensors.values())
        for name, tensor in self._tensors.items():
            yield name, tensor
            done += tensor.nbytes
            if self._progress:
                self._progress(done, total)


def open_model(src: PathLike, progress: Progress | None = None) -> Model:
    """Open a .safetensors file, or a PyTorch checkpoint, which no code is run for.

    Raises:
        ValueError: src is neither.
    """
    if is_checkpoint(src):
        tensors, tree = take_apart(load_checkpoint(src))
        metadata = {"checkpoint": json.dumps(tree), "suffix": Path(src).suffix}
        return Model(Reporting(tensors, progress), metadata)
    source = SafetensorsFile(src, progress)
    pairs = source.metadata
    # As pairs: CBOR sorts the keys of a map.
    return Model(source, {} if pairs is None else {"safetensors": [list(p) for p in pairs.items()]})


def pack(
    src: PathLike,
    dst: PathLike,
    mode: str | None = None,
    threads: int | None = None,
    force: bool = False,
    progress: Progress | None = None,
    form: str = "lpk",
    base: Mapping[str, torch.Tensor] | None = None,
) -> None:
    """Pack a .safetensors file or a PyTorch checkpoint.

    Args:
        src: the model file; order of the tensors and metadata are kept.
        dst: the new file; "-" is standard output (form "lpk" only).
        mode: "fast", "tight", "small" or "segments"; None is the codec's default.
        threads: of the codec; None is its default. Never changes a byte.
        force: replace a file that exists.
        progress: called with (bytes of tensors done, bytes of all).
        form: "lpk", or "safetensors": a .safetensors file of packed tensors.
        base: tensors that whoever unpacks the file has; the file is a delta from them.

    Raises:
        ValueError: src is no whole model file, or holds what can't be packed.
        FileExistsError: something is at `dst`, and not `force`.
    """
    if form not in FORMS:
        raise ValueError(f"format is {form!r}, expected {' or '.join(FORMS)}")
    if form == "safetensors" and os.fspath(dst) == "-":
        raise ValueError("a .safetensors file needs a name: its header is written last")
    if form == "safetensors" and base is not None:
        raise ValueError("a delta is a .lpk file; leave out --format")
    model = open_model(src, progress)
    options = _given(mode=mode, threads=threads, base=base)
    if form == "lpk":
        api.save(dst, model.tensors, metadata=model.metadata or None, force=force, **options)
        return
    codec = registry.make(registry.codec_id("tensor/lossless"), None, options)
    with create(dst, force) as file:
        write_outer(file, codec.encode(model.tensors), list(model.tensors), model.metadata)


def unpack(
    src: PathLike,
    dst: PathLike,
    threads: int | None = None,
    force: bool = False,
    progress: Progress | None = None,
    keep_going: bool = False,
    base: Mapping[str, torch.Tensor] | None = None,
) -> dict[str, str]:
    """Turn what `pack` wrote back into a model file.

    The bytes are those of the .safetensors file that was packed if it was written by the
    safetensors library; a checkpoint loads to the same tensors and values.

    Args:
        src: the packed file.
        dst: the new file; "-" is standard output.
        threads: of the codec; None is its default.
        force: replace a file that exists.
        progress: called with (bytes of tensors done, bytes of all).
        keep_going: leave out tensors that are damaged instead of raising.
        base: the tensors that a delta was made from.

    Returns:
        Names of the tensors that were left out, and what is wrong with each; and "the end of
        the file" if that is cut off or damaged, with names that nobody can tell.

    Raises:
        BitstreamError: src is damaged.
        ValueError: src holds no tensors, or such that .safetensors files can't hold.
        FileExistsError: something is at `dst`, and not `force`.
    """
    options = _given(threads=threads, base=base)
    with TensorFile(Path(src), None, keep_going, options) as packed:
        lost = find_lost(packed) if keep_going else {}
        kept = [key for key in packed if str(key) not in lost]
        if keep_going:
            lost |= _lost_end(src, options)
        layout = [_layout(packed, name) for name in kept]
        sizes = [dtype.itemsize * torch.Size(shape).numel() for _, dtype, shape in layout]
        done = _Count(sum(sizes), progress)
        with create(dst, force) as file:
            if "checkpoint" in packed.metadata:
                whole = {str(key): done.after(packed[key]) for key in kept}
                torch.save(put_together(_tree(packed.metadata), whole), file)
            else:
                blocks = (map(done.after, packed.blocks(key)) for key in kept)
                write_safetensors(file, layout, blocks, _pairs(packed.metadata))
    return lost


def find_lost(packed: Any) -> dict[str, str]:
    """Decode every tensor; the names of those that are damaged, with the reason."""
    lost = {}
    for key in packed:
        try:
            packed[key]
        except BitstreamError as error:
            lost[str(key)] = str(error)
    return lost


def _lost_end(src: PathLike, options: dict[str, Any]) -> dict[str, str]:
    # Without the index at the end, only what stands whole before the cut is found.
    try:
        with TensorFile(Path(src), None, False, options):
            return {}
    except BitstreamError as error:
        return {"the end of the file": str(error)}


def suffix_of(src: PathLike) -> str:
    """The suffix of the file that was packed."""
    with TensorFile(Path(src), None, True, {}) as packed:
        suffix = packed.metadata.get("suffix", ".safetensors")
    if not isinstance(suffix, str) or not is_checkpoint(f"x{suffix}"):
        return ".safetensors"
    return suffix


def verify(
    src: PathLike, packed_path: PathLike, base: Mapping[str, torch.Tensor] | None = None
) -> None:
    """Raise RuntimeError unless a packed file gives back every tensor of `src` bit for bit."""
    source = open_model(src).tensors
    with api.open(packed_path, **_given(base=base)) as packed:
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

    def after(self, tensor: torch.Tensor) -> torch.Tensor:
        self.done += tensor.nbytes
        if self.progress:
            self.progress(self.done, self.total)
        return tensor


def _given(**options: Any) -> dict[str, Any]:
    return {name: value for name, value in options.items() if value is not None}


def _layout(packed: Any, key: Any) -> tuple[str, torch.dtype, tuple[int, ...]]:
    what = packed.describe(key)
    return "tensor" if key is None else str(key), what["dtype"], what["shape"]


def _pairs(metadata: dict[str, Any]) -> dict[str, str] | None:
    pairs = metadata.get("safetensors")
    if pairs is None:
        return None
    try:
        return {str(key): str(value) for key, value in pairs}
    except (TypeError, ValueError):
        raise BitstreamError(f"metadata: 'safetensors' holds no pairs: {pairs!r:.60}") from None


def _tree(metadata: dict[str, Any]) -> list[Any]:
    try:
        tree = json.loads(metadata["checkpoint"])
    except (TypeError, ValueError, RecursionError):
        tree = None
    if not isinstance(tree, list) or not tree:
        raise BitstreamError("metadata: 'checkpoint' is not the structure of a checkpoint")
    return tree


def _bits(x: torch.Tensor) -> torch.Tensor:
    return x.contiguous().reshape(-1).view(torch.uint8)
