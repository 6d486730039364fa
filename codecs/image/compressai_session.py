"""Frozen tables of a CompressAI model, and the sessions that code its symbols with them.

A model's tables are taken as they came: each row of `_quantized_cdf` is a row of ours, its last
entry the escape. Symbols of all its entropy models go into one stream, in the order in which the
model meets them; models with more than 256 rows have a stream for each 256.

Which scale of a model's table is taken for a scale that the network gives is the encoder's choice,
once for a picture: the nearest, or one to its side, in half steps of the table, whatever takes the
fewest bits. CompressAI takes the next larger one.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import xxhash
from torch import Tensor

from ...entropy.coder import Decoder, Encoder
from ...entropy.tables import TableSet
from ...kernels import rans
from ...kernels.errors import BitstreamError

_SET_ROWS = 256  # rows that a uint8 can name
_FEW = 1 << 16  # symbols: below this, more lanes than one cost more bytes than they save time
_SAMPLES = 1 << 14  # symbols by which a shift is chosen
_REACH = 24  # symbols beyond count as this
CHECK_BYTES = 4
SHIFTS = 16
_NEAREST = 4


class FrozenTables:
    """The rows of all entropy models, equal ones once.

    Attributes:
        sets: row r of all is row r % 256 of set r // 256.
    """

    def __init__(self, models: Sequence[Any]) -> None:
        """Take the tables of `compressai.entropy_models.EntropyModel`s after `update()`.

        Raises:
            ValueError: they are no tables.
        """
        self._first: dict[Any, int] = {}
        known: dict[bytes, int] = {}
        parts: list[TableSet] = []
        for model in models:
            part = _tables(model)
            name = b"".join(table.to_bytes() for table in part)
            if name not in known:
                known[name] = sum(len(table) for table in parts)
                parts += part
            self._first[model] = known[name]
        self.sets = _packed(parts)

    def first(self, model: Any) -> int:
        """The number among all rows of the first one of a model."""
        return self._first[model]

    def as_rows(self, numbers: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """Numbers of rows in the type that sessions take: uint8, or int16 with several sets."""
        return numbers.astype(np.uint8 if len(self.sets) == 1 else np.int16)


class Scales:
    """Scales of one Gaussian conditional as steps: half steps of its table, uint8.

    Step h is between two limits: scales of the table and their geometric means, in turn.
    """

    def __init__(self, model: Any, tables: FrozenTables) -> None:
        """Take a `GaussianConditional`.

        Raises:
            ValueError: its scales do not fit its tables.
        """
        scales = model.scale_table.double().numpy()
        if len(scales) != len(model.offset) or not 1 <= len(scales) <= 128:
            raise ValueError(f"{len(model.offset)} Gaussian tables for {len(scales)} scales")
        limits = np.empty(2 * len(scales) - 2)
        limits[::2], limits[1::2] = scales[:-1], np.sqrt(scales[:-1] * scales[1:])
        limits[limits < model.lower_bound_scale.bound.item()] = -np.inf
        self._limits = limits.astype(np.float32)
        self._first, self._tables = tables.first(model), tables
        bits = np.array([_bits(table, r) for table in _tables(model) for r in range(len(table))])
        by_shift = [bits[self._own_rows(shift)].ravel() for shift in range(SHIFTS)]
        self._bits = np.array(by_shift, np.float32)

    def steps(self, scales: Tensor) -> Tensor:
        """Steps of scales, float32 of any shape.

        Raises:
            ValueError: a scale is NaN.
        """
        try:
            return torch.from_numpy(rans.rows_of(scales.contiguous().numpy(), self._limits))
        except ValueError as error:
            raise ValueError(f"{error}; the weights or the picture are damaged") from error

    def rows(self, shift: int) -> npt.NDArray[Any]:
        """The row of each step."""
        return self._tables.as_rows(self._own_rows(shift) + self._first)

    def _own_rows(self, shift: int) -> npt.NDArray[np.int64]:
        steps = np.arange(len(self._limits) + 1)
        return np.clip((steps + shift - _NEAREST) >> 1, 0, len(self._limits) // 2)

    def costs(self, steps: npt.NDArray[Any], symbols: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """Bits of symbols with each shift [SHIFTS]; far ones are taken for nearer ones."""
        width = 2 * _REACH + 1
        column = np.clip(symbols, -_REACH, _REACH) + (steps.astype(np.int64) * width + _REACH)
        counts = np.bincount(column, minlength=(len(self._limits) + 1) * width)
        found: npt.NDArray[Any] = self._bits @ counts.astype(np.float32)
        return found


def _bits(table: TableSet, row: int) -> npt.NDArray[np.float64]:
    """Bits of the symbols -_REACH .. _REACH in a row."""
    bits = table.precision - np.log2(table.row(row).astype(np.float64))
    entries = np.arange(-_REACH, _REACH + 1) - int(table.offsets[row])
    escaped = (entries < 0) | (entries >= len(bits) - 1)
    raw = 5 + np.log2(1 + 2 * np.where(entries < 0, -entries, entries - len(bits) + 2).clip(0))
    entries = np.where(escaped, len(bits) - 1, entries)
    return np.where(escaped, bits[-1] + raw, bits[entries])


def _tables(model: Any) -> list[TableSet]:
    """The rows of one entropy model, in sets of 256."""
    cdf = model.quantized_cdf.numpy().astype(np.int64)
    ends = model.cdf_length.numpy().reshape(-1)
    offsets = model.offset.numpy().reshape(-1)
    if cdf.ndim != 2 or not len(cdf) == len(ends) == len(offsets) > 0:
        raise ValueError(f"the tables are {cdf.shape} with {len(ends)} lengths")
    if ends.min() < 3 or ends.max() > cdf.shape[1]:
        raise ValueError(f"rows of {ends.min()} to {ends.max()} entries in tables {cdf.shape}")
    precision = int(cdf[0, ends[0] - 1]).bit_length() - 1
    freqs = [np.diff(row[:end]) for row, end in zip(cdf, ends, strict=True)]
    return [
        TableSet(
            precision,
            offsets[at : at + _SET_ROWS],
            ends[at : at + _SET_ROWS] - 1,
            np.concatenate(freqs[at : at + _SET_ROWS]),
        )
        for at in range(0, len(cdf), _SET_ROWS)
    ]


def _packed(parts: list[TableSet]) -> list[TableSet]:
    """The same rows in sets that are full but for the last."""
    precisions = {part.precision for part in parts}
    if len(precisions) > 1:
        raise ValueError(f"tables of precisions {sorted(precisions)} in one model")
    offsets = np.concatenate([part.offsets for part in parts])
    lengths = np.concatenate([part.lengths for part in parts])
    freqs = np.concatenate([part.freqs for part in parts])
    starts = np.concatenate([[0], np.cumsum(lengths)])
    return [
        TableSet(
            parts[0].precision,
            offsets[at : at + _SET_ROWS],
            lengths[at : at + _SET_ROWS],
            freqs[starts[at] : starts[min(at + _SET_ROWS, len(offsets))]],
        )
        for at in range(0, len(offsets), _SET_ROWS)
    ]


class Session:
    """One picture on its way through a model: what encoder and decoder share, and the dry run."""

    def __init__(self) -> None:
        """Start with nothing coded."""
        self.checks: list[bytes] = []
        self._seen = xxhash.xxh3_64()

    def note(self, steps: Tensor) -> None:
        """Count steps of scales, which come out of floating point, towards the next check."""
        self._seen.update(steps.numpy().data)

    def seal(self) -> None:
        """End a slice: its check is that of all steps noted so far."""
        self._check(self._seen.intdigest().to_bytes(8, "little")[:CHECK_BYTES])

    def _check(self, found: bytes) -> None:
        self.checks.append(found)

    def code(self, rows: Tensor, symbols: Tensor | None, scales: Scales | None = None) -> Tensor:
        """Code symbols, or read them where there are none.

        Args:
            rows: of the tables; or steps, where `scales` is given.
            symbols: int16, the same shape.
            scales: whose steps they are.

        Returns:
            The symbols.
        """
        if symbols is None:
            raise RuntimeError("this session has no stream to read from")
        return symbols

    def end(self) -> None:
        """Called when all symbols have been met."""


class Encoding(Session):
    """Collects the symbols of a picture."""

    def __init__(self, tables: FrozenTables) -> None:
        """Code with these tables."""
        super().__init__()
        self._tables = tables
        self._parts: list[tuple[npt.NDArray[Any], npt.NDArray[Any], Scales | None]] = []

    def code(self, rows: Tensor, symbols: Tensor | None, scales: Scales | None = None) -> Tensor:
        """See Session."""
        symbols = super().code(rows, symbols)
        self._parts.append((rows.reshape(-1).numpy(), symbols.reshape(-1).numpy(), scales))
        return symbols

    def finish(self) -> tuple[int, list[bytes]]:
        """The shift of the scales, and the coded symbols: a stream for each set of tables."""
        shift = self._shift()
        rows = np.concatenate(
            [
                part if scales is None else scales.rows(shift)[part]
                for part, _, scales in self._parts
            ]
        )
        symbols = np.concatenate([part for _, part, _ in self._parts])
        lanes = 1 if len(symbols) < _FEW else 4
        streams = []
        for number, table in enumerate(self._tables.sets):
            encoder = Encoder(table, lanes=lanes)
            if len(self._tables.sets) == 1:
                encoder.put(symbols, rows)
            else:
                chosen = rows >> 8 == number
                encoder.put(symbols[chosen], (rows[chosen] & 255).astype(np.uint8))
            streams.append(encoder.finish())
        return shift, streams

    def _shift(self) -> int:
        """That with the fewest bits, by a sample."""
        parts = [part for part in self._parts if part[2] is not None]
        stride = 1 + sum(len(symbols) for _, symbols, _ in parts) // _SAMPLES
        total = np.zeros(SHIFTS)
        for scales in dict.fromkeys(scales for _, _, scales in parts):
            own = [part for part in parts if part[2] is scales]
            steps, symbols = (np.concatenate([part[i] for part in own])[::stride] for i in (0, 1))
            total += scales.costs(steps, symbols) if scales else 0
        return int(total.argmin()) if parts else _NEAREST


class Decoding(Session):
    """Reads the symbols of a picture."""

    def __init__(
        self,
        tables: FrozenTables,
        shift: int,
        streams: Sequence[bytes],
        checks: Sequence[bytes],
        made: str,
    ) -> None:
        """Read these streams.

        Args:
            tables: those of the encoder.
            shift: of the scales.
            streams: one for each set.
            checks: one for each slice.
            made: the platform of the encoder, for messages.
        """
        super().__init__()
        self._decoders = [Decoder(t, s) for t, s in zip(tables.sets, streams, strict=True)]
        self._shift = shift
        self._rows: dict[Scales, npt.NDArray[Any]] = {}
        self._expected = iter(checks)
        self._made = made

    def _check(self, found: bytes) -> None:
        if found != next(self._expected, None):
            raise ValueError(
                "this machine computes other scales than the one that made the file "
                f"({self._made}; here {platform()}): CompressAI models choose tables in floating "
                "point. Decode it there, or with the same torch, processor type and threads"
            )

    def code(self, rows: Tensor, symbols: Tensor | None, scales: Scales | None = None) -> Tensor:
        """See Session.

        Raises:
            BitstreamError: the stream is damaged.
        """
        index = rows.numpy()
        if scales is not None:
            if scales not in self._rows:
                self._rows[scales] = scales.rows(self._shift)
            index = self._rows[scales][index]
        if len(self._decoders) == 1:
            return self._decoders[0].get(index)
        out = torch.empty(rows.shape, dtype=torch.int16)
        for number, decoder in enumerate(self._decoders):
            chosen = index >> 8 == number
            out[torch.from_numpy(chosen)] = decoder.get((index[chosen] & 255).astype(np.uint8))
        return out

    def end(self) -> None:
        """Raise BitstreamError unless the streams end here."""
        for decoder in self._decoders:
            decoder.finish()
        if next(self._expected, None) is not None:
            raise BitstreamError("the picture has more checks than its model has slices")


def platform() -> str:
    """What the results of floating point depend on."""
    cpu = torch.backends.cpu.get_cpu_capability()
    return f"torch {torch.__version__}, {cpu}, {torch.get_num_threads()} threads"
