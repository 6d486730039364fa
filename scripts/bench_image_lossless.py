"""python scripts/bench_image_lossless.py [FOLDER]: pictures without loss, beside their peers.

Whole files in bits per pixel (the mean over pictures), and million pixels a second of CPU time (the
median over pictures), one thread. Every picture goes through all coders in turn, and every file is
decoded and compared; the largest error of a sample is printed. The rows with an error stand beside
lossless peers only: Pillow has no near-lossless WebP, and no other coder here bounds the error.

JPEG XL needs pillow-jxl-plugin. WebP at its best effort takes most of the time: leave it out with
--coders.
"""

import importlib
import io
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import click
import numpy as np
import torch
from PIL import Image
from torch import Tensor

import latentpack
from latentpack.datasets.images import read_image, to_picture
from latentpack.scripts.bench import show

SAMPLES = Path(__file__).parents[1] / "datasets" / "samples"
SUFFIXES = {".png", ".webp", ".tiff", ".bmp"}
_QUICK_SIDE = 160


@dataclass
class Coder:
    """A coder, and what it did to the pictures so far."""

    encode: Callable[[Tensor], bytes]
    decode: Callable[[bytes], Tensor]
    bpp: list[float] = field(default_factory=list)
    encode_s: list[float] = field(default_factory=list)  # CPU seconds per pixel
    decode_s: list[float] = field(default_factory=list)
    error: int = 0

    def run(self, x: Tensor) -> None:
        """Code a picture there and back."""
        pixels = x.shape[1] * x.shape[2]
        began = time.process_time()
        data = self.encode(x)
        coded = time.process_time()
        y = self.decode(data)
        self.decode_s.append((time.process_time() - coded) / pixels)
        self.encode_s.append((coded - began) / pixels)
        self.bpp.append(8 * len(data) / pixels)
        difference = np.abs(y.numpy().astype(np.int32) - x.numpy().astype(np.int32))
        self.error = max(self.error, int(difference.max()))


def pillow(name: str, **options: Any) -> Coder:
    """A format that Pillow writes."""

    def encode(x: Tensor) -> bytes:
        file = io.BytesIO()
        to_picture(x).save(file, name, **options)
        return file.getvalue()

    def decode(data: bytes) -> Tensor:
        samples = np.array(Image.open(io.BytesIO(data)))
        return torch.from_numpy(np.atleast_3d(samples).transpose(2, 0, 1).copy())

    return Coder(encode, decode)


def ours(error: int) -> Coder:
    """image/lossless with a largest error."""

    def encode(x: Tensor) -> bytes:
        return latentpack.encode(x, codec="image/lossless", max_error=error, threads=1)

    def decode(data: bytes) -> Tensor:
        x = latentpack.decode(data, threads=1)
        assert isinstance(x, Tensor)  # this codec has no mappings
        return x

    return Coder(encode, decode)


def coders() -> dict[str, Coder]:
    """All that are installed."""
    made = {
        "image/lossless": ours(0),
        "near-lossless 1": ours(1),
        "near-lossless 2": ours(2),
        "png": pillow("PNG", optimize=True),
        "webp": pillow("WEBP", lossless=True, method=6, quality=100, exact=True),
        "jpeg2000": pillow("JPEG2000", irreversible=False, mct=1, no_jp2=True),
    }
    try:
        importlib.import_module("pillow_jxl")  # registers itself with Pillow
    except ImportError:
        click.echo("no JPEG XL: pip install pillow-jxl-plugin", err=True)
        return made
    efforts = (3, 7, 9)
    return made | {f"jxl effort {e}": pillow("JXL", lossless=True, effort=e) for e in efforts}


def rows_of(run: dict[str, Coder]) -> list[dict[str, Any]]:
    """The table."""
    best = statistics.mean(run["jxl effort 7"].bpp) if "jxl effort 7" in run else None
    rows = []
    for name, coder in run.items():
        bpp = statistics.mean(coder.bpp)
        row = {"coder": name, "bpp": round(bpp, 4)}
        if best:
            row["vs jxl e7"] = f"{100 * (bpp / best - 1):+.2f} %"
        row["encode Mpx/s"] = round(1e-6 / statistics.median(coder.encode_s), 3)
        row["decode Mpx/s"] = round(1e-6 / statistics.median(coder.decode_s), 3)
        rows.append(row | {"largest error": coder.error})
    return rows


@click.command()
@click.argument("folder", type=click.Path(path_type=Path, exists=True), default=SAMPLES)
@click.option("--coders", "names", help="Only these, e.g. image/lossless,near-lossless 1,webp.")
@click.option("--limit", type=int, help="Only so many pictures.")
@click.option("--quick", is_flag=True, help="One crop of 160 x 160, no best efforts.")
@click.option("--json", "as_json", is_flag=True, help="One line of JSON.")
def main(folder: Path, names: str | None, limit: int | None, quick: bool, as_json: bool) -> None:
    known = coders()
    wanted = names.split(",") if names else [n for n in known if n != "jxl effort 9"]
    unknown = sorted(set(wanted) - set(known))
    if unknown:
        raise click.UsageError(f"no coder {unknown[0]!r}; there are {', '.join(known)}")
    run = {name: known[name] for name in wanted if not (quick and name == "webp")}
    paths = sorted(path for path in folder.iterdir() if path.suffix.lower() in SUFFIXES)
    torch.set_num_threads(1)
    for path in paths[: 1 if quick else limit]:
        x, _ = read_image(path)
        x = x[:, :_QUICK_SIDE, :_QUICK_SIDE].contiguous() if quick else x
        for coder in run.values():
            coder.run(x)
    show("pictures without loss", rows_of(run), as_json)


if __name__ == "__main__":
    main()
