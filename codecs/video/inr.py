"""`video/inr`: clips and tensors as networks that draw them, fitted to each group of pictures.

    frames -> inr_signal (packed) -> inr_fit (R + lmbda D) -> weights, grids of real numbers
           -> inr_integers (steps, rows of tables) -> inr_stream -> payload, one for each GoP

    payload -> integers, all of the GoP -> inr_networks, only the frames asked for -> planes

Drawing and papers of the networks: `inr_networks.py`; bytes: `inr_stream.py`. The parse is in
integers and the same everywhere; pixels are computed in floating point and may differ by 1.

A GoP may be coded as differences of weights from those of an earlier one, the last that is whole by
itself (NIRVANA, arXiv:2212.14593, has the idea); `Inr.needs` says which.

Parameters in the header: those of all videos (FORMAT.md, section 23), and "t", the sort of numbers,
for tensors.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor

from ...kernels.errors import BitstreamError
from ..codec import Packet, Rate
from . import inr_integers, inr_signal, inr_stream
from .frames import Clip, Frame, Length, Planes, VideoFormat, clip_of, psnr_db
from .gop_times import MOST_FRAMES, Times, read_times
from .gops import Coded, GopCodec, parse_header
from .inr_drawing import Drawing
from .inr_fit import Plan, Progress, optimise
from .inr_layouts import layout_for
from .inr_networks import ARCHS, Layout
from .inr_signal import TensorFormat
from .inr_state import State
from .inr_stream import Grids, Networks, Opened

_LOW, _HIGH = 0.001, 0.2  # lmbda of quality 0 and 100
_PASSES = (8, 16, 30, 60, 100, 160, 300, 600, 1200, 2400)  # over the frames, by effort
_AGAIN = 0.4  # of them, where a fit goes on from another
_WANTED = "wanted"  # field that is put into a header on its way to `decode_gop`
_MOST_CHAIN = 1 << 16
_MOST_DB = 100.0


@dataclass(frozen=True)
class Whole:
    """Networks that are whole by themselves, and that later ones are differences from.

    Attributes:
        number: of the GoP.
        id: of the stream.
        weights: float32 [weights].
    """

    number: int
    id: int
    weights: Tensor


@dataclass(frozen=True)
class Kept:
    """What a GoP leaves for the next, and for further tries.

    Attributes:
        number: of the GoP.
        state: of the fit.
        layout: of its networks.
        whole: the last networks that are whole.
    """

    number: int
    state: State
    layout: Layout
    whole: Whole


@dataclass
class _Wanted:
    """What `decode_gop` is to do, and knows from GoPs before.

    Attributes:
        start: frames shown before are not drawn.
        stop: nor are those shown at this time or later.
        whole: the last payload whose networks are whole by themselves.
        frames: of the GoP, those that are drawn; None is all.
    """

    start: int | None
    stop: int | None
    whole: memoryview | None = None
    frames: list[int] | None = None


class Inr(GopCodec):
    """Clips (frames.py says what they are), or tensors [T, C, H, W], C 1 to 4.

    Tensors are uint8, or floats of 0 to 1; what is decoded is uint8 or float32. Takes Rate quality
    (0 to 100), bpp, kbps, ratio, max_bytes and psnr; without a rate quality 50.
    """

    name = "video/inr"
    usual_gop: ClassVar[int] = 128
    depths: ClassVar[range] = range(8, 16)

    def __init__(
        self,
        effort: int = 5,
        arch: str = "boosted",
        parameters: int | None = None,
        learned_steps: bool = True,
        chain: int = 1,
        time_budget: float | None = None,
        resume: str | Path | None = None,
        scale: int = 1,
        progress: Progress | None = None,
        gop: int | None = None,
        bits: int | None = None,
        frame_rate: float | Fraction | None = None,
        keep_going: bool = False,
    ) -> None:
        """Set how to encode; decoding needs none of it but `scale` and `keep_going`.

        Args:
            effort: 0 to 9: how long to fit.
            arch: "boosted", "hnerv" or "nerv".
            parameters: about how many weights the networks shall have; None is what suits a GoP.
            learned_steps: let bits count in the fit. Otherwise the size follows from `parameters`
                alone: weights and embeddings are rounded to 256 steps after the fit, the recipe
                of HNeRV.
            chain: GoPs, at most, whose weights are differences from those of the first of them.
                Such GoPs can't be decoded without it.
            time_budget: seconds to fit each GoP for, rather than what the effort says.
            resume: a checkpoint of the first GoP, which is kept up to date, and gone on from where
                it is there; GoP n has one with ".n" behind its name.
            scale: decode at 1 / scale of width and height: 1, 2, 4, ... as far as "boosted" goes.
            progress: is told how a fit goes on.
            gop: the most frames of a GoP; None is 128.
            bits: of the samples of clips in int16; None is 10.
            frame_rate: of clips, for a rate in kbps.
            keep_going: decode what is whole of a damaged video.
        """
        super().__init__(gop, bits, frame_rate, keep_going)
        if type(effort) is not int or not 0 <= effort < len(_PASSES):
            raise ValueError(f"effort is {effort!r}, expected 0 to {len(_PASSES) - 1}")
        if arch not in ARCHS:
            raise ValueError(f"arch is {arch!r}, expected one of {', '.join(ARCHS)}")
        if type(chain) is not int or not 1 <= chain <= _MOST_CHAIN:
            raise ValueError(f"chain is {chain!r}, expected 1 to {_MOST_CHAIN} GoPs")
        if time_budget is not None and not time_budget > 0:
            raise ValueError(f"time_budget is {time_budget!r}, expected seconds above 0")
        if type(scale) is not int or scale < 1 or scale & (scale - 1):
            raise ValueError(f"scale is {scale!r}, expected 1, 2, 4, ...")
        if parameters is not None and parameters < 1:
            raise ValueError(f"parameters is {parameters!r}, expected 1 or more")
        self.effort, self.arch, self.parameters = effort, arch, parameters
        self.learned_steps, self.chain, self.time_budget = learned_steps, chain, time_budget
        self.checkpoint = Path(resume) if resume else None
        self.level, self.progress = scale.bit_length() - 1, progress
        self.clock = time.monotonic  # of the time budget

    def header(self, signal: Clip | Tensor | VideoFormat) -> dict[str, Any]:
        """See Codec. The signal is a clip, a tensor, or the format of frames that are to come."""
        if isinstance(signal, Tensor):
            signal = inr_signal.tensor_format(signal)
        return super().header(signal)

    @classmethod
    def read_format(cls, header: dict[str, Any]) -> VideoFormat:
        """See GopCodec."""
        return inr_signal.parse_format(header)

    def encode(
        self, signal: Clip | Tensor, rate: Rate | None = None, reserve: int = 0
    ) -> Iterator[Packet]:
        """See Codec. The frames get the times 0, 1, 2, ..."""
        if not isinstance(signal, Tensor):
            return super().encode(signal, rate, reserve)
        format = inr_signal.tensor_format(signal)
        frames = (Frame(tuple(x.contiguous()), t, 1) for t, x in enumerate(signal))
        step = self.frame_rate and 1 / self.frame_rate
        length = Length(len(signal), None if step is None else float(len(signal) * step))
        return self.encode_frames(frames, format, rate, reserve, step, length)

    def encode_gop(
        self,
        gop: list[Planes],
        format: VideoFormat,
        quality: float,
        before: Coded | None = None,
        near: Coded | None = None,
    ) -> Coded:
        """See GopCodec."""
        last: Kept | None = before.kept if before else None
        start: Kept | None = near.kept if near else last
        number = last.number + 1 if last else 0
        target = inr_signal.pack(gop, format)
        size = inr_signal.packed_size(format)
        layout = (
            start.layout
            if start
            else layout_for(
                self.arch, inr_signal.outputs_of(format), size, len(gop), self.parameters
            )
        )
        base = last.whole if last and number - last.whole.number < self.chain else None
        state = optimise(
            target,
            layout,
            self._plan(quality, number, again=start is not None),
            None if base is None else base.weights,
            start.state if start else None,
        )
        networks = inr_integers.networks(state)
        grids = inr_integers.grids(state, target.x)
        stream = inr_stream.put_networks(layout, networks)
        origin = None if base is None else (number - base.number, base.id)
        payload = inr_stream.write(layout, stream, inr_stream.put_grids(layout, grids), origin)
        weights = inr_stream.weights_of(layout, networks, None if base is None else base.weights)
        drawing = Drawing(layout, weights, grids)
        shown = (inr_signal.unpack(drawing.frame(t), format) for t in range(len(gop)))
        psnr = sum(_psnr(a, b, format) for a, b in zip(gop, shown, strict=True)) / len(gop)
        whole = base or Whole(number, inr_stream.networks_id(stream), weights)
        return Coded(payload, psnr, Kept(number, state, layout, whole))

    def _plan(self, quality: float, number: int, again: bool) -> Plan:
        share = _AGAIN if again else 1.0
        path = self.checkpoint
        if path and number:
            path = path.with_name(f"{path.name}.{number}")
        return Plan(
            lmbda=_LOW * (_HIGH / _LOW) ** (quality / 100),
            passes=math.ceil(share * _PASSES[self.effort]),
            seconds=self.time_budget and share * self.time_budget,
            rated=self.learned_steps,
            checkpoint=path,
            progress=self.progress,
            clock=self.clock,
        )

    def decode(self, header: dict[str, Any], packets: Iterable[Packet]) -> Clip | Tensor:
        """See Codec. Returns a clip, or a tensor if it was one."""
        format = self.read_format(header)
        clip = clip_of(self.decode_frames(header, packets), format)
        return torch.stack(clip, 1) if isinstance(format, TensorFormat) else clip

    def decode_frames(
        self,
        header: dict[str, Any],
        packets: Iterable[Packet],
        start: int | None = None,
        stop: int | None = None,
    ) -> Iterator[Frame]:
        """See GopCodec; only frames of this time are drawn.

        Packets must begin with one that needs no other (`needs`).
        """
        wanted = _Wanted(start, stop)
        noted = self._note_networks(packets, wanted)
        return super().decode_frames({**header, _WANTED: wanted}, noted, start, stop)

    def _note_networks(self, packets: Iterable[Packet], wanted: _Wanted) -> Iterator[Packet]:
        """The packets; the last payload whose networks are whole is kept in `wanted`."""
        for packet in packets:
            if isinstance(packet.key, int):
                payload = read_times(packet.body, MOST_FRAMES)[1]
                if inr_stream.origin_of(payload) is None:
                    wanted.whole = payload
            yield packet

    def _frames(
        self, header: dict[str, Any], payload: memoryview, format: VideoFormat, times: Times
    ) -> Iterator[Frame]:
        wanted: _Wanted = header[_WANTED]
        wanted.frames = [
            t
            for t, pts in enumerate(times.pts)
            if (wanted.start is None or pts >= wanted.start)
            and (wanted.stop is None or pts < wanted.stop)
        ]
        drawn = self.decode_gop(header, payload, format, len(times.pts))
        for t, planes in zip(wanted.frames, drawn, strict=True):
            yield Frame(planes, times.pts[t], times.durations[t])

    def decode_gop(
        self, header: dict[str, Any], payload: memoryview, format: VideoFormat, count: int
    ) -> Iterator[Planes]:
        """See GopCodec.

        Raises:
            ValueError: the networks can't be drawn at the scale asked for.
        """
        wanted: _Wanted | None = header.get(_WANTED)
        opened = self._opened(payload, format)
        base = None
        if opened.origin is not None:
            base = self._base(opened, wanted.whole if wanted else None, format)
        networks = inr_stream.get_networks(opened.layout, opened.networks)
        grids = inr_stream.get_grids(opened.layout, opened.grids, count)
        self._check_scale(opened.layout)
        weights = inr_stream.weights_of(opened.layout, networks, base)
        drawing = Drawing(opened.layout, weights, grids)
        frames = wanted.frames if wanted and wanted.frames is not None else range(count)
        for t in frames:
            yield inr_signal.unpack(drawing.frame(t, self.level), format, self.level)

    def _opened(self, payload: memoryview, format: VideoFormat) -> Opened:
        outputs, size = inr_signal.outputs_of(format), inr_signal.packed_size(format)
        return inr_stream.read(payload, outputs, size)

    def _base(self, opened: Opened, whole: memoryview | None, format: VideoFormat) -> Tensor:
        """The weights that those of a GoP are differences from."""
        found = None if whole is None else self._opened(whole, format)
        stated = opened.origin.id if opened.origin else None
        if found is None or inr_stream.networks_id(found.networks) != stated:
            raise BitstreamError(
                "the networks before, which its weights are differences from, are not there; begin "
                "with the group of pictures that `needs` names"
            )
        if found.layout != opened.layout:
            raise BitstreamError("it has other networks than those that it is differences from")
        networks = inr_stream.get_networks(found.layout, found.networks)
        return inr_stream.weights_of(found.layout, networks, None)

    def _check_scale(self, layout: Layout) -> None:
        most = layout.levels if layout.arch == "boosted" else 0
        if self.level > most:
            raise ValueError(
                f"scale is {1 << self.level}, these networks ({layout.arch}) draw at 1 to "
                f"{1 << most}"
            )

    def needs(self, packet: Packet) -> str | int | None:
        """See Codec: the GoP whose networks this one's are differences from."""
        if not isinstance(packet.key, int):
            return None
        origin = inr_stream.origin_of(read_times(packet.body, MOST_FRAMES)[1])
        return None if origin is None else packet.key - origin.distance

    def verify(self, header: dict[str, Any], packet: Packet) -> None:
        """See Codec; all that is integers is parsed."""
        if isinstance(packet.key, str):
            return
        format, most = parse_header(header, self.read_format)
        times, payload = read_times(packet.body, most)
        self.parse(header, payload, format, len(times.pts))

    def parse(
        self, header: dict[str, Any], payload: memoryview, format: VideoFormat, count: int
    ) -> tuple[Networks, Grids]:
        """All integers of a GoP, without drawing anything."""
        opened = self._opened(payload, format)
        networks = inr_stream.get_networks(opened.layout, opened.networks)
        return networks, inr_stream.get_grids(opened.layout, opened.grids, count)

    def describe(self, header: dict[str, Any], packet: Packet) -> dict[str, Any]:
        """See Codec: besides what all videos say, the networks and their bytes."""
        found = super().describe(header, packet)
        if not found:
            return found
        payload = read_times(packet.body, MOST_FRAMES)[1]
        opened = self._opened(payload, self.read_format(header))
        return {
            **found,
            "arch": opened.layout.arch,
            "parameters": opened.layout.count,
            "network_bytes": len(opened.networks),
            "grid_bytes": len(opened.grids),
        }


CODEC = Inr


def _psnr(a: Planes, b: Planes, format: VideoFormat) -> float:
    """Of a frame in dB."""
    if not isinstance(format, TensorFormat):
        return psnr_db(a, b, format.bits)
    off = torch.stack(a).float() - torch.stack(b).float()
    peak = 1.0 if format.dtype.is_floating_point else 255.0
    return min(_MOST_DB, 10 * math.log10(peak**2 / max(float(off.square().mean()), 1e-12)))
