"""The frozen form of `image/light`: integer parse, float values, and the weights file.

Its weights (`weight_files.py`) are int8 with a step per output channel for convolutions, float16
for the linear transforms, float32 for biases and gains, integers for the parse.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...entropy.models import gaussian
from ...entropy.models.gaussian import ROWS
from ...entropy.tables import TableSet
from .. import weight_files
from ..transforms.integer import ACTIVATION_STEP, IntegerConv2d
from ..weight_files import Weights
from . import light_model as networks
from .light_model import DEAD_ZONE, LATENTS, LEVELS, ROWS_PER_UNIT, Z_CHANNELS, LightModel, Size

POSITIONS = 64 * (LEVELS - 1)  # rate positions 0 .. POSITIONS, 64 to a level
_WEIGHTS = Path(__file__).parents[1] / "weights"
SHIPPED = {  # by name, the default first; old ones stay, as streams need them
    "mse": _WEIGHTS / "image-light-s-2.lpkw",
    "ms-ssim": _WEIGHTS / "image-light-s-msssim.lpkw",
    "mse-1": _WEIGHTS / "image-light-s.lpkw",
}
DEFAULT = SHIPPED["mse"]
_OFFSET_UNIT = 16  # table rows are kept in sixteenths
_FLOAT_PARTS = ("g_a", "g_s", "h_a", "means")
_STEP = ".step"
_INTEGER_LAYERS = ("first", "second", "third", "last")  # of h_s


def lerp_rows(table: Tensor, position: int) -> Tensor:
    """Integer interpolation of table rows: int32 [LEVELS, C] in sixteenths -> int32 [C]."""
    below = min(position >> 6, LEVELS - 2)
    part = position - (below << 6)
    return (table[below] * (64 - part) + table[below + 1] * part + 32) >> 6


class IntegerHyperScale(nn.Module):
    """h_s in integers: z -> rows of the Gaussian table, the same on every machine."""

    offset: Tensor  # int32 [LEVELS, LATENTS], sixteenths of a row
    z_row: Tensor  # int32 [LEVELS, Z_CHANNELS], sixteenths of a row

    def __init__(self, size: Size) -> None:
        """Make empty layers."""
        super().__init__()
        self.first = IntegerConv2d(Z_CHANNELS, size.wide, 3, relu=True)
        self.second = IntegerConv2d(size.wide, 4 * size.channels, 3, relu=True)
        self.third = IntegerConv2d(size.channels, size.wide, 3, relu=True)
        self.last = IntegerConv2d(size.wide, LATENTS, 1, relu=False)
        self.register_buffer("offset", torch.zeros(LEVELS, LATENTS, dtype=torch.int32))
        self.register_buffer("z_row", torch.zeros(LEVELS, Z_CHANNELS, dtype=torch.int32))

    def forward(self, z: Tensor, position: int) -> Tensor:
        """int8 [1, Z_CHANNELS, h/2, w/2] -> uint8 rows [1, LATENTS, h, w]."""
        x = F.pixel_shuffle(self.second(self.first(z)), 2)
        x = self.last(self.third(x)) * _ROWS_SCALE
        x = x + lerp_rows(self.offset, position)[:, None, None]
        rows: Tensor = ((x + _OFFSET_UNIT // 2) >> 4).clamp(0, ROWS - 1).to(torch.uint8)
        return rows

    def z_rows(self, position: int) -> Tensor:
        """Row of each channel of z, uint8 [Z_CHANNELS]."""
        rows = (lerp_rows(self.z_row, position) + _OFFSET_UNIT // 2) >> 4
        return rows.clamp(0, ROWS - 1).to(torch.uint8)


# The last layer counts in ACTIVATION_STEP; this makes sixteenths of a row of it.
_ROWS_SCALE = int(ROWS_PER_UNIT * ACTIVATION_STEP * _OFFSET_UNIT)


class FrozenLight(nn.Module):
    """What encoder and decoder run."""

    def __init__(self, size: Size) -> None:
        """Make empty networks."""
        super().__init__()
        self.size = size
        self.g_a, self.g_s = networks.Analysis(size), networks.Synthesis(size)
        self.h_a, self.means = networks.HyperAnalysis(size), networks.MeanContext(size)
        self.h_s = IntegerHyperScale(size)
        self.log_gain = nn.Parameter(torch.zeros(LEVELS, LATENTS))
        self.log_degain = nn.Parameter(torch.zeros(LEVELS, LATENTS))
        self.tables: TableSet = gaussian.freeze()
        self.dead_zone = gaussian.dead_zone(self.tables, DEAD_ZONE)  # the encoder's choice
        self.distortion = "mse"  # that they were trained for
        self.digest = b""


@torch.no_grad()
def frozen_state(model: LightModel) -> dict[str, Tensor]:
    """Turn a trained model into the tensors of a weights file."""
    frozen = FrozenLight(model.size)
    for name in _FLOAT_PARTS:
        getattr(frozen, name).load_state_dict(getattr(model, name).state_dict())
    frozen.log_gain.copy_(model.log_gain)
    frozen.log_degain.copy_(model.log_degain)
    for name in _INTEGER_LAYERS:
        layer = getattr(model.h_s, name).freeze()
        getattr(frozen.h_s, name).load_state_dict(layer.state_dict())
    frozen.h_s.offset.copy_((model.h_s.offset * _OFFSET_UNIT).round())
    frozen.h_s.z_row.copy_((model.z_row.clamp(0, ROWS - 1) * _OFFSET_UNIT).round())
    state: dict[str, Tensor] = {}
    for name, value in frozen.state_dict().items():
        state |= _compact(name, value)
    state["tables"] = torch.frombuffer(bytearray(frozen.tables.to_bytes()), dtype=torch.uint8)
    return state


@torch.no_grad()
def thaw(frozen: FrozenLight) -> LightModel:
    """The training form of frozen weights, which `frozen_state` turns into the same again."""
    model = LightModel(frozen.size)
    for name in _FLOAT_PARTS:
        getattr(model, name).load_state_dict(getattr(frozen, name).state_dict())
    model.log_gain.copy_(frozen.log_gain)
    model.log_degain.copy_(frozen.log_degain)
    model.h_s = differentiable_rows(frozen.h_s, frozen.size).requires_grad_()
    model.z_row.copy_(frozen.h_s.z_row / _OFFSET_UNIT)
    return model


@torch.no_grad()
def differentiable_rows(h_s: IntegerHyperScale, size: Size) -> networks.HyperScale:
    """The training form of h_s, without gradients of its weights."""
    thawed = networks.HyperScale(size)
    for name in _INTEGER_LAYERS:
        getattr(thawed, name).thaw(getattr(h_s, name))
    thawed.offset.copy_(h_s.offset / _OFFSET_UNIT)
    return thawed.requires_grad_(False)


def _compact(name: str, value: Tensor) -> dict[str, Tensor]:
    """What a weights file holds for a parameter or buffer."""
    if not value.is_floating_point() or not name.endswith((".weight", ".linear")):
        return {name: value}
    if name.endswith(".linear"):
        return {name: value.half()}
    # A step that float16 holds: its multiples up to 127 are exact in float32.
    step = (value.abs().amax(1) / 127).clamp_min(2**-14).half()
    return {name: (value / step.float()[:, None]).round().to(torch.int8), name + _STEP: step}


def _expand(name: str, state: Mapping[str, Tensor], like: Tensor) -> Tensor:
    """The mirror of `_compact`; earlier files hold float16."""
    value = state[name].to(like.dtype)
    return value * state[name + _STEP].float()[:, None] if name + _STEP in state else value


def load_frozen(weights: Weights) -> FrozenLight:
    """The networks of a weights file.

    Raises:
        ValueError: its tensors are not those of this codec.
    """
    try:
        state = dict(weights.tensors)
        tables = TableSet.from_bytes(state.pop("tables").numpy().tobytes())
        channels = state["g_a.head.bias"].numel()
        wide = state["g_s.head.bias"].numel()
        blocks = len({n.split(".")[2] for n in state if n.startswith("g_s.blocks.")})
        frozen = FrozenLight(Size(channels, wide, blocks))
        parameters = frozen.state_dict().items()
        frozen.load_state_dict({n: _expand(n, state, value) for n, value in parameters})
    except Exception as error:
        raise ValueError(f"the tensors are not those of image/light: {error}") from error
    frozen.tables = tables
    frozen.dead_zone = gaussian.dead_zone(tables, DEAD_ZONE)
    frozen.distortion = weights.config.get("distortion", "mse")
    frozen.digest = weights.digest
    frozen.requires_grad_(False)
    return frozen.eval()


@functools.lru_cache(maxsize=4)
def load_weights(path: Path = DEFAULT) -> FrozenLight:
    """Load a weights file; ValueError where it is damaged or another codec's."""
    with torch.inference_mode(False):  # whoever comes first: later uses may need gradients
        return load_frozen(weight_files.read(path, "image/light"))
