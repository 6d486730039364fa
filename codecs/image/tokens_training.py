"""Training of `image/tokens`: what is minimised, and where the networks start."""

from __future__ import annotations

from dataclasses import dataclass

import pytorch_msssim
import torch
import torch.nn.functional as F
from torch import Tensor

from .tokens_model import LATENTS, TokensModel

_LUMA = (0.299, 0.587, 0.114)
_MS_SSIM_LEAST_SIDE = 161
# Directional derivatives: horizontal, vertical, both diagonals.
_BANDS = (
    ((0, 0, 0), (-1, 0, 1), (0, 0, 0)),
    ((0, -1, 0), (0, 0, 0), (0, 1, 0)),
    ((-1, 0, 0), (0, 0, 0), (0, 0, 1)),
    ((0, 0, -1), (0, 0, 0), (1, 0, 0)),
)


@dataclass(frozen=True)
class Weights:
    """Weights of the parts of the loss; `mse` is per 0.004, the error at 24 dB."""

    mse: float = 1.0
    ms_ssim: float = 3.0
    texture: float = 0.3
    commitment: float = 2.0
    depths: tuple[float, ...] = (0.15, 0.3, 0.25, 0.3)  # how often each depth is trained


def loss_of(
    model: TokensModel, x: Tensor, weights: Weights, autocast: bool = True
) -> tuple[Tensor, dict[str, float]]:
    """The loss of a batch, float [B, 3, H, W] in [0, 1], and its parts as numbers."""
    chances = torch.tensor(weights.depths, device=x.device)
    depth = torch.multinomial(chances, len(x), replacement=True) + 1
    with torch.autocast(x.device.type, dtype=torch.bfloat16, enabled=autocast):
        x_hat, losses = model(x, depth)
    mse = (x - x_hat).square().mean((1, 2, 3))
    luma, luma_hat = _luma(x), _luma(x_hat)
    parts = {
        "mse": mse.mean() / 0.004,
        "texture": texture_loss(luma, luma_hat),
        "commitment": losses["commitment_loss"],
    }
    if min(x.shape[2:]) >= _MS_SSIM_LEAST_SIDE:
        parts["ms_ssim"] = 1 - pytorch_msssim.ms_ssim(luma_hat.clamp(0, 1), luma, data_range=1.0)
    loss = torch.stack([getattr(weights, name) * part for name, part in parts.items()]).sum()
    numbers = {name: float(part.detach()) for name, part in parts.items()}
    psnr = -10 * mse.detach().log10()
    for level in range(1, model.size.levels + 1):
        if (depth == level).any():
            numbers[f"psnr_{level}"] = float(psnr[depth == level].mean())
    return loss, numbers


def _luma(x: Tensor) -> Tensor:
    return (x * x.new_tensor(_LUMA)[:, None, None]).sum(1, keepdim=True)


def texture_loss(luma: Tensor, luma_hat: Tensor) -> Tensor:
    """How far the strength of detail differs, whatever its position, [B, 1, H, W] in [0, 1].

    Root mean square of directional derivatives at three scales in windows of 16 x 16, after the
    statistics of Portilla and Simoncelli, "A Parametric Texture Model Based on Joint Statistics of
    Complex Wavelet Coefficients", 2000; no learned features. A difference of one grey level of 20
    costs 0.05.
    """
    kernels = torch.tensor(_BANDS, dtype=luma.dtype, device=luma.device)[:, None]
    total = luma.new_zeros(())
    for _ in range(3):
        energies = [
            F.avg_pool2d(F.conv2d(y, kernels).square(), 16, 8, ceil_mode=True)
            for y in (luma, luma_hat)
        ]
        rms, rms_hat = ((e + 1e-5).sqrt() for e in energies)
        total = total + (rms - rms_hat).abs().mean() * 10
        luma, luma_hat = F.avg_pool2d(luma, 2), F.avg_pool2d(luma_hat, 2)
    return total / 3


@torch.no_grad()
def start(model: TokensModel, x: Tensor) -> None:
    """Set the linear parts to principal components, and the codebooks by k-means.

    Args:
        model: its g_a may be trained already.
        x: many crops, float [B, 3, H, W] in [0, 1]: the vectors they hold start the codebooks, so
            some four for each code of level 0 are good.
    """
    model.eval()
    y, u, _ = model.analyse(x)
    model.coarse.linear.copy_(_components(F.pixel_unshuffle(y, 2), model.size.coarse[1]))
    e = model.coarse.analyse(y, u)
    model.coarse_codes.start(e)
    y_0, p = model.coarse.synthesise(model.coarse_codes(e).x_hat)
    model.fine.linear.copy_(_components(y - y_0, model.size.fine_dim))
    rest = model.fine.analyse(y - y_0, u, p)
    for stage in model.fine_codes.stages:
        stage.start(rest)
        rest = rest - stage(rest).x_hat
    model.train()


def _components(y: Tensor, count: int) -> Tensor:
    """The directions in which [B, C, h, w] varies most about zero, orthonormal [count, C]."""
    rows = y.movedim(1, -1).reshape(-1, y.shape[1]).double()
    return torch.linalg.eigh(rows.t() @ rows).eigenvectors.flip(1)[:, :count].t().float()


@torch.no_grad()
def start_transforms(model: TokensModel, light: dict[str, Tensor]) -> None:
    """Take g_a and g_s from weights of `image/light` of the same size, at its lowest rate.

    Args:
        model: sizes channels, wide and blocks must be those of the weights.
        light: its state, names as in its weights file.
    """
    state = {n: v.float() for n, v in light.items() if n.startswith(("g_a.", "g_s."))}
    scale, offset = (state.pop(f"g_a.modulation.{n}")[0] for n in ("scale", "offset"))
    state["g_a.head.weight"] = state["g_a.head.weight"] * scale[:, None]
    state["g_a.head.bias"] = state["g_a.head.bias"] * scale + offset
    for name in ("g_s.modulation.scale", "g_s.modulation.offset"):
        state[name] = state[name][:1].expand(model.size.levels, -1)
    for name in ("g_a.linear", "g_s.linear"):
        state[name] = state[name][:LATENTS]
    model.load_state_dict(state, strict=False)
