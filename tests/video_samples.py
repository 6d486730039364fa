"""Small video files made on the spot, and what comes out of reading them."""

from __future__ import annotations

import io
import itertools
from collections.abc import Iterable, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import torch
from torch import Tensor

from latentpack.datasets.video import VideoFrame, VideoReader, open_video
from latentpack.datasets.video_tracks import TrackPacket
from latentpack.datasets.video_writer import VideoWriter, WriterOptions

CONTAINER = Path(__file__).parents[2] / "shared" / "data" / "video" / "container"
open_av: Any = av.open
CLIPS = (
    "moviepy_fire2.mp4",
    "torchcodec_bt709_full_range.mp4",
    "torchcodec_h264_10bits.mp4",
    "torchcodec_h265_10bits.mp4",
    "torchcodec_nasa_13013.mp4",
)


class Pipe(io.BytesIO):
    """Bytes that come, or go, one after the other."""

    def seekable(self) -> bool:
        """No."""
        return False

    def seek(self, *_: Any) -> int:
        """Fail."""
        raise io.UnsupportedOperation("seek")

    def tell(self) -> int:
        """Fail."""
        raise io.UnsupportedOperation("tell")


def planes(number: int, width: int, height: int, bits: int = 8, colours: int = 3) -> Any:
    """A frame in which something moves, other than all frames before."""
    half = (height + 1) // 2, (width + 1) // 2
    dtype = torch.uint8 if bits == 8 else torch.int16
    found = []
    for i, (h, w) in enumerate([(height, width), half, half][:colours]):
        y, x = torch.arange(h)[:, None], torch.arange(w)
        found.append((((x + 3 * number) * (7 + i) + y * 5 + number) % (1 << bits)).to(dtype))
    return tuple(found)


def frames(
    count: int,
    width: int = 64,
    height: int = 48,
    bits: int = 8,
    colours: int = 3,
    pts: Sequence[int] | None = None,
) -> list[VideoFrame]:
    """Frames of one unit of time each, or at the times given."""
    times = list(range(count)) if pts is None else list(pts)
    steps = [b - a for a, b in itertools.pairwise(times)] or [1]
    return [
        VideoFrame(planes(i, width, height, bits, colours), t, d)
        for i, (t, d) in enumerate(zip(times, [*steps, steps[-1]], strict=False))
    ]


def sound(count: int, codec: str = "aac", rate: int = 48000) -> tuple[dict[str, Any], list[Any]]:
    """A track, and its packets as an encoder makes them, with the priming before time 0."""
    file = io.BytesIO()
    with open_av(file, "w", format="mp4" if codec == "aac" else "matroska") as container:
        stream = container.add_stream(codec, rate=rate, layout="stereo")
        stream.metadata["language"] = "fra"
        stream.codec_context.open(strict=False)
        size = stream.codec_context.frame_size or 1024
        wave = np.sin(np.arange(count * size) / 20) * 9000
        for i in range(count):
            x = np.repeat(wave[i * size : (i + 1) * size].astype(np.int16), 2)[None]
            frame = av.AudioFrame.from_ndarray(x, format="s16", layout="stereo")
            frame.sample_rate, frame.pts = rate, i * size
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    file.seek(0)
    from latentpack.datasets.video_tracks import describe, packet_of

    with open_av(file) as container:
        track = describe(container.streams[0])
        return track, [packet_of(p, 0) for p in container.demux() if p.size]


def write(
    items: Iterable[Any],
    format: str,
    target: Any = None,
    quality: Any = None,
    **described: Any,
) -> tuple[bytes, VideoWriter]:
    """A file of frames, and of packets between them; the first frame says what it is of."""
    items = list(items)
    first = next(item for item in items if isinstance(item, VideoFrame)).planes
    deep = described.pop("bits", 10)
    bits = 8 if first[0].dtype == torch.uint8 else deep
    target = io.BytesIO() if target is None else target
    height, width = first[0].shape
    options = WriterOptions(quality=quality, threads=1)
    with VideoWriter(
        target, format, width, height, bits, len(first), options=options, **described
    ) as writer:
        for item in items:
            if isinstance(item, VideoFrame):
                writer.write(item)
            else:
                writer.write_packet(item)
    return target.getvalue(), writer


def read(data: bytes, **options: Any) -> tuple[VideoReader, list[VideoFrame], list[Any]]:
    """The reader, closed, and what it gave."""
    span = options.pop("start", None), options.pop("end", None)
    with open_video(io.BytesIO(data), **options) as reader:
        items = list(reader.items(*span))
    shown = [item for item in items if isinstance(item, VideoFrame)]
    return reader, shown, [item for item in items if isinstance(item, TrackPacket)]


def same_planes(a: Sequence[VideoFrame], b: Sequence[VideoFrame]) -> bool:
    """Whether frames have the same samples."""
    return len(a) == len(b) and all(
        len(x.planes) == len(y.planes)
        and all(_equal(p, q) for p, q in zip(x.planes, y.planes, strict=True))
        for x, y in zip(a, b, strict=True)
    )


def _equal(a: Tensor, b: Tensor) -> bool:
    return a.dtype == b.dtype and torch.equal(a, b)


def times(shown: Iterable[VideoFrame], reader: VideoReader, base: Fraction) -> list[int]:
    """When frames are shown, in units of another time base."""
    return [round(frame.pts * reader.time_base / base) for frame in shown]


def plane_bytes(plane: Any) -> np.ndarray[Any, np.dtype[np.uint8]]:
    """The memory of a plane of PyAV, to be written to."""
    return np.frombuffer(plane, np.uint8)


def encoded(
    format: str,
    codec: str,
    count: int,
    pixels: str = "yuv420p",
    base: Fraction = Fraction(1, 25),
    size: tuple[int, int] = (64, 48),
    options: dict[str, str] | None = None,
    change: Any = None,
) -> bytes:
    """A file by FFmpeg alone; `change` is given the stream before it is begun."""
    file = io.BytesIO()
    with open_av(file, "w", format=format) as container:
        stream = container.add_stream(codec, rate=Fraction(25), options=options or {})
        context: Any = stream.codec_context
        context.width, context.height = size
        context.pix_fmt, context.time_base = pixels, base
        if change is not None:
            change(stream)
        for i in range(count):
            frame = av.VideoFrame(*size, "rgb24")
            x = plane_bytes(frame.planes[0])
            x[:] = (np.arange(x.size) * (i + 3) // 50 % 256).astype(np.uint8)
            frame = frame.reformat(format=pixels)
            frame.pts, frame.time_base = i, base
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return file.getvalue()
