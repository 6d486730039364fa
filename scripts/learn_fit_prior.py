"""Command line: python -m latentpack.scripts.learn_fit_prior --data photos/ --out run/ best.3.

Learns the prior of `image/fit`: where the parameters of a fit are expected. Each photograph is
fitted for a few hundred steps from the mean so far, which then moves towards what came out
(Reptile, Nichol et al. 2018, arXiv:1803.02999): so the mean is also a place from which a short fit
gets far. Longer fits of other photographs say how far from the mean parameters end up.
"""

import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import click
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from latentpack.codecs.image import fit_encoder, fit_prior
from latentpack.codecs.image import fit_networks as networks
from latentpack.datasets.images import read_image, suffixes

Array = NDArray[np.float32]


@dataclass(frozen=True)
class Learning:
    """All that a prior depends on besides the photographs.

    Attributes:
        lmbdas: of the rates.
        first: the rate that is learned from nothing; its neighbours start from it.
        crop: side of what is fitted of a photograph.
        first_photographs: of the first rate.
        photographs: of each other rate.
        steps: of each of their fits.
        move: the share of the way to a fit that the mean goes, at the first and the last.
        spread_photographs: whose fits say how far parameters end up.
        spread_steps: of each of these.
        seed: of photographs and crops.
    """

    lmbdas: tuple[float, ...] = (0.001, 0.0025, 0.006, 0.015, 0.04)
    first: int = 2
    crop: int = 256
    first_photographs: int = 18
    photographs: int = 9
    steps: int = 300
    move: tuple[float, float] = (0.6, 0.12)
    spread_photographs: int = 4
    spread_steps: int = 600
    seed: int = 1

    def order(self) -> list[tuple[int, int | None]]:
        """(rate, the rate it starts from), outwards from the first."""
        down = [(r, r + 1) for r in range(self.first - 1, -1, -1)]
        up = [(r, r - 1) for r in range(self.first + 1, len(self.lmbdas))]
        return [(self.first, None), *down, *up]


class Photographs:
    """Random crops of pictures with three colours, or of their grey."""

    def __init__(self, folders: Sequence[Path], colours: int, crop: int, seed: int):
        """List the pictures of folders."""
        known = suffixes()
        files = [f for folder in folders for f in sorted(folder.iterdir())]
        self._files = [f for f in files if f.suffix.lower() in known]
        if not self._files:
            raise click.BadParameter("no pictures in the folders of --data")
        self._colours, self._crop, self._seed = colours, crop, seed

    def take(self, number: int) -> Tensor:
        """The crop of this number: uint8 [colours, crop, crop], or less of a smaller picture."""
        order = np.random.default_rng([self._seed, number // len(self._files)])
        file = self._files[order.permutation(len(self._files))[number % len(self._files)]]
        random = np.random.default_rng([self._seed, number, 1])
        x = read_image(file)[0]
        x = x[:3] if x.shape[0] >= 3 else x[:1].expand(3, -1, -1)
        top, left = (int(random.integers(max(1, n - self._crop + 1))) for n in x.shape[1:])
        x = x[:, top : top + self._crop, left : left + self._crop]
        if self._colours == 1:
            x = x.float().mean(0, keepdim=True).round().to(torch.uint8)
        return x.contiguous()


class Run:
    """A prior in the making; every fit's result is in a file, so a broken run goes on."""

    def __init__(self, folder: Path, key: str, learning: Learning, photographs: Photographs):
        """Learn `key` ("preset.colours") in a folder."""
        self._folder, self._learning, self._photographs = folder, learning, photographs
        self._preset, colours = key.split(".")
        self._colours = int(colours)
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "learning.json").write_text(json.dumps(asdict(learning), indent=1) + "\n")

    def rate(self, rate: int, start: Array | None) -> tuple[Array, list[Array]]:
        """The mean of a rate, and what longer fits from there ended with."""
        learning = self._learning
        sizes = networks.PRESETS[self._preset]
        generator = torch.Generator().manual_seed(learning.seed)
        initial = networks.initial(sizes, self._colours, generator)
        mean = initial.numpy() if start is None else start
        count = learning.first_photographs if start is None else learning.photographs
        for i in range(count):
            away = self._fit(rate, i, learning.steps, mean) - mean
            begin, end = learning.move
            first = 1.0 if i == 0 and start is None else begin
            mean = mean + first * (end / begin) ** (i / max(1, count - 1)) * away
        mean = mean.astype(np.float16).astype(np.float32)
        numbers = range(count, count + learning.spread_photographs)
        return mean, [self._fit(rate, i, learning.spread_steps, mean) for i in numbers]

    def _fit(self, rate: int, number: int, steps: int, mean: Array) -> Array:
        file = self._folder / f"{self._preset}.{self._colours}-{rate}-{number}.npy"
        if not file.exists():
            lmbda = self._learning.lmbdas[rate]
            x = self._photographs.take(1000 * rate + number)
            fitted = fit_encoder.optimise(
                x, self._preset, lmbda, torch.from_numpy(mean), steps=steps, threads=1
            )
            pixels = x.shape[1] * x.shape[2]
            cost = fitted.bits / pixels + lmbda * 255**2 * fitted.mse
            psnr = -10 * math.log10(fitted.mse)
            click.echo(
                f"rate {rate} photograph {number}: {steps} steps, cost {cost:.4f}, "
                f"{fitted.bits / pixels:.4f} bpp, {psnr:.2f} dB"
            )
            partial = file.with_suffix(".partial.npy")
            np.save(partial, fitted.parameters.numpy())
            partial.replace(file)
        loaded: Array = np.load(file)
        return loaded


def scales(mean: Array, found: list[Array], slices: dict[str, networks.Slice]) -> NDArray[np.uint8]:
    """Laplace scales of parameters around the mean, as `fit_prior` stores them.

    The mean absolute deviation of a few fits is a rough estimate, so half the weight is on that of
    the whole slice.
    """
    deviation = np.abs(np.stack(found) - mean).mean(0)
    for piece in slices.values():
        part = deviation[piece.start : piece.stop]
        part[:] = np.sqrt(np.maximum(part, 1e-5) * max(float(part.mean()), 1e-5))
    stored: NDArray[np.uint8] = np.clip(np.rint(60 + 3 * np.log2(deviation)), 0, 255).astype(
        np.uint8
    )
    return stored


def steps_of(stored: NDArray[np.uint8], slices: dict[str, networks.Slice]) -> NDArray[np.uint8]:
    """Usual steps, as -log2: a third of the typical deviation; the coder may choose others."""
    found = []
    for name, piece in slices.items():
        typical = (np.median(stored[piece.start : piece.stop]) - 60) / 3
        found.append(np.clip(round(1.5 - typical), 3, fit_prior.unit_of(name)))
    return np.array(found, np.uint8)


def learn(run: Run, learning: Learning, key: str) -> dict[str, Any]:
    """The prior of a preset at all rates, as `fit_prior.save` takes it."""
    preset, colours = key.split(".")
    slices = networks.layout(networks.PRESETS[preset], int(colours))
    means: dict[int, Array] = {}
    spread: dict[int, NDArray[np.uint8]] = {}
    for rate, start in learning.order():
        mean, found = run.rate(rate, None if start is None else means[start])
        means[rate], spread[rate] = mean, scales(mean, found, slices)
    rates = range(len(learning.lmbdas))
    return {
        "mean": np.stack([means[r] for r in rates]),
        "scale": np.stack([spread[r] for r in rates]),
        "q": np.stack([steps_of(spread[r], slices) for r in rates]),
    }


@click.command()
@click.argument("keys", nargs=-1, required=True)
@click.option("--data", multiple=True, required=True, type=click.Path(path_type=Path, exists=True))
@click.option("--out", required=True, type=click.Path(path_type=Path), help="Folder of the run.")
@click.option("--set", "settings", multiple=True, metavar="NAME=JSON", help="A field of Learning.")
def main(
    keys: tuple[str, ...], data: tuple[Path, ...], out: Path, settings: tuple[str, ...]
) -> None:
    """Learn priors KEYS ("best.3" = preset best, three colours) into OUT/image-fit.lpkw."""
    learning = Learning()
    for name, _, text in (setting.partition("=") for setting in settings):
        value: Any = json.loads(text)
        change: dict[str, Any] = {name: tuple(value) if isinstance(value, list) else value}
        learning = replace(learning, **change)
    priors = {}
    for key in keys:
        photographs = Photographs(data, int(key.split(".")[1]), learning.crop, learning.seed)
        priors[key] = learn(Run(out, key, learning, photographs), learning, key)
        training = json.loads(json.dumps(asdict(learning)))  # lists for tuples
        file = out / "image-fit.lpkw"
        digest = fit_prior.save(file, list(learning.lmbdas), priors, training)
        click.echo(f"{', '.join(priors)}: {digest.hex()}")


if __name__ == "__main__":
    main()
