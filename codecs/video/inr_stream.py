"""A group of pictures of `video/inr` as bytes: weights and grids as integers with steps.

size  meaning
1     bits 0-1 architecture (0 nerv, 1 hnerv, 2 boosted), bit 2: the weights are differences,
      bits 3-5 levels less 1, bits 6-7 are 0
...   channels: of the levels 0 .. L, "nerv" then its hidden units; then grids of the levels 0 .. L
1-9   differences only: varint, how many GoPs before those are that they are taken from, 1 or more
4     differences only: the low 32 bits of XXH3-64 of those networks' stream
1-9   varint: size of the networks
...   networks: one rANS stream of steps and weights
rest  one rANS stream of the grids, none if there are no grids

Both streams are in the tables of `image/fit`. A step is 2^(k / 8 - 16), k an integer.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from ...entropy.models.laplace import FRACTIONS, SCALES
from ...kernels import rans
from ...kernels.errors import BitstreamError
from ..boxes import checksum
from ..fields import Cursor, get_varint, put_varint
from ..image.fit_prior import tables
from . import inr_grids
from .inr_grids import CLASSES, Array, Expectation
from .inr_networks import ARCHS, MAX_CHANNELS, MAX_LEVELS, Layout, Parameters

OCTAVE = 8  # steps to a factor of 2
LOWEST = -16.0  # log2 of step 0
MOST_STEP = 255
MOST_FOLLOW = 16
MOST_LIFT = SCALES
MOST_WEIGHT = (1 << 15) - 1
MOST_WEIGHTS = 1 << 24  # of a decoder
_DIFFERENCES = 4
_SIDE_ROW = FRACTIONS * 18  # Laplace of scale 4, of steps and the like

Symbols = npt.NDArray[np.int16]
Rows = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class Networks:
    """Weights as integers.

    Attributes:
        steps: k of each tensor, 0 to 255.
        rows: of the Laplace tables for each tensor, 0 to 27.
        weights: of all tensors one after the other, in steps.
    """

    steps: Array
    rows: Array
    weights: Array


@dataclass(frozen=True)
class Grids:
    """Grids as integers.

    Attributes:
        gains: k of the step of each channel, for each level.
        expectations: of each level.
        frames: values of each level [C, H, W], of each frame.
    """

    gains: list[Array]
    expectations: list[Expectation]
    frames: list[list[Array]] = field(repr=False)


class Origin(NamedTuple):
    """Which networks weights are differences from.

    Attributes:
        distance: GoPs from there to here.
        id: `networks_id` of their stream.
    """

    distance: int
    id: int


@dataclass(frozen=True)
class Opened:
    """A payload whose grids have not been read.

    Attributes:
        layout: of the decoder.
        networks: the bytes of their stream.
        origin: of the differences; None if the weights are whole.
        grids: the bytes of their stream.
    """

    layout: Layout
    networks: bytes
    origin: Origin | None
    grids: bytes


def step_of(k: npt.ArrayLike) -> npt.NDArray[np.float32]:
    """Steps of their numbers."""
    steps: npt.NDArray[np.float32] = np.exp2(
        np.asarray(k, np.float32) / OCTAVE + LOWEST, dtype=np.float32
    )
    return steps


def number_of(step: npt.ArrayLike) -> Array:
    """The numbers of the nearest steps."""
    log = np.log2(np.maximum(np.asarray(step, np.float64), 2.0**LOWEST))
    numbers: Array = np.rint(OCTAVE * (log - LOWEST)).clip(0, MOST_STEP).astype(np.int32)
    return numbers


def put_networks(layout: Layout, networks: Networks) -> bytes:
    """The stream of networks."""
    side = np.concatenate([_apart(networks.steps), _apart(networks.rows)])
    rows = (FRACTIONS * networks.rows).astype(np.uint8).repeat(_sizes(layout))
    values = np.concatenate([side, networks.weights]).astype(np.int16)
    return rans.encode(tables(), values, np.concatenate([_side_rows(len(side)), rows]))


def get_networks(layout: Layout, stream: bytes) -> Networks:
    """The mirror of `put_networks`; BitstreamError for damaged bytes."""
    decoder = rans.Decoder(tables(), stream)
    sizes = _sizes(layout)
    side = decoder.get(_side_rows(2 * len(sizes))).astype(np.int32)
    steps = _joined(side[: len(sizes)], MOST_STEP, "a step of the weights")
    rows = _joined(side[len(sizes) :], SCALES - 1, "a row of the weights")
    weights = decoder.get((FRACTIONS * rows).astype(np.uint8).repeat(sizes)).astype(np.int32)
    decoder.finish()
    return Networks(steps, rows, weights)


def weights_of(layout: Layout, networks: Networks, base: Tensor | None) -> Tensor:
    """All weights, float32 [layout.count], on top of those of other networks or of zeros."""
    steps = step_of(networks.steps).repeat(_sizes(layout))
    weights = torch.from_numpy(networks.weights.astype(np.float32) * steps)
    return weights if base is None else base + weights


def by_name(layout: Layout, weights: Tensor) -> Parameters:
    """Views of all weights by their names."""
    parts = torch.split(weights, _sizes(layout).tolist())
    shapes = layout.shapes.items()
    return {n: part.view(shape) for part, (n, shape) in zip(parts, shapes, strict=True)}


def put_grids(layout: Layout, grids: Grids) -> bytes:
    """The stream of grids."""
    if not any(layout.grids):
        return b""
    side = [
        part.ravel()
        for gains, e in zip(grids.gains, grids.expectations, strict=True)
        if len(gains)
        for part in (_apart(gains), e.follow, _apart(e.row), e.lift)
    ]
    head = np.concatenate(side).astype(np.int16)
    parts = [(head, _side_rows(len(head)))]
    parts += inr_grids.symbols(grids.expectations, grids.frames, layout.sizes)
    values, rows = (np.concatenate(half) for half in zip(*parts, strict=True))
    return rans.encode(tables(), values, rows)


def get_grids(layout: Layout, stream: bytes, count: int) -> Grids:
    """The mirror of `put_grids` for `count` frames; BitstreamError for damaged bytes."""
    if not any(layout.grids) and stream:
        raise BitstreamError(f"{len(stream)} bytes of grids, which these networks do not have")
    decoder = rans.Decoder(tables(), stream)

    def take(size: int) -> Array:
        return decoder.get(_side_rows(size)).astype(np.int32)

    gains, expectations = [], []
    for channels in layout.grids:
        gains.append(_joined(take(channels), MOST_STEP, "a step of the grids"))
        follow = _checked(take(channels), 0, MOST_FOLLOW, "a share of the frame before")
        row = _joined(take(channels), SCALES - 1, "a row of the grids")
        lift = _checked(take(2 * CLASSES * bool(channels)), -MOST_LIFT, MOST_LIFT, "a lift")
        expectations.append(Expectation(follow, row, lift.reshape(2, -1)))
    frames = inr_grids.parse(expectations, layout.sizes, count, decoder.get)
    decoder.finish()
    return Grids(gains, expectations, frames)


def write(
    layout: Layout, networks: bytes, grids: bytes, origin: tuple[int, int] | None = None
) -> bytes:
    """A payload of its streams; `origin` where the networks are differences."""
    first = ARCHS.index(layout.arch) | layout.levels - 1 << 3
    if origin is not None:
        first |= _DIFFERENCES
    head = bytes([first, *layout.widths, *layout.grids])
    if origin is not None:
        head += put_varint(origin[0]) + origin[1].to_bytes(4, "little")
    return head + put_varint(len(networks)) + networks + grids


def read(payload: memoryview, outputs: int, size: tuple[int, int]) -> Opened:
    """Take a payload apart.

    Args:
        payload: of a GoP.
        outputs: channels of a packed frame.
        size: its height and width.

    Raises:
        BitstreamError: the bytes are damaged.
    """
    cursor = Cursor(payload, 0)
    arch, widths, grids, origin = _read_head(cursor)
    layout = Layout(arch, widths, grids, outputs, *size)
    if layout.count > MOST_WEIGHTS:
        raise BitstreamError(f"networks state {layout.count} weights, more than {MOST_WEIGHTS}")
    networks = cursor.take(get_varint(cursor, "size of the networks"), "networks")
    return Opened(layout, bytes(networks), origin, bytes(cursor.take(cursor.left, "grids")))


def origin_of(payload: memoryview) -> Origin | None:
    """Which networks a payload's are differences from; BitstreamError for damaged bytes."""
    return _read_head(Cursor(payload, 0))[3]


def _read_head(
    cursor: Cursor,
) -> tuple[str, tuple[int, ...], tuple[int, ...], Origin | None]:
    """Architecture, channels of the levels and of their grids, and origin."""
    first = cursor.take(1, "architecture")[0]
    number, levels = first & 3, (first >> 3 & 7) + 1
    if number >= len(ARCHS) or first >> 6 or levels > MAX_LEVELS:
        raise BitstreamError(f"a group of pictures begins with {first:#04x}, which is not known")
    arch = ARCHS[number]
    widths = tuple(cursor.take(levels + 1 + (arch == "nerv"), "channels"))
    grids = tuple(cursor.take(levels + 1, "channels of grids"))
    if not all(widths):
        raise BitstreamError(f"levels have {list(widths)} channels, expected 1 to {MAX_CHANNELS}")
    legal = {"nerv": not any(grids), "hnerv": grids[-1] and not any(grids[:-1]), "boosted": True}
    if not legal[arch]:
        raise BitstreamError(f"{arch} has grids of {list(grids)} channels, which it can't have")
    origin = None
    if first & _DIFFERENCES:
        distance = get_varint(cursor, "distance of the networks before")
        origin = Origin(distance, int.from_bytes(cursor.take(4, "their checksum"), "little"))
        if not distance:
            raise BitstreamError("weights are differences from themselves: distance 0")
    return arch, widths, grids, origin


def networks_id(stream: bytes) -> int:
    """What differences name the networks by that they are taken from."""
    return checksum(stream)


def _sizes(layout: Layout) -> npt.NDArray[np.int64]:
    return np.array([int(np.prod(shape)) for shape in layout.shapes.values()])


def _apart(values: Array) -> Array:
    """How much each is above the one before."""
    return np.diff(values, prepend=0)


def _joined(apart: Array, most: int, what: str) -> Array:
    """The mirror of `_apart`."""
    return _checked(np.cumsum(apart, dtype=np.int32), 0, most, what)


def _checked(values: Array, least: int, most: int, what: str) -> Array:
    if values.size and not least <= values.min() <= values.max() <= most:
        found = f"{values.min()} to {values.max()}"
        raise BitstreamError(f"{what} is out of range: {found}, legal {least} to {most}")
    return values


def _side_rows(count: int) -> Rows:
    return np.full(count, _SIDE_ROW, np.uint8)
