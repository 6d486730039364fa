"""Numbers that golden files are made of."""


def numbers(count: int, top: int, seed: int) -> list[int]:
    """A recurrence of integers, so that no library's random numbers are in the files."""
    values = []
    for _ in range(count):
        seed = (seed * 6364136223846793005 + 1442695040888963407) % 2**64
        values.append((seed >> 33) % top)
    return values
