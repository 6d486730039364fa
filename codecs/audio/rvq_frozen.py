"""Weights of `audio/rvq`: what is stored of a model, and the model from what is stored.

Matrices and codebooks are kept as float16, vectors as float32.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..weight_files import Weights
from .rvq_model import RvqModel, Size

_FOLDER = Path(__file__).parents[1] / "weights"
SHIPPED: Mapping[str, Path] = {"speech": _FOLDER / "audio-speech.lpkw"}
_TRAINING_ONLY = ("counts", "sums", "started")  # of codebooks


@torch.no_grad()
def frozen_state(model: RvqModel) -> dict[str, Tensor]:
    """The tensors of a weights file."""
    return {
        name: (value.half() if value.ndim > 1 else value.float()).contiguous().clone()
        for name, value in model.state_dict().items()
        if name.rsplit(".", 1)[-1] not in _TRAINING_ONLY
    }


def config_of(size: Size) -> dict[str, Any]:
    """The configuration that stands beside the tensors."""
    return dataclasses.asdict(size)


def load_networks(weights: Weights) -> RvqModel:
    """The model of a weights file.

    Raises:
        ValueError: the configuration or the tensors are not those of such a model.
    """
    model = RvqModel(Size(**weights.config))
    known = model.state_dict()
    wanted = {n for n in known if n.rsplit(".", 1)[-1] not in _TRAINING_ONLY}
    if wanted != set(weights.tensors):
        raise ValueError(f"weights lack or have too much: {sorted(wanted ^ set(weights.tensors))}")
    state = {name: value.float() for name, value in weights.tensors.items()}
    for stage in range(model.size.n_q):
        name = f"quantizer.stages.{stage}."
        codebook = state[name + "codebook"]
        state[name + "started"] = torch.tensor(True)
        state[name + "counts"] = torch.ones(len(codebook))
        state[name + "sums"] = codebook.clone()
    model.load_state_dict(state)
    return model
