"""A picture through several codecs at one rate, and all of it as one page to look at."""

import base64
import io
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, BinaryIO

import click
from torch import Tensor

from latentpack.codecs.codec import Rate
from latentpack.datasets.images import read_image, to_picture, write_image
from latentpack.datasets.metrics import ms_ssim, psnr_db
from latentpack.scripts.page import Kind, fill
from latentpack.scripts.picture_codecs import PictureCodec, colours, open_codecs, visible
from latentpack.scripts.pictures import bits_per_pixel, bytes_asked

if TYPE_CHECKING:
    from rich.progress import Progress

CODECS = "image/light,jpeg,webp,avif"  # where none are named
_FAR = 0.1  # from the size asked for, from which it is said
_FAR_DB = 0.5
_THUMBNAIL = 96  # pixels
_COLUMNS = (
    ("bytes", "bytes", ","),
    ("bpp", "bpp", ".3f"),
    ("PSNR dB", "psnr_db", ".2f"),
    ("MS-SSIM", "ms_ssim", ".4f"),
    ("encode s", "encode_s", ".2f"),
    ("decode s", "decode_s", ".2f"),
)
_WEBP_SIDE = 16383  # the longest that WebP can hold; beyond it PNG


@dataclass(frozen=True)
class Source:
    """A picture file: its name, its bytes, uint8 [C, H, W], and what `read_image` found beside."""

    name: str
    bytes: int
    x: Tensor
    found: dict[str, Any]


@dataclass(frozen=True)
class Result:
    """What one codec makes of a picture; seconds of CPU time, with the search for the rate."""

    codec: str
    settings: str
    ours: bool
    bytes: int
    bpp: float
    psnr_db: float
    ms_ssim: float | None
    encode_s: float
    decode_s: float
    note: str | None


@dataclass(frozen=True)
class Picture:
    """A picture and what the codecs made of it, as the page wants them: data URIs."""

    name: str
    width: int
    height: int
    bytes: int
    original: str
    thumbnail: str
    results: list[dict[str, Any]]

    @property
    def about(self) -> str:
        """Its size in pixels."""
        return f"{self.width}x{self.height}"


def pictures(codecs: str | None, asked: dict[str, Any], bar: "Progress") -> Kind:
    """Pictures for `compare`.

    Args:
        codecs: names for `open_codecs`; None is a few.
        asked: options of the command line: the rate.
        bar: is told how codecs go on that take long.

    Raises:
        ValueError: a codec or an option is wrong.
    """
    rate = _rate(asked)

    def read(file: BinaryIO, name: str) -> Source:
        x, found = read_image(file)
        return Source(name, file.seek(0, io.SEEK_END), x, found)

    def show_fit(step: int, steps: int, bpp: float, psnr: float) -> None:
        detail = f"step {step} of {steps}, {bpp:.3f} bpp, {psnr:.2f} dB"
        bar.update(bar.task_ids[-1], detail=detail)

    return Kind(
        open_codecs(codecs or CODECS, show_fit),
        read,
        run=lambda codec, source: run(codec, source.x, rate),
        item=picture,
        page=lambda items: page(items, rate),
        columns=_COLUMNS,
        asked=f" at {rate}",
    )


def _rate(asked: dict[str, Any]) -> Rate:
    for name, owners in {"start": "sounds and videos", "seconds": "sounds and videos",
                         "kbps": "videos"}.items():  # fmt: skip
        if name in asked:
            raise click.UsageError(f"--{name} is for {owners}")
    if len(asked) > 1:
        raise click.UsageError(f"--{' and --'.join(asked)} exclude each other".replace("_", "-"))
    rate = Rate.of(**asked or {"bpp": 0.3})
    if rate.name == "quality" and rate.value > 100:
        raise click.UsageError(f"--quality must be 0 to 100, got {rate.value:g}")
    return rate


def run(codec: PictureCodec, x: Tensor, rate: Rate) -> tuple[Result, Tensor]:
    """Encode and decode; quality is measured over the colours that show.

    Args:
        codec: what to measure.
        x: uint8 [C, H, W].
        rate: is met as nearly as the codec can.

    Returns:
        The figures, and the decoded picture, uint8 [C', H, W].
    """
    started = time.process_time()
    data = codec.meet(x, rate)
    encoded = time.process_time()
    x_hat = codec.decode(data)
    decoded = time.process_time()
    pair = visible(x, x_hat)
    psnr = psnr_db(*pair)
    notes = [_far(rate, len(data), psnr, x), _no_alpha(x, x_hat)]
    return Result(
        codec.name,
        codec.settings,
        codec.ours,
        len(data),
        bits_per_pixel(len(data), x),
        psnr,
        ms_ssim(*pair),
        encoded - started,
        decoded - encoded,
        "; ".join(note for note in notes if note) or None,
    ), x_hat


def _far(rate: Rate, size: int, psnr: float, x: Tensor) -> str | None:
    """Where the target was missed by so much that the pictures can't be compared."""
    asked = bytes_asked(rate, x)
    if asked is not None and not (rate.name == "max_bytes" and size <= asked):
        return f"{size / asked - 1:+.0%} bytes" if abs(size - asked) > _FAR * asked else None
    if rate.name == "psnr" and abs(psnr - rate.value) > _FAR_DB:
        return f"{psnr - rate.value:+.1f} dB"
    return None


def _no_alpha(x: Tensor, x_hat: Tensor) -> str | None:
    return "no transparency" if x.shape[0] in (2, 4) and x_hat.shape[0] in (1, 3) else None


def picture(source: Source, results: Sequence[tuple[Result, Tensor]]) -> Picture:
    """Put a picture and its results of `run` into the form of the page."""
    x, found = source.x, source.found
    small = to_picture(colours(x))
    small.thumbnail((_THUMBNAIL, _THUMBNAIL))
    file = io.BytesIO()
    small.save(file, "JPEG", quality=80)
    return Picture(
        source.name,
        x.shape[2],
        x.shape[1],
        source.bytes,
        _uri(x, found),
        _as_uri("jpeg", file.getvalue()),
        [asdict(result) | {"src": _uri(x_hat, found)} for result, x_hat in results],
    )


def _uri(x: Tensor, found: dict[str, Any]) -> str:
    """The picture without loss as a data URI."""
    format = "webp" if max(x.shape[1:]) <= _WEBP_SIDE else "png"
    profile = {"icc": found["icc"]} if "icc" in found and x.shape[0] >= 3 else {}
    file = io.BytesIO()
    write_image(file, x, profile, format)
    return _as_uri(format, file.getvalue())


def _as_uri(format: str, data: bytes) -> str:
    return f"data:image/{format};base64,{base64.b64encode(data).decode('ascii')}"


def page(pictures: list[Picture], rate: Rate) -> bytes:
    """The page: one HTML file that needs no other."""
    data = {
        "asked": _asked(rate),
        "kind": rate.name,
        "pictures": [asdict(picture) for picture in pictures],
    }
    names = [picture.name for picture in pictures]
    return fill("comparison", ["stage", "comparison"], names, data, ["stage"])


def _asked(rate: Rate) -> str:
    if rate.name == "quality":
        return f"quality {rate.value:g} of each codec's own scale"
    if rate.name == "max_bytes":
        return f"{rate.value:,} bytes at most"
    return f"{rate.value:g} {'dB' if rate.name == 'psnr' else 'bits per pixel'}"
