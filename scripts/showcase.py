"""What `latentpack demo` shows: a photograph beside JPEG and WebP, a voice, tensors and memcpy."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

import latentpack
from latentpack.codecs import weight_files
from latentpack.codecs.codec import Rate
from latentpack.codecs.image.light_frozen import SHIPPED
from latentpack.codecs.output import create
from latentpack.datasets.images import to_picture
from latentpack.datasets.metrics import psnr_db
from latentpack.datasets.picture_peers import PictureCoder, peer
from latentpack.scripts import listening, model_files
from latentpack.scripts.pictures import bits_per_pixel, decode_picture, encode_picture, open_codec
from latentpack.scripts.sound_codecs import open_codecs

_SAMPLES = Path(__file__).parents[1] / "datasets" / "samples"
SAMPLE, VOICE = _SAMPLES / "crystal.webp", _SAMPLES / "voice.flac"
SOUND_CODECS = "audio/rvq@kbps=6,opus@6,audio/lossless"
_LABEL_HEIGHT, _GAP, _ZOOM = 26, 6, 3
_REPEATS = 5  # of which the fastest counts


@dataclass(frozen=True)
class Coded:
    """A picture through one codec."""

    name: str
    data: bytes
    x_hat: Tensor
    bpp: float
    psnr_db: float


@dataclass(frozen=True)
class CodedTensor:
    """A tensor through the lossless codec; speeds are shares of the speed of copying it."""

    name: str
    data: bytes
    ratio: float
    identical: bool
    encode_vs_memcpy: float
    decode_vs_memcpy: float


@dataclass(frozen=True)
class ShownSound:
    """A sound through several codecs.

    Attributes:
        item: its figures.
        files: names and contents, of our codecs.
        page: to listen.
    """

    item: listening.Sound
    files: dict[str, bytes]
    page: bytes


@dataclass(frozen=True)
class PackedModel:
    """A model file that has been packed and unpacked; sizes in bytes."""

    source: Path
    before: int
    after: int


def show_model(folder: Path) -> PackedModel:
    """Pack a real model file, shipped weights as floating point numbers, and unpack it again.

    Raises:
        RuntimeError: the file came back changed.
    """
    model, packed = folder / "model.safetensors", folder / "model.lpk"
    unpacked = folder / "unpacked.safetensors"
    tensors = dict(weight_files.read(SHIPPED["mse-1"], "image/light").tensors)
    with create(model, force=True) as file:
        file.write(safetensors.torch.save(tensors))
    model_files.pack(model, packed, force=True)
    model_files.unpack(packed, unpacked, force=True)
    if unpacked.read_bytes() != model.read_bytes():
        raise RuntimeError("the model file came back changed; please report this")
    return PackedModel(model, model.stat().st_size, packed.stat().st_size)


def show_picture(x: Tensor, rate: Rate, weights: Path | None = None) -> list[Coded]:
    """Code a picture with image/light, then with JPEG and WebP at the size nearest to that."""
    codec = open_codec("image/light", weights=weights)
    data = encode_picture(codec, x, rate)
    ours = _coded("latentpack", x, data, decode_picture(data, codec)[0])
    return [ours, *(_nearest(peer(name), x, len(data)) for name in ("jpeg", "webp"))]


def _coded(name: str, x: Tensor, data: bytes, x_hat: Tensor) -> Coded:
    return Coded(name, data, x_hat, bits_per_pixel(len(data), x), psnr_db(x, x_hat))


def _nearest(coder: PictureCoder, x: Tensor, size: int) -> Coded:
    """The file of a quality from 1 to 100 whose size is nearest: sizes rise with the quality."""
    low, high = 1, 100
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if len(coder.encode(x, middle)) <= size else (low, middle)
    files = [coder.encode(x, quality) for quality in (low, high)]
    data = min(files, key=lambda file: abs(len(file) - size))
    return _coded(coder.name, x, data, coder.decode(data))


def show_sound() -> ShownSound:
    """Code the voice with our codecs and Opus.

    Raises:
        RuntimeError: the lossless codec gave other samples back.
    """
    with VOICE.open("rb") as file:
        excerpt = listening.read(file, VOICE.name, start=0, seconds=listening.MOST_SECONDS)
    coded = {codec.name: listening.run(codec, excerpt) for codec in open_codecs(SOUND_CODECS)}
    lossless = coded["audio/lossless"]
    if not torch.equal(lossless.x_hat, excerpt.x):
        raise RuntimeError("the sound came back changed without loss; please report this")
    item = listening.sound(excerpt, list(coded.values()))
    files = {"voice.lpk": coded["audio/rvq@kbps=6"].data, "voice_lossless.lpk": lossless.data}
    return ShownSound(item, files, listening.page([item]))


def sample_tensors(elements: int = 4_000_000) -> dict[str, Tensor]:
    """Numbers like the weights of a language model, in two dtypes; the same in every run."""
    weights = torch.randn(elements, generator=torch.Generator().manual_seed(0)) * 0.02
    return {"bfloat16": weights.bfloat16(), "float32": weights}


def show_tensor(name: str, x: Tensor, mode: str) -> CodedTensor:
    """Pack and unpack a tensor with one thread, and copy it for comparison."""
    data = latentpack.encode(x, mode=mode, threads=1)
    x_hat, copy = torch.empty_like(x), torch.empty_like(x)
    copied, encoded, decoded = _seconds(
        lambda: copy.copy_(x),
        lambda: latentpack.encode(x, mode=mode, threads=1),
        lambda: latentpack.decode(data, out=x_hat, threads=1),
    )
    raw_bytes = x.numel() * x.itemsize
    identical = torch.equal(x.view(torch.uint8), x_hat.view(torch.uint8))
    return CodedTensor(
        f"{name}, {mode}",
        data,
        len(data) / raw_bytes,
        identical,
        copied / encoded,
        copied / decoded,
    )


def _seconds(*works: Callable[[], Any]) -> list[float]:
    """The least CPU time of each; they take turns, so that a busy machine slows all alike."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    best = [float("inf")] * len(works)
    for _ in range(_REPEATS):
        for number, work in enumerate(works):
            started = time.process_time()
            work()
            best[number] = min(best[number], time.process_time() - started)
    torch.set_num_threads(threads)
    return best


def side_by_side(x: Tensor, coded: list[Coded]) -> Image.Image:
    """Original and reconstructions in a row, labelled, above enlarged middles of them."""
    panels = [(f"original, {x.numel():,} bytes", x)]
    panels += [(f"{c.name}, {len(c.data):,} bytes, {c.psnr_db:.2f} dB", c.x_hat) for c in coded]
    _, height, width = x.shape
    cut_height, cut_width = height // _ZOOM, width // _ZOOM
    sheet = Image.new(
        "RGB",
        (len(panels) * (width + _GAP) - _GAP, _LABEL_HEIGHT + height + _GAP + cut_height * _ZOOM),
        "white",
    )
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(16)
    for column, (label, samples) in enumerate(panels):
        left = column * (width + _GAP)
        picture = to_picture(samples).convert("RGB")
        draw.text((left + 4, 4), label, "black", font)
        sheet.paste(picture, (left, _LABEL_HEIGHT))
        middle = ((width - cut_width) // 2, (height - cut_height) // 2)
        cut = picture.crop((*middle, middle[0] + cut_width, middle[1] + cut_height))
        large = cut.resize((cut_width * _ZOOM, cut_height * _ZOOM), Image.Resampling.NEAREST)
        sheet.paste(large, (left, _LABEL_HEIGHT + height + _GAP))
    return sheet
