"""Batches of sounds to codes and back, for models of language; the codes are those of files."""

from __future__ import annotations

import torch
from torch import Tensor

from ..transforms.resample import length
from .rvq_decoder import SoundDecoder
from .rvq_encoder import SoundEncoder
from .rvq_networks import Networks
from .rvq_search import trace
from .rvq_timing import Timing
from .sound import to_float


def encode_batch(
    networks: Networks, timing: Timing, stages: int, beam: int, wav: Tensor, lengths: Tensor | None
) -> Tensor:
    """See Rvq.encode_tokens."""
    if wav.ndim == 3 and wav.shape[1] == 1:
        wav = wav[:, 0]
    if wav.ndim != 2:
        raise ValueError(f"wav is {list(wav.shape)}, expected [B, N] or [B, 1, N]")
    counts = _counts(lengths, len(wav), wav.shape[1])
    frames = [timing.frames(count) for count in counts]
    codes = torch.zeros(len(wav), stages, max(frames, default=0), dtype=torch.int64)
    for item, count, row in zip(wav, counts, codes, strict=True):
        encoder = SoundEncoder(networks, timing, 1, None, stages, beam)
        x = to_float(item[None, :count], "encode_tokens")
        groups = [*encoder.push(x), *encoder.finish()]
        at = 0
        for group in groups:
            found = trace(group.trees[0], stages)
            row[:, at : at + found.shape[1]] = found
            at += found.shape[1]
    return codes


def decode_batch(
    networks: Networks, timing: Timing, codes: Tensor, lengths: Tensor | None
) -> Tensor:
    """See Rvq.decode_tokens."""
    size = networks.size
    if codes.ndim != 3 or codes.dtype != torch.int64 or not 1 <= codes.shape[1] <= size.n_q:
        raise ValueError(
            f"codes are {codes.dtype} {list(codes.shape)}, expected int64 [B, 1 to {size.n_q}, T]"
        )
    if codes.numel() and not 0 <= int(codes.min()) <= int(codes.max()) < size.codebook_size:
        raise ValueError(
            f"codes run from {int(codes.min())} to {int(codes.max())}, legal are 0 to "
            f"{size.codebook_size - 1}"
        )
    most = max(0, codes.shape[2] * size.frame - size.hop)
    counts = _counts(lengths, len(codes), length(most, size.sample_rate, timing.sample_rate))
    wav = torch.zeros(len(codes), max(counts, default=0))
    for item, count, row in zip(codes, counts, wav, strict=True):
        decoder = SoundDecoder(networks, timing.sample_rate, 1)
        if used := timing.frames(count):
            pieces = [decoder.push([item[:, :used]], False, used), decoder.finish()]
            row[:count] = torch.cat(pieces, 1)[0, :count]
    return wav


def _counts(lengths: Tensor | None, items: int, most: int) -> list[int]:
    if lengths is None:
        return [most] * items
    counts = [int(n) for n in lengths]
    if len(counts) != items or not all(0 <= n <= most for n in counts):
        raise ValueError(f"lengths are {counts}, expected {items} of 0 to {most} samples")
    return counts
