"""Lossless codecs on the CPU that tensors can be given to, each as a pair of calls."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch

ZIPNN_DTYPES = {
    torch.bfloat16: "bfloat16",
    torch.float16: "float16",
    torch.float32: "float32",
    torch.float8_e4m3fn: "float8_e4m3fn",
    torch.float8_e5m2: "float8_e5m2",
}


@dataclass(frozen=True)
class Coder:
    """One way to code a tensor: both directions, the bytes, and what to do before `encode`."""

    name: str
    encode: Callable[[], Any]
    decode: Callable[[], Any]
    size: int
    prepare: Callable[[], Any] = bool


def same(decoded: Any, x: torch.Tensor) -> None:
    """A benchmark of a codec that loses bits is worth nothing."""
    if not isinstance(decoded, torch.Tensor):
        decoded = torch.frombuffer(bytearray(decoded), dtype=torch.uint8)
    if not torch.equal(decoded.view(torch.uint8).flatten(), x.view(torch.uint8).flatten()):
        raise RuntimeError("a codec gave back other bits than it was given")


def peers(x: torch.Tensor, threads: int) -> Iterator[Coder]:
    """Every peer that takes this tensor and this number of threads."""
    yield from zipnn(x, threads)
    yield from blosc2(x, threads)
    if threads == 1:
        yield from zstd(x)
        yield from lz4(x)


def _checked(
    x: torch.Tensor, name: str, encode: Callable[[], Any], decode: Callable[[Any], Any]
) -> Coder:
    data = encode()
    same(decode(data), x)
    return Coder(name, encode, lambda: decode(data), len(data))


def zipnn(x: torch.Tensor, threads: int) -> Iterator[Coder]:
    """ZipNN on bytes; it changes what it is given, so each call gets a new copy."""
    if x.dtype not in ZIPNN_DTYPES:
        return
    from zipnn import ZipNN  # type: ignore[import-untyped]

    original = x.view(torch.uint8).numpy().tobytes()
    dtype = ZIPNN_DTYPES[x.dtype]
    coder = ZipNN(input_format="byte", bytearray_dtype=dtype, threads=threads)
    copy = [bytearray(original)]
    data = bytes(coder.compress(copy[0]))

    def prepare() -> None:
        copy[0] = bytearray(original)

    same(coder.decompress(data), x)
    yield Coder(
        "zipnn", lambda: coder.compress(copy[0]), lambda: coder.decompress(data), len(data), prepare
    )


def zstd(x: torch.Tensor) -> Iterator[Coder]:
    """Zstandard on the bytes as they are."""
    import zstandard

    original = x.view(torch.uint8).numpy().data
    decompressor = zstandard.ZstdDecompressor()
    for level in (1, 3):
        compressor = zstandard.ZstdCompressor(level)

        def encode(compressor: zstandard.ZstdCompressor = compressor) -> bytes:
            return compressor.compress(original)

        yield _checked(x, f"zstd -{level}", encode, decompressor.decompress)


def lz4(x: torch.Tensor) -> Iterator[Coder]:
    """LZ4 on the bytes as they are."""
    import lz4.block as library  # type: ignore[import-untyped]

    original = x.view(torch.uint8).numpy().data
    yield _checked(x, "lz4", lambda: library.compress(original), library.decompress)


def blosc2(x: torch.Tensor, threads: int) -> Iterator[Coder]:
    """Blosc2: bytes or bits of the elements side by side, then zstd -1 or LZ4."""
    import blosc2 as library  # type: ignore[import-untyped]

    original = x.view(torch.uint8).numpy()
    if original.nbytes > library.MAX_BUFFERSIZE:
        return
    into = memoryview(bytearray(original.nbytes))
    for filter_name in ("SHUFFLE", "BITSHUFFLE"):
        for codec_name in ("ZSTD", "LZ4"):
            options = {
                "typesize": x.element_size(),
                "filters": [library.Filter[filter_name]],
                "codec": library.Codec[codec_name],
                "clevel": 1,
                "nthreads": threads,
            }

            def encode(options: dict[str, Any] = options) -> Any:
                return library.compress2(original, **options)

            def decode(data: Any) -> Any:
                library.decompress2(data, dst=into, nthreads=threads)
                return into

            yield _checked(x, f"blosc2 {filter_name.lower()} {codec_name.lower()}", encode, decode)
