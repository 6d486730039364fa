"""python scripts/bench_lossless.py [--quick] [--json]: lossless tensors beside their peers.

Every codec on every case in one run, interleaved with a copy of the tensor into a warm buffer;
`encode_vs_memcpy` and `decode_vs_memcpy` are parts of that copy's speed. latentpack is called
as a user calls it: `latentpack.encode(x)`, in the rows "out=" `latentpack.encode(x, out=room)`, and
`latentpack.decode(data, out=x_hat)`.
One thread is measured by CPU time; rows of two threads, and those of one thread beside them, by
the clock. Figures are medians. With a GPU, the same cases follow there, beside a device copy.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import click
import torch

import latentpack
from latentpack.kernels import planes, rans
from latentpack.scripts.bench import interleaved, show
from latentpack.scripts.tensor_cases import normal, real, synthetic
from latentpack.scripts.tensor_peers import Coder, peers, same

Rows = list[dict[str, Any]]
MI = 1 << 20
SLOW_FROM = 32 * MI  # elements from which on the slow mode is left out


def ours(x: torch.Tensor, threads: int) -> Iterator[Coder]:
    """Latentpack in every mode."""
    x_hat = torch.zeros_like(x)
    for mode in ("fast", "tight", "small"):
        if mode == "small" and x.numel() >= SLOW_FROM:
            continue

        def encode(mode: str = mode) -> Any:
            return latentpack.encode(x, mode=mode, threads=threads)

        data = bytes(encode())

        def decode(data: bytes = data) -> Any:
            return latentpack.decode(data, out=x_hat, threads=threads)

        same(decode(), x)
        yield Coder(f"latentpack {mode}", encode, decode, len(data))
        if mode == "small":
            continue
        room = bytearray(latentpack.max_size(x, mode=mode))

        def encode_into(mode: str = mode, room: bytearray = room) -> Any:
            return latentpack.encode(x, mode=mode, threads=threads, out=room)

        yield Coder(f"latentpack {mode}, out=", encode_into, decode, len(data))


def ours_avx2(x: torch.Tensor) -> Iterator[Coder]:
    """The kernels of processors without AVX-512, on bfloat16."""
    if x.dtype != torch.bfloat16 or "avx512" not in rans.backends():
        return
    data, room = x.view(torch.uint8).numpy().data, bytearray(x.nbytes)
    into = bytearray(x.nbytes)
    for mode in ("fast", "tight"):

        def encode(mode: str = mode) -> tuple[bytes, memoryview]:
            return planes.encode(data, 2, planes.FLOAT, mode, out=room, backend="avx2")

        head, coded = encode()
        kept = bytes(coded)

        def decode(head: bytes = head, kept: bytes = kept) -> None:
            decoder = planes.Decoder(head, kept, x.numel(), 2, planes.FLOAT, backend="avx2")
            decoder.decode(into)

        decode()
        same(into, x)
        yield Coder(f"latentpack {mode}, avx2", encode, decode, len(head) + len(kept))


def measure(case: str, x: torch.Tensor, rounds: int, threads: Sequence[int] = (1,)) -> Rows:
    """All codecs on one tensor, each with each number of threads, interleaved."""
    coders = []
    for count in threads:
        made = [*ours(x, count), *peers(x, count)]
        coders += [(count, coder) for coder in made]
    if threads == (1,):
        coders += [(1, coder) for coder in ours_avx2(x)]
    target = torch.zeros_like(x)
    calls: dict[str, Callable[[], object]] = {"memcpy": lambda: target.copy_(x)}
    prepare = {}
    for count, coder in coders:
        name = f"{coder.name} {count}"
        calls |= {f"{name} encode": coder.encode, f"{name} decode": coder.decode}
        prepare[f"{name} encode"] = coder.prepare
    clock = time.process_time if threads == (1,) else time.perf_counter
    times = interleaved(calls, rounds, clock=clock, prepare=prepare)
    typical = {name: statistics.median(seconds) for name, seconds in times.items()}
    return [
        {
            "codec": coder.name,
            "case": case,
            "mi_elements": x.numel() / MI,
            "threads": count,
            "ratio": coder.size / x.nbytes,
            "encode_vs_memcpy": typical["memcpy"] / typical[f"{coder.name} {count} encode"],
            "decode_vs_memcpy": typical["memcpy"] / typical[f"{coder.name} {count} decode"],
            "encode_gb_s": x.nbytes / typical[f"{coder.name} {count} encode"] / 1e9,
            "decode_gb_s": x.nbytes / typical[f"{coder.name} {count} decode"] / 1e9,
        }
        for count, coder in coders
    ]


def fixed_cost() -> dict[str, float]:
    """Microseconds of a call for one element."""
    x = torch.ones(1, dtype=torch.bfloat16)
    data = latentpack.encode(x)
    calls = {"encode": lambda: latentpack.encode(x), "decode": lambda: latentpack.decode(data)}
    times = interleaved(calls, 5)
    return {name: 1e6 * statistics.median(seconds) for name, seconds in times.items()}


@click.command()
@click.option("--quick", is_flag=True, help="Fewer sizes, smaller tensors: under a minute.")
@click.option("--json", "as_json", is_flag=True, help="Print a line of JSON at the end.")
def main(quick: bool, as_json: bool) -> None:
    """Compare latentpack with its peers and a copy, on tensors."""
    torch.set_num_threads(1)
    sizes, elements, rounds = ((1, 16), 4, 1) if quick else ((1, 4, 16, 64, 256), 16, 5)
    rows: Rows = []
    for size in sizes:
        rows += measure("randn*0.02 bf16", normal(size * MI), rounds)
    rows += measure("randn*0.02 bf16, wall clock", normal(sizes[-1] * MI // 4), rounds, (1, 2))
    for case, x in [*synthetic(elements * MI), *real()]:
        rows += measure(case, x, rounds)
    if torch.cuda.is_available():
        from latentpack.scripts import lossless_on_gpu

        for size in sizes:
            x = normal(size * MI).cuda()
            rows += lossless_on_gpu.measure("randn*0.02 bf16", x, 4 * rounds)
        for case, x in [*synthetic(elements * MI), *real()]:
            rows += lossless_on_gpu.measure(case, x.cuda(), 4 * rounds)
    show("Lossless tensors, parts of the speed of a copy", rows, as_json, fixed_us=fixed_cost())


if __name__ == "__main__":
    main()
