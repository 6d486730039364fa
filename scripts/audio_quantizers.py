"""Quantizers of speech at two rates, and what their papers claim of them.

A case is a `Coding` of standardised latents of 50 frames a second: 60 bits to a frame are 3 kbps,
12 bits 600 bit/s. What is said once for a clip, or at a lower frame rate, is counted as such.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from latentpack.codecs.quantizers.cross_scale import CrossScaleQuantizer, QuantizedScales
from latentpack.codecs.quantizers.fsq import FSQ
from latentpack.codecs.quantizers.global_code import GlobalQuantizer
from latentpack.codecs.quantizers.grouped import GroupedQuantizer
from latentpack.codecs.quantizers.ibq import IBQ
from latentpack.codecs.quantizers.lfq import LFQ
from latentpack.codecs.quantizers.projected import ProjectedQuantizer
from latentpack.codecs.quantizers.quantizer import Quantizer
from latentpack.codecs.quantizers.rvq import ResidualQuantizer
from latentpack.codecs.quantizers.simvq import SimVQ
from latentpack.codecs.quantizers.vq import VectorQuantizer
from latentpack.scripts.bench_quantizers import Claims, Rows, grouped

DIM = 64  # channels of the latents
UNIT = DIM**-0.5  # makes latents as long as the codes that SimVQ and IBQ start with
FRAMES = 4  # a clip has a multiple of so many: the coarsest scale of a pyramid takes them together


class Coding(nn.Module):
    """A quantizer of one or more scales, and what makes their features of the latents."""

    def __init__(
        self, quantizer: CrossScaleQuantizer, features: Sequence[nn.Module], scale: float = 1.0
    ) -> None:
        """Take the parts.

        Args:
            quantizer: of one scale or more.
            features: for each scale but the finest, coarse first, what makes its features of those
                of the next one.
            scale: what latents of unit variance are multiplied by before. An encoder that is
                trained with its quantizer finds it; this one is not.
        """
        super().__init__()
        self.quantizer, self.makers, self.scale = quantizer, nn.ModuleList(features), scale

    def features(self, latents: Tensor) -> list[Tensor]:
        """[B, DIM, T] -> features of each scale, coarse first."""
        found = [latents * self.scale]
        for make in reversed(self.makers):
            found.insert(0, make(found[0]))
        return found

    def forward(self, latents: Tensor) -> QuantizedScales:
        """Float [B, DIM, T], T a multiple of FRAMES; see CrossScaleQuantizer."""
        out = self.quantizer(self.features(latents))
        return QuantizedScales(out.x_hat / self.scale, out.codes, out.losses)

    def encode(self, latents: Tensor) -> list[Tensor]:
        """Codes of each scale."""
        return self.quantizer.encode(self.features(latents))

    def decode(self, codes: list[Tensor]) -> Tensor:
        """The mirror of `encode`."""
        return self.quantizer.decode(codes) / self.scale


def plain(quantizer: Quantizer, scale: float = 1.0) -> Coding:
    """A quantizer of the latents as they are."""
    return Coding(CrossScaleQuantizer([quantizer], []), [], scale)


class Halve(nn.Module):
    """Two frames to one, starting as their mean."""

    def __init__(self) -> None:
        """Make the map."""
        super().__init__()
        self.map = nn.Linear(2 * DIM, DIM)
        self.map.weight.data.copy_(torch.eye(DIM).repeat(1, 2) / 2)
        nn.init.zeros_(self.map.bias)

    def forward(self, x: Tensor) -> Tensor:
        """[B, DIM, T] -> [B, DIM, T / 2]."""
        pairs = x.transpose(1, 2).reshape(len(x), -1, 2 * DIM)
        return self.map(pairs).transpose(1, 2)  # type: ignore[no-any-return]


class Double(nn.Module):
    """One frame to two, starting as a repetition; it sees the frame before, too."""

    def __init__(self) -> None:
        """Make the map."""
        super().__init__()
        self.map = nn.Linear(2 * DIM, 2 * DIM)
        both = torch.cat((torch.eye(DIM), torch.zeros(DIM, DIM)), 1)
        self.map.weight.data.copy_(both.repeat(2, 1))
        nn.init.zeros_(self.map.bias)

    def forward(self, y: Tensor) -> Tensor:
        """[B, DIM, T] -> [B, DIM, 2 T]."""
        seen = torch.cat((y, F.pad(y, (1, 0))[..., :-1]), 1).transpose(1, 2)
        return self.map(seen).reshape(len(y), -1, DIM).transpose(1, 2)  # type: ignore[no-any-return]


def pyramid(*codes: int) -> Coding:
    """ESC's product quantizers at 12.5, 25 and 50 Hz: so many codes of 1024 at each."""
    scales = [grouped(n, vq, DIM) for n in codes]
    steps = [Double() for _ in codes[1:]]
    return Coding(CrossScaleQuantizer(scales, steps), [Halve() for _ in codes[1:]])


def voice_and(rest: Quantizer) -> Coding:
    """TiCodec: four codes of 256 to a clip, and `rest` for what they leave of every frame."""
    voice = GlobalQuantizer(grouped(4, lambda dim: vq(dim, 256), DIM))
    return Coding(CrossScaleQuantizer([voice, rest], [nn.Identity()]), [nn.Identity()])


def vq(dim: int = DIM, size: int = 1024, **options: Any) -> VectorQuantizer:
    """A codebook whose averages forget soon, so that codes can die in a short training."""
    return VectorQuantizer(dim, size, decay=0.97, **options)


def residual(make: Callable[[], Quantizer], stages: int = 6) -> Quantizer:
    """Stages of one kind."""
    return ResidualQuantizer([make() for _ in range(stages)])


def masked(stages: int) -> Quantizer:
    """Language-Codec: three codes see a third of the channels each, the others all the rest."""
    thirds = grouped(3, vq, DIM)
    return ResidualQuantizer([thirds, *(vq() for _ in range(stages))])


def factorised(size: int, cosine: bool) -> Quantizer:
    """Codes of 8 channels between linear maps."""
    return ProjectedQuantizer(DIM, vq(8, size, cosine=cosine))


@dataclass(frozen=True)
class Case:
    """How a coding is made and trained.

    Attributes:
        make: makes it.
        entropy: weight of its entropy loss.
        early: its codebooks start on latents of an encoder that has learned nothing yet, as they do
            where quantizer and encoder are trained together from the first update.
    """

    make: Callable[[], Coding]
    entropy: float = 0.0
    early: bool = False


CASES: dict[str, Case] = {
    # 3 kbps
    "RVQ, 6": Case(lambda: plain(residual(vq))),
    "grouped RVQ, 2 x 3": Case(
        lambda: plain(grouped(2, lambda dim: residual(lambda: vq(dim), 3), DIM))
    ),
    "masked RVQ, 3 + 3": Case(lambda: plain(masked(3))),
    "cross-scale, 4 + 4 + 3": Case(lambda: pyramid(4, 4, 3)),
    "voice + RVQ, 6": Case(lambda: voice_and(residual(vq))),
    "SimVQ, 6": Case(lambda: plain(residual(lambda: SimVQ(DIM, 1024)), UNIT)),
    "IBQ, 6": Case(lambda: plain(residual(lambda: IBQ(DIM, 1024)), UNIT), entropy=0.05),
    "FSQ, 6 of 8 8 4 4": Case(
        lambda: plain(ProjectedQuantizer(DIM, GroupedQuantizer([FSQ((8, 8, 4, 4))] * 6)))
    ),
    "LFQ, 6 of 10 bits": Case(
        lambda: plain(ProjectedQuantizer(DIM, GroupedQuantizer([LFQ(10)] * 6))), entropy=0.05
    ),
    # what keeps codes alive, at 3 kbps
    "RVQ, 6, no restart": Case(lambda: plain(residual(lambda: vq(restart=0.0)))),
    "RVQ, 6, random start": Case(lambda: plain(residual(lambda: vq(kmeans=False)))),
    "RVQ, 6, early start": Case(lambda: plain(residual(vq)), early=True),
    "RVQ, 6, early start, no restart": Case(
        lambda: plain(residual(lambda: vq(restart=0.0))), early=True
    ),
    "RVQ, 6, early random start, no restart": Case(
        lambda: plain(residual(lambda: vq(restart=0.0, kmeans=False))), early=True
    ),
    "RVQ, 6, factorised": Case(lambda: plain(residual(lambda: factorised(1024, False)))),
    "RVQ, 6, factorised, cosine": Case(lambda: plain(residual(lambda: factorised(1024, True)))),
    # 600 bit/s
    "RVQ, 2 of 64": Case(lambda: plain(residual(lambda: vq(size=64), 2))),
    "voice + RVQ, 2 of 64": Case(lambda: voice_and(residual(lambda: vq(size=64), 2))),
    "VQ, 4096": Case(lambda: plain(vq(size=4096))),
    "VQ, 4096, factorised, cosine": Case(lambda: plain(factorised(4096, True))),
    "SimVQ, 4096": Case(lambda: plain(SimVQ(DIM, 4096), UNIT)),
    "IBQ, 4096": Case(lambda: plain(IBQ(DIM, 4096), UNIT), entropy=0.05),
    "FSQ, 8 8 8 8": Case(lambda: plain(ProjectedQuantizer(DIM, FSQ((8, 8, 8, 8))))),
    "LFQ, 12 bits": Case(lambda: plain(ProjectedQuantizer(DIM, LFQ(12))), entropy=0.05),
}


def _nearer(rows: Rows, first: str, second: str, by: float = 0.0) -> bool:
    """Whether the first case has the smaller mel distance, by more than the seeds differ."""
    noise = max(rows[name]["mel_spread"] for name in (first, second))
    return bool(rows[second]["mel"] - rows[first]["mel"] > max(by, noise))


def _fuller(rows: Rows, first: str, second: str) -> bool:
    return bool(rows[first]["usage"] > rows[second]["usage"] + 0.02)


_SMALL = 0.02  # a mel distance that is not heard
# Case -> the paper's claim, and what must hold in the rows for it to be seen here.
CLAIMS: Claims = {
    "grouped RVQ, 2 x 3": (
        "beats RVQ of as many codes (HiFi-Codec)",
        lambda r: _nearer(r, "grouped RVQ, 2 x 3", "RVQ, 6"),
    ),
    "masked RVQ, 3 + 3": (
        "beats RVQ of as many codes (Language-Codec)",
        lambda r: _nearer(r, "masked RVQ, 3 + 3", "RVQ, 6"),
    ),
    "cross-scale, 4 + 4 + 3": (
        "beats RVQ of one scale at equal bits (ESC)",
        lambda r: _nearer(r, "cross-scale, 4 + 4 + 3", "RVQ, 6"),
    ),
    "voice + RVQ, 6": (
        "helps most where codes are few: less here than at 600 bit/s (TiCodec)",
        lambda r: _gain(r, "RVQ, 2 of 64") > _gain(r, "RVQ, 6"),
    ),
    "SimVQ, 6": (
        "all codes in use, and better reconstruction than VQ (SimVQ)",
        lambda r: r["SimVQ, 6"]["usage"] > 0.95 and _nearer(r, "SimVQ, 6", "RVQ, 6"),
    ),
    "IBQ, 6": (
        "all codes learn, so that nearly all are in use (IBQ)",
        lambda r: r["IBQ, 6"]["usage"] > 0.8,
    ),
    "FSQ, 6 of 8 8 4 4": (
        "codes in use without any extra loss, reconstruction near VQ's (FSQ)",
        lambda r: (
            r["FSQ, 6 of 8 8 4 4"]["usage"] > 0.9
            and not _nearer(r, "RVQ, 6", "FSQ, 6 of 8 8 4 4", _SMALL)
        ),
    ),
    "LFQ, 6 of 10 bits": (
        "all codes in use (LFQ)",
        lambda r: r["LFQ, 6 of 10 bits"]["usage"] > 0.9,
    ),
    "RVQ, 6, random start": (
        "k-means start is better than a random one (SoundStream)",
        lambda r: _nearer(r, "RVQ, 6", "RVQ, 6, random start"),
    ),
    "RVQ, 6, early start": (
        "restart brings codes back that were left behind (SoundStream)",
        lambda r: _fuller(r, "RVQ, 6, early start", "RVQ, 6, early start, no restart"),
    ),
    "RVQ, 6, early start, no restart": (
        "k-means start keeps more codes alive than a random one (SoundStream)",
        lambda r: _fuller(
            r, "RVQ, 6, early start, no restart", "RVQ, 6, early random start, no restart"
        ),
    ),
    "RVQ, 6, factorised": (
        "codes of few channels: more of them in use (improved VQGAN, DAC)",
        lambda r: _fuller(r, "RVQ, 6, factorised", "RVQ, 6, no restart"),
    ),
    "RVQ, 6, factorised, cosine": (
        "cosine codes reconstruct better than Euclidean ones (improved VQGAN, DAC)",
        lambda r: _nearer(r, "RVQ, 6, factorised, cosine", "RVQ, 6, factorised"),
    ),
    "voice + RVQ, 2 of 64": (
        "a code for the clip improves few codes to a frame (TiCodec)",
        lambda r: _nearer(r, "voice + RVQ, 2 of 64", "RVQ, 2 of 64"),
    ),
    "VQ, 4096": (
        "one large codebook beats a residual at equal bits (WavTokenizer)",
        lambda r: _nearer(r, "VQ, 4096", "RVQ, 2 of 64"),
    ),
    "VQ, 4096, factorised, cosine": (
        "few channels: a large codebook is used more (improved VQGAN)",
        lambda r: _fuller(r, "VQ, 4096, factorised, cosine", "VQ, 4096"),
    ),
    "SimVQ, 4096": (
        "all codes in use, and better reconstruction than VQ (SimVQ)",
        lambda r: r["SimVQ, 4096"]["usage"] > 0.9 and _nearer(r, "SimVQ, 4096", "VQ, 4096"),
    ),
    "IBQ, 4096": (
        "a large codebook is used (IBQ)",
        lambda r: r["IBQ, 4096"]["usage"] > 0.8,
    ),
    "FSQ, 8 8 8 8": (
        "codes in use without any extra loss, reconstruction near VQ's (FSQ)",
        lambda r: (
            r["FSQ, 8 8 8 8"]["usage"] > 0.9 and not _nearer(r, "VQ, 4096", "FSQ, 8 8 8 8", _SMALL)
        ),
    ),
    "LFQ, 12 bits": (
        "all codes in use (LFQ)",
        lambda r: r["LFQ, 12 bits"]["usage"] > 0.9,
    ),
}


def _gain(rows: Rows, rest: str) -> float:
    """What a code for the clip takes off the mel distance; 0 where the seeds differ by more."""
    voice = f"voice + {rest}"
    return float(rows[rest]["mel"] - rows[voice]["mel"]) if _nearer(rows, voice, rest) else 0.0
