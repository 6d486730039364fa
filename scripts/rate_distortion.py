"""Rate-distortion curves of picture codecs over a set of files, and their comparison.

Rates are whole files; PSNR and MS-SSIM are means over the pictures of the pictures' own values;
times are CPU seconds. Pictures are coded as RGB: grey is repeated, alpha left out. BD-rates are of
the averaged curves, by piecewise cubic interpolation of the log rate.
"""

import functools
import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from latentpack.datasets import kodak
from latentpack.datasets.images import read_image
from latentpack.datasets.metrics import bd_rate_percent, ms_ssim, psnr_db
from latentpack.scripts import measuring
from latentpack.scripts.bench import hardware
from latentpack.scripts.main import describe
from latentpack.scripts.measuring import Key, Results, Task
from latentpack.scripts.picture_codecs import PictureCodec, colours, open_by_name
from latentpack.scripts.pictures import bits_per_pixel

ANCHOR = "jpeg"


@dataclass(frozen=True)
class Result:
    """One picture at one setting of one codec.

    Attributes:
        picture: name of its file.
        digest: of its file's bytes.
        pixels: of the picture.
        codec: as it was asked for, with its options.
        settings: of the codec, with the weights.
        step: of the codec's curve.
        bytes: of the coded file.
        bpp: of the coded file.
        psnr_db: over RGB.
        ms_ssim: None where the picture is too small.
        encode_s: CPU seconds.
        decode_s: CPU seconds.
    """

    picture: str
    digest: str
    pixels: int
    codec: str
    settings: str
    step: float | None
    bytes: int
    bpp: float
    psnr_db: float
    ms_ssim: float | None
    encode_s: float
    decode_s: float

    @property
    def key(self) -> Key:
        """By what the result is found again: other weights or another picture are others."""
        return self.digest, self.codec, self.settings, self.step


@dataclass(frozen=True)
class Point:
    """One setting of one codec, averaged over the pictures; times are unknown of stored curves."""

    bpp: float
    psnr_db: float
    ms_ssim: float | None
    encode_s_per_mpx: float | None = None
    decode_s_per_mpx: float | None = None


@dataclass(frozen=True)
class Row:
    """A codec's curve on a set of pictures.

    Attributes:
        codec: its name.
        case: name of the set.
        settings: of the codec; of a stored curve, where it comes from.
        ours: one of latentpack's.
        stored: not measured in this run.
        drawn: plots have room for it.
        bd_rate_vs_jpeg: percent, at equal PSNR; None where it can't be said.
        bd_rate_ms_ssim_vs_jpeg: percent, at equal MS-SSIM.
        points: from small files to large ones.
        pictures: what the points are means of; none of a stored curve.
    """

    codec: str
    case: str
    settings: str
    ours: bool
    stored: bool
    drawn: bool
    bd_rate_vs_jpeg: float | None
    bd_rate_ms_ssim_vs_jpeg: float | None
    points: list[Point]
    pictures: list[Result]


def measure(tasks: Sequence[Task], results: Results[Result], jobs: int = 1) -> Iterator[Task]:
    """Do the tasks of `measuring.plan` that have no result yet; see `measuring.measure`."""
    return measuring.measure(tasks, results, _run, jobs)


_codec = functools.cache(open_by_name)


@functools.lru_cache(maxsize=1)
def _picture(file: Path) -> Tensor:
    return colours(read_image(file)[0])


def _run(task: Task) -> Result:
    """Code one picture once; also called in other processes."""
    torch.set_num_threads(1)
    x, codec = _picture(task.file), _codec(task.codec)
    try:
        started = time.process_time()
        data = codec.encode(x, task.step)
        encoded = time.process_time()
        x_hat = codec.decode(data)
        decoded = time.process_time()
    except (ValueError, OSError, RuntimeError) as error:
        raise ValueError(f"{task.file}: {task.codec}: {describe(error)}") from None
    return Result(
        task.file.name,
        task.digest,
        x[0].numel(),
        task.codec,
        task.settings,
        task.step,
        len(data),
        bits_per_pixel(len(data), x),
        psnr_db(x, x_hat),
        ms_ssim(x, x_hat),
        encoded - started,
        decoded - encoded,
    )


def compare(
    codecs: Sequence[PictureCodec], tasks: Sequence[Task], results: Results[Result], case: str
) -> list[Row]:
    """The curves of all codecs, and how they compare.

    Where the pictures are those of Kodak, stored curves of codecs that were not measured stand
    beside them; curves of other pictures could not be compared.
    """
    of_codec: dict[str, list[Result]] = {codec.name: [] for codec in codecs}
    for task in tasks:
        of_codec[task.codec].append(results[task.key])
    files = {task.digest: task.file for task in tasks}
    stored = kodak.curves() if kodak.is_kodak(list(files.values())) else []
    curves = {name: _means(found) for name, found in of_codec.items()}
    known = {curve.name: [Point(*point) for point in curve.points] for curve in stored}
    row = functools.partial(_row, case, curves.get(ANCHOR) or known.get(ANCHOR))
    rows = [
        row(codec.name, codec.settings, codec.ours, False, True, curves[codec.name],
            of_codec[codec.name])
        for codec in codecs
    ]  # fmt: skip
    return rows + [
        row(curve.name, curve.source, False, True, curve.drawn, known[curve.name], [])
        for curve in stored
        if curve.name not in curves
    ]


def _row(
    case: str,
    anchor: list[Point] | None,
    name: str,
    settings: str,
    ours: bool,
    stored: bool,
    drawn: bool,
    points: list[Point],
    pictures: list[Result],
) -> Row:
    psnr = _bd_rate(anchor, points, lambda point: point.psnr_db)
    similarity = _bd_rate(anchor, points, ms_ssim_db)
    return Row(name, case, settings, ours, stored, drawn, psnr, similarity, points, pictures)


def _means(results: list[Result]) -> list[Point]:
    """The points of a curve, from small files to large ones."""
    of_step: dict[float | None, list[Result]] = {}
    for result in results:
        of_step.setdefault(result.step, []).append(result)
    return sorted(map(_mean, of_step.values()), key=lambda point: point.bpp)


def _mean(results: list[Result]) -> Point:
    similarities = [result.ms_ssim for result in results if result.ms_ssim is not None]
    megapixels = sum(result.pixels for result in results) / 1e6
    return Point(
        math.fsum(result.bpp for result in results) / len(results),
        math.fsum(result.psnr_db for result in results) / len(results),
        math.fsum(similarities) / len(similarities) if similarities else None,
        math.fsum(result.encode_s for result in results) / megapixels,
        math.fsum(result.decode_s for result in results) / megapixels,
    )


def ms_ssim_db(point: Point) -> float | None:
    """MS-SSIM on a scale on which curves are nearly straight."""
    return None if point.ms_ssim is None else -10 * math.log10(max(1 - point.ms_ssim, 1e-9))


def _bd_rate(
    anchor: list[Point] | None, tested: list[Point], quality: Callable[[Point], float | None]
) -> float | None:
    if anchor is None:
        return None
    curves = []
    for points in (anchor, tested):
        pairs = [(point.bpp, quality(point)) for point in points]
        curves.append([(bpp, value) for bpp, value in pairs if value is not None])
    if min(len({value for _, value in curve}) for curve in curves) < 2:
        return None
    percent = bd_rate_percent(*curves)
    return None if math.isnan(percent) else percent


def as_json(rows: list[Row]) -> dict[str, Any]:
    """The result for machines."""
    return {"hardware": hardware(), "rows": [asdict(row) for row in rows]}
