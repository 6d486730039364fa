"""A CompressAI model whose entropy models code through latentpack.

The model is copied, and the places where it turns latents into bytes are replaced:

    EntropyBottleneck, GaussianConditional   compress, decompress, build_indexes
    JointAutoregressiveHierarchicalPriors    _compress_ar, _decompress_ar: in wavefront order
    RasterScanLatentCodec                    compress, decompress: likewise

So the model's own `compress` and `decompress` run its networks in its own order, whatever its
architecture, and the symbols go through one session (`compressai_session.py`).
"""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import numpy as np
import torch
from compressai.entropy_models import EntropyBottleneck, EntropyModel, GaussianConditional
from compressai.latent_codecs import RasterScanLatentCodec
from compressai.layers import MaskedConv2d
from compressai.models import JointAutoregressiveHierarchicalPriors
from torch import Tensor, nn

from ..tensor.digest import digest
from .compressai_layers import accelerate
from .compressai_session import Decoding, Encoding, FrozenTables, Scales, Session
from .compressai_wavefront import Wavefront, quantise

_session: ContextVar[Session] = ContextVar("session")


class Coded:
    """What stands where CompressAI has a string; the decoder's are empty."""

    def __init__(self, symbols: Tensor | None = None) -> None:
        """Keep the symbols, int16."""
        self.symbols = symbols


class Bridge:
    """A frozen copy of a model.

    Attributes:
        digest: 8 bytes that name its weights and tables.
        cell: sides of the pictures it takes are multiples of this.
        slices: how many checks a picture has.
        streams: how many streams a picture has.
        model: the copy, whose entropy models work within `using(session)`.
        tables: its tables.
        strings: what its `decompress` takes for strings.
    """

    def __init__(self, model: nn.Module) -> None:
        """Copy a model.

        Raises:
            ValueError: it codes in ways that are not known here.
        """
        if not (hasattr(model, "compress") and hasattr(model, "decompress")):
            raise unsupported(model, "it has no methods compress and decompress")
        self.model: Any = copy.deepcopy(model).cpu().float().eval().requires_grad_(False)
        entropy_models = _entropy_models(self.model)
        _freeze(self.model, entropy_models)
        self.digest = digest({type(model).__name__ + "/" + k: v for k, v in _state(self.model)})
        try:
            self.tables = FrozenTables(entropy_models)
            _connect(self.model, entropy_models, self.tables)
        except ValueError as error:
            raise unsupported(model, str(error)) from error
        for transform in ("g_a", "g_s"):
            if isinstance(getattr(self.model, transform, None), nn.Module):
                accelerate(getattr(self.model, transform))
        self.cell = int(getattr(model, "downsampling_factor", 64))
        self.streams = len(self.tables.sets)
        self.strings, self._shape, self.slices = self._dry_run(model)

    @torch.inference_mode()
    def _dry_run(self, model: nn.Module) -> tuple[Any, Callable[[int, int], Any], int]:
        """What `decompress` must be given, found with small pictures."""
        found = []
        for rows, columns in ((1, 1), (2, 1), (1, 2)):
            session = Session()
            with using(session):
                try:
                    x = torch.zeros(1, 3, rows * self.cell, columns * self.cell)
                    found.append(self.model.compress(x))
                except Exception as error:  # of a model that nobody here has seen
                    raise unsupported(model, f"compress() failed: {error}") from error
        strings = found[0]["strings"]
        if not all(isinstance(leaf, Coded) for leaf in _leaves(strings)):
            raise unsupported(model, "it codes symbols by means of its own")
        shapes = [result["shape"] for result in found]
        return _emptied(strings), lambda h, w: _extrapolated(shapes, h, w), len(session.checks)

    @torch.inference_mode()
    def encode(self, x: Tensor) -> tuple[int, list[bytes], list[bytes]]:
        """Code a picture, float32 [1, 3, H, W] in 0..1, sides multiples of `cell`.

        Returns:
            The shift of the scales, the checks of its slices, and its streams.

        Raises:
            ValueError: a latent is NaN, infinite or out of reach.
        """
        session = Encoding(self.tables)
        with using(session):
            self.model.compress(x)
        shift, streams = session.finish()
        return shift, session.checks, streams

    @torch.inference_mode()
    def decode(
        self,
        shift: int,
        checks: Sequence[bytes],
        streams: Sequence[bytes],
        height: int,
        width: int,
        made: str,
    ) -> Tensor:
        """The mirror of `encode`; `made` is the encoder's platform, for messages.

        Raises:
            BitstreamError: the streams are damaged.
            ValueError: this machine computes other scales than the encoder.
        """
        session = Decoding(self.tables, shift, streams, checks, made)
        shape = self._shape(height // self.cell, width // self.cell)
        with using(session):
            x_hat: Tensor = self.model.decompress(self.strings, shape)["x_hat"]
        session.end()
        return x_hat


@contextmanager
def using(session: Session) -> Iterator[None]:
    """Let the entropy models of bridged models code in this session."""
    token = _session.set(session)
    try:
        yield
    finally:
        _session.reset(token)


def unsupported(model: object, why: str) -> ValueError:
    """The error for a model that can't be bridged."""
    return ValueError(
        f"{type(model).__name__} can't be coded here: {why}. Known are the CompressAI models "
        "FactorizedPrior, ScaleHyperprior, MeanScaleHyperprior, "
        "JointAutoregressiveHierarchicalPriors, Cheng2020Anchor, Cheng2020Attention, "
        "Cheng2020AnchorCheckerboard, Elic2022Official, Elic2022Chandelier, and others made of "
        "EntropyBottleneck and GaussianConditional"
    )


def _entropy_models(model: nn.Module) -> list[Any]:
    """Gaussian ones first: their rows need no offset."""
    found = [module for module in model.modules() if isinstance(module, EntropyModel)]
    for module in found:
        if type(module) not in (EntropyBottleneck, GaussianConditional):
            raise unsupported(model, f"it has a {type(module).__name__}")
    if not found:
        raise unsupported(model, "it has no entropy model")
    return sorted(found, key=lambda module: isinstance(module, EntropyBottleneck))


def _freeze(model: Any, entropy_models: list[Any]) -> None:
    """Make tables where there are none, and write masks into masked weights."""
    if any(module.offset.numel() == 0 for module in entropy_models):
        warnings.warn(
            f"{type(model).__name__} has no coding tables: they are made now, as by its method "
            "update(). Save the model after update(), else another machine may make other tables "
            "and refuse the files",
            RuntimeWarning,
            stacklevel=4,
        )
        model.update()
    for module in model.modules():
        if isinstance(module, MaskedConv2d):
            module.weight.data *= module.mask


def _state(model: nn.Module) -> list[tuple[str, Tensor]]:
    return [(name, value.contiguous()) for name, value in model.state_dict().items()]


def _connect(model: Any, entropy_models: list[Any], tables: FrozenTables) -> None:
    """Replace what turns latents into bytes."""
    scales: dict[Any, Scales] = {}
    for module in entropy_models:
        if isinstance(module, EntropyBottleneck):
            tap: Any = _Bottleneck(module, tables)
        else:
            scales[module] = Scales(module, tables)
            tap = _Gaussian(scales[module])
            module.build_indexes = tap.build_indexes
        module.compress, module.decompress = tap.compress, tap.decompress
    for module in model.modules():
        if isinstance(module, RasterScanLatentCodec):
            scan = _Scan(_wavefront(module, scales))
            module.compress, module.decompress = scan.compress, scan.decompress
    if isinstance(model, JointAutoregressiveHierarchicalPriors):
        joint = _Joint(_wavefront(model, scales))
        model._compress_ar, model._decompress_ar = joint.compress, joint.decompress
    if isinstance(getattr(model, "g_s", None), nn.Module):
        # Nothing is synthesised of a stream that has not ended where it should.
        model.g_s.register_forward_pre_hook(lambda *_: _session.get().end())


def _wavefront(owner: Any, scales: dict[Any, Scales]) -> Wavefront:
    own = scales[owner.gaussian_conditional]
    return Wavefront(owner.context_prediction, owner.entropy_parameters, own)


class _Bottleneck:
    """In place of EntropyBottleneck: the row is the channel."""

    def __init__(self, module: Any, tables: FrozenTables) -> None:
        self._medians = module._get_medians().detach().reshape(-1).clone()
        rows = np.arange(len(self._medians)) + tables.first(module)
        self._rows = torch.from_numpy(tables.as_rows(rows))

    def compress(self, x: Tensor) -> list[Coded]:
        symbols = quantise(x, self._like(self._medians, x.shape[2:]))
        return [Coded(_session.get().code(self._all_rows(x.shape[2:]), symbols))]

    def decompress(self, strings: list[Coded], size: Sequence[int]) -> Tensor:
        symbols = strings[0].symbols
        if symbols is None:
            symbols = _session.get().code(self._all_rows(size), None)
        return symbols + self._like(self._medians, size)

    def _like(self, values: Tensor, size: Sequence[int]) -> Tensor:
        return values.view(1, -1, *(1 for _ in size))

    def _all_rows(self, size: Sequence[int]) -> Tensor:
        return self._like(self._rows, size).expand(1, -1, *size).contiguous()


class _Gaussian:
    """In place of GaussianConditional; its indexes are steps of scales."""

    def __init__(self, scales: Scales) -> None:
        self._scales = scales
        self.build_indexes = scales.steps

    def compress(
        self, y: Tensor, steps: Tensor, means: Tensor | float | None = None
    ) -> list[Coded]:
        return [Coded(self._code(steps, quantise(y, 0.0 if means is None else means)))]

    def decompress(
        self,
        strings: list[Coded],
        steps: Tensor,
        dtype: torch.dtype = torch.float,
        means: Tensor | None = None,
    ) -> Tensor:
        symbols = strings[0].symbols
        if symbols is None:
            symbols = self._code(steps, None)
        return symbols.to(dtype) if means is None else symbols + means

    def _code(self, steps: Tensor, symbols: Tensor | None) -> Tensor:
        session = _session.get()
        session.note(steps)
        session.seal()
        return session.code(steps, symbols, self._scales)


class _Joint:
    """In place of the loops of JointAutoregressiveHierarchicalPriors, which pad y_hat by 2."""

    def __init__(self, wavefront: Wavefront) -> None:
        self._wavefront = wavefront

    def compress(self, y: Tensor, params: Tensor, height: int, width: int, *_: int) -> Coded:
        p = self._wavefront.reach
        return Coded(_run(self._wavefront, params, y[:, :, p : p + height, p : p + width]))

    def decompress(
        self, _: Coded, y_hat: Tensor, params: Tensor, height: int, width: int, *__: int
    ) -> None:
        p = self._wavefront.reach
        y_hat[:, :, p : p + height, p : p + width] = _run(self._wavefront, params, None)


class _Scan:
    """In place of RasterScanLatentCodec."""

    def __init__(self, wavefront: Wavefront) -> None:
        self._wavefront = wavefront

    def compress(self, y: Tensor, params: Tensor) -> dict[str, Any]:
        y_hat = _run(self._wavefront, params, y)
        return {"strings": [[Coded(y_hat)]], "shape": y.shape[2:4], "y_hat": y_hat}

    def decompress(self, strings: Any, shape: Any, params: Tensor, **_: Any) -> dict[str, Any]:
        return {"y_hat": _run(self._wavefront, params, None)}


def _run(wavefront: Wavefront, params: Tensor, y: Tensor | None) -> Tensor:
    return wavefront.run(_session.get(), params, y)


def _leaves(strings: Any) -> list[Any]:
    if isinstance(strings, list | tuple):
        return [leaf for part in strings for leaf in _leaves(part)]
    return [strings]


def _emptied(strings: Any) -> Any:
    return [_emptied(part) for part in strings] if isinstance(strings, list) else Coded()


def _extrapolated(shapes: list[Any], rows: int, columns: int) -> Any:
    """The shape for so many cells, from those for (1, 1), (2, 1) and (1, 2)."""
    one, tall, wide = shapes
    if isinstance(one, int):
        return one + (tall - one) * (rows - 1) + (wide - one) * (columns - 1)
    if isinstance(one, dict):
        return {key: _extrapolated([shape[key] for shape in shapes], rows, columns) for key in one}
    parts = [_extrapolated(list(part), rows, columns) for part in zip(*shapes, strict=True)]
    return parts if isinstance(one, list) else tuple(parts)
