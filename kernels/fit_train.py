"""One iteration of fitting a picture: rate, distortion and their gradients, in one compiled call.

What is computed is `codecs/image/fit_networks.py`, which torch differentiates; these kernels have
the same gradients by hand, about ten times faster on a CPU, to float32's accuracy (sums are in
another order, which depends on the instruction set and the number of threads). The one difference:
a table row outside its range has a gradient where that moves it back inside.
"""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from . import fit_train_ref, rans
from .extension import compiled

__all__ = ["Adam", "Net", "Objective", "Step", "Trainer", "adam", "available", "soften"]

Array = NDArray[np.float32]


def available() -> bool:
    """Whether the compiled extension is there."""
    return len(rans.backends()) > 1


def _reference(backend: str | None) -> bool:
    return backend == "ref" or (backend is None and not available())


def _isa(backend: str | None) -> int:
    known = [name for name in rans.backends() if name in rans.ISAS]
    if backend is not None and backend not in known:
        raise ValueError(f"backend is {backend!r}, this machine has {', '.join(known) or 'none'}")
    return rans.ISAS.index(backend or known[-1])


class Net(NamedTuple):
    """Sizes: causal taps, width of the context model, width of the synthesis, colours (1 or 3)."""

    taps: int
    hidden: int
    width: int
    colours: int


class Objective(NamedTuple):
    """The sum bits / pixels + weight * mse, and what rows of the table and latents mean.

    Attributes:
        weight: of the mean squared error of values in 0..1: lmbda * 255^2.
        b_min: Laplace scale of row 0.
        step: natural logarithm of the ratio of scales of neighbouring rows.
        rows: of the table.
        unit: of the latents as the synthesis takes them.
    """

    weight: float
    b_min: float
    step: float
    rows: float
    unit: float


class Step(NamedTuple):
    """What an iteration gives; the gradients are overwritten by the next one."""

    bits: float
    mse: float
    latent_grads: Array
    param_grads: Array


class Trainer:
    """Memory for a picture and its networks, and the iterations over them.

    Not for several threads of the caller at once; `threads` are its own.
    """

    def __init__(
        self, net: Net, picture: Array, params: int, *, threads: int = 1, backend: str | None = None
    ):
        """Prepare for float32 `picture` [colours, H, W], 0..1, and so many parameters."""
        if picture.dtype != np.float32 or picture.ndim != 3 or picture.shape[0] != net.colours:
            raise ValueError(
                f"picture is {picture.dtype} {picture.shape}, "
                f"expected float32 [{net.colours}, H, W]"
            )
        self._isa = _isa(backend)
        self._picture = np.ascontiguousarray(picture)
        height, width = picture.shape[1:]
        self._memory = compiled().fit_train_prepare(*net, height, width, threads)
        latents = sum(-(-height >> k) * -(-width >> k) for k in range(7))
        self._latent_grads = np.zeros(latents, np.float32)
        self._param_grads = np.zeros(params, np.float32)

    def step(self, latents: Array, params: Array, objective: Objective) -> Step:
        """Rate and distortion of latents under networks.

        Args:
            latents: float32, all grids behind one another, finest first.
            params: float32, in the order of `fit_networks.layout`.
            objective: what the gradients are of.

        Raises:
            ValueError: an array has not the size or type that was prepared for.
        """
        _check_floats(latents=latents, params=params)
        bits, mse = compiled().fit_train_step(
            self._memory,
            tuple(objective),
            self._picture,
            latents,
            params,
            self._latent_grads,
            self._param_grads,
            self._isa,
        )
        return Step(bits, mse, self._latent_grads, self._param_grads)


def soften(
    latents: Array,
    temperature: float,
    noise: float,
    seed: int,
    values: Array,
    slope: Array,
    *,
    backend: str | None = None,
) -> None:
    """Stand-ins for rounded latents: soft-rounded, moved by noise, soft-rounded again.

    Agustsson and Theis (2020, arXiv:2006.09952); the noise is about normal, made from `seed` and
    the index. Fills `values`, and `slope` with their derivatives by the latents. Temperature 0
    rounds, with slopes of 1 (straight through).
    """
    _check_floats(latents=latents, values=values, slope=slope)
    if _reference(backend):
        fit_train_ref.soften(latents, temperature, noise, seed, values, slope)
    else:
        compiled().fit_train_soften(
            latents, temperature, noise, seed & 0xFFFFFFFF, values, slope, _isa(backend)
        )


@dataclass
class Adam:
    """Moments of Adam (Kingma and Ba 2015, arXiv:1412.6980) for one vector."""

    first: Array
    second: Array
    steps: int = 0
    beta1: float = 0.9
    beta2: float = 0.999
    epsilon: float = 1e-8


def adam(
    state: Adam,
    rate: float,
    grads: Array,
    slope: Array,
    latents: Array,
    *,
    backend: str | None = None,
) -> None:
    """One step of Adam on `latents`, in place; the gradient is grads * slope."""
    _check_floats(grads=grads, slope=slope, latents=latents)
    state.steps += 1
    settings = (
        rate,
        state.beta1,
        state.beta2,
        state.epsilon,
        1 / (1 - state.beta1**state.steps),
        1 / (1 - state.beta2**state.steps),
    )
    if _reference(backend):
        fit_train_ref.adam(settings, grads, slope, latents, state.first, state.second)
    else:
        compiled().fit_train_adam(
            settings, grads, slope, latents, state.first, state.second, _isa(backend)
        )


def _check_floats(**arrays: Array) -> None:
    for name, array in arrays.items():
        if array.dtype != np.float32 or array.ndim != 1 or not array.flags.c_contiguous:
            raise ValueError(
                f"{name} is {array.dtype} {array.shape}, expected float32 [n], contiguous"
            )
