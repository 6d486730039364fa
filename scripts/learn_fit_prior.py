"""Command line: python -m latentpack.scripts.learn_fit_prior --data photos/ --out run/.

Learns the prior of `image/fit`. Photographs are fitted; one context model is trained on the latents
of all of them; others are fitted from there, slowly, so that their latents suit it; and on those
the context models of all presets and rates are trained. They are where fits start. Upsampling and
synthesis start at random ones: of these the prior only says where they end.
"""

import json
import math
import pickle
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import click
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from latentpack.codecs.image import fit_encoder, fit_prior
from latentpack.codecs.image import fit_networks as networks
from latentpack.codecs.image.fit_prior import Prior
from latentpack.codecs.image.fit_soap import Soap
from latentpack.datasets.images import read_image, suffixes

Array = NDArray[np.float32]
_LEARNED = "best"  # the preset of the fits
_SLOW = 53  # a scale of 0.2, as a prior stores it: the context of the second fits moves slowly


@dataclass(frozen=True)
class Learning:
    """All that a prior depends on besides the photographs.

    Attributes:
        lmbdas: of the rates.
        first: the rate of the first fits.
        crop: side of what is fitted of a photograph.
        photographs: to a rate, of the first fits and of the second.
        steps: of each of these fits.
        context_steps: of a context model from nothing, and from another rate's.
        context_rates: of SOAP in them.
        seed: of photographs and crops.
    """

    lmbdas: tuple[float, ...] = (0.001, 0.0025, 0.006, 0.015, 0.04)
    first: int = 2
    crop: int = 256
    photographs: tuple[int, int] = (8, 6)
    steps: tuple[int, int] = (400, 300)
    context_steps: tuple[int, int] = (900, 360)
    context_rates: tuple[float, float] = (0.03, 0.01)
    seed: int = 1

    def order(self) -> list[int]:
        """Rates, the first one first."""
        return [self.first, *(r for r in range(len(self.lmbdas)) if r != self.first)]


class Fit(NamedTuple):
    """What is kept of a fit."""

    x: Tensor
    latents: Array
    params: Array


class Photographs:
    """Random crops of colour pictures."""

    def __init__(self, folders: Sequence[Path], crop: int, seed: int):
        """List the pictures of folders."""
        known = suffixes()
        files = [f for folder in folders for f in sorted(folder.iterdir())]
        self._files = [f for f in files if f.suffix.lower() in known]
        if not self._files:
            raise click.BadParameter("no pictures in the folders of --data")
        self._crop, self._seed = crop, seed

    def take(self, number: int) -> Tensor:
        """The crop of this number: uint8 [3, crop, crop], or less of a smaller picture."""
        order = np.random.default_rng([self._seed, number // len(self._files)])
        file = self._files[order.permutation(len(self._files))[number % len(self._files)]]
        random = np.random.default_rng([self._seed, number, 1])
        x = read_image(file)[0]
        x = x[:3] if x.shape[0] >= 3 else x[:1].expand(3, -1, -1)
        top, left = (int(random.integers(max(1, n - self._crop + 1))) for n in x.shape[1:])
        return x[:, top : top + self._crop, left : left + self._crop].contiguous()


class Run:
    """Fits in files, so that a broken run goes on."""

    def __init__(self, folder: Path, learning: Learning, photographs: Photographs):
        """Learn in a folder."""
        self._folder, self._learning, self._photographs = folder, learning, photographs
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "learning.json").write_text(json.dumps(asdict(learning), indent=1) + "\n")

    def fits(self, generation: int, rate: int, prior: Prior | None) -> list[Fit]:
        """Those of a rate, from the context model of a prior if there is one."""
        count = self._learning.photographs[generation]
        return [self._fit(generation, rate, i, prior) for i in range(count)]

    def _fit(self, generation: int, rate: int, number: int, prior: Prior | None) -> Fit:
        file = self._folder / f"{generation}-{rate}-{number}.pkl"
        if not file.exists():
            lmbda, steps = self._learning.lmbdas[rate], self._learning.steps[generation]
            x = self._photographs.take(1000 * rate + 500 + 200 * generation + number)
            start = fit_encoder.start_of(networks.PRESETS[_LEARNED], 3, prior)
            done = fit_encoder.optimise(
                x, _LEARNED, lmbda, start, prior=prior, steps=steps, threads=1
            )
            bpp, psnr = done.bits / x[0].numel(), -10 * math.log10(done.mse)
            click.echo(f"fit {generation}, rate {rate}, {number}: {bpp:.4f} bpp, {psnr:.2f} dB")
            latents = torch.cat([grid.flatten() for grid in done.grids]).float().numpy()
            partial = file.with_suffix(".partial")
            partial.write_bytes(pickle.dumps(Fit(x, latents, done.parameters.numpy())))
            partial.replace(file)
        loaded: Fit = pickle.loads(file.read_bytes())
        return loaded


def train_context(preset: str, fits: list[Fit], start: Array, steps: int, rate: float) -> Array:
    """Parameters whose context model fits the latents of all fits; the rest is as in `start`."""
    sizes = networks.PRESETS[preset]
    parts = [
        (slice(piece.start, piece.stop), piece.shape)
        for name, piece in networks.layout(sizes, 3).items()
        if name.startswith("context") and len(piece.shape) > 1
    ]
    engines = [fit_encoder.engine_for(sizes, fit.x.float() / 255, 1) for fit in fits]
    objective = fit_encoder.objective_for(0.0)
    params, soap = start.copy(), Soap(parts)
    for step in range(steps):
        i = step % len(fits)
        got = engines[i].step(fits[i].latents, params, objective)
        wave = 0.5 * (1 + math.cos(math.pi * step / steps)) * min(1.0, step / 30)
        soap.step(step + 1, rate * wave, got.param_grads, params)
    return params


def contexts(preset: str, learning: Learning, fits: dict[int, list[Fit]]) -> dict[int, Array]:
    """Parameters with the context model of each rate; the other rates' go on from the first."""
    start = fit_encoder.start_of(networks.PRESETS[preset], 3).numpy()
    made = {}
    for new, rate in enumerate(r for r in learning.order() if r in fits):
        turn = min(new, 1)
        steps, speed = learning.context_steps[turn], learning.context_rates[turn]
        made[rate] = train_context(preset, fits[rate], start, steps, speed)
        start = made[learning.first]
    return made


def first_prior(learning: Learning, fits: list[Fit]) -> Prior:
    """The context model of the first fits, as a prior for the second."""
    mean = contexts(_LEARNED, learning, {learning.first: fits})[learning.first]
    scale = np.full(len(mean), _SLOW, np.int64)
    q = steps_of(networks.layout(networks.PRESETS[_LEARNED], 3)).astype(np.int64)
    return Prior(_LEARNED, 3, learning.first, learning.lmbdas[learning.first], mean, scale, q)


def scales(away: Array, slices: dict[str, networks.Slice]) -> NDArray[np.uint8]:
    """Laplace scales of parameters, as `fit_prior` stores them, from how far fits end [fits, n].

    The mean absolute deviation of a few fits is a rough estimate, so half the weight is on that of
    the whole slice; and fits of a few hundred steps stay nearer than long ones.
    """
    deviation = np.abs(away).mean(0)
    for piece in slices.values():
        part = deviation[piece.start : piece.stop]
        part[:] = np.sqrt(np.maximum(part, 1e-5) * max(float(part.mean()), 1e-5))
    rows = np.clip(np.rint(60 + 3 * np.log2(deviation)), 0, 255)
    stored: NDArray[np.uint8] = rows.astype(np.uint8)
    return stored


def steps_of(slices: dict[str, networks.Slice]) -> NDArray[np.uint8]:
    """Steps to begin the search for the best with, as -log2: fine ones.

    The search changes a slice at a time: where all are coarse, no finer one helps by itself.
    """
    fine = {"context": 7, "up": 9, "synthesis": 9}
    return np.array([fine[name.split(".")[0]] for name in slices], np.uint8)


def parts_of(
    key: str, context: Array, fits: list[Fit], start: Array
) -> tuple[Array, NDArray[np.uint8]]:
    """Means and scales of "preset.colours" at one rate.

    Args:
        key: whose.
        context: parameters of the preset, for three colours, with the context model of the rate.
        fits: of the rate.
        start: what these began with.
    """
    preset, colours = key.split(".")
    ours = networks.layout(networks.PRESETS[_LEARNED], 3)
    slices = networks.layout(networks.PRESETS[preset], int(colours))
    ends = np.stack([fit.params for fit in fits])
    middle = np.where(np.arange(len(start)) < ours["up"].start, start, ends.mean(0))
    known = scales(ends - middle, ours)
    mean = fit_encoder.start_of(networks.PRESETS[preset], int(colours)).numpy()
    if key == f"{_LEARNED}.3":
        mean, scale = middle.astype(np.float32), known
    else:  # nobody fitted with these: each slice's typical scale
        scale = np.zeros(len(mean), np.uint8)
        for name, piece in slices.items():
            typical = np.median(known[ours[name].start : ours[name].stop])
            scale[piece.start : piece.stop] = typical
    end = slices["up"].start
    mean[:end] = context[:end]
    return mean, scale


def learn(run: Run, learning: Learning) -> dict[str, dict[str, Any]]:
    """The priors of all presets, as `fit_prior.save` takes them."""
    begun = first_prior(learning, run.fits(0, learning.first, None))
    start = fit_encoder.start_of(networks.PRESETS[_LEARNED], 3, begun).numpy()
    fits = {rate: run.fits(1, rate, begun) for rate in learning.order()}
    priors = {}
    for preset in networks.PRESETS:
        context = contexts(preset, learning, fits)
        click.echo(f"contexts of {preset}")
        for colours in (1, 3):
            key, rates = f"{preset}.{colours}", range(len(learning.lmbdas))
            found = [parts_of(key, context[r], fits[r], start) for r in rates]
            slices = networks.layout(networks.PRESETS[preset], colours)
            priors[key] = {
                "mean": np.stack([mean for mean, _ in found]),
                "scale": np.stack([scale for _, scale in found]),
                "q": np.tile(steps_of(slices), (len(found), 1)),
            }
    return priors


@click.command()
@click.option("--data", multiple=True, required=True, type=click.Path(path_type=Path, exists=True))
@click.option("--out", required=True, type=click.Path(path_type=Path), help="Folder of the run.")
@click.option("--set", "settings", multiple=True, metavar="NAME=JSON", help="A field of Learning.")
def main(data: tuple[Path, ...], out: Path, settings: tuple[str, ...]) -> None:
    """Learn priors of all presets into OUT/image-fit.lpkw."""
    learning = Learning()
    for name, _, text in (setting.partition("=") for setting in settings):
        value: Any = json.loads(text)
        change: dict[str, Any] = {name: tuple(value) if isinstance(value, list) else value}
        learning = replace(learning, **change)
    photographs = Photographs(data, learning.crop, learning.seed)
    priors = learn(Run(out, learning, photographs), learning)
    training = json.loads(json.dumps(asdict(learning)))  # lists for tuples
    file = out / "image-fit.lpkw"
    digest = fit_prior.save(file, list(learning.lmbdas), priors, training)
    click.echo(f"{file}: {digest.hex()}")


if __name__ == "__main__":
    main()
