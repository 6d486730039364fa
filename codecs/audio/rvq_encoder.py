"""Sounds in pieces to codes: rate, channels, networks, search."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ..transforms.resample import Resampler
from . import rvq_channels as channel_matrices
from .rvq_channels import SILENT, choose_joint, fewer_stages, mix
from .rvq_networks import Networks
from .rvq_search import trace
from .rvq_timing import Timing


@dataclass(frozen=True)
class Group:
    """The codes of a packet, before it is decided how many codebooks are written.

    Attributes:
        number: of the packet.
        samples: that it stands for.
        joint: coded as mid and side.
        trees: see `Searcher.find`, of each coded channel.
        heard: whether it is more than silence.
        fewer: by how many codebooks each coded channel gets less than the strongest.
    """

    number: int
    samples: int
    joint: bool
    trees: list[Tensor]
    heard: list[bool]
    fewer: list[int]

    def codes(self, stages: list[int]) -> list[Tensor | None]:
        """Codes int64 [stages, T] of each coded channel; None is silence."""
        parts = zip(self.trees, self.heard, stages, strict=True)
        return [trace(tree, n) if heard else None for tree, heard, n in parts]


class SoundEncoder:
    """The encoder's side of one sound; samples go in as they come."""

    def __init__(
        self,
        networks: Networks,
        timing: Timing,
        channels: int,
        joint: bool | None,
        stages: int,
        beam: int,
    ) -> None:
        """Begin a sound.

        Args:
            networks: that make the codes.
            timing: of the packets.
            channels: of the sound.
            joint: mid and side for two channels; None chooses for each packet.
            stages: the most codebooks that will be used.
            beam: see `Searcher.find`.
        """
        self._timing, self._size = timing, networks.size
        self._resampler = Resampler(timing.sample_rate, networks.size.sample_rate)
        self._blocks = [networks.encoder(stages, beam) for _ in range(channels)]
        self._choose = joint is None and channels == 2
        self._joint = channels == 2 and joint is not False
        self._waiting = torch.zeros(channels, 0)
        self._number = self._samples = 0
        self._first = True

    @torch.no_grad()
    def push(self, x: Tensor) -> list[Group]:
        """Float [C, n] -> the packets that are complete."""
        self._samples += x.shape[1]
        self._waiting = torch.cat([self._waiting, self._resampler.push(x)], 1)
        whole = self._timing.group * self._size.frame
        made = []
        while self._waiting.shape[1] >= whole:
            piece, self._waiting = self._waiting[:, :whole], self._waiting[:, whole:]
            made.append(self._group(piece, self._timing.start(self._number + 1)))
        return made

    @torch.no_grad()
    def finish(self) -> list[Group]:
        """The packets that the end completes."""
        tail = self._resampler.finish(len(self._blocks))
        left = self._timing.frames(self._samples) - self._number * self._timing.group
        rest = torch.cat([self._waiting, tail], 1)
        rest = torch.nn.functional.pad(rest, (0, left * self._size.frame - rest.shape[1]))
        pieces = torch.split(rest, self._timing.group * self._size.frame, 1)
        return [self._group(piece, self._samples) for piece in pieces if piece.shape[1]]

    def _group(self, x: Tensor, known: int) -> Group:
        """The packet of samples [C, frame T] at the model's rate; `known` ones are in or before."""
        count = len(self._blocks)
        before = channel_matrices.into(count, self._joint)
        if self._choose:
            self._joint = choose_joint(x, self._joint)
        after = channel_matrices.into(count, self._joint)
        coded = mix(x, after if self._first else before, after, 0, self._size.hop)
        trees = [
            torch.cat(blocks.push(row[None]), -1)
            for blocks, row in zip(self._blocks, coded, strict=True)
        ]
        group = Group(
            self._number,
            self._timing.samples(self._number, known),
            self._joint,
            trees,
            (coded.abs().amax(1) > SILENT).tolist(),
            fewer_stages(coded),
        )
        self._number += 1
        self._first = False
        return group
