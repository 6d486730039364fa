"""The comparison of video codecs as tables for the terminal."""

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from latentpack.scripts.video_curves import Row

_LEAST_WIDTH = 150  # where there is no terminal: a folded table can't be read


def show(rows: list[Row]) -> None:
    """Print BD-rates and speeds, how quality goes over time, and the curves."""
    console = Console()
    if not console.is_terminal:
        console.width = max(console.width, _LEAST_WIDTH)
    console.print(_bd_rates(rows))
    console.print(_drift(rows))
    console.print("bits per pixel / YUV PSNR in dB / kbps:")
    for row in rows:
        points = "  ".join(f"{p.bpp:.4f}/{p.psnr_yuv:.2f}/{p.kbps:.0f}" for p in row.points)
        console.print(f"{row.codec} ({row.settings}; {row.container}):\n  {points}",
                      highlight=False, markup=False)  # fmt: skip


def _bd_rates(rows: list[Row]) -> Table:
    first = rows[0]
    clips = list(first.by_clip)
    title = f"{first.case}, {len(clips)} clips: size against {first.anchor} at equal quality"
    table = Table(title=escape(title), caption="speeds of one thread in the middle of a curve; "
                  "packets: without any container")  # fmt: skip
    table.add_column("codec", overflow="fold", min_width=14)
    heads = ("YUV PSNR", "RGB PSNR", "MS-SSIM", "YUV, packets")
    names = [clip.partition("_")[0] for clip in clips] if 1 < len(clips) <= 4 else []
    for head in (*heads, *names, "encode fps", "decode fps", "decode Mpx/s"):
        table.add_column(escape(head), justify="right")
    for row in rows:
        middle = row.points[len(row.points) // 2]
        values = (row.bd_rate, row.bd_rate_rgb, row.bd_rate_ms_ssim, row.bd_rate_bare)
        table.add_row(
            escape(row.codec),
            *map(_percent, values),
            *(_percent(row.by_clip[clip]) for clip in clips if names),
            f"{middle.encode_fps:.3g}",
            f"{middle.decode_fps:.3g}",
            f"{middle.decode_mpx_per_s:.3g}",
        )
    return table


def _drift(rows: list[Row]) -> Table:
    """PSNR by position: the middle point of each curve."""
    stretches = len(rows[0].points[0].by_time)
    table = Table(title="YUV PSNR in dB over time, in the middle of each curve")
    table.add_column("codec", overflow="fold", min_width=14)
    for i in range(stretches):
        table.add_column(f"{i + 1}/{stretches}", justify="right")
    for head in ("first to last", "changes dB"):
        table.add_column(head, justify="right")
    for row in rows:
        middle = row.points[len(row.points) // 2]
        table.add_row(
            escape(row.codec),
            *(f"{value:.2f}" for value in middle.by_time),
            "-" if middle.drift_db is None else f"{middle.drift_db:+.2f}",
            "-" if middle.change is None else f"{middle.change:.2f}",
        )
    return table


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{value:+.1f} %"
