"""python scripts/bench_delta.py [--quick] [--json]: models as differences from older ones.

Every codec on every pair of models in one run, interleaved with a copy of the new model into warm
buffers; `encode_vs_memcpy` and `decode_vs_memcpy` are parts of that copy's speed, in CPU time of
one thread (medians). latentpack is called as a user calls it, `encode(new, base=base)` and
`decode(data, base=base, out=x_hat)`, digests and all; "xor" is the two models' bytes XORed, then
zstd; "patch" is an int32 index and the value of each element that moved. `bits` are of the whole
file for each element, `vs_bound` is against the order-0 entropy of the distances in units in the
last place, computed exactly for the whole model: what an ideal coder of one table needs.

The training is in scripts/delta_cases.py.
"""

from __future__ import annotations

import itertools
import statistics
import time
from collections.abc import Callable, Iterator
from typing import Any

import click
import numpy as np
import numpy.typing as npt
import torch

import latentpack
from latentpack.kernels import delta_ref
from latentpack.scripts import delta_cases
from latentpack.scripts.bench import interleaved, show
from latentpack.scripts.delta_cases import Pair, State
from latentpack.scripts.tensor_peers import Coder

Rows = list[dict[str, Any]]
SLOW_FROM = 16 << 20  # bytes from which on zstd -19 is left out


def bound(pair: Pair) -> tuple[float, int]:
    """Bits of an ideal order-0 coder of the distances, and how many elements moved."""
    counts: dict[int, int] = {}
    for name, new in pair.new.items():
        unsigned = f"u{new.element_size()}"
        a, b = (x.view(torch.uint8).numpy().view(unsigned).ravel() for x in (new, pair.base[name]))
        found = np.unique(delta_ref.distances(a, b, delta_ref.ULP), return_counts=True)
        for value, count in zip(*(array.tolist() for array in found), strict=True):
            counts[value] = counts.get(value, 0) + count
    each = np.array(list(counts.values()), np.float64)
    bits = float(-(each * np.log2(each / each.sum())).sum())
    return bits, int(each.sum()) - counts.get(0, 0)


def joined(state: State) -> npt.NDArray[np.uint8]:
    """All bytes of a model."""
    return np.concatenate([x.view(torch.uint8).numpy().ravel() for x in state.values()])


def ours(pair: Pair) -> Iterator[Coder]:
    """With the base, and without."""
    out = {name: torch.empty_like(x) for name, x in pair.new.items()}
    ways: dict[str, dict[str, Any]] = {
        "latentpack delta": {"base": pair.base},
        "latentpack alone": {},
    }
    for name, options in ways.items():
        data = latentpack.encode(pair.new, threads=1, **options)
        decoded = latentpack.decode(data, threads=1, **options)
        if not isinstance(decoded, dict) or not np.array_equal(joined(decoded), joined(pair.new)):
            raise RuntimeError("the model that came back is another one")

        def encode(options: dict[str, Any] = options) -> object:
            return latentpack.encode(pair.new, threads=1, **options)

        def decode(data: bytes = data, options: dict[str, Any] = options) -> object:
            return latentpack.decode(data, out=out, threads=1, **options)

        yield Coder(name, encode, decode, len(data))


def xor(pair: Pair) -> Iterator[Coder]:
    """XOR and zstd."""
    import zstandard

    new, base = joined(pair.new), joined(pair.base)
    for level in (1, 3) if new.nbytes >= SLOW_FROM else (1, 3, 19):
        compressor, decompressor = zstandard.ZstdCompressor(level), zstandard.ZstdDecompressor()
        data = compressor.compress((new ^ base).data)

        def encode(compressor: Any = compressor) -> object:
            return compressor.compress((new ^ base).data)

        def decode(data: bytes = data, decompressor: Any = decompressor) -> object:
            return np.frombuffer(decompressor.decompress(data), np.uint8) ^ base

        yield Coder(f"xor, zstd -{level}", encode, decode, len(data))


def patch(pair: Pair, moved: int) -> Coder:
    """Index and value of what moved."""
    size = next(iter(pair.new.values())).element_size()
    new, base = (joined(state).view(f"u{size}") for state in (pair.new, pair.base))
    at = np.flatnonzero(new != base).astype(np.int32)
    values, out = new[at], base.copy()

    def encode() -> object:
        index = np.flatnonzero(new != base).astype(np.int32)
        return index, new[index]

    def decode() -> None:
        np.copyto(out, base)
        out[at] = values

    return Coder("index, value patch", encode, decode, moved * (4 + size))


def measure(pair: Pair, rounds: int) -> Rows:
    """All codecs on one pair."""
    whole, (ideal, moved) = joined(pair.new), bound(pair)
    elements = sum(x.numel() for x in pair.new.values())
    coders = [*ours(pair), *xor(pair), patch(pair, moved)]
    target = np.empty_like(whole)
    calls: dict[str, Callable[[], object]] = {"memcpy": lambda: np.copyto(target, whole)}
    slow = [coder.name for coder in coders if coder.name.endswith("-19")]
    for coder in coders:
        if coder.name not in slow:
            calls[f"{coder.name} encode"] = coder.encode
        calls[f"{coder.name} decode"] = coder.decode
    times = interleaved(calls, rounds, clock=time.process_time)
    took = {name: statistics.median(seconds) for name, seconds in times.items()}
    about = {"case": pair.name, "moved": moved / elements}
    rows: Rows = [
        {
            **about,
            "codec": "order-0 bound",
            "bits": ideal / elements,
            "ratio": whole.nbytes * 8 / ideal,
            **dict.fromkeys(("vs_bound", "encode_vs_memcpy", "decode_vs_memcpy"), None),
            "encode_gb_s": None,
            "decode_gb_s": None,
        }
    ]
    for coder in coders:
        encode, decode = (took.get(f"{coder.name} {what}") for what in ("encode", "decode"))
        rows.append(
            {
                **about,
                "codec": coder.name,
                "bits": coder.size * 8 / elements,
                "ratio": whole.nbytes / coder.size,
                "vs_bound": coder.size * 8 / ideal,
                "encode_vs_memcpy": encode and took["memcpy"] / encode,
                "decode_vs_memcpy": decode and took["memcpy"] / decode,
                "encode_gb_s": encode and whole.nbytes / encode / 1e9,
                "decode_gb_s": decode and whole.nbytes / decode / 1e9,
            }
        )
    return rows


@click.command()
@click.option("--quick", is_flag=True, help="Smaller and fewer: about a minute.")
@click.option("--json", "as_json", is_flag=True, help="Print a line of JSON at the end.")
def main(quick: bool, as_json: bool) -> None:
    """Compare deltas with XOR and zstd, patches, and the order-0 bound."""
    torch.set_num_threads(1)
    pairs = itertools.chain(
        delta_cases.checkpoints(),
        delta_cases.steps(8 if quick else 30),
        delta_cases.simulated(1 << 22 if quick else 1 << 24),
        delta_cases.fine_tuned(),
    )
    rows = [row for pair in pairs for row in measure(pair, 3 if quick else 7)]
    show("Models as differences from older ones, one thread", rows, as_json)


if __name__ == "__main__":
    main()
