"""Training of `video/lite`: R + lmbda * D over clips, at all rates in one model.

R is in bits per luma sample, D = 255^2 times the weighted error of `lite_blocks.distortion`.
Frames that stand alone start from the shipped weights of `image/light` (`lite_start.py`).
"""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from ...entropy.models.gaussian import rows_of
from ...kernels import motion
from ..image.light_model import LEVELS
from ..image.light_training import optimizers_of
from ..training import Figures, Recipe
from ..weight_files import Weights
from .lite_blocks import distortion, lmbda_of
from .lite_frozen import SHIPPED, frozen_state, load_frozen, thaw
from .lite_inter import after_intra, predict
from .lite_model import INTRA_STEP, TOP, LiteModel, luma
from .lite_start import from_light

_VALIDATED_LEVELS = (1.0, 3.0, 5.0)
_ROWS = ("h_s.offset", "rows.offset", "z_row")  # ends of names: what counts in table rows
_FIELD_SHARE = 0.25  # of lmbda: cheaper fields than the error of the prediction asks for


class LiteRecipe(Recipe):
    """Recipe of `video/lite`.

    Args:
        intra: train the networks of frames that stand alone as well.
        balance: a clip's loss is weighted by lmbda ** -balance.
        frames: of a clip.
        synthetic: share of the clips that are photographs in motion.
        exclude: what of which film is not used, "NAME:FROM-TO" in seconds, separated by commas.
    """

    name = "video/lite"
    defaults: ClassVar[dict[str, Any]] = {"crop": 160, "batch": 4, "lr": 1e-3}
    signal = "clip"
    multiple = 32
    shipped = SHIPPED

    def __init__(
        self,
        intra: bool = True,
        balance: float = 0.4,
        frames: int = 7,
        synthetic: float = 0.3,
        exclude: str = "",
    ) -> None:
        """Keep the options."""
        if frames < 2:
            raise ValueError(f"frames is {frames}, expected 2 or more")
        self.intra, self.balance = intra, balance
        self.frames, self.synthetic, self.exclude = frames, synthetic, exclude

    def model(self) -> LiteModel:
        """See Recipe."""
        model = LiteModel(from_light())
        model.intra.requires_grad_(self.intra)
        return model

    def load(self, weights: Weights) -> LiteModel:
        """See Recipe."""
        model = thaw(load_frozen(weights))
        model.intra.requires_grad_(self.intra)
        return model

    def optimizers(self, model: nn.Module, lr: float) -> list[torch.optim.Optimizer]:
        """See `optimizers_of`."""
        rows = [n for n, _ in model.named_parameters() if n.endswith(_ROWS)]
        return optimizers_of(model, rows, lr)

    def start(self, model: nn.Module, batch: Tensor) -> None:
        """Start each level's table rows at the scales that a batch really has."""
        assert isinstance(model, LiteModel)
        batch = batch.float() / 255
        for level in range(LEVELS):
            t = torch.full((len(batch),), float(level), device=batch.device)
            x_hat = model.intra(batch[:, 0], t)[0].clamp(0, 1)
            scales = []
            for i in range(1, min(4, batch.shape[1])):
                vectors = search(batch[:, i], x_hat, t)
                p = predict(after_intra(x_hat), vectors)
                error = model.inter.transform(batch[:, i] - p) * model.inter.gains.up(t)
                scales.append(error.abs().mean((0, 2, 3)))
            model.inter.rows.offset[level] = rows_of(torch.stack(scales).mean(0))

    def loss(self, model: nn.Module, batch: Tensor) -> tuple[Tensor, Figures]:
        """See Recipe; each clip has a rate position of its own."""
        return self._loss(model, batch, torch.rand(len(batch), device=batch.device) * TOP)

    def validate(self, model: nn.Module, batch: Tensor) -> Figures:
        """See Recipe; at three positions, named by their levels, and the mean of their losses."""
        found: Figures = {}
        losses = []
        for level in _VALIDATED_LEVELS:
            t = torch.full((len(batch),), level, device=batch.device)
            loss, figures = self._loss(model, batch, t)
            losses.append(loss)
            found |= {f"{name}/{level:g}": value for name, value in figures.items()}
        return {"loss": torch.stack(losses).mean(), **found}

    def _loss(self, model: nn.Module, batch: Tensor, t: Tensor) -> tuple[Tensor, Figures]:
        x = batch.float() / 255
        x_hat, bits = model(x, t, search)
        first = (t + INTRA_STEP).clamp(max=TOP)
        lmbda = lmbda_of(torch.stack([first, *[t] * (x.shape[1] - 1)], 1))
        error = distortion(x.flatten(0, 1), x_hat.float().flatten(0, 1)).view(bits.shape)
        bpp = bits / (4 * x.shape[3] * x.shape[4])
        weight = (lmbda[:, -1:] / 0.01) ** -self.balance
        losses = (bpp + lmbda * 255**2 * error) * weight
        psnr = -10 * torch.log10(error.clamp_min(1e-10))
        figures = {
            "intra_bpp_est": bpp[:, 0].mean(),
            "intra_psnr_db": psnr[:, 0].mean(),
            "bpp_est": bpp[:, 1:].mean(),
            "psnr_db": psnr[:, 1:].mean(),
        }
        return losses[:, 0 if self.intra else 1 :].mean(), figures

    def freeze(self, model: nn.Module) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """See Recipe."""
        assert isinstance(model, LiteModel)
        return frozen_state(model), {}


@torch.no_grad()
def search(x: Tensor, before: Tensor, t: Tensor) -> Tensor:
    """Fields of a batch [B, 6, h, w] at rate positions t [B]: int16 [B, h/4, w/4, 2]."""
    lmbda = lmbda_of(t).tolist()
    found = [
        motion.search(now.numpy(), [last.numpy()], lmbda=_FIELD_SHARE * one, effort=1).vectors
        for now, last, one in zip(luma(x).cpu(), luma(before).cpu(), lmbda, strict=True)
    ]
    return torch.stack([torch.from_numpy(vectors) for vectors in found]).to(x.device)


RECIPE = LiteRecipe
