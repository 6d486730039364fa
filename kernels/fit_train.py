"""One iteration of fitting a picture: rate, distortion and their gradients, in one compiled call.

What is computed is `codecs/image/fit_networks.py`, or `codecs/video/fit_networks.py` for frames of
a video, which torch differentiates; these kernels have the same gradients by hand, about ten times
faster on a CPU, to float32's accuracy (sums are in another order, which depends on the instruction
set and the number of threads). The one difference: a table row outside its range has a gradient
where that moves it back inside.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from . import fit_train_ref, rans
from .extension import compiled

__all__ = [
    "Adam", "Frame", "FrameTrainer", "Net", "Objective", "Step", "Trainer", "adam", "available",
    "frame_of", "soften",
]  # fmt: skip

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
    """Sizes.

    Attributes:
        taps: causal ones of the context model; 0: grids are coded in passes (`fit_passes_ref`).
        hidden: width of the context model.
        width: of the synthesis.
        colours: 1 or 3.
        temporal: taps of the context model in another frame's grid, 0 or 5.
        extra: planes of a prediction that the synthesis takes, 0 or `colours`.
        first: the finest grid that is not all zeros; those before it are not among the latents.
        half: whether the second and third colour are means of 2 x 2 pixels (4:2:0).
    """

    taps: int
    hidden: int
    width: int
    colours: int
    temporal: int = 0
    extra: int = 0
    first: int = 0
    half: bool = False


class Objective(NamedTuple):
    """The sum bits / pixels + weight * mse, and what rows of the table and latents mean.

    Attributes:
        weight: of the mean squared error of values in 0..1: lmbda * 255^2. With 4:2:0 that is
            (6 Y + U + V) / 8 of the planes' errors.
        b_min: Laplace scale of row 0.
        step: natural logarithm of the ratio of scales of neighbouring rows.
        rows: of the table.
        unit: of the latents as the synthesis takes them.
        prediction_unit: of a prediction, the same.
    """

    weight: float
    b_min: float
    step: float
    rows: float
    unit: float
    prediction_unit: float = 0.0


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
        self._grads = _gradients(net, height, width, params)

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
        about = self._picture, _NO_PREDICTION, _NO_LATENTS
        bits, mse = compiled().fit_train_step(
            self._memory, tuple(objective), about, latents, params, *self._grads, self._isa
        )
        return Step(bits, mse, *self._grads)


class Frame(NamedTuple):
    """A frame of a video as `FrameTrainer` takes it, of `frame_of`.

    Attributes:
        height: of the first plane, even with 4:2:0.
        width: the same.
        picture: float32, planes behind one another, 0..1.
        prediction: int16, the same in 14 bits; empty where there is none.
    """

    height: int
    width: int
    picture: Array
    prediction: NDArray[np.int16]


def frame_of(
    planes: Sequence[NDArray[Any]], bits: int, prediction: Sequence[NDArray[np.int16]] = ()
) -> Frame:
    """Prepare a frame.

    Args:
        planes: grey [H, W], or Y [H, W], U and V [ceil(H / 2), ceil(W / 2)]. Odd sizes become even
            by another row or column like the last.
        bits: of the samples.
        prediction: planes like these in 14 bits, or none.
    """
    whole = _even(planes)
    picture = np.concatenate([p.reshape(-1) for p in whole]).astype(np.float32)
    picture /= np.float32((1 << bits) - 1)
    ahead = [p.reshape(-1) for p in _even(prediction)]
    rows, columns = whole[0].shape
    return Frame(rows, columns, picture, np.concatenate([_NO_PREDICTION, *ahead]))


def _even(planes: Sequence[NDArray[Any]]) -> list[NDArray[Any]]:
    if len(planes) < 3:
        return list(planes)
    rows, columns = planes[0].shape
    return [np.pad(planes[0], ((0, rows % 2), (0, columns % 2)), "edge"), *planes[1:]]


class FrameTrainer:
    """Memory for frames of a size and their networks, and the iterations over them.

    Not for several threads of the caller at once; `threads` are its own.
    """

    def __init__(
        self, net: Net, height: int, width: int, params: int, *,
        threads: int = 1, backend: str | None = None,
    ):  # fmt: skip
        """Prepare for frames of the size of `Frame`s, and so many parameters."""
        self._isa = _isa(backend)
        self._memory = compiled().fit_train_prepare(*net, height, width, threads)
        self._grads = _gradients(net, height, width, params)

    def step(
        self, frame: Frame, latents: Array, params: Array, objective: Objective,
        reference: Array | None = None,
    ) -> Step:  # fmt: skip
        """Rate and distortion of a frame's latents under networks.

        Args:
            frame: with a prediction where the network takes one.
            latents: float32, grids `first` to 6 behind one another.
            params: float32, in the order of `codecs.video.fit_networks.layout`.
            objective: what the gradients are of.
            reference: latents of another frame, for the temporal taps; None = zeros. The gradients
                are not those of the reference.

        Raises:
            ValueError: an array has not the size or type that was prepared for.
        """
        other = _NO_LATENTS if reference is None else reference
        _check_floats(latents=latents, params=params, reference=other)
        about = frame.picture, frame.prediction, other
        bits, mse = compiled().fit_train_step(
            self._memory, tuple(objective), about, latents, params, *self._grads, self._isa
        )
        return Step(bits, mse, *self._grads)


_NO_PREDICTION = np.zeros(0, np.int16)
_NO_LATENTS = np.zeros(0, np.float32)


def _gradients(net: Net, height: int, width: int, params: int) -> tuple[Array, Array]:
    latents = sum(-(-height >> k) * -(-width >> k) for k in range(net.first, 7))
    return np.zeros(latents, np.float32), np.zeros(params, np.float32)


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
