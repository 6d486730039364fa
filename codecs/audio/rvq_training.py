"""Training of `audio/rvq`: reconstruction losses and an adversary, balanced, at all bandwidths.

The codec learns unquantised for some updates; then k-means over the latents of the latest ones
starts the codebooks. From then on each item of a batch is coded with a random number of codebooks.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.utils.data import Dataset

from ...entropy.models.code_prior import IntegerCodePrior
from ..quantizers.usage import count_codes, perplexity
from ..training import Figures, Recipe
from ..weight_files import Weights
from .rvq_discriminator import (
    Discriminator,
    Verdict,
    adversarial_loss,
    discriminator_loss,
    feature_loss,
)
from .rvq_frozen import SHIPPED, config_of, frozen_state, load_networks
from .rvq_losses import (
    Balancer,
    Envelopes,
    Loudness,
    loudness_scale,
    mel_loss,
    stft_loss,
    waveform_loss,
)
from .rvq_model import RvqModel, Size
from .rvq_prior_training import train_prior

SIZES = {
    "speech": Size(),
    "general": Size(sample_rate=48_000, hop=480, n_q=24),
    "tiny": Size(dim=32, hidden=64, encoder=1, decoder=1, latent=16, n_q=4, codebook_size=64),
}
POOL = 8192  # latents that start the codebooks
_WEIGHTS = {"mel": 3.0, "stft": 2.0, "waveform": 1.0, "loudness": 1.0, "envelope": 1.0,
            "adversarial": 1.0, "feature": 2.0}  # fmt: skip
_COMMITMENT = 0.3
_SHORTEST = 0.25  # seconds that can be judged
_WINDOWS = (0.064, 0.032, 0.016)  # seconds, of the adversary


class Trained(nn.Module):
    """What is trained together: the codec, the adversary, and the balance of the losses."""

    pool: Tensor  # float [POOL, latent], the latest unquantised latents
    updates: Tensor  # int64 []

    def __init__(self, model: RvqModel, recipe: RvqRecipe) -> None:
        """Make the parts that are not the codec."""
        super().__init__()
        size = model.size
        self.codec = model
        windows = tuple(2 * round(s * size.sample_rate / 2) for s in _WINDOWS)
        self.adversary = Discriminator(windows, recipe.adversary_channels)
        weights = _WEIGHTS | {"loudness": recipe.loudness}
        self.balancer = Balancer(weights)
        self.loudness = Loudness(size.sample_rate)
        self.envelopes = Envelopes(size.sample_rate)
        self.prior: IntegerCodePrior | None = None  # learnt at the end
        self.register_buffer("pool", torch.zeros(POOL, size.latent))
        self.register_buffer("updates", torch.tensor(0))


class RvqRecipe(Recipe):
    """Recipe of `audio/rvq`.

    Args:
        size: "speech" (16 kHz, 16 codebooks, 4.9 M parameters), "general" (48 kHz, 24 codebooks)
            or "tiny" (for tests).
        dropout: share of the items that are coded with a random number of codebooks.
        unquantised: updates before the codebooks start.
        loudness: share of the loudness loss in the gradient, beside 3 for mel spectra, 2 for
            complex spectra, 1 for the waveform and 1 for envelopes.
        adversary_after: updates after which the adversary takes part; -1 is never.
        adversary_channels: of its layers.
        mix: share of the items that are two sounds at once, for music.
        decoder_only: leave encoder, codebooks and prior as they are (with --init).
        prior_steps: of the prior of the codes, which learns at the end; 0 leaves it out.
        prior_crops: samples it learns from.
    """

    name = "audio/rvq"
    signal = "sound"
    defaults: ClassVar[dict[str, Any]] = {"crop": 24_000, "batch": 12, "lr": 1e-3, "decay": 0.3}
    shipped: ClassVar[Mapping[str, Path]] = SHIPPED

    def __init__(
        self,
        size: str = "speech",
        dropout: float = 0.6,
        unquantised: int = 500,
        loudness: float = 1.0,
        adversary_after: int = -1,
        adversary_channels: int = 16,
        mix: float = 0.0,
        decoder_only: bool = False,
        prior_steps: int = 3000,
        prior_crops: int = 4000,
    ) -> None:
        """Keep the options."""
        if size not in SIZES:
            raise ValueError(f"size is {size!r}, expected one of {', '.join(SIZES)}")
        self.size = SIZES[size]
        self.sample_rate, self.multiple = self.size.sample_rate, self.size.frame
        self.dropout, self.unquantised, self.loudness = dropout, unquantised, loudness
        self.adversary_after, self.adversary_channels = adversary_after, adversary_channels
        self.mix, self.decoder_only = mix, decoder_only
        self.prior_steps, self.prior_crops = prior_steps, prior_crops

    def model(self) -> Trained:
        """See Recipe."""
        return Trained(RvqModel(self.size, self.dropout), self)

    def load(self, weights: Weights) -> Trained:
        """See Recipe; the size is that of the weights, of the same sample rate as the option's."""
        codec, prior = load_networks(weights)
        codec.quantizer.dropout = self.dropout
        if codec.size.sample_rate != self.sample_rate:
            raise ValueError(
                f"the weights are for {codec.size.sample_rate} Hz, the samples have "
                f"{self.sample_rate} Hz; choose the size of the weights, e.g. --size general"
            )
        trained = Trained(codec, self)
        if self.decoder_only:
            trained.prior = prior
            for part in (codec.encoder, codec.quantizer):
                part.requires_grad_(False)
        return trained

    def optimizers(self, model: nn.Module, lr: float) -> list[torch.optim.Optimizer]:
        """Adam for the codec, and for the adversary at a third of the rate."""
        assert isinstance(model, Trained)
        codec = [p for p in model.codec.parameters() if p.requires_grad]
        return [
            torch.optim.AdamW(codec, lr, (0.9, 0.98), weight_decay=0.01),
            torch.optim.AdamW(model.adversary.parameters(), lr / 3, (0.8, 0.99)),
        ]

    def loss(self, model: nn.Module, batch: Tensor) -> tuple[Tensor, Figures]:
        """See Recipe: float [B, N]."""
        assert isinstance(model, Trained)
        codec = model.codec
        if batch.shape[1] < _SHORTEST * self.sample_rate:
            raise ValueError(f"crop is {batch.shape[1]} samples, expected {_SHORTEST} s or more")
        latents, _ = codec.analyse(batch)
        quantised, penalty, figures = self._quantise(model, latents)
        whole, _ = codec.synthesise(quantised)
        hop = codec.size.hop
        x_hat, x = whole[:, hop:], batch[:, :-hop]
        scale = loudness_scale(x)
        with torch.autocast(batch.device.type, enabled=False):
            leaf = x_hat.detach().float().requires_grad_()
            losses = _distances(model, x * scale, leaf * scale, codec.size.sample_rate)
        extra, own = self._judge(model, x * scale, leaf * scale)
        total = model.balancer(x_hat, leaf, losses | extra)
        model.updates += 1
        shown = {name: loss.detach() for name, loss in (losses | extra).items()}
        return total + penalty + own, figures | shown | {"adversary": own.detach()}

    def _quantise(self, model: Trained, latents: Tensor) -> tuple[Tensor, Tensor, Figures]:
        """Latents as the decoder gets them, the loss of the codebooks, and figures."""
        codec = model.codec
        started = bool(codec.stages[0].started)
        if not started and int(model.updates) < self.unquantised:
            with torch.no_grad():
                rows = latents.detach().transpose(1, 2).flatten(0, 1)
                model.pool.copy_(torch.cat([rows, model.pool])[:POOL])
            return latents, latents.new_zeros(()), {"commitment": latents.new_zeros(())}
        if not started:
            _start_codebooks(codec, model.pool.t()[None])
        if self.decoder_only:
            codec.quantizer.stages.eval()  # codebooks stay, the number of stages still varies
        done = codec.quantizer(latents)
        spread = latents.detach().var((0, 2)).mean().clamp_min(1e-6)
        commitment = done.losses["commitment_loss"] / spread
        first = count_codes(done.codes[:, :1], [codec.size.codebook_size])[0]
        used = torch.tensor(perplexity(first), device=latents.device)
        return done.x_hat, _COMMITMENT * commitment, {"commitment": commitment, "perplexity": used}

    def _judge(self, model: Trained, x: Tensor, leaf: Tensor) -> tuple[Figures, Tensor]:
        """Losses for the codec from the adversary, and the adversary's own."""
        if self.adversary_after < 0 or int(model.updates) < self.adversary_after:
            return {}, x.new_zeros(())
        half = max(1, len(x) // 2)  # the adversary is what costs most
        real = model.adversary(x[:half])
        own = discriminator_loss(real, model.adversary(leaf[:half].detach()))
        fake = model.adversary(leaf[:half])
        return {
            "adversarial": adversarial_loss(fake).float(),
            "feature": feature_loss(_detached(real), fake).float(),
        }, own

    def validate(self, model: nn.Module, batch: Tensor) -> Figures:
        """See Recipe: with all codebooks, and with a quarter of them."""
        assert isinstance(model, Trained)
        codec, hop = model.codec, model.codec.size.hop
        latents, _ = codec.analyse(batch)
        figures: Figures = {}
        for name, n_q in (("", codec.size.n_q), ("_quarter", max(1, codec.size.n_q // 4))):
            used = torch.full((len(batch),), n_q, device=batch.device)
            x_hat, _ = codec.synthesise(codec.quantizer(latents, used).x_hat)
            x = batch[:, :-hop]
            scale = loudness_scale(x)
            rows = _distances(model, x * scale, x_hat[:, hop:] * scale, codec.size.sample_rate)
            figures |= {f"{key}{name}": value for key, value in rows.items()}
        return {"loss": figures["loudness"], **figures}

    @torch.no_grad()
    def finish(
        self,
        model: nn.Module,
        samples: Dataset[Tensor],
        step: int,
        progress: Callable[[float], object],
    ) -> None:
        """See Recipe: the prior learns from the codes of stretches that were not trained on yet."""
        assert isinstance(model, Trained)
        if not self.prior_steps or model.prior is not None:
            return
        codec = model.codec.eval()
        codes, whole = [], self.prior_crops + self.prior_steps
        for number in range(self.prior_crops):
            latents, _ = codec.analyse(samples[step, number][None])
            codes.append(codec.quantizer.encode(latents)[0])
            progress((number + 1) / whole)
        codebooks = [stage.codebook for stage in codec.stages]
        with torch.enable_grad():
            model.prior = train_prior(
                codes,
                codebooks,
                self.prior_steps,
                report=lambda done, bits: progress((self.prior_crops + done) / whole),
            )

    def freeze(self, model: nn.Module) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """See Recipe."""
        assert isinstance(model, Trained)
        return frozen_state(model.codec, model.prior), config_of(model.codec.size, model.prior)


RECIPE = RvqRecipe


def _distances(model: Trained, x: Tensor, x_hat: Tensor, sample_rate: int) -> Figures:
    return {
        "mel": mel_loss(x, x_hat, sample_rate),
        "stft": stft_loss(x, x_hat, sample_rate),
        "waveform": waveform_loss(x, x_hat),
        "loudness": model.loudness(x, x_hat),
        "envelope": model.envelopes(x, x_hat),
    }


def _detached(verdicts: list[Verdict]) -> list[Verdict]:
    return [(scores.detach(), [f.detach() for f in features]) for scores, features in verdicts]


@torch.no_grad()
def _start_codebooks(codec: RvqModel, latents: Tensor) -> None:
    """K-means in each stage over what the stages before leave of [1, latent, POOL]."""
    rest = latents
    for stage in codec.stages:
        stage.start(rest)
        rest = rest - stage.decode(stage.encode(rest))
