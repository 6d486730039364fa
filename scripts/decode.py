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


class _Crf(click.ParamType[Any]):
    """A number, or `lossless`."""

    name = "number"

    def convert(self, value: Any, param: Any, ctx: Any) -> Any:
        if value == "lossless" or isinstance(value, float):
            return value
        try:
            return float(value)
        except ValueError:
            self.fail(f"{value!r} is no number, and not lossless", param, ctx)


@click.command()
@click.argument("sources", nargs=-1, required=True, metavar="FILE.lpk...")
@click.option("-o", "--output", metavar="PATH", help="File, folder, or - for standard output.")
@click.option(
    "--format",
    "format_name",
    help="png, jpg, ..., wav, flac, mp3, ..., mkv, mp4, y4m, ...  [by name; png, wav, mkv]",
)
@click.option("--weights", type=click.Path(path_type=Path), help="Weights it was encoded with.")
@click.option("--levels", type=click.IntRange(1), help="The most levels of codes to decode.")
@click.option(
    "--start", type=Duration(zero=True), help="Of a sound or video, leave out this time before."
)
@click.option("--duration", type=Duration(), help="Of a sound or video, decode so much, e.g. 30s.")
@click.option("--end", type=Duration(), help="Of a sound or video, end at this time, e.g. 1.5m.")
@click.option("--encoder", help="Of a video's picture, FFmpeg's name.  [ffv1, libx264, ...]")
@click.option(
    "--crf", type=_Crf(), help="Its quality, or lossless.  [ffv1: lossless; others: nearly so]"
)
@click.option("--bits", type=_Bits(), help="Of a sound's samples: 8, 16, 24, 32 or float.  [16]")
@click.option(
    "--keep-going",
    is_flag=True,
    help="Of a damaged file: the whole levels of a picture; a sound with its gaps concealed; the "
    "whole parts of a video.",
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
    end: float | None,
    encoder: str | None,
    crf: float | str | None,
    bits: int | None,
    keep_going: bool,
    threads: int | None,
    force: bool,
) -> None:
    """Turn .lpk files back into pictures, sounds and videos.

    The name of the output says its format. PNG, WebP and TIFF keep every sample of a picture,
    JPEG and AVIF lose a little more; alpha, ICC profile and EXIF are written where the format
    holds them. WAV, FLAC, AIFF and WavPack keep every sample of a sound, MP3, Opus and M4A don't;
    sounds get their own sample rate, if the format has it, and their tags.
    MKV keeps every sample of a video, of odd sizes and 10 bits too; MP4 and MOV are coded by x264,
    nearly without loss; sounds, subtitles and chapters are copied back, times are exact. Y4M is the
    bare picture.
    Files of tensors are turned back by `latentpack unpack`. Files of image/tokens may be decoded to
    their first levels, and with --keep-going to those that are whole in a file that was cut.

    \b
    latentpack decode photo.lpk                        photo.png beside it
    latentpack decode photo.lpk -o photo.webp
    latentpack decode packed/ -o pictures/ --format jpg
    latentpack decode - -o - --format png < photo.lpk | display
    latentpack decode speech.lpk                       speech.wav beside it
    latentpack decode speech.lpk -o part.mp3 --start 2m --duration 30s
    latentpack decode film.lpk -o part.mp4 --start 10s --end 20s --crf 18
    latentpack decode film.lpk -o - --format y4m | ffplay -
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
    if end is not None:
        if duration is not None:
            raise click.UsageError("--end and --duration exclude each other")
        if end <= (start or 0):
            raise click.UsageError(f"--end {end:g}s is not behind --start {start or 0:g}s")
        duration = end - (start or 0)
    given = {"weights": weights, "levels": levels, "keep_going": keep_going or None}
    options = media.DecodeOptions(
        format_name, given, force, start, duration, bits, threads, encoder, crf
    )
    run_jobs(jobs, lambda job: decode_file(job, options))


def _check_format(name: str) -> None:
    from latentpack.datasets.audio_writer import audio_format
    from latentpack.datasets.images import picture_format
    from latentpack.datasets.video_formats import video_format

    problems = []
    for check in (picture_format, audio_format, video_format):
        try:
            check(name)
        except ValueError as problem:
            problems.append(str(problem))
        else:
            return
    raise ValueError("; ".join(problems))


def decode_file(job: Job, options: media.DecodeOptions) -> str:
    """Do one file; returns the line to print."""
    from latentpack.codecs.container import Reader

    with source_file(job.source) as source, target_file(job, options.force) as target:
        kind = media.kind_of_lpk(job.source, Reader(source))
        if kind != media.VIDEO:
            what = "a sound" if kind == media.SOUND else "a picture"
            options.refuse_for(what, "encoder", "crf")
        line: str = media.files_of(kind).decode_file(job, source, target, options)
        return line


if __name__ == "__main__":
    main("decode")
