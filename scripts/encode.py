"""Command line: latentpack encode photo.png speech.wav --quality 60."""

import sys
from contextlib import AbstractContextManager, nullcontext
from typing import Any, BinaryIO

import click

from latentpack.codecs.codec import Rate
from latentpack.codecs.registry import codec_id
from latentpack.scripts import media
from latentpack.scripts.codec_options import Duration, codec_options, split
from latentpack.scripts.fit_progress import FitProgress
from latentpack.scripts.jobs import STREAM, Job, plan, run_jobs, source_file, target_file
from latentpack.scripts.main import main


@click.command()
@click.argument("sources", nargs=-1, required=True, metavar="FILE...")
@click.option("-o", "--output", metavar="PATH", help="File, folder, or - for standard output.")
@click.option("-q", "--quality", type=float, help="0 to 100, more is better.  [50; sounds: 100]")
@click.option("--kbps", type=float, help="1000 bits per second of sound or video, whole file.")
@click.option("--bpp", type=float, help="Bits per pixel, whole file.")
@click.option("--max-bytes", type=click.IntRange(min=1), help="Largest size of the file.")
@click.option("--ratio", type=float, help="Bytes of the samples over bytes of the file.")
@click.option("--psnr", type=float, help="Quality in dB, over all samples.")
@click.option("--codec", help="Which codec.  [image/light, audio/rvq, video/lite]")
@codec_options
@click.option("--show-psnr", is_flag=True, help="Decode again and print the PSNR.")
@click.option(
    "--no-metadata", is_flag=True, help="Leave out ICC profile, EXIF, resolution and tags."
)
@click.option(
    "--stream", type=click.IntRange(0), help="Which sound, or video, of a file, from 0.  [best]"
)
@click.option("--start", type=Duration(zero=True), help="Of a video, leave out this time before.")
@click.option("--end", type=Duration(), help="Of a video, end at this time, e.g. 90s or 1.5m.")
@click.option(
    "--audio",
    default=media.AUDIO_COPY,
    show_default=True,
    help="A video's sounds: copy, drop, code (by audio/rvq), or the name of a codec.",
)
@click.option("--audio-kbps", type=float, help="Of each sound of a video that is coded.")
@click.option("--keep-going", is_flag=True, help="Take what can be read of a damaged file.")
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
    stream: int | None,
    start: float | None,
    end: float | None,
    audio: str,
    audio_kbps: float | None,
    keep_going: bool,
    **others: Any,
) -> None:
    """Turn pictures, sounds and videos into .lpk files.

    Takes any picture file: PNG, JPEG, WebP, TIFF, BMP, AVIF, GIF, ...; alpha is kept without
    loss, EXIF orientation is applied; image/lossless takes all 16 bits of PNG and TIFF, others 8.
    Any sound that FFmpeg reads: WAV, FLAC, MP3, AAC, Opus, ..., at any sample rate, with any
    channels, of any length; tags are kept.
    And any video: MP4, MKV, MOV, WebM, Y4M, ..., with 8 or 10 bits, of any size, frame rate and
    length; times, colours, rotation, sounds, subtitles and chapters are kept. A codec of sounds
    takes the sound of a video alone.
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
    latentpack encode film.mp4 --kbps 500                 film.lpk, sounds copied
    latentpack encode film.mp4 --start 1m --end 2m --audio code --audio-kbps 6
    latentpack encode film.mp4 --codec audio/rvq --stream 1   its second sound alone
    """
    given, rates = split(others)
    asked = {name: value for name, value in rates.items() if value is not None}
    if len(asked) > 1:
        raise click.UsageError(f"--{' and --'.join(asked)} exclude each other".replace("_", "-"))
    rate = Rate.of(**asked) if asked else None
    if codec is not None:
        codec_id(codec)  # an unknown name is told before any file is looked at
    audio = _audio(audio)
    if end is not None and end <= (start or 0):
        raise click.UsageError(f"--end {end:g}s is not behind --start {start or 0:g}s")
    jobs = plan(sources, output, ".lpk", lambda: media.suffixes(codec))
    if threads:
        import torch

        torch.set_num_threads(threads)
    with FitProgress() as progress:
        options = media.EncodeOptions(
            codec, given, rate, force, show_psnr, not no_metadata, max_pixels, stream, keep_going,
            progress, threads, start, end, audio, Rate(kbps=audio_kbps) if audio_kbps else None,
        )  # fmt: skip
        run_jobs(jobs, lambda job: encode_file(job, options))


def _audio(audio: str) -> str:
    """What becomes of a video's sounds: copy, drop, or the name of a codec."""
    if audio in (media.AUDIO_COPY, media.AUDIO_DROP):
        return audio
    name = "audio/rvq" if audio == "code" else audio
    if not name.startswith(media.SOUND + "/"):
        raise click.UsageError(f"--audio is {audio}; it takes copy, drop, code or audio/...")
    codec_id(name)
    return name


def _source(path: str, options: media.EncodeOptions) -> AbstractContextManager[BinaryIO]:
    """The file; a video that comes through a pipe is read as it comes, if it is known to be one."""
    is_video = options.codec is not None and options.codec.startswith(media.VIDEO + "/")
    if path == STREAM and is_video and not options.looks_ahead:
        return nullcontext(sys.stdin.buffer)
    return source_file(path)


def encode_file(job: Job, options: media.EncodeOptions) -> str:
    """Do one file; returns the line to print."""
    media.refuse_tensors(job.source)
    with _source(job.source, options) as source, target_file(job, options.force) as target:
        kind = media.kind_of(job.source, source, options.codec)
        if kind != media.VIDEO:
            options.refuse_for("a sound" if kind == media.SOUND else "a picture")
        # Imported here, so that a missing or existing file is told at once.
        line: str = media.files_of(kind).encode_file(job, source, target, options)
        return line


if __name__ == "__main__":
    main("encode")
