"""`image/light --effort`: latents refined against the true rate and distortion of a tile.

The networks transform a picture well on average; for the one at hand the integers are improved by
descent through the frozen decoder (Campos et al., "Content Adaptive Optimization for Neural Image
Compression", 2019; Yang et al., "Improving Inference for Neural Image Compression", NeurIPS 2020).
What is minimised is R + lmbda * D at the tile's rate position, D = 255^2 MSE of its pixels.

Given z the table rows are fixed and the rate of q is a sum over its symbols, so q takes proximal
steps: against the gradient of D, scaled by what an error of one step costs, then to the integer
that is best for the step's target and the table's bits. z follows the gradients of all three terms
through rounding, as in training. Nothing of this is seen by the decoder.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ...entropy.models import gaussian
from ...entropy.models.gaussian import ROWS
from ...entropy.tables import TableSet
from .light_frozen import FrozenLight, differentiable_rows
from .light_model import Z_LIMIT, anchor_mask, interpolate, lmbda_of

ITERATIONS = (0, 5, 10, 16, 24, 36, 54, 80, 120, 180)  # of each effort
RING = 6  # latents around a tile that reach its pixels
_Q_STEP, _Q_MOMENTUM = 0.1, 0.7
_Z_STEP = 0.04  # of Adam, over the root of the iterations and falling to zero: long walks get lost
_PRICED = 40  # larger residuals are rounded plainly


@dataclass(frozen=True)
class Scene:
    """What a tile is refined against.

    Attributes:
        x: pixels in [0, 1], float [1, C, H, W], 1 or 3 channels.
        around: latents in pixel units with RING of them on the sides where the picture goes on.
        inside: where the tile lies in `around`: rows and columns.
        position: rate position.
    """

    x: Tensor
    around: Tensor
    inside: tuple[slice, slice]
    position: int


def refine(
    model: FrozenLight,
    scene: Scene,
    z: Tensor,
    q: Tensor,
    iterations: int,
    progress: Callable[[], object] = lambda: None,
) -> tuple[Tensor, Tensor, Tensor]:
    """Better integers than `z` [1, Z_CHANNELS, h/2, w/2] and `q` [1, LATENTS, h, w], or the same.

    Returns z, q and the table rows of q.

    Args:
        model: the networks, without gradients.
        scene: see there.
        z: int8, where the search starts.
        q: int16.
        iterations: each costs about two runs of the decoder.
        progress: called after each iteration.
    """
    with torch.inference_mode(False), torch.enable_grad():
        search = _Search(model, scene, z, q)
        for i in range(iterations):
            search.step(_Z_STEP / iterations**0.5 * (1 - i / iterations))
            progress()
        return search.finish()


class _Search:
    """The state of a search: z real, q integers, and where the gradients want q to be."""

    def __init__(self, model: FrozenLight, scene: Scene, z: Tensor, q: Tensor) -> None:
        self.model = model
        self.x, self.around = scene.x.clone(), scene.around.clone()
        self.inside, self.position = scene.inside, scene.position
        self.t = torch.tensor([scene.position / 64])
        self.rows_of = differentiable_rows(model.h_s, model.size)
        self.z_row = interpolate(model.h_s.z_row.float() / 16, self.t)
        self.coded_z = (model.h_s.z_rows(scene.position) > 0).view(1, -1, 1, 1)
        self.z, self.q = z.float(), q.float()
        self.anchors = anchor_mask(q.shape[2], q.shape[3])
        self.degain = interpolate(model.log_degain, self.t).exp()
        self.weight: float = lmbda_of(self.t).item() * 255**2 / scene.x.shape[1]
        norm = model.g_s.linear.square().sum(1)[None, :, None, None]
        # Of an error of one step in q: lmbda * D of the orthogonal transform, in bits.
        self.stiffness = self.weight * scene.x.shape[1] / 3 * self.degain.square() * norm
        self.prices = _prices(model.tables)
        self.adam = (torch.zeros_like(self.z), torch.zeros_like(self.z), 0)
        self.target = self.before = self.q  # where q wants to be, now and one step ago
        self.best = (float("inf"), self.z, self.q)

    def step(self, z_step: float) -> None:
        """One iteration, in which z moves by about `z_step` where it moves."""
        z_hat, q = self._z_hat().requires_grad_(), self.q.clone().requires_grad_()
        z = self.z.clone().requires_grad_()
        with torch.autocast("cpu", torch.bfloat16, enabled=_fast_in_bfloat16()):
            mu = self._means(z_hat, q)
            distortion = self._distortion(q + mu)
        bits = gaussian.rate_bits(self.q, self.rows_of(z_hat, self.t)).sum()
        z_bits = gaussian.rate_bits(z, self.z_row).sum()
        grad_q, grad_z_hat = torch.autograd.grad(distortion + bits, (q, z_hat))
        (grad_z,) = torch.autograd.grad(z_bits, z)
        self._keep(distortion.item() + bits.item())
        with torch.no_grad():
            wanted = self.q - grad_q / (2 * self.stiffness)
            moved = _Q_STEP * (wanted - self.target) + _Q_MOMENTUM * (self.target - self.before)
            self.before, self.target = self.target, self.target + moved
            self._move_z((grad_z_hat + grad_z) * self.coded_z, z_step)
            # What a latent should be stays the same when its mean moves.
            z_hat = self._z_hat()
            moved = self._means(z_hat, self.q) - mu
            self.before, self.target = self.before - moved, self.target - moved
            row = self.rows_of(z_hat, self.t).clamp(0, ROWS - 1).round().int()
            self.q = self._nearest(self.target, row)

    def finish(self) -> tuple[Tensor, Tensor, Tensor]:
        """The best integers of all iterations: int8 z, int16 q, uint8 rows."""
        with torch.no_grad():
            z_hat = self._z_hat()
            bits = gaussian.rate_bits(self.q, self.rows_of(z_hat, self.t)).sum()
            with torch.autocast("cpu", torch.bfloat16, enabled=_fast_in_bfloat16()):
                distortion = self._distortion(self.q + self._means(z_hat, self.q))
            self._keep(distortion.item() + bits.item())
            z = self.best[1].to(torch.int8)
            rows = self.model.h_s(z, self.position)
            return z, self.best[2].masked_fill(rows == 0, 0).to(torch.int16), rows

    def _keep(self, cost: float) -> None:
        z_hat = self._z_hat()
        cost += gaussian.rate_bits(z_hat, self.z_row).sum().item()
        if cost < self.best[0]:
            self.best = (cost, z_hat, self.q)

    def _z_hat(self) -> Tensor:
        return self.z.round().clamp(-Z_LIMIT, Z_LIMIT) * self.coded_z

    def _means(self, z_hat: Tensor, q: Tensor) -> Tensor:
        net = self.model.means
        features = net.features(z_hat, self.t)
        mu = net.of_anchors(features)
        rest = net.of_rest(features, torch.where(self.anchors, q + mu, 0.0))
        return torch.where(self.anchors, mu, rest)

    def _distortion(self, y: Tensor) -> Tensor:
        """Lmbda * D of the tile, in bits."""
        rows, columns = self.inside
        field = self.around.clone()
        field[:, :, rows, columns] = y * self.degain
        x_hat = self.model.g_s(field, self.t) + 0.5
        height, width = self.x.shape[2:]
        top, left = rows.start * 16, columns.start * 16
        x_hat = x_hat[:, :, top : top + height, left : left + width].clamp(0, 1)
        if self.x.shape[1] == 1:
            x_hat = x_hat.mean(1, keepdim=True)
        distortion: Tensor = self.weight * (x_hat - self.x).square().sum()
        return distortion

    def _move_z(self, gradient: Tensor, step: float) -> None:
        """Adam (Kingma and Ba, 2015)."""
        first, second, count = self.adam
        first, second = torch.lerp(gradient, first, 0.9), torch.lerp(gradient**2, second, 0.99)
        count += 1
        self.adam = (first, second, count)
        scale = (second / (1 - 0.99**count)).sqrt() + 1e-3
        self.z = self.z - step * first / (1 - 0.9**count) / scale

    def _nearest(self, target: Tensor, row: Tensor) -> Tensor:
        """Of the integers around each target and 0, those of the lowest rate + distortion."""
        size = target.abs()
        below = size.floor()
        best = below
        lowest = torch.full_like(size, float("inf"))
        for value in (below + 1, below, torch.zeros_like(below)):
            bits = self.prices[row * (_PRICED + 1) + value.clamp(max=_PRICED).int()]
            cost = bits + self.stiffness * (value - size).square()
            best = torch.where(cost < lowest, value, best)
            lowest = torch.minimum(cost, lowest)
        best = torch.where(size < _PRICED - 1, best, size.round())
        return torch.where(row > 0, best * target.sign(), 0.0)


@functools.lru_cache(maxsize=4)
def _prices(tables: TableSet) -> Tensor:
    """Bits of 0 to _PRICED in each row of the tables, float32 [rows * (_PRICED + 1)]."""
    bits = np.zeros((len(tables), _PRICED + 1), np.float32)
    for row in np.flatnonzero(tables.lengths):
        for value in range(_PRICED + 1):
            bits[row, value] = tables.cost_bits(np.array([value], np.int16), np.array([row]))
    return torch.from_numpy(bits).flatten()


def _fast_in_bfloat16() -> bool:
    return bool(torch.cpu.get_capabilities().get("avx512_bf16", False))
