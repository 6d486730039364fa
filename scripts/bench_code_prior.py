"""python scripts/bench_code_prior.py --data DIR [--weights FILE] [--quick] [--json]: codes packed.

Sounds are coded by the networks of `audio/rvq`, greedily, and the codes of the first k codebooks
packed in several ways. `raw_kbps` has the same number of bits for each code. `saved` is what is
off these in percent: by the prior, in real bytes of packets that know nothing of each other, of
`--packet-seconds` and of 2 seconds; and by what needs no training: `zstd` (level 19) and `xz`
(preset 9) of all packed codes at once, and `order0`, the cost of adaptive counts for each codebook,
without a coder. `encode_x` and `decode_x` are seconds of sound in a second of CPU, of one core,
codes to bytes and back.
"""

from __future__ import annotations

import lzma
import math
import statistics
from pathlib import Path
from typing import Any

import click
import numpy as np
import torch
import zstandard
from torch import Tensor

from latentpack.codecs import weight_files
from latentpack.codecs.audio.rvq_frozen import SHIPPED, load_networks
from latentpack.datasets.audio_crops import find_sounds, read_mono
from latentpack.entropy.models.code_prior import IntegerCodePrior
from latentpack.scripts.bench import interleaved, show

_SHORT = 2.0  # seconds of a short packet
_QUICK = 4.0  # seconds of a sound that --quick reads
_UNSEEN = (
    0.5  # what a code counts before it was seen, over the size of the codebook: KT for two codes
)


def codes_of(folder: Path, weights: weight_files.Weights, seconds: float) -> list[Tensor]:
    """Codes of sounds, int64 [n_q, T] each, of so many seconds of each at most."""
    model, _ = load_networks(weights)
    model.eval()
    found = []
    for file in find_sounds([folder]):
        x = read_mono(file, model.size.sample_rate)[: math.ceil(seconds * model.size.sample_rate)]
        whole = x[: len(x) // model.size.frame * model.size.frame]
        with torch.inference_mode():
            latents, _ = model.analyse(whole[None])
            found.append(model.quantizer.encode(latents)[0])
    return [codes for codes in found if codes.shape[1]]


def packets_of(codes: list[Tensor], frames: int) -> list[Tensor]:
    """All sounds cut into packets."""
    return [part for sound in codes for part in torch.split(sound, frames, 1)]


def packed(codes: Tensor, bits: int) -> bytes:
    """Codes int64 [k, T] in so many bits each, without a gap."""
    places = np.arange(bits - 1, -1, -1)
    return np.packbits(codes.t().numpy().reshape(-1, 1) >> places & 1).tobytes()


def order0_bits(codes: Tensor, size: int) -> float:
    """What adaptive counts take for codes [k, T], each codebook with its own."""
    total = 0.0
    for row in codes.numpy():
        counts = np.full(size, _UNSEEN)
        for number, code in enumerate(row):
            total -= math.log2(counts[code] / (number + size * _UNSEEN))
            counts[code] += 1
    return total


def measure(
    prior: IntegerCodePrior, codes: list[Tensor], frame_rate: float, seconds: float, rounds: int
) -> dict[str, Any]:
    """The row of the first k codebooks, codes [k, T] of each sound."""
    k, size = len(codes[0]), prior.codebook_sizes[0]
    bits, joined = size.bit_length() - 1, torch.cat(codes, 1)
    raw = joined.numel() * bits
    packets = packets_of(codes, round(seconds * frame_rate))
    data = [prior.encode(part) for part in packets]
    times = interleaved(
        {
            "encode": lambda: [prior.encode(part) for part in packets],
            "decode": lambda: [
                prior.decode(d, k, p.shape[1]) for d, p in zip(data, packets, strict=True)
            ],
        },
        rounds,
        slot=0,
    )
    plain = packed(joined, bits)
    sizes = {
        "prior": 8 * sum(map(len, data)),
        "prior_2s": 8
        * sum(len(prior.encode(p)) for p in packets_of(codes, round(_SHORT * frame_rate))),
        "order0": order0_bits(joined, size),
        "zstd": 8 * len(zstandard.compress(plain, 19)),
        "xz": 8 * len(lzma.compress(plain, preset=9)),
    }
    duration = joined.shape[1] / frame_rate
    return {
        "codebooks": k,
        "raw_kbps": raw / duration / 1000,
        "prior_kbps": sizes["prior"] / duration / 1000,
        **{f"saved_{name}": 100 * (1 - size / raw) for name, size in sizes.items()},
        **{f"{name}_x": duration / statistics.median(t) for name, t in times.items()},
    }


@click.command()
@click.option(
    "--data", type=click.Path(exists=True, path_type=Path), required=True, help="Sounds, or one."
)
@click.option(
    "--weights", type=click.Path(path_type=Path), default=SHIPPED["speech"], help="With a prior."
)
@click.option("--packet-seconds", type=click.FloatRange(0.02), default=2.56, show_default=True)
@click.option("--seconds", type=click.FloatRange(0.02), default=60.0, help="Of a sound, at most.")
@click.option("--quick", is_flag=True, help="Four seconds of each sound and one round.")
@click.option("--json", "as_json", is_flag=True, help="Print a line of JSON at the end.")
def main(
    data: Path, weights: Path, packet_seconds: float, seconds: float, quick: bool, as_json: bool
) -> None:
    """Measure what the prior of audio/rvq saves, and how fast it is."""
    torch.set_num_threads(1)
    loaded = weight_files.read(weights, "audio/rvq")
    model, prior = load_networks(loaded)
    if prior is None:
        raise click.UsageError(f"{weights} holds no prior of codes")
    codes = codes_of(data, loaded, min(seconds, _QUICK) if quick else seconds)
    if not codes:
        raise click.UsageError(f"{data} holds no sounds")
    n_q, rate = model.size.n_q, model.size.frame_rate
    rows = [
        measure(prior, [c[:k] for c in codes], rate, packet_seconds, 1 if quick else 5)
        for k in sorted({k for k in (1, 2, 3, 4, 6, 8, 12, 16, 24) if k < n_q} | {n_q})
    ]
    show("The prior of codes", rows, as_json, seconds=sum(c.shape[1] for c in codes) / rate)


if __name__ == "__main__":
    main()
