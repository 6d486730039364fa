"""python scripts/bench_inr.py [CLIP] [--quick] [--json]: networks that draw a clip, step by step.

One clip as NeRV and HNeRV by HNeRV's recipe (fitted without a rate, then 256 steps to each tensor,
entropy-coded), as HNeRV with learned steps and priors in the loss, as "boosted" by the recipe, and
as the default, "boosted" with learned steps, at two qualities; each is fitted for the same CPU time
on one thread. Beside them x265 medium at the size nearest to the default's.

All figures are of whole files and of what they decode to. The gain is over HNeRV by the recipe at
the bytes of that, where the default's two sizes are joined by a line over log(bytes).
"""

import io
import math
import time
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any, NamedTuple

import click
import torch

import latentpack
from latentpack.codecs.codec import Rate
from latentpack.codecs.container import Writer
from latentpack.codecs.registry import codec_id
from latentpack.codecs.video.frames import Clip, clip_of, frames_of
from latentpack.codecs.video.inr import Inr
from latentpack.datasets.video_metrics import ClipQuality, Colours, Meter
from latentpack.datasets.video_peers import PEERS, Shape
from latentpack.scripts.bench import show
from latentpack.scripts.video_clips import Clip as VideoPart

_BITS = 7.0  # of a weight in 256 steps, about
_EMBEDDINGS = 0.05  # of a file by the recipe


class Method(NamedTuple):
    """A way to code the clip.

    Attributes:
        name: for the table.
        arch: of the networks.
        learned: whether steps are learned; otherwise the number of weights is the size.
        quality: where they are.
        weights: how many, to those of the first method.
    """

    name: str
    arch: str
    learned: bool
    quality: float
    weights: float


METHODS = (
    Method("boosted", "boosted", True, 62.0, 1.0),
    Method("HNeRV, recipe", "hnerv", False, 0.0, 0.0),
    Method("NeRV, recipe", "nerv", False, 0.0, 0.0),
    Method("boosted, lower", "boosted", True, 50.0, 1.0),
    Method("HNeRV, learned steps", "hnerv", True, 62.0, 1.2),
    Method("boosted, recipe", "boosted", False, 0.0, 0.0),
)


def read_clip(path: Path, frames: int, scale: int) -> Clip:
    """The first frames of a file, at 1 / scale of width and height."""
    format = VideoPart(path, most=1).format
    part = VideoPart(path, most=frames, size=(format.width // scale, format.height // scale))
    return clip_of(part, part.format)


def quality_of(clip: Clip, found: Iterator[Any]) -> ClipQuality:
    """Of decoded frames, which are tuples of planes."""
    meter = Meter(Colours(), ms_ssim=False)
    for frame, planes in zip(frames_of(clip), found, strict=True):
        meter.add(frame.planes, planes)
    return meter.clip()


def fitted(clip: Clip, method: Method, weights: int, seconds: float) -> dict[str, Any]:
    """A row of the table."""
    codec = Inr(
        arch=method.arch,
        parameters=weights,
        learned_steps=method.learned,
        time_budget=seconds,
        effort=9,
    )
    codec.clock = time.process_time
    steps: list[int] = []
    codec.progress = lambda step, *_: steps.append(step)
    file, header = io.BytesIO(), codec.header(clip)
    with Writer(file, codec_id(codec.name), header) as writer:
        for packet in codec.encode(clip, Rate(quality=method.quality)):
            writer.write(packet)
    data = file.getvalue()
    began = time.process_time()
    decoded: Any = latentpack.decode(data)
    spent = time.process_time() - began
    found = quality_of(clip, (frame.planes for frame in frames_of(decoded)))
    about = codec.describe(header, packet)
    return {
        "method": method.name,
        "weights": about["parameters"],
        "bytes": len(data),
        "of_grids": about["grid_bytes"],
        "psnr_yuv": found.psnr_yuv,
        "psnr_rgb": found.psnr_rgb,
        "passes": steps[-1] // len(clip[0]),
        "decode_fps": len(clip[0]) / spent,
    }


def peer(clip: Clip, size: int) -> dict[str, Any]:
    """x265 at about a size."""
    height, width = clip[0].shape[1:]
    shape = Shape(width, height, 8, Fraction(1, 30), Fraction(30), len(clip[0]))
    coder = PEERS["x265"]
    files = (coder.encode(frames_of(clip), shape, step) for step in coder.dial[::4])
    best = min(files, key=lambda coded: abs(len(coded.data) - size))
    found = quality_of(clip, coder.decode(best.data, shape))
    return {
        "method": "x265 medium",
        "weights": None,
        "bytes": len(best.data),
        "of_grids": None,
        "psnr_yuv": found.psnr_yuv,
        "psnr_rgb": found.psnr_rgb,
        "passes": None,
        "decode_fps": None,
    }


def gain(rows: list[dict[str, Any]], figure: str) -> float:
    """Of the default over HNeRV's recipe, at the bytes of that, in dB."""
    by_name = {row["method"]: row for row in rows}
    names = ("boosted, lower", "boosted", "HNeRV, recipe")
    low, high, other = (by_name[name] for name in names)
    share = math.log(other["bytes"] / low["bytes"]) / math.log(high["bytes"] / low["bytes"])
    at: float = low[figure] + share * (high[figure] - low[figure])
    return at - float(other[figure])


@click.command()
@click.option("--quick", is_flag=True, help="A small part for seconds: less than a minute.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object as the last line.")
@click.option("--seconds", default=100.0, help="CPU time of each fit.")
@click.option("--frames", default=32)
@click.option("--scale", default=1, help="Take the clip at 1 / scale of its width and height.")
@click.option("--weights", default=None, type=int, help="Of the default; None is what suits.")
@click.argument("path", type=click.Path(exists=True, path_type=Path))
def bench_inr(
    quick: bool,
    as_json: bool,
    seconds: float,
    frames: int,
    scale: int,
    weights: int | None,
    path: Path,
) -> None:
    """NeRV, HNeRV and what this library makes of them, at about equal bytes and equal time."""
    torch.set_num_threads(1)
    if quick:
        seconds, frames, scale = 4.0, 8, 4 * scale
    clip = read_clip(path, frames, scale)
    rows: list[dict[str, Any]] = []
    for method in METHODS:
        if method.weights:
            first = rows[0]["weights"] if rows else weights
            count = first and round(method.weights * first)
        else:
            count = round(rows[0]["bytes"] * 8 / _BITS * (1 - _EMBEDDINGS))
        rows.append(fitted(clip, method, count, seconds))  # type: ignore[arg-type]
        print(rows[-1], flush=True)
    rows.append(peer(clip, rows[0]["bytes"]))
    height, width = clip[0].shape[1:]
    title = f"{path.name}, {frames} frames of {width}x{height}, {seconds:g} s CPU a fit, 1 thread"
    gains = {f"gain_{name}_db": gain(rows, name) for name in ("psnr_yuv", "psnr_rgb")}
    print(gains)
    show(title, rows, as_json, **gains)


if __name__ == "__main__":
    bench_inr()
