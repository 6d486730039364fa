"""rANS over indexed tables where the tensors are: batches of streams on a GPU, in a few launches.

The streams are those of `rans_ref`, byte for byte. A launch takes any number of streams; each is
a chain that one warp runs, so a batch costs little more than its longest stream. Nothing here
waits for the device or copies from it: what goes wrong is a number in `status`, which `check`
turns into an error when the caller wants to know. Memory comes from torch's allocator or from the
caller (`workspace`), and every call can be captured in a CUDA graph once its tables have been used
on the device.

`bounds` (int64 [S + 1], on the device) cuts the flat arrays into S streams: stream s has the
symbols bounds[s] to bounds[s + 1], fewer than 2**31; bounds[0] is 0. They are believed. None = a
stream for each entry of the first dimension.

Backends: `cuda` (rans.cu through NVRTC) and `triton`.
"""

from __future__ import annotations

import functools
import importlib.util
import itertools
import types
from typing import NamedTuple

import torch
from torch import Tensor

from .errors import BitstreamError
from .rans_device_source import LANES, STATE, STATUS, STREAM_ROOM, WORD_ROOM, WORDS, Source
from .rans_device_tables import upload
from .rans_ref import LOWER, MAX_ESCAPE_BITS, MAX_LANES, Tables

_ALIGN = 16
BACKENDS = ("cuda", "triton")

_WRONG_ARGUMENT = {
    1: "an index is outside the rows of the tables",
    2: "a symbol other than 0 in a row that is not coded",
    8: "a latent, a mean or a scale is NaN, or a latent and its mean are the same infinity",
}
_DAMAGE = {
    3: "the coded stream is empty, symbols were expected",
    4: "the coded stream ends too early",
    5: f"an escape is longer than {MAX_ESCAPE_BITS} bits",
    6: "an escaped value is outside int16",
    9: "the bytes cannot be the start of a stream",
    10: "the coded stream does not end cleanly: it is damaged or was written with other tables",
}


class Coded(NamedTuple):
    """Streams on a device, one behind the other.

    Attributes:
        data: uint8 [room]; stream s is data[offsets[s] : offsets[s + 1]].
        offsets: int64 [S + 1].
        status: int64 [S]; 0, or why a stream is empty. See `check`.
    """

    data: Tensor
    offsets: Tensor
    status: Tensor

    def to_bytes(self) -> list[bytes]:
        """The streams; waits for the device. ValueError if one could not be coded."""
        check(self.status)
        ends = self.offsets.tolist()
        data = self.data[: ends[-1]].cpu().numpy().tobytes()
        return [data[a:b] for a, b in itertools.pairwise(ends)]


def encode(
    tables: Tables,
    symbols: Tensor,
    index: Tensor,
    bounds: Tensor | None = None,
    *,
    lanes: int | None = None,
    workspace: Tensor | None = None,
    backend: str | None = None,
) -> Coded:
    """Code each symbol with the row of the tables that its index names.

    Args:
        tables: integer tables with T rows.
        symbols: int16, any shape; rows that are not coded take only 0.
        index: uint8, the same shape, each below T.
        bounds: of the streams; see the module's docstring.
        lanes: of each stream, a power of two from 1 to 32; None = about one per 1200 bytes.
        workspace: uint8, at least `workspace_bytes`, 16-byte aligned; None = new memory.
        backend: "cuda" or "triton"; None = the fastest. The bytes are the same.

    Raises:
        ValueError: a dtype, a shape or a device is wrong.
    """
    _expect(symbols, "symbols", torch.int16, symbols)
    _expect(index, "index", torch.uint8, symbols)
    source = Source(_flat(index), symbols=_flat(symbols))
    return _encode(tables, source, _bounds(symbols, bounds), lanes, workspace, backend)


def encode_latents(
    tables: Tables,
    y: Tensor,
    index: Tensor,
    means: Tensor | None = None,
    bounds: Tensor | None = None,
    *,
    boundaries: Tensor | None = None,
    lanes: int | None = None,
    workspace: Tensor | None = None,
    backend: str | None = None,
) -> tuple[Coded, Tensor]:
    """Quantise latents, choose their rows and code them, in one go.

    The symbol is y - mean in float32, rounded to the nearest, ties to even, and clamped to int16; 0
    in rows that are not coded. A NaN is an error of its stream.

    Args:
        tables: integer tables with T rows.
        y: latents, floats of any shape; coded as float32.
        index: uint8, the same shape: rows of the tables; or with `boundaries` floats: scales.
        means: floats, the same shape; None = zeros.
        bounds: of the streams; see the module's docstring.
        boundaries: float32 [at most T - 1], ascending: a scale belongs to the row whose number is
            that of the boundaries below it, by comparison in float32.
        lanes: as for `encode`.
        workspace: as for `encode`.
        backend: as for `encode`.

    Returns:
        The streams, and y_hat = symbol + mean, float32 in the shape of y.
    """
    if not y.is_floating_point():
        raise ValueError(f"y is {y.dtype}, expected floats")
    y_hat = torch.empty(y.shape, dtype=torch.float32, device=y.device)
    source = Source(None, y=_float(y, "y", y), means=_float(means, "means", y), y_hat=y_hat)
    if boundaries is None:
        _expect(index, "index", torch.uint8, y)
        source = source._replace(rows=_flat(index))
    else:
        if boundaries.ndim != 1 or len(boundaries) >= len(tables):
            raise ValueError(
                f"boundaries are {list(boundaries.shape)}, expected at most {len(tables) - 1}"
            )
        limits = boundaries.to(y.device, torch.float32).contiguous()
        source = source._replace(scales=_float(index, "index", y), boundaries=limits)
    return _encode(tables, source, _bounds(y, bounds), lanes, workspace, backend), y_hat


def workspace_bytes(symbols: int, streams: int) -> int:
    """What an encoder needs beside its output."""
    return sum(_workspace_sizes(symbols, streams))


class Decoder:
    """Streams being read: `get` and `get_latents` any number of times, then `finish`.

    Args:
        tables: the tables that the streams were written with.
        data: uint8, contiguous; with the streams one behind the other.
        offsets: int64 [S + 1] on the same device, where they begin and end; None = one stream.
        backend: "cuda" or "triton"; None = the fastest.
    """

    def __init__(
        self,
        tables: Tables,
        data: Tensor,
        offsets: Tensor | None = None,
        *,
        backend: str | None = None,
    ) -> None:
        if data.dtype != torch.uint8 or data.ndim != 1:
            raise ValueError(f"data is {data.dtype} {list(data.shape)}, expected uint8 [bytes]")
        if offsets is None:
            offsets = torch.arange(2, device=data.device) * len(data)
        _expect(offsets, "offsets", torch.int64, None, data.device)
        self._tables = upload(tables, data.device)
        self._backend = backend_of(data.device, backend)
        if len(data) % _ALIGN or data.data_ptr() % _ALIGN or len(data) == 0:
            data = torch.nn.functional.pad(data, (0, _ALIGN - len(data) % _ALIGN))
        self._data, self._offsets = data.contiguous(), offsets
        self.state = torch.empty(len(offsets) - 1, STATE, dtype=torch.int64, device=data.device)
        self._backend.begin(self._data, self._offsets, self.state)

    def get(self, index: Tensor, bounds: Tensor | None = None) -> Tensor:
        """The next symbols of each stream, int16 in the shape of `index` (uint8 rows).

        After damage the rest of a stream is zeros.
        """
        _expect(index, "index", torch.uint8, index, self._data.device)
        out = torch.empty(index.shape, dtype=torch.int16, device=index.device)
        self._get(index, None, bounds, out, None)
        return out

    def get_latents(
        self, index: Tensor, means: Tensor | None = None, bounds: Tensor | None = None
    ) -> Tensor:
        """The next latents of each stream: symbol + mean, float32 in the shape of `index`."""
        _expect(index, "index", torch.uint8, index, self._data.device)
        y_hat = torch.empty(index.shape, dtype=torch.float32, device=index.device)
        self._get(index, _float(means, "means", index), bounds, None, y_hat)
        return y_hat

    def finish(self) -> Tensor:
        """Status int64 [S] of the streams, which must end here; see `check`."""
        state = self.state
        left = self._offsets.diff() - (1 + 4 * state[:, LANES] + 2 * state[:, WORDS])
        ended = (state[:, :MAX_LANES] == LOWER).all(1) & (left == 0)
        ended |= self._offsets.diff() == 0
        status = state[:, STATUS]
        return torch.where((status == 0) & ~ended, 10, status)

    def _get(
        self,
        index: Tensor,
        means: Tensor | None,
        bounds: Tensor | None,
        out: Tensor | None,
        y_hat: Tensor | None,
    ) -> None:
        bounds = _bounds(index, bounds)
        if len(bounds) != len(self._offsets):
            raise ValueError(
                f"symbols of {len(bounds) - 1} streams wanted, there are {len(self._offsets) - 1}"
            )
        places = torch.empty(index.numel(), dtype=torch.int32, device=index.device)
        self._backend.decode(
            self._tables,
            self._data,
            self._offsets,
            bounds,
            _flat(index),
            means,
            out,
            y_hat,
            places,
            self.state,
        )


def check(status: Tensor) -> None:
    """Raise what a status says; waits for the device.

    Raises:
        ValueError: symbols, latents or rows that cannot be coded.
        BitstreamError: a stream is damaged.
    """
    for stream, number in enumerate(status.tolist()):
        if number in _WRONG_ARGUMENT:
            raise ValueError(f"stream {stream}: {_WRONG_ARGUMENT[number]}")
        if number:
            raise BitstreamError(f"stream {stream}: {_DAMAGE[number]}")


def backend_of(device: torch.device, name: str | None = None) -> types.ModuleType:
    """The module that launches: for "cuda" and None `rans_cuda` where that can be, else Triton."""
    if name is not None and name not in BACKENDS:
        raise ValueError(f"backend is {name!r}, a device has {' and '.join(BACKENDS)}")
    if name is None:
        if device.type != "cuda":
            raise ValueError(f"the tensors are on {device}, expected a GPU")
        name = "cuda" if _has_nvrtc() and torch.version.hip is None else "triton"
    if name == "cuda":
        from . import rans_cuda

        return rans_cuda
    from . import rans_triton

    return rans_triton


@functools.cache
def _has_nvrtc() -> bool:
    return importlib.util.find_spec("cuda") is not None and (
        importlib.util.find_spec("cuda.bindings") is not None
    )


def _encode(
    tables: Tables,
    source: Source,
    bounds: Tensor,
    lanes: int | None,
    workspace: Tensor | None,
    backend: str | None,
) -> Coded:
    if lanes is not None and lanes not in (1, 2, 4, 8, 16, 32):
        raise ValueError(f"lanes is {lanes}, expected a power of two from 1 to {MAX_LANES}")
    first = source.first
    device, n, streams = first.device, first.numel(), len(bounds) - 1
    chosen, uploaded = backend_of(device, backend), upload(tables, device)
    sizes = _workspace_sizes(n, streams)
    if workspace is None:
        workspace = torch.empty(sum(sizes), dtype=torch.uint8, device=device)
    _expect(workspace, "workspace", torch.uint8, None, device)
    if workspace.numel() < sum(sizes) or workspace.data_ptr() % _ALIGN:
        raise ValueError(
            f"workspace has {workspace.numel()} bytes, expected {sum(sizes)} at a multiple of 16"
        )
    pairs = workspace[: sizes[0]].view(torch.int32)
    words = workspace[sizes[0] : sum(sizes)].view(torch.int16)
    state = torch.empty(streams, STATE, dtype=torch.int64, device=device)
    room = 2 * (WORD_ROOM * n) + streams * (1 + 4 * MAX_LANES)
    data = torch.empty(-(-room // _ALIGN) * _ALIGN, dtype=torch.uint8, device=device)
    offsets = torch.zeros(streams + 1, dtype=torch.int64, device=device)
    chosen.encode(uploaded, source, bounds, lanes or 0, pairs, words, state)
    chosen.pack(bounds, state, words, data, offsets)
    return Coded(data, offsets, state[:, STATUS])


def _workspace_sizes(symbols: int, streams: int) -> list[int]:
    pairs = -(-4 * symbols // _ALIGN) * _ALIGN
    words = -(-2 * (WORD_ROOM * symbols + STREAM_ROOM * streams) // _ALIGN) * _ALIGN
    return [pairs, words]


def _bounds(like: Tensor, bounds: Tensor | None) -> Tensor:
    if bounds is None:
        streams = like.shape[0] if like.ndim else 1
        each = like.numel() // max(1, streams)
        if each >= 1 << 31:
            raise ValueError(f"a stream has {each} symbols, expected fewer than 2**31")
        return torch.arange(streams + 1, device=like.device) * each
    _expect(bounds, "bounds", torch.int64, None, like.device)
    if bounds.ndim != 1 or len(bounds) == 0:
        raise ValueError(f"bounds are {list(bounds.shape)}, expected [streams + 1]")
    return bounds


def _expect(
    array: Tensor,
    name: str,
    dtype: torch.dtype,
    like: Tensor | None,
    device: torch.device | None = None,
) -> None:
    if array.dtype != dtype:
        raise ValueError(f"{name} is {array.dtype}, expected {dtype}")
    if like is not None and array.shape != like.shape:
        raise ValueError(f"{name} is {list(array.shape)}, expected {list(like.shape)}")
    wanted = device or (like.device if like is not None else array.device)
    if array.device != wanted:
        raise ValueError(f"{name} is on {array.device}, expected {wanted}")


def _float(array: Tensor | None, name: str, like: Tensor) -> Tensor | None:
    if array is None:
        return None
    if not array.is_floating_point():
        raise ValueError(f"{name} is {array.dtype}, expected floats")
    single = array.to(torch.float32)
    _expect(single, name, torch.float32, like)
    return _flat(single)


def _flat(array: Tensor) -> Tensor:
    return array.contiguous().view(-1)
