"""Lossless codecs on the GPU that tensors can be given to, as those of `tensor_peers`.

A peer whose package is not installed is named on standard error and left out: nvCOMP
(nvidia-nvcomp-cu13, which brings nvidia-libnvcomp-cu13), DFloat11 (dfloat11, which needs cupy).
"""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch

from .tensor_peers import same

NVCOMP_DTYPES = {
    torch.bfloat16: "<f2",  # "all half-precision formats"
    torch.float16: "<f2",
    torch.float32: "<f4",
    torch.float8_e4m3fn: "|f1",
    torch.int8: "|i1",
    torch.uint8: "|u1",
}
DFLOAT11_UP_TO = 16 << 20  # elements; its encoder is a loop in Python, some seconds for each Mi


@dataclass(frozen=True)
class DeviceCoder:
    """One way to code a tensor on its device; `encode` is None where only decoding is timed.

    Both start work on the current stream and wait for nothing.
    """

    name: str
    encode: Callable[[], Any] | None
    decode: Callable[[], Any]
    size: int


def peers(x: torch.Tensor) -> Iterator[DeviceCoder]:
    """Every peer that takes this CUDA tensor."""
    for peer in (nvcomp, dfloat11):
        try:
            yield from peer(x)
        except ImportError as error:
            print(f"{peer.__name__} is left out: {error}", file=sys.stderr)


def nvcomp(x: torch.Tensor) -> Iterator[DeviceCoder]:
    """NvCOMP's rANS, chunks of 64 KiB, with one and two states per lane; no host sync timed."""
    if x.dtype not in NVCOMP_DTYPES:
        return
    from nvidia import nvcomp as library  # type: ignore[import-untyped]

    stream = torch.cuda.current_stream().cuda_stream
    source = library.as_array(x.view(torch.uint8).flatten(), cuda_stream=stream)
    for states in (1, 2):
        codec = library.Codec(
            algorithm="ANS",
            data_type=NVCOMP_DTYPES[x.dtype],
            states_per_lane=states,
            uncomp_chunk_size=1 << 16,
            cuda_stream=stream,
        )
        data = codec.encode(source)
        configured = codec.decompression_config(data)
        into = torch.empty(x.nbytes, dtype=torch.uint8, device=x.device)

        def encode(codec: Any = codec) -> Any:
            return codec.encode(source)

        def decode(
            codec: Any = codec, data: Any = data, configured: Any = configured, into: Any = into
        ) -> Any:
            return codec.decode(data, out=into, decompression_config=configured)

        decode()
        same(into, x)
        yield DeviceCoder(f"nvcomp ans, {states} states", encode, decode, data.buffer_size)


def dfloat11(x: torch.Tensor) -> Iterator[DeviceCoder]:
    """DFloat11's decoding kernel; its encoder runs once, on the CPU, and is not timed."""
    if x.dtype != torch.bfloat16 or x.numel() > DFLOAT11_UP_TO:
        return
    from dfloat11 import dfloat11 as library  # type: ignore[import-not-found]
    from dfloat11 import dfloat11_utils as tools

    threads, per_thread = library.threads_per_block, library.bytes_per_thread
    flat = x.flatten().cpu()
    codec, _, table = tools.get_32bit_codec(tools.get_codec(flat)[1])
    luts = tools.get_luts(table)
    encoded, rest, positions, gaps, _ = tools.encode_weights([flat], codec, per_thread, threads[0])
    starts = positions.view(torch.int32).long()
    shared = threads[0] * 4 + 4 + int((starts[1:] - starts[:-1]).max()) * 2
    parts = [t.to(x.device) for t in (luts, encoded, rest, positions.view(torch.uint8), gaps)]
    into = torch.empty_like(x).flatten()
    grid = (math.ceil(encoded.numel() / (threads[0] * per_thread)),)
    arguments = [*(t.data_ptr() for t in parts), into.data_ptr()]
    arguments += [luts.shape[0], encoded.numel(), rest.numel()]

    def decode() -> None:
        library._decode(grid=grid, block=threads, shared_mem=shared, args=arguments)

    decode()
    same(into, x)
    yield DeviceCoder("dfloat11", None, decode, sum(t.nbytes for t in parts))
