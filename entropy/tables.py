"""Frozen integer tables: the only place where a probability becomes an integer.

A TableSet is made once, when a model is frozen, and travels with the weights: it is never
rebuilt at load, because floating point gives other integers on another machine. Its digest
names it in every file.
"""

import math
import struct
from collections.abc import Sequence
from typing import Self

import numpy as np
import numpy.typing as npt
import xxhash

from ..kernels import rans_ref
from ..kernels.errors import BitstreamError

_HEAD = struct.Struct("<BH")
_COUNT_SCALE = 2.0**30


class TableSet(rans_ref.Tables):
    """Tables with ways to make, keep and price them. See `kernels.rans_ref.Tables`.

    Bytes: precision u8, rows u16, then per row offset i16 and length u16, then the packed
    frequencies u16; all little-endian.
    """

    @classmethod
    def from_pmfs(
        cls,
        pmfs: Sequence[npt.NDArray[np.float64]],
        offsets: Sequence[int],
        precision: int = 12,
    ) -> Self:
        """Freeze probabilities.

        Args:
            pmfs: per row, the probabilities of offset, offset + 1, ..., and last that of all
                other values (the escape). They need not add to one. An empty row is not coded.
            offsets: the value of each row's first entry.
            precision: bits of a probability, 1 to 16.

        Raises:
            ValueError: a probability is negative or not finite, or a row is too long.
        """
        rows = [_freeze(np.asarray(pmf, np.float64), precision) for pmf in pmfs]
        freqs = np.concatenate([np.zeros(0, np.uint16), *rows])
        return cls(precision, np.array(offsets), np.array([len(row) for row in rows]), freqs)

    @classmethod
    def gaussian(
        cls,
        scales: npt.ArrayLike,
        precision: int = 12,
        tail_mass: float = 2.0**-12,
    ) -> Self:
        """Rows for round(y) with y ~ N(0, scale**2).

        Args:
            scales: standard deviations [T] in quantisation steps; 0 = not coded.
            precision: bits of a probability.
            tail_mass: at most this probability is left to the escape. At 12 bits, 2**-12 costs
                least: 0.15 % over the entropy at half a bit per symbol, 2**-8 costs 0.46 %.
        """
        pmfs: list[npt.NDArray[np.float64]] = []
        for scale in np.asarray(scales, np.float64).tolist():
            if not (scale >= 0 and math.isfinite(scale)):
                raise ValueError(f"scale is {scale}, expected a finite number >= 0")
            pmfs.append(_gaussian_pmf(scale, tail_mass) if scale else np.zeros(0))
        return cls.from_pmfs(pmfs, [-(len(p) // 2 - 1) if len(p) else 0 for p in pmfs], precision)

    @classmethod
    def binary(cls, ones: npt.ArrayLike, precision: int = 16) -> Self:
        """Rows for bits.

        Args:
            ones: the probability of 1 in each row [T].
            precision: bits of a probability. The escape, which no bit needs, takes one part.

        Raises:
            ValueError: a probability is not in [0, 1].
        """
        p = np.asarray(ones, np.float64)
        if not np.all((p >= 0) & (p <= 1)):
            raise ValueError("a probability of 1 is not in [0, 1]")
        total = (1 << precision) - 1
        count = np.clip(np.rint(p * total), 1, total - 1).astype(np.int64)
        freqs = np.stack((total - count, count, np.ones_like(count)), 1)
        zeros, lengths = np.zeros(len(p), np.int64), np.full(len(p), 3)
        return cls(precision, zeros, lengths, freqs.reshape(-1))

    @classmethod
    def concatenate(cls, sets: "Sequence[TableSet]") -> Self:
        """One set with the rows of all, in order; they must share the precision."""
        precisions = {s.precision for s in sets}
        if len(precisions) != 1:
            raise ValueError(f"sets of precisions {sorted(precisions)}, expected one precision")
        fields = ("offsets", "lengths", "freqs")
        return cls(
            precisions.pop(), *(np.concatenate([getattr(s, f) for s in sets]) for f in fields)
        )

    def to_bytes(self) -> bytes:
        """The set as bytes, the same for the same tables on every machine."""
        rows = np.empty(len(self), np.dtype([("offset", "<i2"), ("length", "<u2")]))
        rows["offset"], rows["length"] = self.offsets, self.lengths
        head = _HEAD.pack(self.precision, len(self))
        return head + rows.tobytes() + self.freqs.astype("<u2").tobytes()

    @classmethod
    def from_bytes(cls, data: bytes) -> Self:
        """The inverse of `to_bytes`; BitstreamError for anything else."""
        try:
            precision, count = _HEAD.unpack_from(data)
            rows = np.frombuffer(data, np.dtype("<i2, <u2"), count, _HEAD.size)
            freqs = np.frombuffer(data, "<u2", -1, _HEAD.size + rows.nbytes)
            return cls(precision, rows["f0"], rows["f1"], freqs)
        except (ValueError, struct.error) as error:
            raise BitstreamError(f"these {len(data)} bytes are not a table set: {error}") from None

    @property
    def digest(self) -> bytes:
        """8 bytes that name the set: XXH3-64 of `to_bytes`, little-endian."""
        return xxhash.xxh3_64_intdigest(self.to_bytes()).to_bytes(8, "little")

    def cost_bits(self, symbols: npt.NDArray[np.int16], index: npt.NDArray[np.uint8]) -> float:
        """The exact cost of symbols in these tables, without the lanes' states (32 bits each)."""
        symbols = np.asarray(symbols).reshape(-1).astype(np.int64)
        index = np.asarray(index).reshape(-1)
        if index.size and int(index.max()) >= len(self):
            raise ValueError(f"index {index.max()} is outside the {len(self)} rows of the tables")
        coded = self.lengths[index] > 0
        symbols, index = symbols[coded], index[coded]
        lo, values = self.offsets[index].astype(np.int64), self.lengths[index] - 1
        entry = symbols - lo
        escaped = (entry < 0) | (entry >= values)
        entry = np.where(escaped, values, entry)
        bits = self.precision - np.log2(self.freqs[self.starts[index] + entry].astype(np.float64))
        above = symbols - lo - values
        e = np.where(above >= 0, 2 * above, 2 * (lo - 1 - symbols) + 1)[escaped]
        length = np.frexp(e.astype(np.float64))[1]
        return float(bits.sum() + (5 + np.maximum(length - 1, 0)).sum())


def default_gaussian_scales() -> npt.NDArray[np.float64]:
    """64 standard deviations, log-spaced from 0.11 to 32."""
    return np.geomspace(0.11, 32.0, 64)


def _freeze(pmf: npt.NDArray[np.float64], precision: int) -> npt.NDArray[np.uint16]:
    if len(pmf) == 0:
        return np.zeros(0, np.uint16)
    total = pmf.sum()
    if not (np.all(pmf >= 0) and np.isfinite(total) and total > 0):
        raise ValueError("a pmf has a negative or non-finite entry, or adds to zero")
    # Every value must stay codable, however improbable: counts are at least one.
    counts = np.maximum(1, np.rint(pmf / total * _COUNT_SCALE)).astype(np.int64)
    return rans_ref.normalise(counts, precision)


def _gaussian_pmf(scale: float, tail_mass: float) -> npt.NDArray[np.float64]:
    """P(round(y) = -half .. half), then the rest."""

    def tail(k: float) -> float:  # P(|y| > k)
        return math.erfc(k / (scale * math.sqrt(2)))

    half = 0
    while tail(half + 0.5) > tail_mass:
        half += 1
    right = [(tail(k - 0.5) - tail(k + 0.5)) / 2 for k in range(1, half + 1)]
    return np.array([*right[::-1], 1 - tail(0.5), *right, tail(half + 0.5)])
