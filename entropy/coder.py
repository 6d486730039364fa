"""Coder sessions: symbols in, one stream out, and back.

    encoder = Encoder(tables)
    encoder.put(symbols, index)  # any number of times
    data = encoder.finish()

    decoder = Decoder(tables, data)
    symbols = decoder.get(index)  # any split gives the same symbols
    decoder.finish()  # BitstreamError unless the stream ends exactly here

The stream is that of `kernels.rans_ref`; how the symbols were split into calls leaves no trace
in it.
"""

from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from ..kernels import rans
from .tables import TableSet

Array = torch.Tensor | npt.NDArray[Any]

_TORCH_DTYPE: dict[type[np.generic], torch.dtype] = {np.int16: torch.int16, np.uint8: torch.uint8}


class Encoder:
    """Collects symbols; `finish` codes them.

    Args:
        tables: the frozen tables; the decoder needs the same ones.
        lanes: interleaved states, a power of two from 1 to 32; None = about one per 1200 bytes.
        backend: one of `kernels.rans.backends()`; None = the fastest. The bytes are the same.
    """

    def __init__(
        self, tables: TableSet, *, lanes: int | None = None, backend: str | None = None
    ) -> None:
        self._tables = tables
        self._lanes = lanes
        self._backend = backend
        self._parts: list[tuple[npt.NDArray[Any], npt.NDArray[Any]]] | None = []

    def put(self, symbols: Array, index: Array) -> None:
        """Append symbols.

        Args:
            symbols: int16, any shape, on the CPU.
            index: uint8, the same shape: the row of the tables for each symbol. Rows that are
                not coded take only the symbol 0.

        Raises:
            ValueError: a wrong dtype or shape, or an index outside the tables.
            RuntimeError: the session has been finished.
        """
        parts = self._open()
        values, rows = _array(symbols, np.int16, "symbols"), _array(index, np.uint8, "index")
        if values.shape != rows.shape:
            raise ValueError(f"symbols are {values.shape}, index is {rows.shape}: they must agree")
        if rows.size and int(rows.max()) >= len(self._tables):
            raise ValueError(f"index {rows.max()} is outside the {len(self._tables)} rows")
        # The caller may reuse its arrays before `finish`.
        parts.append((values.flatten(), rows.flatten()))

    def finish(self) -> bytes:
        """The stream of everything that was put; b"" if no symbol was coded."""
        parts = self._open()
        self._parts = None
        if not parts:
            return b""
        symbols, index = parts[0]
        if len(parts) > 1:
            symbols, index = (np.concatenate(halves) for halves in zip(*parts, strict=True))
        return rans.encode(self._tables, symbols, index, lanes=self._lanes, backend=self._backend)

    def _open(self) -> list[tuple[npt.NDArray[Any], npt.NDArray[Any]]]:
        if self._parts is None:
            raise RuntimeError("this session has been finished; make a new Encoder")
        return self._parts


class Decoder:
    """Reads a stream written with the same tables.

    Raises BitstreamError from the constructor, `get` or `finish` for bytes that are not a
    stream of these tables.
    """

    def __init__(self, tables: TableSet, data: bytes, *, backend: str | None = None) -> None:
        self._decoder = rans.Decoder(tables, data, backend=backend)

    def get(self, index: Array) -> torch.Tensor:
        """The next symbols, int16 in the shape of `index` (uint8 rows of the tables)."""
        return torch.from_numpy(self._decoder.get(_array(index, np.uint8, "index")))

    def finish(self) -> None:
        """Raise BitstreamError unless the stream ends exactly here."""
        self._decoder.finish()


def _array(given: Array, dtype: type[np.generic], name: str) -> npt.NDArray[Any]:
    if isinstance(given, torch.Tensor):
        if given.device.type != "cpu":
            raise ValueError(f"{name} is on {given.device}, this coder works on the cpu")
        if given.dtype is _TORCH_DTYPE[dtype]:
            return given.numpy()
    elif isinstance(given, np.ndarray) and given.dtype == dtype:
        return given
    kind = getattr(given, "dtype", type(given).__name__)
    raise ValueError(f"{name} is {kind}, expected {np.dtype(dtype)}: round and convert first")
