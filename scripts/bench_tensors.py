"""python scripts/bench_tensors.py [--quick] [--json]: lossless tensors beside zipnn and zstd.

Every codec on every case in one run, interleaved with a copy of the tensor into a warm buffer;
`encode_vs_memcpy` and `decode_vs_memcpy` are parts of that copy's speed. latentpack is called
as a user calls it, `latentpack.encode(x)` and `latentpack.decode(data, out=x_hat)`. One thread is
measured by CPU time, several by the clock; the figures are of the fastest calls.
"""

import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import torch

import latentpack
from latentpack.scripts.bench import interleaved, show

WEIGHTS = Path(__file__).resolve().parents[2] / "shared" / "data" / "weights"
MODES = ("fast", "tight", "small")
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


def synthetic(elements: int) -> Iterator[tuple[str, torch.Tensor]]:
    """Weights as people train them, and the dtypes they are stored in."""
    generator = torch.Generator().manual_seed(0)

    def randn(n: int) -> torch.Tensor:
        return torch.randn(n, generator=generator)

    yield "randn*0.02 bf16", (randn(elements) * 0.02).bfloat16()
    # 128 tensors of different scales, with rows of different scales.
    rows = elements // 128 // 1024
    scale = torch.exp(0.6 * randn(128))[:, None] * torch.exp(0.25 * randn(128 * rows)).view(128, -1)
    mixture = randn(scale.numel() * 1024).view(-1, 1024) * (0.02 * scale.view(-1, 1))
    yield "mixture bf16", mixture.bfloat16().view(-1)
    x = randn(elements // 4) * 0.02
    yield "randn*0.02 fp32", x
    yield "randn*0.02 fp16", x.half()
    yield "randn e4m3", (x * (448 / x.abs().max())).to(torch.float8_e4m3fn)
    yield "randn e5m2", (x * 50).to(torch.float8_e5m2)
    matrix = x[: x.numel() // 1024 * 1024].view(-1, 1024)
    yield "int8 per row", (matrix / matrix.abs().amax(1, keepdim=True) * 127).round().to(torch.int8)


def real() -> Iterator[tuple[str, torch.Tensor]]:
    """The tensors of each weight file that is there, one after another."""
    if not WEIGHTS.is_dir():
        print(f"no real weights: {WEIGHTS} is not there, its rows are skipped", file=sys.stderr)
        return
    from safetensors.torch import load_file

    for path in sorted(WEIGHTS.rglob("*")):
        if path.suffix == ".safetensors":
            tensors = load_file(path)
        elif path.suffix == ".pth":
            tensors = torch.load(path, weights_only=True)
        else:
            continue
        floats = [t.flatten() for t in tensors.values() if t.is_floating_point()]
        for dtype in {t.dtype for t in floats}:
            whole = torch.cat([t for t in floats if t.dtype == dtype])
            yield f"{path.parent.name}/{path.name} {str(dtype)[6:]}", whole


def same(decoded: Any, x: torch.Tensor) -> None:
    """A benchmark of a codec that loses bits is worth nothing."""
    if not isinstance(decoded, torch.Tensor):
        decoded = torch.frombuffer(bytearray(decoded), dtype=torch.uint8)
    if not torch.equal(decoded.view(torch.uint8).flatten(), x.view(torch.uint8).flatten()):
        raise RuntimeError("a codec gave back other bits than it was given")


def ours(x: torch.Tensor, threads: int) -> Iterator[Coder]:
    """Latentpack in every mode."""
    x_hat = torch.zeros_like(x)
    for mode in MODES:

        def encode(mode: str = mode) -> bytes:
            return latentpack.encode(x, mode=mode, threads=threads)

        data = encode()

        def decode(data: bytes = data) -> Any:
            return latentpack.decode(data, out=x_hat, threads=threads)

        same(decode(), x)
        yield Coder(f"latentpack {mode}", encode, decode, len(data))


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

    original = x.view(torch.uint8).numpy().tobytes()
    for level in (1, 3):
        compressor, decompressor = zstandard.ZstdCompressor(level), zstandard.ZstdDecompressor()
        data = compressor.compress(original)
        yield Coder(
            f"zstd -{level}",
            lambda compressor=compressor: compressor.compress(original),  # type: ignore[misc]
            lambda data=data, d=decompressor: d.decompress(data),  # type: ignore[misc]
            len(data),
        )


def measure(case: str, x: torch.Tensor, threads: int, rounds: int) -> list[dict[str, Any]]:
    """All codecs on one tensor."""
    coders = [*ours(x, threads), *zipnn(x, threads), *(zstd(x) if threads == 1 else ())]
    target = torch.zeros_like(x)
    calls: dict[str, Callable[[], object]] = {"memcpy": lambda: target.copy_(x)}
    for coder in coders:
        calls |= {f"{coder.name} encode": coder.encode, f"{coder.name} decode": coder.decode}
    prepare = {f"{coder.name} encode": coder.prepare for coder in coders}
    clock = time.process_time if threads == 1 else time.perf_counter
    times = interleaved(calls, rounds, clock=clock, prepare=prepare)
    best = {name: min(seconds) for name, seconds in times.items()}
    return [
        {
            "codec": coder.name,
            "case": case,
            "ratio": coder.size / x.nbytes,
            "encode_vs_memcpy": best["memcpy"] / best[f"{coder.name} encode"],
            "decode_vs_memcpy": best["memcpy"] / best[f"{coder.name} decode"],
            "threads": threads,
        }
        for coder in coders
    ]


@click.command()
@click.option("--quick", is_flag=True, help="Smaller tensors and fewer rounds: under a minute.")
@click.option("--json", "as_json", is_flag=True, help="Print a line of JSON at the end.")
def main(quick: bool, as_json: bool) -> None:
    """Compare latentpack with zipnn, zstd and a copy on tensors."""
    torch.set_num_threads(1)
    # A smaller copy would stay in the caches, and its speed say nothing about files.
    elements, rounds = (1 << 24, 1) if quick else (1 << 26, 5)
    rows: list[dict[str, Any]] = []
    for case, x in [*synthetic(elements), *real()]:
        rows += measure(case, x, 1, rounds)
        if case == "randn*0.02 bf16":
            rows += measure(case, x, 2, rounds)
    show("Lossless tensors, parts of the speed of a copy", rows, as_json)


if __name__ == "__main__":
    main()
