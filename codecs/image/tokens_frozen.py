"""The frozen form of `image/tokens`: float networks, integer prior, and their weights file.

Matrices are kept as int8 with a float32 scale for each row (`name` and `name.scale`), codebooks as
float16, the rest of the networks as float32; the prior and its tables are integers.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ...entropy.models import categorical
from ...entropy.tables import TableSet
from .. import weight_files
from ..weight_files import Weights
from .tokens_model import Size, TokensModel
from .tokens_prior import IntegerTokenPrior, TokenPrior

SHIPPED = Path(__file__).parents[1] / "weights" / "image-tokens.lpkw"
_TRAINING_ONLY = ("counts", "sums", "started")  # of codebooks
_MOST = 1 << 16  # channels or codes that a configuration may name


class FrozenTokens(nn.Module):
    """What encoder and decoder run."""

    def __init__(self, size: Size) -> None:
        """Make empty networks."""
        super().__init__()
        self.size = size
        self.networks = TokensModel(size)
        self.prior = IntegerTokenPrior(self.networks.codebook_sizes)
        self.tables: TableSet
        self.digest = b""


@torch.no_grad()
def frozen_state(
    networks: TokensModel, prior: TokenPrior
) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The tensors and the configuration of a weights file."""
    state: dict[str, Tensor] = {}
    for name, value in networks.state_dict().items():
        kind = name.rsplit(".", 1)[-1]
        if kind in _TRAINING_ONLY:
            continue
        if kind in ("weight", "linear"):
            state[f"networks.{name}"], state[f"networks.{name}.scale"] = _to_int8(value)
        else:
            state[f"networks.{name}"] = value.half() if kind == "codebook" else value
    state |= {f"prior.{name}": value for name, value in prior.freeze().state_dict().items()}
    tables = bytearray(categorical.freeze().to_bytes())
    state["tables"] = torch.frombuffer(tables, dtype=torch.uint8)
    return {n: v.detach().contiguous().clone() for n, v in state.items()}, config_of(networks.size)


def config_of(size: Size) -> dict[str, Any]:
    """A size as the configuration of a weights file holds it."""
    return {n: list(v) if isinstance(v, tuple) else v for n, v in asdict(size).items()}


def _to_int8(matrix: Tensor) -> tuple[Tensor, Tensor]:
    """Rows of int8 and their scales, float32 [rows]."""
    scale = matrix.abs().amax(1).clamp_min(1e-12) / 127
    return (matrix / scale[:, None]).round().to(torch.int8), scale


def load_frozen(weights: Weights) -> FrozenTokens:
    """The networks of a weights file.

    Raises:
        ValueError: its configuration or its tensors are not those of this codec.
    """
    try:
        frozen = FrozenTokens(_size(weights.config))
        state = dict(weights.tensors)
        frozen.tables = TableSet.from_bytes(state.pop("tables").numpy().tobytes())
        for name in [name for name in state if name.endswith((".weight.scale", ".linear.scale"))]:
            matrix = name.removesuffix(".scale")
            state[matrix] = state[matrix].float() * state.pop(name)[:, None]
        known = frozen.state_dict()
        left_out = [n for n in known if n.rsplit(".", 1)[-1] in _TRAINING_ONLY]
        state |= {name: torch.ones_like(known[name]) for name in left_out}
        frozen.load_state_dict({n: v.to(known[n].dtype) for n, v in state.items()})
    except Exception as error:
        raise ValueError(f"the tensors are not those of image/tokens: {error}") from error
    frozen.digest = weights.digest
    frozen.requires_grad_(False)
    return frozen.eval()


def _size(config: Mapping[str, Any]) -> Size:
    values: dict[str, Any] = {n: tuple(v) if isinstance(v, list) else v for n, v in config.items()}
    for name, value in values.items():
        parts = value if isinstance(value, tuple) else (value,)
        if not all(type(part) is int and 0 < part <= _MOST for part in parts):
            raise ValueError(f"configuration {name} is {value!r}, expected 1 to {_MOST}")
    return Size(**values)


@torch.no_grad()
def thaw(frozen: FrozenTokens) -> tuple[TokensModel, TokenPrior]:
    """The training form of frozen weights."""
    networks, prior = TokensModel(frozen.size), TokenPrior(frozen.networks.codebook_sizes)
    networks.load_state_dict(frozen.networks.state_dict())
    for codes in (networks.coarse_codes, *networks.fine_codes.stages):
        codes.sums.copy_(codes.codebook)  # as if each had been hit once
    prior.thaw(frozen.prior)
    return networks, prior


@functools.lru_cache(maxsize=4)
def load_weights(path: Path = SHIPPED) -> FrozenTokens:
    """Load a weights file; ValueError where it is damaged or another codec's."""
    return load_frozen(weight_files.read(path, "image/tokens"))
