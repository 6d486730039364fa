"""SOAP for a handful of small matrices: Adam in the eigenbasis of the gradients' covariances.

Vyas et al. 2024, arXiv:2409.11321, algorithm 3, in NumPy: the matrices of `image/fit` have at most
64 rows, and an iteration of everything else takes a hundred times longer.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float32]
_BETA1, _BETA2 = 0.95, 0.95  # of the moments; the second also of the covariances
_EVERY = 10  # steps between new bases
_EPSILON = 1e-10


class _Matrix:
    """One matrix's moments, covariances and bases (L, R: of rows and columns)."""

    def __init__(self, rows: int, columns: int):
        self.arrays = {
            "left": np.zeros((rows, rows)),
            "right": np.zeros((columns, columns)),
            "left_basis": np.eye(rows),
            "right_basis": np.eye(columns),
            "first": np.zeros((rows, columns)),
            "second": np.zeros((rows, columns)),
        }

    def direction(self, g: NDArray[np.float64], step: int) -> NDArray[np.float64]:
        """Where gradient number `step`, counted from 1, moves the matrix, of unit size."""
        a = self.arrays
        a["left"] += (1 - _BETA2) * (g @ g.T - a["left"])
        a["right"] += (1 - _BETA2) * (g.T @ g - a["right"])
        if step == 1 or step % _EVERY == 0:
            a["left_basis"] = np.linalg.eigh(a["left"])[1]
            a["right_basis"] = np.linalg.eigh(a["right"])[1]
        left, right = a["left_basis"], a["right_basis"]
        rotated = left.T @ g @ right
        a["first"] += (1 - _BETA1) * (g - a["first"])
        a["second"] += (1 - _BETA2) * (rotated * rotated - a["second"])
        first = left.T @ a["first"] @ right / (1 - _BETA1**step)
        second = a["second"] / (1 - _BETA2**step)
        moved: NDArray[np.float64] = left @ (first / (np.sqrt(second) + _EPSILON)) @ right.T
        return moved


class Soap:
    """Moves those parts of a vector that are matrices."""

    def __init__(self, parts: list[tuple[slice, tuple[int, ...]]]):
        """Take slices with their shapes; what has more than two dimensions is rows of the first."""
        self._parts = [(part, _Matrix(s[0], math.prod(s[1:]))) for part, s in parts]

    def step(self, number: int, rate: float, grads: Array, params: Array) -> None:
        """Move `params` in place; `number` counts from 1."""
        for part, matrix in self._parts:
            g = grads[part].astype(np.float64).reshape(matrix.arrays["first"].shape)
            params[part] -= (rate * matrix.direction(g, number)).reshape(-1).astype(np.float32)

    def arrays(self) -> dict[str, NDArray[np.float64]]:
        """All that has to be kept to go on exactly, by name."""
        return {
            f"soap{i}.{name}": array
            for i, (_, matrix) in enumerate(self._parts)
            for name, array in matrix.arrays.items()
        }
