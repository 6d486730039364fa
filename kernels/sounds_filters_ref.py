"""Filters that learn: least squares over the latest samples, and gradient descent over many."""

from typing import Any

import numpy as np
import numpy.typing as npt

from .pixels_numbers_ref import F, between

Doubles = npt.NDArray[np.float64]
GRADIENT_LIMIT = 1 << 33


def double_between(v: Any, low: float, high: float) -> float:
    """Clip; `low` for NaN."""
    v = float(v) if v > low else float(low)
    return v if v < high else float(high)


def blocks(v: Any, size: int, lanes: int) -> Any:
    """Sum products: block i of `size` numbers is added to sum i % lanes, then those pairwise."""
    sums = np.zeros((lanes, size), v.dtype)
    for i, block in enumerate(v.reshape(-1, size)):
        sums[i % lanes] = sums[i % lanes] + block
    while len(sums) > 1:
        sums = sums[0::2] + sums[1::2]
    v = sums[0]
    while len(v) > 1:
        v = v[: len(v) // 2] + v[len(v) // 2 :]
    return v[0]


class LeastSquares:
    """Weights that minimise the squared errors of the past, older ones weighing less."""

    def __init__(self, taps: int, every: int, first: int, keep: float) -> None:
        """Solve after `first` samples, then after every `every`; a sample weighs keep ** age."""
        self.every, self.left, self.keep, self.add = every, first, keep, 1.0 - keep
        self.sums, self.right = np.zeros((taps, taps)), np.zeros(taps)
        self.weights = np.zeros(taps)

    def predict(self, taps: Doubles) -> float:
        """The value that the weights expect."""
        return float(blocks(self.weights * taps, 8, 2))

    def learn(self, taps: Doubles, value: float) -> None:
        """These taps were followed by this value."""
        by = taps * self.add
        self.sums = self.sums * self.keep + taps[None, :] * by[:, None]
        self.right = self.right * self.keep + taps * (value * self.add)
        self.left -= 1
        if self.left == 0:
            self.left = self.every
            self._solve()

    def _solve(self) -> None:
        """By elimination (L D L') without pivoting; only what is above the diagonal counts."""
        rest, z = self.sums.copy(), self.right.copy()
        count = len(z)
        rest[np.diag_indices(count)] += 1.0
        factors, over = np.zeros_like(rest), np.zeros(count)
        with np.errstate(all="ignore"):
            for k in range(count):
                pivot = rest[k, k]
                over[k] = 1.0 / (pivot if pivot > 1e-9 else 1e-9)
                factor = rest[k, k + 1 :] * over[k]
                factors[k + 1 :, k] = factor
                rest[k + 1 :, k + 1 :] -= rest[k, k + 1 :][None, :] * factor[:, None]
                z[k + 1 :] -= factor * z[k]
            z = z * over
            for k in range(count - 1, 0, -1):
                z[:k] -= factors[k, :k] * z[k]
        self.weights = z


class Gradient:
    """A long filter that follows the gradient, by the power of what it sees (NLMS).

    Attributes:
        predicted: the value that it expects next.
    """

    def __init__(self, length: int, rate: float) -> None:
        """Length is 16, 32 or a multiple of 64."""
        self.rate = F(rate)
        self.weights = np.zeros(length, np.float32)
        self.history = np.zeros(length, np.float32)  # the newest first
        self.power, self.predicted = 0.0, F(0)

    def learn(self, error: np.float32, value: np.float32) -> None:
        """The prediction was wrong by `error`, and `value` comes next in the history."""
        by = self.rate * error / (F(self.power) + F(len(self.weights)))
        self.weights = self.weights + self.history * by
        new, old = float(value), float(self.history[-1])
        power = self.power + (new * new - old * old)
        self.power = power if power > 0.0 else 0.0
        self.history = np.concatenate([np.array([value], np.float32), self.history[:-1]])
        dot = blocks(self.weights * self.history, 16, 4)
        self.predicted = F(between(dot, -GRADIENT_LIMIT, GRADIENT_LIMIT))
