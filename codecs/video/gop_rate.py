"""The quality of each group of pictures, so that the whole file gets the size or PSNR asked for.

A first group is coded a few times, until it is as large or as good as the others shall be on
average; what is learned of the video by that, and by each group after it, says the quality of the
next, which is coded once. What was spent too much or too little is made up for over some groups, so
that quality changes slowly. Only an upper bound that would be broken makes later groups be coded
again.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from ..codec import Rate
from ..container import packet_size
from ..image import fit_search
from ..image.fit_search import Goal
from .frames import Length, VideoFormat

LOWEST, HIGHEST = 0.0, 100.0  # of the quality
_INDEX = 17  # bytes of box I and of its offset in E, but for its entries
_UNNAMED = 8  # bytes of the empty packet that a reserve holds already
_WINDOW = 8  # groups over which a surplus or a lack is made up for
_NEWEST = 0.6  # weight of the last group in what is known of the video
_STEP = 12.0  # the most that the quality changes from group to group
_SLOPES = {"bytes": 0.05, "psnr": 0.22}  # per unit of quality: log(bytes), dB; until it is known
_LOOSE = {"bytes": 0.08, "psnr": 0.2}  # near enough for the first of many groups
_KEPT = 0.5  # of the mean bytes of a frame, at least, is kept for each frame to come
_LOG_SPAN = math.log(fit_search.HIGHEST / fit_search.LOWEST)


@dataclass(frozen=True)
class Coded:
    """A group of pictures that has been coded.

    Attributes:
        payload: what `decode_gop` takes.
        psnr: mean over the frames of `frames.psnr_db`; None where that is not known.
        kept: what the codec can go on from, in a further try or in the next group.
    """

    payload: bytes
    psnr: float | None = None
    kept: Any = field(default=None, repr=False)


@dataclass(frozen=True)
class Span:
    """Which part of a video a group is.

    Attributes:
        number: of the group.
        frames: how many.
        seconds: that they take; None where frames have no time.
        last: whether the video ends with it.
    """

    number: int
    frames: int
    seconds: float | None
    last: bool


# Codes a group at a quality; goes on from an earlier try, if there is one.
Attempt = Callable[[float, Coded | None], Coded]
Snap = Callable[[float], float]  # the nearest quality that makes a difference


class Constant:
    """The quality that was asked for."""

    def __init__(self, quality: float) -> None:
        """Take a quality of 0 to 100."""
        if quality > HIGHEST:
            raise ValueError(f"quality must be 0 to 100, got {quality:g}")
        self._quality = quality

    def code(self, span: Span, attempt: Attempt, head: int) -> Coded:
        """Code a group."""
        return attempt(self._quality, None)


@dataclass
class _Video:
    """What is known of a video: its measure is `level` + slope * quality."""

    slope: float
    level: float | None = None
    quality: float = 50.0

    def learn(self, quality: float, value: float) -> None:
        level = value - self.slope * quality
        old = level if self.level is None else self.level
        self.level = old + _NEWEST * (level - old)
        self.quality = quality

    def quality_for(self, value: float) -> float:
        if self.level is None:
            return self.quality
        wanted = (value - self.level) / self.slope
        wanted = min(self.quality + _STEP, max(self.quality - _STEP, wanted))
        return min(HIGHEST, max(LOWEST, wanted))


class _Search:
    """Tries at several qualities, each of which is coded once."""

    def __init__(self, attempt: Attempt, measure: Callable[[Coded], float], snap: Snap) -> None:
        self._attempt, self._measure, self._snap = attempt, measure, snap
        self.tried: dict[float, Coded] = {}

    def once(self, quality: float, near: Coded | None = None) -> Coded:
        quality = self._snap(quality)
        if quality not in self.tried:
            self.tried[quality] = self._attempt(quality, near)
        return self.tried[quality]

    def meet(self, goal: Goal, first: float) -> tuple[Coded | None, Coded]:
        """The nearest that is legal, if any is, and the smallest."""

        def fit(lmbda: float, near: Coded | None) -> Coded:
            return self.once(_quality_of(lmbda), near)

        return fit_search.search(fit, self._measure, goal, _lmbda_of(first))

    def quality(self, coded: Coded) -> float:
        return next(q for q, found in self.tried.items() if found is coded)

    def slope(self, usual: float) -> float:
        """Of the measure per unit of quality, over all that was tried."""
        tried = sorted(self.tried)
        if len(tried) < 2 or tried[-1] - tried[0] < 1:
            return usual
        low, high = (self._measure(self.tried[q]) for q in (tried[0], tried[-1]))
        return min(3 * usual, max(usual / 3, (high - low) / (tried[-1] - tried[0])))


def _lmbda_of(quality: float) -> float:
    """Where a quality is on the scale of `fit_search`."""
    return fit_search.LOWEST * math.exp(_LOG_SPAN * quality / HIGHEST)


def _quality_of(lmbda: float) -> float:
    return round(math.log(lmbda / fit_search.LOWEST) / _LOG_SPAN * HIGHEST, 3)


def _goal(target: float, kind: str, tolerance: float | None, ceiling: bool = False) -> Goal:
    exact = 0.01 if kind == "bytes" else 0.03
    slope = _SLOPES[kind] * HIGHEST / _LOG_SPAN
    return Goal(target, slope, exact if tolerance is None else tolerance, ceiling)


class Psnr:
    """The mean PSNR over all frames."""

    def __init__(self, target: float, snap: Snap) -> None:
        """Take a PSNR in dB."""
        self._target, self._snap = target, snap
        self._video = _Video(_SLOPES["psnr"])
        self._lack = 0.0  # dB times frames

    def code(self, span: Span, attempt: Attempt, head: int) -> Coded:
        """Code a group."""
        search = _Search(attempt, _psnr, self._snap)
        if span.number == 0:
            goal = _goal(self._target, "psnr", None if span.last else _LOOSE["psnr"])
            coded = search.meet(goal, self._video.quality)[0]
            if coded is None:
                raise RuntimeError("a search without a ceiling found nothing")
            self._video.slope = search.slope(self._video.slope)
        else:
            wanted = self._target + self._lack / (_WINDOW * span.frames)
            coded = search.once(self._video.quality_for(wanted))
        self._lack += (self._target - _psnr(coded)) * span.frames
        self._video.learn(search.quality(coded), _psnr(coded))
        return coded


def _psnr(coded: Coded) -> float:
    if coded.psnr is None:
        raise RuntimeError("a group of pictures has been coded without saying its PSNR")
    return coded.psnr


class Size:
    """Bytes of the whole file: as many as asked for, or for `max_bytes` no more."""

    def __init__(
        self,
        rate: Rate,
        format: VideoFormat,
        reserve: int,
        length: Length | None,
        codec: str,
        snap: Snap,
    ) -> None:
        """Begin a file.

        Args:
            rate: kbps, bpp, ratio or max_bytes.
            format: of the frames.
            reserve: bytes of the file with an empty packet.
            length: of the video, None where that is not known.
            codec: its name, for messages.
            snap: the nearest quality that the codec tells from others.

        Raises:
            ValueError: max_bytes of a video whose length is not known.
        """
        self._timed = rate.name == "kbps"
        self._ceiling = rate.name == "max_bytes"
        self._asked, self._codec, self._snap = rate.value, codec, snap
        self._whole = None if length is None else self._units(length.frames, length.seconds)
        fixed = float(reserve - _UNNAMED + _INDEX)
        pace = _pace(rate, format, length)  # bytes to a frame or second
        self._fixed = fixed
        self._done = 0.0  # frames or seconds
        self._spent = 0.0  # bytes for them
        if self._whole:  # what is fixed is spread over the video
            pace -= fixed / self._whole
            if pace <= 0:
                self._refuse(fixed)
        else:
            self._spent = fixed
        self._pace = pace
        self._video = _Video(_SLOPES["bytes"])

    def _units(self, frames: int, seconds: float | None) -> float:
        if not self._timed:
            return float(frames)
        if not seconds:
            raise ValueError(
                f"kbps needs frames with times, which these do not have; {self._codec} takes "
                "frame_rate for clips, or ask for bpp or max_bytes"
            )
        return seconds

    def _refuse(self, least: float) -> None:
        raise ValueError(
            f"{'max_bytes' if self._ceiling else 'the size'} {self._asked:g} is out of reach: the "
            f"smallest file found takes {math.ceil(least):,} bytes with all that is beside the "
            "picture; make the video smaller, or leave out its sound"
        )

    def code(self, span: Span, attempt: Attempt, head: int) -> Coded:
        """Code a group; `head` bytes stand before its payload."""
        units = self._units(span.frames, span.seconds)

        def size(coded: Coded) -> int:
            return packet_size(span.number, head + len(coded.payload))

        search = _Search(attempt, lambda coded: math.log(size(coded) / units), self._snap)
        surplus = self._done * self._pace - self._spent
        wanted = max(units * self._pace / 4, units * self._pace + surplus / self._groups(units))
        target = math.log(wanted / units)
        only = span.number == 0 and span.last
        if span.number == 0:
            goal = _goal(target, "bytes", None if only else _LOOSE["bytes"], self._ceiling and only)
            found, smallest = search.meet(goal, self._video.quality)
            coded = found or smallest
            self._video.slope = search.slope(self._video.slope)
        else:
            coded = search.once(self._video.quality_for(target))
        self._done += units
        if self._ceiling:
            coded = self._below(search, coded, size, units, span.last)
        self._spent += size(coded)
        self._video.learn(search.quality(coded), math.log(size(coded) / units))
        return coded

    def _groups(self, units: float) -> float:
        """Over which a surplus is to be spent."""
        if self._whole is None:
            return _WINDOW
        return min(_WINDOW, max(1.0, (self._whole - self._done) / units))

    def _below(
        self, search: _Search, coded: Coded, size: Callable[[Coded], int], units: float, last: bool
    ) -> Coded:
        """A group that leaves bytes for the others, or that ends a file not too large."""
        whole = self._whole or 0.0
        behind = 0.0 if last else max(units, whole - self._done)
        room = whole * self._pace - self._spent - _KEPT * behind * self._pace
        if size(coded) > room:
            first = search.quality(coded)
            if room > 0:
                goal = _goal(math.log(room / units), "bytes", None, ceiling=True)
                found, smallest = search.meet(goal, self._video.quality_for(goal.aim))
                coded = found or smallest
            else:
                coded = search.once(LOWEST, search.tried[first])
        if last and self._fixed + self._spent + size(coded) > self._asked:
            self._refuse(self._fixed + self._spent + size(coded))
        return coded


def _pace(rate: Rate, format: VideoFormat, length: Length | None) -> float:
    """Bytes to a frame, or for kbps to a second."""
    if rate.name == "kbps":
        return rate.value * 125
    if rate.name == "bpp":
        return rate.value * format.width * format.height / 8
    if rate.name == "ratio":
        return format.bytes / rate.value
    if length is None:
        raise ValueError("max_bytes needs the length of the video; ask for kbps or bpp instead")
    return rate.value / length.frames


def control(
    rate: Rate | None,
    format: VideoFormat,
    reserve: int,
    length: Length | None,
    codec: str,
    snap: Snap,
) -> Constant | Psnr | Size:
    """What chooses the qualities of a file; None is quality 50."""
    if rate is None or rate.name == "quality":
        return Constant(50.0 if rate is None else rate.value)
    if rate.name == "psnr":
        return Psnr(rate.value, snap)
    return Size(rate, format, reserve, length, codec, snap)
