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
from ..transforms.integer import ACTIVATION_STEP, IntegerConv2d, QuantConv2d
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


def lerp_rows(table: Tensor, position: int) -> Tensor:
    """Integer interpolation of table rows: int32 [LEVELS, C] in sixteenths -> int32 [C]."""
    below = min(position >> 6, LEVELS - 2)
    part = position - (below << 6)
    return (table[below] * (64 - part) + table[below + 1] * part + 32) >> 6


# The last layers count in ACTIVATION_STEP; this makes sixteenths of a row of it.
_ROWS_SCALE = int(ROWS_PER_UNIT * ACTIVATION_STEP * _OFFSET_UNIT)


class RowTables(nn.Module):
    """What a rate position adds to rows of the Gaussian table, and the rows of z."""

    offset: Tensor  # int32 [LEVELS, latents], sixteenths of a row
    z_row: Tensor  # int32 [LEVELS, channels of z], sixteenths of a row

    def __init__(self, latents: int, z_channels: int) -> None:
        """Make empty tables."""
        super().__init__()
        self.register_buffer("offset", torch.zeros(LEVELS, latents, dtype=torch.int32))
        self.register_buffer("z_row", torch.zeros(LEVELS, z_channels, dtype=torch.int32))

    def rows(self, fixed: Tensor, position: int) -> Tensor:
        """Output of a last layer, int32 [B, latents, h, w] -> uint8 rows."""
        x = fixed * _ROWS_SCALE + lerp_rows(self.offset, position)[:, None, None]
        rows: Tensor = ((x + _OFFSET_UNIT // 2) >> 4).clamp(0, ROWS - 1).to(torch.uint8)
        return rows

    def z_rows(self, position: int) -> Tensor:
        """Row of each channel of z, uint8."""
        rows = (lerp_rows(self.z_row, position) + _OFFSET_UNIT // 2) >> 4
        return rows.clamp(0, ROWS - 1).to(torch.uint8)

    @torch.no_grad()
    def freeze(self, trained: nn.Module, z_row: Tensor) -> None:
        """Take layers and offsets of their training form, and the rows of z."""
        for name, layer in trained.named_children():
            assert isinstance(layer, QuantConv2d)
            getattr(self, name).load_state_dict(layer.freeze().state_dict())
        self.offset.copy_((trained.get_parameter("offset") * _OFFSET_UNIT).round())
        self.z_row.copy_((z_row.clamp(0, ROWS - 1) * _OFFSET_UNIT).round())

    @torch.no_grad()
    def thaw(self, trained: nn.Module, z_row: Tensor) -> None:
        """The mirror of `freeze`."""
        for name, layer in trained.named_children():
            assert isinstance(layer, QuantConv2d)
            layer.thaw(getattr(self, name))
        trained.get_parameter("offset").copy_(self.offset / _OFFSET_UNIT)
        z_row.copy_(self.z_row / _OFFSET_UNIT)


class IntegerHyperScale(RowTables):
    """h_s in integers: z -> rows of the Gaussian table, the same on every machine."""

    def __init__(self, size: Size, latents: int = LATENTS) -> None:
        """Make empty layers."""
        super().__init__(latents, Z_CHANNELS)
        self.first = IntegerConv2d(Z_CHANNELS, size.wide, 3, relu=True)
        self.second = IntegerConv2d(size.wide, 4 * size.channels, 3, relu=True)
        self.third = IntegerConv2d(size.channels, size.wide, 3, relu=True)
        self.last = IntegerConv2d(size.wide, latents, 1, relu=False)

    def forward(self, z: Tensor, position: int) -> Tensor:
        """int8 [1, Z_CHANNELS, h/2, w/2] -> uint8 rows [1, latents, h, w]."""
        x = F.pixel_shuffle(self.second(self.first(z)), 2)
        return self.rows(self.last(self.third(x)), position)


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
    frozen.h_s.freeze(model.h_s, model.z_row)
    state: dict[str, Tensor] = {}
    for name, value in frozen.state_dict().items():
        state |= compact(name, value)
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
    frozen.h_s.thaw(model.h_s, model.z_row)
    return model


@torch.no_grad()
def differentiable_rows(h_s: IntegerHyperScale, size: Size) -> networks.HyperScale:
    """The training form of h_s, without gradients of its weights."""
    thawed = networks.HyperScale(size)
    h_s.thaw(thawed, torch.empty(h_s.z_row.shape))
    return thawed.requires_grad_(False)


def compact(name: str, value: Tensor, most: int = 127) -> dict[str, Tensor]:
    """What a weights file holds for a parameter or buffer; `most` is of the integers of weights."""
    if not value.is_floating_point() or not name.endswith((".weight", ".linear")):
        return {name: value}
    if name.endswith(".linear"):
        return {name: value.half()}
    # A step that float16 holds: its multiples up to 127 are exact in float32.
    step = (value.abs().amax(1) / most).clamp_min(2**-14).half()
    return {name: (value / step.float()[:, None]).round().to(torch.int8), name + _STEP: step}


def expand(name: str, state: Mapping[str, Tensor], like: Tensor) -> Tensor:
    """The mirror of `compact`; earlier files hold float16."""
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
        frozen.load_state_dict({n: expand(n, state, value) for n, value in parameters})
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
