"""The latents of fitted frames in NumPy: grids in four passes over 2 x 2 positions.

This is the definition; every other backend gives exactly these integers. Networks, symbols and rows
of the tables are those of `fit_ref`, but for the order and the inputs:

    A grid comes in PASSES: (row, column) = (even, even), (odd, odd), (even, odd), (odd, even); each
    row by row. Positions of a pass do not see each other.
    x: the latents of the grid at NEAR, 0 where they are not of an earlier pass or outside; 1 for
        pass 1, 2 and 3, of three inputs; the CROSS taps in the two coarser grids, as in `fit_ref`;
        of frames with a reference, the latents of its grid of the same size at TEMPORAL, 0 outside.
"""

from collections.abc import Callable, Iterator, Sequence

import numpy as np

from .errors import BitstreamError
from .fit_ref import (
    GRIDS,
    LIMIT,
    Bytes,
    Context,
    Grid,
    Integers,
    cross_inputs,
    distribution,
    grid_shapes,
    split_rows,
)

PASSES = ((0, 0), (1, 1), (0, 1), (1, 0))
NEAR = ((-1, -1), (-1, 1), (1, -1), (1, 1), (0, -1), (0, 1), (-1, 0), (1, 0))
TEMPORAL = ((0, 0), (0, -1), (0, 1), (-1, 0), (1, 0))
OWN = len(NEAR) + len(PASSES) - 1


def positions(shape: tuple[int, ...], number: int) -> tuple[Integers, Integers]:
    """Rows and columns of the positions of a pass, in order."""
    row, column = PASSES[number]
    r, c = np.mgrid[row : shape[0] : 2, column : shape[1] : 2]
    return r.reshape(-1).astype(np.int32), c.reshape(-1).astype(np.int32)


def _inputs(
    grid: Grid, coarser: Sequence[Grid], other: Grid | None, number: int
) -> tuple[Integers, Integers, Integers]:
    """Rows, columns and inputs [positions, n] of a pass; what is not known yet is 0 in `grid`."""
    r, c = positions(grid.shape, number)
    own = np.pad(grid, 1).astype(np.int32)
    columns = []
    for dr, dc in NEAR:
        parity = (PASSES[number][0] + dr) % 2, (PASSES[number][1] + dc) % 2
        seen = PASSES.index(parity) < number
        columns.append(own[r + 1 + dr, c + 1 + dc] * seen)
    columns += [np.full(len(r), number == i, np.int32) for i in range(1, len(PASSES))]
    columns += cross_inputs(coarser, (grid.shape[0], grid.shape[1]), r, c)
    if other is not None:
        padded = np.pad(other, 1).astype(np.int32)
        columns += [padded[r + 1 + dr, c + 1 + dc] for dr, dc in TEMPORAL]
    return r, c, np.stack(columns, 1)


def _coded(coded: Sequence[bool]) -> Iterator[tuple[int, int]]:
    """The grids and passes of a stream, in order."""
    for k in range(GRIDS - 1, -1, -1):
        if coded[k]:
            for number in range(len(PASSES)):
                yield k, number


def symbols(
    context: Context, grids: Sequence[Grid], reference: Sequence[Grid] | None = None
) -> tuple[Grid, Bytes]:
    """What is coded of grids, finest first: symbols and their rows of the tables, in order.

    Grids of zeros are not coded.
    """
    values: list[Integers] = [np.zeros(0, np.int32)]
    index: list[Bytes] = [np.zeros(0, np.uint8)]
    for k, number in _coded([bool(grid.any()) for grid in grids]):
        other = reference[k] if reference else None
        r, c, x = _inputs(grids[k], grids[k + 1 :], other, number)
        m, sign, row = split_rows(*distribution(context, x, k))
        values.append(sign * (grids[k][r, c] - m))
        index.append(row)
    return np.concatenate(values).astype(np.int16), np.concatenate(index)


def decode(
    context: Context,
    get: Callable[[Bytes], Grid],
    height: int,
    width: int,
    coded: Sequence[bool],
    reference: Sequence[Grid] | None = None,
) -> list[Grid]:
    """The mirror of `symbols`.

    Args:
        context: the context model.
        get: gives the next symbols of rows of the tables (of a rANS decoder).
        height: of the grids' picture.
        width: the same.
        coded: for each grid, whether it is.
        reference: the grids of the reference, where the model has inputs for it.

    Raises:
        BitstreamError: a latent is outside +-LIMIT.
    """
    grids = [np.zeros(shape, np.int16) for shape in grid_shapes(height, width)]
    for k, number in _coded(coded):
        other = reference[k] if reference else None
        r, c, x = _inputs(grids[k], grids[k + 1 :], other, number)
        m, sign, row = split_rows(*distribution(context, x, k))
        y = m + sign * get(row).astype(np.int32)
        if np.any(abs(y) > LIMIT):
            raise BitstreamError(f"a latent is outside +-{LIMIT}")
        grids[k][r, c] = y
    return grids
