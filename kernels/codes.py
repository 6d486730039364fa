"""The prior of residual quantizers' codes: checks arguments and picks the fastest backend.

Network and bytes are defined in `codes_ref`; every backend writes and reads exactly those. Coding
releases the interpreter lock, and one network serves any number of threads.
"""

from __future__ import annotations

import numpy as np

from . import codes_ref, rans
from .codes_ref import LIMIT, Codes, Dense, Model
from .errors import BitstreamError
from .extension import compiled

__all__ = ["LIMIT", "MAX_SIZE", "UNITS", "Codes", "Dense", "Model", "Network"]

UNITS = 16  # widths are multiples of it
MAX_WIDTH = 1024
MAX_SIZE = 4096  # codes of a codebook
MAX_BOOKS = 64
MAX_PAST = 8


class Network:
    """A model as the kernels run it; nothing in it changes."""

    def __init__(self, model: Model) -> None:
        """Check the arrays.

        Raises:
            ValueError: a dtype, a shape, a width or a value that is not of such a model.
        """
        _check(model)
        self.model = model
        self._prepared: object | None = None

    def __reduce__(self) -> tuple[type[Network], tuple[Model]]:
        """Copies make their own compiled form."""
        return Network, (self.model,)

    def encode(self, codes: Codes, *, backend: str | None = None) -> bytes:
        """Code frames.

        Args:
            codes: int64 [k, T], of the first k codebooks.
            backend: one of `rans.backends()`; None = the fastest. The bytes are the same.

        Returns:
            The bytes, one or more: no length, no checksum.

        Raises:
            ValueError: a wrong dtype or shape, or a code that its codebook has not.
        """
        chosen = rans.pick(backend)
        if codes.dtype != np.int64 or codes.ndim != 2:
            raise ValueError(f"codes are {codes.dtype} {codes.shape}, expected int64 [k, T]")
        self._check_books(len(codes))
        sizes = np.array(self.model.sizes[: len(codes)])[:, None]
        if ((codes < 0) | (codes >= sizes)).any():
            raise ValueError(f"codes are outside their codebooks, of {self.model.sizes} codes")
        if chosen == "ref":
            return codes_ref.encode(self.model, codes)
        given, isa = np.ascontiguousarray(codes), rans.ISAS.index(chosen)
        data: bytes = compiled().codes_encode(self._compiled(), given, len(codes), isa)
        return data

    def decode(
        self,
        data: bytes | bytearray | memoryview,
        k: int,
        count: int,
        *,
        backend: str | None = None,
    ) -> Codes:
        """The mirror of `encode`: int64 [k, count].

        Raises:
            ValueError: k is not a number of codebooks, or count is negative.
            BitstreamError: no encoder made these bytes of so many codes. Most damage is noticed
                here, not all of it: callers keep a checksum.
        """
        chosen = rans.pick(backend)
        self._check_books(k)
        if count < 0:
            raise ValueError(f"count is {count}, expected 0 or more")
        if chosen == "ref":
            return codes_ref.decode(self.model, bytes(data), k, count)
        codes = np.empty((k, count), np.int64)
        isa = rans.ISAS.index(chosen)
        if not compiled().codes_decode(self._compiled(), data, codes, k, isa):
            raise BitstreamError(codes_ref.ELSEWHERE)
        return codes

    def _check_books(self, k: int) -> None:
        if not 1 <= k <= len(self.model.sizes):
            raise ValueError(f"{k} codebooks, expected 1 to {len(self.model.sizes)}")

    def _compiled(self) -> object:
        if self._prepared is None:
            m = self.model
            widths = (*_widths(m), len(m.past.bias))
            layers = (m.first, m.past, m.hidden, m.features)
            self._prepared = compiled().codes_prepare(
                [size.bit_length() - 1 for size in m.sizes], widths, m.embedding,
                *(tuple(map(np.ascontiguousarray, layer)) for layer in layers), m.weight, m.bias,
            )  # fmt: skip
        return self._prepared


def _widths(model: Model) -> tuple[int, int, int, int]:
    """D, C, H and F."""
    layers = (model.first, model.hidden, model.features)
    context, hidden, features = (layer.weight.shape[1] for layer in layers)
    return model.embedding.shape[1], context, hidden, features


def _check(model: Model) -> None:
    sizes, total = model.sizes, sum(model.sizes)
    if not 1 <= len(sizes) <= MAX_BOOKS:
        raise ValueError(f"{len(sizes)} codebooks, expected 1 to {MAX_BOOKS}")
    for size in sizes:
        if not 2 <= size <= MAX_SIZE or size & (size - 1):
            raise ValueError(
                f"a codebook of {size} codes, expected a power of two, 2 to {MAX_SIZE}"
            )
    dim, context, hidden, features = _widths(model)
    for width in (dim, context, hidden, features):
        if not UNITS <= width <= MAX_WIDTH or width % UNITS:
            raise ValueError(f"a width is {width}, expected a multiple of {UNITS} to {MAX_WIDTH}")
    past = len(model.past.bias)
    if past > MAX_PAST:
        raise ValueError(f"{past} layers of the past, expected at most {MAX_PAST}")
    _check_array("embedding", model.embedding, np.int8, (total, dim))
    _check_array("weight", model.weight, np.int8, (total, features))
    _check_array("bias", model.bias, np.int32, (total,))
    _check_dense("first", model.first, (1, context, dim))
    _check_dense("past", model.past, (past, context, 2 * context))
    _check_dense("hidden", model.hidden, (len(sizes), hidden, context + dim))
    _check_dense("features", model.features, (len(sizes), features, context + dim + hidden))


def _check_dense(name: str, layer: Dense, shape: tuple[int, int, int]) -> None:
    _check_array(f"{name}.weight", layer.weight, np.int8, shape)
    for part in ("bias", "multiplier", "shift"):
        _check_array(f"{name}.{part}", getattr(layer, part), np.int32, shape[:2])
    if ((layer.multiplier < 0) | (layer.multiplier > 1 << 15)).any():
        raise ValueError(f"{name}.multiplier has values outside 0 to 32768")
    if ((layer.shift < 1) | (layer.shift > 40)).any():
        raise ValueError(f"{name}.shift has values outside 1 to 40")


def _check_array(name: str, array: np.ndarray, dtype: type, shape: tuple[int, ...]) -> None:  # type: ignore[type-arg]
    if array.dtype != dtype or array.shape != shape:
        wanted = f"{np.dtype(dtype)} {shape}"
        raise ValueError(f"{name} is {array.dtype} {array.shape}, expected {wanted}")
