"""What a run of `fit_encoder` changes: latents, parameters, and the moments that move them."""

from __future__ import annotations

import math
import zipfile
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from ...kernels import fit_train
from . import fit_networks as networks
from .fit_networks import Preset
from .fit_prior import Prior
from .fit_soap import Soap

Array = NDArray[np.float32]

# Slices whose parameters are of another size than the rest, or would take a relu out of its range
# for good, learn at other rates.
_RATE_OF_SCALE = 0.75
_RATES = {"context.b3": 4.0, "up": 0.3, "synthesis.b1": 0.25, "synthesis.c1": 0.25}


class Engine(Protocol):
    """Whatever computes an iteration."""

    def step(self, latents: Array, params: Array, objective: fit_train.Objective) -> fit_train.Step:
        """Rate, distortion and gradients, as `fit_train.Trainer.step`."""
        ...


class Phase(NamedTuple):
    """The settings at a fraction of a run."""

    latent_rate: float
    network_rate: float
    vector_rate: float
    temperature: float
    noise: float


class Pull(NamedTuple):
    """What parameters cost to code: gradients towards where the prior expects them.

    The cost is `weight * |parameter - mean|`, rounded off within `soft` of the mean.
    """

    mean: Array
    weight: Array
    soft: Array

    def gradient(self, params: Array) -> Array:
        """Of the cost, by the parameters."""
        away = params - self.mean
        gradient: Array = self.weight * away / np.sqrt(away * away + self.soft * self.soft)
        return gradient


class Latents:
    """Latents of a picture with the moments that move them."""

    def __init__(self, values: Array, sizes: list[int], damping: float):
        """Begin with latents of grids of these sizes, behind one another."""
        self.values, self._damping = values, damping
        ends = np.cumsum(sizes)
        self._grids = [slice(e - n, e) for e, n in zip(ends.tolist(), sizes, strict=True)]
        self.adam = moments(len(values))
        self._soft, self._slope = np.empty_like(values), np.empty_like(values)

    def soften(self, phase: Phase, seed: int) -> Array:
        """Stand-ins for the rounded latents, which the next call overwrites."""
        fit_train.soften(self.values, phase.temperature, phase.noise, seed, self._soft, self._slope)
        return self._soft

    def move(self, grads: Array, rate: float) -> None:
        """One step against gradients by the stand-ins of the last call of `soften`."""
        adam = self.adam
        for part in self._grids:
            moved = grads[part] * self._slope[part]
            own = replace(adam, first=adam.first[part], second=adam.second[part])
            square = float(np.dot(moved, moved)) / max(1, len(moved))
            own.epsilon = self._damping * math.sqrt(square) + 1e-12
            fit_train.adam(own, rate, grads[part], self._slope[part], self.values[part])
        adam.steps += 1
        np.clip(self.values, -networks.LIMIT, networks.LIMIT, out=self.values)

    def arrays(self) -> dict[str, NDArray[Any]]:
        """All that has to be kept to go on exactly, by name."""
        return {
            "latents": self.values,
            "latent_first": self.adam.first,
            "latent_second": self.adam.second,
        }


class Networks:
    """Parameters of networks with the moments that move them."""

    def __init__(
        self, params: Array, rates: Array, layout: dict[str, networks.Slice], pull: Pull | None
    ):
        """Begin with parameters, which learn at `rates`."""
        self._scale, self._pull = rates, pull
        self._scaled = params / rates
        matrices = {n: s for n, s in layout.items() if len(s.shape) > 1 and n != "up"}
        self._soap = Soap([(slice(s.start, s.stop), s.shape) for s in matrices.values()])
        vectors = [s for name, s in layout.items() if name not in matrices]
        self._vectors = np.concatenate([np.arange(s.start, s.stop) for s in vectors])
        self.adam = moments(len(self._vectors))
        self.step = 0

    @property
    def params(self) -> Array:
        """The parameters as the networks take them."""
        params: Array = self._scaled * self._scale
        return params

    def move(self, params: Array, grads: Array, phase: Phase) -> None:
        """One step against the gradients at `params`, which are the present ones."""
        self.step += 1
        grads = (grads + self._pull.gradient(params) if self._pull else grads) * self._scale
        self._soap.step(self.step, phase.network_rate, grads, self._scaled)
        vectors = self._scaled[self._vectors]
        slope = np.ones_like(vectors)
        fit_train.adam(self.adam, phase.vector_rate, grads[self._vectors], slope, vectors)
        self._scaled[self._vectors] = vectors

    def arrays(self) -> dict[str, NDArray[Any]]:
        """All that has to be kept to go on exactly, by name."""
        return {
            "scaled": self._scaled,
            "vector_first": self.adam.first,
            "vector_second": self.adam.second,
            **self._soap.arrays(),
        }


class State:
    """Latents and networks of one picture."""

    def __init__(
        self,
        latents: Array,
        params: Array,
        rates: Array,
        preset: Preset,
        colours: int,
        sizes: list[int],
        damping: float,
        pull: Pull | None,
    ):
        """Begin with latents (of grids of these sizes) and parameters, which learn at `rates`."""
        self._latents = Latents(latents, sizes, damping)
        self._networks = Networks(params, rates, networks.layout(preset, colours), pull)
        self.step = 0
        self.seconds = 0.0

    @property
    def latents(self) -> Array:
        """The latents before rounding."""
        return self._latents.values

    @property
    def params(self) -> Array:
        """The parameters as the networks take them."""
        return self._networks.params

    def advance(
        self, engine: Engine, objective: fit_train.Objective, phase: Phase
    ) -> tuple[float, float]:
        """One iteration; returns bits and mse before it."""
        values = self._latents.soften(phase, self.step * 0x9E3779B1 + 0x85EBCA6B)
        params = self.params
        got = engine.step(values, params, objective)
        self.step += 1
        self._latents.move(got.latent_grads, phase.latent_rate)
        self._networks.move(params, got.param_grads, phase)
        return got.bits, got.mse

    def save(self, path: Path, key: str) -> None:
        """Write all of it, whole or not at all."""
        partial = path.with_name(path.name + ".partial")
        with partial.open("wb") as file:
            np.savez(
                file,
                key=np.array(key),
                progress=np.array([self.step, self.seconds]),
                **self._arrays(),
            )
        partial.replace(path)

    def load(self, path: Path, key: str) -> None:
        """Go on from a file of `save`.

        Raises:
            ValueError: it is not such a file, or is of another picture or other settings.
        """
        try:
            with np.load(path, allow_pickle=False) as file:
                stored = {name: file[name] for name in file.files}
            if str(stored["key"]) != key:
                raise ValueError(
                    f"{path} is of another picture or other settings; delete it or name another"
                )
            for name, array in self._arrays().items():
                array[:] = stored[name]
            self.step, self.seconds = int(stored["progress"][0]), float(stored["progress"][1])
            self._latents.adam.steps = self._networks.adam.steps = self.step
            self._networks.step = self.step
        except (OSError, KeyError, EOFError, zipfile.BadZipFile) as error:
            raise ValueError(f"{path} is not a checkpoint of image/fit: {error}") from None

    def _arrays(self) -> dict[str, NDArray[Any]]:
        return {**self._latents.arrays(), **self._networks.arrays()}


def moments(count: int) -> fit_train.Adam:
    """Of so many numbers that have not moved yet."""
    first, second = np.zeros((2, count), np.float32)
    return fit_train.Adam(first, second, beta2=0.99)


def rates_of(layout: dict[str, networks.Slice], prior: Prior | None) -> Array:
    """How fast each parameter learns, relative to the recipe's rates.

    The nearer to its start a prior expects the context model, the slower that learns.
    """
    rates = np.ones(sum(piece.size for piece in layout.values()), np.float32)
    for name, rate in _RATES.items():
        rates[layout[name].start : layout[name].stop] = rate
    if prior is not None:
        context = slice(0, layout["context.b3"].stop)
        expected = 2.0 ** ((float(np.median(prior.scale[context])) - 60) / 3)
        rates[context] *= min(1.0, _RATE_OF_SCALE * expected)
    return rates
