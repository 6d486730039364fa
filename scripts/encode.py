"""Command line: latentpack encode photo.png speech.wav --quality 60."""

from typing import Any

import click

from latentpack.codecs.codec import Rate
from latentpack.codecs.registry import codec_id
from latentpack.scripts import media
from latentpack.scripts.codec_options import codec_options, split
from latentpack.scripts.fit_progress import FitProgress
from latentpack.scripts.jobs import Job, plan, run_jobs, source_file, target_file
from latentpack.scripts.main import main


@click.command()
@click.argument("sources", nargs=-1, required=True, metavar="FILE...")
@click.option("-o", "--output", metavar="PATH", help="File, folder, or - for standard output.")
@click.option("-q", "--quality", type=float, help="0 to 100, more is better.  [50; sounds: 100]")
@click.option("--kbps", type=float, help="1000 bits per second of sound, whole file.")
@click.option("--bpp", type=float, help="Bits per pixel, whole file.")
@click.option("--max-bytes", type=click.IntRange(min=1), help="Largest size of the file.")
@click.option("--ratio", type=float, help="Bytes of the samples over bytes of the file.")
@click.option("--psnr", type=float, help="Quality in dB, over all samples.")
@click.option("--codec", help="Which codec.  [image/light for pictures, audio/rvq for sounds]")
@codec_options
@click.option("--show-psnr", is_flag=True, help="Decode again and print the PSNR.")
@click.option(
    "--no-metadata", is_flag=True, help="Leave out ICC profile, EXIF, resolution and tags."
)
@click.option("--stream", type=click.IntRange(0), default=0, help="Which sound of a file.  [0]")
@click.option("--keep-going", is_flag=True, help="Take what can be read of a damaged sound.")
@click.option("--threads", type=click.IntRange(min=1), help="Threads to compute with.")
@click.option("--max-pixels", type=int, default=100_000_000, show_default=True, help="Refuse more.")
@click.option("-f", "--force", is_flag=True, help="Overwrite files that exist.")
def encode(
    sources: tuple[str, ...],
    output: str | None,
    codec: str | None,
    threads: int | None,
    max_pixels: int,
    force: bool,
    show_psnr: bool,
    no_metadata: bool,
    stream: int,
    keep_going: bool,
    **others: Any,
) -> None:
    """Turn pictures and sounds into .lpk files.

    Takes any picture file: PNG, JPEG, WebP, TIFF, BMP, AVIF, GIF, ...; alpha is kept without
    loss, EXIF orientation is applied; image/lossless takes all 16 bits of PNG and TIFF, others 8.
    And any sound that FFmpeg reads: WAV, FLAC, MP3, AAC, Opus, ..., also that of videos, at any
    sample rate, with any channels, of any length; tags are kept.
    At most one of --quality, --kbps, --bpp, --max-bytes, --ratio and --psnr says how good or how
    small; a target is met as nearly as the codec can.

    \b
    latentpack encode photo.png                           photo.lpk beside it, quality 50
    latentpack encode photo.png -o small.lpk --bpp 0.3    0.3 bits per pixel
    latentpack encode photo.png --max-bytes 20000         at most 20 kB
    latentpack encode photo.png --psnr 34 --force         34 dB; overwrites photo.lpk
    latentpack encode deep.png --codec image/lossless     every sample, 8 or 16 bits
    latentpack encode holiday/ "more/*.jpg" -o packed/    folders (to the bottom) and patterns
    latentpack encode - -o - < photo.png > photo.lpk      from and to a pipe
    latentpack encode photo.png --codec image/fit --time-budget 60s --resume photo.state
    latentpack encode speech.wav --kbps 3                 speech.lpk, 3 kbit/s
    latentpack encode album/ -o packed/ --codec audio/lossless
    latentpack encode film.mp4 -o film.lpk --stream 1     the second sound of a video
    """
    given, rates = split(others)
    asked = {name: value for name, value in rates.items() if value is not None}
    if len(asked) > 1:
        raise click.UsageError(f"--{' and --'.join(asked)} exclude each other".replace("_", "-"))
    rate = Rate.of(**asked) if asked else None
    if codec is not None:
        codec_id(codec)  # an unknown name is told before any file is looked at
    jobs = plan(sources, output, ".lpk", lambda: media.suffixes(codec))
    if threads:
        import torch

        torch.set_num_threads(threads)
    with FitProgress() as progress:
        options = media.EncodeOptions(
            codec, given, rate, force, show_psnr, not no_metadata, max_pixels, stream, keep_going,
            progress, threads,
        )  # fmt: skip
        run_jobs(jobs, lambda job: encode_file(job, options))


def encode_file(job: Job, options: media.EncodeOptions) -> str:
    """Do one file; returns the line to print."""
    media.refuse_tensors(job.source)
    with source_file(job.source) as source, target_file(job, options.force) as target:
        # Imported here, so that a missing or existing file is told at once.
        if media.kind_of(job.source, source, options.codec) == media.SOUND:
            from latentpack.scripts import sound_files as files
        else:
            from latentpack.scripts import picture_files as files  # type: ignore[no-redef]
        return files.encode_file(job, source, target, options)


if __name__ == "__main__":
    main("encode")
