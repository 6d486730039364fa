"""`image/fit`: a picture as networks and latents that were fitted to it alone.

Overfitted codec (COOL-CHIC, arXiv:2212.05458; C3, arXiv:2312.02753). Drawing: `fit_networks.py`.
Encoder side per tile:

    pixels --> fit_encoder.optimise (R + lmbda D) --> latents, networks
    networks --> fit_parameters.choose (steps, deltas from a prior) --> integers
    both --> fit_stream.write --> packet (key = tile number, row by row); its bytes are shown there

Decoding takes no training framework: integers and a stated order of float operations (`kernels/
fit_ref.py`) give the same pixels on every machine.

Parameters in the header: "s" = [width, height, channels], "w" = digest of the prior (8 bytes). A
tile is 2048 x 2048 pixels, each with networks of its own.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ...kernels import fit as kernel
from ...kernels.errors import BitstreamError
from ..codec import Codec, Packet, Rate
from . import fit_encoder, fit_parameters, fit_prior, fit_search, fit_stream, light_alpha, picture
from .fit_encoder import Fitted
from .fit_networks import PRESETS
from .fit_search import Goal
from .fit_stream import Tile

TILE = 2048  # pixels
_LOW, _HIGH = 0.0005, 0.05  # lmbda of quality 0 and 100
_FIRST_SHARE = 0.6  # of the time for the first fit where a target needs several
_LATER_SHARE = 0.1
_MANY_PIXELS = 1 << 20  # from here on, networks are few bytes, and their costs take time
_START = 0.005  # lmbda of the first fit for a size
_START_PSNR = 33.0  # about what it gives

# (step, steps in all, bits per pixel as estimated, PSNR in dB)
Progress = Callable[[int, int, float, float], None]


@dataclass(frozen=True)
class Done:
    """A fitted tile: its bytes, the sum of its squared errors, and what can be gone on from."""

    body: bytes
    squared_error: int
    fitted: Fitted


class Fit(Codec):
    """Pictures, uint8 [C, H, W]: 1 grey, 2 grey + alpha, 3 RGB, 4 RGB + alpha (alpha lossless).

    Takes Rate quality (0 to 100), bpp, ratio, max_bytes and psnr; without a rate quality 50.
    """

    name = "image/fit"

    def __init__(
        self,
        effort: int = 5,
        preset: str = "best",
        time_budget: float | None = None,
        resume: str | Path | None = None,
        threads: int | None = None,
        progress: Progress | None = None,
        device: str | None = None,
        weights: str | Path | None = None,
    ) -> None:
        """Set how to encode; decoding needs none of it but `threads`, and `weights` of your own.

        Args:
            effort: 0 to 9: how long to fit.
            preset: "fast", "default", "best" or "max": size of the networks.
            time_budget: seconds to fit for, rather than what the effort says.
            resume: a checkpoint, which is kept up to date, and gone on from where it is there.
            threads: to compute with; None is torch's number.
            progress: is told how the fit goes on.
            device: of the fit, e.g. "cuda"; None is the CPU's own kernel.
            weights: a prior file; None is the one that ships.
        """
        if preset not in PRESETS:
            raise ValueError(f"preset is {preset!r}, expected one of {', '.join(PRESETS)}")
        if type(effort) is not int or not 0 <= effort <= 9:
            raise ValueError(f"effort is {effort!r}, expected 0 to 9")
        if time_budget is not None and not time_budget > 0:
            raise ValueError(f"time_budget is {time_budget!r}, expected seconds above 0")
        self.effort, self.preset, self.time_budget = effort, preset, time_budget
        self.checkpoint = Path(resume) if resume else None
        self.threads = threads or torch.get_num_threads()
        self.progress, self.device = progress, device
        self.path = Path(weights) if weights else fit_prior.SHIPPED

    def header(self, signal: Tensor) -> dict[str, Any]:
        """See Codec."""
        channels, height, width = picture.check(signal, self.name)
        return {"s": [width, height, channels], "w": fit_prior.load(self.path).digest}

    def encode(
        self, signal: Tensor, rate: Rate | None = None, reserve: int = 0
    ) -> Iterator[Packet]:
        """See Codec; a target is met by fits at several trade-offs, each going on from another."""
        picture.check(signal, self.name)
        rate = rate or Rate(quality=50)
        if rate.name == "quality":
            if rate.value > 100:
                raise ValueError(f"quality must be 0 to 100, got {rate.value}")
            lmbda = _LOW * (_HIGH / _LOW) ** (rate.value / 100)
            return self._each_tile(signal, lmbda)
        goal = _goal(signal, rate, self.name)
        return iter(_packets([done.body for done in self._meet(signal, goal, rate, reserve)]))

    def _each_tile(self, x: Tensor, lmbda: float) -> Iterator[Packet]:
        count = len(_grid(x))
        budget = self.time_budget and self.time_budget / count
        for number in range(count):
            done = self._fit(x, number, lmbda, None, budget)
            yield Packet(number if count > 1 else None, done.body)

    def _meet(self, x: Tensor, goal: Goal, rate: Rate, reserve: int) -> list[Done]:
        """All tiles at the trade-off that a rate asks for."""
        count = len(_grid(x))

        def fit_all(lmbda: float, near: list[Done] | None) -> list[Done]:
            share = _LATER_SHARE if near else _FIRST_SHARE
            budget = self.time_budget and self.time_budget * share / count
            starts = [done.fitted for done in near] if near else [None] * count
            return [self._fit(x, n, lmbda, starts[n], budget) for n in range(count)]

        def measure(tiles: list[Done]) -> float:
            if rate.name == "psnr":
                return _psnr(x, sum(done.squared_error for done in tiles))
            return math.log(picture.file_size([len(done.body) for done in tiles], reserve))

        found, smallest = fit_search.search(fit_all, measure, goal, _first_lmbda(rate))
        if found is None:
            size = picture.file_size([len(done.body) for done in smallest], reserve)
            raise ValueError(
                f"max_bytes {rate.value:.0f} is out of reach: the smallest file of this picture "
                f"takes {size} bytes; make the picture smaller"
            )
        return found

    def _fit(
        self, x: Tensor, number: int, lmbda: float, start: Fitted | None, budget: float | None
    ) -> Done:
        """Fit a tile and write it."""
        top, left, height, width = _grid(x).box(number)
        colour, alpha = picture.split_alpha(x[:, top : top + height, left : left + width])
        colour = colour.contiguous()
        prior = fit_prior.load(self.path).nearest(self.preset, len(colour), lmbda)
        fitted = fit_encoder.optimise(
            colour,
            self.preset,
            lmbda,
            fit_encoder.start_of(PRESETS[self.preset], len(colour), prior),
            prior=prior,
            effort=self.effort,
            time_budget=budget,
            start=start,
            checkpoint=None if start else self._checkpoint_of(x, number),
            progress=self.progress,
            threads=self.threads,
            device=self.device,
        )
        pixels = colour.numpy()
        tile = _quantised(prior, fitted, pixels, lmbda, self.threads)
        coded_alpha = None if alpha is None else light_alpha.encode(alpha.contiguous())
        body = fit_stream.write(tile, coded_alpha, self.threads)
        return Done(body, _squared_error(tile.pixels(self.threads), pixels), fitted)

    def _checkpoint_of(self, x: Tensor, number: int) -> Path | None:
        if self.checkpoint is None or len(_grid(x)) == 1:
            return self.checkpoint
        return self.checkpoint.with_name(f"{self.checkpoint.name}.{number}")

    def decode(self, header: dict[str, Any], packets: Iterable[Packet]) -> Tensor:
        """See Codec.

        Raises:
            ValueError: the stream was made with another prior than those that are there.
        """
        width, height, channels = picture.parse_size(header)
        grid, priors = picture.Grid(width, height, TILE), self._priors(header)
        out: Tensor | None = None
        count = 0
        for packet in packets:
            number = 0 if packet.key is None else packet.key
            if number != count or number >= len(grid):
                raise BitstreamError(f"tile {number!r} is out of order or outside the picture")
            top, left, h, w = grid.box(count)
            tile, alpha = fit_stream.read(priors, packet.body, channels, h, w)
            pixels = torch.from_numpy(tile.pixels(self.threads))
            if channels in (2, 4):
                pixels = torch.cat([pixels, light_alpha.decode(alpha, h, w)[None]])
            if out is None:  # allocated once a tile has proved to be one
                if len(grid) == 1:
                    out = pixels
                else:
                    out = picture.blank(channels, height, width)
            if len(grid) > 1:
                out[:, top : top + h, left : left + w] = pixels
            count += 1
        if out is None or count < len(grid):
            raise BitstreamError(f"the picture has {len(grid)} tiles, {count} are complete")
        return out

    def describe(self, header: dict[str, Any], packet: Packet) -> dict[str, Any]:
        """Preset, lmbda, and the bytes of networks, latents and alpha of a tile."""
        _, _, channels = picture.parse_size(header)
        return fit_stream.describe(self._priors(header), packet.body, channels)

    def _priors(self, header: dict[str, Any]) -> fit_prior.PriorFile:
        digest = header.get("w")
        if not isinstance(digest, bytes):
            raise BitstreamError(f"header field w is {digest!r}, expected a digest")
        return fit_prior.find(digest, self.path)


CODEC = Fit


def _grid(x: Tensor) -> picture.Grid:
    return picture.Grid(x.shape[2], x.shape[1], TILE)


def _packets(bodies: list[bytes]) -> list[Packet]:
    return [Packet(n if len(bodies) > 1 else None, body) for n, body in enumerate(bodies)]


def _goal(x: Tensor, rate: Rate, codec: str) -> Goal:
    if rate.name == "psnr":
        return Goal.of_psnr(rate.value)
    return Goal.of_bytes(picture.target_bytes(x, rate, codec), ceiling=rate.name == "max_bytes")


def _first_lmbda(rate: Rate) -> float:
    if rate.name != "psnr":
        return _START
    moved = (rate.value - _START_PSNR) / Goal.of_psnr(rate.value).slope
    return min(_HIGH, max(_LOW, _START * math.exp(moved)))


def _quantised(
    prior: fit_prior.Prior,
    fitted: Fitted,
    pixels: fit_stream.Pixels,
    lmbda: float,
    threads: int,
) -> Tile:
    """A fitted tile with its networks in integers, in the steps that cost least."""
    grids = [grid.numpy() for grid in fitted.grids]

    def context_cost(context: kernel.Context) -> float:
        return fit_prior.bits_of(*kernel.symbols(context, grids, threads=threads))

    def synthesis_cost(synthesis: kernel.Synthesis) -> float:
        found = kernel.synthesise(synthesis, grids, threads=threads)
        return lmbda * _squared_error(found, pixels) / len(pixels)

    parameters = fitted.parameters.detach().cpu().numpy()
    passes = 3 if pixels[0].size <= _MANY_PIXELS else 1
    coded = fit_parameters.choose(prior, parameters, context_cost, synthesis_cost, passes)
    return Tile(prior, fit_stream.position_of(lmbda), coded, grids)


def _squared_error(a: fit_stream.Pixels, b: fit_stream.Pixels) -> int:
    off = a.astype(np.int16) - b
    return int(np.square(off, dtype=np.int32).sum(dtype=np.int64))


def _psnr(x: Tensor, squared_error: int) -> float:
    """Over the colour channels."""
    samples = picture.split_alpha(x)[0].numel()
    return 10 * math.log10(255**2 / max(squared_error / samples, 1e-4))
