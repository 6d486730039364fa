"""The prior of `image/fit`: where networks are expected, and how far from there they are found.

A prior file is a weights file (`weight_files.py`) of these tensors; R is the number of rates:

    lmbda      float32 [R]              ascending: the trade-off that a rate was learned at
    N.C.mean   float16 [R, parameters]  of preset N with C colours, as `fit_networks.layout`
    N.C.scale  uint8 [R, parameters]    scale 2**((v - 60) / 3) of a Laplace distribution around it
    N.C.q      uint8 [R, slices]        the usual step of a slice, 2**-q

A stream names its prior by the file's digest. Priors that were shipped once stay, under any name
image-fit*.lpkw.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
import torch

from ...entropy.tables import TableSet
from ...kernels.fit_ref import LIMIT
from .. import weight_files
from . import fit_networks as networks

WEIGHTS = Path(__file__).parents[1] / "weights"
SHIPPED = WEIGHTS / "image-fit.lpkw"
_CODEC = "image/fit"

Integers = npt.NDArray[np.int64]


@functools.cache
def tables() -> TableSet:
    """The tables of everything that is coded (`entropy.models.laplace`)."""
    return TableSet.from_bytes((WEIGHTS / "image-fit-tables.bin").read_bytes())


def bits_of(symbols: Any, rows: Any) -> float:
    """As `TableSet.cost_bits` in less time; symbols beyond +-2 LIMIT cost as if there."""
    column = np.clip(symbols, -2 * LIMIT, 2 * LIMIT).astype(np.int64) + 2 * LIMIT
    return float(_costs()[rows, column].sum(dtype=np.float64))


@functools.cache
def _costs() -> npt.NDArray[np.float32]:
    """Bits of the symbols -2 LIMIT .. 2 LIMIT in each row."""
    symbols = np.arange(-2 * LIMIT, 2 * LIMIT + 1, dtype=np.int64)
    return np.stack([_row_costs(symbols, r) for r in range(len(tables()))])


def _row_costs(symbols: Integers, r: int) -> npt.NDArray[np.float32]:
    t = tables()
    low, values = int(t.offsets[r]), int(t.lengths[r]) - 1
    bits = t.precision - np.log2(t.row(r).astype(np.float64))
    entry = symbols - low
    inside = (entry >= 0) & (entry < values)
    e = np.where(entry >= values, 2 * (entry - values), -2 * entry - 1)
    escape = bits[-1] + 4 + np.maximum(np.frexp(e.astype(np.float64))[1], 1)
    return np.where(inside, bits[entry.clip(0, values - 1)], escape).astype(np.float32)


def unit_of(name: str) -> int:
    """-log2 of what parameters of a slice are counted in; no step is finer."""
    return 12 if name.startswith("context") else 16


def most_of(name: str) -> int:
    """The largest absolute value of a slice's parameters, in its unit."""
    weight = name in ("context.w1", "context.w2", "context.w3", "context.skip")
    return 32767 if weight else 1 << 23


@dataclass(frozen=True)
class Prior:
    """A prior at one rate.

    Attributes:
        preset: name of the preset.
        colours: 1 or 3.
        rate: its number in the file.
        lmbda: the trade-off that it was learned at.
        mean: float32 [parameters].
        scale: int64 [parameters], thirds of octaves, as in the file.
        q: int64 [slices].
    """

    preset: str
    colours: int
    rate: int
    lmbda: float
    mean: npt.NDArray[np.float32]
    scale: Integers
    q: Integers

    @property
    def slices(self) -> dict[str, networks.Slice]:
        """Of the parameters."""
        return networks.layout(networks.PRESETS[self.preset], self.colours)

    def means(self, name: str) -> Integers:
        """The means of a slice in its unit, halves up."""
        at = self.slices[name]
        scaled = np.ldexp(self.mean[at.start : at.stop].astype(np.float64), unit_of(name))
        most = most_of(name)
        rounded: Integers = np.floor(scaled + 0.5).clip(-most, most).astype(np.int64)
        return rounded


class PriorFile:
    """Priors of several presets and rates."""

    codec = _CODEC

    def __init__(self, path: Path) -> None:
        """Read a file.

        Raises:
            ValueError: it is not one of priors.
        """
        weights = weight_files.read(path, self.codec)
        self.path, self.digest = path, weights.digest
        self._tensors = weights.tensors
        if "lmbda" not in self._tensors or not all(v > 0 for v in self._tensors["lmbda"].tolist()):
            raise ValueError(f"{path} holds no priors: its rates are missing or not above 0")
        self.lmbdas: list[float] = self._tensors["lmbda"].tolist()

    def nearest(self, preset: str, colours: int, lmbda: float) -> Prior:
        """The prior of the rate that is nearest to a trade-off."""
        return self.at(preset, colours, self.nearest_rate(lmbda))

    def nearest_rate(self, lmbda: float) -> int:
        """The number of the rate that is nearest to a trade-off."""
        gaps = [abs(math.log(known / lmbda)) for known in self.lmbdas]
        return gaps.index(min(gaps))

    def __contains__(self, key: tuple[str, int, int]) -> bool:
        """Whether it has a prior of (preset, colours, rate)."""
        preset, colours, rate = key
        return self._has(f"{preset}.{colours}", rate)

    def _has(self, key: str, rate: int) -> bool:
        return f"{key}.mean" in self._tensors and 0 <= rate < len(self.lmbdas)

    def at(self, preset: str, colours: int, rate: int) -> Prior:
        """The prior of a rate.

        Raises:
            ValueError: the file has no such prior.
        """
        found = self._stored(f"{preset}.{colours}", rate)
        prior = Prior(preset, colours, rate, self.lmbdas[rate], *found)
        self._check(prior)
        return prior

    def _stored(self, key: str, rate: int) -> tuple[npt.NDArray[np.float32], Integers, Integers]:
        """Mean, scale and q of a prior of a rate."""
        if not self._has(key, rate):
            preset, *rest = key.split(".")
            raise ValueError(
                f"{self.path.name} has no prior {rate} of preset {preset!r} with {rest[-1]} colours"
            )
        mean, scale, q = (self._tensors[f"{key}.{n}"][rate].numpy() for n in ("mean", "scale", "q"))
        return mean.astype(np.float32), scale.astype(np.int64), q.astype(np.int64)

    def _check(self, prior: Prior) -> None:
        count = sum(piece.size for piece in prior.slices.values())
        if len(prior.mean) != count:
            raise ValueError(
                f"{self.path.name} has a prior of {len(prior.mean)} parameters, expected {count}"
            )


@functools.lru_cache(maxsize=4)
def load(path: Path = SHIPPED) -> PriorFile:
    """A prior file, read once."""
    return PriorFile(path)


def find(digest: bytes, path: Path) -> PriorFile:
    """The prior file of a stream: the one that is given, or else one of those that ship.

    Raises:
        ValueError: it is none of them.
    """
    return of_digest(digest, path, "image-fit*.lpkw", load)


File = TypeVar("File", bound=PriorFile)


def of_digest(digest: bytes, path: Path, shipped: str, load: Callable[[Path], File]) -> File:
    """The same for a codec whose files that ship have such names."""
    its, paths = load(path).digest, sorted(WEIGHTS.glob(shipped))
    return load(weight_files.file_of(digest, path, its, paths))


def save(
    path: Path,
    lmbdas: list[float],
    priors: dict[str, dict[str, Any]],
    training: dict[str, Any] | None = None,
    codec: str = _CODEC,
) -> bytes:
    """Write a prior file, in the place of an older one; returns its digest.

    Args:
        path: where to.
        lmbdas: of the rates, ascending.
        priors: "preset.colours" -> "mean", "scale" and "q", as they stand in the file.
        training: how they were learned, for people.
        codec: whose they are.
    """
    tensors = {"lmbda": torch.tensor(lmbdas, dtype=torch.float32)}
    kinds = {"mean": torch.float16, "scale": torch.uint8, "q": torch.uint8}
    for key, parts in priors.items():
        for name, kind in kinds.items():
            tensors[f"{key}.{name}"] = torch.as_tensor(parts[name]).to(kind).contiguous()
    return weight_files.write(path, codec, tensors, {}, training, force=True)
