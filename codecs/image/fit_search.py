"""The trade-off of a fitted picture that meets a size or a quality: few fits, each costs much."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, TypeVar

LOWEST, HIGHEST = 2.0**-15, 1.0  # of lmbda
_CORRECTIONS = 4  # fits after the first, while the goal is not met
_RETREATS = 5  # further ones that only get below a ceiling, with ever longer steps
_STEP = 8.0  # no fit moves lmbda by more than this factor
_RETREAT = 1.3
_NEAR = 3.0  # a fit goes on from another whose lmbda is at most this factor away
_ROOM = 0.985  # of a ceiling is aimed at

T = TypeVar("T")


@dataclass(frozen=True)
class Goal:
    """What to meet.

    Attributes:
        target: on the scale of the measure, which grows with log(lmbda).
        slope: change of the measure with log(lmbda), as far as is known.
        tolerance: nearer is near enough.
        ceiling: never exceed the target.
    """

    target: float
    slope: float
    tolerance: float
    ceiling: bool = False

    @staticmethod
    def of_bytes(size: float, ceiling: bool = False) -> Goal:
        """A size, measured as log(bytes)."""
        return Goal(math.log(size), 0.6, 0.01, ceiling)

    @staticmethod
    def of_psnr(db: float) -> Goal:
        """A PSNR, measured in dB."""
        return Goal(db, 2.0, 0.03)

    @property
    def aim(self) -> float:
        """What the next fit is to reach."""
        return self.target + (math.log(_ROOM) if self.ceiling else 0)

    def met(self, value: float) -> bool:
        """Whether it is near enough."""
        near = abs(value - self.aim) <= (-math.log(_ROOM) if self.ceiling else self.tolerance)
        return near and self.legal(value)

    def legal(self, value: float) -> bool:
        """Whether it may be the result."""
        return not self.ceiling or value <= self.target


@dataclass(frozen=True)
class Attempt(Generic[T]):
    """A fit: where, what came out, and how much it measures."""

    lmbda: float
    result: T
    value: float


def search(
    fit: Callable[[float, T | None], T], measure: Callable[[T], float], goal: Goal, first: float
) -> tuple[T | None, T]:
    """Fit until a goal is met.

    Args:
        fit: (lmbda, an earlier result near it, which can be gone on from, or None) -> result.
        measure: of a result.
        goal: on the measure.
        first: lmbda to begin with.

    Returns:
        The nearest legal result, None if all exceed a ceiling; and the smallest.
    """
    seen = [_attempt(fit, measure, first, None)]
    for _ in range(_CORRECTIONS):
        lmbda = _next(seen, goal)
        if goal.met(seen[-1].value) or any(a.lmbda == lmbda for a in seen):
            break
        seen.append(_attempt(fit, measure, lmbda, _near(seen, lmbda)))
    for i in range(_RETREATS):
        lowest = min(seen, key=lambda a: a.lmbda)
        if any(goal.legal(a.value) for a in seen) or lowest.lmbda <= LOWEST:
            break
        lmbda = max(LOWEST, min(_next(seen, goal), lowest.lmbda) / _RETREAT**2**i)
        seen.append(_attempt(fit, measure, lmbda, _near(seen, lmbda)))
    legal = [a for a in seen if goal.legal(a.value)]
    best = min(legal, key=lambda a: abs(a.value - goal.target), default=None)
    smallest = min(seen, key=lambda a: a.value)
    return (best.result if best else None), smallest.result


def _near(seen: list[Attempt[T]], lmbda: float) -> T | None:
    nearest = min(seen, key=lambda a: abs(math.log(a.lmbda / lmbda)))
    return nearest.result if 1 / _NEAR <= nearest.lmbda / lmbda <= _NEAR else None


def _attempt(
    fit: Callable[[float, T | None], T], measure: Callable[[T], float], lmbda: float, near: T | None
) -> Attempt[T]:
    result = fit(lmbda, near)
    return Attempt(lmbda, result, measure(result))


def _next(seen: list[Attempt[T]], goal: Goal) -> float:
    """The lmbda that should meet the goal: between its neighbours, or beyond the nearest."""
    below = max((a for a in seen if a.value <= goal.aim), key=lambda a: a.value, default=None)
    above = min((a for a in seen if a.value > goal.aim), key=lambda a: a.value, default=None)
    if below and above and below.lmbda != above.lmbda and below.value != above.value:
        share = (goal.aim - below.value) / (above.value - below.value)
        between: float = (above.lmbda / below.lmbda) ** min(0.95, max(0.05, share))
        return below.lmbda * between
    near = below or above or seen[-1]
    move = (goal.aim - near.value) / _slope(seen, goal)
    lmbda = near.lmbda * math.exp(min(math.log(_STEP), max(-math.log(_STEP), move)))
    return min(HIGHEST, max(LOWEST, lmbda))


def _slope(seen: list[Attempt[T]], goal: Goal) -> float:
    """Between the two attempts that are nearest to the goal, if it is a likely one."""
    if len(seen) < 2:
        return goal.slope
    a, b = sorted(seen, key=lambda attempt: abs(attempt.value - goal.aim))[:2]
    found = (a.value - b.value) / math.log(a.lmbda / b.lmbda)
    return min(3 * goal.slope, max(goal.slope / 3, found))
