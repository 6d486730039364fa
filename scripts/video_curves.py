"""Rate-distortion curves of video codecs over a set of clips, and their comparison.

Rates are whole files with their container and without sound; beside them stand BD-rates of what
the packets alone take, as containers weigh on short clips. Qualities are those of
`video_metrics.py`. Times are CPU seconds of one thread, without what reading the clip takes.
BD-rates are taken clip by clip, by piecewise cubic interpolation of the log rate, and averaged, as
standard bodies do; curves that are drawn are means over the clips.
"""

from __future__ import annotations

import functools
import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from latentpack.datasets.metrics import bd_rate_percent
from latentpack.datasets.video_metrics import Meter, mean
from latentpack.scripts import measuring
from latentpack.scripts.bench import hardware
from latentpack.scripts.main import describe
from latentpack.scripts.measuring import Key, Results, Task
from latentpack.scripts.video_clips import Clip, Untimed
from latentpack.scripts.video_codecs import GOP, VideoCodec, open_by_name

CODECS = "video/lite,x264,x264-ld,x265,x265-ld,svt-av1,svt-av1-ld"  # where none are named
ANCHOR = "x265"
STRETCHES = 8  # of time, in the table of drift


@dataclass(frozen=True)
class Measures:
    """How to measure.

    Attributes:
        frames: the most of a clip; None is all.
        size: (width, height) that clips are scaled to; None is their own.
        gop: frames of a group of pictures.
        ms_ssim: measure it.
    """

    frames: int | None = None
    size: tuple[int, int] | None = None
    gop: int = GOP
    ms_ssim: bool = True

    def __str__(self) -> str:
        """What a result must agree in to be of use again."""
        frames = "all frames" if self.frames is None else f"{self.frames} frames at most"
        size = f", as {self.size[0]}x{self.size[1]}" if self.size else ""
        return f"{frames}{size}{'' if self.ms_ssim else ', without MS-SSIM'}"

    def clip(self, path: Path) -> Clip:
        """What is measured of a file."""
        return Clip(path, self.frames, size=self.size)


@dataclass(frozen=True)
class Curve:
    """A video codec with the steps of its curve; see `measuring.Curve`."""

    name: str
    settings: str
    ours: bool
    steps: tuple[float, ...]


def curves(codecs: Sequence[VideoCodec], measures: Measures) -> list[Curve]:
    """What `measuring.plan` takes."""
    return [Curve(c.name, f"{c.settings}; {measures}", c.ours, c.steps) for c in codecs]


@dataclass(frozen=True)
class Result:
    """One clip at one step of one codec.

    Attributes:
        clip: name of its file.
        digest: of its file's bytes.
        pixels: of a frame.
        seconds: that it lasts.
        codec: as it was asked for, with its options.
        settings: of the codec, with the weights, and how it was measured.
        step: of the codec's curve.
        bytes: of the coded file.
        container: of the coded file.
        bare_bytes: of its packets.
        encode_s: CPU seconds.
        decode_s: CPU seconds.
        quality: the fields of `video_metrics.ClipQuality`.
    """

    clip: str
    digest: str
    pixels: int
    seconds: float
    codec: str
    settings: str
    step: float | None
    bytes: int
    container: str
    bare_bytes: int
    encode_s: float
    decode_s: float
    quality: dict[str, Any]

    @property
    def key(self) -> Key:
        """By what the result is found again: other weights or another clip are others."""
        return self.digest, self.codec, self.settings, self.step

    @property
    def frames(self) -> int:
        """How many were coded."""
        count: int = self.quality["frames"]
        return count

    @property
    def bpp(self) -> float:
        """Bits of the file to a pixel."""
        return self.bytes * 8 / (self.pixels * self.frames)


@dataclass(frozen=True)
class Point:
    """One step of one codec, mean over the clips; kbps is of the file, speeds are of one thread.

    `by_time` is the YUV PSNR in dB over stretches of equal length, from the start of the clips to
    their end, and `drift_db` how much it moves, mean over the clips.
    """

    step: float | None
    bpp: float
    kbps: float
    psnr_yuv: float
    psnr_y: float
    psnr_rgb: float | None
    ms_ssim: float | None
    change: float | None
    drift_db: float | None
    by_time: list[float]
    encode_fps: float
    decode_fps: float
    encode_mpx_per_s: float
    decode_mpx_per_s: float


@dataclass(frozen=True)
class Row:
    """A codec's curve on a set of clips. BD-rates are in percent against the anchor.

    Attributes:
        codec: its name.
        case: name of the set.
        settings: of the codec.
        ours: one of latentpack's.
        container: of its files.
        anchor: what BD-rates are against.
        bd_rate: at equal YUV PSNR, mean over the clips; None where curves don't meet.
        bd_rate_rgb: at equal PSNR of RGB.
        bd_rate_ms_ssim: at equal MS-SSIM of luma.
        bd_rate_bare: at equal YUV PSNR, of the packets alone.
        by_clip: `bd_rate` of each clip.
        points: from small files to large ones.
        clips: what the points are means of.
    """

    codec: str
    case: str
    settings: str
    ours: bool
    container: str
    anchor: str
    bd_rate: float | None
    bd_rate_rgb: float | None
    bd_rate_ms_ssim: float | None
    bd_rate_bare: float | None
    by_clip: dict[str, float | None]
    points: list[Point]
    clips: list[Result]


def measure(
    tasks: Sequence[Task], results: Results[Result], measures: Measures, jobs: int = 1
) -> Iterator[Task]:
    """Do the tasks of `measuring.plan` that have no result yet; see `measuring.measure`."""
    return measuring.measure(tasks, results, functools.partial(run, measures=measures), jobs)


_codec = functools.cache(open_by_name)


@functools.lru_cache(maxsize=1)
def _clip(path: Path, measures: Measures) -> Clip:
    return measures.clip(path)


def run(task: Task, measures: Measures) -> Result:
    """Code one clip once; also called in other processes.

    Raises:
        ValueError: the codec can't code this clip.
    """
    torch.set_num_threads(1)
    clip, codec = _clip(task.file, measures), _codec(task.codec, measures.gop)
    try:
        source = Untimed(clip)
        began = time.process_time()
        coded = codec.encode(clip, source, task.step or 0.0)
        encode_s = time.process_time() - began - source.seconds
        decoded = Untimed(codec.decode(coded.data, clip))
        meter = Meter(clip.colours, measures.ms_ssim)
        for frame, planes in zip(clip, decoded, strict=True):
            meter.add(frame.planes, planes)
    except (ValueError, OSError, RuntimeError) as error:
        raise ValueError(f"{task.file}: {task.codec}: {describe(error)}") from None
    return Result(
        task.file.name,
        task.digest,
        clip.pixels,
        clip.length.seconds or 0.0,
        task.codec,
        task.settings,
        task.step,
        len(coded.data),
        coded.container,
        coded.bare_bytes,
        encode_s,
        decoded.seconds,
        asdict(meter.clip()),
    )


def compare(
    codecs: Sequence[Curve],
    tasks: Sequence[Task],
    results: Results[Result],
    case: str,
    anchor: str = ANCHOR,
) -> list[Row]:
    """The curves of all codecs, and their BD-rates against one of them, from small to large."""
    of_codec: dict[str, list[Result]] = {codec.name: [] for codec in codecs}
    for task in tasks:
        of_codec[task.codec].append(results[task.key])
    rows = [_row(codec, case, anchor, of_codec[anchor], of_codec[codec.name]) for codec in codecs]
    return sorted(rows, key=lambda row: math.inf if row.bd_rate is None else row.bd_rate)


def _row(codec: Curve, case: str, anchor: str, anchors: list[Result], results: list[Result]) -> Row:
    by_clip = _bd_rates(anchors, results, "psnr_yuv")
    return Row(
        codec.name,
        case,
        codec.settings,
        codec.ours,
        "/".join(sorted({result.container for result in results})),
        anchor,
        mean(list(by_clip.values())),
        mean(list(_bd_rates(anchors, results, "psnr_rgb").values())),
        mean(list(_bd_rates(anchors, results, "ms_ssim").values())),
        mean(list(_bd_rates(anchors, results, "psnr_yuv", bare=True).values())),
        by_clip,
        _points(results),
        results,
    )


def _bd_rates(
    anchors: list[Result], results: list[Result], quality: str, bare: bool = False
) -> dict[str, float | None]:
    """BD-rate of each clip, None where it can't be said."""
    found = {}
    for clip in dict.fromkeys(result.clip for result in results):
        anchor, tested = (
            [
                (float(result.bare_bytes if bare else result.bytes), value)
                for result in side
                if result.clip == clip and (value := _scaled(result, quality)) is not None
            ]
            for side in (anchors, results)
        )
        found[clip] = _bd_rate(anchor, tested)
    return found


def _scaled(result: Result, quality: str) -> float | None:
    value: float | None = result.quality[quality]
    return ms_ssim_db(value) if quality == "ms_ssim" else value


def ms_ssim_db(value: float | None) -> float | None:
    """MS-SSIM on a scale on which curves are nearly straight."""
    return None if value is None else -10 * math.log10(max(1 - value, 1e-9))


def _bd_rate(anchor: list[tuple[float, float]], tested: list[tuple[float, float]]) -> float | None:
    if min(len({value for _, value in curve}) for curve in (anchor, tested)) < 2:
        return None
    percent = bd_rate_percent(anchor, tested)
    return None if math.isnan(percent) else percent


def _points(results: list[Result]) -> list[Point]:
    """The points of a curve, from small files to large ones."""
    of_step: dict[float | None, list[Result]] = {}
    for result in results:
        of_step.setdefault(result.step, []).append(result)
    return sorted(map(_point, of_step.values()), key=lambda point: point.bpp)


def _point(results: list[Result]) -> Point:
    frames = sum(result.frames for result in results)
    megapixels = sum(result.pixels * result.frames for result in results) / 1e6
    encode_s, decode_s = (
        max(1e-9, math.fsum(getattr(result, name) for result in results))
        for name in ("encode_s", "decode_s")
    )

    def of(name: str) -> float | None:
        return mean([result.quality[name] for result in results])

    def over(value: Callable[[Result], float | None]) -> float | None:
        return mean([value(result) for result in results])

    return Point(
        results[0].step,
        over(lambda result: result.bpp) or 0.0,
        over(lambda result: result.bytes * 0.008 / result.seconds) or 0.0,
        of("psnr_yuv") or 0.0,
        of("psnr_y") or 0.0,
        of("psnr_rgb"),
        of("ms_ssim"),
        of("change"),
        of("drift_db"),
        _by_time([result.quality["yuv_by_frame"] for result in results]),
        frames / encode_s,
        frames / decode_s,
        megapixels / encode_s,
        megapixels / decode_s,
    )


def _by_time(clips: list[list[float]]) -> list[float]:
    """Means over stretches of equal length; of fewer where the shortest clip has fewer frames."""
    count = min(STRETCHES, *map(len, clips))
    borders = [[len(clip) * i // count for i in range(count + 1)] for clip in clips]
    return [
        math.fsum(
            math.fsum(clip[at[i] : at[i + 1]]) / (at[i + 1] - at[i])
            for clip, at in zip(clips, borders, strict=True)
        )
        / len(clips)
        for i in range(count)
    ]


def as_json(rows: list[Row]) -> dict[str, Any]:
    """The result for machines."""
    return {"hardware": hardware(), "rows": [asdict(row) for row in rows]}
