"""Frozen tables of a CompressAI model, and the sessions that code its symbols with them.

A model's tables are taken as they came: each row of `_quantized_cdf` is a row of ours, its last
entry the escape. Symbols of all its entropy models go into one stream, in the order in which the
model meets them; models with more than 256 rows have a stream for each 256.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
import xxhash
from torch import Tensor

from ...entropy.coder import Decoder, Encoder
from ...entropy.tables import TableSet
from ...kernels.errors import BitstreamError

_SET_ROWS = 256  # rows that a uint8 can name
_FEW = 1 << 16  # symbols: below this, more lanes than one cost more bytes than they save time
CHECK_BYTES = 4


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

    def rows(self, model: Any, own: Tensor) -> Tensor:
        """Rows of one model [...], counted from 0, as rows of all: uint8, or int16 of two sets."""
        first = self._first[model]
        if len(self.sets) > 1:
            return own.to(torch.int16) + first
        return own + first if first else own


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

    def note(self, rows: Tensor) -> None:
        """Count rows that came out of floating point towards the next check."""
        self._seen.update(rows.numpy().data)

    def seal(self) -> None:
        """End a slice: its check is that of all rows noted so far."""
        self._check(self._seen.intdigest().to_bytes(8, "little")[:CHECK_BYTES])

    def _check(self, found: bytes) -> None:
        self.checks.append(found)

    def code(self, rows: Tensor, symbols: Tensor | None) -> Tensor:
        """Code symbols (int16, the shape of `rows`), or read them where there are none."""
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
        self._parts: list[tuple[Tensor, Tensor]] = []

    def code(self, rows: Tensor, symbols: Tensor | None) -> Tensor:
        """See Session."""
        symbols = super().code(rows, symbols)
        self._parts.append((rows.reshape(-1), symbols.reshape(-1)))
        return symbols

    def streams(self) -> list[bytes]:
        """The coded symbols, a stream for each set of tables."""
        rows = torch.cat([part[0] for part in self._parts])
        symbols = torch.cat([part[1] for part in self._parts])
        lanes = 1 if len(symbols) < _FEW else 4
        streams = []
        for number, table in enumerate(self._tables.sets):
            chosen, own = _of_set(rows, number, len(self._tables.sets))
            encoder = Encoder(table, lanes=lanes)
            encoder.put(symbols if chosen is None else symbols[chosen], own)
            streams.append(encoder.finish())
        return streams


class Decoding(Session):
    """Reads the symbols of a picture."""

    def __init__(
        self, tables: FrozenTables, streams: Sequence[bytes], checks: Sequence[bytes], made: str
    ) -> None:
        """Read these streams.

        Args:
            tables: those of the encoder.
            streams: one for each set.
            checks: one for each slice.
            made: the platform of the encoder, for messages.
        """
        super().__init__()
        self._decoders = [Decoder(t, s) for t, s in zip(tables.sets, streams, strict=True)]
        self._expected = iter(checks)
        self._made = made

    def _check(self, found: bytes) -> None:
        if found != next(self._expected, None):
            raise ValueError(
                "this machine computes other table rows than the one that made the file "
                f"({self._made}; here {platform()}): CompressAI models choose rows in floating "
                "point. Decode it there, or with the same torch, processor type and threads"
            )

    def code(self, rows: Tensor, symbols: Tensor | None) -> Tensor:
        """See Session.

        Raises:
            BitstreamError: the stream is damaged.
        """
        if len(self._decoders) == 1:
            return self._decoders[0].get(rows)
        out = torch.empty(rows.shape, dtype=torch.int16)
        for number, decoder in enumerate(self._decoders):
            chosen, own = _of_set(rows, number, len(self._decoders))
            out[chosen] = decoder.get(own)
        return out

    def end(self) -> None:
        """Raise BitstreamError unless the streams end here."""
        for decoder in self._decoders:
            decoder.finish()
        if next(self._expected, None) is not None:
            raise BitstreamError("the picture has more checks than its model has slices")


def _of_set(rows: Tensor, number: int, sets: int) -> tuple[Tensor | None, Tensor]:
    """Which rows are of a set (None: all), and their numbers in it, uint8."""
    if sets == 1:
        return None, rows
    chosen = rows >> 8 == number
    return chosen, (rows[chosen] & 255).to(torch.uint8)


def platform() -> str:
    """What the results of floating point depend on."""
    cpu = torch.backends.cpu.get_cpu_capability()
    return f"torch {torch.__version__}, {cpu}, {torch.get_num_threads()} threads"
