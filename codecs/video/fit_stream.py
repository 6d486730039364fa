"""A group of pictures of `video/fit` as bytes, and back to what is coded of its frames.

offset  size  meaning
0       1     preset (low 2 bits) and rate of the prior (high 6 bits)
1       1     p: the trade-off lmbda 2**(p / 16 - 15) that it was fitted for; not needed to decode
2       2 n   runs of segments (`fit_order`): a length, and how many there are of it
..      ..    of each predicted frame, in coding order, its motion: varint, bytes, and these
              (`kernels.motion`)
..      rest  one rANS stream: the networks of each kind there is (`image.fit_parameters`), then for
              each frame in coding order which grids are coded, and these (`kernels.fit_ref`)
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any, NamedTuple

import numpy as np

from ...kernels import fit, motion, rans
from ...kernels.errors import BitstreamError
from ...kernels.fit_ref import GRIDS, Grid
from ...kernels.motion import Field
from ..fields import Cursor, get_varint, put_varint
from ..image import fit_parameters
from ..image.fit_parameters import Coded
from ..image.fit_prior import bits_of, tables
from ..image.fit_stream import lmbda_of
from . import fit_order
from .fit_order import KINDS, MOST_SEGMENT, Slot
from .fit_prior import PRESETS, Prior, PriorFile
from .fit_state import even_shape
from .frames import VideoFormat

_NAMES = {preset.number: name for name, preset in PRESETS.items()}
_MASK_ROW = 9 * 9  # Laplace of scale 1/2, of the change of a mask
_FIRST_MASK = (1 << GRIDS) - 1
_MOST_RUN = 255


class Picture(NamedTuple):
    """What is coded of a frame: its motion, if it is predicted, and its latents, finest first."""

    field: Field | None
    grids: list[Grid]


@dataclass(frozen=True)
class Group:
    """What a group of pictures says.

    Attributes:
        priors: of the networks, by kind.
        position: of lmbda.
        lengths: of the segments.
        coded: the networks, by kind, of which there are frames.
        pictures: in coding order.
    """

    priors: Sequence[Prior]
    position: int
    lengths: list[int]
    coded: dict[int, Coded]
    pictures: list[Picture]


class Beside:
    """The latents that the context model sees of another frame: the predicted one coded before."""

    def __init__(self, shape: tuple[int, int]) -> None:
        """Begin a group of pictures whose grids are of this height and width."""
        self._last = [np.zeros(s, np.int16) for s in fit.grid_shapes(*shape)]

    def grids(self, slot: Slot) -> list[Grid]:
        """What it sees for a frame; nothing for those that are not predicted."""
        return self._last if slot.references else []

    def put(self, slot: Slot, grids: list[Grid]) -> None:
        """Go on to the next frame."""
        if slot.references:
            self._last = grids


def write(group: Group, threads: int = 1) -> bytes:
    """The bytes of a group of pictures."""
    order = fit_order.slots(group.lengths)
    preset, rate = PRESETS[group.priors[0].preset].number, group.priors[0].rate
    head = bytes([preset | rate << 2, group.position]) + put_lengths(group.lengths)
    for picture in group.pictures:
        if picture.field is not None:
            body = motion.encode(picture.field)
            head += put_varint(len(body)) + body
    values, rows = zip(*_symbols(group, order, threads), strict=True)
    return head + rans.encode(tables(), np.concatenate(values), np.concatenate(rows))


def _symbols(
    group: Group, order: list[Slot], threads: int
) -> Iterator[tuple[fit_parameters.Symbols, fit_parameters.Rows]]:
    contexts = {}
    for kind, coded in sorted(group.coded.items()):
        yield fit_parameters.symbols(group.priors[kind], coded)
        contexts[kind] = fit_parameters.context(group.priors[kind], coded)
    mask = [_FIRST_MASK] * KINDS
    rows, columns = group.pictures[0].grids[0].shape
    beside = Beside((rows, columns))
    for slot, picture in zip(order, group.pictures, strict=True):
        new = sum(1 << k for k, grid in enumerate(picture.grids) if grid.any())
        yield np.array([new - mask[slot.kind]], np.int16), np.array([_MASK_ROW], np.uint8)
        mask[slot.kind] = new
        reference = beside.grids(slot)
        yield fit.frame_symbols(contexts[slot.kind], picture.grids, reference, threads=threads)
        beside.put(slot, picture.grids)


def put_lengths(lengths: list[int]) -> bytes:
    """Lengths of segments as runs: pairs of bytes, a length and how many there are of it."""
    out = bytearray()
    for length, run in groupby(lengths):
        count = len(list(run))
        for left in range(count, 0, -_MOST_RUN):
            out += bytes([length, min(left, _MOST_RUN)])
    return bytes(out)


def _get_lengths(cursor: Cursor, count: int) -> list[int]:
    lengths: list[int] = []
    left = count - 1
    while left:
        length, run = cursor.take(2, "segments")
        if not 1 <= length <= MOST_SEGMENT or not run or length * run > left:
            raise cursor.error(
                "segments",
                f"{run} of {length} frames, where {left} frames are left and a segment has at "
                f"most {MOST_SEGMENT}",
            )
        lengths += [length] * run
        left -= length * run
    return lengths


class Opened:
    """A group of pictures whose networks have been read.

    Attributes:
        priors: of the networks, by kind.
        position: of lmbda.
        order: of the frames.
        coded: the networks, by kind.
        motion_bytes: of the motion.
        latent_bytes: of all else, networks included.
    """

    def __init__(
        self, files: PriorFile, payload: memoryview, format: VideoFormat, count: int
    ) -> None:
        """Read up to the frames.

        Raises:
            BitstreamError: the bytes are damaged.
        """
        cursor = Cursor(payload, 0)
        head, self.position = cursor.take(2, "head of a group of pictures")
        name, rate = _NAMES.get(head & 3), head >> 2
        if name is None or not files.has(name, format.colours, rate):
            raise BitstreamError(
                f"a group of pictures starts with {head}: {files.path.name} has no prior {rate} of "
                f"preset {head & 3}"
            )
        self.priors = files.kinds(name, format.colours, rate)
        self._shape = even_shape(format.shapes)
        self.order = fit_order.slots(_get_lengths(cursor, count))
        self._motion = [
            bytes(cursor.take(get_varint(cursor, "size of motion"), "motion"))
            for slot in self.order
            if slot.references
        ]
        self.motion_bytes = sum(map(len, self._motion))
        self.latent_bytes = cursor.left
        self._latents = rans.Decoder(tables(), bytes(cursor.take(cursor.left, "latents")))
        self._format = format
        kinds = {slot.kind for slot in self.order}
        self.coded = {
            kind: fit_parameters.parse(self.priors[kind], self._latents.get)
            for kind in sorted(kinds)
        }

    def pictures(self) -> Iterator[Picture]:
        """What is coded of the frames, in coding order; once.

        Raises:
            BitstreamError: the bytes are damaged.
        """
        moves = iter(self._motion)
        contexts = {
            kind: fit_parameters.context(self.priors[kind], coded)
            for kind, coded in self.coded.items()
        }
        mask, beside = [_FIRST_MASK] * KINDS, Beside(self._shape)
        for slot in self.order:
            field, two = None, len(slot.references) == 2
            if slot.references:
                height, width = self._format.height, self._format.width
                field = motion.decode(next(moves), height, width, two=two)
            mask[slot.kind] = self._mask(mask[slot.kind])
            coded = [bool(mask[slot.kind] >> k & 1) for k in range(GRIDS)]
            grids = fit.frame_decode(
                contexts[slot.kind], self._latents, *self._shape, coded, beside.grids(slot)
            )
            beside.put(slot, grids)
            yield Picture(field, grids)
        self._latents.finish()

    def _mask(self, last: int) -> int:
        change = int(self._latents.get(np.array([_MASK_ROW], np.uint8))[0])
        if not 0 <= last + change < 1 << GRIDS:
            raise BitstreamError(f"a frame has the mask of grids {last + change}")
        return last + change


def describe(opened: Opened) -> dict[str, Any]:
    """What a group of pictures is, without its frames.

    Returns:
        preset, lmbda, and the bytes of networks, motion and latents.
    """
    networks = sum(
        bits_of(*fit_parameters.symbols(opened.priors[kind], coded))
        for kind, coded in opened.coded.items()
    )
    network_bytes = round(networks / 8)
    return {
        "preset": opened.priors[0].preset,
        "lmbda": lmbda_of(opened.position),
        "network_bytes": network_bytes,
        "motion_bytes": opened.motion_bytes,
        "latent_bytes": opened.latent_bytes - network_bytes,
    }
