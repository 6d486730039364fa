"""Training of the prior of `audio/rvq` on codes of sounds, once its codebooks stand."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from ...entropy.models.code_prior import CodePrior, IntegerCodePrior, Size

_FRAMES = 100  # of a crop, at most
_STEP_FRAMES = 1600
_PRICED = 5  # codebooks whose codes are priced in a step
_WARM_UP = 50  # steps
_DROPOUT = 0.1
_SLOW = 0.3  # share of the learning rate that the codes' vectors have, which start well
_ALL = 0.4  # share of the steps that see all codebooks; others see a number of the first ones


def train_prior(
    codes: Sequence[Tensor],
    codebooks: Sequence[Tensor],
    steps: int = 3000,
    seed: int = 0,
    size: Size | None = None,
    lr: float = 3e-3,
    report: Callable[[int, float], object] | None = None,
) -> IntegerCodePrior:
    """Learn what codes are probable.

    Args:
        codes: of one sound each, integers [n_q, T]; any number of any length, of which those are
            used that are as long as half of them are, or 100 frames. Little is learnt of few, but
            what comes out codes anything.
        codebooks: the vectors that codes stand for, float [K, D] for each of the n_q codebooks.
            There the prior starts: without them it would need many times as many codes.
        steps: of 1600 frames each; one takes about 0.1 s on a core for 16 codebooks of 1024 codes.
        seed: of all that is random.
        size: of the network.
        lr: learning rate at the start, of a cosine that ends near zero.
        report: called after each step with its number and its mean bits of a code.

    Returns:
        The prior in its integer form.

    Raises:
        ValueError: codes do not go with the codebooks.
    """
    _check(codes, codebooks)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        prior = CodePrior([len(book) for book in codebooks], size, _DROPOUT)
        prior.start([book.detach().cpu() for book in codebooks])
        crops = _Crops(codes)
        groups = [
            {"params": [p], "share": _SLOW if name in ("embedding", "weight") else 1.0}
            for name, p in prior.named_parameters()
        ]
        optimizer = torch.optim.Adam(groups, lr, betas=(0.9, 0.98))
        for step in range(steps if len(crops.starts) else 0):
            for group in optimizer.param_groups:
                group["lr"] = lr * group["share"] * _schedule(step, steps)
            bits = _bits(prior, crops.draw())
            optimizer.zero_grad()
            bits.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            if report:
                report(step + 1, float(bits.detach()))
    return prior.freeze()


def _check(codes: Sequence[Tensor], codebooks: Sequence[Tensor]) -> None:
    sizes = torch.tensor([len(book) for book in codebooks])[:, None]
    for part in codes:
        if part.ndim != 2 or len(part) != len(sizes):
            raise ValueError(f"codes are {tuple(part.shape)}, expected [{len(sizes)}, T]")
        if ((part < 0) | (part >= sizes.to(part.device))).any():
            raise ValueError("codes are outside their codebooks")


def _schedule(step: int, steps: int) -> float:
    warm = min(1.0, (step + 1) / _WARM_UP)
    return warm * (0.03 + 0.97 * (0.5 + 0.5 * math.cos(math.pi * step / steps)))


class _Crops:
    """Stretches of sounds, all equally long and equally likely."""

    def __init__(self, codes: Sequence[Tensor]) -> None:
        lengths = torch.tensor([part.shape[1] for part in codes if part.shape[1]])
        self.frames = min(_FRAMES, int(lengths.median())) if len(lengths) else 0
        used = [part for part in codes if self.frames and part.shape[1] >= self.frames]
        self.stream = torch.cat([part.cpu().long() for part in used], 1) if used else torch.zeros(0)
        ends = torch.tensor([0, *(part.shape[1] for part in used)]).cumsum(0).tolist()
        self.starts = torch.cat(
            [torch.zeros(0, dtype=torch.int64)]
            + [torch.arange(a, b - self.frames + 1) for a, b in itertools.pairwise(ends)]
        )

    def draw(self) -> Tensor:
        """For a step, int64 [B, n_q, frames]."""
        chosen = torch.randint(len(self.starts), (-(-_STEP_FRAMES // self.frames),))
        places = self.starts[chosen][:, None] + torch.arange(self.frames)
        return self.stream[:, places].movedim(1, 0)


def _bits(prior: CodePrior, crops: Tensor) -> Tensor:
    """Mean bits of the codes of some codebooks, where the first few or all are there."""
    n_q = crops.shape[1]
    k = n_q if torch.rand(()) < _ALL else int(torch.randint(1, n_q + 1, ()))
    return prior.rate_bits(crops[:, :k], torch.randperm(k)[:_PRICED].tolist()).mean()
