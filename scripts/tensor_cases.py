"""Tensors to measure lossless codecs on: synthetic ones of every kind, and real weight files."""

from __future__ import annotations

import struct
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import torch

WEIGHTS = Path(__file__).resolve().parents[2] / "shared" / "data" / "weights"
Case = tuple[str, torch.Tensor]


def normal(elements: int) -> torch.Tensor:
    """Independent weights, bfloat16: what most published figures are of."""
    return (_randn(elements, 0) * 0.02).bfloat16()


def synthetic(elements: int) -> Iterator[Case]:
    """Weights as people train them, in the dtypes they are stored in; `elements` of each."""
    yield "mixture bf16", mixture(elements)
    x = _randn(elements, 1) * 0.02
    yield "randn*0.02 fp32", x
    yield "randn*0.02 fp16", x.half()
    yield "bf16 values in fp32", x.bfloat16().float()
    yield "randn e4m3", (x * (448 / x.abs().max())).to(torch.float8_e4m3fn)
    yield "randn e5m2", (x * 50).to(torch.float8_e5m2)
    matrix = x[: elements // 1024 * 1024].view(-1, 1024)
    scaled = matrix / matrix.abs().amax(1, keepdim=True)
    yield "int8 per row", (scaled * 127).round().to(torch.int8)
    groups = x[: elements // 128 * 128].view(-1, 128)
    int4 = (groups / groups.abs().amax(1, keepdim=True) * 7).round().to(torch.int8).view(-1, 2) + 8
    yield "int4 pairs per 128", (int4[:, 0] | int4[:, 1] << 4).to(torch.uint8)


def mixture(elements: int) -> torch.Tensor:
    """128 tensors of different scales, with rows of 1024 of different scales, bfloat16."""
    rows = elements // 128 // 1024
    scale = torch.exp(0.6 * _randn(128, 2))[:, None]
    scale = scale * torch.exp(0.25 * _randn(128 * rows, 3)).view(128, -1)
    values = _randn(scale.numel() * 1024, 4).view(-1, 1024)
    return (values * (0.02 * scale.view(-1, 1))).bfloat16().view(-1)


def _randn(elements: int, seed: int) -> torch.Tensor:
    return torch.randn(elements, generator=torch.Generator().manual_seed(seed))


def real() -> Iterator[Case]:
    """The floating-point tensors of each weight file that is there, one after another."""
    if not WEIGHTS.is_dir():
        print(f"no real weights: {WEIGHTS} is not there, its rows are skipped", file=sys.stderr)
        return
    for path in sorted(WEIGHTS.rglob("*")):
        read = _READERS.get(path.suffix)
        tensors = read(path) if read else []
        floats = [t.flatten() for t in tensors if t.is_floating_point()]
        for dtype in sorted({t.dtype for t in floats}, key=str):
            whole = torch.cat([t for t in floats if t.dtype == dtype])
            yield f"{path.parent.name}/{path.name} {str(dtype)[6:]}", whole


def _safetensors(path: Path) -> list[torch.Tensor]:
    from safetensors.torch import load_file

    return list(load_file(path).values())


def _checkpoint(path: Path) -> list[torch.Tensor]:
    return list(torch.load(path, weights_only=True).values())


def _arrays(path: Path) -> list[torch.Tensor]:
    return [torch.from_numpy(array) for array in np.load(path).values()]


def _binary(path: Path) -> list[torch.Tensor]:
    """The formats of llama2.c (7 integers, then float32) and rwkv.cpp (tensors with headers)."""
    data = path.read_bytes()
    if data[:4] == b"fmgg":
        return _rwkv(data)
    if path.name.startswith("tok"):  # a vocabulary
        return []
    return [torch.from_numpy(np.frombuffer(data, np.float32, offset=28).copy())]


def _rwkv(data: bytes) -> list[torch.Tensor]:
    """u32 dims, name bytes, dtype (0 float32, 1 float16), sizes; the name; the elements."""
    at, tensors = 24, []
    while at < len(data):
        dims, name, dtype = struct.unpack_from("<3I", data, at)
        sizes = struct.unpack_from(f"<{dims}I", data, at + 12)
        at += 12 + 4 * dims + name
        kind = np.dtype(np.float16 if dtype else np.float32)
        count = int(np.prod(sizes))
        tensors.append(torch.from_numpy(np.frombuffer(data, kind, count, at).copy()))
        at += count * kind.itemsize
    return tensors


def _hdf5(path: Path) -> list[torch.Tensor]:
    try:
        import h5py  # type: ignore[import-untyped]
    except ImportError:
        print(f"h5py is not installed: {path.name} is skipped", file=sys.stderr)
        return []
    found: list[torch.Tensor] = []
    with h5py.File(path) as file:
        file.visititems(
            lambda _, item: (
                found.append(torch.from_numpy(item[()])) if isinstance(item, h5py.Dataset) else None
            )
        )
    return found


_READERS: dict[str, Callable[[Path], list[torch.Tensor]]] = {
    ".safetensors": _safetensors,
    ".pth": _checkpoint,
    ".npz": _arrays,
    ".bin": _binary,
    ".hdf5": _hdf5,
}
