"""Rate-distortion curves of video codecs as a picture: PSNR and MS-SSIM over the rate."""

from collections.abc import Callable
from pathlib import Path

from latentpack.scripts.curves_plot import Line, draw
from latentpack.scripts.video_curves import Point, Row, ms_ssim_db

_PANELS: dict[str, Callable[[Point], float | None]] = {
    "PSNR of YUV 6:1:1 (dB)": lambda point: point.psnr_yuv,
    "MS-SSIM of luma (dB: -10 log10(1 - x))": lambda point: ms_ssim_db(point.ms_ssim),
}


def plot(rows: list[Row], path: Path, log_rate: bool) -> None:
    """Draw the curves; the suffix of the path says the format.

    Args:
        rows: of `video_curves.compare`.
        path: is overwritten.
        log_rate: on a logarithmic axis equal distances are equal savings.
    """
    lines = [
        Line(
            _label(row),
            row.ours,
            False,
            [
                [
                    (point.bpp, value)
                    for point in row.points
                    if (value := quality(point)) is not None
                ]
                for quality in _PANELS.values()
            ],
        )
        for row in rows
    ]
    count = len({result.digest for result in rows[0].clips})
    title = f"{rows[0].case}, mean of {count} clip{'s' if count > 1 else ''}"
    legend = f"size against {rows[0].anchor}\nat equal YUV PSNR (BD-rate)"
    draw(lines, list(_PANELS), "bits per pixel, whole files", title, legend, path, log_rate)


def _label(row: Row) -> str:
    name = f"latentpack {row.codec}" if row.ours else row.codec
    return name if row.bd_rate is None else f"{row.bd_rate:+.1f} %  {name}"
