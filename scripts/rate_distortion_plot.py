"""Rate-distortion curves as a picture: PSNR and MS-SSIM over the rate."""

import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Any

from latentpack.scripts.rate_distortion import Point, Row, ms_ssim_db

_MOST_BPP = 2.0  # of a linear axis; beyond it pictures look alike
_OURS = ("#d62728", "#1f5fb4", "#2a8f2a", "#8a3ab0", "#e07b00")
_OTHERS = ("#7b94ad", "#9a8c5f", "#7da487", "#b08a9c", "#8f8f8f", "#5f8f99", "#c0a070", "#8d86b5")
_PANELS: list[tuple[str, Callable[[Point], float | None]]] = [
    ("PSNR of RGB (dB)", lambda point: point.psnr_db),
    ("MS-SSIM (dB: -10 log10(1 - x))", ms_ssim_db),
]


def plot(rows: list[Row], path: Path, log_rate: bool) -> None:
    """Draw the curves; the suffix of the path says the format.

    Args:
        rows: of `rate_distortion.compare`.
        path: is overwritten.
        log_rate: on a logarithmic axis equal distances are equal savings.
    """
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot, ticker

    shown = sorted((row for row in rows if row.drawn), key=lambda row: row.bd_rate_vs_jpeg or 0.0)
    styles = _styles(shown)
    figure, axes = pyplot.subplots(1, 2, figsize=(15, 6.2), layout="constrained")
    for axis, (label, quality) in zip(axes, _PANELS, strict=True):
        for row, style in zip(shown, styles, strict=True):
            pairs = [(point.bpp, quality(point)) for point in row.points]
            pairs = [pair for pair in pairs if pair[1] is not None]
            pairs = [pair for pair in pairs if log_rate or pair[0] <= _MOST_BPP]
            axis.plot(
                [bpp for bpp, _ in pairs],
                [value for _, value in pairs],
                linestyle="--" if row.stored else "-",
                label=_label(row),
                **style,
            )
        axis.set_xlabel("bits per pixel, whole files", fontsize=12)
        axis.set_ylabel(label, fontsize=12)
        if log_rate:
            axis.set_xscale("log")
            axis.xaxis.set_major_locator(ticker.LogLocator(subs=(1, 2, 5)))
            axis.xaxis.set_major_formatter("{x:g}")
            axis.xaxis.set_minor_formatter(ticker.NullFormatter())
        axis.grid(alpha=0.3, which="both")
    handles, labels = axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside right upper", fontsize=10.5, frameon=False,
                  title="size against JPEG\nat equal PSNR (BD-rate)", alignment="left")  # fmt: skip
    figure.suptitle(title(rows), fontsize=12)
    figure.savefig(path, dpi=110)
    pyplot.close(figure)


def _styles(rows: list[Row]) -> list[dict[str, Any]]:
    """Ours in strong colours and wide lines before the others, which also differ in their marks."""
    colours = itertools.cycle(_OURS), itertools.cycle(_OTHERS)
    marks = itertools.cycle("os^Dvp")
    return [
        {"color": next(colours[0]), "linewidth": 2.6, "marker": "o", "markersize": 5, "zorder": 3}
        if row.ours
        else {"color": next(colours[1]), "linewidth": 1.2, "marker": next(marks), "markersize": 4}
        for row in rows
    ]


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
