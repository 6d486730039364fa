"""When the frames of a GoP are shown, exactly and in few bytes (FORMAT.md, section 23)."""

from __future__ import annotations

import itertools
import zlib
from collections.abc import Sequence
from typing import NamedTuple

from ...kernels.errors import BitstreamError
from ..fields import MAX_VARINT_BYTES, Cursor, get_signed, get_varint, put_signed, put_varint
from .frames import MOST_PTS

MOST_FRAMES = 1 << 16  # of a GoP
_EVEN, _EVEN_UNKNOWN, _ANY = range(3)  # forms


class Times(NamedTuple):
    """Of the frames of a GoP, in units of the stream's time base.

    Attributes:
        pts: of each.
        durations: of each, 0 where it is not known.
    """

    pts: list[int]
    durations: list[int]

    @property
    def end(self) -> int:
        """When the last frame is over, as far as is known; behind its pts."""
        step = self.durations[-1] or (self.pts[-1] - self.pts[-2] if len(self.pts) > 1 else 0)
        return self.pts[-1] + max(1, step)


def put_times(times: Times) -> bytes:
    """The count of frames, their pts and their durations."""
    pts, durations = times
    for pts_now, duration in zip(pts, durations, strict=True):
        if abs(pts_now) >= MOST_PTS or not 0 <= duration < MOST_PTS:
            raise ValueError(
                f"a frame has pts {pts_now} and duration {duration}; both must be below 2**60, "
                "and the duration 0 or more"
            )
    count = len(pts)
    steps = [b - a for a, b in itertools.pairwise(pts)]
    step = steps[0] if steps else durations[0]
    form = _ANY
    if all(s == step for s in steps):
        if not any(durations):
            form = _EVEN_UNKNOWN
        elif all(d == step for d in durations):
            form = _EVEN
    head = put_varint(count << 2 | form) + put_signed(pts[0])
    if form != _ANY:
        return head + put_signed(step)
    numbers = b"".join(map(put_signed, [*steps, *_against(durations, steps)]))
    packed = zlib.compress(numbers, 9)
    return head + put_varint(len(packed)) + packed


def get_times(cursor: Cursor, most: int) -> Times:
    """The mirror of `put_times`; BitstreamError unless there are 1 to `most` frames."""
    head = get_varint(cursor, "count of frames")
    count, form = head >> 2, head & 3
    if not 1 <= count <= most:
        raise cursor.error("count of frames", f"it is {count}, expected 1 to {most}")
    first = get_signed(cursor, "pts")
    if form == _ANY:
        return _checked(cursor, _get_any(cursor, count, first))
    if form not in (_EVEN, _EVEN_UNKNOWN):
        raise cursor.error("form of the times", f"it is {form}, expected 0 to 2")
    step = get_signed(cursor, "step of the pts")
    return _checked(
        cursor,
        Times([first + i * step for i in range(count)], [0 if form else step] * count),
    )


def _get_any(cursor: Cursor, count: int, first: int) -> Times:
    packed = cursor.take(get_varint(cursor, "size of the times"), "times")
    most = (2 * count - 1) * MAX_VARINT_BYTES
    unpack = zlib.decompressobj()
    try:
        data = unpack.decompress(packed, most + 1)
    except zlib.error as error:
        raise cursor.error("times", str(error)) from None
    if not unpack.eof or unpack.unused_data:
        raise cursor.error("times", "they do not end where they should")
    numbers = Cursor(memoryview(data), 0)
    steps = [get_signed(numbers, "step of the pts") for _ in range(count - 1)]
    offsets = [get_signed(numbers, "duration") for _ in range(count)]
    if numbers.left:
        raise cursor.error("times", f"{numbers.left} bytes are left over")
    pts = [first]
    for step in steps:
        pts.append(pts[-1] + step)
    return Times(pts, [a + b for a, b in zip(offsets, _expected(steps), strict=True)])


def _checked(cursor: Cursor, times: Times) -> Times:
    if max(map(abs, times.pts)) >= MOST_PTS:
        raise cursor.error("pts", f"a frame has one of {max(times.pts, key=abs)}")
    if not (0 <= min(times.durations) and max(times.durations) < MOST_PTS):
        raise cursor.error("duration", f"a frame has one of {min(times.durations)}")
    return times


def _expected(steps: Sequence[int]) -> list[int]:
    """What durations are likely to be: the time to the next frame; the last as the one before."""
    return [*steps, steps[-1] if steps else 0]


def _against(durations: Sequence[int], steps: Sequence[int]) -> list[int]:
    return [a - b for a, b in zip(durations, _expected(steps), strict=True)]


def read_times(body: bytes, most: int) -> tuple[Times, memoryview]:
    """The times in a packet's body, and the payload behind them."""
    cursor = Cursor(memoryview(body), 0)
    times = get_times(cursor, most)
    if not cursor.left:
        raise BitstreamError("a group of pictures has no payload")
    return times, cursor.take(cursor.left, "payload")
