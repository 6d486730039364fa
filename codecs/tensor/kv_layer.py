"""One layer of a `PackedCache`: pages of coded blocks, and a window of plain tokens."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from transformers.cache_utils import DynamicLayer

from .kv_tables import KVTables, as_array
from .kv_threads import run

_GROWTH = 1.0625
_GROUP = 4  # pages that are decoded by one call

Pair = tuple[torch.Tensor, torch.Tensor]


class Shared:
    """What the layers of a cache have in common."""

    def __init__(self, tables: KVTables | None, window: int, page: int, threads: int | None):
        self.tables = tables
        self.window = window
        self.page = page
        self.threads = threads
        self.rooms: dict[tuple[int, torch.device], torch.Tensor] = {}

    def room(self, which: int, shape: Sequence[int], like: torch.Tensor) -> torch.Tensor:
        """A contiguous tensor of this shape in a buffer that is used again and again."""
        need = like.element_size()
        for size in shape:
            need *= size
        flat = self.rooms.get((which, like.device))
        if flat is None or flat.numel() < need:
            flat = torch.empty(int(need * _GROWTH), dtype=torch.uint8, device=like.device)
            self.rooms[which, like.device] = flat
        return flat[:need].view(like.dtype).view(*shape)


class PackedLayer(DynamicLayer):
    """One layer: `keys` and `values` hold the window, `pages` the blocks of each sequence."""

    keys: torch.Tensor  # None only before the first tokens
    values: torch.Tensor

    def __init__(self, number: int, shared: Shared) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.number = number
        self.pages: list[list[bytes]] = []
        self._shared = shared

    @property
    def packed_tokens(self) -> int:
        """Tokens that are packed."""
        return len(self.pages[0]) * self._shared.page if self.pages else 0

    @property
    def window_tokens(self) -> int:
        """Tokens that are plain."""
        return self.keys.shape[-2] if self.is_initialized and self.keys.numel() else 0

    @property
    def token_bytes(self) -> int:
        """Bytes of one token of all sequences, when plain."""
        windows = [x for x in (self.keys, self.values) if x.ndim == 4]
        return sum(x.shape[0] * x.shape[1] * x.shape[3] * x.element_size() for x in windows)

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, *args: Any, **kwargs: Any
    ) -> Pair:
        """Append tokens; return all keys and values [batch, heads, tokens, dim].

        They are valid until the next layer is updated.
        """
        if key_states.requires_grad:
            raise RuntimeError(
                "a PackedCache is for inference: its tensors are overwritten before a backward "
                "pass could use them; call the model under torch.no_grad()"
            )
        window = super().update(key_states, value_states, *args, **kwargs)
        full = self.read() if self.pages else window
        if self._shared.tables is not None:
            self.pack(self._shared.window)
        return full

    def read(self) -> Pair:
        """All keys and values, in the shared buffer."""
        packed, tokens = self.packed_tokens, self.get_seq_length()
        full, decoded = [], []
        for which, window in enumerate((self.keys, self.values)):
            batch, heads, _, dim = window.shape
            x = self._shared.room(which, (batch, heads, tokens, dim), window)
            x[:, :, packed:] = window
            full.append(x)
            if x.device.type != "cpu":  # blocks are decoded here, and sent
                host = torch.empty(0, dtype=x.dtype)
                x = self._shared.room(which, (batch, heads, packed, dim), host)
            decoded.append(x)
        if packed:
            self._decode(decoded)
        for x, host in zip(full, decoded, strict=True):
            if x is not host:
                x[:, :, :packed] = host
        return full[0], full[1]

    def _decode(self, targets: list[torch.Tensor]) -> None:
        """Fill the first tokens of [batch, heads, tokens, dim] from the pages."""
        tables, page = self._shared.tables, self._shared.page
        assert tables is not None  # there are pages
        arrays = [as_array(x.transpose(1, 2)) for x in targets]
        count = len(self.pages[0])

        def some(job: int) -> None:
            row, first = divmod(job, groups)
            blocks = []
            for at in range(first * _GROUP, min((first + 1) * _GROUP, count)):
                part = [x[row, at * page : (at + 1) * page] for x in arrays]
                blocks.append((self.number, self.pages[row][at], part))
            tables.decode_blocks(blocks)

        groups = -(-count // _GROUP)
        nbytes = len(self.pages) * count * page * tables.token_bytes
        run(some, len(self.pages) * groups, nbytes, self._shared.threads)

    def pack(self, window: int) -> None:
        """Pack the oldest whole pages that leave `window` tokens plain."""
        tables, page = self._shared.tables, self._shared.page
        count = (self.window_tokens - window) // page
        if count <= 0 or tables is None:
            return
        _check_fit(tables, self.keys, self.values, self.number)
        arrays = [as_array(x.transpose(1, 2)) for x in (self.keys, self.values)]
        batch = len(arrays[0])
        blocks = [[b""] * count for _ in range(batch)]

        def one(job: int) -> None:
            row, at = divmod(job, count)
            part = [x[row, at * page : (at + 1) * page] for x in arrays]
            room = memoryview(bytearray(sum(x.nbytes for x in part)))
            blocks[row][at] = bytes(room[: tables.encode_block(self.number, part, room)])

        jobs = batch * count
        run(one, jobs, jobs * page * tables.token_bytes, self._shared.threads)
        if not self.pages:
            self.pages = [[] for _ in range(batch)]
        for row, more in zip(self.pages, blocks, strict=True):
            row += more
        self.keys = self.keys[:, :, count * page :].clone()
        self.values = self.values[:, :, count * page :].clone()

    def get_seq_length(self) -> int:
        """Tokens of the layer."""
        return self.packed_tokens + self.window_tokens

    def reset(self) -> None:
        """Forget all tokens."""
        super().reset()
        self.pages = []

    def crop(self, tokens_to_remove: int) -> None:
        """Remove the last tokens: a negative number, as everywhere in transformers."""
        if -tokens_to_remove <= self.window_tokens or tokens_to_remove > 0 or not self.pages:
            return super().crop(tokens_to_remove)
        keep = max(0, self.get_seq_length() + tokens_to_remove)
        whole, part = divmod(keep, self._shared.page)
        full = self.read()
        first = whole * self._shared.page
        self.keys, self.values = (x[:, :, first : first + part].clone() for x in full)
        self.pages = [row[:whole] for row in self.pages] if whole else []

    def reorder_cache(self, beam_idx: torch.LongTensor) -> None:
        """Give each sequence the tokens of another: pages are shared, not copied."""
        self.batch_select_indices(beam_idx)

    def batch_repeat_interleave(self, repeats: int) -> None:
        """Repeat each sequence."""
        rows = torch.arange(self.keys.shape[0] if self.is_initialized else 0)
        self.batch_select_indices(rows.repeat_interleave(repeats))

    def batch_select_indices(self, indices: torch.Tensor) -> None:
        """Keep these sequences, in this order."""
        if not self.is_initialized:
            return
        rows = torch.arange(self.keys.shape[0])[indices.cpu()].tolist()
        self.keys, self.values = self.keys[rows], self.values[rows]
        if self.pages:
            self.pages = [list(self.pages[row]) for row in rows]


def _check_fit(tables: KVTables, k: torch.Tensor, v: torch.Tensor, number: int) -> None:
    sizes = tuple((x.shape[1], x.shape[3]) for x in (k, v))
    if tables.dtype != k.dtype or tables.sizes != sizes or number >= tables.layers:
        raise ValueError(
            f"layer {number} of {k.dtype} and sizes {sizes} does not fit {tables}; calibrate "
            "tables for this model and dtype"
        )
