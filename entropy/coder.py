"""Coder sessions: symbols in, one stream out, and back.

    encoder = Encoder(tables)
    encoder.put(symbols, index)  # any number of times
    data = encoder.finish()

    decoder = Decoder(tables, data)
    symbols = decoder.get(index)  # any split gives the same symbols
    decoder.finish()  # BitstreamError unless the stream ends exactly here

The stream is that of `kernels.rans_ref`; how the symbols were split into calls leaves no trace
in it. Tensors on a GPU are coded there, to the same bytes, and nothing waits for the device until
`finish`; `streams.py` codes many streams at once.
"""

from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from ..kernels import rans, rans_device
from ..kernels.rans_device import Coded
from .tables import TableSet

Array = torch.Tensor | npt.NDArray[Any]

_TORCH_DTYPE: dict[type[np.generic], torch.dtype] = {np.int16: torch.int16, np.uint8: torch.uint8}


class Encoder:
    """Collects symbols; `finish` codes them.

    Args:
        tables: the frozen tables; the decoder needs the same ones.
        lanes: interleaved states, a power of two from 1 to 32; None = about one per 1200 bytes.
        backend: one of `kernels.rans.backends()`, or "cuda" or "triton" for tensors on a GPU;
            None = the fastest where the tensors are. The bytes are the same.
    """

    def __init__(
        self, tables: TableSet, *, lanes: int | None = None, backend: str | None = None
    ) -> None:
        self._tables = tables
        self._lanes = lanes
        self._backend = backend
        self._parts: list[tuple[Any, Any]] | None = []  # arrays, or tensors on a device

    def put(self, symbols: Array, index: Array) -> None:
        """Append symbols.

        Args:
            symbols: int16, any shape. All of a session are on one device.
            index: uint8, the same shape: the row of the tables for each symbol. Rows that are
                not coded take only the symbol 0.

        Raises:
            ValueError: a wrong dtype, shape or device, or an index outside the tables (on a GPU
                that is found in `finish`).
            RuntimeError: the session has been finished.
        """
        parts = self._open()
        values = _checked(symbols, np.int16, "symbols", self._backend)
        rows = _checked(index, np.uint8, "index", self._backend)
        if values.shape != rows.shape:
            shapes = tuple(values.shape), tuple(rows.shape)
            raise ValueError(f"symbols are {shapes[0]}, index is {shapes[1]}: they must agree")
        if isinstance(values, np.ndarray) and isinstance(rows, np.ndarray):
            if rows.size and int(rows.max()) >= len(self._tables):
                raise ValueError(f"index {rows.max()} is outside the {len(self._tables)} rows")
        _same_place(values, rows, *(part[0] for part in parts[:1]))
        # The caller may reuse its arrays before `finish`.
        parts.append((_copy(values), _copy(rows)))

    def finish(self) -> bytes:
        """The stream of everything that was put; b"" if no symbol was coded.

        Raises:
            ValueError: something that was put cannot be coded.
        """
        symbols, index = self._collected()
        if isinstance(symbols, torch.Tensor):
            return self._coded(symbols, index).to_bytes()[0]
        return rans.encode(self._tables, symbols, index, lanes=self._lanes, backend=self._backend)

    def finish_on_device(self) -> Coded:
        """As `finish`, for tensors on a GPU: the stream stays there and nothing waits.

        What cannot be coded is found in the result's `status`.
        """
        symbols, index = self._collected()
        if not isinstance(symbols, torch.Tensor):
            raise ValueError("no symbols on a GPU were put: use finish()")
        return self._coded(symbols, index)

    def _coded(self, symbols: torch.Tensor, index: torch.Tensor) -> Coded:
        one = symbols[None], index[None]
        return rans_device.encode(self._tables, *one, lanes=self._lanes, backend=self._backend)

    def _collected(self) -> tuple[Any, Any]:
        parts = self._open()
        self._parts = None
        if not parts:
            return np.empty(0, np.int16), np.empty(0, np.uint8)
        if len(parts) == 1:
            return parts[0]
        join: Any = torch.cat if isinstance(parts[0][0], torch.Tensor) else np.concatenate
        symbols, index = (join(halves) for halves in zip(*parts, strict=True))
        return symbols, index

    def _open(self) -> list[tuple[Any, Any]]:
        if self._parts is None:
            raise RuntimeError("this session has been finished; make a new Encoder")
        return self._parts


class Decoder:
    """Reads a stream written with the same tables.

    Raises BitstreamError from the constructor, `get` or `finish` for bytes that are not a
    stream of these tables; only from `finish` if they are on a GPU.

    Args:
        tables: the tables the stream was written with.
        data: the stream. A uint8 tensor on a GPU, or what `Encoder.finish_on_device` gave, is
            decoded there.
        backend: as for `Encoder`.
    """

    def __init__(
        self,
        tables: TableSet,
        data: bytes | torch.Tensor | Coded,
        *,
        backend: str | None = None,
    ) -> None:
        self._backend = backend
        self._decoder: rans.Decoder | rans_device.Decoder
        if isinstance(data, bytes | bytearray | memoryview):
            self._decoder = rans.Decoder(tables, bytes(data), backend=backend)
            return
        stream, offsets = (data, None) if isinstance(data, torch.Tensor) else data[:2]
        given = _checked(stream, np.uint8, "data", backend)
        if isinstance(given, torch.Tensor):
            self._decoder = rans_device.Decoder(tables, given, offsets, backend=backend)
        else:
            self._decoder = rans.Decoder(tables, given.tobytes(), backend=backend)

    def get(self, index: Array) -> torch.Tensor:
        """The next symbols, int16 in the shape of `index` (uint8 rows of the tables)."""
        rows = _checked(index, np.uint8, "index", self._backend)
        if isinstance(self._decoder, rans_device.Decoder):
            if not isinstance(rows, torch.Tensor):
                raise ValueError("index is on the cpu, the stream is not: move one")
            return self._decoder.get(rows[None])[0]
        if not isinstance(rows, np.ndarray):
            raise ValueError(f"index is on {rows.device}, the stream is on the cpu: move one")
        return torch.from_numpy(self._decoder.get(rows))

    def finish(self) -> None:
        """Raise BitstreamError unless the stream ends exactly here."""
        if isinstance(self._decoder, rans_device.Decoder):
            rans_device.check(self._decoder.finish())
        else:
            self._decoder.finish()


def _checked(
    given: Array, dtype: type[np.generic], name: str, backend: str | None
) -> npt.NDArray[Any] | torch.Tensor:
    """An array, or a tensor for `rans_device`, of this dtype."""
    if isinstance(given, torch.Tensor):
        if given.device.type not in ("cpu", "cuda"):
            raise ValueError(f"{name} is on {given.device}, this coder works on cpu and cuda")
        if given.dtype is _TORCH_DTYPE[dtype]:
            device = given.is_cuda or backend in rans_device.BACKENDS
            return given if device else given.numpy()
    elif isinstance(given, np.ndarray) and given.dtype == dtype:
        return torch.from_numpy(given) if backend in rans_device.BACKENDS else given
    kind = getattr(given, "dtype", type(given).__name__)
    raise ValueError(f"{name} is {kind}, expected {np.dtype(dtype)}: round and convert first")


def _same_place(*arrays: npt.NDArray[Any] | torch.Tensor) -> None:
    places = {str(a.device) if isinstance(a, torch.Tensor) else "cpu" for a in arrays}
    if len(places) > 1:
        raise ValueError(f"symbols and index are on {' and '.join(sorted(places))}: move them")


def _copy(array: npt.NDArray[Any] | torch.Tensor) -> npt.NDArray[Any] | torch.Tensor:
    return array.flatten() if isinstance(array, np.ndarray) else array.flatten().clone()
