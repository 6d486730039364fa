"""Lossless codecs on a CUDA device, beside a device copy: the second half of bench_lossless.py."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterator
from typing import Any

import torch

from latentpack.codecs.tensor.dtypes import split_of
from latentpack.kernels import planes, planes_cuda
from latentpack.scripts.bench import interleaved_on_gpu
from latentpack.scripts.tensor_gpu_peers import DeviceCoder, peers
from latentpack.scripts.tensor_peers import same

CHUNK_LOG2 = planes_cuda.DEFAULT_LOG2


def ours(x: torch.Tensor) -> Iterator[DeviceCoder]:
    """The kernels on what a device made and on files of the CPU, with and without checksums."""
    split = split_of(x.dtype)
    if not planes_cuda.takes(split.layout, split.width):
        return
    flat = x.reshape(-1).view(torch.uint8)
    n = flat.numel() // split.width
    into = torch.zeros_like(flat)
    packed = planes_cuda.Packed.empty(n, split.width, split.layout, CHUNK_LOG2, x.device)
    encoding = planes_cuda.Encoding([flat], [packed])
    encoding.run()
    yield from _decoders("segments", packed, into, flat, encoding.run, len(packed.to_host()[0]))
    data = flat.cpu().numpy().data
    for mode in ("tight", "fast"):
        head, coded = planes.encode(
            data, split.width, split.layout, mode, chunk_log2=CHUNK_LOG2, threads=None
        )
        made = planes_cuda.Packed.from_host(head, coded, n, split.width, split.layout, x.device)
        if made is not None:
            yield from _decoders(mode, made, into, flat, None, len(head))


def _decoders(
    mode: str,
    packed: planes_cuda.Packed,
    into: torch.Tensor,
    flat: torch.Tensor,
    encode: Callable[[], Any] | None,
    head_bytes: int,
) -> Iterator[DeviceCoder]:
    decoding = planes_cuda.Decoding([packed], [into])
    size = int(packed.used.item()) + head_bytes
    for name, checksum in (("", True), (", no checksums", False)):

        def decode(checksum: bool = checksum) -> None:
            decoding.run(checksum)

        into.zero_()
        decode()
        packed.check()
        same(into, flat)
        yield DeviceCoder(f"latentpack {mode}{name}", encode, decode, size)
        encode = None  # the same for both


def measure(case: str, x: torch.Tensor, rounds: int) -> list[dict[str, Any]]:
    """All codecs on one tensor of the device; figures as those of the CPU, plus GB/s."""
    coders = [*ours(x), *peers(x)]
    target = torch.zeros_like(x)
    calls: dict[str, Callable[[], object]] = {"copy": lambda: target.copy_(x)}
    for coder in coders:
        calls[f"{coder.name} decode"] = coder.decode
        if coder.encode is not None:
            calls[f"{coder.name} encode"] = coder.encode
    times = interleaved_on_gpu(calls, rounds)
    typical = {name: statistics.median(seconds) for name, seconds in times.items()}
    return [_row(coder, case, x, typical) for coder in coders]


def _row(
    coder: DeviceCoder, case: str, x: torch.Tensor, typical: dict[str, float]
) -> dict[str, Any]:
    row: dict[str, Any] = {
        "codec": coder.name,
        "case": f"{case}, {torch.cuda.get_device_name()}",
        "mi_elements": x.numel() / (1 << 20),
        "threads": None,
        "ratio": coder.size / x.nbytes,
    }
    for way in ("encode", "decode"):
        seconds = typical.get(f"{coder.name} {way}")
        row[f"{way}_vs_memcpy"] = None if seconds is None else typical["copy"] / seconds
    for way in ("encode", "decode"):
        seconds = typical.get(f"{coder.name} {way}")
        row[f"{way}_gb_s"] = None if seconds is None else x.nbytes / seconds / 1e9
    return row
