"""What `audio/rvq` is trained to keep: spectra, waveform, loudness; and how the losses are weighed.

All losses take x and x_hat, float [B, N], at levels near those of speech, and give one number.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping

import torch
import torch.nn.functional as F
import torchaudio
from torch import Tensor, nn

_MEL_WINDOWS = ((0.016, 20), (0.032, 40), (0.064, 80), (0.128, 80))  # seconds, bands
_MEL_FLOOR = 1e-2  # of the sound's RMS: quieter bands hardly count
_STFT_WINDOWS = (0.02, 0.04)  # seconds
_COMPRESSION = 0.3
_LEAST_RMS = 1e-3
_SEGMENT = 30  # frames in which envelopes are compared


def loudness_scale(x: Tensor) -> Tensor:
    """What brings each sound to RMS 1, [B, 1]; near silence less."""
    return 1 / (x.square().mean(1, keepdim=True).sqrt() + _LEAST_RMS)


def mel_loss(x: Tensor, x_hat: Tensor, sample_rate: int) -> Tensor:
    """Mean difference of log mel spectra at several resolutions (Yamamoto et al., 2020)."""
    total = x.new_zeros(())
    for seconds, bands in _MEL_WINDOWS:
        size = _even(seconds * sample_rate)
        banks = _mel_bank(sample_rate, size, bands).to(x.device)
        logs = [(_magnitude(y, size) @ banks + _MEL_FLOOR).log() for y in (x, x_hat)]
        total = total + (logs[0] - logs[1]).abs().mean()
    return total / len(_MEL_WINDOWS)


def stft_loss(x: Tensor, x_hat: Tensor, sample_rate: int) -> Tensor:
    """Mean difference of complex spectra compressed to |X| ** 0.3, and of their magnitudes.

    Power-law compressed as in Ephrat et al., "Looking to Listen", 2018.
    """
    total = x.new_zeros(())
    for seconds in _STFT_WINDOWS:
        size = _even(seconds * sample_rate)
        pairs = [_compressed(_spectrum(y, size)) for y in (x, x_hat)]
        (part, magnitude), (part_hat, magnitude_hat) = pairs
        total = total + (part - part_hat).abs().mean() + (magnitude - magnitude_hat).abs().mean()
    return total / len(_STFT_WINDOWS)


def waveform_loss(x: Tensor, x_hat: Tensor) -> Tensor:
    """Mean difference of samples."""
    return (x - x_hat).abs().mean()


def _even(samples: float) -> int:
    return 2 * round(samples / 2)


def _spectrum(x: Tensor, size: int) -> Tensor:
    """Complex [B, T, bins], a quarter of the window between frames, of unit gain for noise."""
    window = _window(size).to(x.device)
    frames = x.unfold(1, size, size // 4) * window
    # 0.375: mean square of the window
    spectrum: Tensor = torch.fft.rfft(frames) / math.sqrt(0.375 * size)
    return spectrum


def _magnitude(x: Tensor, size: int) -> Tensor:
    spectrum = _spectrum(x, size)
    return (spectrum.real.square() + spectrum.imag.square() + 1e-10).sqrt()


def _compressed(spectrum: Tensor) -> tuple[Tensor, Tensor]:
    parts = torch.stack([spectrum.real, spectrum.imag])
    power = parts.square().sum(0) + 1e-5
    return parts * power ** ((_COMPRESSION - 1) / 2), power ** (_COMPRESSION / 2)


@functools.cache
def _window(size: int) -> Tensor:
    return torch.hann_window(size)


@functools.cache
def _mel_bank(sample_rate: int, size: int, bands: int) -> Tensor:
    """Float [bins, bands]; each band's weights sum to 1, so that its floor means the same."""
    banks = torchaudio.functional.melscale_fbanks(
        size // 2 + 1, 0.0, sample_rate / 2, bands, sample_rate, mel_scale="slaney"
    )
    normed: Tensor = banks / banks.sum(0).clamp_min(1e-6)
    return normed


class Balancer(nn.Module):
    """Weights of losses that hold whatever the scale of their gradients.

    The gradient of each loss at x_hat is divided by a running average of its norm, so that a weight
    is the share of the loss in the gradient (Defossez et al., "High Fidelity Neural Audio
    Compression", 2022, section 3.4).
    """

    norms: Tensor  # float [losses], running averages
    counts: Tensor  # float [losses], updates in them

    def __init__(self, weights: Mapping[str, float], decay: float = 0.999) -> None:
        """Take the shares of the losses by name."""
        super().__init__()
        self.weights, self.decay = dict(weights), decay
        self.register_buffer("norms", torch.zeros(len(weights)))
        self.register_buffer("counts", torch.zeros(len(weights)))

    def forward(self, x_hat: Tensor, leaf: Tensor, losses: Mapping[str, Tensor]) -> Tensor:
        """A number whose gradient at x_hat is the balanced sum.

        Args:
            x_hat: what the networks gave, [B, N].
            leaf: a copy of it, from which the losses were computed.
            losses: by name; those that are missing or of weight 0 have no part.
        """
        total = torch.zeros_like(leaf)
        share = sum(self.weights[name] for name in losses)
        for i, (name, weight) in enumerate(self.weights.items()):
            if name not in losses or not weight:
                continue
            (gradient,) = torch.autograd.grad(losses[name], leaf, retain_graph=True)
            with torch.no_grad():
                norm = gradient.norm(dim=1).mean()
                self.norms[i].mul_(self.decay).add_(norm, alpha=1 - self.decay)
                self.counts[i].mul_(self.decay).add_(1 - self.decay)
                mean = self.norms[i] / self.counts[i]
                total.add_(gradient * (weight / share / (mean + 1e-12)))
        return (x_hat * total).sum()


class Loudness(nn.Module):
    """Disturbance of loudness that is heard, after the model of PESQ (ITU-T P.862).

    Powers in bands half a Bark wide become loudness by Zwicker's law; what differs by less than a
    quarter of the smaller loudness is masked; what was added weighs more than what is missing.
    A differentiable simplification as in Martin-Donas et al., "A Deep Learning Loss Function Based
    on the Perceptual Evaluation of the Speech Quality", IEEE SPL 2018.
    """

    bands: Tensor  # float [bins, bands]
    threshold: Tensor  # float [bands], power that is just heard
    widths: Tensor  # float [bands], in Bark

    def __init__(self, sample_rate: int) -> None:
        """Make the bands up to half the sample rate."""
        super().__init__()
        self.size = _even(0.032 * sample_rate)
        hertz = torch.arange(self.size // 2 + 1).double() * sample_rate / self.size
        bark = 6 * torch.asinh(hertz / 600)
        count = int(2 * float(bark[-1]))
        edges = torch.linspace(0, float(bark[-1]), count + 1).double()
        inside = (bark[:, None] >= edges[:-1]) & (bark[:, None] < edges[1:])
        inside[-1, -1] = True
        inside[0] = False  # a constant is not heard
        kept = inside.any(0)
        centres = 600 * torch.sinh((edges[:-1] + edges[1:]) / 12)[kept]
        khz = centres.clamp_min(50) / 1000
        db = 3.64 * khz**-0.8 - 6.5 * (-0.6 * (khz - 3.3) ** 2).exp() + 1e-3 * khz**4
        self.register_buffer("bands", inside[:, kept].float(), persistent=False)
        self.register_buffer("threshold", (10 ** (db / 10)).float(), persistent=False)
        self.register_buffer("widths", (edges[1:] - edges[:-1])[kept].float(), persistent=False)

    def forward(self, x: Tensor, x_hat: Tensor) -> Tensor:
        """See the module; x at RMS 1 stands for speech at 79 dB."""
        level = 10**7.9 * 2 / self.size
        powers = [self._powers(y) * level for y in (x, x_hat)]
        p = powers[0]
        tone = (p.mean(1, keepdim=True) + 1e3, powers[1].mean(1, keepdim=True) + 1e3)
        p = p * (tone[1] / tone[0]).clamp(0.01, 100)  # a linear filter disturbs little
        frames = [q.sum(2, keepdim=True) + 5e3 for q in (p, powers[1])]
        p_hat = powers[1] * (frames[0] / frames[1]).clamp(3e-4, 5).detach()
        loud, loud_hat = self._sones(p), self._sones(p_hat)
        difference = loud_hat - loud
        masked = 0.25 * torch.minimum(loud, loud_hat)
        heard = F.relu(difference.abs() - masked)
        added = ((p_hat + 50) / (p + 50)) ** 1.2
        added = torch.where(added < 3, torch.zeros_like(added), added.clamp(max=12))
        weight = ((frames[0] + 1e5) / 1e7) ** -0.04
        both = ((heard * self.widths).square().sum(2) + 1e-3).sqrt() * weight[..., 0]
        more = (heard * added * self.widths).sum(2) * weight[..., 0]
        return (0.1 * both + 0.0309 * more).clamp(max=45).mean()

    def _powers(self, x: Tensor) -> Tensor:
        frames = x.unfold(1, self.size, self.size // 2) * _window(self.size).to(x.device)
        spectrum = torch.fft.rfft(frames)
        power: Tensor = (spectrum.real.square() + spectrum.imag.square()) / (0.375 * self.size / 2)
        return power @ self.bands

    def _sones(self, power: Tensor) -> Tensor:
        ratio = power / self.threshold
        loud = (self.threshold / 0.5) ** 0.23 * ((0.5 + 0.5 * ratio) ** 0.23 - 1)
        return F.relu(loud) * 0.187


class Envelopes(nn.Module):
    """How badly the envelopes of third octaves follow those of the source, 0 to 2.

    One minus the correlation over 0.4 s, which intelligibility follows (Taal et al., "An Algorithm
    for Intelligibility Prediction of Time-Frequency Weighted Noisy Speech", 2011).
    """

    bands: Tensor  # float [bins, 15]

    def __init__(self, sample_rate: int) -> None:
        """Make 15 third octaves from 150 Hz."""
        super().__init__()
        self.size = _even(0.0256 * sample_rate)
        hertz = torch.arange(self.size // 2 + 1) * sample_rate / self.size
        centres = 150 * 2 ** (torch.arange(15) / 3)
        inside = (hertz[:, None] >= centres * 2 ** (-1 / 6)) & (
            hertz[:, None] < centres * 2 ** (1 / 6)
        )
        self.register_buffer("bands", inside.float(), persistent=False)

    def forward(self, x: Tensor, x_hat: Tensor) -> Tensor:
        """See the module; stretches far below RMS 1 count less."""
        source, result = (self._envelopes(y) for y in (x, x_hat))
        loud = source.norm(dim=3, keepdim=True)
        result = result * (loud / result.norm(dim=3, keepdim=True))
        result = torch.minimum(result, source * (1 + 10 ** (15 / 20)))
        source, result = (y - y.mean(3, keepdim=True) for y in (source, result))
        product = (source * result).sum(3)
        correlation = product / (source.norm(dim=3) * result.norm(dim=3) + 1e-3)
        weight = (loud[..., 0] / (0.05 * _SEGMENT**0.5)).clamp(max=1)
        badly: Tensor = ((1 - correlation) * weight).sum() / weight.sum().clamp_min(1.0)
        return badly

    def _envelopes(self, x: Tensor) -> Tensor:
        """Float [B, N] -> [B, stretches, 15, _SEGMENT]."""
        frames = x.unfold(1, self.size, self.size // 2) * _window(self.size).to(x.device)
        spectrum = torch.fft.rfft(frames) / math.sqrt(0.375 * self.size)
        power = (spectrum.real.square() + spectrum.imag.square()) @ self.bands
        envelopes: Tensor = (power + 1e-5).sqrt()
        return envelopes.unfold(1, min(_SEGMENT, envelopes.shape[1]), _SEGMENT // 6)
