"""The decoder of fitted pictures and frames in NumPy: integer context model, upsampling, synthesis.

This is the definition; every other backend gives exactly these integers and pixels.

A picture has 7 grids of integers, grid k with ceil(H / 2**k) rows and ceil(W / 2**k) columns,
coded from the coarsest (6) to the finest (0). Grids that are not coded are all 0.

Context model, in integers (weights and biases in units of 2**-12, sums modulo 2**32):
    x   inputs: the first n of TAPS in the grid, then CROSS taps in the two coarser grids; those of
        frames are in `fit_passes_ref`
    h1  = clamp((W1 x + b1[k] + 2**5) >> 6, 0, 32767)
    h2  = min(h1 + clamp((W2 h1 + (b2 << 6) + 2**11) >> 12, 0, 32767), 32767)
    out = W3 h2 + ((S x + b3[k]) << 6)
    mu  = clamp((out[0] + 2**13) >> 14, -16 LIMIT, 16 LIMIT), in sixteenths
    row = clamp((out[1] + 2**17) >> 18, 0, SCALES - 1)
    m = (mu + 8) >> 4, f = mu - 16 m; a latent y is the symbol y - m, or m - y where f < 0, in row
    9 row + |f| of the tables.
    Shifts are arithmetic. The symbols of a grid come in the order of t = column + 3 row, then of
    the row: positions of equal t do not see each other.

Upsampling and synthesis, in IEEE binary32: every product and every sum is rounded to nearest, in
the order written here; nothing is fused. relu(x) is x where x > 0, else 0 (so of a NaN).
    u = [y_6]; for k = 5 .. 0: u = [up2(u, kernel k) cropped to the size of grid k, y_k]
    up2: rows, then columns. Element 2 i of its output is the sum over j = 0 .. 3 of
        kernel[j] x[i - 2 + j], element 2 i + 1 that of kernel[3 - j] x[i - 1 + j]; edges repeat.
    v = u / 16; h = relu(b1 + w1[:, 0] v_0 + ... + w1[:, 6] v_6)
    a = b2 + skip[:, 0] v_0 + ... + skip[:, 6] v_6 + w2[:, 0] h_0 + w2[:, 1] h_1 + ...
    b = relu(a + conv(a, k1, c1)), x_hat = b + conv(b, k2, c2), where conv starts with its bias and
        adds kernel times input over input channels, then rows, then columns; edges repeat.
    pixel = floor(clamp(255 x_hat + 0.5, 0, 255)); 0 of a NaN

Frames of a video have samples of b bits: floor(clamp(top x_hat + 0.5, 0, top)), top = 2**b - 1.
Those with a prediction, planes of integers of 14 bits, have more planes v_7, ... behind the grids:
an integer times the binary32 nearest to 1 / (top 2**(14 - b)).
Frames of three colours are 4:2:0. All of the above is then of sizes that an odd height or width is
made even to; the first plane of a prediction goes on with its last row and column, and samples of
the others stand for 2 x 2 pixels. x_hat of the first colour is cropped to the frame; of the others,
    0.25 ((x_hat[2 i, 2 j] + x_hat[2 i + 1, 2 j]) + (x_hat[2 i, 2 j + 1] + x_hat[2 i + 1, 2 j + 1]))
stands for x_hat.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from .errors import BitstreamError

Integers = npt.NDArray[np.int32]
Grid = npt.NDArray[np.int16]
Floats = npt.NDArray[np.float32]
Bytes = npt.NDArray[np.uint8]
Samples = Bytes | Grid

GRIDS = 7
LIMIT = 511
SCALES = 28
FRACTIONS = 9  # rows of the tables for a scale
CROSS = 5
TAPS = (
    (0, -1), (-1, 0), (-1, -1), (-1, 1), (0, -2), (-2, 0), (-1, -2),
    (-1, 2), (-2, -1), (-2, 1), (0, -3), (-2, -2), (-2, 2), (-3, 0),
)  # fmt: skip
BORDER = 3  # the taps reach so far up and to the left, and no further to the right
PREDICTION_BITS = 14


class Context(NamedTuple):
    """The context model, int32 in units of 2**-12.

    Weights lie within +-32767, biases within +-2**23; n is the number of inputs, h a multiple of 8
    up to 32.

    Attributes:
        w1: [h, n].
        b1: [GRIDS, h].
        w2: [h, h].
        b2: [h].
        w3: [2, h].
        skip: [2, n].
        b3: [GRIDS, 2].
    """

    w1: Integers
    b1: Integers
    w2: Integers
    b2: Integers
    w3: Integers
    skip: Integers
    b3: Integers

    @property
    def inputs(self) -> int:
        """Their number."""
        return self.w1.shape[1]


class Synthesis(NamedTuple):
    """What makes pixels of grids, float32; s is the width, C the number of colours.

    With a prediction, n = GRIDS + C, otherwise GRIDS.

    Attributes:
        up: [GRIDS - 1, 4], the kernel to grid k.
        w1: [s, n].
        b1: [s].
        w2: [C, s].
        b2: [C].
        skip: [C, n].
        k1: [C, C, 3, 3].
        c1: [C].
        k2: [C, C, 3, 3].
        c2: [C].
    """

    up: Floats
    w1: Floats
    b1: Floats
    w2: Floats
    b2: Floats
    skip: Floats
    k1: Floats
    c1: Floats
    k2: Floats
    c2: Floats


def grid_shapes(height: int, width: int) -> list[tuple[int, int]]:
    """Rows and columns of the grids, finest first."""
    return [(-(-height >> k), -(-width >> k)) for k in range(GRIDS)]


def waves(rows: int, columns: int) -> Iterator[tuple[Integers, Integers]]:
    """Rows and columns of the positions of each t, in order; some t have none."""
    for t in range(columns + 3 * (rows - 1)):
        r = np.arange(max(0, -(-(t - columns + 1) // 3)), min(rows - 1, t // 3) + 1, dtype=np.int32)
        yield r, t - 3 * r


def distribution(context: Context, x: Integers, k: int) -> tuple[Integers, Bytes]:
    """Inputs [positions, n] of grid k to means in sixteenths and rows of scales."""
    with np.errstate(over="ignore"):
        h1 = ((x @ context.w1.T + context.b1[k] + (1 << 5)) >> 6).clip(0, 32767)
        h2 = ((h1 @ context.w2.T + (context.b2 << 6) + (1 << 11)) >> 12).clip(0, 32767)
        h2 = (h1 + h2).clip(0, 32767)
        out = h2 @ context.w3.T + ((x @ context.skip.T + context.b3[k]) << 6)
        mu = ((out[:, 0] + (1 << 13)) >> 14).clip(-16 * LIMIT, 16 * LIMIT)
        row = ((out[:, 1] + (1 << 17)) >> 18).clip(0, SCALES - 1)
    return mu, row.astype(np.uint8)


def cross_inputs(
    coarser: Sequence[Grid], shape: tuple[int, int], r: Integers, c: Integers
) -> list[Integers]:
    """The CROSS taps of positions of a grid in the next grids, nearest first."""
    none = np.zeros((1 + (shape[0] + 1) // 2, 1 + (shape[1] + 1) // 2), np.int16)
    parent, grand = [*coarser[:2], none, none][:2]
    padded = np.pad(parent, 1).astype(np.int32)
    near_r, near_c = (r >> 1) + 1, (c >> 1) + 1
    side_r, side_c = near_r + 2 * (r & 1) - 1, near_c + 2 * (c & 1) - 1
    return [
        padded[near_r, near_c],
        padded[near_r, side_c],
        padded[side_r, near_c],
        padded[side_r, side_c],
        grand[r >> 2, c >> 2].astype(np.int32),
    ]


class _Reader:
    """The inputs of positions of one grid, which is being filled."""

    def __init__(self, inputs: int, shape: tuple[int, int], coarser: Sequence[Grid]) -> None:
        """Begin with zeros; `coarser` has the next grids, nearest first."""
        self.taps = TAPS[: inputs - CROSS]
        self.shape, self.coarser = shape, coarser
        self.grid = np.zeros((shape[0] + BORDER, shape[1] + 2 * BORDER), np.int32)

    def inputs(self, r: Integers, c: Integers) -> Integers:
        """The inputs [positions, n]."""
        own = [self.grid[r + BORDER + dr, c + BORDER + dc] for dr, dc in self.taps]
        return np.stack([*own, *cross_inputs(self.coarser, self.shape, r, c)], 1)

    def put(self, r: Integers, c: Integers, y: Integers) -> None:
        """Fill in positions."""
        self.grid[r + BORDER, c + BORDER] = y

    def filled(self) -> Grid:
        """The grid without its border."""
        return self.grid[BORDER:, BORDER:-BORDER].astype(np.int16)


def split_rows(mu: Integers, row: Bytes) -> tuple[Integers, Integers, Bytes]:
    """Means in sixteenths and rows of scales to integer means, signs, and rows of the tables."""
    m = (mu + 8) >> 4
    f = mu - 16 * m
    return m, np.where(f < 0, -1, 1).astype(np.int32), (FRACTIONS * row + abs(f)).astype(np.uint8)


def symbols(context: Context, grids: Sequence[Grid]) -> tuple[Grid, Bytes]:
    """What is coded of grids, finest first: symbols and their rows of the tables, in order.

    Grids of zeros are not coded.
    """
    values: list[Integers] = [np.zeros(0, np.int32)]
    index: list[Bytes] = [np.zeros(0, np.uint8)]
    for k in range(GRIDS - 1, -1, -1):
        if not grids[k].any():
            continue
        rows, columns = grids[k].shape
        reader = _Reader(context.inputs, (rows, columns), grids[k + 1 :])
        for r, c in waves(*grids[k].shape):
            m, sign, row = split_rows(*distribution(context, reader.inputs(r, c), k))
            y = grids[k][r, c].astype(np.int32)
            values.append(sign * (y - m))
            index.append(row)
            reader.put(r, c, y)
    return np.concatenate(values).astype(np.int16), np.concatenate(index)


def decode(
    context: Context,
    get: Callable[[Bytes], Grid],
    height: int,
    width: int,
    coded: Sequence[bool],
) -> list[Grid]:
    """The mirror of `symbols`.

    Args:
        context: the context model.
        get: gives the next symbols of rows of the tables (of a rANS decoder).
        height: of the picture.
        width: of the picture.
        coded: for each grid, whether it is.

    Raises:
        BitstreamError: a latent is outside +-LIMIT.
    """
    shapes = grid_shapes(height, width)
    grids = [np.zeros(shape, np.int16) for shape in shapes]
    for k in range(GRIDS - 1, -1, -1):
        if not coded[k]:
            continue
        reader = _Reader(context.inputs, shapes[k], grids[k + 1 :])
        for r, c in waves(*shapes[k]):
            m, sign, rows = split_rows(*distribution(context, reader.inputs(r, c), k))
            y = m + sign * get(rows).astype(np.int32)
            if np.any(abs(y) > LIMIT):
                raise BitstreamError(f"a latent is outside +-{LIMIT}")
            reader.put(r, c, y)
        grids[k] = reader.filled()
    return grids


def upsample(up: Floats, grids: Sequence[Grid]) -> Floats:
    """The stack [GRIDS, H, W], coarsest grid first."""
    u = grids[-1][None].astype(np.float32)
    for k in range(GRIDS - 2, -1, -1):
        rows, columns = grids[k].shape
        u = _up2(u, up[k], rows)
        u = _up2(u.swapaxes(1, 2), up[k], columns).swapaxes(1, 2)
        u = np.concatenate([u, grids[k][None].astype(np.float32)])
    return u


def _up2(x: Floats, kernel: Floats, length: int) -> Floats:
    """Twice the rows of [channels, rows, columns], cropped to `length`."""
    n = x.shape[1]
    padded = np.pad(x, ((0, 0), (2, 2), (0, 0)), "edge")
    part = [padded[:, j : j + n] for j in range(5)]
    k = kernel
    out = np.empty((x.shape[0], 2 * n, x.shape[2]), np.float32)
    with np.errstate(over="ignore", invalid="ignore", under="ignore"):
        out[:, 0::2] = k[0] * part[0] + k[1] * part[1] + k[2] * part[2] + k[3] * part[3]
        out[:, 1::2] = k[3] * part[1] + k[2] * part[2] + k[1] * part[3] + k[0] * part[4]
    return out[:, :length]


def synthesise(synthesis: Synthesis, grids: Sequence[Grid]) -> Bytes:
    """Pixels [C, H, W] of grids, finest first."""
    return _integers(_x_hat(synthesis, grids, ()), 8).astype(np.uint8)


def synthesise_frame(
    synthesis: Synthesis,
    grids: Sequence[Grid],
    height: int,
    width: int,
    bits: int,
    prediction: Sequence[Grid] = (),
) -> list[Samples]:
    """Planes of a frame: grey, or Y, U and V in 4:2:0; uint8 of 8 bits, otherwise int16.

    Args:
        synthesis: the networks.
        grids: finest first, of even sizes where there are three colours.
        height: of the frame.
        width: of the frame.
        bits: of the samples.
        prediction: its planes, where the networks take them.
    """
    unit = np.float32(1 / (((1 << bits) - 1) << (PREDICTION_BITS - bits)))
    x_hat = _x_hat(synthesis, grids, [unit * p for p in _full_size(prediction, grids[0].shape)])
    planes = [x_hat[0, :height, :width], *(_means(x) for x in x_hat[1:])]
    samples = [_integers(plane, bits) for plane in planes]
    return [s.astype(np.uint8) if bits == 8 else s.astype(np.int16) for s in samples]


def _full_size(planes: Sequence[Grid], shape: tuple[int, ...]) -> list[Floats]:
    """A prediction's planes at the size of the grids."""
    if not planes:
        return []
    rows, columns = shape[0] - planes[0].shape[0], shape[1] - planes[0].shape[1]
    first = np.pad(planes[0], ((0, rows), (0, columns)), "edge")
    return [
        p.astype(np.float32)
        for p in (first, *(np.repeat(np.repeat(q, 2, 0), 2, 1) for q in planes[1:]))
    ]


def _means(x: Floats) -> Floats:
    """Of 2 x 2 neighbours."""
    with np.errstate(over="ignore", invalid="ignore", under="ignore"):
        columns = x[0::2] + x[1::2]
        means: Floats = np.float32(0.25) * (columns[:, 0::2] + columns[:, 1::2])
    return means


def _integers(x_hat: Floats, bits: int) -> Floats:
    """The samples, not yet as integers."""
    top = np.float32((1 << bits) - 1)
    with np.errstate(over="ignore", invalid="ignore", under="ignore"):
        scaled = top * x_hat + np.float32(0.5)
        samples: Floats = np.where(scaled > 0, np.minimum(scaled, top), np.float32(0))
    return samples


def _x_hat(net: Synthesis, grids: Sequence[Grid], more: Sequence[Floats]) -> Floats:
    """What the synthesis makes of grids and more planes, [C, H, W]."""
    with np.errstate(over="ignore", invalid="ignore", under="ignore"):
        v = [*upsample(net.up, grids) * np.float32(1 / 16), *more]
        h = [_sum(b, w, v) for b, w in zip(net.b1, net.w1, strict=True)]
        v_and_h = [*v, *(_relu(one) for one in h)]
        weights = np.concatenate([net.skip, net.w2], 1)
        a = np.stack([_sum(b, w, v_and_h) for b, w in zip(net.b2, weights, strict=True)])
        b = _relu(a + _conv(a, net.k1, net.c1))
        return b + _conv(b, net.k2, net.c2)


def _relu(x: Floats) -> Floats:
    return np.where(x > 0, x, np.float32(0))


def _sum(bias: np.float32, weights: Floats, planes: Sequence[Floats] | Floats) -> Floats:
    """The bias, then one product after another."""
    total = np.full(planes[0].shape, bias, np.float32)
    for w, plane in zip(weights, planes, strict=True):
        total = total + w * plane
    return total


def _conv(x: Floats, kernel: Floats, bias: Floats) -> Floats:
    _, height, width = x.shape
    padded = np.pad(x, ((0, 0), (1, 1), (1, 1)), "edge")
    shifted = [
        padded[i, dy : dy + height, dx : dx + width]
        for i in range(len(x))
        for dy in range(3)
        for dx in range(3)
    ]
    flat = kernel.reshape(len(kernel), -1)
    return np.stack([_sum(b, w, shifted) for b, w in zip(bias, flat, strict=True)])
