"""`video/fit`: groups of pictures as motion, latents and networks that were fitted to them alone.

Overfitted codec (COOL-CHIC video, Leguay et al. 2024, arXiv:2402.03179; C3, Kim et al. 2024,
arXiv:2312.02753) without trained weights. Encoder side per group of pictures:

    planes --> fit_order: which frames are made from which
           --> fit_encoder.GroupFit.run (R + lmbda D) --> motion, latents, networks in integers
           --> fit_stream.write --> payload; its bytes are shown there

Decoding takes no training framework: integers and a stated order of float operations (`kernels/
fit_ref.py`, `kernels/motion_ref.py`) give the same samples on every machine.

Parameters in the header, besides those of all videos: "w" = digest of the prior (8 bytes).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import torch

from ...kernels import fit, motion
from ...kernels.errors import BitstreamError
from ..codec import Packet
from ..image import fit_parameters
from . import fit_order, fit_prior, fit_stream
from .fit_encoder import GroupFit
from .fit_order import MOST_SEGMENT
from .fit_prior import PRESETS
from .fit_state import Plane
from .frames import Planes, VideoFormat, psnr_db
from .gop_times import read_times
from .gops import Coded, GopCodec, parse_header

STEPS = (60, 100, 150, 250, 400, 700, 1200, 2000, 3500, 7000)  # of a frame in the mean, by effort
_LOW, _HIGH = 0.001, 0.3  # lmbda of quality 0 and 100
_AGAIN = 0.4  # of the steps in further tries at a group

# (share of the group of pictures that is done, its bits per pixel and PSNR in dB as estimated)
Progress = Callable[[float, float, float], None]


@dataclass(frozen=True)
class Kept:
    """What further tries and the next group of pictures go on from: parameters by kind."""

    params: dict[int, Any]


class Fit(GopCodec):
    """Videos of 8 to 10 bits, grey or 4:2:0.

    Takes Rate quality (0 to 100), bpp, kbps, ratio, max_bytes and psnr; without a rate quality 50.
    """

    name = "video/fit"

    def __init__(
        self,
        effort: int = 4,
        preset: str = "default",
        gop: int | None = None,
        segment: int = 8,
        low_delay: bool = False,
        bits: int | None = None,
        frame_rate: float | Fraction | None = None,
        keep_going: bool = False,
        threads: int | None = None,
        progress: Progress | None = None,
        weights: str | Path | None = None,
    ) -> None:
        """Set how to encode; decoding needs none of it but `threads`, and `weights` of your own.

        Args:
            effort: 0 to 9: how long to fit.
            preset: size of the networks: "fast", "default" or "best".
            gop: the most frames of a group of pictures; None is 32.
            segment: frames from one anchor to the next (`fit_order`).
            low_delay: code frames in the order shown, each from those before it.
            bits: of the samples of clips in int16; None is 10.
            frame_rate: of clips, for a rate in kbps.
            keep_going: decode what is whole of a damaged video.
            threads: to compute with; None is torch's number.
            progress: is told how the fit of a group goes on.
            weights: a prior file; None is the one that ships.
        """
        super().__init__(gop, bits, frame_rate, keep_going)
        if preset not in PRESETS:
            raise ValueError(f"preset is {preset!r}, expected one of {', '.join(PRESETS)}")
        if type(effort) is not int or not 0 <= effort < len(STEPS):
            raise ValueError(f"effort is {effort!r}, expected 0 to {len(STEPS) - 1}")
        if type(segment) is not int or not 1 <= segment <= MOST_SEGMENT:
            raise ValueError(f"segment is {segment!r}, expected 1 to {MOST_SEGMENT} frames")
        self.effort, self.preset = effort, preset
        self.segment = 1 if low_delay else segment
        self.threads = threads or torch.get_num_threads()
        self.progress = progress
        self.path = Path(weights) if weights else fit_prior.SHIPPED

    def header_fields(self, format: VideoFormat) -> dict[str, Any]:
        """See GopCodec."""
        return {"w": fit_prior.load(self.path).digest}

    def encode_gop(
        self,
        gop: list[Planes],
        format: VideoFormat,
        quality: float,
        before: Coded | None = None,
        near: Coded | None = None,
    ) -> Coded:
        """See GopCodec; goes on from the networks of an earlier try."""
        lmbda = _LOW * (_HIGH / _LOW) ** (quality / 100)
        priors = fit_prior.load(self.path)
        group = GroupFit(
            [[plane.numpy() for plane in planes] for planes in gop],
            format,
            fit_order.usual(len(gop), self.segment),
            priors.kinds(self.preset, format.colours, priors.nearest_rate(lmbda)),
            lmbda,
            threads=self.threads,
            start=near.kept.params if near else None,
        )
        found = group.run(STEPS[self.effort] * (_AGAIN if near else 1), self._tell(format))
        shown = {frame.slot.index: frame.decoded for frame in group.frames}
        total = sum(
            psnr_db(planes, tuple(map(torch.from_numpy, shown[n])), format.bits)
            for n, planes in enumerate(gop)
        )
        payload = fit_stream.write(found, self.threads)
        return Coded(payload, total / len(gop), Kept(group.params))

    def _tell(self, format: VideoFormat) -> Progress | None:
        if self.progress is None:
            return None
        pixels, tell = format.width * format.height, self.progress
        return lambda share, bits, psnr: tell(share, bits / pixels, psnr)

    def decode_gop(
        self, header: dict[str, Any], payload: memoryview, format: VideoFormat, count: int
    ) -> Iterator[Planes]:
        """See GopCodec.

        Raises:
            ValueError: the stream was made with another prior than those that are there.
        """
        if format.bits not in self.depths:
            raise BitstreamError(f"header field b is {format.bits}, expected 8 to 10")
        opened = fit_stream.Opened(self._priors(header), payload, format, count)
        synthesis = {
            kind: fit_parameters.synthesis(opened.priors[kind], coded)
            for kind, coded in opened.coded.items()
        }
        uses = fit_order.last_uses(opened.order)
        held: dict[int, list[Plane]] = {}
        shown = 0
        for position, (slot, picture) in enumerate(
            zip(opened.order, opened.pictures(), strict=True)
        ):
            prediction: list[Any] = []
            if picture.field is not None:
                references = [held[index] for index in slot.references]
                prediction = motion.warp(references, picture.field, format.bits)
            held[slot.index] = fit.synthesise_frame(
                synthesis[slot.kind], picture.grids, format.height, format.width, format.bits,
                prediction, threads=self.threads,
            )  # fmt: skip
            while shown in held:
                yield tuple(torch.from_numpy(plane.copy()) for plane in held[shown])
                shown += 1
            for index in [n for n in held if n < shown and uses[n] <= position]:
                del held[index]

    def describe(self, header: dict[str, Any], packet: Packet) -> dict[str, Any]:
        """See Codec: also preset, lmbda, and the bytes of networks, motion and latents."""
        found = super().describe(header, packet)
        if isinstance(packet.key, str):
            return found
        format, most = parse_header(header)
        times, payload = read_times(packet.body, most)
        opened = fit_stream.Opened(self._priors(header), payload, format, len(times.pts))
        return {**found, **fit_stream.describe(opened)}

    def _priors(self, header: dict[str, Any]) -> fit_prior.PriorFile:
        digest = header.get("w")
        if not isinstance(digest, bytes):
            raise BitstreamError(f"header field w is {digest!r}, expected a digest")
        return fit_prior.find(digest, self.path)


CODEC = Fit
