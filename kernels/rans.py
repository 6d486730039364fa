"""rANS over indexed tables: checks arguments and picks the fastest backend of this machine.

The stream is defined in `rans_ref`, and every backend writes and reads exactly those bytes:
`ref` (plain Python, always there), `scalar`, `avx2` and `avx512` (compiled; the last two where
the processor has them). Coding releases the interpreter lock, and one `Tables` may be used by
any number of threads.
"""

import functools
import struct
import types
import warnings
from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from . import rans_ref
from .errors import BitstreamError
from .rans_ref import LOWER, MAX_ESCAPE_BITS, MAX_LANES, Tables

Symbols = npt.NDArray[np.int16]
Index = npt.NDArray[np.uint8]
Latents = npt.NDArray[np.float32]

ISAS = ("scalar", "avx2", "avx512")
_STATE = struct.Struct("<128sIIQ")  # Decoding of rans.h: states, lanes, next lane, bytes read
_BAD_INDEX, _UNCODED_SYMBOL = 1, 2
_DAMAGE = {
    3: "the coded stream is empty, symbols were expected",
    4: "the coded stream ends too early",
    5: f"an escape is longer than {MAX_ESCAPE_BITS} bits",
    6: "an escaped value is outside int16",
}


@functools.cache
def _compiled() -> types.ModuleType | None:
    try:
        from . import _cpp
    except ImportError as error:
        warnings.warn(
            f"the compiled kernels are missing ({error}): coding in Python is about a thousand "
            "times slower; reinstall latentpack where there is a C++ compiler",
            RuntimeWarning,
            stacklevel=2,
        )
        return None
    return _cpp


@functools.cache
def backends() -> tuple[str, ...]:
    """The backends of this machine, slowest first; the last one is the default."""
    cpp = _compiled()
    return ("ref", *ISAS[: cpp.rans_isa() + 1]) if cpp else ("ref",)


def pick(backend: str | None) -> str:
    """The backend asked for, or the fastest; ValueError if this machine lacks it."""
    if backend is None:
        return backends()[-1]
    if backend not in backends():
        raise ValueError(f"backend is {backend!r}, this machine has {', '.join(backends())}")
    return backend


def prepared(tables: Tables) -> object:
    """What the compiled kernels look up in these tables, made when first asked for."""
    if tables.prepared is None:
        cpp = _compiled()
        assert cpp is not None  # a compiled backend has been picked
        fields = (tables.offsets, tables.lengths, tables.freqs)
        tables.prepared = cpp.rans_prepare(tables.precision, *fields)
    return tables.prepared


def normalise(counts: npt.ArrayLike, precision: int = 12) -> npt.NDArray[np.uint16]:
    """Counts to frequencies that add to 2**precision; see `rans_ref.normalise`."""
    cpp = _compiled()
    given = np.asarray(counts)
    if cpp is None or given.size < 2 or given.ndim != 1 or not 1 <= precision <= 16:
        return rans_ref.normalise(counts, precision)
    if given.min() < 0 or given.max() >= 1 << 32:
        return rans_ref.normalise(counts, precision)
    freq = np.empty(len(given), np.uint16)
    if not cpp.rans_normalise(given.astype(np.uint32), precision, freq):
        return rans_ref.normalise(counts, precision)  # which says what is wrong
    return freq


def encode(
    tables: Tables,
    symbols: Symbols,
    index: Index,
    *,
    lanes: int | None = None,
    backend: str | None = None,
) -> bytes:
    """Code each symbol with the row of the tables that its index names.

    Args:
        tables: integer tables with T rows.
        symbols: int16, any shape; rows that are not coded take only 0.
        index: uint8, the same shape, each below T.
        lanes: interleaved states, a power of two from 1 to 32; None = about one per 1200 bytes.
        backend: one of `backends()`; None = the fastest. The bytes are the same.

    Returns:
        The stream of `rans_ref`: about `sum(-log2(freq / 2**precision))` bits and 3 bytes per
        lane; b"" if no symbol is coded.

    Raises:
        ValueError: a wrong dtype, shape, index or lanes, or a symbol that is not codable.
    """
    chosen = pick(backend)
    symbols, index = _flat(symbols, np.int16, "symbols"), _flat(index, np.uint8, "index")
    if len(symbols) != len(index):
        raise ValueError(f"{len(symbols)} symbols but {len(index)} indices, expected as many")
    if lanes is not None and (lanes not in (1, 2, 4, 8, 16, 32)):
        raise ValueError(f"lanes is {lanes}, expected a power of two from 1 to {MAX_LANES}")
    if chosen == "ref":
        _check_index(tables, index)
        return rans_ref.encode(tables, symbols, index, lanes)
    cpp = _compiled()
    assert cpp is not None
    isa = ISAS.index(chosen)
    coded = cpp.rans_encode(prepared(tables), symbols, index, lanes or 0, isa)
    if isinstance(coded, bytes):
        return coded
    if coded == _UNCODED_SYMBOL:
        raise ValueError("a symbol other than 0 in a row that is not coded")
    raise _index_error(tables, index)


def quantise(
    tables: Tables,
    y: Latents,
    means: Latents | None,
    index: Index,
    *,
    backend: str | None = None,
) -> tuple[Symbols, Latents]:
    """Latents to the symbols that `encode` takes, and to what the decoder makes of them.

    Args:
        tables: integer tables with T rows.
        y: float32, any shape.
        means: float32, the same shape; None = zeros.
        index: uint8, the same shape, each below T.
        backend: as for `encode`.

    Returns:
        The symbols and y_hat of `rans_ref.quantise`.

    Raises:
        ValueError: a wrong dtype, shape or index, or a NaN.
    """
    chosen = pick(backend)
    rows, latents = _flat(index, np.uint8, "index"), _flat(y, np.float32, "y")
    mean = None if means is None else _flat(means, np.float32, "means")
    sizes = {len(part) for part in (rows, latents, mean) if part is not None}
    if len(sizes) > 1:
        raise ValueError(f"y, means and index have {sorted(sizes)} elements, expected as many")
    _check_index(tables, rows)
    if chosen == "ref":
        symbols, y_hat = rans_ref.quantise(tables, latents, mean, rows)
    else:
        cpp = _compiled()
        assert cpp is not None
        symbols, y_hat = np.empty(len(rows), np.int16), np.empty(len(rows), np.float32)
        arrays = latents, mean, rows, symbols, y_hat
        if not cpp.rans_quantise(prepared(tables), *arrays, ISAS.index(chosen)):
            return rans_ref.quantise(tables, latents, mean, rows)  # which says what is wrong
    return symbols.reshape(np.shape(y)), y_hat.reshape(np.shape(y))


def rows_of(scales: Latents, boundaries: Latents) -> Index:
    """The row of each scale, in its shape: how many boundaries are below it, in float32.

    Args:
        scales: float32, any shape.
        boundaries: float32 [at most 255], ascending.

    Raises:
        ValueError: a wrong dtype, boundaries that do not ascend or are too many, or a NaN.
    """
    flat = _flat(scales, np.float32, "scales")
    limits = _flat(boundaries, np.float32, "boundaries")
    if len(limits) >= rans_ref.MAX_ROWS or not np.all(limits[:-1] <= limits[1:]):
        raise ValueError(
            f"{len(limits)} boundaries, expected at most {rans_ref.MAX_ROWS - 1} that ascend"
        )
    rows = np.empty(len(flat), np.uint8)
    cpp = _compiled()
    if cpp is None or not cpp.rans_rows(flat, limits, rows):
        rows = rans_ref.rows_of(flat, limits)
    return rows.reshape(np.shape(scales))


class Decoder:
    """A stream being read: `get` any number of times, then `finish`.

    Args:
        tables: the tables the stream was written with.
        data: the whole stream. It is kept, not copied.
        backend: one of `backends()`; None = the fastest.

    Raises:
        BitstreamError: the bytes cannot be the start of a stream.
    """

    def __init__(self, tables: Tables, data: bytes, *, backend: str | None = None) -> None:
        self._tables = tables
        self._data = data
        self._backend = pick(backend)
        self._ref: rans_ref.Decoder | None = None
        if self._backend == "ref":
            self._ref = rans_ref.Decoder(tables, bytes(data))
            return
        self._isa = ISAS.index(self._backend)
        lanes = rans_ref.lanes_of(data)
        self._skip = 1 + 4 * lanes if lanes else 0
        states = bytes(data[1 : self._skip])
        if lanes and (least := min(struct.unpack(f"<{lanes}I", states))) < LOWER:
            raise BitstreamError(f"a state is {least}, expected at least {LOWER}")
        self._state = bytearray(_STATE.pack(states, lanes, 0, 0))

    def get(self, index: Index, out: Symbols | None = None) -> Symbols:
        """The next symbols, one per index.

        Args:
            index: uint8 rows of the tables, any shape.
            out: int16, contiguous, of the same shape; None = a new array.

        Raises:
            BitstreamError: the stream is damaged; the decoder cannot go on.
            ValueError: an index is outside the tables, or the dtype or shape is wrong.
        """
        rows = _flat(index, np.uint8, "index")
        if out is None:
            out = np.empty(np.shape(index), np.int16)
        elif out.dtype != np.int16 or out.shape != np.shape(index) or not out.flags.c_contiguous:
            raise ValueError(f"out is {out.dtype} {out.shape}, expected int16 {np.shape(index)}")
        if self._ref is not None:
            _check_index(self._tables, rows)
            out.reshape(-1)[:] = self._ref.get(rows)
            return out
        cpp = _compiled()
        assert cpp is not None
        status = self.run(
            lambda lookups, state, data, skip, isa: cpp.rans_decode(
                lookups, state, data, skip, rows, out, isa
            )
        )
        if status == _BAD_INDEX:
            raise _index_error(self._tables, rows)
        return out

    @property
    def backend(self) -> str:
        """The one that decodes."""
        return self._backend

    def run(self, kernel: Callable[..., int]) -> int:
        """Let a compiled kernel go on with the stream.

        Args:
            kernel: takes tables, state, data, where in them the words begin, and the instruction
                set; returns a status of rans.h or one of its own, which is returned.

        Raises:
            BitstreamError: the stream is damaged.
        """
        lookups = prepared(self._tables)
        status = kernel(lookups, self._state, self._data, self._skip, self._isa)
        if status in _DAMAGE:
            raise BitstreamError(_DAMAGE[status])
        return status

    def finish(self) -> None:
        """Raise BitstreamError unless the stream ends here, with every lane at its start."""
        if self._ref is not None:
            return self._ref.finish()
        states, lanes, _, read = _STATE.unpack(self._state)
        left = len(self._data) - self._skip - read
        at_start = states[: 4 * lanes] == LOWER.to_bytes(4, "little") * lanes
        rans_ref.check_end(left // 2, at_start)


def _flat(array: npt.ArrayLike, dtype: type[np.generic], name: str) -> npt.NDArray:  # type: ignore[type-arg]
    given = np.asarray(array)
    if given.dtype != dtype:
        raise ValueError(f"{name} is {given.dtype}, expected {np.dtype(dtype)}")
    return given.ravel()


def _check_index(tables: Tables, index: Index) -> None:
    if len(index) and int(index.max()) >= len(tables):
        raise _index_error(tables, index)


def _index_error(tables: Tables, index: Index) -> ValueError:
    return ValueError(f"index {index.max()} is outside the {len(tables)} rows of the tables")
