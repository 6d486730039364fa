"""Command line: python -m latentpack.scripts.learn_fit_prior --data photos/ --out run/ best.3.

Learns the prior of `image/fit`: where the parameters of a fit end up. Photographs are fitted, all
from the start that the encoder takes too, so that what a hidden unit is for is about the same in
all of them; the mean and the mean deviation of each parameter are the prior.
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
        crop: side of what is fitted of a photograph.
        photographs: to each rate.
        steps: of each of their fits.
        seed: of photographs and crops.
    """

    lmbdas: tuple[float, ...] = (0.001, 0.0025, 0.006, 0.015, 0.04)
    crop: int = 256
    photographs: int = 6
    steps: int = 500
    seed: int = 1


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

    def rate(self, rate: int) -> list[Array]:
        """What the fits of a rate end with."""
        return [self._fit(rate, i) for i in range(self._learning.photographs)]

    def _fit(self, rate: int, number: int) -> Array:
        file = self._folder / f"{self._preset}.{self._colours}-{rate}-{number}.npy"
        if not file.exists():
            lmbda, steps = self._learning.lmbdas[rate], self._learning.steps
            x = self._photographs.take(1000 * rate + number)
            sizes = networks.PRESETS[self._preset]
            fitted = fit_encoder.optimise(
                x, self._preset, lmbda, fit_encoder.start_of(sizes, len(x)), steps=steps, threads=1
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
    the whole slice; and fits of a few hundred steps stay nearer than long ones.
    """
    deviation = np.abs(np.stack(found) - mean).mean(0)
    for piece in slices.values():
        part = deviation[piece.start : piece.stop]
        part[:] = np.sqrt(np.maximum(part, 1e-5) * max(float(part.mean()), 1e-5))
    stored: NDArray[np.uint8] = np.clip(np.rint(60 + 3 * np.log2(deviation)), 0, 255).astype(
        np.uint8
    )
    return stored


def steps_of(slices: dict[str, networks.Slice]) -> NDArray[np.uint8]:
    """Steps to begin the search for the best with, as -log2: fine ones.

    The search changes a slice at a time: where all are coarse, no finer one helps by itself.
    """
    fine = {"context": 7, "up": 9, "synthesis": 9}
    return np.array([fine[name.split(".")[0]] for name in slices], np.uint8)


def learn(run: Run, learning: Learning, key: str) -> dict[str, Any]:
    """The prior of a preset at all rates, as `fit_prior.save` takes it."""
    preset, colours = key.split(".")
    slices = networks.layout(networks.PRESETS[preset], int(colours))
    means, spread = [], []
    for rate in range(len(learning.lmbdas)):
        found = run.rate(rate)
        means.append(np.mean(found, 0).astype(np.float16).astype(np.float32))
        spread.append(scales(means[-1], found, slices))
    return {
        "mean": np.stack(means),
        "scale": np.stack(spread),
        "q": np.tile(steps_of(slices), (len(spread), 1)),
    }


def borrow(prior: dict[str, Any], key: str, other: str) -> dict[str, Any]:
    """A prior for preset `other` that nobody learned: the start, and each slice's typical scale."""
    preset, colours = other.split(".")
    theirs = networks.layout(networks.PRESETS[preset], int(colours))
    mean = fit_encoder.start_of(networks.PRESETS[preset], int(colours)).numpy()
    preset, colours = key.split(".")
    ours = networks.layout(networks.PRESETS[preset], int(colours))
    scale = np.zeros((len(prior["scale"]), len(mean)), np.uint8)
    for name, piece in theirs.items():
        typical = np.median(prior["scale"][:, ours[name].start : ours[name].stop], 1)
        scale[:, piece.start : piece.stop] = typical[:, None]
    return {"mean": np.tile(mean, (len(scale), 1)), "scale": scale, "q": prior["q"]}


@click.command()
@click.argument("keys", nargs=-1, required=True)
@click.option("--data", multiple=True, required=True, type=click.Path(path_type=Path, exists=True))
@click.option("--out", required=True, type=click.Path(path_type=Path), help="Folder of the run.")
@click.option("--set", "settings", multiple=True, metavar="NAME=JSON", help="A field of Learning.")
def main(
    keys: tuple[str, ...], data: tuple[Path, ...], out: Path, settings: tuple[str, ...]
) -> None:
    """Learn priors KEYS ("best.3" = preset best, three colours) into OUT/image-fit.lpkw.

    Presets that are not among them borrow the scales of the first.
    """
    learning = Learning()
    for name, _, text in (setting.partition("=") for setting in settings):
        value: Any = json.loads(text)
        change: dict[str, Any] = {name: tuple(value) if isinstance(value, list) else value}
        learning = replace(learning, **change)
    priors = {}
    for key in keys:
        photographs = Photographs(data, int(key.split(".")[1]), learning.crop, learning.seed)
        priors[key] = learn(Run(out, key, learning, photographs), learning, key)
    for preset in networks.PRESETS:
        for other in (f"{preset}.1", f"{preset}.3"):
            if other not in priors:
                priors[other] = borrow(priors[keys[0]], keys[0], other)
    training = json.loads(json.dumps(asdict(learning) | {"learned": list(keys)}))
    file = out / "image-fit.lpkw"
    digest = fit_prior.save(file, list(learning.lmbdas), priors, training)
    click.echo(f"{file}: {digest.hex()}")


if __name__ == "__main__":
    main()
