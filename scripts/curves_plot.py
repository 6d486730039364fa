"""Curves of codecs as a picture: qualities over the rate, a panel for each."""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

_OURS = ("#d62728", "#1f5fb4", "#2a8f2a", "#8a3ab0", "#e07b00")
_OTHERS = ("#7b94ad", "#9a8c5f", "#7da487", "#b08a9c", "#8f8f8f", "#5f8f99", "#c0a070", "#8d86b5")


@dataclass(frozen=True)
class Line:
    """A codec in all panels.

    Attributes:
        label: in the legend.
        ours: drawn in strong colours.
        stored: drawn with dashes.
        panels: for each panel the (rate, quality) of its points.
    """

    label: str
    ours: bool
    stored: bool
    panels: Sequence[Sequence[tuple[float, float]]]


def draw(
    lines: Sequence[Line],
    qualities: Sequence[str],
    rate: str,
    title: str,
    legend: str,
    path: Path,
    log_rate: bool,
) -> None:
    """Draw the curves; the suffix of the path says the format.

    Args:
        lines: in the order of the legend.
        qualities: label of each panel.
        rate: label of the rate.
        title: of all.
        legend: title of the legend.
        path: is overwritten.
        log_rate: on a logarithmic axis equal distances are equal savings.
    """
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(
        1, len(qualities), figsize=(3 + 6 * len(qualities), 6.2), layout="constrained"
    )
    styles = _styles(lines)
    for number, (axis, quality) in enumerate(zip(axes, qualities, strict=True)):
        for line, style in zip(lines, styles, strict=True):
            points = line.panels[number]
            axis.plot(
                [x for x, _ in points],
                [y for _, y in points],
                linestyle="--" if line.stored else "-",
                label=line.label,
                **style,
            )
        axis.set_xlabel(rate, fontsize=12)
        axis.set_ylabel(quality, fontsize=12)
        if log_rate:
            _logarithmic(axis)
        axis.grid(alpha=0.3, which="both")
    handles, labels = axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside right upper", fontsize=10.5, frameon=False,
                  title=legend, alignment="left")  # fmt: skip
    figure.suptitle(title, fontsize=12)
    figure.savefig(path, dpi=110)
    pyplot.close(figure)


def _logarithmic(axis: Any) -> None:
    from matplotlib import ticker

    axis.set_xscale("log")
    axis.xaxis.set_major_locator(ticker.LogLocator(subs=(1, 2, 5)))
    axis.xaxis.set_major_formatter("{x:g}")
    axis.xaxis.set_minor_formatter(ticker.NullFormatter())


def _styles(lines: Sequence[Line]) -> list[dict[str, Any]]:
    """Ours in strong colours and wide lines before the others, which also differ in their marks."""
    colours = itertools.cycle(_OURS), itertools.cycle(_OTHERS)
    marks = itertools.cycle("os^Dvp")
    return [
        {"color": next(colours[0]), "linewidth": 2.6, "marker": "o", "markersize": 5, "zorder": 3}
        if line.ours
        else {"color": next(colours[1]), "linewidth": 1.2, "marker": next(marks), "markersize": 4}
        for line in lines
    ]
