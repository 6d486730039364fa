"""Networks of `audio/rvq`: a causal codec between two short-time Fourier transforms.

    x -> STFT, two frames together -> linear -> causal ConvNeXt blocks -> linear -> latents
    x_hat <- overlap-add of inverse STFT <- linear <- causal ConvNeXt blocks <- linear <- latents

Latents are quantised by residual vector quantization (Zeghidour et al., "SoundStream", 2021;
Defossez et al., "High Fidelity Neural Audio Compression", 2022). Spectra in and out as in Siuzdak,
"Vocos", 2023, and Gu and Diao, "ESC", 2024; blocks of Liu et al., "A ConvNet for the 2020s", 2022.

Everything is causal and works on chunks: a network takes the state that it gave for the chunk
before, and a signal that is cut into chunks of whole code frames gives the same as in one piece.
The transforms are matrix products with real numbers, which any export takes.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..quantizers.rvq import ResidualQuantizer
from ..quantizers.vq import VectorQuantizer

PAIR = 2  # STFT frames to a code frame
TAPS = 7  # of a block, in code frames
_COMPRESSION = 0.3  # spectra are compressed to |X| ** 0.3: near what loudness follows
_SPECTRUM_SCALE = 8.0  # brings spectra of speech at usual levels near 1
_SMALLEST = 1e-3  # a magnitude, in units of the scaled spectrum
_MOST_LOG = 6.0  # of a magnitude that the decoder can ask for

State = list[Tensor]  # what a network keeps of the frames before; its first entry are samples


@dataclass(frozen=True)
class Size:
    """What a model is built of.

    Attributes:
        sample_rate: in Hz.
        hop: samples between STFT frames; the window has twice as many.
        dim: channels of the blocks.
        hidden: channels inside a block.
        encoder: blocks of the encoder.
        decoder: blocks of the decoder.
        latent: channels of the latents.
        n_q: codebooks.
        codebook_size: codes of each.
    """

    sample_rate: int = 16_000
    hop: int = 160
    dim: int = 256
    hidden: int = 720
    encoder: int = 4
    decoder: int = 5
    latent: int = 64
    n_q: int = 16
    codebook_size: int = 1024

    @property
    def frame(self) -> int:
        """Samples to a code frame."""
        return PAIR * self.hop

    @property
    def frame_rate(self) -> float:
        """Code frames to a second."""
        return self.sample_rate / self.frame

    @property
    def bins(self) -> int:
        """Frequencies of a spectrum, with 0 and the highest."""
        return self.hop + 1


class Stft(nn.Module):
    """Short-time Fourier transform with a square-root Hann window, causal, and its inverse.

    Frame t ends with sample (t + 1) hop; the inverse therefore comes out one hop late.
    """

    forward_basis: Tensor  # float [window, 2 bins]
    inverse_basis: Tensor  # float [2 bins, window]

    def __init__(self, hop: int) -> None:
        """Make both bases, each with the window."""
        super().__init__()
        size = 2 * hop
        angle = 2 * math.pi / size * torch.outer(torch.arange(size), torch.arange(hop + 1)).double()
        window = torch.sin(math.pi * (torch.arange(size).double() + 0.5) / size)
        basis = torch.cat([angle.cos(), -angle.sin()], 1) * window[:, None] / math.sqrt(size)
        share = torch.full((hop + 1,), 2.0, dtype=torch.float64)
        share[0] = share[-1] = 1.0  # these two bins stand for themselves alone
        self.hop = hop
        self.register_buffer("forward_basis", basis.float(), persistent=False)
        inverse = (basis * torch.cat([share, share])).t().contiguous().float()
        self.register_buffer("inverse_basis", inverse, persistent=False)

    def analyse(self, x: Tensor, past: Tensor) -> tuple[Tensor, Tensor]:
        """Float [B, hop * T] and the hop samples before -> [B, T, 2 bins], and the last hop."""
        whole = torch.cat([past, x], 1)
        return whole.unfold(1, 2 * self.hop, self.hop) @ self.forward_basis, whole[:, -self.hop :]

    def synthesise(self, spectrum: Tensor, past: Tensor) -> tuple[Tensor, Tensor]:
        """The mirror, one hop late; the state is the half frame that waits for its other half."""
        b, frames, _ = spectrum.shape
        halves = (spectrum @ self.inverse_basis).view(b, frames, 2, self.hop)
        first, second = halves[:, :, 0], halves[:, :, 1]
        waiting = torch.cat([past[:, None], second], 1)
        return (first + waiting[:, :-1]).flatten(1), waiting[:, -1]


class Block(nn.Module):
    """A causal ConvNeXt block over [B, T, dim]."""

    def __init__(self, dim: int, hidden: int, depth: int) -> None:
        """Make the block; `depth` blocks follow each other."""
        super().__init__()
        self.taps = nn.Parameter(torch.randn(TAPS, dim) * 0.02)
        self.taps.data[-1] += 1.0
        self.norm = nn.LayerNorm(dim)
        self.into = nn.Linear(dim, hidden)
        self.out = nn.Linear(hidden, dim)
        self.scale = nn.Parameter(torch.full((dim,), 1 / math.sqrt(depth)))

    def forward(self, x: Tensor, past: Tensor) -> tuple[Tensor, Tensor]:
        """[B, T, dim] and the TAPS - 1 frames before -> the same."""
        whole = torch.cat([past, x], 1)
        frames = x.shape[1]
        mixed = whole[:, :frames] * self.taps[0]
        for i in range(1, TAPS):
            mixed = torch.addcmul(mixed, whole[:, i : i + frames], self.taps[i])
        y = self.out(F.gelu(self.into(self.norm(mixed)), approximate="tanh"))
        return x + self.scale * y, whole[:, frames:]


class Stack(nn.Module):
    """Linear, blocks, norm, linear; over [B, T, channels]."""

    def __init__(self, inputs: int, dim: int, hidden: int, depth: int, outputs: int) -> None:
        """Make the layers."""
        super().__init__()
        self.into = nn.Linear(inputs, dim)
        self.first_norm = nn.LayerNorm(dim)
        self.blocks = nn.ModuleList(Block(dim, hidden, depth) for _ in range(depth))
        self.norm = nn.LayerNorm(dim)
        self.out = nn.Linear(dim, outputs)

    def start(self, batch: int) -> State:
        """The state before the first frame."""
        like = self.into.weight
        return [like.new_zeros(batch, TAPS - 1, like.shape[0]) for _ in self.blocks]

    def forward(self, x: Tensor, past: Sequence[Tensor]) -> tuple[Tensor, State]:
        """[B, T, inputs] -> [B, T, outputs], and the state behind it."""
        y = self.first_norm(self.into(x))
        kept = []
        for block, state in zip(self.blocks, past, strict=True):
            y, state = block(y, state)
            kept.append(state)
        return self.out(self.norm(y)), kept


class RvqModel(nn.Module):
    """Encoder, quantizer and decoder of one sample rate."""

    def __init__(self, size: Size, dropout: float = 0.0) -> None:
        """Make the networks.

        Args:
            size: of the model.
            dropout: see ResidualQuantizer.
        """
        super().__init__()
        self.size = size
        wide = 3 * PAIR * size.bins
        self.stft = Stft(size.hop)
        self.encoder = Stack(wide, size.dim, size.hidden, size.encoder, size.latent)
        self.decoder = Stack(size.latent, size.dim, size.hidden, size.decoder, wide)
        stages = [VectorQuantizer(size.latent, size.codebook_size) for _ in range(size.n_q)]
        self.quantizer = ResidualQuantizer(stages, dropout)

    @property
    def stages(self) -> list[VectorQuantizer]:
        """The codebooks, first to last."""
        return list(self.quantizer.stages)  # type: ignore[arg-type]  # as the constructor made them

    def analyse(self, x: Tensor, state: State | None = None) -> tuple[Tensor, State]:
        """Samples to latents.

        Args:
            x: float [B, frame * T].
            state: that of the samples before; None at the start.

        Returns:
            Latents, float [B, latent, T], and the state behind them.
        """
        self._check(x.shape[1])
        state = state or [x.new_zeros(len(x), self.size.hop), *self.encoder.start(len(x))]
        with torch.autocast(x.device.type, enabled=False):
            spectrum, samples = self.stft.analyse(x.float(), state[0])
            features = _features(spectrum * _SPECTRUM_SCALE)
        latents, kept = self.encoder(_join(features), state[1:])
        return latents.transpose(1, 2).float(), [samples, *kept]

    def synthesise(self, latents: Tensor, state: State | None = None) -> tuple[Tensor, State]:
        """Latents to samples.

        Args:
            latents: float [B, latent, T].
            state: that of the latents before; None at the start.

        Returns:
            Samples, float [B, frame * T], which come `hop` samples late: the first `hop` ones
            stand for what is before the signal. And the state behind them.
        """
        b = len(latents)
        state = state or [latents.new_zeros(b, self.size.hop), *self.decoder.start(b)]
        y, kept = self.decoder(latents.transpose(1, 2), state[1:])
        with torch.autocast(latents.device.type, enabled=False):
            spectrum = _spectrum(_split(y.float()))
            x_hat, waiting = self.stft.synthesise(spectrum / _SPECTRUM_SCALE, state[0])
        return x_hat, [waiting, *kept]

    def _check(self, samples: int) -> None:
        if samples % self.size.frame:
            raise ValueError(
                f"got {samples} samples, expected a multiple of {self.size.frame}; add zeros"
            )


def _join(frames: Tensor) -> Tensor:
    """[B, PAIR * T, C] -> [B, T, PAIR * C]."""
    b, count, width = frames.shape
    return frames.reshape(b, count // PAIR, PAIR * width)


def _split(frames: Tensor) -> Tensor:
    """[B, T, PAIR * C] -> [B, PAIR * T, C]."""
    b, count, width = frames.shape
    return frames.reshape(b, PAIR * count, width // PAIR)


def _features(spectrum: Tensor) -> Tensor:
    """[B, T, 2 bins] -> compressed real and imaginary parts and log magnitudes [B, T, 3 bins]."""
    b, frames, width = spectrum.shape
    parts = spectrum.view(b, frames, 2, width // 2)
    power = parts.square().sum(2, keepdim=True) + _SMALLEST**2
    compressed = parts * power ** ((_COMPRESSION - 1) / 2)
    return torch.cat([compressed, power.log() / 8], 2).flatten(2)


def _spectrum(y: Tensor) -> Tensor:
    """[B, T, 3 bins] -> [B, T, 2 bins]: a direction of any length times a magnitude."""
    b, frames, width = y.shape
    parts = y.view(b, frames, 3, width // 3)
    spectrum: Tensor = parts[:, :, :2] * parts[:, :, 2:].clamp(max=_MOST_LOG).exp()
    return spectrum.flatten(2)
