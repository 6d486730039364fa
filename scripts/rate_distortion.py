"""Rate-distortion curves of picture codecs over a set of files, and their comparison.

Rates are whole files; PSNR and MS-SSIM are means over the pictures of the pictures' own values;
times are CPU seconds of one thread. Pictures are coded as RGB: grey is repeated, alpha left out.
"""

import math
import time
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from latentpack.codecs.codec import Rate
from latentpack.datasets.images import read_image
from latentpack.datasets.metrics import bd_rate_percent, ms_ssim, psnr_db
from latentpack.datasets.picture_peers import PEERS, PictureCoder, peer
from latentpack.scripts.bench import hardware
from latentpack.scripts.pictures import decode_picture, encode_picture, open_codec

OURS = ("light",)
ANCHOR = "jpeg"
_QUALITIES = (0, 10, 22, 35, 48, 60, 72, 86, 100)


@dataclass(frozen=True)
class Point:
    """One setting of one codec, averaged over the pictures."""

    bpp: float
    psnr_db: float
    ms_ssim: float | None
    encode_s_per_mpx: float
    decode_s_per_mpx: float


@dataclass(frozen=True)
class Row:
    """A codec's curve on a set of pictures; percents are against JPEG, None without it."""

    codec: str
    case: str
    settings: str
    bd_rate_vs_jpeg: float | None
    bd_rate_ms_ssim_vs_jpeg: float | None
    points: list[Point]


def coder(name: str, weights: Path | None = None) -> PictureCoder:
    """A codec by its name on the command line: one of ours or a peer."""
    if name not in OURS:
        return peer(name)
    codec = open_codec(f"image/{name}", weights=weights)
    digest = codec.header(torch.zeros(3, 8, 8, dtype=torch.uint8)).get("w", b"")
    return PictureCoder(
        name,
        f"latentpack image/{name}, weights {digest.hex()}",
        _QUALITIES,
        lambda x, step: encode_picture(codec, x, Rate(quality=step)),
        lambda data: decode_picture(data, codec)[0],
    )


def coder_names() -> list[str]:
    """All codecs that can be measured."""
    return [*OURS, *PEERS]


def measure(
    coders: list[PictureCoder],
    files: Iterable[Path],
    case: str,
    every: int = 1,
) -> list[Row]:
    """Code all pictures with all codecs.

    The codecs take turns on each picture, so that a busy machine slows all of them alike.

    Args:
        coders: what to measure.
        files: pictures; one is in memory at a time.
        case: name of the set.
        every: take each so-many-th step of a codec only.
    """
    steps = {coder.name: coder.steps[::every] for coder in coders}
    sums: dict[tuple[str, float], list[list[float]]] = {}
    pixels = 0
    for file in files:
        x = _as_rgb(read_image(file)[0])
        pixels += x.shape[1] * x.shape[2]
        for coder in coders:
            for step in steps[coder.name]:
                sums.setdefault((coder.name, step), []).append(_code(coder, x, step))
    curves = {
        coder.name: [_mean(sums[coder.name, step], pixels) for step in steps[coder.name]]
        for coder in coders
    }
    anchor = curves.get(ANCHOR)
    return [
        Row(
            coder.name,
            case,
            coder.settings,
            _bd_rate(anchor, curves[coder.name], lambda point: point.psnr_db),
            _bd_rate(anchor, curves[coder.name], _ms_ssim_db),
            curves[coder.name],
        )
        for coder in coders
    ]


def _as_rgb(x: Tensor) -> Tensor:
    x = x[:-1] if x.shape[0] in (2, 4) else x
    return x.expand(3, -1, -1).contiguous()


def _code(coder: PictureCoder, x: Tensor, step: float) -> list[float]:
    """The values of one picture: bpp, psnr, ms_ssim (NaN if too small), CPU seconds."""
    started = time.process_time()
    data = coder.encode(x, step)
    encoded = time.process_time()
    x_hat = coder.decode(data)
    decoded = time.process_time()
    similarity = ms_ssim(x, x_hat)
    return [
        len(data) * 8 / (x.shape[1] * x.shape[2]),
        psnr_db(x, x_hat),
        math.nan if similarity is None else similarity,
        encoded - started,
        decoded - encoded,
    ]


def _mean(values: list[list[float]], pixels: int) -> Point:
    table = torch.tensor(values, dtype=torch.float64)
    bpp, psnr, _, _, _ = table.mean(0).tolist()
    similarity = table[:, 2].nanmean().item()
    encode_s, decode_s = (table[:, 3:].sum(0) * 1e6 / pixels).tolist()
    return Point(bpp, psnr, None if math.isnan(similarity) else similarity, encode_s, decode_s)


def _ms_ssim_db(point: Point) -> float | None:
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
    if min(len(curve) for curve in curves) < 2:
        return None
    percent = bd_rate_percent(*curves)
    return None if math.isnan(percent) else percent


def as_json(rows: list[Row]) -> dict[str, Any]:
    """The result for machines."""
    return {"hardware": hardware(), "rows": [asdict(row) for row in rows]}


def plot(rows: list[Row], path: Path) -> None:
    """Draw PSNR and MS-SSIM over the rate; the suffix of the path says the format."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(1, 2, figsize=(12, 5), layout="constrained")
    panels: list[tuple[str, Callable[[Point], float | None]]] = [
        ("PSNR of RGB (dB)", lambda p: p.psnr_db),
        ("MS-SSIM (dB, -10 log10(1 - x))", _ms_ssim_db),
    ]
    for axis, (label, quality) in zip(axes, panels, strict=True):
        for row in rows:
            pairs = [(point.bpp, quality(point)) for point in row.points]
            pairs = [pair for pair in pairs if pair[1] is not None]
            ours = row.codec in OURS
            axis.plot(
                *zip(*pairs, strict=True),
                marker="o",
                markersize=3,
                linewidth=2.4 if ours else 1.2,
                label=f"latentpack {row.codec}" if ours else row.codec,
                zorder=3 if ours else 2,
            )
        axis.set(xlabel="bits per pixel, whole file", ylabel=label, xscale="log")
        axis.xaxis.set_major_formatter("{x:g}")
        axis.grid(alpha=0.3, which="both")
    axes[0].legend()
    figure.suptitle(rows[0].case)
    figure.savefig(path, dpi=120)
    pyplot.close(figure)
