"""Command line: latentpack decode photo.lpk -o photo.png."""

from pathlib import Path
from typing import Any

import click

from latentpack.scripts import media
from latentpack.scripts.codec_options import Duration
from latentpack.scripts.jobs import STREAM, Job, plan, run_jobs, source_file, target_file
from latentpack.scripts.main import main

LPK_SUFFIXES = {".lpk"}


class _Bits(click.Choice[str]):
    """`float` is 0."""

    def __init__(self) -> None:
        super().__init__(["8", "16", "24", "32", "float"])

    def convert(self, value: Any, param: Any, ctx: Any) -> Any:
        chosen = super().convert(value, param, ctx)
        return 0 if chosen == "float" else int(chosen)


@click.command()
@click.argument("sources", nargs=-1, required=True, metavar="FILE.lpk...")
@click.option("-o", "--output", metavar="PATH", help="File, folder, or - for standard output.")
@click.option(
    "--format", "format_name", help="png, jpg, ..., wav, flac, mp3, ...  [by name; png, wav]"
)
@click.option("--weights", type=click.Path(path_type=Path), help="Weights it was encoded with.")
@click.option("--levels", type=click.IntRange(1), help="The most levels of codes to decode.")
@click.option("--start", type=Duration(zero=True), help="Of a sound, leave out this time before.")
@click.option("--duration", type=Duration(), help="Of a sound, decode so much, e.g. 30s or 1.5m.")
@click.option("--bits", type=_Bits(), help="Of a sound's samples: 8, 16, 24, 32 or float.  [16]")
@click.option(
    "--keep-going",
    is_flag=True,
    help="Of a damaged file: the whole levels of a picture; a sound with its gaps concealed.",
)
@click.option("--threads", type=click.IntRange(min=1), help="Threads to compute with.")
@click.option("-f", "--force", is_flag=True, help="Overwrite files that exist.")
def decode(
    sources: tuple[str, ...],
    output: str | None,
    format_name: str | None,
    weights: Path | None,
    levels: int | None,
    start: float | None,
    duration: float | None,
    bits: int | None,
    keep_going: bool,
    threads: int | None,
    force: bool,
) -> None:
    """Turn .lpk files back into pictures and sounds.

    The name of the output says its format. PNG, WebP and TIFF keep every sample of a picture,
    JPEG and AVIF lose a little more; alpha, ICC profile and EXIF are written where the format
    holds them. WAV, FLAC, AIFF and WavPack keep every sample of a sound, MP3, Opus and M4A don't;
    sounds get their own sample rate, if the format has it, and their tags.
    Files of tensors are turned back by `latentpack unpack`. Files of image/tokens may be decoded to
    their first levels, and with --keep-going to those that are whole in a file that was cut.

    \b
    latentpack decode photo.lpk                        photo.png beside it
    latentpack decode photo.lpk -o photo.webp
    latentpack decode packed/ -o pictures/ --format jpg
    latentpack decode - -o - --format png < photo.lpk | display
    latentpack decode speech.lpk                       speech.wav beside it
    latentpack decode speech.lpk -o part.mp3 --start 2m --duration 30s
    latentpack decode damaged.lpk -o most.flac --keep-going
    """
    if format_name is not None:
        _check_format(format_name)
    elif output == STREAM:
        raise click.UsageError("standard output has no name to tell the format; give --format")
    asked = None if format_name is None else "." + format_name.lower().removeprefix(".")
    jobs = plan(sources, output, asked or media.decoded_suffix, lambda: LPK_SUFFIXES)
    if threads:
        import torch

        torch.set_num_threads(threads)
    given = {"weights": weights, "levels": levels, "keep_going": keep_going or None}
    options = media.DecodeOptions(format_name, given, force, start, duration, bits, threads)
    run_jobs(jobs, lambda job: decode_file(job, options))


def _check_format(name: str) -> None:
    from latentpack.datasets.audio_writer import audio_format
    from latentpack.datasets.images import picture_format

    try:
        audio_format(name)
    except ValueError as no_sound:
        try:
            picture_format(name)
        except ValueError as no_picture:
            raise ValueError(f"{no_picture}; {no_sound}") from None


def decode_file(job: Job, options: media.DecodeOptions) -> str:
    """Do one file; returns the line to print."""
    from latentpack.codecs.container import Reader

    with source_file(job.source) as source, target_file(job, options.force) as target:
        if media.kind_of_lpk(job.source, Reader(source)) == media.SOUND:
            from latentpack.scripts import sound_files as files
        else:
            from latentpack.scripts import picture_files as files  # type: ignore[no-redef]
        return files.decode_file(job, source, target, options)


if __name__ == "__main__":
    main("decode")
