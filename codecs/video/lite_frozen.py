"""The frozen form of `video/lite`: integer parse, float values, and the weights file.

Its weights (`weight_files.py`) are int8 with a step per output channel for convolutions
(`name` and `name.step`), integers for the parse, float32 for the rest.
"""

from __future__ import annotations

import functools
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...entropy.models import gaussian
from ...entropy.tables import TableSet
from .. import weight_files
from ..image.light_frozen import IntegerHyperScale, RowTables, compact, expand
from ..image.light_model import DEAD_ZONE, MAIN, S
from ..transforms.integer import IntegerConv2d
from ..weight_files import Weights
from . import lite_inter
from .lite_blocks import LATENTS
from .lite_inter import FIELD_CHANNELS, SIDE, InterModel
from .lite_intra import IntraModel
from .lite_model import LiteModel

NAME = "video/lite"
SHIPPED = {"lite": Path(__file__).parents[1] / "weights" / "video-lite.lpkw"}
DEFAULT = SHIPPED["lite"]
_FINE = ("inter.filter.tail", "intra.g_s.up")  # these do feel a coarse step


class InterRows(RowTables):
    """Rows of frames that follow another, from integers alone; see `lite_inter.Rows`."""

    def __init__(self) -> None:
        """Make empty layers."""
        super().__init__(LATENTS, lite_inter.Z_CHANNELS)
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
        self.means, self.gains = model.means, model.gains
        self.h_s = IntegerHyperScale(S, LATENTS)


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
    frozen.intra.h_s.freeze(model.intra.h_s, model.intra.z_row)
    frozen.inter.rows.freeze(model.inter.rows, model.inter.z_row)
    state: dict[str, Tensor] = {}
    for name, value in frozen.state_dict().items():
        state |= compact(name, value, _most(name, value.numel()))
    state["tables"] = torch.frombuffer(bytearray(frozen.tables.to_bytes()), dtype=torch.uint8)
    return state


@torch.no_grad()
def thaw(frozen: FrozenLite) -> LiteModel:
    """The training form of frozen weights, which `frozen_state` turns into the same again."""
    model = LiteModel()
    for source, target in ((frozen.intra, model.intra), (frozen.inter, model.inter)):
        for name, part in source.named_children():
            if not isinstance(part, RowTables):
                getattr(target, name).load_state_dict(part.state_dict())
    frozen.intra.h_s.thaw(model.intra.h_s, model.intra.z_row)
    frozen.inter.rows.thaw(model.inter.rows, model.inter.z_row)
    return model


def _most(name: str, size: int) -> int:
    """The largest integer of a layer's weights: coarse for large layers, which feel it least.

    On training films all of it costs 1 % of the rate and saves a fifth of the file.
    """
    if name.startswith(_FINE) or size < 30_000:
        return 127
    return 63 if size < 80_000 or name.startswith("intra.g_a.blocks") else 31


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
        frozen.load_state_dict({n: expand(n, state, value) for n, value in parameters})
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
