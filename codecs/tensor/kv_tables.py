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
from ...kernels.channels import FLOAT
from ...kernels.channels_ref import NO_TOPS, symbols_in, symbols_of
from ...kernels.errors import BitstreamError
from .dtypes import IDS, dtype_of

SIGNATURE = b"\x89LKT\x01"
DIGEST_BYTES = 8
MAX_CLASSES = 255
_START = struct.Struct("<5sBBI")  # signature, dtype, tensors, layers
_SIZES = struct.Struct("<II")  # heads, dim

Array = npt.NDArray[Any]
Bytes = npt.NDArray[np.uint8]
Sample = torch.Tensor | tuple[torch.Tensor, torch.Tensor]

# What a symbol is: two exponents of bf16 or fp32; the first byte of the others, which also holds
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
    """What is known of all channels of a model's cache, and a table for each class of symbols.

    Attributes:
        dtype: of the elements: bfloat16, float16, float32, float8_e4m3fn or float8_e5m2.
        sizes: (kv_heads, head_dim) of the keys and of the values; one pair where the cache is
            one tensor, such as the fused latents of multi-head latent attention.
        classes: for each of these tensors uint8 [layers, symbols of a token]: two channels make
            a symbol of bfloat16 and float32, one of the others.
        tops: for each tensor uint8 [layers, channels], exponents seldom exceeded; [layers, 0]
            where a symbol is no exponent.
        rows: the table of each class.
        digest: 8 bytes that name these tables.
    """

    def __init__(
        self,
        dtype: torch.dtype,
        sizes: Sequence[tuple[int, int]],
        classes: Sequence[Bytes],
        tops: Sequence[Bytes],
        rows: TableSet,
    ) -> None:
        """Check and keep; ValueError where something does not fit."""
        if dtype not in LAYOUTS:
            raise ValueError(f"dtype is {dtype}, expected one of {', '.join(map(str, LAYOUTS))}")
        if not 1 <= len(sizes) <= 2:
            raise ValueError(f"{len(sizes)} tensors, expected one or two")
        self.dtype = dtype
        self.layout = LAYOUTS[dtype]
        self.sizes = tuple((int(heads), int(dim)) for heads, dim in sizes)
        self.classes = tuple(np.ascontiguousarray(part, np.uint8) for part in classes)
        self.tops = tuple(np.ascontiguousarray(part, np.uint8) for part in tops)
        self.rows = rows
        self.layers = len(self.classes[0])
        known = zip(self.sizes, self.classes, self.tops, strict=True)
        for (heads, dim), found, top in known:
            symbols, channels = known_of(heads * dim, self.layout)
            wanted = (self.layers, symbols), (self.layers, channels)
            if (found.shape, top.shape) != wanted or found.size == 0:
                raise ValueError(f"classes and tops are {found.shape} {top.shape}, not {wanted}")
            if int(found.max()) >= len(rows):
                raise ValueError(f"class {found.max()} is outside the {len(rows)} tables")
        if not rows.lengths.all():
            raise ValueError("a class has an empty table")
        self.digest = digest_of(self._body())

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
    def least_bytes(self) -> float:
        """What the block of a token takes at least, without the head of its stream."""
        channels = sum(heads * dim for heads, dim in self.sizes)
        symbols = sum(part.shape[1] for part in self.classes)
        bits = self.rows.precision - float(np.log2(self.rows.freqs.max()))
        return channels * (self.dtype.itemsize - 1) + symbols * bits / 8

    @property
    def token_bytes(self) -> int:
        """Bytes of the elements of one token in one layer."""
        return sum(heads * dim for heads, dim in self.sizes) * self.dtype.itemsize

    def encode_block(self, layer: int, arrays: Sequence[Array], out: bytearray | memoryview) -> int:
        """Code tokens of one layer: arrays [tokens, heads, dim] as of `as_array`.

        Args:
            layer: which one.
            arrays: of the keys and values.
            out: at least as long as the elements.

        Returns:
            The size of the block (FORMAT.md, section 12.3), which `out` begins with: the elements
            themselves where coding does not pay.
        """
        nbytes = sum(x.nbytes for x in arrays)
        size = channels.encode(self.rows, self.layout, self._parts(layer, arrays), out)
        if size < nbytes:
            return size
        at = 0
        for x in arrays:
            plain = np.frombuffer(out, x.dtype, x.size, at).reshape(x.shape)
            plain[...] = x
            at += x.nbytes
        return nbytes

    def decode_blocks(
        self, blocks: Sequence[tuple[int, bytes | memoryview, Sequence[Array]]]
    ) -> None:
        """Fill arrays with the tokens of blocks (layer, block, arrays); several are faster.

        Raises:
            BitstreamError: a block is damaged.
        """
        coded = []
        for layer, block, arrays in blocks:
            if len(block) < sum(x.nbytes for x in arrays):
                coded.append((block, self._parts(layer, arrays)))
                continue
            at = 0
            for x in arrays:
                x[...] = np.frombuffer(block, x.dtype, x.size, at).reshape(x.shape)
                at += x.nbytes
        channels.decode(self.rows, self.layout, coded)

    def _parts(self, layer: int, arrays: Sequence[Array]) -> list[channels.Part]:
        known = zip(arrays, self.classes, self.tops, strict=True)
        return [channels.Part(x, classes[layer], tops[layer]) for x, classes, tops in known]

    def _body(self) -> bytes:
        start = _START.pack(SIGNATURE, IDS[self.dtype], len(self.sizes), self.layers)
        sizes = [_SIZES.pack(*pair) for pair in self.sizes]
        known = [part.tobytes() for part in (*self.classes, *self.tops)]
        return b"".join([start, *sizes, *known, self.rows.to_bytes()])

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
        if digest_of(body) != digest:
            raise BitstreamError("the file of key-value tables is damaged or cut")
        try:
            return cls(*_fields(body))
        except (ValueError, struct.error) as error:
            raise BitstreamError(f"the key-value tables are illegal: {error}") from None


def digest_of(body: bytes) -> bytes:
    """XXH3-64, little-endian."""
    return xxhash.xxh3_64_intdigest(body).to_bytes(DIGEST_BYTES, "little")


def known_of(channels: int, layout: int) -> tuple[int, int]:
    """How many classes and tops a layer has."""
    return symbols_in(channels, layout), channels if layout == FLOAT else 0


def _fields(body: bytes) -> tuple[torch.dtype, list[Any], list[Bytes], list[Bytes], TableSet]:
    _, number, tensors, layers = _START.unpack_from(body)
    dtype = dtype_of(number)
    at = _START.size + tensors * _SIZES.size
    sizes = list(_SIZES.iter_unpack(body[_START.size : at]))
    if dtype not in LAYOUTS or len(sizes) != tensors:
        raise BitstreamError(f"{len(sizes)} sizes of {tensors} tensors of {dtype}")
    counts = [known_of(heads * dim, LAYOUTS[dtype]) for heads, dim in sizes]
    known = []
    for count in [classes for classes, _ in counts] + [tops for _, tops in counts]:
        if layers * count > len(body) - at:
            raise BitstreamError(f"{layers * count} channels in {len(body)} bytes")
        part = np.frombuffer(body, np.uint8, layers * count, at)
        known.append(part.reshape(layers, count))
        at += part.size
    return dtype, sizes, known[:tensors], known[tensors:], TableSet.from_bytes(body[at:])


def as_array(tensor: torch.Tensor) -> Array:
    """A tensor's elements as unsigned integers: a view where it is on the CPU with any strides
    but neighbours in the last dimension, else a copy."""  # noqa: D205, D209
    plain = tensor.detach().view(_SIGNED[tensor.dtype.itemsize]).cpu()
    if plain.shape[-1] > 1 and plain.stride(-1) != 1:
        plain = plain.contiguous()
    view: Array = plain.numpy().view(_UNSIGNED[tensor.dtype.itemsize])
    return view


def calibrate(samples: Iterable[Sample], classes: int = 16) -> KVTables:
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
    tensors = _checked([[x] if isinstance(x, torch.Tensor) else list(x) for x in samples])
    dtype = tensors[0][0].dtype
    layout = LAYOUTS[dtype]
    tops, counts = [], []
    for which in range(len(tensors[0])):
        arrays = [as_array(sample[which]) for sample in tensors]
        tops.append(_tops(arrays, layout))
        counts.append(_count(arrays, layout, tops[-1]))
    flat = np.concatenate([count.reshape(-1, 256) for count in counts])
    used, labels = np.unique(_cluster(flat.astype(np.float32), classes), return_inverse=True)
    totals = np.zeros((len(used), 256))
    np.add.at(totals, labels, flat)
    rows = [_row(total) for total in totals]
    ends = np.cumsum([count.shape[0] * count.shape[1] for count in counts])
    parts = np.split(labels.astype(np.uint8), ends[:-1])
    return KVTables(
        dtype,
        [(x.shape[2], x.shape[3]) for x in tensors[0]],
        [part.reshape(count.shape[:2]) for part, count in zip(parts, counts, strict=True)],
        tops,
        TableSet.from_pmfs([pmf for pmf, _ in rows], [offset for _, offset in rows]),
    )


def _checked(samples: list[list[torch.Tensor]]) -> list[list[torch.Tensor]]:
    """The samples [layers, tokens, heads, dim], which must be alike."""
    samples = [[x[None] if x.ndim == 3 else x for x in sample] for sample in samples]
    if not samples or not any(sample[0].numel() for sample in samples):
        raise ValueError("calibrate needs samples with at least one token")
    first = samples[0]
    if first[0].dtype not in LAYOUTS:
        raise ValueError(f"a sample is {first[0].dtype}, expected {', '.join(map(str, LAYOUTS))}")
    for sample in samples:
        if len(sample) != len(first) or len(sample) > 2:
            raise ValueError(f"a sample has {len(sample)} tensors, expected one or two, as all")
        for x, like in zip(sample, first, strict=True):
            wanted = (len(first[0]), sample[0].shape[1], *like.shape[-2:])
            if x.dtype != first[0].dtype or tuple(x.shape) != wanted:
                raise ValueError(
                    f"a sample is {x.dtype} {tuple(x.shape)}, expected {first[0].dtype} {wanted}"
                )
    return samples


def _tops(arrays: list[Array], layout: int) -> Bytes:
    """Of each channel the exponent that is exceeded once in _ENTRIES, or not at all."""
    layers, _, heads, dim = arrays[0].shape
    if layout != FLOAT:
        return np.zeros((layers, 0), np.uint8)
    shift = 8 * arrays[0].itemsize - 9
    exponents = [(x >> shift & 255).astype(np.uint8).swapaxes(0, 1) for x in arrays]
    ordered = np.sort(np.concatenate(exponents), axis=0)
    tops: Bytes = ordered[-1 - len(ordered) // _ENTRIES].reshape(layers, heads * dim)
    return tops


def _count(arrays: list[Array], layout: int, tops: Bytes) -> Array:
    """How often each symbol occurs [layers, symbols of a token, 256]; the last with all above."""
    layers, _, heads, dim = arrays[0].shape
    counts = np.zeros((layers, symbols_in(heads * dim, layout), 256), np.int64)
    place = np.arange(counts.shape[1]) * 256
    for x in arrays:
        for layer, top, count in zip(x, tops, counts, strict=True):
            symbols, _ = symbols_of(layer, layout, top if layout == FLOAT else NO_TOPS)
            bytes_of = np.minimum(symbols.view(np.uint16), 255).reshape(len(layer), len(count))
            bins = (bytes_of + place).reshape(-1)
            count += np.bincount(bins, minlength=count.size).reshape(count.shape)
    return counts


def _cluster(counts: npt.NDArray[np.float32], classes: int) -> npt.NDArray[np.int64]:
    """The class of each row of counts [n, 256]."""
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
