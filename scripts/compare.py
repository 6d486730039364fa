"""Command line: latentpack compare photo.png --codecs image/light,avif --bpp 0.2."""

import importlib
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

_KINDS = ("pictures", "sounds", "videos")


@click.command()
@click.argument("sources", nargs=-1, required=True, metavar="FILE...")
@click.option(
    "--codecs",
    help="Which, separated by commas; options of a codec follow an @.  [default: a few]",
)
@click.option("--bpp", type=float, help="Bits per pixel, whole file.  [default for pictures: 0.3]")
@click.option("--kbps", type=float, help="Of videos, whole file without sound.  [default: 300]")
@click.option("--max-bytes", type=click.IntRange(min=1), help="Largest size of a file.")
@click.option("--psnr", type=float, help="Quality in dB, over the colours that show.")
@click.option("-q", "--quality", type=float, help="0 to 100, the codec's own scale.")
@click.option("--start", type=Duration(), help="What is left out at the start of sounds, videos.")
@click.option("--seconds", type=Duration(), help="The most of a sound or video.  [default: 30 and "
              "10; at most 5m and 1m]")  # fmt: skip
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
    """Show what codecs make of pictures, sounds or videos, on one page for a browser.

    The page is one file that needs no network. Pictures: original and results with a slider between
    any two, zoom, differences, sizes and times; each codec meets the rate as nearly as it can. A
    codec is one of latentpack's, with options if you like, or jpeg, webp, jpeg2000, avif, jxl,
    hevc.

    Sounds: players that go from one version to another without a gap, waveforms, spectrograms,
    sizes, qualities, a blind test. Each codec has its own rate: audio/rvq@kbps=6, audio/lossless,
    opus@12, mp3@32, aac@24 ...

    Videos: players in step with a slider between any two versions, side by side, or their
    differences; frame by frame, with the PSNR of each. Peers: x264, x265, svt-av1, vp9, x264-ld ...
    as `evaluate video` has them.

    \b
    latentpack compare photo.png --bpp 0.2
    latentpack compare photo.png --codecs image/light,jpeg,avif,hevc --psnr 32 -o page.html
    latentpack compare *.png --codecs image/light,image/light@weights=mine.lpkw --quality 40
    latentpack compare photo.png --codecs image/fit@preset=best,effort=3,avif --max-bytes 9000
    latentpack compare speech.wav --codecs audio/rvq@kbps=6,audio/rvq@kbps=3,opus@6
    latentpack compare podcast.mp3 --start 2m --seconds 20s
    latentpack compare clip.mp4 --codecs video/lite,x264,svt-av1 --kbps 200 -o page.html
    """
    from rich.console import Console

    from latentpack.codecs.output import create
    from latentpack.scripts.jobs import find

    files = [path for path, _ in find(sources, lambda: set().union(*map(_suffixes, _KINDS)))]
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
    module = {"pictures": "datasets.images", "sounds": "datasets.audio_kinds",
              "videos": "datasets.video_formats"}[kind]  # fmt: skip
    found: set[str] = importlib.import_module(f"latentpack.{module}").suffixes()
    return found


def _kind_of(files: list[str]) -> str:
    """Of all files; those whose names tell nothing are taken for pictures."""
    kinds = {file: next((kind for kind in _KINDS[1:] if Path(file).suffix.lower()
                         in _suffixes(kind)), _KINDS[0]) for file in files}  # fmt: skip
    found = set(kinds.values())
    if len(found) > 1:
        raise ValueError(
            f"{' and '.join(sorted(found))} don't go on one page; name files of one kind"
        )
    return found.pop()


def _kind(files: list[str], codecs: str | None, asked: dict[str, Any], bar: "Progress") -> "Kind":
    found = _kind_of(files)
    if found == "sounds":
        from latentpack.scripts.listening import sounds

        return sounds(codecs, asked)
    if found == "videos":
        from latentpack.scripts.watching import videos

        return videos(codecs, asked)
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
