"""Rate-distortion curves as a picture: PSNR and MS-SSIM over the rate."""

from collections.abc import Callable
from pathlib import Path

from latentpack.scripts.curves_plot import Line, draw
from latentpack.scripts.rate_distortion import Point, Row, ms_ssim_db

_MOST_BPP = 2.0  # of a linear axis; beyond it pictures look alike
_PANELS: dict[str, Callable[[Point], float | None]] = {
    "PSNR of RGB (dB)": lambda point: point.psnr_db,
    "MS-SSIM (dB: -10 log10(1 - x))": ms_ssim_db,
}


def plot(rows: list[Row], path: Path, log_rate: bool) -> None:
    """Draw the curves; the suffix of the path says the format.

    Args:
        rows: of `rate_distortion.compare`.
        path: is overwritten.
        log_rate: on a logarithmic axis equal distances are equal savings.
    """
    shown = sorted((row for row in rows if row.drawn), key=lambda row: row.bd_rate_vs_jpeg or 0.0)
    most = float("inf") if log_rate else _MOST_BPP
    lines = [
        Line(
            _label(row),
            row.ours,
            row.stored,
            [
                [
                    (point.bpp, value)
                    for point in row.points
                    if point.bpp <= most and (value := quality(point)) is not None
                ]
                for quality in _PANELS.values()
            ],
        )
        for row in shown
    ]
    legend = "size against JPEG\nat equal PSNR (BD-rate)"
    draw(lines, list(_PANELS), "bits per pixel, whole files", title(rows), legend, path, log_rate)


def title(rows: list[Row]) -> str:
    """What is compared with what."""
    count = len({result.digest for row in rows for result in row.pictures})
    about = f"{rows[0].case}, mean of {count} picture{'s' if count > 1 else ''}"
    if any(row.stored for row in rows):
        return f"{about}; dashed: stored curves of the same pictures"
    return f"{about}; only codecs of this run, as curves of other pictures can't be compared"


def _label(row: Row) -> str:
    name = f"latentpack {row.codec}" if row.ours else row.codec
    return name if row.bd_rate_vs_jpeg is None else f"{row.bd_rate_vs_jpeg:+.1f} %  {name}"
