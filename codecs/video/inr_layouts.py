"""Which networks `video/inr` fits to a group of pictures of some size."""

from __future__ import annotations

import math

from .inr_networks import MAX_CHANNELS, Layout

_GRIDS = (0, 1, 3, 6, 8)  # channels of each level of "boosted", finest first
_EMBEDDING = 8  # channels of "hnerv"
_COARSEST = {"boosted": 5, "hnerv": 2, "nerv": 5}  # about the least side of the coarsest level
_MOST_LEVELS = {"boosted": 4, "hnerv": 6, "nerv": 5}
_WIDEN = 1.2  # of channels from each level to the coarser
_HIDDEN = 2.0  # units of NeRV's dense layers, of its coarsest channels
_USUAL = 22.0  # parameters to the square root of the pixels of a GoP


def layout_for(
    arch: str, outputs: int, size: tuple[int, int], frames: int, parameters: int | None
) -> Layout:
    """The networks for a group of pictures.

    Args:
        arch: "boosted", "hnerv" or "nerv".
        outputs: channels of a packed frame.
        size: its height and width.
        frames: of the group.
        parameters: about how many; None is the usual number.
    """
    least = min(size)
    levels = int(math.log2(max(1, least / _COARSEST[arch])))
    levels = min(_MOST_LEVELS[arch], max(1, levels))
    wanted = parameters or round(_USUAL * math.sqrt(4 * size[0] * size[1] * frames))

    def at(width: float) -> Layout:
        widths = [width * _WIDEN**level for level in range(levels + 1)]
        if arch == "nerv":
            widths.append(_HIDDEN * widths[-1])
        grids = {
            "nerv": (0,) * (levels + 1),
            "hnerv": (0,) * levels + (_EMBEDDING,),
            "boosted": _GRIDS[: levels + 1],
        }
        channels = tuple(max(1, min(MAX_CHANNELS, round(w))) for w in widths)
        return Layout(arch, channels, grids[arch], outputs, *size)

    low, high = 1.0, float(MAX_CHANNELS)
    for _ in range(12):
        middle = math.sqrt(low * high)
        low, high = (middle, high) if at(middle).count <= wanted else (low, middle)
    return at(low)
