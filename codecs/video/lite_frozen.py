"""The frozen form of `video/lite`: integer parse, float values, and the weights file.

Its weights (`weight_files.py`) are int8 with a step per output channel for convolutions
(`name` and `name.step`), integers for the parse, float32 for the rest.
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
from . import lite_inter, lite_intra
from .lite_blocks import DEAD_ZONE, LATENTS, LEVELS, MAIN
from .lite_inter import FIELD_CHANNELS, SIDE, InterModel
from .lite_intra import IntraModel
from .lite_model import LiteModel

NAME = "video/lite"
POSITIONS = 64 * (LEVELS - 1)  # rate positions 0 .. POSITIONS, 64 to a level
SHIPPED = {"lite": Path(__file__).parents[1] / "weights" / "video-lite.lpkw"}
DEFAULT = SHIPPED["lite"]
_OFFSET_UNIT = 16  # table rows are kept in sixteenths
# The last layers count in ACTIVATION_STEP; this makes sixteenths of a row of it.
_ROWS_SCALE = int(lite_intra.ROWS_PER_UNIT * ACTIVATION_STEP * _OFFSET_UNIT)
_STEP = ".step"
_FINE = ("inter.filter.tail", "intra.g_s.up")  # these do feel a coarse step


def lerp_rows(table: Tensor, position: int) -> Tensor:
    """Integer interpolation of table rows: int32 [LEVELS, C] in sixteenths -> int32 [C]."""
    below = min(position >> 6, LEVELS - 2)
    part = position - (below << 6)
    return (table[below] * (64 - part) + table[below + 1] * part + 32) >> 6


class RowTables(nn.Module):
    """What a rate position adds to rows, and the rows of z."""

    offset: Tensor  # int32 [LEVELS, LATENTS], sixteenths of a row
    z_row: Tensor  # int32 [LEVELS, channels of z], sixteenths of a row

    def __init__(self, z_channels: int) -> None:
        """Make empty tables."""
        super().__init__()
        self.register_buffer("offset", torch.zeros(LEVELS, LATENTS, dtype=torch.int32))
        self.register_buffer("z_row", torch.zeros(LEVELS, z_channels, dtype=torch.int32))

    def rows(self, fixed: Tensor, position: int) -> Tensor:
        """Output of a last layer, int32 [B, LATENTS, h, w] -> uint8 rows."""
        x = fixed * _ROWS_SCALE + lerp_rows(self.offset, position)[:, None, None]
        rows: Tensor = ((x + _OFFSET_UNIT // 2) >> 4).clamp(0, ROWS - 1).to(torch.uint8)
        return rows

    def z_rows(self, position: int) -> Tensor:
        """Row of each channel of z, uint8."""
        rows = (lerp_rows(self.z_row, position) + _OFFSET_UNIT // 2) >> 4
        return rows.clamp(0, ROWS - 1).to(torch.uint8)


class IntraRows(RowTables):
    """h_s of frames that stand alone: z -> rows, the same on every machine."""

    def __init__(self) -> None:
        """Make empty layers."""
        super().__init__(lite_intra.Z_CHANNELS)
        wide, channels = lite_intra.WIDE, lite_intra.CHANNELS
        self.first = IntegerConv2d(lite_intra.Z_CHANNELS, wide, 3, relu=True)
        self.second = IntegerConv2d(wide, 4 * channels, 3, relu=True)
        self.third = IntegerConv2d(channels, wide, 3, relu=True)
        self.last = IntegerConv2d(wide, LATENTS, 1, relu=False)

    def forward(self, z: Tensor, position: int) -> Tensor:
        """int8 [B, Z_CHANNELS, h/2, w/2] -> uint8 rows [B, LATENTS, h, w]."""
        x = F.pixel_shuffle(self.second(self.first(z)), 2)
        return self.rows(self.last(self.third(x)), position)


class InterRows(RowTables):
    """Rows of frames that follow another, from integers alone; see `lite_inter.Rows`."""

    def __init__(self) -> None:
        """Make empty layers."""
        super().__init__(lite_inter.Z_CHANNELS)
        wide, channels = lite_inter.WIDE, lite_inter.CHANNELS
        self.of_z = IntegerConv2d(lite_inter.Z_CHANNELS, channels, 3, relu=True)
        self.up = IntegerConv2d(channels, 4 * SIDE, 1, relu=True)
        self.of_last = IntegerConv2d(MAIN, SIDE, 1, relu=True)
        self.hidden = IntegerConv2d(2 * SIDE + FIELD_CHANNELS, wide, 3, relu=True)
        self.of_anchors = IntegerConv2d(MAIN, SIDE, 3, relu=True)
        self.mix = IntegerConv2d(wide + SIDE, wide, 1, relu=True)
        self.first = IntegerConv2d(wide, LATENTS, 1, relu=False)
        self.second = IntegerConv2d(wide, LATENTS, 1, relu=False)

    def features(self, z: Tensor, last: Tensor, field: Tensor) -> Tensor:
        """What both halves share, int8 [B, WIDE, h, w].

        Args:
            z: int8 [B, Z_CHANNELS, h/2, w/2].
            last: q of the last frame, int16 [B, LATENTS, h, w].
            field: of `lite_inter.field_integers`, int8 [B, FIELD_CHANNELS, h, w].
        """
        side = F.pixel_shuffle(self.up(self.of_z(z)), 2)
        x: Tensor = self.hidden(torch.cat((side, self.of_last(magnitudes(last)), field), 1))
        return x

    def of_first(self, features: Tensor, position: int) -> Tensor:
        """Rows of the anchors, uint8 [B, LATENTS, h, w]."""
        return self.rows(self.first(features), position)

    def of_second(self, features: Tensor, anchors: Tensor, position: int) -> Tensor:
        """Rows of the others; `anchors` is q, int16, zero except at the anchors."""
        near = self.of_anchors(magnitudes(anchors))
        return self.rows(self.second(self.mix(torch.cat((features, near), 1))), position)


def magnitudes(q: Tensor) -> Tensor:
    """Sizes of the main integers, int8."""
    return q[:, :MAIN].abs().clamp(0, 127).to(torch.int8)


class FrozenIntra(nn.Module):
    """What encoder and decoder run for frames that stand alone."""

    def __init__(self) -> None:
        """Make empty networks."""
        super().__init__()
        model = IntraModel()
        self.g_a, self.g_s, self.h_a = model.g_a, model.g_s, model.h_a
        self.means, self.gains, self.h_s = model.means, model.gains, IntraRows()


class FrozenInter(nn.Module):
    """What encoder and decoder run for frames that follow another."""

    def __init__(self) -> None:
        """Make empty networks."""
        super().__init__()
        model = InterModel()
        self.transform, self.trunk, self.g_a = model.transform, model.trunk, model.g_a
        self.means, self.h_a, self.filter = model.means, model.h_a, model.filter
        self.gains, self.rows = model.gains, InterRows()


class FrozenLite(nn.Module):
    """All networks and tables of a weights file."""

    def __init__(self) -> None:
        """Make empty networks."""
        super().__init__()
        self.intra, self.inter = FrozenIntra(), FrozenInter()
        self.tables: TableSet = gaussian.freeze()
        self.dead_zone = gaussian.dead_zone(self.tables, DEAD_ZONE)  # the encoder's choice
        self.digest = b""


@torch.no_grad()
def frozen_state(model: LiteModel) -> dict[str, Tensor]:
    """Turn a trained model into the tensors of a weights file."""
    frozen = FrozenLite()
    for target, source in ((frozen.intra, model.intra), (frozen.inter, model.inter)):
        for name, part in target.named_children():
            if not isinstance(part, RowTables):
                part.load_state_dict(getattr(source, name).state_dict())
    _freeze_rows(frozen.intra.h_s, model.intra.h_s, model.intra.z_row)
    _freeze_rows(frozen.inter.rows, model.inter.rows, model.inter.z_row)
    state: dict[str, Tensor] = {}
    for name, value in frozen.state_dict().items():
        state |= _compact(name, value)
    state["tables"] = torch.frombuffer(bytearray(frozen.tables.to_bytes()), dtype=torch.uint8)
    return state


def _freeze_rows(target: RowTables, source: nn.Module, z_row: Tensor) -> None:
    for name, layer in source.named_children():
        assert isinstance(layer, QuantConv2d)
        getattr(target, name).load_state_dict(layer.freeze().state_dict())
    target.offset.copy_((source.get_parameter("offset") * _OFFSET_UNIT).round())
    target.z_row.copy_((z_row.clamp(0, ROWS - 1) * _OFFSET_UNIT).round())


@torch.no_grad()
def thaw(frozen: FrozenLite) -> LiteModel:
    """The training form of frozen weights, which `frozen_state` turns into the same again."""
    model = LiteModel()
    for source, target in ((frozen.intra, model.intra), (frozen.inter, model.inter)):
        for name, part in source.named_children():
            if not isinstance(part, RowTables):
                getattr(target, name).load_state_dict(part.state_dict())
    _thaw_rows(frozen.intra.h_s, model.intra.h_s, model.intra.z_row)
    _thaw_rows(frozen.inter.rows, model.inter.rows, model.inter.z_row)
    return model


def _thaw_rows(source: RowTables, target: nn.Module, z_row: Tensor) -> None:
    for name, layer in target.named_children():
        assert isinstance(layer, QuantConv2d)
        layer.thaw(getattr(source, name))
    target.get_parameter("offset").copy_(source.offset / _OFFSET_UNIT)
    z_row.copy_(source.z_row / _OFFSET_UNIT)


def _compact(name: str, value: Tensor) -> dict[str, Tensor]:
    """What a weights file holds for a parameter or buffer."""
    if not value.is_floating_point() or not name.endswith(".weight"):
        return {name: value}
    # A step that float16 holds: its multiples up to 127 are exact in float32.
    step = (value.abs().amax(1) / _most(name, value.numel())).clamp_min(2**-14).half()
    return {name: (value / step.float()[:, None]).round().to(torch.int8), name + _STEP: step}


def _most(name: str, size: int) -> int:
    """The largest integer of a layer's weights: coarse for large layers, which feel it least.

    On training films all of it costs 1 % of the rate and saves a fifth of the file.
    """
    if name.startswith(_FINE) or size < 30_000:
        return 127
    return 63 if size < 80_000 or name.startswith("intra.g_a.blocks") else 31


def _expand(name: str, state: Mapping[str, Tensor], like: Tensor) -> Tensor:
    """The mirror of `_compact`."""
    value = state[name].to(like.dtype)
    return value * state[name + _STEP].float()[:, None] if name + _STEP in state else value


def load_frozen(weights: Weights) -> FrozenLite:
    """The networks of a weights file.

    Raises:
        ValueError: its tensors are not those of this codec.
    """
    try:
        state = dict(weights.tensors)
        tables = TableSet.from_bytes(state.pop("tables").numpy().tobytes())
        frozen = FrozenLite()
        parameters = frozen.state_dict().items()
        frozen.load_state_dict({n: _expand(n, state, value) for n, value in parameters})
    except Exception as error:
        raise ValueError(f"the tensors are not those of {NAME}: {error}") from error
    frozen.tables = tables
    frozen.dead_zone = gaussian.dead_zone(tables, DEAD_ZONE)
    frozen.digest = weights.digest
    frozen.requires_grad_(False)
    return frozen.eval()


@functools.lru_cache(maxsize=4)
def load_weights(path: Path = DEFAULT) -> FrozenLite:
    """Load a weights file; ValueError where it is damaged or another codec's."""
    with torch.inference_mode(False):  # whoever comes first: later uses may need gradients
        return load_frozen(weight_files.read(path, NAME))
