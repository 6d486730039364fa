"""python scripts/bench_video.py [--quick] [--json] [CLIP]: how fast video codecs are.

Every codec encodes the clip once, at about the middle of its range, and then all decode it in turn;
CPU time of one thread, frames from and to memory. Ours are set to their fastest: what a file costs
to decode does not depend on how long its encoder sought, but for the preset of video/fit. Without a
clip the sample photograph is one, in motion.
"""

from __future__ import annotations

import functools
import statistics
import tempfile
import time
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import click
import torch

from latentpack.codecs import registry
from latentpack.datasets.images import read_image
from latentpack.datasets.video_metrics import Meter
from latentpack.datasets.video_peers import PEERS, Coded
from latentpack.scripts.bench import interleaved, show
from latentpack.scripts.main import describe, note
from latentpack.scripts.showcase import SAMPLE
from latentpack.scripts.video_clips import Clip
from latentpack.scripts.video_codecs import VideoCodec, open_by_name

_OURS = ("video/lite", "video/fit@preset=fast,effort=0", "video/fit@effort=0")
_PEERS = ("x264", "x264-ld", "x265", "svt-av1", "vp9")
_WIDTH, _HEIGHT, _FRAMES = 640, 360, 32
_QUICK = 320, 192, 8


def write_sample(path: Path, width: int, height: int, count: int) -> None:
    """A lossless file of the sample photograph that drifts and grows, at 30 frames a second."""
    picture = read_image(SAMPLE)[0][:3].permute(1, 2, 0).contiguous().numpy()
    tall, wide = picture.shape[:2]
    with av.open(path, "w") as container:
        stream: Any = container.add_stream("ffv1", 30)
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        for number in range(count):
            share = 0.6 + 0.2 * number / count
            side = round(min(tall, wide * height / width) * share), round(wide * share)
            top, left = (2 * number * (full - part) // (3 * count) for full, part in
                         zip((tall, wide), side, strict=True))  # fmt: skip
            crop = picture[top : top + side[0], left : left + side[1]].copy()
            frame = av.VideoFrame.from_ndarray(crop).reformat(width, height, "yuv420p")
            frame.pts, frame.time_base = number, Fraction(1, 30)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))


def names() -> list[str]:
    """Codecs that are here."""
    known = registry.CODECS.values()
    ours = [name for name in _OURS if name.partition("@")[0] in known]
    return ours + [name for name in _PEERS if not PEERS[name].missing()]


def measure(clip: Clip, rounds: int) -> list[dict[str, Any]]:
    """A row for each codec; the clip is held in memory, so that reading it is no part of coding."""
    frames = list(clip)
    rows: dict[str, dict[str, Any]] = {}
    decode: dict[str, Callable[[], object]] = {}
    for name in names():
        try:
            codec = open_by_name(name)
            step = codec.steps[len(codec.steps) // 2]
            began = time.process_time()
            coded = codec.encode(clip, frames, step)
            encode_s = time.process_time() - began
        except (ValueError, RuntimeError) as error:
            note(f"{name} is left out: {describe(error)}")
            continue
        rows[name] = {"codec": name, "ours": codec.ours, **_figures(clip, codec, coded, encode_s)}
        decode[name] = functools.partial(_decode_all, codec, coded, clip)
    pixels = clip.pixels * len(frames)
    for name, spent in interleaved(decode, rounds).items():
        rows[name] |= {
            "decode_fps": len(frames) / min(spent),
            "decode_mpx_per_s": pixels / 1e6 / min(spent),
            "median_mpx_per_s": pixels / 1e6 / statistics.median(spent),
        }
    return list(rows.values())


def _decode_all(codec: VideoCodec, coded: Coded, clip: Clip) -> int:
    return sum(1 for _ in codec.decode(coded.data, clip))


def _figures(clip: Clip, codec: VideoCodec, coded: Coded, encode_s: float) -> dict[str, Any]:
    meter = Meter(clip.colours, ms_ssim=False)
    for frame, planes in zip(clip, codec.decode(coded.data, clip), strict=True):
        meter.add(frame.planes, planes)
    found = meter.clip()
    pixels = clip.pixels * found.frames
    return {
        "bpp": len(coded.data) * 8 / pixels,
        "psnr_yuv": found.psnr_yuv,
        "encode_fps": found.frames / encode_s,
        "encode_mpx_per_s": pixels / 1e6 / encode_s,
    }


@click.command()
@click.option("--quick", is_flag=True, help="A small clip and fewer rounds: about a minute.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object as the last line.")
@click.argument("path", required=False, type=click.Path(exists=True, path_type=Path))
def bench_video(quick: bool, as_json: bool, path: Path | None) -> None:
    """Speeds of video codecs on one core."""
    torch.set_num_threads(1)
    width, height, count = _QUICK if quick else (_WIDTH, _HEIGHT, _FRAMES)
    with tempfile.TemporaryDirectory() as folder:
        if path is None:
            path = Path(folder) / "sample.mkv"
            write_sample(path, width, height, count)
        size = (width, height) if quick else None
        clip = Clip(path, count if quick else None, size=size)
        rows = measure(clip, 2 if quick else 5)
        count = clip.length.frames
    title = f"{count} frames of {clip.format.width}x{clip.format.height}, CPU time of one thread"
    show(title, rows, as_json)


if __name__ == "__main__":
    bench_video()
