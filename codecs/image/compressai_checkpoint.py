"""Checkpoint files of CompressAI models: which architecture they are of, and the model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from compressai.registry import MODELS
from compressai.zoo import load_state_dict
from safetensors.torch import load_file
from torch import Tensor, nn

# Tried in this order; all differ in the names or shapes of their weights.
ARCHITECTURES = (
    "bmshj2018-factorized",
    "bmshj2018-factorized-relu",
    "bmshj2018-hyperprior",
    "mbt2018-mean",
    "mbt2018",
    "cheng2020-anchor",
    "cheng2020-attn",
    "cheng2020-anchor-checkerboard",
    "elic2022-official",
    "elic2022-chandelier",
)


def load_checkpoint(path: Path, architecture: str | None = None) -> nn.Module:
    """Load a model of the user's own.

    Args:
        path: a state dict, or a dict with one as "state_dict", saved by `torch.save`; or a
            .safetensors file. No code in it is run.
        architecture: a name of CompressAI's registry; None finds it by the weights.

    Raises:
        ValueError: the file is none of these, or of no architecture that is known.
    """
    state = _read(path)
    if architecture is not None:
        if architecture not in MODELS:
            raise ValueError(
                f"architecture is {architecture!r}, known are {', '.join(ARCHITECTURES)}"
            )
        try:
            return _build(architecture, state)
        except Exception as error:  # of every kind, by what a constructor meets first
            raise ValueError(f"{path} holds no {architecture}: {error}") from error
    for name in ARCHITECTURES:
        try:
            return _build(name, state)
        except Exception:
            continue
    raise ValueError(
        f"{path} holds the weights of no model known here ({', '.join(ARCHITECTURES)}); it begins "
        f"with {', '.join(list(state)[:3])}. A model of your own class can be given as such in "
        "Python: CompressAI(model)"
    )


def _build(name: str, state: dict[str, Tensor]) -> nn.Module:
    model: nn.Module = MODELS[name].from_state_dict(dict(state))
    return model


def _read(path: Path) -> dict[str, Tensor]:
    """The state dict of a file, with the names of this release of CompressAI."""
    try:
        if path.suffix == ".safetensors":
            found: Any = load_file(path)
        else:
            found = torch.load(path, map_location="cpu", weights_only=True)
    except OSError:
        raise
    except Exception as error:  # unpickling raises many kinds
        raise ValueError(f"{path} is no checkpoint: {error}") from error
    if isinstance(found, dict) and isinstance(found.get("state_dict"), dict):
        found = found["state_dict"]
    if (
        not isinstance(found, dict)
        or not found
        or not all(isinstance(k, str) and isinstance(v, Tensor) for k, v in found.items())
    ):
        raise ValueError(
            f"{path} is no checkpoint: expected a state dict or a dict with 'state_dict', got "
            f"{type(found).__name__}"
        )
    state: dict[str, Tensor] = load_state_dict(found)
    return state
