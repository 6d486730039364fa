"""What is read around a pixel, and the least squares over it."""

from typing import NamedTuple

import numpy as np

from .pixels_numbers_ref import ONE, ZERO, F, Floats

TAPS = 16  # of the least squares
REACH = 48  # taps of the wide predictors, zeros at the end
TINY = F(1e-20)  # keeps decaying sums away from denormal numbers
SIDE, ABOVE, BELOW = 8, 5, 2  # margins of a canvas

# Down and right, the nearest first; without the left pixel, from which all are measured.
OWN = [(-1, 0), (-1, -1), (-1, 1), (0, -2), (-2, 0), (-2, -1), (-2, 1), (-1, 2)]
OWN += [(-1, -2), (-2, 2), (-2, -2), (0, -3), (-3, 0), (-1, 3), (-1, -3), (-3, -1)]
OWN += [(-3, 1), (-2, 3), (-2, -3), (0, -4), (-3, 2), (-3, -2), (-4, 0), (-1, 4)]
OWN += [(-1, -4), (-3, 3), (-3, -3), (-2, 4), (-2, -4), (-4, 1), (-4, -1), (0, -5)]
LINKED = [(0, 0), (-1, 0), (0, 1), (1, 0), (-1, 1), (-1, -1), (1, 1), (1, -1), (0, -2)]
# How many taps of (the plane before, the one before that, the plane itself) come first, for the
# least squares, and then for the wide predictors, by the number of links.
FIRST = [(0, 0, 16), (9, 0, 7), (7, 5, 4)]
THEN = [(0, 0, 16), (0, 0, 25), (2, 4, 26)]


class Plane(NamedTuple):
    """How a plane is coded.

    Attributes:
        peak: the largest sample that is legal, 1 to 65535.
        error: the largest difference between a sample and what is decoded.
        links: so many of the planes before it are used, the nearest ones: 0 to 2.
    """

    peak: int
    error: int
    links: int


class Canvas:
    """A plane as floats with margins."""

    def __init__(self, height: int, width: int) -> None:
        self.height, self.width = height, width
        self.rows = np.zeros((height + ABOVE + BELOW, width + 2 * SIDE), np.float32)

    def at(self, y: int, x: int) -> np.float32:
        """A value, also of the margins."""
        value: np.float32 = self.rows[y + ABOVE, x + SIDE]
        return value

    def put(self, y: int, x: int, value: np.float32) -> None:
        """Set a value."""
        self.rows[y + ABOVE, x + SIDE] = value

    def start_row(self, y: int) -> None:
        """Left of a row stands what its first pixel has above it."""
        self.rows[y + ABOVE, :SIDE] = self.at(y - 1, 0)

    def end_row(self, y: int) -> None:
        """Right of a row stands its last pixel, below the last row that row."""
        self.rows[y + ABOVE, -SIDE:] = self.at(y, self.width - 1)
        if y == self.height - 1:
            self.rows[y + ABOVE + 1 :] = self.rows[y + ABOVE]


class Taps:
    """Where the taps of a plane lie; `canvases` ends with its own, those before are linked."""

    def __init__(self, canvases: list[Canvas], links: int) -> None:
        self.canvases = canvases
        self.places: list[tuple[int, int, int]] = []  # which canvas from the end, down, right
        done = [0, 0, 0]
        for counts in (FIRST[links], THEN[links]):
            for part, count in enumerate(counts):
                known = OWN if part == 2 else LINKED
                for down, right in known[done[part] : done[part] + count]:
                    self.places.append((-1 if part == 2 else -2 - part, down, right))
                done[part] += count

    def read(self, y: int, x: int) -> Floats:
        """Differences to the left pixel of each plane, REACH of them."""
        values = np.zeros(REACH, np.float32)
        for i, (which, down, right) in enumerate(self.places):
            canvas = self.canvases[which]
            values[i] = canvas.at(y + down, x + right) - canvas.at(y, x - 1)
        return values


class LeastSquares:
    """Least squares over what surrounds a pixel, solved anew for every pixel.

    The weight of a pixel falls by `across` per column and by `down` per row of distance. The
    normal equations of all pixels above and left are sums that decay: `sums` down each column,
    `ahead` of these from a column to the right end, `behind` of these up to the column before.
    """

    def __init__(self, width: int, down: float, across: float, ridge: np.float32) -> None:
        self.width, self.down, self.across, self.ridge = width, F(down), F(across), ridge
        self.sums = np.zeros((width, TAPS + 1, TAPS), np.float32)
        self.ahead = np.zeros_like(self.sums)
        self.behind = np.zeros((TAPS + 1, TAPS), np.float32)

    def start_row(self) -> None:
        """Before a row."""
        self.behind[:] = 0
        following = np.zeros_like(self.behind)
        for x in reversed(range(self.width)):
            following = self.sums[x] + self.across * following
            self.ahead[x] = following

    def solve(self, x: int) -> Floats:
        """The weights for the pixel in column x, by Gauss-Jordan elimination without pivoting."""
        a = self.behind + self.down * self.ahead[x]  # by columns, the right side last
        for k in range(TAPS):
            a[k, k] = (a[k, k] + self.ridge) + a[k, k] * F(0.0005)
        over = np.zeros(TAPS, np.float32)
        for k in range(TAPS):
            over[k] = ONE / a[k, k] if a[k, k] > F(1e-6) else ZERO
            factors = a[k] * over[k]
            right = a[TAPS, k] * over[k]
            column = a[k].copy()
            column[k] = 0
            a[k + 1 : TAPS] = a[k + 1 : TAPS] - column * factors[k + 1 :, None]
            a[TAPS] = a[TAPS] - column * right
        weights: Floats = a[TAPS] * over
        return weights

    def learn(self, x: int, taps: Floats, value: np.float32) -> None:
        """The pixel in column x had these taps and this value."""
        factors = np.append(taps, value)[:, None]
        self.sums[x] = self.down * self.sums[x] + (taps * factors + TINY)
        self.behind = self.across * (self.behind + self.sums[x])
