"""Command line: latentpack compare photo.png --codecs image/light,avif --bpp 0.2."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from latentpack.scripts.codec_options import Duration
from latentpack.scripts.main import describe, main, note

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rich.progress import Progress
    from rich.table import Table

    from latentpack.scripts.page import Kind


@click.command()
@click.argument("sources", nargs=-1, required=True, metavar="FILE...")
@click.option(
    "--codecs",
    help="Which, separated by commas; options of a codec follow an @.  [default: a few]",
)
@click.option("--bpp", type=float, help="Bits per pixel, whole file.  [default: 0.3]")
@click.option("--max-bytes", type=click.IntRange(min=1), help="Largest size of a picture's file.")
@click.option("--psnr", type=float, help="Quality in dB, over the colours that show.")
@click.option("-q", "--quality", type=float, help="Pictures: 0 to 100, the codec's own scale.")
@click.option("--start", type=Duration(), help="Of sounds, what is left out at the start.")
@click.option("--seconds", type=Duration(), help="The most of a sound.  [default: 30; at most 5m]")
@click.option(
    "-o",
    "--output",
    default="comparison.html",
    show_default=True,
    metavar="PATH",
    help="The page.",
)
@click.option("-f", "--force", is_flag=True, help="Overwrite a page that exists.")
def compare(
    sources: tuple[str, ...], codecs: str | None, output: str, force: bool, **given: Any
) -> None:
    """Show what codecs make of pictures or sounds, on one page for a browser.

    The page is one file that needs no network. Pictures: original and results with a slider between
    any two, zoom, differences, sizes and times; each codec meets the rate as nearly as it can. A
    codec is one of latentpack's, with options if you like, or jpeg, webp, jpeg2000, avif, jxl,
    hevc.

    Sounds: players that go from one version to another without a gap, waveforms, spectrograms,
    sizes, qualities, a blind test. Each codec has its own rate: audio/rvq@kbps=6, audio/lossless,
    opus@12, mp3@32, aac@24 ...

    \b
    latentpack compare photo.png --bpp 0.2
    latentpack compare photo.png --codecs image/light,jpeg,avif,hevc --psnr 32 -o page.html
    latentpack compare *.png --codecs image/light,image/light@weights=mine.lpkw --quality 40
    latentpack compare photo.png --codecs image/fit@preset=best,effort=3,avif --max-bytes 9000
    latentpack compare speech.wav --codecs audio/rvq@kbps=6,audio/rvq@kbps=3,opus@6
    latentpack compare podcast.mp3 --start 2m --seconds 20s
    """
    from rich.console import Console

    from latentpack.codecs.output import create
    from latentpack.scripts.jobs import find

    files = [path for path, _ in find(sources, lambda: _suffixes("image") | _suffixes("audio"))]
    asked = {name: value for name, value in given.items() if value is not None}
    bar = _bar()
    kind = _kind(files, codecs, asked, bar)
    with create(output, force) as file, bar:
        items = _compare(files, kind, bar)
        data = kind.page(items)
        file.write(data)
    console = Console(stderr=output == "-")
    for item in items:
        console.print(table_of(item, kind.columns))
    click.echo(f"wrote {output}, {len(data) / 1e6:.1f} MB; open it in a browser", err=output == "-")


def _suffixes(kind: str) -> set[str]:
    from latentpack.datasets import audio_kinds, images

    return audio_kinds.suffixes() if kind == "audio" else images.suffixes()


def _are_sounds(files: list[str]) -> bool:
    sounds = _suffixes("audio")
    found = {Path(file).suffix.lower() in sounds for file in files}
    if len(found) > 1:
        raise ValueError("pictures and sounds don't go on one page; name files of one kind")
    return True in found


def _kind(files: list[str], codecs: str | None, asked: dict[str, Any], bar: "Progress") -> "Kind":
    if _are_sounds(files):
        from latentpack.scripts.listening import sounds

        return sounds(codecs, asked)
    from latentpack.scripts.comparison import pictures

    return pictures(codecs, asked, bar)


def _bar() -> "Progress":
    """A bar on a terminal."""
    from rich.console import Console
    from rich.progress import Progress, TextColumn

    console = Console(stderr=True)
    columns = (*Progress.get_default_columns(), TextColumn("{task.fields[detail]}"))
    return Progress(*columns, console=console, transient=True, disable=not console.is_terminal)


def _compare(files: list[str], kind: "Kind", bar: "Progress") -> list[Any]:
    """All files through all codecs."""
    import torch

    from latentpack.scripts.jobs import source_file

    torch.set_num_threads(1)  # as the peers
    items = []
    task = bar.add_task("", total=len(files) * len(kind.codecs), detail="")
    for path in files:
        with source_file(path) as source:
            signal = kind.read(source, Path(path).name)
        results = []
        for codec in kind.codecs:
            bar.update(task, description=f"{Path(path).name}: {codec.name}", detail="")
            try:
                results.append(kind.run(codec, signal))
            except (ValueError, OSError, RuntimeError) as error:
                note(f"{path}: {codec.name} is left out: {describe(error)}")
            bar.advance(task)
        if not results:
            raise ValueError(f"{path}: no codec could code it{kind.asked}")
        items.append(kind.item(signal, results))
    return items


def table_of(item: Any, columns: "Sequence[tuple[str, str, str]]") -> "Table":
    """The figures of an item as a table for the terminal."""
    from rich.table import Table

    table = Table(title=f"{item.name}, {item.about}", title_justify="left")
    longest = max(len(result["codec"]) for result in item.results)
    table.add_column("codec", overflow="fold", min_width=min(longest, 14))
    for head, _, _ in columns:
        table.add_column(head, justify="right")
    for result in item.results:
        values = [(result[key], form) for _, key, form in columns]
        texts = ["-" if value is None else format(value, form) for value, form in values]
        table.add_row(result["codec"], *texts)
    return table


if __name__ == "__main__":
    main("compare")
