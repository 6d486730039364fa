"""Command line: latentpack evaluate image --data photos/."""

import json
from pathlib import Path
from typing import TYPE_CHECKING

import click

from latentpack.scripts.main import main

if TYPE_CHECKING:
    from latentpack.scripts.rate_distortion import Row

_QUICK_PICTURES, _QUICK_EVERY = 4, 2


@click.command()
@click.argument("kind", type=click.Choice(["image"]))
@click.option("--data", required=True, type=click.Path(path_type=Path), help="Folder of pictures.")
@click.option(
    "--codecs",
    default="image/light,jpeg,webp,jpeg2000,avif,hevc",
    show_default=True,
    help="Which, separated by commas; options of a codec follow an @.",
)
@click.option("--limit", type=click.IntRange(min=1), help="Take the first N pictures only.")
@click.option("--quick", is_flag=True, help="Four pictures and every second point.")
@click.option("--jobs", default=1, show_default=True, type=click.IntRange(min=1),
              help="Pictures coded at the same time, with one thread each.")  # fmt: skip
@click.option("--results", "results_path", type=click.Path(path_type=Path), metavar="FILE",
              help="Keep every result here, and go on from what is here.")  # fmt: skip
@click.option("--plot", "plot_path", type=click.Path(path_type=Path), help="Draw the curves.")
@click.option("--log-rate", is_flag=True, help="Draw them over the logarithm of the rate.")
@click.option("--json", "as_json", is_flag=True, help="The last line is the result as JSON.")
def evaluate(
    kind: str,
    data: Path,
    codecs: str,
    limit: int | None,
    quick: bool,
    jobs: int,
    results_path: Path | None,
    plot_path: Path | None,
    log_rate: bool,
    as_json: bool,
) -> None:
    """Measure picture codecs on a folder, side by side in one run.

    Rates are whole files. PSNR is over RGB samples and, like MS-SSIM, the mean of the pictures'
    values. BD-rate is the size against JPEG at equal quality: -30 % is a third smaller. The peers
    are set to what PSNR rewards; times are CPU seconds of one thread per megapixel. On the 24
    pictures of Kodak, stored curves of many codecs stand beside what is measured.

    \b
    latentpack evaluate image --data kodak/ --plot rd.png
    latentpack evaluate image --data kodak/ --codecs image/light,jpeg --quick
    latentpack evaluate image --data photos/ --codecs image/light,image/light@weights=mine.lpkw
    latentpack evaluate image --data photos/ --codecs image/fit@preset=best,jpeg,hevc \\
        --results fit.jsonl --jobs 2
    latentpack evaluate image --data kodak/ --json | tail -n 1 > result.json
    """
    import torch
    from rich.console import Console
    from rich.progress import track

    from latentpack.datasets.images import suffixes
    from latentpack.scripts import rate_distortion
    from latentpack.scripts.jobs import find
    from latentpack.scripts.picture_codecs import open_codecs
    from latentpack.scripts.picture_results import Results

    if plot_path:
        import matplotlib  # noqa: F401  (missing: better told now than after the measurement)
    files = [Path(path) for path, _ in find([str(data)], suffixes)]
    files = files[: _QUICK_PICTURES if quick else limit]
    opened = open_codecs(codecs)
    torch.set_num_threads(1)
    tasks = rate_distortion.plan(opened, files, _QUICK_EVERY if quick else 1)
    results = Results(results_path)
    done = rate_distortion.measure(tasks, results, jobs)
    console = Console(stderr=True)
    for _ in track(done, "files", len(tasks), console=console, transient=True,
                   disable=not console.is_terminal):  # fmt: skip
        pass
    rows = rate_distortion.compare(opened, tasks, results, data.name)
    show(rows, len(files))
    if plot_path:
        from latentpack.scripts.rate_distortion_plot import plot

        plot(rows, plot_path, log_rate)
        click.echo(f"curves drawn to {plot_path}")
    if as_json:
        click.echo(json.dumps(rate_distortion.as_json(rows)))


def show(rows: "list[Row]", pictures: int) -> None:
    """Print the comparison and the curves."""
    from rich.console import Console
    from rich.table import Table

    console = Console()
    best_first = sorted(rows, key=lambda row: row.bd_rate_vs_jpeg or 0.0)
    table = Table(title=f"{rows[0].case}, {pictures} pictures: size at equal quality")
    table.add_column("codec", overflow="fold")
    for column in ("BD-rate PSNR", "BD-rate MS-SSIM", "encode s/Mpx", "decode s/Mpx"):
        table.add_column(column, justify="right")
    for row in best_first:
        middle = row.points[len(row.points) // 2]
        table.add_row(
            f"[dim]{row.codec}[/dim]" if row.stored else row.codec,
            _percent(row.bd_rate_vs_jpeg),
            _percent(row.bd_rate_ms_ssim_vs_jpeg),
            _seconds(middle.encode_s_per_mpx),
            _seconds(middle.decode_s_per_mpx),
        )
    console.print(table)
    if any(row.stored for row in rows):
        console.print("without times: stored curves of the same pictures, measured or published")
    else:
        console.print("only codecs of this run: curves of other pictures can't be compared")
    for row in best_first:
        points = "  ".join(f"{point.bpp:.3f}/{point.psnr_db:.2f}" for point in row.points)
        console.print(f"{row.codec} ({row.settings}), bpp/dB:\n  {points}", highlight=False)


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{value:+.1f} %"


def _seconds(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}"


if __name__ == "__main__":
    main("evaluate")
