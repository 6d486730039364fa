"""Many streams at once: the images of a batch, slices, tiles; symbols or latents.

    coded, y_hat = encode_latents(tables, y, rows, means)  # y [B, ...]: a stream for each of B
    y_hat = decode_latents(tables, coded, rows, means)
    packets = coded.to_bytes()

On a GPU a batch is one launch for all streams, from latents to final bytes, and nothing waits for
the device until `to_bytes` or `check`; on the CPU the streams are shared among torch's threads.
The streams are those of `coder.py`, the same bytes on both.
"""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor

from ..kernels import rans, rans_device
from ..kernels.rans_device import Coded, check
from .tables import TableSet

__all__ = [
    "Coded",
    "check",
    "decode_latents",
    "decode_streams",
    "encode_latents",
    "encode_streams",
]

Batch = Tensor | Sequence[Tensor]  # [S, ...], or a tensor for each stream
_WORTH_A_THREAD = 1 << 18  # symbols: a fifth of a millisecond

T = TypeVar("T")


def encode_streams(
    tables: TableSet,
    symbols: Batch,
    index: Batch,
    *,
    lanes: int | None = None,
    backend: str | None = None,
) -> Coded:
    """Code each of a batch into a stream of its own.

    Args:
        tables: the frozen tables.
        symbols: int16; a tensor [S, ...] or S tensors of any shapes, all on one device.
        index: uint8, likewise: the row of the tables for each symbol.
        lanes: of each stream; None = about one per 1200 bytes.
        backend: as for `coder.Encoder`.

    Raises:
        ValueError: a wrong dtype, shape or device, or symbols that cannot be coded (on a GPU
            those are found by `Coded.to_bytes` or `check(coded.status)`).
    """
    if _on_device(symbols, backend):
        flat, bounds = _joined(symbols)
        return rans_device.encode(
            tables, flat, _joined(index)[0], bounds, lanes=lanes, backend=backend
        )

    def one(stream: tuple[Tensor, Tensor]) -> bytes:
        arrays = (part.numpy() for part in stream)
        return rans.encode(tables, *arrays, lanes=lanes, backend=backend)

    return _coded(_for_each(one, _pairs(symbols, index)))


def decode_streams(
    tables: TableSet,
    coded: Coded | Sequence[bytes],
    index: Batch,
    *,
    backend: str | None = None,
) -> list[Tensor]:
    """The symbols of whole streams, int16 in the shapes of `index`: `encode_streams` undone.

    Raises:
        BitstreamError: a stream is damaged; with tensors on a GPU this waits for the device.
    """
    if _on_device(index, backend):
        decoder = _device_decoder(tables, coded, index, backend)
        flat, bounds = _joined(index)
        symbols = decoder.get(flat, bounds)
        check(decoder.finish())
        return _split(symbols, index)

    def one(stream: tuple[bytes, Tensor]) -> Tensor:
        decoder = rans.Decoder(tables, stream[0], backend=backend)
        symbols = decoder.get(stream[1].numpy())
        decoder.finish()
        return torch.from_numpy(symbols)

    return _for_each(one, _streams_with(coded, index))


def encode_latents(
    tables: TableSet,
    y: Tensor,
    index: Tensor,
    means: Tensor | None = None,
    *,
    boundaries: Tensor | None = None,
    lanes: int | None = None,
    backend: str | None = None,
) -> tuple[Coded, Tensor]:
    """Quantise latents, choose their rows and code them.

    Args:
        tables: the frozen tables.
        y: floats [S, ...], coded as float32; a stream for each entry of the first dimension. The
            symbol is y - mean rounded to the nearest, ties to even, clamped to int16; 0 in rows
            that are not coded.
        index: uint8, the same shape: rows of the tables. Or, with `boundaries`, floats: scales.
        means: floats, the same shape; None = zeros.
        boundaries: float32 [at most T - 1], ascending, frozen with the tables: a scale belongs to
            the row whose number is that of the boundaries below it.
        lanes: of each stream; None = about one per 1200 bytes.
        backend: as for `coder.Encoder`.

    Returns:
        The streams, and y_hat = symbol + mean, float32 in the shape of y.

    Raises:
        ValueError: a wrong dtype, shape or device, or a NaN (which on a GPU is found by
            `Coded.to_bytes` or `check(coded.status)`).
    """
    if _on_device(y, backend):
        return rans_device.encode_latents(
            tables, y, index, means, boundaries=boundaries, lanes=lanes, backend=backend
        )
    for name, part in (("index", index), ("means", means)):
        if part is not None and part.shape != y.shape:
            raise ValueError(f"{name} is {list(part.shape)}, expected {list(y.shape)}")
    y_hat = torch.empty(y.shape, dtype=torch.float32)
    limits = None if boundaries is None else boundaries.float().numpy()

    def one(s: int) -> bytes:
        rows = index[s].numpy() if limits is None else rans.rows_of(_single(index[s]), limits)
        mean = None if means is None else _single(means[s])
        symbols, found = rans.quantise(tables, _single(y[s]), mean, rows, backend=backend)
        y_hat[s] = torch.from_numpy(found)
        return rans.encode(tables, symbols, rows, lanes=lanes, backend=backend)

    return _coded(_for_each(one, list(range(len(y))), y.numel())), y_hat


def decode_latents(
    tables: TableSet,
    coded: Coded | Sequence[bytes],
    index: Tensor,
    means: Tensor | None = None,
    *,
    backend: str | None = None,
) -> tuple[Tensor, Tensor]:
    """Symbol + mean of whole streams; the inverse of `encode_latents`.

    Returns:
        y_hat, float32 in the shape of `index` (uint8 rows [S, ...]), and the status of the
        streams, int64 [S], for `check`: on a GPU nothing has waited for the device yet.

    Raises:
        BitstreamError: a stream is damaged (on the CPU).
    """
    if _on_device(index, backend):
        decoder = _device_decoder(tables, coded, index, backend)
        return decoder.get_latents(index, means), decoder.finish()
    symbols = decode_streams(tables, coded, index, backend=backend)
    y_hat = torch.stack(symbols).float() if symbols else torch.zeros(index.shape)
    if means is not None:
        y_hat += means
    return y_hat, torch.zeros(len(index), dtype=torch.int64)


def _device_decoder(
    tables: TableSet, coded: Coded | Sequence[bytes], index: Batch, backend: str | None
) -> rans_device.Decoder:
    if not isinstance(coded, Coded):
        device = index.device if isinstance(index, Tensor) else index[0].device
        coded = Coded(*(part.to(device) for part in _coded(list(coded))))
    return rans_device.Decoder(tables, coded.data, coded.offsets, backend=backend)


def _coded(streams: list[bytes]) -> Coded:
    """Streams as one tensor on the CPU."""
    data = torch.frombuffer(bytearray(b"".join(streams) or b"\0"), dtype=torch.uint8)
    offsets = torch.from_numpy(np.cumsum([0, *map(len, streams)]))
    return Coded(data, offsets, torch.zeros(len(streams), dtype=torch.int64))


def _streams_with(coded: Coded | Sequence[bytes], index: Batch) -> list[tuple[bytes, Tensor]]:
    streams = coded.to_bytes() if isinstance(coded, Coded) else coded
    if len(streams) != len(index):
        raise ValueError(f"{len(index)} indices for {len(streams)} streams, expected as many")
    return list(zip(streams, index, strict=True))


def _pairs(symbols: Batch, index: Batch) -> list[tuple[Tensor, Tensor]]:
    if len(symbols) != len(index):
        raise ValueError(f"{len(symbols)} of symbols, {len(index)} of index: expected as many")
    return list(zip(symbols, index, strict=True))


def _for_each(call: Callable[[Any], T], items: list[Any], size: int | None = None) -> list[T]:
    """Call for each item, in torch's number of threads where that pays."""
    if size is None:
        size = sum(item[1].numel() for item in items)
    threads = min(torch.get_num_threads(), len(items), size // _WORTH_A_THREAD)
    if threads < 2:
        return [call(item) for item in items]
    with ThreadPoolExecutor(threads) as pool:
        return list(pool.map(call, items))


def _on_device(batch: Batch, backend: str | None) -> bool:
    cuda = batch.is_cuda if isinstance(batch, Tensor) else any(part.is_cuda for part in batch)
    return cuda or backend in rans_device.BACKENDS


def _joined(batch: Batch) -> tuple[Tensor, Tensor | None]:
    """One tensor, and bounds where its first dimension is not the streams."""
    if isinstance(batch, Tensor):
        return batch, None
    sizes = np.cumsum([0, *(part.numel() for part in batch)])
    flat = torch.cat([part.flatten() for part in batch])
    return flat, torch.from_numpy(sizes).to(flat.device)


def _split(symbols: Tensor, like: Batch) -> list[Tensor]:
    if isinstance(like, Tensor):
        return list(symbols)
    parts = torch.split_with_sizes(symbols, [part.numel() for part in like])
    return [part.view(shape.shape) for part, shape in zip(parts, like, strict=True)]


def _single(x: Tensor) -> Any:
    return x.detach().float().numpy()
