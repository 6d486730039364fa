"""The encoder's way SEGMENTS: tables by place, so that a GPU finds them in one pass.

The C chunks of an array of n elements are divided into S = min(64, max(1, ceil(n / 2**18)))
segments, never more than C; chunk c belongs to segment c * S // C, which has table c * S // C. Only
plane 0 of a chunk is coded:

FLOAT   in PAIR. The top of a segment's window is that of `best_top` for a sample of its
        exponents: those of the elements whose index i in the array has i % 4096 < 64, and of
        the segment's first 64 elements. The table is made from the counts of all its pairs.
others  in BYTES. The table is made from the counts of plane 0 in all the segment.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from .planes_head_ref import FLOAT
from .planes_layouts_ref import best_top, split, to_nibbles
from .planes_tables_ref import MAX_TABLES, TableSet

Bytes = npt.NDArray[np.uint8]

SEGMENT_LOG2 = 18
# Of so many exponents, so many are sampled for the window.
PERIOD, TAKEN = 4096, 64


@dataclass(frozen=True)
class Segment:
    """What the chunks of a segment share.

    Attributes:
        number: of the segment and of its table.
        top: of the window of exponents; 0 where there is none.
    """

    number: int
    top: int


def segment_count(n: int, chunks: int) -> int:
    """Segments of n elements in so many chunks."""
    return min(MAX_TABLES, max(1, -(-n >> SEGMENT_LOG2)), chunks)


def learn(chunks: list[Bytes], layout: int, tables: TableSet) -> list[Segment]:
    """The segment of each chunk uint8 [n, w]; their tables are added."""
    count = segment_count(sum(len(chunk) for chunk in chunks), len(chunks))
    numbers = [c * count // len(chunks) for c in range(len(chunks))]
    segments = []
    for number in range(count):
        first = numbers.index(number)
        members = chunks[first : first + numbers.count(number)]
        planes = [split(chunk, layout)[0] for chunk in members]
        top = 0
        if layout == FLOAT:
            top = _top(np.concatenate(planes), first * len(chunks[0]))
            planes = [to_nibbles(plane, top) for plane in planes]
        symbols = np.concatenate(planes)
        tables.add(np.bincount(symbols, minlength=256), int(layout == FLOAT))
        segments.append(Segment(number, top))
    return [segments[number] for number in numbers]


def _top(exponents: Bytes, start: int) -> int:
    """The window of a segment whose first element has this index in the array."""
    at = np.arange(len(exponents))
    taken = ((at + start) % PERIOD < TAKEN) | (at < TAKEN)
    return best_top(np.bincount(exponents[taken], minlength=256))
