"""Curves of sound codecs as a picture: PESQ, STOI and mel distance over the rate of whole files."""

from pathlib import Path

from latentpack.scripts.curves_plot import Line, draw
from latentpack.scripts.sound_curves import Row

_PANELS = {
    "pesq_wb": "PESQ, wide-band",
    "stoi": "STOI",
    "mel": "mel distance (less is better)",
}
_MOST_KBPS = 40.0  # of a linear axis; beyond it speech sounds alike


def plot(rows: list[Row], path: Path, log_rate: bool) -> None:
    """Draw the curves; the suffix of the path says the format.

    Args:
        rows: of `sound_curves.compare`.
        path: is overwritten.
        log_rate: on a logarithmic axis equal distances are equal savings.
    """
    of_codec: dict[str, list[Row]] = {}
    for row in rows:
        if log_rate or row.kbps_file <= _MOST_KBPS:
            of_codec.setdefault(row.codec, []).append(row)
    lines = [
        Line(
            f"latentpack {name}" if points[0].ours else name,
            points[0].ours,
            False,
            [
                [
                    (row.kbps_file, value)
                    for row in points
                    if (value := getattr(row, field)) is not None
                ]
                for field in _PANELS
            ],
        )
        for name, points in of_codec.items()
    ]
    count = rows[0].n
    title = f"{rows[0].case}, mean of {count} sound{'s' if count > 1 else ''}"
    draw(lines, list(_PANELS.values()), "kbit/s, whole files", title, "codec", path, log_rate)
