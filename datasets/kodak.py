"""The Kodak pictures: whether a folder holds them, and curves of other codecs on them.

Curves of other pictures can't be compared with these. `kodak_curves.json` says of each curve
where it comes from.
"""

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

_PICTURES, _SIDES = 24, (512, 768)


@dataclass(frozen=True)
class Curve:
    """A codec on the 24 pictures.

    Attributes:
        name: that of `picture_peers.py` where the settings are the same.
        source: how it was measured, or where it was published.
        drawn: it is one of the few that a plot has room for.
        points: means over the pictures: bits per pixel of whole files, PSNR of RGB in dB, and
            MS-SSIM where it is known.
    """

    name: str
    source: str
    drawn: bool
    points: tuple[tuple[float, float, float | None], ...]


def is_kodak(files: Sequence[Path]) -> bool:
    """Whether these are the 24 pictures, by their names (kodim01 to kodim24) and sizes."""
    numbers = [re.fullmatch(r"kodim(\d\d)", file.stem) for file in files]
    found = sorted(int(number[1]) for number in numbers if number)
    if len(files) != _PICTURES or found != list(range(1, _PICTURES + 1)):
        return False
    for file in files:
        with Image.open(file) as picture:
            if tuple(sorted(picture.size)) != _SIDES:
                return False
    return True


def curves() -> list[Curve]:
    """All stored curves."""
    path = Path(__file__).with_name("kodak_curves.json")
    return [
        Curve(
            curve["name"],
            curve["source"],
            curve["drawn"],
            tuple((bpp, psnr, *similarity) if similarity else (bpp, psnr, None)
                  for bpp, psnr, *similarity in curve["points"]),
        )
        for curve in json.loads(path.read_text(encoding="utf-8"))["curves"]
    ]  # fmt: skip
