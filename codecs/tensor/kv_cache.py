"""A cache for transformers that keeps old tokens packed: same tokens out, less memory held.

    cache = PackedCache(model.config)
    model.generate(**inputs, past_key_values=cache)
    print(cache.memory())

The last tokens of each layer stay plain (the window). Older ones are packed, page by page, and
decoded when the layer is used, into one buffer that all layers share: what is held is the packed
pages, the windows, and one layer. Nothing is lost, so the model computes what it would with a
plain cache. Decoding everything at every step costs time; this is for caches that would not fit,
and for those that wait between the turns of a conversation (`pack`).
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple, Self

import torch

try:
    from transformers import DynamicCache, PreTrainedConfig
    from transformers.cache_utils import DynamicLayer

    from .kv_layer import PackedLayer, Pair, Shared
except ImportError as error:
    raise ImportError(
        f"PackedCache needs transformers ({error}): pip install latentpack[transformers]"
    ) from error

from .kv import decode_pages, encode_pages
from .kv_tables import KVTables, calibrate

_SAMPLE = 1024  # tokens of each sequence that tables are made from


class CacheMemory(NamedTuple):
    """Bytes that a cache holds.

    Attributes:
        packed: coded pages.
        window: plain tokens of the packed layers.
        buffer: the buffer that layers are decoded into.
        other: layers that are not packed, such as those of sliding windows.
        plain: what a `DynamicCache` of the same tokens would hold.
    """

    packed: int
    window: int
    buffer: int
    other: int
    plain: int

    @property
    def held(self) -> int:
        """All that is held."""
        return self.packed + self.window + self.buffer + self.other


class PackedCache(DynamicCache):
    """The cache of a model whose old tokens are packed without loss.

    Layers of full attention are packed; those of sliding windows, and states of linear attention,
    stay as they are in a `DynamicCache`. Beam search, cropping (assisted generation) and batches
    work. Not for training, `torch.compile` or offloading.

    Args:
        config: of the model.
        tables: made before from caches of this model, see `kv.calibrate`. None: made from the
            first tokens that would be packed, and then in `tables` to be kept.
        window: tokens of each layer that stay plain, 0 or more.
        page: tokens of a page, 16 to 256 make sense.
        threads: for packing and decoding; None = one per core.

    Raises:
        ValueError: an option is outside its range, or the model has no layer to pack.
    """

    def __init__(
        self,
        config: PreTrainedConfig,
        tables: KVTables | None = None,
        *,
        window: int = 128,
        page: int = 64,
        threads: int | None = None,
    ) -> None:
        super().__init__(config=config)
        if window < 0 or not 1 <= page <= 4096:
            raise ValueError(f"window is {window}, page {page}: expected 0 or more, 1 to 4096")
        self._shared = Shared(tables, window, page, threads)
        self.packed: list[PackedLayer] = []
        for i, layer in enumerate(self.layers):
            if type(layer) is DynamicLayer:
                self.packed.append(PackedLayer(len(self.packed), self._shared))
                self.layers[i] = self.packed[-1]
        if not self.packed:
            raise ValueError("no layer of this model has full attention, so that none is packed")
        if getattr(config.get_text_config(decoder=True), "num_kv_shared_layers", 0):
            raise ValueError(
                "layers of this model use keys and values of earlier ones, which the shared buffer "
                "does not hold any more; use a DynamicCache"
            )

    @property
    def tables(self) -> KVTables | None:
        """The tables in use; None until there are some."""
        return self._shared.tables

    def update(
        self,
        key_states: torch.Tensor,
        value_states: torch.Tensor,
        layer_idx: int,
        *args: Any,
        **kwargs: Any,
    ) -> Pair:
        """Append tokens to a layer; return all its keys and values.

        They lie in a buffer that the next layer's update overwrites.
        """
        if self.tables is None and self.layers[layer_idx] is self.packed[0]:
            self._calibrate(self._shared.window + self._shared.page)
        full: Pair = super().update(key_states, value_states, layer_idx, *args, **kwargs)
        return full

    def _calibrate(self, least: int) -> None:
        """Make tables where every layer holds `least` tokens."""
        if min(layer.window_tokens for layer in self.packed) < max(1, least):
            return
        window = [(layer.keys, layer.values) for layer in self.packed]
        samples = (
            tuple(
                torch.stack([pair[which][row, :, :_SAMPLE].transpose(0, 1) for pair in window])
                for which in (0, 1)
            )
            for row in range(len(window[0][0]))
        )
        self._shared.tables = calibrate((k, v) for k, v in samples)

    def pack(self) -> None:
        """Pack every whole page, also of the windows, and free the buffer: until the next turn."""
        if self.tables is None:
            self._calibrate(1)
        for layer in self.packed:
            layer.pack(0)
        self._shared.rooms.clear()

    def memory(self) -> CacheMemory:
        """What is held now, in bytes."""
        packed = sum(
            sys.getsizeof(block)
            for block in {id(b): b for p in self.packed for row in p.pages for b in row}.values()
        )
        held = [layer for layer in self.packed if layer.is_initialized]
        window = sum(layer.keys.nbytes + layer.values.nbytes for layer in held)
        plain = sum(layer.get_seq_length() * layer.token_bytes for layer in held)
        buffer = sum(room.nbytes for room in self._shared.rooms.values())
        other = sum(
            value.nbytes
            for layer in self.layers
            if not isinstance(layer, PackedLayer)
            for value in vars(layer).values()
            if isinstance(value, torch.Tensor)
        )
        return CacheMemory(packed, window, buffer, other, plain + other)

    def __iter__(self) -> Iterator[tuple[torch.Tensor | None, ...]]:
        """Keys and values of each layer, copied out."""
        plain_layers = super().__iter__()  # type: ignore[no-untyped-call]
        for layer, plain in zip(self.layers, plain_layers, strict=True):
            if isinstance(layer, PackedLayer) and layer.pages:
                k, v = layer.read()
                yield k.clone(), v.clone(), None
            else:
                yield plain

    def to_pages(self, sequence: int = 0) -> bytes:
        """The packed layers of one sequence as coded pages, for a file or a `KVStore`.

        Raises:
            RuntimeError: there are no tokens.
        """
        if self.tables is None:
            self._calibrate(1)
        if self.tables is None:
            raise RuntimeError("the cache holds no tokens yet; call the model first")
        pairs = [tuple(x[sequence].clone() for x in layer.read()) for layer in self.packed]
        k, v = (torch.stack([pair[i] for pair in pairs]).transpose(1, 2) for i in (0, 1))
        return encode_pages(k, v, self.tables, page=self._shared.page, threads=self._shared.threads)

    @classmethod
    def from_pages(
        cls,
        config: PreTrainedConfig,
        sequences: Sequence[bytes],
        tables: KVTables,
        device: torch.device | str | None = None,
        **options: Any,
    ) -> Self:
        """A cache that continues where others were when `to_pages` was called.

        Args:
            config: of the same model, all of whose layers are packed.
            sequences: pages of each sequence of the batch, all of one length.
            tables: those that the pages name.
            device: of the model.
            options: as of the class.
        """
        cache = cls(config, tables, **options)
        if len(cache.packed) != len(cache.layers):
            raise ValueError("this model has layers that are not packed, and pages do not hold")
        pairs = [decode_pages(data, tables, threads=options.get("threads")) for data in sequences]
        shapes = {tuple(x.shape) for pair in pairs for x in pair[:1]}
        if len(shapes) != 1 or next(iter(shapes))[0] != len(cache.packed):
            raise ValueError(f"sequences of shapes {sorted(shapes)}: expected one, of all layers")
        for i, layer in enumerate(cache.packed):
            k, v = (torch.stack([p[which][i] for p in pairs]).transpose(1, 2) for which in (0, 1))
            layer.update(k.to(device), v.to(device))
        return cache
