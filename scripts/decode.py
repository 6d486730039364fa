"""Command line: latentpack decode photo.lpk -o photo.png."""

import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from latentpack.scripts.info import KINDS
from latentpack.scripts.jobs import STREAM, Job, note, plan, run_jobs, source_file, target_file
from latentpack.scripts.main import main

if TYPE_CHECKING:
    from latentpack.codecs.codec import Codec

LPK_SUFFIXES = {".lpk"}


@click.command()
@click.argument("sources", nargs=-1, required=True, metavar="FILE.lpk...")
@click.option("-o", "--output", metavar="PATH", help="File, folder, or - for standard output.")
@click.option("--format", "format_name", help="png, jpg, webp, tiff, ...  [default: by name, png]")
@click.option("--weights", type=click.Path(path_type=Path), help="Weights it was encoded with.")
@click.option("--levels", type=click.IntRange(1), help="The most levels of codes to decode.")
@click.option("--keep-going", is_flag=True, help="Decode the whole levels of a cut file.")
@click.option("--threads", type=click.IntRange(min=1), help="Threads to compute with.")
@click.option("-f", "--force", is_flag=True, help="Overwrite files that exist.")
def decode(
    sources: tuple[str, ...],
    output: str | None,
    format_name: str | None,
    weights: Path | None,
    levels: int | None,
    keep_going: bool,
    threads: int | None,
    force: bool,
) -> None:
    """Turn .lpk files back into pictures.

    The name of the output says its format; PNG, WebP and TIFF keep every sample, JPEG and AVIF
    lose a little more. Alpha, ICC profile and EXIF are written where the format holds them.
    Files of tensors are turned back by `latentpack unpack`. Files of image/tokens may be decoded to
    their first levels, and with --keep-going to those that are whole in a file that was cut.

    \b
    latentpack decode photo.lpk                        photo.png beside it
    latentpack decode photo.lpk -o photo.webp
    latentpack decode packed/ -o pictures/ --format jpg
    latentpack decode - -o - --format png < photo.lpk | display
    """
    from latentpack.datasets.images import picture_format

    if format_name is not None:
        picture_format(format_name)
    elif output == STREAM:
        raise click.UsageError("standard output has no name to tell the format; give --format")
    suffix = "." + (format_name or "png").lower().removeprefix(".")
    jobs = plan(sources, output, suffix, lambda: LPK_SUFFIXES)
    if threads:
        import torch

        torch.set_num_threads(threads)
    options = {"weights": weights, "levels": levels, "keep_going": keep_going or None}
    codecs: dict[int, Codec] = {}
    run_jobs(jobs, lambda job: decode_file(job, format_name, options, force, codecs))


def decode_file(
    job: Job,
    format_name: str | None,
    options: dict[str, Any],
    force: bool,
    codecs: "dict[int, Codec]",
) -> str:
    """Do one file; `codecs` holds those that are loaded. Returns the line to print.

    What the codec warns of is noted: how much of a damaged file is in the picture.
    """
    from latentpack.codecs.codec import DamageWarning
    from latentpack.codecs.container import Reader
    from latentpack.datasets.images import picture_format, write_image
    from latentpack.scripts.pictures import open_codec

    format_name = picture_format(format_name or Path(job.target).suffix or "png")
    with source_file(job.source) as source, target_file(job, force) as target:
        reader = Reader(source)
        if reader.codec_id not in codecs:
            codecs[reader.codec_id] = open_codec(reader.codec_id, **options)
        with warnings.catch_warnings(record=True, category=DamageWarning) as caught:
            warnings.simplefilter("always", DamageWarning)
            x = codecs[reader.codec_id].decode(reader.params, reader.packets())
        for warning in caught:
            note(job, str(warning.message))
        for text in write_image(target, x, reader.metadata, format_name):
            note(job, text)
    channels, height, width = x.shape
    return f"{job.source} -> {job.target}: {width}x{height} {KINDS[channels]}"


if __name__ == "__main__":
    main("decode")
