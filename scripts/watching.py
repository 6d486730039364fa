"""A clip through several codecs at one rate, and all of it as one page to watch.

The page carries the original and what was decoded as parts of one H.264 video, side by side in a
grid: so browsers show all of them in step without further ado.
"""

from __future__ import annotations

import base64
import io
import math
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, BinaryIO

import av
import click

from latentpack.codecs.codec import Rate
from latentpack.datasets.video_metrics import ClipQuality, Meter
from latentpack.datasets.video_peers import Coded
from latentpack.scripts.page import Kind, fill
from latentpack.scripts.video_carrier import Carrier, carried_db
from latentpack.scripts.video_clips import Clip, Untimed
from latentpack.scripts.video_codecs import VideoCodec, bytes_asked, open_codecs

CODECS = "video/lite,x264,svt-av1"  # where none are named
MOST_SECONDS = 60.0  # of a clip on the page
_SECONDS = 10.0
_FAR, _FAR_DB = 0.1, 0.5  # from what was asked for, from which it is said
_THUMBNAIL = 96  # pixels
_KBPS = 300.0
_COLUMNS = (
    ("bytes", "bytes", ","),
    ("kbps", "kbps", ".1f"),
    ("PSNR dB", "psnr_yuv", ".2f"),
    ("RGB dB", "psnr_rgb", ".2f"),
    ("MS-SSIM", "ms_ssim", ".4f"),
    ("encode fps", "encode_fps", ".1f"),
    ("decode fps", "decode_fps", ".1f"),
)


@dataclass(frozen=True)
class Made:
    """What one codec made of a clip, and the CPU seconds that it took."""

    codec: VideoCodec
    coded: Coded
    encode_s: float


@dataclass(frozen=True)
class Result:
    """The figures of one codec; speeds are frames for a second of one thread."""

    codec: str
    settings: str
    ours: bool
    bytes: int
    kbps: float
    bpp: float
    psnr_yuv: float
    psnr_rgb: float | None
    psnr_min: float
    ms_ssim: float | None
    yuv_by_frame: list[float]
    encode_fps: float
    decode_fps: float
    note: str | None


@dataclass(frozen=True)
class Watched:
    """A clip and what the codecs made of it, as the page wants them.

    Attributes:
        name: of its file.
        width: of a frame.
        height: of a frame.
        bytes: that its samples take.
        kbps: the same in 1000 bits a second.
        times: seconds from the first frame to each, and to the end.
        columns: of the grid in the video: the original first, then the results.
        tile_width: from one part of the grid to the next.
        tile_height: the same down.
        video: the whole file in base64.
        carried_db: PSNR of the original in it.
        thumbnail: a data URI.
        results: the fields of `Result`.
    """

    name: str
    width: int
    height: int
    bytes: int
    kbps: float
    times: list[float]
    columns: int
    tile_width: int
    tile_height: int
    video: str
    carried_db: float
    thumbnail: str
    results: list[dict[str, Any]]

    @property
    def about(self) -> str:
        """Its size and length."""
        return f"{self.width}x{self.height}, {len(self.times) - 1} frames, {self.times[-1]:.2f} s"


def videos(codecs: str | None, asked: dict[str, Any]) -> Kind:
    """Videos for `compare`.

    Args:
        codecs: names for `open_codecs`; None is a few.
        asked: options of the command line: start, seconds and the rate.

    Raises:
        ValueError: a codec or an option is wrong.
    """
    start, seconds = asked.pop("start", 0.0), asked.pop("seconds", _SECONDS)
    if seconds > MOST_SECONDS:
        raise click.UsageError(
            f"--seconds must be {MOST_SECONDS:g} or less for videos, got {seconds:g}"
        )
    rate = _rate(asked)
    return Kind(
        open_codecs(codecs or CODECS),
        read=lambda file, name: read(file, name, start, seconds),
        run=lambda codec, clip: run(codec, clip, rate),
        item=lambda clip, made: watched(clip, made, rate),
        page=lambda items: page(items, rate),
        columns=_COLUMNS,
        asked=f" at {rate}",
    )


def _rate(asked: dict[str, Any]) -> Rate:
    if len(asked) > 1:
        raise click.UsageError(f"--{' and --'.join(asked)} exclude each other".replace("_", "-"))
    rate = Rate.of(**asked or {"kbps": _KBPS})
    if rate.name == "quality" and rate.value > 100:
        raise click.UsageError(f"--quality must be 0 to 100, got {rate.value:g}")
    return rate


def read(file: BinaryIO, name: str, start: float, seconds: float) -> Clip:
    """The part of a video file that is compared; raises ValueError where there is none."""
    path = Path(str(getattr(file, "name", "")))
    if not path.is_file():
        raise ValueError(f"{name}: videos are read more than once; save it in a file first")
    most = max(1, math.ceil(seconds * Clip(path).frame_rate))
    clip = Clip(path, most, start)
    _ = clip.length  # where there are no frames this is told now, and not by each codec
    return clip


def run(codec: VideoCodec, clip: Clip, rate: Rate) -> Made:
    """Encode a clip; the rate is met as nearly as the codec can."""
    began = time.process_time()
    coded = codec.meet(clip, rate)
    return Made(codec, coded, time.process_time() - began)


def watched(clip: Clip, made: Sequence[Made], rate: Rate) -> Watched:
    """Decode what all codecs made of a clip, frame by frame, and put it into the page's form."""
    carrier = Carrier(clip, 1 + len(made))
    meters = [Meter(clip.colours) for _ in made]
    decoded = [Untimed(one.codec.decode(one.coded.data, clip)) for one in made]
    pts: list[int] = []
    for frame, *versions in zip(clip, *decoded, strict=True):
        for meter, planes in zip(meters, versions, strict=True):
            meter.add(frame.planes, planes)
        pts.append(frame.pts)
        carrier.write([frame.planes, *versions], frame.pts - pts[0])
    video = carrier.close()
    length = clip.length
    samples = clip.format.bytes * length.frames
    results = [
        _result(clip, one, meter.clip(), items.seconds, rate)
        for one, meter, items in zip(made, meters, decoded, strict=True)
    ]
    return Watched(
        clip.path.name,
        clip.format.width,
        clip.format.height,
        samples,
        _kbps(samples, clip),
        [*(float((at - pts[0]) * clip.time_base) for at in pts), length.seconds or 0.0],
        carrier.columns,
        carrier.tile_width,
        carrier.tile_height,
        base64.b64encode(video).decode("ascii"),
        carried_db(video, clip),
        _thumbnail(video, clip),
        [asdict(result) for result in results],
    )


def _kbps(size: int, clip: Clip) -> float:
    return size * 0.008 / max(1e-9, clip.length.seconds or 0.0)


def _result(clip: Clip, made: Made, found: ClipQuality, decode_s: float, rate: Rate) -> Result:
    size, frames = len(made.coded.data), found.frames
    return Result(
        made.codec.name,
        f"{made.codec.settings}; in {made.coded.container}",
        made.codec.ours,
        size,
        _kbps(size, clip),
        size * 8 / (clip.pixels * frames),
        found.psnr_yuv,
        found.psnr_rgb,
        min(found.yuv_by_frame),
        found.ms_ssim,
        [round(value, 3) for value in found.yuv_by_frame],
        frames / max(1e-9, made.encode_s),
        frames / max(1e-9, decode_s),
        _far(rate, size, found.psnr_yuv, clip),
    )


def _far(rate: Rate, size: int, psnr: float, clip: Clip) -> str | None:
    """Where the target was missed by so much that the clips can't be compared."""
    if rate.name == "psnr":
        return f"{psnr - rate.value:+.1f} dB" if abs(psnr - rate.value) > _FAR_DB else None
    if rate.name == "quality":
        return None
    asked = bytes_asked(clip, rate)
    if rate.name == "max_bytes" and size <= asked:
        return None
    return f"{size / asked - 1:+.0%} bytes" if abs(size - asked) > _FAR * asked else None


def _thumbnail(video: bytes, clip: Clip) -> str:
    with av.open(io.BytesIO(video), "r") as container:
        frame: Any = next(container.decode(video=0))
    picture = frame.to_image()
    picture = picture.crop((0, 0, clip.format.width, clip.format.height))
    picture.thumbnail((_THUMBNAIL, _THUMBNAIL))
    file = io.BytesIO()
    picture.save(file, "JPEG", quality=80)
    return f"data:image/jpeg;base64,{base64.b64encode(file.getvalue()).decode('ascii')}"


def page(clips: list[Watched], rate: Rate) -> bytes:
    """The page: one HTML file that needs no other."""
    data = {
        "asked": _asked(rate),
        "kind": rate.name,
        "clips": [asdict(clip) for clip in clips],
    }
    names = [clip.name for clip in clips]
    return fill("watching", ["stage", "watching"], names, data, ["stage", "transport"])


def _asked(rate: Rate) -> str:
    if rate.name == "quality":
        return f"quality {rate.value:g} of each codec's own scale"
    if rate.name == "max_bytes":
        return f"{rate.value:,} bytes at most"
    units = {"psnr": "dB", "bpp": "bits per pixel", "kbps": "kbps"}
    return f"{rate.value:g} {units[rate.name]}"
