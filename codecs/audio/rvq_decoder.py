"""Codes to sounds in pieces: networks, channels, rate; and what stands in for lost codes."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from ..transforms.resample import Resampler
from . import rvq_channels as channel_matrices
from .rvq_channels import mix
from .rvq_networks import Networks
from .rvq_search import vectors

_FADE_FRAMES = 10  # lost frames in which the sound dies away
_FORGET = 0.85  # per lost frame, of how far the latents are from those of silence


class SoundDecoder:
    """The decoder's side of one sound; codes go in as they come."""

    def __init__(self, networks: Networks, sample_rate: int, channels: int, first: int = 0) -> None:
        """Begin a sound.

        Args:
            networks: that the codes are for.
            sample_rate: of the samples that come out, in Hz.
            channels: of the sound.
            first: number of the first code frame that will come, a multiple of ROWS. Samples of
                frames less than `networks.memory` behind it are not the sound's, but for first = 0.
        """
        size = networks.size
        self._networks, self._size, self._channels = networks, size, channels
        self._resampler = Resampler(size.sample_rate, sample_rate, first * size.frame)
        self._blocks = [networks.decoder() for _ in range(channels)]
        self._latents = [networks.silence] * channels  # of the last frame
        self._joint = False
        self._matrix: Tensor | None = None  # from coded channels to channels, of the last frame
        self._gains = torch.zeros(channels)  # of the last frame that was there
        self._lost = 0  # frames since then
        self.frames = first  # number of the next code frame

    @property
    def next(self) -> int:
        """Number of the sample that comes next."""
        return self._resampler.next

    @torch.no_grad()
    def push(self, codes: Sequence[Tensor | None], joint: bool, frames: int) -> Tensor:
        """Decode some frames.

        Args:
            codes: of each coded channel, int64 [stages, frames]; None is a silent one.
            joint: whether the coded channels are mid and side.
            frames: how many.

        Returns:
            The samples that are complete, float [C, n].
        """
        silence = self._networks.silence.expand(-1, frames)
        latents = [
            silence if part is None else vectors(self._networks.codebooks, part) for part in codes
        ]
        self._gains = torch.tensor([float(part is not None) for part in codes])
        self._lost, self._joint = 0, joint
        return self._resampler.push(self._synthesise(latents, self._gains))

    @torch.no_grad()
    def conceal(self, frames: int) -> Tensor:
        """Go on without codes: the last sound, dying away."""
        silence, made = self._networks.silence, []
        for _ in range(frames):
            self._lost += 1
            latents = [silence + (last - silence) * _FORGET for last in self._latents]
            gain = max(0.0, 1 - self._lost / _FADE_FRAMES)
            made.append(self._synthesise(latents, self._gains * gain))
        whole = torch.cat(made, 1) if made else torch.zeros(self._channels, 0)
        return self._resampler.push(whole)

    @torch.no_grad()
    def finish(self) -> Tensor:
        """The samples that need nothing more: those of all frames up to a hop before the end."""
        return self._resampler.finish(self._channels)

    def _synthesise(self, latents: list[Tensor], gains: Tensor) -> Tensor:
        """Latents [D, T] of the coded channels -> samples [C, frame T] at the model's rate.

        A change of gains or matrix takes the second hop of a frame's samples: there the encoder
        changes, too, and there the frame's own window is at its full height.
        """
        pairs = zip(self._blocks, latents, strict=True)
        coded = torch.cat([torch.cat(blocks.push(y[None]), -1) for blocks, y in pairs])
        after = channel_matrices.out_of(self._channels, self._joint) * gains
        before = after if self._matrix is None else self._matrix
        # What was silent comes back at once: behind silence there is nothing to go over from.
        before = torch.where((before != 0).any(0), before, after)
        hop = self._size.hop
        x = mix(coded, before, after, hop, hop)
        x = x if self._matrix is not None else x[:, hop:]
        self._matrix = after
        self._latents = [y[:, -1:] for y in latents]
        self.frames += latents[0].shape[1]
        return x
