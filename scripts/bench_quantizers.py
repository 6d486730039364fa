"""python scripts/bench_quantizers.py [--data DIR] [--quick] [--json]: quantizers at equal bits.

Each quantizer sits between the same small encoder and decoder of 8 x 8 RGB patches (192 numbers to
32 and back), which are trained with it from the same start on the same patches. Pictures for
training and for testing are different ones (with the picture that ships, its left and right half).
`psnr_db` is that of the test patches, `usage` the share of codes that they use, `perplexity` 2 to
the entropy of a code over the codebook's size; of several codes the mean. Each number is a mean
over seeds, `spread_db` the largest less the smallest PSNR. `claim` is what the paper says, and
`here` whether these numbers show it.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import torch
from torch import Tensor, nn

from latentpack.codecs.quantizers.fsq import FSQ
from latentpack.codecs.quantizers.grouped import GroupedQuantizer
from latentpack.codecs.quantizers.ibq import IBQ
from latentpack.codecs.quantizers.lfq import LFQ
from latentpack.codecs.quantizers.projected import ProjectedQuantizer
from latentpack.codecs.quantizers.quantizer import Quantizer
from latentpack.codecs.quantizers.rvq import ResidualQuantizer
from latentpack.codecs.quantizers.simvq import SimVQ
from latentpack.codecs.quantizers.usage import count_codes, perplexity, usage
from latentpack.codecs.quantizers.vq import VectorQuantizer
from latentpack.datasets.crops import find_pictures
from latentpack.datasets.images import read_image
from latentpack.scripts.bench import show
from latentpack.scripts.showcase import SAMPLE

SIDE, DIM = 8, 32
BATCH, TESTED = 512, 20_000
_WEIGHTS = {"commitment_loss": 0.25, "codebook_loss": 1.0, "entropy_loss": 0.0}


@dataclass(frozen=True)
class Case:
    """A quantizer of `bits` bits to a patch; `entropy` is the weight of its entropy loss."""

    bits: int
    make: Callable[[], Quantizer]
    entropy: float = 0.0


def rvq(stages: int, size: int, dim: int = DIM) -> ResidualQuantizer:
    """Stages of equal size."""
    return ResidualQuantizer([VectorQuantizer(dim, size) for _ in range(stages)])


def grouped(groups: int, make: Callable[[int], Quantizer], dim: int = DIM) -> GroupedQuantizer:
    """Groups as equal in width as can be."""
    return GroupedQuantizer([make((dim + i) // groups) for i in range(groups)])


CASES: dict[str, Case] = {
    "VQ, no restart, random start": Case(
        12, lambda: VectorQuantizer(DIM, 4096, kmeans=False, restart=0.0)
    ),
    "VQ, no restart, k-means start": Case(12, lambda: VectorQuantizer(DIM, 4096, restart=0.0)),
    "VQ": Case(12, lambda: VectorQuantizer(DIM, 4096)),
    "VQ, factorised to 8, cosine": Case(
        12, lambda: ProjectedQuantizer(DIM, VectorQuantizer(8, 4096, cosine=True))
    ),
    "SimVQ": Case(12, lambda: SimVQ(DIM, 4096)),
    "SimVQ, 16384 codes": Case(14, lambda: SimVQ(DIM, 16384)),
    "VQ, 16384 codes": Case(14, lambda: VectorQuantizer(DIM, 16384)),
    "IBQ, 32 channels": Case(12, lambda: IBQ(DIM, 4096), entropy=0.05),
    "IBQ, factorised to 8": Case(12, lambda: ProjectedQuantizer(DIM, IBQ(8, 4096)), entropy=0.05),
    "FSQ 8 8 8 8": Case(12, lambda: ProjectedQuantizer(DIM, FSQ((8, 8, 8, 8)))),
    "LFQ": Case(12, lambda: ProjectedQuantizer(DIM, LFQ(12)), entropy=0.05),
    "RVQ, 2 of 64": Case(12, lambda: rvq(2, 64)),
    "RVQ, 4 of 8": Case(12, lambda: rvq(4, 8)),
    "groups, 2 of 64": Case(12, lambda: grouped(2, lambda dim: VectorQuantizer(dim, 64))),
    "group-residual, 2 x 2 of 8": Case(12, lambda: grouped(2, lambda dim: rvq(2, 8, dim))),
    "RVQ, 4 of 64": Case(24, lambda: rvq(4, 64)),
    "group-residual, 2 x 2 of 64": Case(24, lambda: grouped(2, lambda dim: rvq(2, 64, dim))),
}


Rows = Mapping[str, Mapping[str, Any]]
Claims = Mapping[str, tuple[str, Callable[[Rows], bool]]]
# Case -> the paper's claim, and what must hold in the rows for it to be seen here. A difference of
# PSNR counts where it is larger than the spread of both.
CLAIMS: Claims = {
    "VQ": (
        "restart of dead codes keeps the codebook in use (SoundStream)",
        lambda r: r["VQ"]["usage"] > r["VQ, no restart, random start"]["usage"] + 0.05,
    ),
    "VQ, no restart, k-means start": (
        "k-means start keeps more codes alive than a random one (SoundStream)",
        lambda r: (
            r["VQ, no restart, k-means start"]["usage"]
            > r["VQ, no restart, random start"]["usage"] + 0.02
        ),
    ),
    "VQ, factorised to 8, cosine": (
        "few channels and cosine: higher usage than VQ without restart (improved VQGAN)",
        lambda r: (
            r["VQ, factorised to 8, cosine"]["usage"]
            > r["VQ, no restart, random start"]["usage"] + 0.02
        ),
    ),
    "SimVQ": ("all codes are used, whatever their number", lambda r: r["SimVQ"]["usage"] > 0.95),
    "SimVQ, 16384 codes": (
        "more codes: still all used, and better reconstruction",
        lambda r: (
            r["SimVQ, 16384 codes"]["usage"] > 0.9 and _better(r, "SimVQ, 16384 codes", "SimVQ")
        ),
    ),
    "IBQ, 32 channels": (
        "index backpropagation uses a large codebook (paper; issues: collapses unless low-dim)",
        lambda r: r["IBQ, 32 channels"]["usage"] > 0.8,
    ),
    "IBQ, factorised to 8": (
        "fewer channels prevent the collapse (issues 51, 59 of its repository)",
        lambda r: r["IBQ, factorised to 8"]["usage"] > r["IBQ, 32 channels"]["usage"] + 0.05,
    ),
    "FSQ 8 8 8 8": (
        "no collapse without any extra loss, reconstruction near VQ's",
        lambda r: r["FSQ 8 8 8 8"]["usage"] > 0.9 and not _better(r, "VQ", "FSQ 8 8 8 8", 1.0),
    ),
    "LFQ": ("all of a large codebook is used", lambda r: r["LFQ"]["usage"] > 0.9),
    "RVQ, 4 of 8": (
        "more stages at equal bits cost quality, and are cheap to search",
        lambda r: _better(r, "RVQ, 2 of 64", "RVQ, 4 of 8") and _better(r, "VQ", "RVQ, 2 of 64"),
    ),
    "group-residual, 2 x 2 of 64": (
        "group-residual beats RVQ of as many codes (HiFi-Codec)",
        lambda r: _better(r, "group-residual, 2 x 2 of 64", "RVQ, 4 of 64"),
    ),
    "groups, 2 of 64": (
        "groups are as good as a residual at equal bits (product quantization)",
        lambda r: not _better(r, "RVQ, 2 of 64", "groups, 2 of 64"),
    ),
}


def _better(rows: Rows, first: str, second: str, by: float = 0.0) -> bool:
    """Whether the first case has the better PSNR, by more than the seeds differ."""
    noise = max(rows[name]["spread_db"] for name in (first, second))
    return bool(rows[first]["psnr_db"] - rows[second]["psnr_db"] > max(by, noise))


def patches(folder: Path | None) -> tuple[Tensor, Tensor]:
    """Patches for training and for testing, float [N, 192] around zero."""
    if folder is None:
        x = read_image(SAMPLE)[0][:3]
        half = x.shape[2] // 2
        return _cut([x[:, :, :half]], 2), _cut([x[:, :, half:]], 4)
    files = [picture.path for picture in find_pictures([folder])][:60]
    if len(files) < 2:
        raise click.UsageError(f"{folder} holds {len(files)} pictures, expected 2 or more")
    pictures = [read_image(file)[0][:3] for file in files]
    return _cut(pictures[::2], 4), _cut(pictures[1::2], 8)


def _cut(pictures: list[Tensor], step: int) -> Tensor:
    parts = []
    for x in pictures:
        tiles = x.expand(3, -1, -1).unfold(1, SIDE, step).unfold(2, SIDE, step)
        parts.append(tiles.permute(1, 2, 0, 3, 4).reshape(-1, 3 * SIDE * SIDE))
    rows = torch.cat(parts)
    chosen = torch.randperm(len(rows), generator=torch.Generator().manual_seed(0))[:200_000]
    return rows[chosen].float() / 255 - 0.5


class Autoencoder(nn.Module):
    """Encoder and decoder of patches, linear maps with a branch beside each, and a quantizer."""

    def __init__(self, quantizer: Quantizer, start: Tensor) -> None:
        """Start at the principal components [DIM, 192], so that all cases have the same start."""
        super().__init__()
        width = start.shape[1]
        self.into, self.out = nn.Linear(width, DIM), nn.Linear(DIM, width)
        before, after = nn.Linear(128, DIM), nn.Linear(128, width)
        self.before = nn.Sequential(nn.Linear(width, 128), nn.ReLU(), before)
        self.after = nn.Sequential(nn.Linear(DIM, 128), nn.ReLU(), after)
        for layer in (self.into, self.out, before, after):
            nn.init.zeros_(layer.weight)
            nn.init.zeros_(layer.bias)
        self.into.weight.data += start
        self.out.weight.data += start.t()
        self.quantizer = quantizer

    def encode(self, x: Tensor) -> Tensor:
        """[N, 192] -> [N, DIM]."""
        return self.into(x) + self.before(x)  # type: ignore[no-any-return]

    def decode(self, v: Tensor) -> Tensor:
        """[N, DIM] -> [N, 192]."""
        return self.out(v) + self.after(v)  # type: ignore[no-any-return]


def measure(case: Case, train: Tensor, test: Tensor, seed: int, steps: int) -> dict[str, float]:
    """Train one case with one seed; PSNR, usage and perplexity over the codebook's size."""
    torch.manual_seed(seed)
    start = torch.linalg.eigh(train[:20_000].t() @ train[:20_000]).eigenvectors[:, -DIM:].t()
    model = Autoencoder(case.make(), start.flip(0))
    optimizer = torch.optim.Adam(model.parameters(), lr=2e-3)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    weights = {**_WEIGHTS, "entropy_loss": case.entropy}
    for _ in range(steps):
        x = train[torch.randint(len(train), (BATCH,))]
        out = model.quantizer(model.encode(x))
        # Of a vector, 192 / DIM times the error of a number of the patch.
        loss = (model.decode(out.x_hat) - x).square().mean() * train.shape[1] / DIM
        loss = loss + sum(weights[name] * part for name, part in out.losses.items())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    return _test(model.eval(), test)


@torch.inference_mode()
def _test(model: Autoencoder, test: Tensor) -> dict[str, float]:
    quantizer = model.quantizer
    codes = torch.cat([quantizer.encode(model.encode(part)) for part in torch.split(test, 4096)])
    errors = [
        (model.decode(quantizer.decode(c)) - x).square().mean()
        for c, x in zip(torch.split(codes, 4096), torch.split(test, 4096), strict=True)
    ]
    psnr_db = float(-10 * torch.stack(errors).mean().log10())
    return {"psnr_db": psnr_db} | use_of(count_codes(codes, quantizer.codebook_sizes))


def use_of(counts: Sequence[Tensor]) -> dict[str, float]:
    """Usage and perplexity (over the codebook's size), means over the codebooks."""
    return {
        "usage": statistics.mean(map(usage, counts)),
        "perplexity": statistics.mean(perplexity(c) / len(c) for c in counts),
    }


def row(name: str, results: list[dict[str, float]]) -> dict[str, Any]:
    """Means over the seeds."""
    means = {key: statistics.mean(result[key] for result in results) for key in results[0]}
    reached = [result["psnr_db"] for result in results]
    return {"quantizer": name, "bits": CASES[name].bits, **means} | {
        "spread_db": max(reached) - min(reached)
    }


def judge(rows: Mapping[str, dict[str, Any]], claims: Claims) -> None:
    """Add to each row what the paper claims, and whether the rows show it."""
    for name, values in rows.items():
        claim, holds = claims.get(name, ("", None))
        values["here"] = "-" if holds is None else "yes" if holds(rows) else "no"
        values["claim"] = claim


@click.command()
@click.option("--data", type=click.Path(exists=True, path_type=Path), help="Folder of pictures.")
@click.option("--seeds", type=click.IntRange(1), default=3, show_default=True)
@click.option("--steps", type=click.IntRange(1), default=300, show_default=True)
@click.option("--quick", is_flag=True, help="One seed and few steps: under a minute.")
@click.option("--json", "as_json", is_flag=True, help="Print a line of JSON at the end.")
def main(data: Path | None, seeds: int, steps: int, quick: bool, as_json: bool) -> None:
    """Compare quantizers at equal bits with what their papers claim."""
    torch.set_num_threads(1)
    train, test = patches(data)
    test = test[:TESTED]
    if quick:
        seeds, steps = 1, 40
    results: dict[str, list[dict[str, float]]] = {name: [] for name in CASES}
    for seed in range(seeds):  # the seed in the outer loop: a busy machine slows all alike
        for name, case in CASES.items():
            results[name].append(measure(case, train, test, seed, steps))
    rows = {name: row(name, found) for name, found in results.items()}
    judge(rows, CLAIMS)
    show(f"Quantizers, {seeds} seeds of {steps} steps", rows.values(), as_json)


if __name__ == "__main__":
    main()
