"""Weights of `audio/rvq`: what is stored of a model, and the model from what is stored.

Matrices and codebooks are kept as int8 with a float32 scale for each row (`name` and
`name.scale`; one scale for a codebook), vectors as float32; the prior is integers.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ...entropy.models.code_prior import IntegerCodePrior
from ...entropy.models.code_prior import Size as PriorSize
from ..weight_files import Weights
from .rvq_model import RvqModel, Size

_FOLDER = Path(__file__).parents[1] / "weights"
SHIPPED: Mapping[str, Path] = {
    "speech": _FOLDER / "audio-speech.lpkw",
    "general": _FOLDER / "audio-general.lpkw",
}
_MOST = 1 << 16  # of anything that a configuration counts
_TRAINING_ONLY = ("counts", "sums", "started")  # of codebooks


@torch.no_grad()
def frozen_state(model: RvqModel, prior: IntegerCodePrior | None) -> dict[str, Tensor]:
    """The tensors of a weights file."""
    state: dict[str, Tensor] = {}
    for name, value in model.state_dict().items():
        kind = name.rsplit(".", 1)[-1]
        if kind in _TRAINING_ONLY:
            continue
        if kind in ("weight", "codebook") and value.ndim == 2:
            state[name], state[name + ".scale"] = _to_int8(value, kind == "weight")
        else:
            state[name] = value.float()
    if prior is not None:
        state |= {f"prior.{name}": value for name, value in prior.state_dict().items()}
    return {name: value.detach().contiguous().clone() for name, value in state.items()}


def _to_int8(matrix: Tensor, by_row: bool) -> tuple[Tensor, Tensor]:
    """Int8 and scales, float32 [rows, 1] or [1, 1]."""
    peak = matrix.abs().amax(1, keepdim=True) if by_row else matrix.abs().amax().view(1, 1)
    scale = (peak.clamp_min(1e-12) / 127).float()
    return (matrix / scale).round().to(torch.int8), scale


def config_of(size: Size, prior: IntegerCodePrior | None) -> dict[str, Any]:
    """The configuration that stands beside the tensors."""
    return dataclasses.asdict(size) | (
        {"prior": dataclasses.asdict(prior.size)} if prior is not None else {}
    )


def load_networks(weights: Weights) -> tuple[RvqModel, IntegerCodePrior | None]:
    """The model of a weights file, and the prior of its codes where it has one.

    Raises:
        ValueError: the configuration or the tensors are not those of such a model.
    """
    try:
        return _load(weights)
    except Exception as error:  # tensors of other shapes, missing ones, sizes that are no integers
        raise ValueError(f"the tensors are not those of audio/rvq: {error}") from error


def _load(weights: Weights) -> tuple[RvqModel, IntegerCodePrior | None]:
    config = dict(weights.config)
    widths = config.pop("prior", None)
    size, state = Size(**_checked(config)), dict(weights.tensors)
    for name in [name for name in state if name.endswith(".scale") and name[:-6] in state]:
        matrix = name.removesuffix(".scale")
        state[matrix] = state[matrix].float() * state.pop(name)
    prior = None
    if widths is not None:
        sizes = [size.codebook_size] * size.n_q
        prior = IntegerCodePrior(sizes, PriorSize(**_checked(widths)))
        parts = [name for name in state if name.startswith("prior.")]
        prior.load_state_dict({name.removeprefix("prior."): state.pop(name) for name in parts})
    for stage in range(size.n_q):
        name = f"quantizer.stages.{stage}."
        codebook = state[name + "codebook"]
        state[name + "started"] = torch.tensor(True)
        state[name + "counts"] = torch.ones(len(codebook))
        state[name + "sums"] = codebook.clone()
    model = RvqModel(size)
    model.load_state_dict(state)
    return model, prior


def _checked(sizes: dict[str, Any]) -> dict[str, int]:
    for name, value in sizes.items():
        if type(value) is not int or not 0 < value <= _MOST:
            raise ValueError(f"configuration {name} is {value!r}, expected 1 to {_MOST}")
    return sizes
