"""Networks of `video/fit`: the layout of their parameters, and their forward in torch.

Overfitted video codec (C3, Kim et al. 2024, arXiv:2312.02753; COOL-CHIC video, Leguay et al. 2024,
arXiv:2402.03179). A frame is a pyramid of integers as a picture of `image/fit` is; all frames of a
kind in a group of pictures share their networks. A predicted frame has a prediction, planes made of
frames that are there already, which the synthesis takes beside the upsampled grids, and the
context model sees the latents of another frame:

    y_0 .. y_6 -------> up2, up2, ... ---> u [7, H, W] --.
        |                                                |--> synthesis --> x_hat [C, H, W]
        |               prediction p --------> [C, H, W]-'
        '-> context (neighbours, coarser grids, the other frame's grid) -> mean, scale -> bits

A grid is coded in PASSES: first the positions of even rows and columns, then those of odd rows and
columns, of even rows, of odd rows. Positions of a pass do not see each other, so each pass is one
step for any number of processors; neighbours of earlier passes are seen on all sides.

H and W are even where there are colours; U and V are the means of 2 x 2 of their pixels in x_hat,
and those of the prediction are repeated 2 x 2. The synthesis of predicted frames begins as the
identity of the prediction, so it is a decoder of residuals and a filter of the prediction in one.

Here everything is floating point and differentiable: what training takes. Decoders run the context
model in integers (`kernels/fit_passes_ref.py`) and the rest in a stated order of operations
(`kernels/fit_ref.py`).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from ..image import fit_networks as still
from ..image.fit_networks import CROSS, GRIDS, LATENT_UNIT, Slice

TEMPORAL = ((0, 0), (0, -1), (0, 1), (-1, 0), (1, 0))  # taps in the other frame's grid
NEAR = ((-1, -1), (-1, 1), (1, -1), (1, 1), (0, -1), (0, 1), (-1, 0), (1, 0))
PASSES = 4
PASS_OF = ((0, 2), (3, 1))  # the pass of a position, by its row and column modulo 2


@dataclass(frozen=True)
class Shape:
    """Sizes of the networks of a kind of frames.

    Attributes:
        hidden: width of the context model; a multiple of 8.
        width: of the synthesis.
        colours: 1 or 3.
        predicted: whether there is a prediction, and another frame's latents.
    """

    hidden: int
    width: int
    colours: int
    predicted: bool

    @property
    def temporal(self) -> int:
        """Inputs of the context model from another frame."""
        return len(TEMPORAL) if self.predicted else 0

    @property
    def extra(self) -> int:
        """Planes that the synthesis takes beside the grids."""
        return self.colours if self.predicted else 0

    @property
    def inputs(self) -> int:
        """Of the context model."""
        return len(NEAR) + PASSES - 1 + CROSS + self.temporal


def layout(shape: Shape) -> dict[str, Slice]:
    """The slices of the parameter vector, in order, without gaps."""
    planes = GRIDS + shape.extra
    return still.slices(shape.hidden, shape.inputs, shape.width, shape.colours, planes)


def count(shape: Shape) -> int:
    """Parameters of all networks together."""
    return layout(shape)["synthesis.c2"].stop


def split(parameters: Tensor, shape: Shape) -> dict[str, Tensor]:
    """Views of a flat parameter vector by name."""
    return {name: parameters[s.start : s.stop].view(s.shape) for name, s in layout(shape).items()}


def initial(shape: Shape, generator: torch.Generator | None = None) -> Tensor:
    """Parameters to begin with where there is nothing better, float32 [count]."""
    parameters = torch.zeros(count(shape))
    p = split(parameters, shape)
    for name in ("context.w1", "context.w2", "context.w3", "synthesis.w1", "synthesis.w2"):
        bound = (2 if name.endswith("w1") else 1) / math.sqrt(p[name].shape[1])
        p[name].uniform_(-bound, bound, generator=generator)
    # Latents of predicted frames are mostly 0, which should not cost much before that is learned.
    p["context.b3"][:, 1] = 5 if shape.predicted else 9
    p["up"][:] = torch.tensor(still.CUBIC)
    p["synthesis.skip"][:, :GRIDS] = 1 / GRIDS
    p["synthesis.b1"].uniform_(-0.3, 0.3, generator=generator)  # not all at the edge of relu
    if shape.predicted:
        p["synthesis.skip"][:, GRIDS:] = torch.eye(shape.colours)
        p["synthesis.w2"][:] = 0  # nothing but the prediction
    else:
        p["synthesis.b2"][:] = 0.5
    p["synthesis.c1"][:] = 0.5  # keeps colours off the edge of the last relu, where they would die
    p["synthesis.c2"][:] = -0.5
    return parameters


def rate_bits(
    p: dict[str, Tensor], grids: list[Tensor], shape: Shape, reference: list[Tensor], first: int
) -> Tensor:
    """Bits of the grids from `first` on, a scalar.

    Args:
        p: parameters by name.
        grids: all 7, finest first.
        shape: of the networks.
        reference: the other frame's grids; zeros where there is none.
        first: the finest grid that is coded.
    """
    bits = torch.zeros((), device=grids[0].device)
    for k in range(first, GRIDS):
        x = torch.cat([_near(grids[k]), _flat(still.cross(grids, k))], 1)
        if shape.temporal:
            x = torch.cat([x, _flat(_shifted(reference[k], TEMPORAL))], 1)
        mu, row = still.context_model(p, x, k)
        bits = bits + still.laplace_bits(grids[k].reshape(-1), mu, row).sum()
    return bits


def _near(grid: Tensor) -> Tensor:
    """What positions know of their own grid, [rows * columns, 11].

    Their neighbours, 0 where those are not of an earlier pass, and 1 for their own pass but the
    first.
    """
    parity = [torch.arange(n, device=grid.device) & 1 for n in grid.shape]
    of = torch.tensor(PASS_OF, device=grid.device)
    own = of[parity[0]][:, parity[1]]
    earlier = [of[(parity[0] + r) & 1][:, (parity[1] + c) & 1] < own for r, c in NEAR]
    near = [v * e for v, e in zip(_shifted(grid, NEAR), earlier, strict=True)]
    return _flat([*near, *(own.eq(i).to(grid.dtype) for i in range(1, PASSES))])


def _shifted(grid: Tensor, taps: Sequence[tuple[int, int]]) -> list[Tensor]:
    """Neighbours of all positions, 0 outside."""
    rows, columns = grid.shape
    padded = F.pad(grid, (1, 1, 1, 1))
    return [padded[1 + r : 1 + r + rows, 1 + c : 1 + c + columns] for r, c in taps]


def _flat(inputs: list[Tensor]) -> Tensor:
    return torch.stack(inputs, -1).view(-1, len(inputs))


def synthesise(p: dict[str, Tensor], grids: list[Tensor], prediction: Tensor | None) -> Tensor:
    """Grids and a prediction [C, H, W] in 0..1 -> x_hat [C, H, W], not clamped."""
    v = still.upsample(p, grids) * LATENT_UNIT
    return still.pixels_of(p, v if prediction is None else torch.cat([v, prediction]))


def full_size(planes: Sequence[Tensor]) -> Tensor:
    """Planes Y [H, W], U and V [H / 2, W / 2], or grey, to [C, H, W]: samples repeat 2 x 2."""
    others = [p.repeat_interleave(2, 0).repeat_interleave(2, 1) for p in planes[1:]]
    return torch.stack([planes[0], *others])


def distortion(x_hat: Tensor, planes: Sequence[Tensor]) -> Tensor:
    """(6 MSE_Y + MSE_U + MSE_V) / 8 of x_hat [3, H, W] and planes in 0..1; MSE of grey."""
    luma = (x_hat[0] - planes[0]).square().mean()
    if len(planes) == 1:
        return luma
    half = F.avg_pool2d(x_hat[None, 1:], 2)[0]
    for mean, plane in zip(half, planes[1:], strict=True):
        luma = luma + (mean - plane).square().mean() / 6
    return luma * 6 / 8
