"""Networks of `image/fit`: presets, the layout of their parameters, and their forward in torch.

Overfitted picture codec (COOL-CHIC, Ladune et al. 2023, arXiv:2212.05458; C3, Kim et al. 2024,
arXiv:2312.02753): the networks are so small that they are coded with the picture they were
fitted to. A picture [C, H, W], C = 1 or 3, is GRIDS planes of integers, finest first:

    y_0 .. y_6 ----> up2, up2, ... ----> u [7, H, W] ----> synthesis ----> x_hat [C, H, W] in 0..1
        |
        '-> context of a position (causal taps, coarser grids) -> MLP -> mean, scale -> bits

Here everything is floating point and differentiable: what training takes. Decoders run the context
model in integers and the rest in a stated order of operations (`kernels/fit_ref.py`).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

GRIDS = 7
LIMIT = 511  # of the absolute value of a latent
# Causal taps (rows, columns) from a position of the grid that is coded; a preset takes the first.
# None reaches further than two columns to the right of the row above: with t = column + 3 row, all
# positions of equal t can be decoded at once.
TAPS = (
    (0, -1), (-1, 0), (-1, -1), (-1, 1), (0, -2), (-2, 0), (-1, -2),
    (-1, 2), (-2, -1), (-2, 1), (0, -3), (-2, -2), (-2, 2), (-3, 0),
)  # fmt: skip
CROSS = (
    5  # parent, its neighbours on the child's side (left or right, up or down, both), grandparent
)
SCALES = 28  # rows of the table: Laplace distributions of scale B_MIN exp(B_STEP row)
B_MIN = 2.0**-4
B_STEP = math.log(2) / 3  # three rows to an octave; the last row is 2**5
LATENT_UNIT = 1 / 16  # of the latents as the synthesis takes them
UP_TAPS = 4
# Cubic interpolation (Keys 1981, a = -0.5) at a quarter of a step.
CUBIC = (-0.0234375, 0.2265625, 0.8671875, -0.0703125)


@dataclass(frozen=True)
class Preset:
    """Sizes of the networks.

    Attributes:
        number: of the preset in the stream.
        taps: causal taps of the context.
        hidden: width of the context model; a multiple of 8.
        width: of the synthesis; a multiple of 4.
    """

    number: int
    taps: int
    hidden: int
    width: int

    @property
    def inputs(self) -> int:
        """Of the context model."""
        return self.taps + CROSS

    def macs_per_pixel(self, colours: int) -> float:
        """Multiplications a decoder does for a pixel."""
        context = self.inputs * (self.hidden + 2) + self.hidden * (self.hidden + 2)
        synthesis = GRIDS * (self.width + colours) + self.width * colours + 18 * colours**2
        up: float = sum((GRIDS - 1 - k) * UP_TAPS * 1.5 / 4**k for k in range(GRIDS - 1))
        return context * 4 / 3 + synthesis + up


PRESETS = {
    "fast": Preset(0, 6, 8, 12),
    "default": Preset(1, 10, 16, 24),
    "best": Preset(2, 14, 24, 40),
    "max": Preset(3, 14, 32, 64),
}


@dataclass(frozen=True)
class Slice:
    """Where an array of parameters lies in the flat vector of all."""

    start: int
    shape: tuple[int, ...]

    @property
    def size(self) -> int:
        """Numbers in it."""
        return math.prod(self.shape)

    @property
    def stop(self) -> int:
        """Behind its last number."""
        return self.start + self.size


def layout(preset: Preset, colours: int) -> dict[str, Slice]:
    """The slices of the parameter vector, in order, without gaps."""
    return slices(preset.hidden, preset.inputs, preset.width, colours, GRIDS)


def slices(hidden: int, inputs: int, width: int, colours: int, planes: int) -> dict[str, Slice]:
    """The slices of networks of these sizes, of which the synthesis takes so many planes."""
    h, n, s, c = hidden, inputs, width, colours
    shapes: dict[str, tuple[int, ...]] = {
        "context.w1": (h, n),
        "context.b1": (GRIDS, h),
        "context.w2": (h, h),
        "context.b2": (h,),
        "context.w3": (2, h),
        "context.skip": (2, n),
        "context.b3": (GRIDS, 2),
        "up": (GRIDS - 1, UP_TAPS),  # row k: from grid k + 1 to k
        "synthesis.w1": (s, planes),
        "synthesis.b1": (s,),
        "synthesis.w2": (c, s),
        "synthesis.b2": (c,),
        "synthesis.skip": (c, planes),
        "synthesis.k1": (c, c, 3, 3),
        "synthesis.c1": (c,),
        "synthesis.k2": (c, c, 3, 3),
        "synthesis.c2": (c,),
    }
    found, start = {}, 0
    for name, shape in shapes.items():
        found[name] = Slice(start, shape)
        start = found[name].stop
    return found


def count(preset: Preset, colours: int) -> int:
    """Parameters of all networks together."""
    return layout(preset, colours)["synthesis.c2"].stop


def split(parameters: Tensor, preset: Preset, colours: int) -> dict[str, Tensor]:
    """Views of a flat parameter vector by name."""
    return {
        name: parameters[s.start : s.stop].view(s.shape)
        for name, s in layout(preset, colours).items()
    }


def initial(preset: Preset, colours: int, generator: torch.Generator | None = None) -> Tensor:
    """Parameters to begin with where there is no prior, float32 [count]."""
    parameters = torch.zeros(count(preset, colours))
    p = split(parameters, preset, colours)
    for name in ("context.w1", "context.w2", "context.w3", "synthesis.w1", "synthesis.w2"):
        bound = (2 if name.endswith("w1") else 1) / math.sqrt(p[name].shape[1])
        p[name].uniform_(-bound, bound, generator=generator)
    p["context.b3"][:, 1] = SCALES / 2
    p["up"][:] = torch.tensor(CUBIC)
    p["synthesis.skip"][:] = 1 / GRIDS
    p["synthesis.b1"].uniform_(-0.3, 0.3, generator=generator)  # not all at the edge of relu
    p["synthesis.b2"][:] = 0.5
    p["synthesis.c1"][:] = 0.5  # keeps colours off the edge of the last relu, where they would die
    p["synthesis.c2"][:] = -0.5
    return parameters


def grid_shapes(height: int, width: int) -> list[tuple[int, int]]:
    """Rows and columns of the grids, finest first."""
    return [(-(-height >> k), -(-width >> k)) for k in range(GRIDS)]


def contexts(grids: list[Tensor], k: int, taps: int) -> Tensor:
    """Inputs of the context model for all positions of grid k: [rows * columns, taps + CROSS]."""
    y = grids[k]
    rows, columns = y.shape
    padded = F.pad(y, (3, 2, 3, 0))
    spatial = [padded[3 + r : 3 + r + rows, 3 + c : 3 + c + columns] for r, c in TAPS[:taps]]
    return torch.stack([*spatial, *cross(grids, k)], -1).view(-1, taps + CROSS)


def cross(grids: list[Tensor], k: int) -> list[Tensor]:
    """The CROSS taps into the coarser grids, each [rows, columns]; 0 where there is none."""
    y = grids[k]
    r = torch.arange(y.shape[0], device=y.device)
    c = torch.arange(y.shape[1], device=y.device)
    if k + 1 == GRIDS:
        return [torch.zeros_like(y)] * CROSS
    parents = F.pad(grids[k + 1], (1, 1, 1, 1))
    near_r, near_c = (r >> 1) + 1, (c >> 1) + 1
    side_r, side_c = near_r + 2 * (r & 1) - 1, near_c + 2 * (c & 1) - 1
    near, side = parents[near_r], parents[side_r]
    grand = grids[k + 2][r >> 2][:, c >> 2] if k + 2 < GRIDS else torch.zeros_like(y)
    return [near[:, near_c], near[:, side_c], side[:, near_c], side[:, side_c], grand]


def context_model(p: dict[str, Tensor], x: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """Contexts [n, inputs] of grid k -> means [n] and rows of the table [n], not rounded."""
    h = F.relu(F.linear(x, p["context.w1"], p["context.b1"][k]))
    h = h + F.relu(F.linear(h, p["context.w2"], p["context.b2"]))
    out = F.linear(h, p["context.w3"], p["context.b3"][k]) + F.linear(x, p["context.skip"])
    return out[:, 0], out[:, 1].clamp(0, SCALES - 1)


def laplace_bits(y: Tensor, mu: Tensor, row: Tensor) -> Tensor:
    """Bits of y, [n]: the mass of [y - 1/2, y + 1/2] of a Laplace distribution around mu.

    `row` is the real row of the table: the scale is B_MIN exp(B_STEP row). Stable for any y.
    """
    b = B_MIN * torch.exp(B_STEP * row)
    d = (y - mu).abs()
    inner = 1 - 0.5 * (torch.exp((d.clamp(max=0.5) - 0.5) / b) + torch.exp(-(d + 0.5) / b))
    outer = (d - 0.5) / b - torch.log(-0.5 * torch.expm1(-1 / b))
    return torch.where(d < 0.5, -torch.log(inner.clamp(min=1e-9)), outer) / math.log(2)


def rate_bits(p: dict[str, Tensor], grids: list[Tensor], taps: int) -> Tensor:
    """Bits of all grids, a scalar."""
    bits = torch.zeros((), device=grids[0].device)
    for k, y in enumerate(grids):
        mu, row = context_model(p, contexts(grids, k, taps), k)
        bits = bits + laplace_bits(y.reshape(-1), mu, row).sum()
    return bits


def upsample(p: dict[str, Tensor], grids: list[Tensor]) -> Tensor:
    """The stack u [GRIDS, H, W], coarsest grid first."""
    u = grids[-1][None]
    for k in range(GRIDS - 2, -1, -1):
        rows, columns = grids[k].shape
        u = _up2(_up2(u, p["up"][k], rows).mT, p["up"][k], columns).mT
        u = torch.cat([u, grids[k][None]])
    return u


def _up2(u: Tensor, kernel: Tensor, length: int) -> Tensor:
    """Twice the rows of [channels, rows, columns], cropped to `length`; edges repeat.

    Row 2i lies a quarter of a step before row i of the input: taps i - 2 .. i + 1. Row 2i + 1
    lies a quarter behind it: taps i - 1 .. i + 2, the kernel mirrored.
    """
    n = u.shape[1]
    padded = torch.cat([u[:, :1], u[:, :1], u, u[:, -1:], u[:, -1:]], 1)
    shifted = [padded[:, j : j + n] for j in range(5)]
    even = sum(kernel[j] * shifted[j] for j in range(UP_TAPS))
    odd = sum(kernel[3 - j] * shifted[j + 1] for j in range(UP_TAPS))
    both = torch.stack([torch.as_tensor(even), torch.as_tensor(odd)], 2)
    return both.reshape(u.shape[0], 2 * n, -1)[:, :length]


def synthesise(p: dict[str, Tensor], u: Tensor) -> Tensor:
    """The stack u [GRIDS, H, W] -> x_hat [C, H, W], 0 is black and 1 white; not clamped."""
    return pixels_of(p, u * LATENT_UNIT)


def pixels_of(p: dict[str, Tensor], planes: Tensor) -> Tensor:
    """What the synthesis makes of planes [n, H, W], so many as its first layer takes."""
    channels, height, width = planes.shape
    v = planes.reshape(channels, -1)
    h = F.relu(p["synthesis.w1"] @ v + p["synthesis.b1"][:, None])
    a = p["synthesis.w2"] @ h + p["synthesis.b2"][:, None] + p["synthesis.skip"] @ v
    a = a.view(-1, height, width)
    b = F.relu(a + _around(a, p["synthesis.k1"], p["synthesis.c1"]))
    return b + _around(b, p["synthesis.k2"], p["synthesis.c2"])


def _around(a: Tensor, kernel: Tensor, bias: Tensor) -> Tensor:
    padded = F.pad(a[None], (1, 1, 1, 1), mode="replicate")
    return F.conv2d(padded, kernel, bias)[0]
