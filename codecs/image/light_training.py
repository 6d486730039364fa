"""Training of `image/light`: R + lmbda * D at all rates in one model.

D is 255^2 MSE, or for what the eye sees 1300 (1 - MS-SSIM) (Wang et al., 2003): the factor makes
one lmbda give about the same rate with both.
"""

from __future__ import annotations

from typing import Any, ClassVar

import pytorch_msssim
import torch
from torch import Tensor, nn

from ...entropy.models.gaussian import rows_of
from ..training import Figures, Recipe
from ..weight_files import Weights
from .light_frozen import SHIPPED, frozen_state, load_frozen, thaw
from .light_model import LATENTS, LEVELS, LightModel, S, Size, interpolate, lmbda_of

SIZES = {"s": S, "m": Size(channels=192, wide=256, blocks=5)}
DISTORTIONS = ("mse", "ms-ssim")
_VALIDATED_LEVELS = (1.0, 3.5, 6.0)
_MS_SSIM_FACTOR = 1300.0
_MS_SSIM_LEAST_SIDE = 161  # five scales of an 11-tap window


class LightRecipe(Recipe):
    """Recipe of `image/light`.

    Args:
        size: "s" (decoder of 15 kMAC per pixel, for CPUs) or "m" (for GPUs).
        balance: a picture's loss is weighted by lmbda ** -balance.
        distortion: "mse" or "ms-ssim".
        level: the one rate position to train, 0 to 7; None trains all of them.
    """

    name = "image/light"
    defaults: ClassVar[dict[str, Any]] = {"crop": 128, "batch": 16, "lr": 1e-3}
    multiple = 32
    shipped = SHIPPED

    def __init__(
        self,
        size: str = "s",
        balance: float = 0.4,
        distortion: str = "mse",
        level: float | None = None,
    ) -> None:
        """Keep the options."""
        for name, value, legal in (("size", size, SIZES), ("distortion", distortion, DISTORTIONS)):
            if value not in legal:
                raise ValueError(f"{name} is {value!r}, expected one of {', '.join(legal)}")
        if level is not None and not 0 <= level <= LEVELS - 1:
            raise ValueError(f"level is {level}, expected 0 to {LEVELS - 1}")
        self.size, self.balance = SIZES[size], balance
        self.distortion, self.level = distortion, level

    def model(self) -> LightModel:
        """See Recipe."""
        return LightModel(self.size)

    def load(self, weights: Weights) -> LightModel:
        """See Recipe; the size is that of the weights."""
        return thaw(load_frozen(weights))

    def optimizers(self, model: nn.Module, lr: float) -> list[torch.optim.Optimizer]:
        """See `optimizers_of`."""
        return optimizers_of(model, ["h_s.offset", "z_row"], lr)

    def start(self, model: nn.Module, batch: Tensor) -> None:
        """Start each level's table rows at the scales that a batch really has."""
        assert isinstance(model, LightModel)
        for level in range(LEVELS):
            t = torch.full((len(batch),), float(level), device=batch.device)
            y = model.g_a(batch - 0.5, t) * interpolate(model.log_gain, t).exp()
            model.h_s.offset[level] = rows_of(y.transpose(0, 1).reshape(LATENTS, -1).abs().mean(1))

    def loss(self, model: nn.Module, batch: Tensor) -> tuple[Tensor, Figures]:
        """See Recipe; each picture has a rate position of its own."""
        t = torch.rand(len(batch), device=batch.device) * (LEVELS - 1)
        if self.level is not None:
            t = torch.full_like(t, self.level)
        return self._loss(model, batch, t)

    def validate(self, model: nn.Module, batch: Tensor) -> Figures:
        """See Recipe; at three positions, named by their levels, and the mean of their losses."""
        found: Figures = {}
        losses = []
        for level in _VALIDATED_LEVELS if self.level is None else (self.level,):
            t = torch.full((len(batch),), level, device=batch.device)
            loss, figures = self._loss(model, batch, t)
            losses.append(loss)
            found |= {f"{name}/{level:g}": value for name, value in figures.items()}
        return {"loss": torch.stack(losses).mean(), **found}

    def _loss(self, model: nn.Module, x: Tensor, t: Tensor) -> tuple[Tensor, Figures]:
        lmbda = lmbda_of(t)
        x_hat, bits = model(x, t)
        mse = (x - x_hat).square().mean((1, 2, 3))
        distortion = 255**2 * mse if self.distortion == "mse" else _ms_ssim_loss(x, x_hat)
        bpp = bits / (x.shape[2] * x.shape[3])
        loss = ((bpp + lmbda * distortion) * (lmbda / 0.01) ** -self.balance).mean()
        return loss, {"bpp_est": bpp.mean(), "psnr_db": -10 * mse.log10().mean()}

    def freeze(self, model: nn.Module) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """See Recipe."""
        assert isinstance(model, LightModel)
        return frozen_state(model), {} if self.distortion == "mse" else {
            "distortion": self.distortion
        }


def optimizers_of(model: nn.Module, rows: list[str], lr: float) -> list[torch.optim.Optimizer]:
    """Muon for the convolutions' matrices, Adam for tables of rows, other tables and the rest.

    Args:
        model: parameters of it that need no gradient are left out.
        rows: names of the parameters that count in rows of the Gaussian table.
        lr: learning rate.
    """
    named = {name: p for name, p in model.named_parameters() if p.requires_grad}
    matrices = [n for n in named if n.endswith(".weight")]
    rows = [n for n in rows if n in named]
    tables = [n for n in named if named[n].shape[0] == LEVELS and n not in rows]
    others = named.keys() - {*matrices, *rows, *tables}
    groups = ((rows, 10 * lr), (tables, lr), (sorted(others), lr / 4))
    return [
        torch.optim.Muon(
            [named[n] for n in matrices],
            lr=lr,
            weight_decay=0.01,
            adjust_lr_fn="match_rms_adamw",
        ),
        torch.optim.Adam(
            [{"params": [named[n] for n in names], "lr": rate} for names, rate in groups],
            betas=(0.9, 0.99),
        ),
    ]


def _ms_ssim_loss(x: Tensor, x_hat: Tensor) -> Tensor:
    """1300 (1 - MS-SSIM) of each picture."""
    if min(x.shape[2:]) < _MS_SSIM_LEAST_SIDE:
        raise ValueError(
            f"MS-SSIM needs crops of {_MS_SSIM_LEAST_SIDE} pixels or more, got {x.shape[3]} x "
            f"{x.shape[2]}; give --crop 192"
        )
    with torch.autocast(x.device.type, enabled=False):
        similarity: Tensor = pytorch_msssim.ms_ssim(
            x, x_hat.float().clamp(0, 1), data_range=1.0, size_average=False
        )
    return _MS_SSIM_FACTOR * (1 - similarity)


RECIPE = LightRecipe
