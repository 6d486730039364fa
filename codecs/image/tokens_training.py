"""Training of `image/tokens`: networks, codebooks and prior in one run."""

from __future__ import annotations

from typing import Any, ClassVar

import pytorch_msssim
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...entropy.models.categorical import tree_order
from ..quantizers.usage import count_codes, perplexity, usage
from ..quantizers.vq import VectorQuantizer
from ..training import Figures, Recipe
from ..weight_files import Weights
from .tokens_frozen import frozen_state, load_frozen, thaw
from .tokens_model import LATENTS, TokensModel
from .tokens_prior import PASSES, TokenPrior

_MSE_UNIT = 0.004  # the squared error at 24 dB counts as one
_COMMITMENT = 6.0
_DEPTHS = (0.15, 0.3, 0.25, 0.3)  # how often each depth is trained
_LUMA = (0.299, 0.587, 0.114)
_MS_SSIM_LEAST_SIDE = 161
# Directional derivatives: horizontal, vertical, both diagonals.
_BANDS = (
    ((0, 0, 0), (-1, 0, 1), (0, 0, 0)),
    ((0, -1, 0), (0, 0, 0), (0, 1, 0)),
    ((-1, 0, 0), (0, 0, 0), (0, 0, 1)),
    ((0, 0, -1), (0, 0, 0), (1, 0, 0)),
)


class TokensTraining(nn.Module):
    """What is trained: the networks with their codebooks, and the prior."""

    def __init__(self, networks: TokensModel, prior: TokenPrior) -> None:
        """Take both."""
        super().__init__()
        self.networks, self.prior = networks, prior


class TokensRecipe(Recipe):
    """Recipe of `image/tokens`.

    The loss is MSE / 0.004 + ms_ssim (1 - MS-SSIM) + texture (difference of texture statistics) + 6
    (commitment), for 1 to 4 levels at random, and beside it the bits of the codes, which move
    the prior only.

    Args:
        ms_ssim: weight of 1 - MS-SSIM of luma; crops below 161 pixels go without.
        texture: weight of `texture_loss`.
        codes: "train", or "keep" to leave encoder and codebooks as the weights of --init have
            them: only what reads codes is trained, and tokens stay what they mean.
    """

    name = "image/tokens"
    defaults: ClassVar[dict[str, Any]] = {"crop": 192, "batch": 7, "lr": 1e-3, "clip": 2.0}
    multiple = 32

    def __init__(self, ms_ssim: float = 3.0, texture: float = 0.3, codes: str = "train") -> None:
        """Keep the options."""
        if codes not in ("train", "keep"):
            raise ValueError(f"codes is {codes!r}, expected train or keep")
        self.ms_ssim, self.texture, self.keep = ms_ssim, texture, codes == "keep"

    def model(self) -> TokensTraining:
        """See Recipe."""
        if self.keep:
            raise ValueError(
                'there are no codes to keep; name weights with --init, or codes="train"'
            )
        networks = TokensModel()
        return TokensTraining(networks, TokenPrior(networks.codebook_sizes))

    def load(self, weights: Weights) -> TokensTraining:
        """See Recipe; the size is that of the weights."""
        model = TokensTraining(*thaw(load_frozen(weights)))
        if self.keep:
            for name, p in model.networks.named_parameters():
                p.requires_grad_(not _of_encoder(name))
        return model

    def optimizers(self, model: nn.Module, lr: float) -> list[torch.optim.Optimizer]:
        """Muon for the matrices of the networks, Adam for the rest and for the prior.

        The encoder moves ten times more slowly, so that the codebooks can follow it.
        """
        named = {n: p for n, p in model.named_parameters() if p.requires_grad}
        prior = [p for n, p in named.items() if n.startswith("prior.")]
        groups: dict[tuple[bool, bool], list[Tensor]] = {}
        for name, p in named.items():
            if not name.startswith("prior."):
                encoder = _of_encoder(name.removeprefix("networks."))
                groups.setdefault((name.endswith(".weight"), encoder), []).append(p)
        rates = {key: lr * (1.0 if key[0] else 0.5) * (0.1 if key[1] else 1.0) for key in groups}
        muon, adam = (
            [{"params": groups[k], "lr": rates[k]} for k in groups if k[0] == matrices]
            for matrices in (True, False)
        )
        return [
            torch.optim.Muon(muon, weight_decay=0.01, adjust_lr_fn="match_rms_adamw"),
            torch.optim.Adam([*adam, {"params": prior, "lr": 3 * lr}], betas=(0.9, 0.99)),
        ]

    def start(self, model: nn.Module, batch: Tensor) -> None:
        """See Recipe and `start` below."""
        assert isinstance(model, TokensTraining)
        start(model.networks, batch)

    def loss(self, model: nn.Module, batch: Tensor) -> tuple[Tensor, Figures]:
        """See Recipe; each picture keeps a random number of levels."""
        assert isinstance(model, TokensTraining)
        networks = model.networks
        if self.keep:
            networks.coarse_codes.eval()
            networks.fine_codes.eval()
        chances = torch.tensor(_DEPTHS[: networks.size.levels], device=batch.device)
        depth = torch.multinomial(chances, len(batch), replacement=True) + 1
        x_hat, codes, losses = networks(batch, depth)
        mse = (batch - x_hat).square().mean((1, 2, 3))
        luma, luma_hat = _luma(batch), _luma(x_hat)
        loss = mse.mean() / _MSE_UNIT + self.texture * texture_loss(luma, luma_hat)
        if not self.keep:
            loss = loss + _COMMITMENT * losses["commitment_loss"]
        if min(batch.shape[2:]) >= _MS_SSIM_LEAST_SIDE:
            similar = pytorch_msssim.ms_ssim(luma_hat.float().clamp(0, 1), luma, data_range=1.0)
            loss = loss + self.ms_ssim * (1 - similar)
        number = torch.randint(len(PASSES), (len(batch),), device=batch.device)
        bits = prior_bits(model.prior, codes, number)
        figures = {"psnr_db": -10 * mse.log10().mean(), "code_bits": torch.stack(bits).mean()}
        return loss + torch.stack(bits).mean(), figures

    @torch.no_grad()
    def validate(self, model: nn.Module, batch: Tensor) -> Figures:
        """See Recipe; rate and PSNR with 1, 2, ... levels, and how the codebooks are used."""
        assert isinstance(model, TokensTraining)
        codes = model.networks.encode(batch)
        levels = levels_of(codes)
        found: Figures = {}
        errors, rate = [], batch.new_zeros(())
        passes = [torch.full((len(batch),), n) for n in range(len(PASSES))]
        for depth in range(1, len(levels) + 1):
            x_hat = model.networks.decode((codes[0], codes[1][:, : depth - 1])).clamp(0, 1)
            errors.append((batch - x_hat).square().mean((1, 2, 3)))
            for number in passes:
                rate = rate + model.prior.rate_bits(levels, depth - 1, number).sum()
            found[f"psnr_db/{depth}"] = -10 * errors[-1].log10().mean()
            found[f"bpp_est/{depth}"] = rate / batch[:, 0].numel()
        counts = count_codes(levels[0][:, None], model.networks.codebook_sizes[:1])
        counts += count_codes(codes[1], model.networks.codebook_sizes[1:])
        for i, count in enumerate(counts):
            found[f"usage/{i}"] = torch.tensor(usage(count))
            found[f"perplexity/{i}"] = torch.tensor(perplexity(count))
        return {"loss": torch.stack(errors).mean() / _MSE_UNIT, **found}

    def freeze(self, model: nn.Module) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """See Recipe."""
        assert isinstance(model, TokensTraining)
        return frozen_state(model.networks, model.prior)


RECIPE = TokensRecipe


def _of_encoder(name: str) -> bool:
    """Whether a parameter of TokensModel has a say in which codes are chosen."""
    linear = name in ("coarse.linear", "fine.linear")
    coarse = name.startswith("coarse.out.")  # the fine levels code what it leaves
    return linear or coarse or name.startswith(("g_a.", "features.")) or ".into." in name


def levels_of(codes: list[Tensor]) -> list[Tensor]:
    """Codes of the two scales -> codes of each level, int64 [B, h, w]."""
    return [codes[0][:, 0], *codes[1].unbind(1)]


def prior_bits(prior: TokenPrior, codes: list[Tensor], number: Tensor) -> list[Tensor]:
    """Mean estimated bits of a code of each level, in the given pass of each picture [B]."""
    levels = levels_of(codes)
    with torch.autocast(codes[0].device.type, enabled=False):
        return [prior.rate_bits(levels, i, number).mean() for i in range(len(levels))]


def _luma(x: Tensor) -> Tensor:
    return (x * x.new_tensor(_LUMA)[:, None, None]).sum(1, keepdim=True)


def texture_loss(luma: Tensor, luma_hat: Tensor) -> Tensor:
    """How far the strength of detail differs, whatever its position, [B, 1, H, W] in [0, 1].

    Root mean square of directional derivatives at three scales in windows of 16 x 16, after the
    statistics of Portilla and Simoncelli, "A Parametric Texture Model Based on Joint Statistics of
    Complex Wavelet Coefficients", 2000; no learned features. Ten times the mean difference.
    """
    kernels = torch.tensor(_BANDS, dtype=luma.dtype, device=luma.device)[:, None]
    total: Tensor = luma.new_zeros(())
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
        x: crops, float [B, 3, H, W] in [0, 1]: the vectors they hold start the codebooks, so the
            more the better.
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
        assert isinstance(stage, VectorQuantizer)
        stage.start(rest)
        rest = rest - stage(rest).x_hat
    sort_codes(model)
    model.train()


@torch.no_grad()
def sort_codes(model: TokensModel) -> None:
    """Number the codes anew, so that codes with the same leading bits are near each other."""
    for codes in (model.coarse_codes, *model.fine_codes.stages):
        order = tree_order(codes.codebook)
        for buffer in (codes.codebook, codes.counts, codes.sums):
            buffer.copy_(buffer[order])


def _components(y: Tensor, count: int) -> Tensor:
    """The directions in which [B, C, h, w] varies most about zero, orthonormal [count, C]."""
    rows = y.movedim(1, -1).reshape(-1, y.shape[1]).double()
    directions: Tensor = torch.linalg.eigh(rows.t() @ rows).eigenvectors
    return directions.flip(1)[:, :count].t().float()


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
