"""One picture file to a .lpk file, and one back, as `encode` and `decode` do it."""

from pathlib import Path
from typing import Any, BinaryIO

from torch import Tensor

from latentpack.codecs.codec import Codec
from latentpack.codecs.container import Reader
from latentpack.datasets.images import picture_format, read_image, write_image
from latentpack.datasets.metrics import psnr_db
from latentpack.scripts.info import KINDS
from latentpack.scripts.jobs import Job, note, noted_damage
from latentpack.scripts.media import DecodeOptions, EncodeOptions
from latentpack.scripts.pictures import (
    bits_per_pixel,
    bytes_asked,
    decode_picture,
    encode_picture,
    open_codec,
)

# How far from the request a result may be before it is said.
_TOLERANCE = 0.02  # of a size
_PSNR_TOLERANCE_DB = 0.1


def encode_file(job: Job, source: BinaryIO, target: BinaryIO, options: EncodeOptions) -> str:
    """Do one file; returns the line to print."""
    codec = options.open("image/light", open_codec)
    x, found = read_image(source, options.max_pixels, deep=codec.deep)
    metadata = _metadata(job, options, x, found)
    data = encode_picture(codec, x, options.rate, metadata)
    line = _report(job, options, codec, x, data)
    target.write(data)
    return line


def _metadata(job: Job, options: EncodeOptions, x: Tensor, found: dict[str, Any]) -> dict[str, Any]:
    """What goes into the file beside the samples; says what reading has changed."""
    for text in found.get("notes", []):
        note(job, text)
    kept = {key: value for key, value in found.items() if key in ("icc", "exif", "dpi")}
    size = sum(len(kept.get(key, b"")) for key in ("icc", "exif"))
    asked = bytes_asked(options.rate, x)
    if asked is not None and size > asked / 2 and options.keep_metadata:
        note(job, f"ICC and EXIF, {size} bytes, are left out: they exceed half of the size asked")
        kept = {}
    if not options.keep_metadata:
        return {}
    if found.get("notes"):
        kept |= {"source": found["source"], "notes": found["notes"]}
    return kept


def _report(job: Job, options: EncodeOptions, codec: Codec, x: Tensor, data: bytes) -> str:
    """The line about a file; says where a target was missed."""
    rate, bpp = options.rate, bits_per_pixel(len(data), x)
    line = f"{job.source} -> {job.target}: {len(data):,} bytes, {bpp:.3f} bpp"
    if options.show_psnr or (rate and rate.name == "psnr"):
        reached = psnr_db(x, decode_picture(data, codec)[0])
        line += f", {reached:.2f} dB"
        if rate and rate.name == "psnr" and abs(reached - rate.value) > _PSNR_TOLERANCE_DB:
            note(job, f"asked for {rate.value:g} dB, the nearest reached is {reached:.2f} dB")
    asked = bytes_asked(rate, x)
    if asked is not None and abs(len(data) - asked) > _TOLERANCE * asked:
        text = f"asked for {asked:,.0f} bytes, the nearest reached is {len(data):,} ({bpp:.3f} bpp)"
        note(job, text)
    return line


def decode_file(job: Job, source: BinaryIO, target: BinaryIO, options: DecodeOptions) -> str:
    """Do one file; returns the line to print.

    What the codec warns of is noted: how much of a damaged file is in the picture.
    """
    options.refuse_for("a picture", "start", "duration", "bits")
    format_name = picture_format(options.format_name or Path(job.target).suffix or "png")
    reader = Reader(source)
    codec = options.open(reader.codec_id, open_codec)
    with noted_damage(job):
        x = codec.decode(reader.params, reader.packets())
    for text in write_image(target, x, reader.metadata, format_name):
        note(job, text)
    channels, height, width = x.shape
    return f"{job.source} -> {job.target}: {width}x{height} {KINDS[channels]}"
