"""Command line: latentpack encode photo.png -o photo.lpk --quality 60."""

import functools
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from latentpack.codecs.codec import Codec, Rate
from latentpack.codecs.registry import codec_id
from latentpack.scripts.codec_options import codec_options, split
from latentpack.scripts.fit_progress import FitProgress
from latentpack.scripts.jobs import Job, note, plan, run_jobs, source_file, target_file
from latentpack.scripts.main import main

if TYPE_CHECKING:
    from torch import Tensor

TENSOR_SUFFIXES = {".safetensors", ".pt", ".pth", ".bin", ".ckpt", ".npz", ".gguf"}
# How far from the request a result may be before it is said.
_TOLERANCE = 0.02  # of a size
_PSNR_TOLERANCE_DB = 0.1


@dataclass(frozen=True)
class Options:
    """What is the same for all files."""

    codec: Callable[[], Codec]  # opens it at the first call, keeps it for the others
    rate: Rate | None
    force: bool
    show_psnr: bool
    keep_metadata: bool


@click.command()
@click.argument("sources", nargs=-1, required=True, metavar="PICTURE...")
@click.option("-o", "--output", metavar="PATH", help="File, folder, or - for standard output.")
@click.option("-q", "--quality", type=float, help="0 to 100, more is better.  [default: 50]")
@click.option("--bpp", type=float, help="Bits per pixel, whole file.")
@click.option("--max-bytes", type=click.IntRange(min=1), help="Largest size of the file.")
@click.option("--ratio", type=float, help="Bytes of the samples over bytes of the file.")
@click.option("--psnr", type=float, help="Quality in dB, over all samples.")
@click.option("--codec", default="image/light", show_default=True, help="Which codec.")
@codec_options
@click.option("--show-psnr", is_flag=True, help="Decode again and print the PSNR.")
@click.option("--no-metadata", is_flag=True, help="Leave out ICC profile, EXIF and resolution.")
@click.option("--threads", type=click.IntRange(min=1), help="Threads to compute with.")
@click.option("--max-pixels", type=int, default=100_000_000, show_default=True, help="Refuse more.")
@click.option("-f", "--force", is_flag=True, help="Overwrite files that exist.")
def encode(
    sources: tuple[str, ...],
    output: str | None,
    codec: str,
    threads: int | None,
    max_pixels: int,
    force: bool,
    show_psnr: bool,
    no_metadata: bool,
    **others: Any,
) -> None:
    """Turn pictures into .lpk files.

    Takes any picture file: PNG, JPEG, WebP, TIFF, BMP, AVIF, GIF, ...; alpha is kept without
    loss, EXIF orientation is applied; image/lossless takes all 16 bits of PNG and TIFF, others 8.
    At most one of --quality, --bpp, --max-bytes, --ratio and --psnr says how good or how small; a
    target is met as nearly as the codec can.

    \b
    latentpack encode photo.png                           photo.lpk beside it, quality 50
    latentpack encode photo.png -o small.lpk --bpp 0.3    0.3 bits per pixel
    latentpack encode photo.png --max-bytes 20000         at most 20 kB
    latentpack encode photo.png --psnr 34 --force         34 dB; overwrites photo.lpk
    latentpack encode deep.png --codec image/lossless     every sample, 8 or 16 bits
    latentpack encode holiday/ "more/*.jpg" -o packed/    folders (to the bottom) and patterns
    latentpack encode - -o - < photo.png > photo.lpk      from and to a pipe
    latentpack encode photo.png --codec image/fit --time-budget 60s --resume photo.state
    """
    codec_given, rates = split(others)
    asked = {name: value for name, value in rates.items() if value is not None}
    if len(asked) > 1:
        raise click.UsageError(f"--{' and --'.join(asked)} exclude each other".replace("_", "-"))
    rate = Rate.of(**asked) if asked else None
    codec_id(codec)  # an unknown name is told before any file is looked at
    jobs = plan(sources, output, ".lpk", _known)
    if threads:
        import torch

        torch.set_num_threads(threads)
    with FitProgress() as progress:
        opened = functools.cache(functools.partial(_open_codec, codec, codec_given, progress))
        options = Options(opened, rate, force, show_psnr, not no_metadata)
        run_jobs(jobs, lambda job: encode_file(job, options, max_pixels))


def _known() -> set[str]:
    from latentpack.datasets.images import suffixes

    return suffixes()


def _open_codec(name: str, given: dict[str, Any], progress: FitProgress) -> Codec:
    from latentpack.codecs.registry import load, parameters
    from latentpack.scripts.pictures import open_codec

    told = {"progress": progress} if "progress" in parameters(load(name)) else {}
    return open_codec(name, **given, **told)


def encode_file(job: Job, options: Options, max_pixels: int) -> str:
    """Do one file; returns the line to print."""
    if Path(job.source).suffix.lower() in TENSOR_SUFFIXES:
        raise ValueError(f"{job.source} holds tensors, no picture; `latentpack pack` packs it")
    with source_file(job.source) as source, target_file(job, options.force) as target:
        # Imported here, so that a missing or existing file is told at once.
        from latentpack.datasets.images import read_image
        from latentpack.scripts.pictures import encode_picture

        x, found = read_image(source, max_pixels, deep=options.codec().deep)
        metadata = _metadata(job, options, x, found)
        data = encode_picture(options.codec(), x, options.rate, metadata)
        line = _report(job, options, x, data)
        target.write(data)
    return line


def _metadata(job: Job, options: Options, x: "Tensor", found: dict[str, Any]) -> dict[str, Any]:
    """What goes into the file beside the samples; says what reading has changed."""
    from latentpack.scripts.pictures import bytes_asked

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


def _report(job: Job, options: Options, x: "Tensor", data: bytes) -> str:
    """The line about a file; says where a target was missed."""
    from latentpack.datasets.metrics import psnr_db
    from latentpack.scripts.pictures import bits_per_pixel, bytes_asked, decode_picture

    rate, bpp = options.rate, bits_per_pixel(len(data), x)
    line = f"{job.source} -> {job.target}: {len(data):,} bytes, {bpp:.3f} bpp"
    if options.show_psnr or (rate and rate.name == "psnr"):
        reached = psnr_db(x, decode_picture(data, options.codec())[0])
        line += f", {reached:.2f} dB"
        if rate and rate.name == "psnr" and abs(reached - rate.value) > _PSNR_TOLERANCE_DB:
            note(job, f"asked for {rate.value:g} dB, the nearest reached is {reached:.2f} dB")
    asked = bytes_asked(rate, x)
    if asked is not None and abs(len(data) - asked) > _TOLERANCE * asked:
        text = f"asked for {asked:,.0f} bytes, the nearest reached is {len(data):,} ({bpp:.3f} bpp)"
        note(job, text)
    return line


if __name__ == "__main__":
    main("encode")
