"""VQ: one codebook, moved by running averages of the vectors that fall to each code.

Van den Oord et al., "Neural Discrete Representation Learning", NeurIPS 2017 (appendix A.1 for the
averages); k-means start and restart of dead codes as in Zeghidour et al., "SoundStream", 2021.
With `cosine` codes and vectors are compared on the unit sphere (Yu et al., "Vector-quantized Image
Modeling with Improved VQGAN", ICLR 2022); put a `Projected` around it for low-dimensional codes.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from . import processes
from .quantizer import Quantized, Quantizer, from_rows, nearest, straight_through, to_rows

_KMEANS_ROUNDS = 10
_JITTER = 1e-2  # of the data's spread, where there are fewer vectors than codes


class VectorQuantizer(Quantizer):
    """x_hat is the nearest code; `commitment_loss` is the mean squared distance to it.

    On several processes (torch.distributed) the codebooks stay equal: averages are summed over
    all, new codes come from the first.
    """

    codebook: Tensor  # float [K, dim]; on the unit sphere with `cosine`
    counts: Tensor  # float [K], running average of how many vectors of a batch a code gets
    sums: Tensor  # float [K, dim], running average of the sum of these vectors
    started: Tensor  # bool []

    def __init__(
        self,
        dim: int,
        codebook_size: int,
        decay: float = 0.99,
        cosine: bool = False,
        kmeans: bool = True,
        restart: float = 0.03,
    ) -> None:
        """Make an empty codebook, which the first training batch fills.

        Args:
            dim: channels.
            codebook_size: number of codes.
            decay: of the running averages, per batch.
            cosine: compare directions; x_hat then has length one, and so should x.
            kmeans: start from k-means over the first batch, else from random vectors of it.
            restart: a code whose average count falls below this share of the mean is put on a
                random vector of the batch; 0 = never.
        """
        super().__init__(dim, (codebook_size,))
        self.decay, self.cosine, self.kmeans, self.restart = decay, cosine, kmeans, restart
        self.register_buffer("codebook", torch.randn(codebook_size, dim))
        self.register_buffer("counts", torch.zeros(codebook_size))
        self.register_buffer("sums", torch.zeros(codebook_size, dim))
        self.register_buffer("started", torch.tensor(False))

    def forward(self, x: Tensor) -> Quantized:
        """See Quantizer; in training mode the codebook moves."""
        self.check_x(x)
        rows = self._rows(x)
        if self.training and not self.started:
            self.start(x)
        index = nearest(rows.detach(), self.codebook)
        hats = self.codebook[index].clone()  # of before the update
        if self.training:
            self._update(rows.detach(), index)
        loss = F.mse_loss(rows, hats)
        x_hat = straight_through(from_rows(rows, x), from_rows(hats, x))
        return Quantized(x_hat, from_rows(index[:, None], x), {"commitment_loss": loss})

    def encode(self, x: Tensor) -> Tensor:
        """See Quantizer."""
        self.check_x(x)
        return from_rows(nearest(self._rows(x), self.codebook)[:, None], x)

    def decode(self, codes: Tensor) -> Tensor:
        """See Quantizer."""
        self.check_codes(codes)
        return from_rows(self.codebook[codes.flatten()], codes)

    def _rows(self, x: Tensor) -> Tensor:
        rows = to_rows(x)
        return F.normalize(rows, dim=1) if self.cosine else rows

    @torch.no_grad()
    def start(self, x: Tensor) -> None:
        """Fill the codebook from vectors [B, dim, *]; the more there are, the better."""
        rows = self._rows(x)
        codes = _sample(rows, len(self.codebook))
        if self.kmeans:
            for _ in range(_KMEANS_ROUNDS):
                codes = self._mean_of(rows, codes)
        each = processes.mean_count(len(rows)) / len(codes)
        self._place(
            torch.ones_like(self.counts, dtype=torch.bool), processes.from_first(codes), each
        )
        self.started.fill_(True)

    def _mean_of(self, rows: Tensor, codes: Tensor) -> Tensor:
        """One round of k-means; a code without vectors stays where it is."""
        counts, sums = _totals(rows, nearest(rows, codes), len(codes))
        means = torch.where(counts[:, None] > 0, sums / counts.clamp_min(1)[:, None], codes)
        return F.normalize(means, dim=1) if self.cosine else means

    @torch.no_grad()
    def _update(self, rows: Tensor, index: Tensor) -> None:
        counts, sums = (processes.total(t) for t in _totals(rows, index, len(self.codebook)))
        self.counts.lerp_(counts, 1 - self.decay)
        self.sums.lerp_(sums, 1 - self.decay)
        mean = self.counts.mean()
        # Codes that were hardly ever hit keep their place: a sum of next to nothing says nothing.
        moved = self.counts > 1e-3 * mean
        means = self.sums / self.counts.clamp_min(1e-12)[:, None]
        means = F.normalize(means, dim=1) if self.cosine else means
        self.codebook.copy_(torch.where(moved[:, None], means, self.codebook))
        dead = self.counts < self.restart * mean
        if bool(dead.any()):
            fresh = processes.from_first(_sample(rows, int(dead.sum())))
            self._place(dead, fresh, float(mean))

    def _place(self, where: Tensor, codes: Tensor, count: float) -> None:
        """Put codes where bool [K] says so, as if each had been hit `count` times."""
        self.codebook[where] = codes
        self.counts[where] = count
        self.sums[where] = codes * count


def _totals(rows: Tensor, index: Tensor, size: int) -> tuple[Tensor, Tensor]:
    """Per code the number and the sum of its vectors."""
    counts = torch.bincount(index, minlength=size).to(rows.dtype)
    sums = torch.zeros(size, rows.shape[1], device=rows.device).index_add_(0, index, rows)
    return counts, sums


def _sample(rows: Tensor, count: int) -> Tensor:
    """So many vectors at random; where there are fewer, copies with a little noise."""
    if count <= len(rows):
        return rows[torch.randperm(len(rows), device=rows.device)[:count]]
    chosen = rows[torch.randint(len(rows), (count,), device=rows.device)]
    return chosen + torch.randn_like(chosen) * rows.std() * _JITTER
