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


class State:
    """Latents, parameters and their moments."""

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
        self.latents, self.damping, self._pull = latents, damping, pull
        ends = np.cumsum(sizes)
        self._grids = [slice(e - n, e) for e, n in zip(ends.tolist(), sizes, strict=True)]
        self._scale = rates
        self._scaled = params / self._scale
        self._latent_adam = _moments(len(latents))
        layout = networks.layout(preset, colours)
        matrices = {n: s for n, s in layout.items() if len(s.shape) > 1 and n != "up"}
        self._soap = Soap([(slice(s.start, s.stop), s.shape) for s in matrices.values()])
        vectors = [s for name, s in layout.items() if name not in matrices]
        self._vectors = np.concatenate([np.arange(s.start, s.stop) for s in vectors])
        self._vector_adam = _moments(len(self._vectors))
        self.step = 0
        self.seconds = 0.0
        self._values, self._slope = np.empty_like(latents), np.empty_like(latents)

    @property
    def params(self) -> Array:
        """The parameters as the networks take them."""
        params: Array = self._scaled * self._scale
        return params

    def advance(
        self, engine: Engine, objective: fit_train.Objective, phase: Phase
    ) -> tuple[float, float]:
        """One iteration; returns bits and mse before it."""
        seed = self.step * 0x9E3779B1 + 0x85EBCA6B
        fit_train.soften(
            self.latents, phase.temperature, phase.noise, seed, self._values, self._slope
        )
        params = self.params
        got = engine.step(self._values, params, objective)
        self.step += 1
        self._move_latents(got.latent_grads, phase.latent_rate)
        grads = got.param_grads + self._pull.gradient(params) if self._pull else got.param_grads
        self._move_params(grads * self._scale, phase)
        return got.bits, got.mse

    def _move_latents(self, grads: Array, rate: float) -> None:
        adam = self._latent_adam
        for part in self._grids:
            moved = grads[part] * self._slope[part]
            own = replace(adam, first=adam.first[part], second=adam.second[part])
            own.epsilon = self.damping * math.sqrt(float(np.dot(moved, moved)) / len(moved)) + 1e-12
            fit_train.adam(own, rate, grads[part], self._slope[part], self.latents[part])
        adam.steps += 1
        np.clip(self.latents, -networks.LIMIT, networks.LIMIT, out=self.latents)

    def _move_params(self, grads: Array, phase: Phase) -> None:
        self._soap.step(self.step, phase.network_rate, grads, self._scaled)
        vectors = self._scaled[self._vectors]
        slope = np.ones_like(vectors)
        fit_train.adam(self._vector_adam, phase.vector_rate, grads[self._vectors], slope, vectors)
        self._scaled[self._vectors] = vectors

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
            self._latent_adam.steps = self._vector_adam.steps = self.step
        except (OSError, KeyError, EOFError, zipfile.BadZipFile) as error:
            raise ValueError(f"{path} is not a checkpoint of image/fit: {error}") from None

    def _arrays(self) -> dict[str, NDArray[Any]]:
        return {
            "latents": self.latents,
            "scaled": self._scaled,
            "latent_first": self._latent_adam.first,
            "latent_second": self._latent_adam.second,
            "vector_first": self._vector_adam.first,
            "vector_second": self._vector_adam.second,
            **self._soap.arrays(),
        }


def _moments(count: int) -> fit_train.Adam:
    first, second = np.zeros((2, count), np.float32)
    return fit_train.Adam(first, second, beta2=0.99)


def rates_of(preset: Preset, colours: int, prior: Prior | None) -> Array:
    """How fast each parameter learns, relative to the recipe's rates.

    The nearer to its start a prior expects the context model, the slower that learns.
    """
    layout = networks.layout(preset, colours)
    rates = np.ones(networks.count(preset, colours), np.float32)
    for name, rate in _RATES.items():
        rates[layout[name].start : layout[name].stop] = rate
    if prior is not None:
        context = slice(0, layout["context.b3"].stop)
        expected = 2.0 ** ((float(np.median(prior.scale[context])) - 60) / 3)
        rates[context] *= min(1.0, _RATE_OF_SCALE * expected)
    return rates
