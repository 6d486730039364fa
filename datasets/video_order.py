"""Packets of tracks, held until the frames of their time come out of the decoder."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from fractions import Fraction

from .video_tracks import TrackPacket

_MOST_BYTES = 1 << 25  # that are held; more come out before the frames of their time


class TrackQueue:
    """Gives packets back in the order of time, those of one track in their own order."""

    def __init__(
        self, time_bases: Sequence[Fraction], begin: Fraction | None, stop: Fraction | None
    ) -> None:
        """Begin empty.

        Args:
            time_bases: of the tracks, in seconds.
            begin: seconds of the file's clock; what is over by then is dropped. None keeps all.
            stop: what begins then or later is dropped.
        """
        self._bases, self._begin, self._stop = time_bases, begin, stop
        self._queues: list[deque[tuple[Fraction, TrackPacket]]] = [deque() for _ in time_bases]
        self._last: list[Fraction | None] = [None] * len(time_bases)
        self._bytes = 0

    def put(self, packet: TrackPacket) -> None:
        """Take a packet."""
        base, last = self._bases[packet.track], self._last[packet.track]
        pts = packet.pts if packet.pts is not None else packet.dts
        time = Fraction(0) if last is None else last
        if pts is not None:
            time = pts * base
        self._last[packet.track] = time
        if self._begin is not None and time + packet.duration * base <= self._begin:
            return
        if self._stop is not None and time >= self._stop:
            return
        self._queues[packet.track].append((time, packet))
        self._bytes += len(packet.data)

    def past(self, slack: Fraction) -> bool:
        """Whether every track has come to the end, or one has come far behind it."""
        if self._stop is None:
            return False
        seen = [time for time in self._last if time is not None]
        return bool(seen) and (min(seen) >= self._stop or max(seen) >= self._stop + slack)

    def until(self, time: Fraction) -> Iterator[TrackPacket]:
        """Yield what begins at a time or before."""
        while (queue := self._next()) is not None and queue[0][0] <= time:
            yield self._take(queue)

    def overflow(self) -> Iterator[TrackPacket]:
        """Yield the earliest of what is too much to be held."""
        while self._bytes > _MOST_BYTES and (queue := self._next()) is not None:
            yield self._take(queue)

    def rest(self) -> Iterator[TrackPacket]:
        """Yield what is left."""
        while (queue := self._next()) is not None:
            yield self._take(queue)

    def _next(self) -> deque[tuple[Fraction, TrackPacket]] | None:
        return min((q for q in self._queues if q), key=lambda q: q[0][0], default=None)

    def _take(self, queue: deque[tuple[Fraction, TrackPacket]]) -> TrackPacket:
        packet = queue.popleft()[1]
        self._bytes -= len(packet.data)
        return packet
