"""python scripts/bench_training_state.py [--quick] [--json]: what a training checkpoint holds.

Weights, gradients and the moments of Adam (m, v) of a real small training (the one of
scripts/delta_cases.py, learning rate 1e-5), after a step and after the one before it. For each
kind and dtype: the ratio of "tight", "small" and of the delta from the step before, and speeds of
`encode` and `decode` with what is smallest of "tight" and the delta, in CPU time of one thread
(medians), digests and all.
"""

from __future__ import annotations

import statistics
import time
from typing import Any

import click
import torch

import latentpack
from latentpack.scripts.bench import interleaved, show
from latentpack.scripts.delta_cases import State, rounded, trained
from latentpack.scripts.tensor_peers import same

KINDS = ("weights", "gradients", "m", "v")
RATE = 1e-5


def measure(kind: str, new: State, old: State, rounds: int) -> dict[str, Any]:
    """One kind of tensors in one dtype."""
    size = sum(x.nbytes for x in new.values())
    ways: dict[str, dict[str, Any]] = {
        "tight": {"mode": "tight"},
        "small": {"mode": "small"},
        "delta": {"base": old},
    }
    coded = {way: latentpack.encode(new, threads=1, **options) for way, options in ways.items()}
    best = min(("tight", "delta"), key=lambda way: len(coded[way]))
    base = {"base": old} if best == "delta" else {}
    out = {name: torch.empty_like(x) for name, x in new.items()}
    data, options = coded[best], ways[best]

    def copy() -> None:
        for name, x in new.items():
            out[name].copy_(x)

    def decode() -> object:
        return latentpack.decode(data, out=out, threads=1, **base)

    decode()
    for name, x in new.items():
        same(out[name], x)
    calls = {
        "memcpy": copy,
        "encode": lambda: latentpack.encode(new, threads=1, **options),
        "decode": decode,
    }
    times = interleaved(calls, rounds, clock=time.process_time)
    took = {name: statistics.median(seconds) for name, seconds in times.items()}
    return {
        "kind": kind,
        "dtype": str(next(iter(new.values())).dtype)[6:],
        **{way: size / len(coded[way]) for way in ways},
        "timed": best,
        "encode_gb_s": size / took["encode"] / 1e9,
        "decode_gb_s": size / took["decode"] / 1e9,
        "memcpy_gb_s": size / took["memcpy"] / 1e9,
    }


@click.command()
@click.option("--quick", is_flag=True, help="Fewer steps and rounds: under a minute.")
@click.option("--json", "as_json", is_flag=True, help="Print a line of JSON at the end.")
def main(quick: bool, as_json: bool) -> None:
    """Measure what a checkpoint of a training holds, kind by kind."""
    torch.set_num_threads(1)
    moments = list(trained(RATE, 8 if quick else 40))
    rows = []
    for kind in KINDS if moments else ():
        old, new = (getattr(moment, kind) for moment in moments)
        for dtype in (torch.float32, torch.bfloat16):
            states = rounded(new, dtype), rounded(old, dtype)
            rows.append(measure(kind, *states, 3 if quick else 7))
    show("Training state, ratio (original over packed), one thread", rows, as_json)


if __name__ == "__main__":
    main()
