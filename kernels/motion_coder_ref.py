"""Motion fields as bytes: a quadtree of leaves that repeat a neighbour or have their own vectors.

This is the definition; the compiled coder writes and reads exactly these bytes.

The picture is first one leaf, or roots of 8 x 8 blocks by rows; a root is a leaf or four squares of
half the side (by rows), down to single blocks; squares outside of the picture are left out. A leaf
is one of its choices (`Grid.choices`), or it has a mode (with two references) and, for each
reference it uses, a difference from a predicted vector (`Grid.predicted`), modulo 2**16. Vectors of
references that a leaf does not use are 0.

`pixels_mix_ref` has the arithmetic coder, `motion_model_ref` the probabilities.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from .motion_model_ref import Model
from .motion_ref import FIRST, MEAN, SECOND, Field
from .pixels_mix_ref import Decoder, Encoder

ROOT = 8  # blocks
CHOICES = 5
WHOLE = 4  # the level of a picture that is one leaf; levels below are log2 of the side

Vector = tuple[int, int]


class Motion(NamedTuple):
    """What a leaf has: a mode, and a vector for each reference, (0, 0) where it is not used."""

    mode: int
    first: Vector
    second: Vector

    def uses(self, reference: int) -> bool:
        """Whether it looks at a reference."""
        return self.mode == MEAN or self.mode == reference

    def vector(self, reference: int) -> Vector:
        """Its vector to a reference."""
        return self.second if reference else self.first


class Choice(NamedTuple):
    """A motion that a leaf may repeat, how many neighbours have it, and which was the first."""

    motion: Motion
    votes: int
    source: int


class Grid:
    """The blocks of a picture, as far as they are known."""

    def __init__(self, rows: int, columns: int, two: bool, before: Field | None) -> None:
        self.rows, self.columns, self.two = rows, columns, two
        self.motions: dict[tuple[int, int], Motion] = {}
        self.levels: dict[tuple[int, int], int] = {}
        self.merged: dict[tuple[int, int], bool] = {}
        self.before = None if before is None else motions_of(before)

    def fill(self, r: int, c: int, side: int, level: int, motion: Motion, merged: bool) -> None:
        """Make a leaf known."""
        for i in range(r, min(r + side, self.rows)):
            for j in range(c, min(c + side, self.columns)):
                self.motions[i, j] = motion
                self.levels[i, j] = level
                self.merged[i, j] = merged

    def around(self, r: int, c: int, side: int) -> list[Motion | None]:
        """Left, above, above to the right, below to the left, above to the left."""
        low, right = min(r + side, self.rows) - 1, min(c + side, self.columns) - 1
        places = (
            (low, c - 1),
            (r - 1, right),
            (r - 1, c + side),
            (r + side, c - 1),
            (r - 1, c - 1),
        )
        return [self.motions.get(place) for place in places]

    def temporal(self, r: int, c: int, side: int) -> Motion | None:
        """Of the field before, in the middle."""
        if self.before is None:
            return None
        return self.before[min(r + side // 2, self.rows - 1)][min(c + side // 2, self.columns - 1)]

    def choices(self, r: int, c: int, side: int) -> list[Choice]:
        """Up to CHOICES different motions, those with more votes first."""
        a, b, *others = self.around(r, c, side)
        zero = Motion(MEAN if self.two else FIRST, (0, 0), (0, 0))
        found: list[Choice] = []
        for source, motion in enumerate((a, b, self.temporal(r, c, side), *others, zero)):
            if motion is None:
                continue
            for i, choice in enumerate(found):
                if choice.motion == motion:
                    found[i] = choice._replace(votes=choice.votes + 1)
                    break
            else:
                if len(found) < CHOICES:
                    found.append(Choice(motion, 1, source))
        return sorted(found, key=lambda choice: -choice.votes)

    def predicted(self, r: int, c: int, side: int, reference: int) -> Vector:
        """Median by component of up to three vectors, or the first of fewer, or (0, 0)."""
        motions = [*self.around(r, c, side)[:3], self.temporal(r, c, side)]
        used = [m.vector(reference) for m in motions if m is not None and m.uses(reference)][:3]
        if len(used) < 3:
            return used[0] if used else (0, 0)
        return sorted(v[0] for v in used)[1], sorted(v[1] for v in used)[1]

    def spread(self, r: int, c: int, side: int, reference: int) -> int:
        """How far the vectors left and above are from each other: 0 to 4, 5 where one lacks."""
        a, b = self.around(r, c, side)[:2]
        if a is None or b is None or not a.uses(reference) or not b.uses(reference):
            return 5
        v, w = a.vector(reference), b.vector(reference)
        distance = abs(v[0] - w[0]) + abs(v[1] - w[1])
        return sum(distance > limit for limit in (0, 2, 6, 16))

    def calm(self, r: int, c: int, side: int) -> int:
        """Of the field before: 0 there is none, 1 all blocks here were alike, 2 they were not."""
        if self.before is None:
            return 0
        rows = self.before[r : r + side]
        return 1 if all(m == rows[0][c] for row in rows for m in row[c : c + side]) else 2


def motions_of(field: Field) -> list[list[Motion]]:
    """The motion of every block."""
    if field.mode is None:
        return [[Motion(FIRST, (int(y), int(x)), (0, 0)) for y, x in row] for row in field.vectors]
    motions = []
    for r, modes in enumerate(field.mode.tolist()):
        row = []
        for c, mode in enumerate(modes):
            (y0, x0), (y1, x1) = field.vectors[:, r, c].tolist()
            first = (y0, x0) if mode != SECOND else (0, 0)
            row.append(Motion(mode, first, (y1, x1) if mode != FIRST else (0, 0)))
        motions.append(row)
    return motions


def encode(field: Field, before: Field | None = None) -> bytes:
    """Code a field; see `motion.encode`."""
    coder = Encoder()
    wanted = motions_of(field)
    _Walk(Model(coder), len(wanted), len(wanted[0]), field.mode is not None, before, wanted).run()
    return coder.finish()


def decode(
    data: bytes, rows: int, columns: int, two: bool, before: Field | None = None
) -> tuple[Field, int]:
    """The field of bytes, and how many of them it needed, up to 4 more."""
    coder = Decoder(data)
    walk = _Walk(Model(coder), rows, columns, two, before, None)
    walk.run()
    vectors = np.zeros((2, rows, columns, 2), np.int16)
    mode = np.zeros((rows, columns), np.uint8)
    for (r, c), motion in walk.grid.motions.items():
        mode[r, c], vectors[0, r, c], vectors[1, r, c] = motion
    return (Field(vectors, mode) if two else Field(vectors[0].copy())), coder.at


class _Walk:
    """Goes through the tree, in both directions of coding: what is wanted, or what is read."""

    def __init__(
        self,
        model: Model,
        rows: int,
        columns: int,
        two: bool,
        before: Field | None,
        wanted: list[list[Motion]] | None,
    ) -> None:
        self.model = model
        self.grid = Grid(rows, columns, two, before)
        self.wanted = wanted

    def run(self) -> None:
        rows, columns = self.grid.rows, self.grid.columns
        side = max(rows, columns)
        if not self.split(0, 0, side, WHOLE, 0, 0):
            self.leaf(0, 0, side, WHOLE)
            return
        for r in range(0, rows, ROOT):
            for c in range(0, columns, ROOT):
                self.node(r, c, ROOT, 3, 0, 0)

    def node(self, r: int, c: int, side: int, level: int, number: int, splits: int) -> int:
        """A leaf or four; whether it was split."""
        if not level or not self.split(r, c, side, level, number, splits):
            self.leaf(r, c, side, level)
            return 0
        half, splits = side // 2, 0
        for i in range(4):
            y, x = r + i // 2 * half, c + i % 2 * half
            if y < self.grid.rows and x < self.grid.columns:
                splits += self.node(y, x, half, level - 1, i, splits)
        return 1

    def split(self, r: int, c: int, side: int, level: int, number: int, splits: int) -> int:
        grid, bit = self.grid, 0
        if self.wanted is not None:
            part = [row[c : c + side] for row in self.wanted[r : r + side]]
            bit = int(any(motion != part[0][0] for row in part for motion in row))
        left, top = (
            0 if there is None else 2 if there < level else 1
            for there in (grid.levels.get((r, c - 1)), grid.levels.get((r - 1, c)))
        )
        a, b = grid.around(r, c, side)[:2]
        alike = 0 if a is None or b is None else 1 if a == b else 2
        contexts = (
            level * 9 + left * 3 + top,
            level * 9 + alike * 3 + grid.calm(r, c, side),
            level * 16 + number * 4 + splits,
        )
        return self.model.code("split", level, contexts, bit)

    def leaf(self, r: int, c: int, side: int, level: int) -> None:
        grid = self.grid
        choices = grid.choices(r, c, side)
        wanted = self.wanted[r][c] if self.wanted is not None else None
        at = next((i for i, choice in enumerate(choices) if choice.motion == wanted), None)
        left, top = (
            0 if there is None else 1 + there
            for there in (grid.merged.get((r, c - 1)), grid.merged.get((r - 1, c)))
        )
        contexts = (
            level * 6 + min(choices[0].votes, 5),
            level * 9 + left * 3 + top,
            level * 12 + len(choices) * 2 + (grid.before is not None),
        )
        if self.model.code("merge", level, contexts, int(at is not None)):
            motion = choices[self.index(choices, level, at)].motion
            grid.fill(r, c, side, level, motion, True)
        else:
            grid.fill(r, c, side, level, self.own(r, c, side, level, wanted), False)

    def index(self, choices: list[Choice], level: int, wanted: int | None) -> int:
        for i in range(len(choices) - 1):
            votes, following = choices[i].votes, choices[i + 1].votes
            contexts = (
                i * 36 + min(votes, 5) * 6 + min(following, 5),
                i * 35 + choices[i].source * 5 + level,
                i * 20 + len(choices) * 3 + self.grid.two,
            )
            if self.model.code("index", i, contexts, int(wanted == i)):
                return i
        return len(choices) - 1

    def own(self, r: int, c: int, side: int, level: int, wanted: Motion | None) -> Motion:
        mode = self.mode(r, c, side, level, wanted) if self.grid.two else FIRST
        vectors: list[Vector] = [(0, 0), (0, 0)]
        for reference in (0, 1):
            if mode != MEAN and mode != reference:
                continue
            near = self.grid.predicted(r, c, side, reference)
            spread = self.grid.spread(r, c, side, reference)
            gone = (0, 0)
            if wanted is not None:
                goal = wanted.vector(reference)
                gone = (_wrapped(goal[0] - near[0]), _wrapped(goal[1] - near[1]))
            y, log2 = self.difference(0, 7, spread, level, mode, gone[0])
            x, _ = self.difference(1, log2, spread, level, mode, gone[1])
            vectors[reference] = _wrapped(near[0] + y), _wrapped(near[1] + x)
        return Motion(mode, *vectors)

    def mode(self, r: int, c: int, side: int, level: int, wanted: Motion | None) -> int:
        a, b = self.grid.around(r, c, side)[:2]
        temporal = self.grid.temporal(r, c, side)
        of_a, of_b, of_t = (3 if m is None else m.mode for m in (a, b, temporal))
        goal = FIRST if wanted is None else wanted.mode
        for i, one in enumerate((MEAN, SECOND)):
            contexts = (i * 16 + of_a * 4 + of_b, i * 20 + of_t * 5 + level, i * 5 + level)
            if self.model.code("mode", i, contexts, int(goal == one)):
                return one
        return FIRST

    def difference(
        self, component: int, other: int, spread: int, level: int, mode: int, wanted: int
    ) -> tuple[int, int]:
        """A component of a difference, and the bits of its size.

        Args:
            component: 0 = y, 1 = x.
            other: for x, the bits of the size of y, at most 6; 7 for y.
            spread: see `Grid.spread`.
            level: of the leaf.
            mode: of the leaf.
            wanted: what to code.
        """
        model = self.model
        case = 0 if not component else 1 + (other > 0)
        mean = int(mode == MEAN)
        zero = (
            case * 6 + spread,
            case * 10 + level * 2 + mean,
            case * 12 + min(other, 5) * 2 + mean,
        )
        if model.code("zero", case, zero, int(not wanted)):
            return 0, 0
        size, log2 = abs(wanted), 0
        while log2 < 15:
            at = component * 10 + min(log2, 9)
            contexts = (at * 6 + spread, at * 5 + level, at * 7 + min(other, 6))
            if not model.code("exponent", component, contexts, int(size >> (log2 + 1) > 0)):
                break
            log2 += 1
        read = 1
        for i in range(log2 - 1, -1, -1):
            bit = size >> i & 1
            if i == log2 - 1:
                at = component * 16 + log2
                bit = model.code("mantissa", component, (at, at * 2 + mean, component), bit)
            else:
                bit = model.even(bit)
            read = read * 2 + bit
        return (-read if model.even(int(wanted < 0)) else read), min(log2 + 1, 6)


def _wrapped(x: int) -> int:
    """Modulo 2**16, within int16."""
    return (x + 32768 & 0xFFFF) - 32768
