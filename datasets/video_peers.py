"""The video codecs that ours stand beside, as PyAV has them: FFmpeg's encoders and decoders.

    x264        preset medium
    x264-ld     the same in low delay: no B frames, no look-ahead (tune zerolatency)
    x265        preset medium
    x265-ld     the same in low delay
    svt-av1     preset 6, its tuning for PSNR
    svt-av1-ld  the same with frames in order of time (pred-struct 1)
    vp9         libvpx, good, cpu-used 2

`x264@preset=veryslow,tune=psnr` sets the options of `Settings`. All work with a constant rate
factor and one thread. A group of pictures is as long as it is told, closed, and starts with the
only key frame in it, as ours do. x264 and x265 are tuned for the eye as they come; tune=psnr takes
5 to 7 % less at equal PSNR.

Sizes are those of real files: the coded frames are put into Matroska and into MP4, and the smaller
one counts. Beside it stands what they take without a container. The text about its settings that
x264 and x265 write into streams (some 700 bytes), and the names of the programs in the
containers, are left out.
"""

from __future__ import annotations

import io
import os
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Any

import av
import torch
from av.bitstream import BitStreamFilterContext
from torch import Tensor

from .video_frames import frame_of, layout_of, pixel_format, planes_of

_CONTAINERS = ("matroska", "mp4")
_WITHOUT_TEXT = "filter_units=remove_types=6"  # H.264's supplemental information


@dataclass(frozen=True)
class Settings:
    """What can be set of an encoder beside its quality.

    Attributes:
        preset: the encoder's own name of a speed.
        tune: the encoder's own name of a measure; None is its default.
    """

    preset: str
    tune: str | None = None


@dataclass(frozen=True)
class Shape:
    """What goes into an encoder.

    Attributes:
        width: pixels.
        height: pixels.
        bits: of a sample, 8 or 10.
        time_base: seconds of a unit of pts.
        frame_rate: frames in a second, about.
        gop: frames from one key frame to the next.
    """

    width: int
    height: int
    bits: int
    time_base: Fraction
    frame_rate: Fraction
    gop: int

    @property
    def pixels(self) -> str:
        """FFmpeg's name of the format."""
        return pixel_format(self.bits, 3)

    @property
    def even(self) -> tuple[int, int]:
        """Height and width that encoders take."""
        return self.height + self.height % 2, self.width + self.width % 2


@dataclass(frozen=True)
class Coded:
    """An encoded clip.

    Attributes:
        data: the whole file.
        container: of the two, the one that is smaller.
        bare_bytes: of its packets and parameter sets, without a container.
    """

    data: bytes
    container: str
    bare_bytes: int


Options = Callable[[Settings, float, int, bool], dict[str, str]]


@dataclass(frozen=True)
class VideoCoder:
    """A video codec that writes files.

    Attributes:
        name: short, for tables, with its options after an @.
        codec: FFmpeg's name of the encoder.
        settings: of this one.
        low_delay: frames are coded in order of time, each when it comes.
        steps: rate factors of a curve, from small files to large ones.
        dial: all of them that are worth trying, from small files to large ones.
        options: (settings, rate factor, frames of a group, low delay) -> the encoder's options.
    """

    name: str
    codec: str
    settings: Settings
    low_delay: bool
    steps: tuple[float, ...]
    dial: tuple[float, ...]
    options: Options

    @property
    def about(self) -> str:
        """What is set, in words."""
        tune = f", tune {self.settings.tune}" if self.settings.tune else ""
        delay = ", low delay" if self.low_delay else ""
        return f"{self.codec}, preset {self.settings.preset}{tune}{delay}"

    def missing(self) -> str | None:
        """What must be installed for it to run; None where all is there."""
        return None if self.codec in av.codecs_available else f"an av with {self.codec}"

    def with_options(self, given: dict[str, str]) -> VideoCoder:
        """The same encoder with other settings, which its name says.

        Raises:
            ValueError: it has no such option.
        """
        known = vars(self.settings)
        for name in given:
            if name not in known:
                raise ValueError(f"{self.name} has no option {name!r}; it has {', '.join(known)}")
        texts = ",".join(f"{name}={value}" for name, value in given.items())
        name = f"{self.name}@{texts}" if texts else self.name
        return replace(self, name=name, settings=replace(self.settings, **given))

    def encode(self, frames: Iterable[Any], shape: Shape, step: float) -> Coded:
        """Encode a clip.

        Args:
            frames: with `planes` (tensors of Y, U, V or of grey) and `pts`, in order.
            shape: of all of them; odd sides are filled to even ones, grey gets flat colours.
            step: the rate factor.

        Raises:
            ValueError: the encoder refuses it.
        """
        try:
            data = self._encode(frames, shape, step)
        except av.error.FFmpegError as error:
            raise ValueError(f"{self.codec} does not take it: {error.strerror}") from None
        text = _WITHOUT_TEXT if self.codec == "libx264" else None
        files = {name: _put_into(name, data, text) for name in _CONTAINERS}
        smallest = min(files, key=lambda name: len(files[name]))
        return Coded(files[smallest], smallest, bare_bytes(files[smallest]))

    def _encode(self, frames: Iterable[Any], shape: Shape, step: float) -> bytes:
        os.environ.setdefault("SVT_LOG", "1")  # SVT-AV1 tells its errors only
        file = io.BytesIO()
        with av.open(file, "w", format="mp4") as container:
            given = self.options(self.settings, step, shape.gop, self.low_delay)
            stream: Any = container.add_stream(self.codec, shape.frame_rate, given)
            stream.height, stream.width = shape.even
            stream.pix_fmt = shape.pixels
            stream.time_base = stream.codec_context.time_base = shape.time_base
            stream.codec_context.thread_count = 1
            for frame in frames:
                container.mux(stream.encode(_to_av(frame, shape)))
            container.mux(stream.encode(None))
        return file.getvalue()

    def decode(self, data: bytes, shape: Shape) -> Iterator[tuple[Tensor, ...]]:
        """The frames of a whole file, as Y, U and V of the shape's size, in order."""
        with av.open(io.BytesIO(data), "r") as container:
            container.streams.video[0].thread_count = 1
            for frame in container.decode(video=0):
                yield _from_av(frame, shape)


def bare_bytes(data: bytes) -> int:
    """What the packets of a file and its parameter sets take."""
    with av.open(io.BytesIO(data), "r") as container:
        stream = container.streams.video[0]
        return len(stream.codec_context.extradata or b"") + sum(
            packet.size for packet in container.demux(stream)
        )


def _put_into(format: str, data: bytes, text: str | None) -> bytes:
    """The coded frames of a file in another container, through a filter if there is one."""
    file = io.BytesIO()
    plain = {"fflags": "bitexact"}  # without the program's name and version
    with av.open(io.BytesIO(data), "r") as source, av.open(
        file, "w", format=format, options=plain
    ) as target:  # fmt: skip
        stream = source.streams.video[0]
        copy = target.add_stream_from_template(stream, opaque=True)
        copy.metadata.clear()
        left = BitStreamFilterContext(text, stream, copy) if text else None
        for packet in source.demux(stream):
            if packet.size:
                for kept in left.filter(packet) if left else [packet]:
                    kept.stream = copy
                    target.mux(kept)
    return file.getvalue()


def _to_av(frame: Any, shape: Shape) -> Any:
    planes = tuple(frame.planes)
    if len(planes) == 1:
        half = (shape.height + 1) // 2, (shape.width + 1) // 2
        planes += (torch.full(half, 2 ** (shape.bits - 1), dtype=planes[0].dtype),) * 2
    made = frame_of(planes, shape.pixels, shape.even)
    made.pts, made.time_base = frame.pts, shape.time_base
    return made


def _from_av(frame: Any, shape: Shape) -> tuple[Tensor, ...]:
    y, u, v = planes_of(frame, layout_of(frame.format))
    half = (shape.height + 1) // 2, (shape.width + 1) // 2
    sizes = (shape.height, shape.width), half, half
    return tuple(x[:rows, :columns] for x, (rows, columns) in zip((y, u, v), sizes, strict=True))


def _x264(settings: Settings, step: float, gop: int, low_delay: bool) -> dict[str, str]:
    tunes = [settings.tune, "zerolatency" if low_delay else None]
    return {
        "preset": settings.preset,
        "tune": "+".join(tune for tune in tunes if tune),
        "crf": f"{step:g}",
        "x264-params": f"keyint={gop}:min-keyint={gop}:scenecut=0",
    }


def _x265(settings: Settings, step: float, gop: int, low_delay: bool) -> dict[str, str]:
    # What tune zerolatency sets: x265 takes one tune only.
    late = ":bframes=0:b-adapt=0:rc-lookahead=0:cutree=0" if low_delay else ""
    return {
        "preset": settings.preset,
        **({"tune": settings.tune} if settings.tune else {}),
        "x265-params": f"crf={step:g}:keyint={gop}:min-keyint={gop}:scenecut=0:open-gop=0"
        f":pools=none:frame-threads=1:log-level=none:info=0{late}",
    }


def _svt_av1(settings: Settings, step: float, gop: int, low_delay: bool) -> dict[str, str]:
    order = ":pred-struct=1" if low_delay else ""
    tune = settings.tune or "1"
    return {
        "preset": settings.preset,
        "crf": f"{step:g}",
        "svtav1-params": f"lp=1:tune={tune}:keyint={gop}:irefresh-type=2:scd=0{order}",
    }


def _vp9(settings: Settings, step: float, gop: int, low_delay: bool) -> dict[str, str]:
    return {
        "deadline": "good",
        "cpu-used": settings.preset,
        **({"tune": settings.tune} if settings.tune else {}),
        "crf": f"{step:g}",
        "b": "0",
        "g": f"{gop}",
        "keyint_min": f"{gop}",
        "threads": "1",
    }


_STEPS_26X = (38, 34, 30, 26, 22, 18)
_STEPS_AV1 = (60, 52, 44, 36, 28, 20)
_DIAL_26X = tuple(51 - i / 2 for i in range(103))
_DIAL_AV1 = tuple(range(63, 0, -1))


def _coder(name: str, codec: str, preset: str, low_delay: bool, options: Options) -> VideoCoder:
    of_26x = codec in ("libx264", "libx265")
    steps, dial = (_STEPS_26X, _DIAL_26X) if of_26x else (_STEPS_AV1, _DIAL_AV1)
    return VideoCoder(name, codec, Settings(preset), low_delay, steps, dial, options)


PEERS = {
    coder.name: coder
    for coder in (
        _coder("x264", "libx264", "medium", False, _x264),
        _coder("x264-ld", "libx264", "medium", True, _x264),
        _coder("x265", "libx265", "medium", False, _x265),
        _coder("x265-ld", "libx265", "medium", True, _x265),
        _coder("svt-av1", "libsvtav1", "6", False, _svt_av1),
        _coder("svt-av1-ld", "libsvtav1", "6", True, _svt_av1),
        _coder("vp9", "libvpx-vp9", "2", False, _vp9),
    )
}
