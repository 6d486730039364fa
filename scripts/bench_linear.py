"""python scripts/bench_linear.py [--quick] [--json]: linear layers whose weights stay packed.

A bfloat16 layer, packed and plain, in turn. On the CPU `over_plain` is the time of the plain layer
over that of the packed one, medians, one thread. On a GPU `over_cublas` is the same for the fused
kernel, `over_decode` for decoding to memory and multiplying then, by device events.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable
from typing import Any

import click
import torch
from torch import nn

from latentpack.codecs.tensor.linear import PackedLinear
from latentpack.scripts.bench import interleaved, interleaved_on_gpu, show


def layers(size: int, device: str) -> tuple[nn.Linear, PackedLinear]:
    """A layer, and the same packed."""
    torch.manual_seed(0)
    plain = nn.Linear(size, size, bias=False, device=device, dtype=torch.bfloat16)
    nn.init.normal_(plain.weight, std=0.02)
    return plain, PackedLinear.from_linear(plain)


def measure(size: int, batch: int, device: str, rounds: int) -> dict[str, Any]:
    """One row."""
    plain, packed = layers(size, device)
    x = torch.randn(batch, size, device=device).bfloat16()
    calls: dict[str, Callable[[], object]] = {
        "plain": lambda: plain(x),
        "packed": lambda: packed(x),
    }
    with torch.inference_mode():
        if device == "cpu":
            times = interleaved(calls, rounds)
        else:
            calls["decoded"] = lambda: nn.functional.linear(x, packed.weight)
            times = interleaved_on_gpu(calls, rounds)
    typical = {name: statistics.median(seconds) for name, seconds in times.items()}
    on_gpu = device != "cpu"
    return {
        "codec": "latentpack fused" if on_gpu else "latentpack",
        "case": f"matvec {size}x{size} batch {batch}",
        "device": device,
        "memory": packed.packed.nbytes / packed.packed.plain_nbytes,
        "plain_us": 1e6 * typical["plain"],
        "packed_us": 1e6 * typical["packed"],
        "over_plain": None if on_gpu else typical["plain"] / typical["packed"],
        "over_cublas": typical["plain"] / typical["packed"] if on_gpu else None,
        "over_decode": typical["decoded"] / typical["packed"] if on_gpu else None,
    }


@click.command()
@click.option("--quick", is_flag=True, help="Smaller layers and fewer rounds: under a minute.")
@click.option("--json", "as_json", is_flag=True, help="Print a line of JSON at the end.")
def main(quick: bool, as_json: bool) -> None:
    """Compare packed linear layers with plain ones."""
    torch.set_num_threads(1)
    sizes, rounds = ((1024,), 3) if quick else ((1024, 4096), 9)
    rows = [measure(size, batch, "cpu", rounds) for size in sizes for batch in (1, 8, 256)]
    if torch.cuda.is_available():
        for size in (4096, 8192):
            rows += [measure(size, batch, "cuda", 20) for batch in (1, 2, 4, 8, 64)]
    show("Linear layers with packed weights", rows, as_json)


if __name__ == "__main__":
    main()
