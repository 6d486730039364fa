"""A discriminator of complex spectra at several resolutions.

Defossez et al., "High Fidelity Neural Audio Compression", 2022 (MS-STFT discriminator); hinge
losses and feature matching as in Zeghidour et al., "SoundStream", 2021. Small: it is trained on
CPUs as well.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils import parametrizations

_SLOPE = 0.2
_DILATIONS = (1, 2, 4)  # over time

Verdict = tuple[Tensor, list[Tensor]]  # scores, and the features on the way


class StftDiscriminator(nn.Module):
    """Looks at a signal through one window."""

    window: Tensor

    def __init__(self, size: int, channels: int) -> None:
        """Make the layers: `size` samples to a window, a quarter of it between frames."""
        super().__init__()
        self.size = size
        self.register_buffer("window", torch.hann_window(size), persistent=False)
        layers = [_conv(2, channels, (3, 9))]
        layers += [_conv(channels, channels, (3, 9), (1, 2), (d, 1)) for d in _DILATIONS]
        layers += [_conv(channels, channels, (3, 3))]
        self.layers = nn.ModuleList(layers)
        self.out = _conv(channels, 1, (3, 3))

    def forward(self, x: Tensor) -> Verdict:
        """Float [B, N] -> scores [B, 1, T, F'], features."""
        with torch.autocast(x.device.type, enabled=False):
            frames = x.float().unfold(1, self.size, self.size // 4) * self.window
            spectrum = torch.fft.rfft(frames, norm="ortho")
            y = torch.stack([spectrum.real, spectrum.imag], 1)
        y = y.to(memory_format=torch.channels_last)
        features = []
        for layer in self.layers:
            y = F.leaky_relu(layer(y), _SLOPE)
            features.append(y)
        return self.out(y), features


class Discriminator(nn.Module):
    """Several windows."""

    def __init__(self, sizes: tuple[int, ...], channels: int) -> None:
        """Make one for each window size in samples."""
        super().__init__()
        self.parts = nn.ModuleList(StftDiscriminator(size, channels) for size in sizes)

    def forward(self, x: Tensor) -> list[Verdict]:
        """Float [B, N] -> a verdict for each window."""
        return [part(x) for part in self.parts]


def _conv(
    inputs: int,
    outputs: int,
    kernel: tuple[int, int],
    stride: tuple[int, int] = (1, 1),
    dilation: tuple[int, int] = (1, 1),
) -> nn.Module:
    pads = [d * (k - 1) // 2 for k, d in zip(kernel, dilation, strict=True)]
    conv = nn.Conv2d(inputs, outputs, kernel, stride, (pads[0], pads[1]), dilation)
    normed: nn.Module = parametrizations.weight_norm(conv)
    return normed


def discriminator_loss(real: list[Verdict], fake: list[Verdict]) -> Tensor:
    """Hinge loss of the discriminator: real above 1, fake below -1."""
    terms = [
        F.relu(1 - r[0]).mean() + F.relu(1 + f[0]).mean() for r, f in zip(real, fake, strict=True)
    ]
    return torch.stack(terms).mean()


def adversarial_loss(fake: list[Verdict]) -> Tensor:
    """Hinge loss of the generator."""
    return torch.stack([F.relu(1 - scores).mean() for scores, _ in fake]).mean()


def feature_loss(real: list[Verdict], fake: list[Verdict]) -> Tensor:
    """Difference of the features, relative to their size."""
    terms = [
        (a.detach() - b).abs().mean() / a.detach().abs().mean().clamp_min(1e-3)
        for r, f in zip(real, fake, strict=True)
        for a, b in zip(r[1], f[1], strict=True)
    ]
    return torch.stack(terms).mean()
