"""The definitions of what `fit_train` does to latents between iterations, in NumPy.

The iteration itself is defined by `codecs/image/fit_networks.py`, which torch differentiates.
"""

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float32]


def soften(
    latents: Array, temperature: float, noise: float, seed: int, values: Array, slope: Array
) -> None:
    """See `fit_train.soften`."""
    if temperature == 0:
        values[:], slope[:] = np.rint(latents), 1
        return
    once, first = _soft_round(latents, temperature)
    moved = once + np.float32(noise) * _noise(len(latents), seed)
    values[:], second = _soft_round(moved, temperature)
    slope[:] = first * second


def _soft_round(x: Array, temperature: float) -> tuple[Array, Array]:
    """floor(x) + 1/2 + tanh(r / T) / (2 tanh(1 / (2T))) with r = x - floor(x) - 1/2; its slope."""
    below = np.floor(x)
    inverse = np.float32(1 / temperature)
    tanh = np.tanh((x - below - np.float32(0.5)) * inverse)
    scale = np.float32(0.5 / np.tanh(0.5 / temperature))
    return below + np.float32(0.5) + scale * tanh, scale * inverse * (1 - tanh * tanh)


def _noise(count: int, seed: int) -> Array:
    """About normal, of unit variance: the sum of four uniform bytes of a hash of the index."""
    h = np.arange(count, dtype=np.uint32) * np.uint32(0x9E3779B1) + np.uint32(seed & 0xFFFFFFFF)
    h = (h ^ (h >> np.uint32(16))) * np.uint32(0x21F0AAAD)
    h = (h ^ (h >> np.uint32(15))) * np.uint32(0x735A2D97)
    h ^= h >> np.uint32(15)
    total = h.view(np.uint8).reshape(-1, 4).sum(1, dtype=np.int32)
    noise: Array = (total.astype(np.float32) - 510) * np.float32(6.7658e-3)
    return noise


def adam(
    settings: tuple[float, ...],
    grads: Array,
    slope: Array,
    latents: Array,
    first: Array,
    second: Array,
) -> None:
    """See `fit_train.adam`; settings are rate, beta1, beta2, epsilon and the two corrections."""
    rate, beta1, beta2, epsilon, correct1, correct2 = (np.float32(v) for v in settings)
    g = grads * slope
    first += (g - first) * (1 - beta1)
    second += (g * g - second) * (1 - beta2)
    latents -= rate * correct1 * first / (np.sqrt(second * correct2) + epsilon)
