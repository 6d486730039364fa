"""In which order `video/fit` codes the frames of a group of pictures, and what each is made from.

A group is its first frame (I) and segments behind it. The last frame of a segment, its anchor, is
coded first, from the two anchors before it; then the frame in the middle of what is left between
two coded ones, from these two, and so on in both halves:

    shown    0   1   2   3   4   5   6   7   8   9 ...
    coded    0   4   3   5   2   7   6   8   1
             I   B   B   B   B   B   B   B   P           one segment of 8 frames

Segments of one frame code the frames as they are shown (low delay).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

INTRA, REFERENCE, LEAF = range(3)  # kinds: frames of a kind share their networks
KINDS = 3
MOST_SEGMENT = 64


class Slot(NamedTuple):
    """A frame in coding order.

    Attributes:
        index: which frame it is, as shown.
        kind: INTRA, REFERENCE (other frames may be made from it) or LEAF.
        level: 0 for I, 1 for anchors, then how often a segment was halved.
        references: the frames that it is predicted from, none to two; the nearest first.
    """

    index: int  # type: ignore[assignment]  # hides that of tuples
    kind: int
    level: int
    references: tuple[int, ...]


def slots(lengths: Sequence[int]) -> list[Slot]:
    """The frames of a group whose segments have these lengths, in coding order."""
    found = [Slot(0, INTRA, 0, ())]
    anchors = [0]
    for length in lengths:
        last = anchors[-1] + length
        found.append(Slot(last, REFERENCE, 1, tuple(anchors[:-3:-1])))
        found += _between(anchors[-1], last, 2)
        anchors.append(last)
    return found


def _between(left: int, right: int, level: int) -> Iterator[Slot]:
    if right - left < 2:
        return
    middle = (left + right) // 2
    kind = LEAF if right - left == 2 else REFERENCE
    yield Slot(middle, kind, level, (left, right))
    yield from _between(left, middle, level + 1)
    yield from _between(middle, right, level + 1)


def usual(count: int, segment: int) -> list[int]:
    """Lengths of the segments of a group of `count` frames: as equal as can be, none longer."""
    left = count - 1
    if left < 1:
        return []
    pieces = -(-left // segment)
    return [left // pieces + (n < left % pieces) for n in range(pieces)]


def last_uses(order: Sequence[Slot]) -> list[int]:
    """For each frame as shown, the position in coding order from which on nothing is made of it."""
    uses = [0] * len(order)
    for position, slot in enumerate(order):
        for index in (slot.index, *slot.references):
            uses[index] = position
    return uses
