"""Calibrated tables of key-value caches: made once from samples, kept, and named by digest.

The elements of a channel (layer, keys or values, head, dimension) keep their scale from token to
token. So each channel belongs to a class, a class has one table of symbol frequencies, and pages
carry neither: they name the tables that both sides have.

File (FORMAT.md, section 12.1): signature, dtype, sizes, classes, table set, digest.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Iterable, Sequence
from typing import Any, Self

import numpy as np
import numpy.typing as npt
import torch
import xxhash

from ...entropy.tables import TableSet
from ...kernels import channels
from ...kernels.channels_ref import symbols_of
from ...kernels.errors import BitstreamError
from .dtypes import IDS, dtype_of

SIGNATURE = b"\x89LKT\x01"
DIGEST_BYTES = 8
MAX_CLASSES = 255
_START = struct.Struct("<5sBBI")  # signature, dtype, tensors, layers
_SIZES = struct.Struct("<II")  # heads, dim

Array = npt.NDArray[Any]
Sample = torch.Tensor | tuple[torch.Tensor, torch.Tensor]

# What a symbol is: the exponent of bf16 and fp32; the first byte of the others, which also holds
# the sign and some bits of the mantissa.
LAYOUTS = {
    torch.bfloat16: channels.FLOAT,
    torch.float32: channels.FLOAT,
    torch.float16: channels.BYTE_PLANES,
    torch.float8_e4m3fn: channels.BYTE_PLANES,
    torch.float8_e5m2: channels.BYTE_PLANES,
}
_ENTRIES = 1 << 12  # the frequencies of a table add to it
_ESCAPE_BITS = 22
_SPARE = 2  # symbols codable on each side of those that were seen often
_UNSIGNED = {1: np.uint8, 2: np.uint16, 4: np.uint32}
_SIGNED = {1: torch.uint8, 2: torch.int16, 4: torch.int32}


class KVTables:
    """The classes of all channels of a model's cache, and a table for each class.

    Attributes:
        dtype: of the elements: bfloat16, float16, float32, float8_e4m3fn or float8_e5m2.
        sizes: (kv_heads, head_dim) of the keys and of the values; one pair where the cache is
            one tensor, such as the fused latents of multi-head latent attention.
        classes: for each of these tensors uint8 [layers, kv_heads * head_dim].
        rows: the table of each class.
        digest: 8 bytes that name these tables.
    """

    def __init__(
        self,
        dtype: torch.dtype,
        sizes: Sequence[tuple[int, int]],
        classes: Sequence[npt.NDArray[np.uint8]],
        rows: TableSet,
    ) -> None:
        """Check and keep; ValueError where something does not fit."""
        if dtype not in LAYOUTS:
            raise ValueError(f"dtype is {dtype}, expected one of {', '.join(map(str, LAYOUTS))}")
        if not 1 <= len(sizes) <= 2 or len(classes) != len(sizes):
            raise ValueError(f"{len(sizes)} sizes and {len(classes)} classes, expected one or two")
        self.dtype = dtype
        self.sizes = tuple((int(heads), int(dim)) for heads, dim in sizes)
        self.classes = tuple(np.ascontiguousarray(part, np.uint8) for part in classes)
        self.rows = rows
        self.layers = len(self.classes[0])
        for (heads, dim), part in zip(self.sizes, self.classes, strict=True):
            if part.shape != (self.layers, heads * dim) or part.size == 0:
                raise ValueError(
                    f"classes are {part.shape}, expected ({self.layers}, {heads * dim})"
                )
            if int(part.max()) >= len(rows):
                raise ValueError(f"class {part.max()} is outside the {len(rows)} tables")
        if not rows.lengths.all():
            raise ValueError("a class has an empty table")
        body = self._body()
        self.digest = xxhash.xxh3_64_intdigest(body).to_bytes(DIGEST_BYTES, "little")

    def __repr__(self) -> str:
        """Name, dtype and sizes."""
        return (
            f"KVTables({self.digest.hex()}, {self.dtype}, {self.layers} layers of {self.sizes}, "
            f"{len(self.rows)} classes)"
        )

    def __eq__(self, other: object) -> bool:
        """Tables of one digest are the same."""
        return isinstance(other, KVTables) and self.digest == other.digest

    def __hash__(self) -> int:
        """As equality: by the digest."""
        return hash(self.digest)

    def __reduce__(self) -> tuple[Any, ...]:
        """Copies and pickles are made from the bytes."""
        return type(self).from_bytes, (self.to_bytes(),)

    @property
    def token_bytes(self) -> int:
        """Bytes of the elements of one token in one layer."""
        return sum(heads * dim for heads, dim in self.sizes) * self.dtype.itemsize

    @property
    def least_bits(self) -> float:
        """What the most frequent symbol of all costs."""
        return self.rows.precision - float(np.log2(self.rows.freqs.max()))

    def encode_block(self, layer: int, arrays: Sequence[Array]) -> bytes:
        """Code tokens of one layer: arrays [tokens, heads, dim] as of `as_array`.

        Returns:
            A block (FORMAT.md, section 12.3): the elements themselves where coding does not pay.
        """
        coded = channels.encode(self.rows, LAYOUTS[self.dtype], self._parts(layer, arrays))
        if len(coded) >= sum(x.nbytes for x in arrays):
            coded = b"".join(x.tobytes() for x in arrays)
        return coded

    def decode_block(self, layer: int, block: bytes | memoryview, arrays: Sequence[Array]) -> None:
        """Fill arrays with the tokens of a block; BitstreamError where it is damaged."""
        if len(block) < sum(x.nbytes for x in arrays):
            parts = self._parts(layer, arrays)
            return channels.decode(self.rows, LAYOUTS[self.dtype], block, parts)
        at = 0
        for x in arrays:
            x[...] = np.frombuffer(block, x.dtype, x.size, at).reshape(x.shape)
            at += x.nbytes

    def _parts(self, layer: int, arrays: Sequence[Array]) -> list[channels.Part]:
        return [(x, part[layer]) for x, part in zip(arrays, self.classes, strict=True)]

    def _body(self) -> bytes:
        start = _START.pack(SIGNATURE, IDS[self.dtype], len(self.sizes), self.layers)
        sizes = [_SIZES.pack(*pair) for pair in self.sizes]
        return b"".join(
            [start, *sizes, *(part.tobytes() for part in self.classes), self.rows.to_bytes()]
        )

    def to_bytes(self) -> bytes:
        """The tables as a file's bytes; the last eight are the digest."""
        return self._body() + self.digest

    @classmethod
    def from_bytes(cls, data: bytes) -> Self:
        """The inverse of `to_bytes`; BitstreamError for anything else."""
        data = bytes(data)
        body, digest = data[:-DIGEST_BYTES], data[-DIGEST_BYTES:]
        if not data.startswith(SIGNATURE):
            raise BitstreamError(f"not a file of key-value tables: it starts with {data[:5].hex()}")
        if xxhash.xxh3_64_intdigest(body).to_bytes(DIGEST_BYTES, "little") != digest:
            raise BitstreamError("the file of key-value tables is damaged or cut")
        try:
            return cls(*_fields(body))
        except (ValueError, struct.error) as error:
            raise BitstreamError(f"the key-value tables are illegal: {error}") from None


def _fields(body: bytes) -> tuple[torch.dtype, list[tuple[int, int]], list[Array], TableSet]:
    _, dtype, tensors, layers = _START.unpack_from(body)
    at = _START.size
    sizes = [_SIZES.unpack_from(body, at + i * _SIZES.size) for i in range(tensors)]
    at += tensors * _SIZES.size
    classes = []
    for heads, dim in sizes:
        count = layers * heads * dim
        if count > len(body):
            raise BitstreamError(f"{count} classes in {len(body)} bytes")
        classes.append(np.frombuffer(body, np.uint8, count, at).reshape(layers, heads * dim))
        at += count
    return dtype_of(dtype), sizes, classes, TableSet.from_bytes(body[at:])


def as_array(tensor: torch.Tensor) -> Array:
    """A tensor's elements as unsigned integers: a view where it is on the CPU with any strides
    but neighbours in the last dimension, else a copy."""  # noqa: D205, D209
    plain = tensor.detach().view(_SIGNED[tensor.dtype.itemsize]).cpu()
    if plain.shape[-1] > 1 and plain.stride(-1) != 1:
        plain = plain.contiguous()
    view: Array = plain.numpy().view(_UNSIGNED[tensor.dtype.itemsize])
    return view


def calibrate(samples: Iterable[Sample], classes: int = 32) -> KVTables:
    """Make tables from samples of a model's caches.

    A few hundred tokens of every layer, of the text that the model is used for, are enough.
    Channels are put into classes so that the sum of all costs is least: k-means with the
    Kullback-Leibler divergence as distance.

    Args:
        samples: pairs (k, v), or single tensors where keys and values are one; each tensor is
            [layers, tokens, kv_heads, head_dim], or [tokens, kv_heads, head_dim] for a cache of
            one layer, as the serving engine holds them (keys after RoPE).
        classes: at most so many, 1 to 255. More are a little smaller and slower: each takes
            16 KiB of the decoder's caches.

    Raises:
        ValueError: no tokens, or tensors of other dtypes or shapes.

    >>> k = torch.randn(2, 64, 4, 16).bfloat16()
    >>> calibrate([(k, k)]).sizes
    ((4, 16), (4, 16))
    """
    if not 1 <= classes <= MAX_CLASSES:
        raise ValueError(f"classes is {classes}, expected 1 to {MAX_CLASSES}")
    counts: list[Array] = []
    dtype: torch.dtype | None = None
    sizes: list[tuple[int, int]] = []
    for sample in samples:
        tensors = [sample] if isinstance(sample, torch.Tensor) else list(sample)
        tensors = [x[None] if x.ndim == 3 else x for x in tensors]
        if dtype is None:
            dtype = tensors[0].dtype
            sizes = [(x.shape[-2], x.shape[-1]) for x in tensors]
            counts = [
                np.zeros((len(x), h * d, 256), np.int64)
                for x, (h, d) in zip(tensors, sizes, strict=True)
            ]
        _check_sample(tensors, dtype, sizes, len(counts[0]))
        for x, count in zip(tensors, counts, strict=True):
            _count(as_array(x), LAYOUTS[dtype], count)
    if dtype is None or not counts[0].any():
        raise ValueError("calibrate needs samples with at least one token")
    flat = np.concatenate([count.reshape(-1, 256) for count in counts])
    labels = _cluster(flat.astype(np.float32), classes)
    used, labels = np.unique(labels, return_inverse=True)
    totals = np.zeros((len(used), 256))
    np.add.at(totals, labels, flat)
    rows = [_row(total) for total in totals]
    parts = np.split(labels.astype(np.uint8), np.cumsum([c.shape[0] * c.shape[1] for c in counts]))
    return KVTables(
        dtype,
        sizes,
        [part.reshape(count.shape[:2]) for part, count in zip(parts, counts, strict=False)],
        TableSet.from_pmfs([pmf for pmf, _ in rows], [offset for _, offset in rows]),
    )


def _check_sample(
    tensors: list[torch.Tensor], dtype: torch.dtype, sizes: list[tuple[int, int]], layers: int
) -> None:
    if dtype not in LAYOUTS:
        raise ValueError(f"a sample is {dtype}, expected one of {', '.join(map(str, LAYOUTS))}")
    if len(tensors) != len(sizes) or len(tensors) > 2:
        raise ValueError(f"a sample has {len(tensors)} tensors, expected 1, or 2, as the first has")
    for x, (heads, dim) in zip(tensors, sizes, strict=True):
        wanted = (layers, tensors[0].shape[1] if x.ndim == 4 else 0, heads, dim)
        if x.dtype != dtype or tuple(x.shape) != wanted:
            raise ValueError(f"a sample is {x.dtype} {tuple(x.shape)}, expected {dtype} {wanted}")


def _count(x: Array, layout: int, counts: Array) -> None:
    """Add the symbols of x [layers, tokens, heads, dim] to counts [layers, channels, 256]."""
    channel = np.arange(counts.shape[1]) * 256
    for layer, count in zip(x, counts, strict=True):
        symbols = symbols_of(layer, layout)[0].reshape(len(layer), counts.shape[1])
        bins = (symbols + channel).reshape(-1)
        count += np.bincount(bins, minlength=count.size).reshape(count.shape)


def _cluster(counts: npt.NDArray[np.float32], classes: int) -> npt.NDArray[np.int64]:
    """The class of each row of counts [channels, 256]."""
    total = counts.sum(1)
    means = counts @ np.arange(256, dtype=np.float32) / np.maximum(total, 1)
    labels = np.empty(len(counts), np.int64)
    labels[np.argsort(means, kind="stable")] = np.arange(len(counts)) * classes // len(counts)
    for _ in range(20):
        centres = np.full((classes, 256), 1e-2, np.float32)
        np.add.at(centres, labels, counts)
        cost = -np.log2(centres / centres.sum(1, keepdims=True))
        closer = (counts @ cost.T).argmin(1)
        if np.array_equal(closer, labels):
            break
        labels = closer
    return labels


def _row(counts: Array) -> tuple[npt.NDArray[np.float64], int]:
    """Probabilities of a range of symbols and of all others; the first symbol of the range."""
    mode = int(counts.argmax())
    first = max(0, mode - _reach(counts[mode::-1], counts.sum()) - _SPARE)
    # With 255 always an escape, all values lie near enough for the coder's dense tables.
    last = min(254, mode + _reach(counts[mode:], counts.sum()) + _SPARE)
    first = min(first, last)
    kept = counts[first : last + 1].astype(np.float64)
    return np.append(kept, counts.sum() - kept.sum() + 1), first


def _reach(counts: Array, total: float) -> int:
    """How far from its most frequent symbol a range should go: escapes against rare entries."""
    left_out = total - np.cumsum(counts)
    rare = np.cumsum(counts < total / _ENTRIES)
    return int(np.argmin(left_out * _ESCAPE_BITS + rare * total / _ENTRIES * math.log2(math.e)))
