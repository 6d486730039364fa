"""Command line: latentpack compare photo.png --codecs image/light,avif --bpp 0.2."""

import io
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from latentpack.codecs.codec import Rate
from latentpack.scripts.main import main

if TYPE_CHECKING:
    from rich.progress import Progress

    from latentpack.scripts.comparison import Picture
    from latentpack.scripts.picture_codecs import PictureCodec


@click.command()
@click.argument("sources", nargs=-1, required=True, metavar="PICTURE...")
@click.option(
    "--codecs",
    default="image/light,jpeg,webp,avif",
    show_default=True,
    help="Which, separated by commas; options of a codec follow an @.",
)
@click.option("--bpp", type=float, help="Bits per pixel, whole file.  [default: 0.3]")
@click.option("--max-bytes", type=click.IntRange(min=1), help="Largest size of a file.")
@click.option("--psnr", type=float, help="Quality in dB, over the colours that show.")
@click.option("-q", "--quality", type=float, help="0 to 100, the codec's own scale.")
@click.option(
    "-o",
    "--output",
    default="comparison.html",
    show_default=True,
    metavar="PATH",
    help="The page.",
)
@click.option("-f", "--force", is_flag=True, help="Overwrite a page that exists.")
def compare(sources: tuple[str, ...], codecs: str, output: str, force: bool, **rates: Any) -> None:
    """Show what codecs make of pictures, on one page for a browser.

    The page is one file that needs no network: original and results with a slider between any
    two, zoom, differences, sizes and times. Each codec meets the rate as nearly as it can. A
    codec is one of latentpack's, with options if you like, or jpeg, webp, jpeg2000, avif, jxl,
    hevc.

    \b
    latentpack compare photo.png --bpp 0.2
    latentpack compare photo.png --codecs image/light,jpeg,avif,hevc --psnr 32 -o page.html
    latentpack compare *.png --codecs image/light,image/light@weights=mine.lpkw --quality 40
    latentpack compare photo.png --codecs image/fit@preset=best,effort=3,avif --max-bytes 9000
    """
    asked = {name: value for name, value in rates.items() if value is not None}
    if len(asked) > 1:
        raise click.UsageError(f"--{' and --'.join(asked)} exclude each other".replace("_", "-"))
    rate = Rate.of(**asked or {"bpp": 0.3})
    if rate.name == "quality" and rate.value > 100:
        raise click.UsageError(f"--quality must be 0 to 100, got {rate.value:g}")

    from latentpack.codecs.output import create
    from latentpack.datasets.images import suffixes
    from latentpack.scripts import comparison
    from latentpack.scripts.jobs import find
    from latentpack.scripts.picture_codecs import open_codecs

    files = [path for path, _ in find(sources, suffixes)]
    bar = _bar()
    opened = open_codecs(codecs, lambda *values: _show_fit(bar, *values))
    with create(output, force) as file, bar:
        pictures = _compare(files, opened, rate, bar)
        data = comparison.page(pictures, rate)
        file.write(data)
    _print(pictures, to_stderr=output == "-")
    click.echo(f"wrote {output}, {len(data) / 1e6:.1f} MB; open it in a browser", err=output == "-")


def _bar() -> "Progress":
    """A bar on a terminal."""
    from rich.console import Console
    from rich.progress import Progress, TextColumn

    console = Console(stderr=True)
    columns = (*Progress.get_default_columns(), TextColumn("{task.fields[detail]}"))
    return Progress(*columns, console=console, transient=True, disable=not console.is_terminal)


def _show_fit(bar: "Progress", step: int, steps: int, bpp: float, psnr: float) -> None:
    """How far a codec is that takes minutes for a picture."""
    detail = f"step {step} of {steps}, {bpp:.3f} bpp, {psnr:.2f} dB"
    bar.update(bar.task_ids[-1], detail=detail)


def _compare(
    files: list[str], codecs: "list[PictureCodec]", rate: Rate, bar: "Progress"
) -> "list[Picture]":
    """All pictures through all codecs."""
    import torch

    from latentpack.datasets.images import read_image
    from latentpack.scripts import comparison
    from latentpack.scripts.jobs import source_file
    from latentpack.scripts.main import describe
    from latentpack.scripts.picture_codecs import note

    torch.set_num_threads(1)  # as the peers
    pictures = []
    task = bar.add_task("", total=len(files) * len(codecs), detail="")
    for path in files:
        with source_file(path) as source:
            x, found = read_image(source)
            size = source.seek(0, io.SEEK_END)
        results = []
        for codec in codecs:
            bar.update(task, description=f"{Path(path).name}: {codec.name}", detail="")
            try:
                results.append(comparison.run(codec, x, rate))
            except (ValueError, OSError, RuntimeError) as error:
                note(f"{path}: {codec.name} is left out: {describe(error)}")
            bar.advance(task)
        if not results:
            raise ValueError(f"{path}: no codec could code it at {rate}")
        pictures.append(comparison.picture(Path(path).name, size, x, found, results))
    return pictures


def _print(pictures: "list[Picture]", to_stderr: bool) -> None:
    from rich.console import Console
    from rich.table import Table

    console = Console(stderr=to_stderr)
    for picture in pictures:
        table = Table(title=f"{picture.name}, {picture.width}x{picture.height}")
        table.add_column("codec", overflow="fold")
        for column in ("bytes", "bpp", "PSNR dB", "MS-SSIM", "encode s", "decode s"):
            table.add_column(column, justify="right")
        for result in picture.results:
            similarity = result["ms_ssim"]
            table.add_row(
                result["codec"],
                f"{result['bytes']:,}",
                f"{result['bpp']:.3f}",
                f"{result['psnr_db']:.2f}",
                "-" if similarity is None else f"{similarity:.4f}",
                f"{result['encode_s']:.2f}",
                f"{result['decode_s']:.2f}",
            )
        console.print(table)


if __name__ == "__main__":
    main("compare")
