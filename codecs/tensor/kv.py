"""Key-value caches without loss: pages of tokens to bytes and back, with calibrated tables.

    tables = calibrate([(k, v)])  # once per model and dtype; tables.to_bytes() is a file
    data = encode_pages(k, v, tables)
    k, v = decode_pages(data, tables)

A page is some tokens of all layers given, a block is one layer of one page, and every block can
be read alone. A block is the bytes that do not pay to code, as they are, and one stream of symbols
(pairs of exponents of bf16 and fp32, first bytes of fp16 and fp8), each with the table of its
class. Pages hold no tables; they name theirs by digest.

The bytes: FORMAT.md, section 12. They are no .lpk file: a page has to be small, and is kept by
something that knows what it is, such as `kv_store.KVStore` or a serving engine.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch

from ...kernels import memory
from ...kernels.errors import BitstreamError
from .kv_page import MAX_PAGE, RECORD, Buffer, Head, Records, checksum, padded
from .kv_tables import Array, KVTables, as_array, calibrate
from .kv_threads import run

__all__ = [
    "KVTables",
    "PageInfo",
    "calibrate",
    "check_pages",
    "decode_pages",
    "encode_pages",
    "page_info",
]


_TOGETHER = 1 << 21  # bytes of elements that are coded at once
_GROUP = 1 << 17  # bytes of elements, and two blocks at least, that are decoded by one call

Decoded = torch.Tensor | tuple[torch.Tensor, torch.Tensor]


class PageInfo(NamedTuple):
    """What coded pages hold.

    Attributes:
        dtype: of the elements.
        shapes: of the tensors.
        page: tokens of a page.
        pages: their number.
        digest: hexadecimal, of the tables they were made with.
    """

    dtype: torch.dtype
    shapes: tuple[tuple[int, ...], ...]
    page: int
    pages: int
    digest: str


def encode_pages(
    k: torch.Tensor,
    v: torch.Tensor | None,
    tables: KVTables,
    *,
    page: int = 64,
    layer: int = 0,
    threads: int | None = None,
) -> bytes:
    """Code the keys and values of some tokens.

    Args:
        k: [layers, tokens, kv_heads, head_dim] or, of one layer, [tokens, kv_heads, head_dim],
            of the dtype of the tables, on any device. Any strides will do; they cost a copy
            only where the last dimension is not contiguous.
        v: the values, alike; their head_dim may be another. None where the tables are of one
            tensor (fused latents: kv_heads is 1).
        tables: of this model and dtype.
        page: tokens of a page, 1 to 4096: what is read at once. Small pages cost bytes and time:
            16 tokens of 8 heads about 1 % more than 256.
        layer: the number in the tables of the first layer given.
        threads: at most so many; None = one per core. Never changes a byte.

    Raises:
        ValueError: the tensors do not fit each other or the tables.
    """
    tensors = [k] if v is None else [k, v]
    _check_tensors(tensors, tables, layer)
    if not 1 <= page <= MAX_PAGE:
        raise ValueError(f"page is {page}, expected 1 to {MAX_PAGE} tokens")
    stacked = k.ndim == 4
    layers, tokens = (k.shape[0], k.shape[1]) if stacked else (1, k.shape[0])
    head = Head(tables.dtype, stacked, tables.digest, layer, layers, tokens, page, tables.sizes)
    if page * head.token_bytes >= 1 << 32:
        raise ValueError(f"page is {page}: a block of it has 4 GiB or more, take fewer tokens")
    arrays = [as_array(x if stacked else x[None]) for x in tensors]
    return _encoded(head, arrays, tables, threads)


def decode_pages(
    data: Buffer,
    tables: KVTables,
    *,
    pages: int | slice | None = None,
    layers: int | slice | None = None,
    out: Decoded | None = None,
    device: torch.device | str | None = None,
    threads: int | None = None,
) -> Decoded:
    """Decode pages, or some of them; only their bytes are read.

    Args:
        data: what `encode_pages` made; may be a view of a file in memory.
        tables: those that the pages name.
        pages: a number or a slice without step: only the tokens of these pages.
        layers: the same for layers, counted from the first of the pages; a number takes the
            dimension away.
        out: tensors of the right dtype and shape to decode into, on any device.
        device: of the result; None is the CPU.
        threads: at most so many; None = one per core.

    Returns:
        (k, v), or one tensor if one was coded; `out` if that is given.

    Raises:
        BitstreamError: the bytes are damaged.
        ValueError: the tables are others, a number is outside, or `out` does not fit.
    """
    view = memoryview(data).cast("B")
    head, records, start = Head.get(view)
    _check_tables(head, tables)
    at_page, at_layer = _span("pages", pages, head.pages), _span("layers", layers, head.layers)
    if layers is not None and not head.stacked:
        raise ValueError("layers: these pages are of one layer and have no such dimension")
    tokens = sum(head.tokens_of(p) for p in at_page)
    shape = (len(at_layer), tokens) if head.stacked and not isinstance(layers, int) else (tokens,)
    wanted = [
        (at_page[i // len(at_layer)], at_layer[i % len(at_layer)])
        for i in range(len(at_page) * len(at_layer))
    ]
    offsets, sizes = _places(head, records, start, len(view), tables)
    results = _results(head, shape, out, device)
    targets = [_target(x) for x in results]
    arrays = [as_array(x.reshape(len(at_layer), *x.shape[-3:])) for x in targets]

    group = max(2, _GROUP // max(1, head.page * head.token_bytes))

    def read(number: int) -> None:
        blocks = []
        for page, layer in wanted[number * group : (number + 1) * group]:
            first = (page - at_page.start) * head.page
            part = [x[layer - at_layer.start, first : first + head.tokens_of(page)] for x in arrays]
            at = page * head.layers + layer
            coded = view[offsets[at] : offsets[at] + padded(sizes[at])]
            if checksum(coded) != int(records["checksum"][at]):
                raise BitstreamError(f"page {page}, layer {layer} is damaged: its checksum differs")
            blocks.append((head.first_layer + layer, coded[: sizes[at]], part))
        tables.decode_blocks(blocks)

    nbytes = tokens * len(at_layer) * head.token_bytes
    run(read, -(-len(wanted) // group), nbytes, threads)
    for x, target in zip(results, targets, strict=True):
        if x is not target:
            x.copy_(target)
    return results[0] if len(results) == 1 else (results[0], results[1])


def page_info(data: Buffer) -> PageInfo:
    """What coded pages hold, without tables; BitstreamError where the head is damaged."""
    head, _, _ = Head.get(memoryview(data).cast("B"))
    lead = (head.layers, head.tokens) if head.stacked else (head.tokens,)
    shapes = tuple((*lead, *pair) for pair in head.sizes)
    return PageInfo(head.dtype, shapes, head.page, head.pages, head.digest.hex())


def check_pages(data: Buffer) -> PageInfo:
    """Compare every checksum, without tables; BitstreamError where one differs."""
    view = memoryview(data).cast("B")
    head, records, start = Head.get(view)
    offsets, sizes = _places(head, records, start, len(view))
    for block, (offset, size) in enumerate(zip(offsets, sizes, strict=True)):
        if checksum(view[offset : offset + padded(size)]) != int(records["checksum"][block]):
            page, layer = divmod(block, head.layers)
            raise BitstreamError(f"page {page}, layer {layer} is damaged: its checksum differs")
    return page_info(data)


def _encoded(head: Head, arrays: Sequence[Array], tables: KVTables, threads: int | None) -> bytes:
    """Head and blocks of arrays [layers, tokens, heads, dim].

    Some blocks at a time are coded into memory that stays in the caches, then put in their place.
    """
    slot = padded(min(head.page, head.tokens) * head.token_bytes)
    records = np.zeros(head.pages * head.layers, RECORD)
    together = max(1, min(len(records), _TOGETHER // max(1, slot)))
    room = memoryview(bytearray(together * slot))
    start = end = len(head.put(records))
    whole = memory.NewBytes(start + len(records) * slot)

    def code(first: int, number: int) -> None:
        page, layer = divmod(first + number, head.layers)
        tokens = slice(page * head.page, page * head.page + head.tokens_of(page))
        out = room[number * slot : (number + 1) * slot]
        part = [x[layer, tokens] for x in arrays]
        size = tables.encode_block(head.first_layer + layer, part, out)
        out[size : padded(size)] = bytes(padded(size) - size)
        records[first + number] = size, checksum(out[: padded(size)])

    for first in range(0, len(records), together):
        count = min(together, len(records) - first)
        run(functools.partial(code, first), count, count * slot, threads)
        for number in range(count):
            size = padded(int(records["size"][first + number]))
            whole.view[end : end + size] = room[number * slot : number * slot + size]
            end += size
    whole.view[:start] = head.put(records)
    return whole.finish(end)


def _places(
    head: Head, records: Records, start: int, end: int, tables: KVTables | None = None
) -> tuple[list[int], list[int]]:
    """Offset and size of every block, which fill the data and can hold what they should."""
    sizes = records["size"].astype(np.int64)
    ends = start + np.cumsum(-(-sizes // 16) * 16)
    if end != (int(ends[-1]) if len(ends) else start):
        raise BitstreamError(f"{end} bytes, the head says {ends[-1] if len(ends) else start}")
    tokens = np.repeat([head.tokens_of(p) for p in range(head.pages)], head.layers)
    raw = tokens * head.token_bytes
    # Every symbol takes some part of a bit, so that a small block never stands for much memory.
    least = np.floor(tokens * tables.least_bytes) - 8 if tables else 0
    if np.any(sizes > raw) or np.any(sizes < least):
        raise BitstreamError("a block is longer than its elements, or too short for them")
    return (ends - -(-sizes // 16) * 16).tolist(), sizes.tolist()


def _check_tensors(tensors: list[torch.Tensor], tables: KVTables, layer: int) -> None:
    k = tensors[0]
    if len(tensors) != len(tables.sizes):
        raise ValueError(
            f"{len(tensors)} tensors, the tables are of {len(tables.sizes)}: v must be "
            f"{'None' if len(tables.sizes) == 1 else 'given'}"
        )
    for name, x, size in zip("kv", tensors, tables.sizes, strict=False):
        if x.dtype != tables.dtype:
            raise ValueError(
                f"{name} is {x.dtype}, the tables are of {tables.dtype}; calibrate for each dtype"
            )
        if x.ndim not in (3, 4) or tuple(x.shape[-2:]) != size or x.shape[:-2] != k.shape[:-2]:
            raise ValueError(
                f"{name} is {tuple(x.shape)}, expected [layers, tokens, {size[0]}, {size[1]}] or "
                f"[tokens, {size[0]}, {size[1]}], with the layers and tokens of k"
            )
    layers = k.shape[0] if k.ndim == 4 else 1
    if not 0 <= layer <= tables.layers - layers:
        raise ValueError(f"layer {layer} and {layers - 1} more, the tables have {tables.layers}")


def _check_tables(head: Head, tables: KVTables) -> None:
    if head.digest != tables.digest:
        raise ValueError(
            f"these pages were made with the tables {head.digest.hex()}, got {tables.digest.hex()}"
        )
    same = (head.dtype, head.sizes) == (tables.dtype, tables.sizes)
    if not same or head.first_layer + head.layers > tables.layers:
        raise BitstreamError("the head of coded pages contradicts the tables it names")


def _span(what: str, which: int | slice | None, count: int) -> range:
    """The numbers that an index means."""
    if isinstance(which, int):
        if not -count <= which < count:
            raise ValueError(f"{what} is {which}, there are {count}")
        return range(which % count, which % count + 1)
    found = range(count)[which if which is not None else slice(None)]
    if found.step != 1:
        raise ValueError(f"{what}: a slice without step is expected, got {which}")
    return found


def _results(
    head: Head,
    lead: tuple[int, ...],
    out: Decoded | None,
    device: torch.device | str | None,
) -> list[torch.Tensor]:
    """The tensors to return: those of `out`, or new ones."""
    shapes = [(*lead, *pair) for pair in head.sizes]
    if out is None:
        return [torch.empty(shape, dtype=head.dtype, device=device) for shape in shapes]
    tensors = [out] if isinstance(out, torch.Tensor) else list(out)
    if [(x.dtype, tuple(x.shape)) for x in tensors] != [(head.dtype, s) for s in shapes]:
        raise ValueError(f"out must be {head.dtype} of shapes {shapes}")
    if device is not None and any(x.device != torch.device(device) for x in tensors):
        raise ValueError(f"out is on {tensors[0].device}, device says {device}: give one of them")
    return tensors


def _target(x: torch.Tensor) -> torch.Tensor:
    """`x` where it can be decoded into, else a buffer like it."""
    plain = x.device.type == "cpu" and (x.shape[-1] <= 1 or x.stride(-1) == 1)
    return x if plain else torch.empty(x.shape, dtype=x.dtype)
