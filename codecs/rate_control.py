"""Find the rate position of a codec that meets a target."""

from collections.abc import Callable


def find_position(
    measure: Callable[[int], float], last: int, target: float, ceiling: bool = False
) -> int | None:
    """The position in [0, last] whose measure comes nearest to a target.

    Bisection, about log2(last) calls of `measure`, which should grow with the position; a little
    noise in it costs at most that another position near the one found is nearer still.

    Args:
        measure: bytes, log bytes or dB that a position gives.
        last: highest position.
        target: what to come near.
        ceiling: never exceed the target.

    Returns:
        The position, or None if `ceiling` is asked for and position 0 already exceeds it.
    """
    seen: dict[int, float] = {}

    def at(position: int) -> float:
        if position not in seen:
            seen[position] = measure(position)
        return seen[position]

    low, high = 0, last
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if at(middle) <= target else (low, middle)
    at(low), at(high)
    legal = [p for p, value in seen.items() if value <= target or not ceiling]
    return min(legal, key=lambda p: abs(seen[p] - target), default=None)
